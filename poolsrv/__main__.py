"""`python -m poolsrv` is `poolsrv`."""

from poolsrv.commands.cli import main

main()
