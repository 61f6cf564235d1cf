"""What the core is given in an interpreter: applications, environ, what it calls back.

Runs in a worker, in each interpreter that serves.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from poolsrv import _core
from poolsrv import operator_messages as say
from poolsrv._version import __version__
from poolsrv.errors import RequestTimeout
from poolsrv.settings.core import core_options
from poolsrv.settings.mounts import Mount
from poolsrv.settings.rows import Settings
from poolsrv.worker.applications import Application, core_mounts, script_names
from poolsrv.worker.errors import ErrorStream
from poolsrv.worker.upgrade import offer

_log = logging.getLogger("poolsrv")


@dataclass(frozen=True, slots=True)
class Site:
    """What environ says of the listener that a connection came by."""

    name: str
    port: str


def core_applications(
    settings: Settings,
    loaded: tuple[Application, ...],
    mounts: Sequence[Mount],
    templates: tuple[dict[str, object], ...],
    on_left: Callable[[BaseException | None], NoReturn],
) -> _core.Applications:
    """What the core calls in this interpreter, and what calls it back."""
    return _core.Applications(
        loaded,
        script_names=script_names(core_mounts(mounts, settings.group_name, settings.group_names)),
        templates=templates,
        options=core_options(settings),
        errors=ErrorStream,
        on_error=_log_error,
        on_left=on_left,
        offer=offer,
        timeout=RequestTimeout,
    )


def templates_of(settings: Settings, sites: Iterable[Site]) -> tuple[dict[str, object], ...]:
    """environ for each listener, but for what a request sets."""
    return tuple(_template(settings, site) for site in sites)


def _template(settings: Settings, site: Site) -> dict[str, object]:
    """environ as it is for a bare `GET /` on one listener (PEP 3333, RFC 3875)."""
    # With wsgi.errors, poolsrv.set_timeout and what every request sets, 23 keys:
    # CPython's table of 32 holds 21, so that a copy of this one has room for 19
    # fields. Two keys less, and the first field of each request would make it grow:
    # 800 instructions.
    return {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": site.name,
        "SERVER_PORT": site.port,
        "SERVER_SOFTWARE": f"poolsrv/{__version__}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": settings.threads > 1,
        # A worker that is replaced serves on beside the next one: so there may be
        # two even of one, and only without a supervisor there are never (PEP 3333).
        "wsgi.multiprocess": settings.processes > 0,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": _core.FileWrapper,
    }


def _log_error(
    error: BaseException | None, request_id: str, method: bytes | str, path: bytes | str
) -> None:
    _log.error(
        say.APPLICATION_FAILED,
        exc_info=error,
        extra={"fields": {"request": request_id, "method": method, "path": path}},
    )
