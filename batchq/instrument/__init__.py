"""Ready-made watchers: hooks that write logs, count for Prometheus, or trace.

Rule 1: public hooks only, so that each is also an example of how to write one's own.
Rule 2: a file per tool, which alone imports it.
"""
