"""Floor 0: decisions only. No trio, no clock, no threads, no randomness, no I/O."""
