"""Ready-made functions to register as handlers: one file per kind of work."""
