"""A server within one process: --processes 0, and poolsrv.running."""
