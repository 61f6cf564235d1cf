"""What the kernel is asked for: processes, signals, rights, sockets, locks. Any process."""
