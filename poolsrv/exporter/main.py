"""The exporter process: its signals, its one wait, and what it answers where."""

import asyncio
import dataclasses
import json
import signal
import socket
import time
from http import HTTPStatus

from prometheus_client import CollectorRegistry

from poolsrv.exporter import About
from poolsrv.exporter.collector import PoolCollector, encode
from poolsrv.exporter.page import POLICY, page
from poolsrv.exporter.reading import Reading, Source
from poolsrv.exporter.server import Handler, Request, Response, Server
from poolsrv.exporter.status import ready, status
from poolsrv.forks import SIGNALS
from poolsrv.messages import END_EXPORTER
from poolsrv.scoreboard import Reader


def serve(listener: socket.socket, board_fd: int, supervisor_pidfd: int, about: About) -> None:
    """See poolsrv.exporter.run."""
    # The supervisor decides what these mean; a terminal sends them to all.
    for number in set(SIGNALS) - {END_EXPORTER, signal.SIGCHLD}:
        signal.signal(number, signal.SIG_IGN)
    # What the supervisor reads from a descriptor it has blocked, and a child inherits that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    routes = Routes(Source(Reader(board_fd), about))
    asyncio.run(_serve(listener, supervisor_pidfd, Server(routes.table())))


async def _serve(listener: socket.socket, supervisor_pidfd: int, server: Server) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(END_EXPORTER, over.set)
    loop.add_reader(supervisor_pidfd, _ended, loop, supervisor_pidfd, over)
    await server.serve(listener, over)


def _ended(loop: asyncio.AbstractEventLoop, supervisor_pidfd: int, over: asyncio.Event) -> None:
    # It stays readable.
    loop.remove_reader(supervisor_pidfd)
    over.set()


class Routes:
    """The paths of the admin address."""

    def __init__(self, source: Source) -> None:
        self._source = source
        # Further collectors, such as one for the application's own metrics, go
        # into the same registry.
        self._registry = CollectorRegistry()
        self._registry.register(PoolCollector(self._read))

    def table(self) -> dict[str, Handler]:
        return {
            "/": self.status_page,
            "/status.json": self.status_json,
            "/metrics": self.metrics,
            "/livez": self.alive,
            "/readyz": self.ready,
        }

    def _read(self) -> Reading:
        return self._source.read(time.monotonic_ns())

    def status_page(self, _: Request) -> Response:
        return Response(
            page(status(self._read())),
            "text/html; charset=utf-8",
            fields={"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"},
        )

    def status_json(self, _: Request) -> Response:
        body = json.dumps(dataclasses.asdict(status(self._read())), indent=1).encode()
        return Response(body, "application/json")

    def metrics(self, request: Request) -> Response:
        return Response(*encode(self._registry, request.fields.get("accept", "")))

    def alive(self, _: Request) -> Response:
        """The supervisor lives: else this process would not."""
        return Response(b"ok\n")

    def ready(self, _: Request) -> Response:
        verdict = ready(self._read())
        code = HTTPStatus.OK if verdict.yes else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(f"{verdict.reason}\n".encode(), status=code)
