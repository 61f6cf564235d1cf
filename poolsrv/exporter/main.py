"""The exporter process: its signals, its one wait, and what it answers where."""

import asyncio
import dataclasses
import json
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address

from prometheus_client import CollectorRegistry

from poolsrv.between.messages import END_EXPORTER
from poolsrv.between.scoreboard import Reader
from poolsrv.exporter import About, Boards
from poolsrv.exporter.collector import PoolCollector, encode
from poolsrv.exporter.page import POLICY, page
from poolsrv.exporter.pulse import beats
from poolsrv.exporter.reading import Reading, Source
from poolsrv.exporter.server import Handler, Request, Response, Server
from poolsrv.exporter.status import ready, status
from poolsrv.system.forks import SIGNALS


def serve(
    listener: socket.socket, boards: Boards, supervisor_pidfd: int, bell: int, about: About
) -> None:
    """See poolsrv.exporter.run."""
    # The supervisor decides what these mean; a terminal sends them to all.
    for number in set(SIGNALS) - {END_EXPORTER, signal.SIGCHLD}:
        signal.signal(number, signal.SIG_IGN)
    # What the supervisor reads from a descriptor it has blocked, and a child inherits that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    asyncio.run(_serve(listener, boards, supervisor_pidfd, bell, about, END_EXPORTER))


def serve_within(
    listener: socket.socket,
    boards: Boards,
    end: int,
    bell: int,
    about: About,
    begun: Callable[[], None],
) -> None:
    """See poolsrv.exporter.run_within."""
    asyncio.run(_serve(listener, boards, end, bell, about, None, begun))


async def _serve(
    listener: socket.socket,
    boards: Boards,
    end: int,
    bell: int,
    about: About,
    end_signal: signal.Signals | None,
    begun: Callable[[], None] = lambda: None,
) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    if end_signal is not None:
        loop.add_signal_handler(end_signal, over.set)
    loop.add_reader(end, _ended, loop, end, over)
    readers = [Reader(fd, group if len(boards) > 1 else "") for group, fd in boards.items()]
    routes = Routes(Source(readers, about), bell, Hosts.of(listener))
    begun()
    await Server(routes.table()).serve(listener, over)


def _ended(loop: asyncio.AbstractEventLoop, end: int, over: asyncio.Event) -> None:
    # It stays readable.
    loop.remove_reader(end)
    over.set()


UNAVAILABLE = Response(
    b"the supervisor does not answer: it is stopped, or gets no CPU\n",
    status=HTTPStatus.SERVICE_UNAVAILABLE,
)

MISDIRECTED = Response(
    b"This name is not known here. Use the IP address or the name of the machine; a proxy in"
    b" front should set Host to localhost.\n",
    status=HTTPStatus.MISDIRECTED_REQUEST,
)


@dataclass(frozen=True, slots=True)
class Hosts:
    """By which names the pages that show requests may be asked for.

    A page of anybody's can have its own name resolved to this address (DNS
    rebinding), and a browser then takes our pages for its own. It cannot do so
    with an address, nor with a name that no public server can resolve: so these
    are allowed, and the machine's own.
    """

    any: bool  # a Unix socket is out of a browser's reach
    names: frozenset[str]

    @classmethod
    def of(cls, listener: socket.socket) -> "Hosts":
        own = {name.lower() for name in (socket.gethostname(), socket.getfqdn())}
        return cls(listener.family == socket.AF_UNIX, frozenset(own))

    def allow(self, request: Request) -> bool:
        if self.any:
            return True
        host = request.fields.get("host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        try:
            ip_address(name.strip("[]"))
        except ValueError:
            return "." not in name or name.endswith(".localhost") or name in self.names
        return True


class Routes:
    """The paths of the admin address."""

    def __init__(self, source: Source, bell: int, hosts: Hosts) -> None:
        self._source = source
        self._bell = bell
        self._hosts = hosts
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

    async def status_page(self, request: Request) -> Response:
        if not self._hosts.allow(request):
            return MISDIRECTED
        return Response(
            page(status(self._read())),
            "text/html; charset=utf-8",
            fields={"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"},
        )

    async def status_json(self, request: Request) -> Response:
        if not self._hosts.allow(request):
            return MISDIRECTED
        body = json.dumps(dataclasses.asdict(status(self._read())), indent=1).encode()
        return Response(body, "application/json")

    async def metrics(self, request: Request) -> Response:
        return Response(*encode(self._registry, request.fields.get("accept", "")))

    async def alive(self, _: Request) -> Response:
        """The supervisor is at work; that it lives is clear, or this process would not."""
        if await beats(self._bell):
            return Response(b"ok\n")
        return UNAVAILABLE

    async def ready(self, _: Request) -> Response:
        verdict = ready(self._read())
        if not verdict.yes:
            return Response(f"{verdict.reason}\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)
        if not await beats(self._bell):
            return UNAVAILABLE
        return Response(f"{verdict.reason}\n".encode())
