"""`poolsrv.running`: a server for the time of a block, in the process that has it."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from poolsrv import _core
from poolsrv.errors import ConfigError
from poolsrv.listeners import url_of
from poolsrv.settings.sources import read
from poolsrv.single.embedded import Embedded
from poolsrv.worker.loader import require


@dataclass(frozen=True, slots=True)
class Running:
    """Where a server is, within a `running` block.

    `url` has no slash at its end; `host` and `port` are those of the first address, or None for
    a Unix socket, whose `path` there is then. `admin_url` is that of metrics and status page.
    """

    url: str
    urls: tuple[str, ...]
    host: str | None
    port: int | None
    path: str | None
    admin_url: str | None


@contextmanager
def running(application: Callable[..., Any], **options: object) -> Iterator[Running]:
    """Serve a WSGI application in this process for the time of the block: for tests.

    `options` are those of `serve`, as values or text. By default it listens on a free port of
    127.0.0.1, request_timeout is 0 (you may stop in a debugger) and graceful_timeout 5 seconds;
    environment and poolsrv.toml are not read. Its messages go to the logger "poolsrv" as that
    is. Several may run at once, on any thread. It needs no signals, and leaves nothing behind:
    but a thread that does not come back from the application in time, of which it warns.
    Raises ConfigError, ApplicationError or ListenError.
    """
    require(application)
    usual = {
        "bind": "127.0.0.1:0",
        "admin": None,
        "config": None,
        "processes": 0,
        "request_timeout": 0,
        "graceful_timeout": 5,
    }
    reading = read({}, keywords=usual | options)
    if reading.faults:
        raise ConfigError("\n".join(map(str, reading.faults)))
    settings = reading.settings
    if settings.processes:
        raise ConfigError("running() serves in this process", "leave processes out")
    imports: list[str] = [
        name for name in ("application", "chdir", "pythonpath") if name in options
    ]
    if any(mount.application for mount in settings.mount):
        imports.append("mount")
    if imports:
        names = ", ".join(imports)
        raise ConfigError(
            f"{names}: running() serves the object that it is given, and imports none",
            "leave it out; a mount may name a folder",
        )
    if settings.idle:
        names = ", ".join(settings.idle)
        raise ConfigError(f"{names}: needs a supervisor, and running() has none", "leave it out")
    mounts = settings.all_mounts(called=True)
    embedded = Embedded(settings, (application,), mounts, _core.DRAIN_REQUESTS)
    embedded.start(dispatches=True)
    born = os.getpid()
    try:
        yield _place(embedded)
    finally:
        if os.getpid() == born:  # a child that was forked meanwhile has nothing of it
            embedded.stop()
            if left := embedded.join():
                warnings.warn(
                    f"the application keeps {len(left)} threads of the server: {', '.join(left)}",
                    RuntimeWarning,
                    stacklevel=3,
                )


def _place(embedded: Embedded) -> Running:
    first = embedded.listeners[0]
    name = first.socket.getsockname()
    host, port = (None, None) if first.is_unix else name[:2]
    return Running(
        url=url_of(first),
        urls=tuple(url_of(listener) for listener in embedded.listeners),
        host=host,
        port=port,
        path=os.fsdecode(name) if first.is_unix else None,
        admin_url=url_of(embedded.admin) if embedded.admin is not None else None,
    )
