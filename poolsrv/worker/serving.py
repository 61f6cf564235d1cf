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
from poolsrv.between.claims import at_service_start
from poolsrv.errors import RequestTimeout
from poolsrv.settings.core import core_options
from poolsrv.settings.mounts import Mount
from poolsrv.settings.rows import Settings
from poolsrv.worker.applications import Application, core_mounts, script_names
from poolsrv.worker.errors import ErrorStream
from poolsrv.worker.hooks import run_hook
from poolsrv.worker.upgrade import offer
from poolsrv.worker.warm_up import warm_up

_log = logging.getLogger("poolsrv")


@dataclass(frozen=True, slots=True)
class Site:
    """What environ says of the listener that a connection came by."""

    name: str
    port: str


def begin_work(
    settings: Settings,
    mounts: Sequence[Mount],
    loaded: tuple[Application, ...],
    templates: tuple[dict[str, object], ...],
    interpreter: int = 1,
) -> None:
    """What the settings ask for before the first request, in this interpreter. Raises
    ApplicationError."""
    if settings.on_service_start is not None:
        at_service_start(lambda: run_hook("on-service-start", settings.on_service_start))
    run_hook("on-worker-start", settings.on_worker_start)
    if settings.warm_up:
        warm_up(settings.warm_up, mounts, loaded, templates[0], settings.group_name, interpreter)


def core_applications(
    settings: Settings,
    loaded: tuple[Application, ...],
    mounts: Sequence[Mount],
    templates: tuple[dict[str, object], ...],
    on_left: Callable[[BaseException | None], NoReturn],
    errors: Callable[[_core.Applications, int], ErrorStream] = ErrorStream,
) -> _core.Applications:
    """What the core calls in this interpreter, and what calls it back."""
    return _core.Applications(
        loaded,
        script_names=script_names(core_mounts(mounts, settings.group_name, settings.group_names)),
        templates=templates,
        options=core_options(settings),
        errors=errors,
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
