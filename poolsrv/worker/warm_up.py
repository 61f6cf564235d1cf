"""Requests that a worker makes to its own applications before it is ready.

Runs in a worker, on its main thread. What comes of a request is thrown away, but a failure
ends the start: better an old generation that serves than a new one that cannot.
"""

import contextvars
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

from poolsrv.errors import ApplicationError
from poolsrv.settings.mounts import DEFAULT_GROUP, Mount, applications, find, own_of
from poolsrv.worker.loader import guarded

Application = Callable[..., Any]


def warm_up(
    paths: Iterable[str],
    mounts: Sequence[Mount],
    loaded: Sequence[Application],
    template: dict[str, object],
    group: str = DEFAULT_GROUP,
    interpreter: int = 1,
) -> None:
    """GET each of them, `/path` or `host/path`, one after the other. Raises ApplicationError.

    Those that lead to another group of processes than this one, or another interpreter, are
    its matter.
    """
    places = applications(own_of(mounts, group))
    for text in paths:
        host, _, path = text.partition("/")
        target, _, query = f"/{path}".partition("?")
        plain = unquote_to_bytes(target).decode("latin-1")
        mount = find(mounts, host.partition(":")[0], plain.encode("latin-1"))
        if mount is None or not mount.has_application:
            raise ApplicationError(
                f"--warm-up {text}: no application is mounted there",
                "poolsrv config shows the mounts; a host stands in front: --warm-up a.org/path",
            )
        if mount.group != group or mount.interpreter not in (0, interpreter):
            continue
        prefix = mount.script.decode("latin-1")
        environ = template | {
            "SCRIPT_NAME": prefix,
            "PATH_INFO": plain.removeprefix(prefix),
            "QUERY_STRING": query,
            "REQUEST_URI": f"/{path}",
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_PORT": "",
            "HTTP_HOST": host or str(template["SERVER_NAME"]),
            "HTTP_USER_AGENT": "poolsrv",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "poolsrv.request_id": "warm-up",
            "poolsrv.set_timeout": lambda seconds: None,
        }
        application = loaded[places.index(mount.application)]
        status = guarded(f"--warm-up {text} failed", partial(_get, application, environ))
        if not status[:1].isdigit() or int(status[0]) > 3:
            raise ApplicationError(
                f"--warm-up {text}: the application answered {status or 'without start_response'}",
                "give a path that it serves to everybody; one that asks for its host is written "
                "with it: --warm-up a.org/path",
            )


def _get(application: Application, environ: dict[str, Any]) -> str:
    """The status of the answer."""
    said = [""]

    def start_response(
        status: str, headers: object, exc_info: object = None
    ) -> Callable[[bytes], object]:
        said[0] = status
        return lambda data: None

    def ask() -> None:
        answer = application(environ, start_response)
        try:
            for _ in answer:
                pass
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()

    contextvars.copy_context().run(ask)
    return said[0]
