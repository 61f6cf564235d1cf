"""Several groups in one process: for each a board, a dispatcher and a worker, on threads.

Nothing of Python's part is here, so what a test shows is the core's doing alone.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from poolsrv import _core
from poolsrv.settings.core import core_options
from poolsrv.settings.rows import Settings
from poolsrv.worker.networks import network
from tests.test_core import applications, index_of, new_board, options


@dataclass(frozen=True)
class Place:
    """A mount: an application of a group."""

    host: str
    path: str
    group: int


@dataclass
class Group:
    number: int
    board: _core.Scoreboard
    dispatcher: _core.Dispatcher
    worker: _core.Worker
    signals: int  # an eventfd: the worker's main thread is to drain it

    def watch(self) -> None:
        """The worker's main thread: it alone may drain, too."""
        drained = False
        while not drained:
            drained, _, _ = self.worker.watch()
            if not drained and os.read(self.signals, 8):
                self.worker.drain()

    def of_supervisor(self, name: str) -> int:
        return self.board.supervisor()[index_of("supervisor", name)]

    def requests(self) -> int:
        index = index_of("thread", "requests")
        return sum(self.board.totals(0, 0)[index : index + 5])


@dataclass
class Groups:
    address: tuple[str, int]
    groups: list[Group]
    told: list[Any] = field(default_factory=list)
    order: int = -1  # an eventfd that interrupts the dispatcher
    orders: list[Callable[[], None]] = field(default_factory=list)

    def do(self, order: Callable[[], None]) -> None:
        """On the thread that dispatches."""
        self.orders.append(order)
        os.eventfd_write(self.order, 1)

    def dispatch(self) -> None:
        first = self.groups[0].dispatcher
        while (_core.EVENT_DRAINED,) not in self.told:
            for event in first.wait(None):
                self.told.append(event)
                if event == (_core.EVENT_READABLE, 0):
                    os.eventfd_read(self.order)
                    while self.orders:
                        self.orders.pop(0)()

    def accepted(self) -> int:
        return sum(group.of_supervisor("accepted") for group in self.groups)

    def switches(self) -> int:
        return sum(group.of_supervisor("switched") for group in self.groups)


def answer(number: int) -> Callable[..., list[bytes]]:
    """The application of a group: says which, and what it got."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        body = environ["wsgi.input"].read()
        where = f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}"
        text = f"{number} {environ['REQUEST_METHOD']} {where} {len(body)} ".encode() + body[:20]
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text]

    return application


def core_mounts(places: Sequence[Place], group: int) -> tuple[Any, ...]:
    return tuple(
        (
            place.host.encode(),
            place.path.encode(),
            0,
            "application",
            0 if place.group == group else -1,
            -1,
            place.group,
            0,
            (),
        )
        for place in places
    )


def core_routes(places: Sequence[Place]) -> _core.Routes:
    return _core.Routes(
        tuple((place.host.encode(), place.path.encode(), place.group) for place in places)
    )


@contextlib.contextmanager
def grouped(
    places: Sequence[Place],
    made: Sequence[Callable[..., Any]] | None = None,
    *,
    threads: int = 2,
    settings: Settings | None = None,
    enabled: Sequence[int] | None = None,
    beliefs: Mapping[int, Sequence[Place]] | None = None,
) -> Iterator[Groups]:
    """A server with these mounts. `made` are the applications, one for each group; `beliefs`
    are the mounts that the worker of a group knows, if it knows others."""
    count = 1 + max(place.group for place in places)
    wanted = settings if settings is not None else Settings()
    given = core_options(wanted)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        quiet, other = socket.socketpair()
        stack.enter_context(quiet)
        stack.enter_context(other)
        groups: list[Group] = []
        routes = core_routes(places)
        running: list[threading.Thread] = []
        for number in range(count):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(ours)
            stack.enter_context(theirs)
            signals = os.eventfd(0)
            stack.callback(os.close, signals)
            board = new_board(1, threads)
            dispatcher = _core.Dispatcher(board, [listener.fileno()] if number == 0 else [], given)
            stack.callback(dispatcher.close)
            dispatcher.channel(0, ours.fileno(), theirs.fileno())
            dispatcher.enable(0, enabled is None or number in enabled)
            if count > 1:
                dispatcher.set_routes(routes)
            if groups:
                groups[0].dispatcher.join(dispatcher, number)
            chosen = options(
                theirs,
                (quiet.fileno(), signals),
                applications=applications(
                    made[number] if made is not None else answer(number),
                    script_names=tuple(place.path for place in places),
                    templates=(
                        {
                            "REQUEST_METHOD": "GET",
                            "PATH_INFO": "/",
                            "SCRIPT_NAME": "",
                            "QUERY_STRING": "",
                        },
                    ),
                    options=given,
                ),
                bell=dispatcher.bell,
                mounts=core_mounts((beliefs or {}).get(number, places), number),
                group=number,
                options=given,
                trusted=tuple(map(network, wanted.trust_proxy)),
            )
            worker = _core.Worker(board, 0, **chosen)
            groups.append(Group(number, board, dispatcher, worker, signals))
        server = Groups(listener.getsockname(), groups, order=os.eventfd(0))
        stack.callback(os.close, server.order)
        groups[0].dispatcher.watch(server.order, 0)
        dispatching = threading.Thread(target=server.dispatch)
        for group in groups:
            running.append(threading.Thread(target=group.watch))
            running += [
                threading.Thread(target=group.worker.serve, args=(index,))
                for index in range(threads)
            ]
        for thread in (dispatching, *running):
            thread.start()
        try:
            yield server
        finally:
            server.do(groups[0].dispatcher.stop)
            dispatching.join()
            for group in groups:
                os.eventfd_write(group.signals, 1)
            for thread in running:
                thread.join()
