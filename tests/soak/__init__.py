"""A run under every fault at once, for a bounded time: ``python -m tests.soak``."""
