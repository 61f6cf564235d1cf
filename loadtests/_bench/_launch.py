"""Start a server that has no command line, or no processes of its own.

    python -m loadtests._bench._launch NAME MODULE:CALLABLE HOST PORT PROCESSES [THREADS]

Each of several processes listens for itself (SO_REUSEPORT), as these servers
are commonly run: one socket for all would wake them all for each connection.
"""

import importlib
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

_BACKLOG = 4096
_CONNECTIONS = 8192
_IDLE_SECONDS = 75


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Accepted sockets inherit it, and not all of these servers set it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind((host, port))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _waitress(app: Any, host: str, port: int, threads: int) -> None:
    import waitress

    waitress.serve(
        app,
        sockets=[_listener(host, port)],
        threads=threads,
        connection_limit=_CONNECTIONS,
        channel_timeout=_IDLE_SECONDS,
        asyncore_use_poll=True,  # select() ends at descriptor 1024
    )


def _cheroot(app: Any, host: str, port: int, threads: int) -> None:
    from cheroot import wsgi

    server = wsgi.Server(
        (host, port),
        app,
        numthreads=threads,
        max=threads,
        request_queue_size=_BACKLOG,
        timeout=_IDLE_SECONDS,
        reuse_port=True,
    )
    server.keep_alive_conn_limit = _CONNECTIONS
    server.start()


def _bjoern(app: Any, host: str, port: int, _threads: int) -> None:
    import bjoern

    bjoern.server_run(_listener(host, port), app)


def _fastwsgi(app: Any, host: str, port: int, _threads: int) -> None:
    import fastwsgi

    fastwsgi.server.backlog = _BACKLOG
    fastwsgi.server.tcp_nodelay = 1
    fastwsgi.server.reuse_port = 1
    fastwsgi.run(app, host, port)


_SERVERS: dict[str, Callable[[Any, str, int, int], None]] = {
    "waitress": _waitress,
    "cheroot": _cheroot,
    "bjoern": _bjoern,
    "fastwsgi": _fastwsgi,
}


def main(name: str, app: str, host: str, port: str, processes: str, threads: str = "1") -> None:
    module, _, attribute = app.partition(":")
    application = getattr(importlib.import_module(module), attribute)
    # The first process serves as well. Nobody handles SIGTERM here: it ends
    # this process, and who started it ends the others.
    for _ in range(int(processes) - 1):
        if os.fork() == 0:
            break
    _SERVERS[name](application, host, int(port), int(threads))


if __name__ == "__main__":
    main(*sys.argv[1:])
