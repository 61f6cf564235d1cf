"""poolsrv: a WSGI application server for Linux.

    poolsrv serve app:app

or, from Python, `poolsrv.serve(app)` with any WSGI callable.
"""

from typing import TYPE_CHECKING, Any

from poolsrv._version import __version__

if TYPE_CHECKING:
    from poolsrv import shared
    from poolsrv.between.claims import once
    from poolsrv.errors import RequestTimeout
    from poolsrv.launcher import serve
    from poolsrv.single.testing import running

__all__ = ["RequestTimeout", "__version__", "once", "running", "serve", "shared"]


def __getattr__(name: str) -> Any:
    # Loaded when it is used: `poolsrv --version` and applications that only ask
    # for the version should not pay for the server.
    if name == "serve":
        from poolsrv.launcher import serve

        return serve
    if name == "running":
        from poolsrv.single.testing import running

        return running
    if name == "shared":
        import importlib

        return importlib.import_module("poolsrv.shared")
    if name == "once":
        from poolsrv.between.claims import once

        return once
    if name == "RequestTimeout":
        from poolsrv.errors import RequestTimeout

        return RequestTimeout
    raise AttributeError(f"module 'poolsrv' has no attribute {name!r}")
