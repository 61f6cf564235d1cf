"""What runs in the supervisor: one process, one thread, one wait, no user code."""
