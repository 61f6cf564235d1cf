"""The command line: the commands of poolsrv, and what is written from their table."""
