"""`python -m poolsrv` is `poolsrv`."""

from poolsrv.cli import main

main()
