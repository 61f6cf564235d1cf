"""How long requests on kept connections take whose worker is pinned, while another is free.

Two workers. Each round takes connections until a worker has kept enough, puts requests into
its threads that hold them, and, once the first byte of each has come, asks on all its other
connections at once: each time at another moment of the tick. The other worker answers them.
Beside that, the same with nothing held: what the way from client to server and back takes.
"""

import random
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from loadtests._bench import _apps
from loadtests._bench._cell import HOST, running
from loadtests._bench._curves import quantile
from loadtests._bench._servers import OURS, Failed
from loadtests._bench._workloads import Shape, Workload

_COUNTS = (1, 4, 16, 64)
_PATIENCE = 10.0
# Two ticks: where in one a request comes is chance.
_LATEST = 0.004
_APP = Workload("held", f"{_apps.__name__}:held", 1, (), "sleeps or computes as told")


@dataclass(frozen=True)
class Pin:
    """`held` of a worker's `threads` are asked for `path`."""

    name: str
    threads: int
    held: int
    path: str


_PINS = (
    Pin("nothing is held", 4, 0, ""),
    Pin("all four threads sleep", 4, 4, "/sleep?0.1"),
    Pin("the only thread computes", 1, 1, "/compute?0.1"),
    Pin("one of four threads computes", 4, 1, "/compute?0.1"),
)


@dataclass
class Found:
    """Seconds from the sending of a request to its answer, of each round; `stayed`: requests
    that the pinned worker answered itself."""

    pin: Pin
    count: int
    rounds: list[list[float]] = field(default_factory=list)
    stayed: int = 0


def measure(rounds: int, seed: int, tell: Callable[[str], None]) -> list[Found]:
    """Raises Failed."""
    found = []
    chance = random.Random(seed)
    for pin in _PINS:
        tell(pin.name)
        shape = Shape(2, pin.threads)
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as folder,
            running(OURS, _APP, shape, Path(folder), Path(sys.executable)) as (port, _),
        ):
            for count in _COUNTS:
                found.append(Found(pin, count))
                for _ in range(rounds):
                    _round(found[-1], port, chance.uniform(0, _LATEST))
    return found


def _round(found: Found, port: int, later: float) -> None:
    pin = found.pin
    with ExitStack() as stack:
        worker, kept = _kept_by_one(stack, port, pin.held + found.count)
        holding, asking = kept[: pin.held], kept[pin.held :]
        for connection in holding:
            _ask(connection, pin.path)
        for connection in holding:
            _receive(connection, b"o")
        time.sleep(later)
        times, stayed = _ask_all(asking, worker)
        found.rounds.append(times)
        found.stayed += stayed
        for connection in holding:
            _receive(connection, b"k")


def _kept_by_one(stack: ExitStack, port: int, count: int) -> tuple[bytes, list[socket.socket]]:
    """A worker, and as many connections that it has kept."""
    by_worker: dict[bytes, list[socket.socket]] = {}
    while True:
        connection = stack.enter_context(socket.create_connection((HOST, port), _PATIENCE))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _ask(connection, "/")
        worker = _worker(_receive(connection, b"ok"))
        kept = by_worker.setdefault(worker, [])
        kept.append(connection)
        if len(kept) == count:
            return worker, kept


def _ask_all(connections: list[socket.socket], worker: bytes) -> tuple[list[float], int]:
    times, stayed = [], 0
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, time.monotonic())
            _ask(connection, "/")
        while selector.get_map():
            ready = selector.select(_PATIENCE)
            if not ready:
                raise Failed(f"{len(selector.get_map())} requests were not answered")
            now = time.monotonic()
            for key, _ in ready:
                times.append(now - key.data)
                selector.unregister(key.fileobj)
                answer = _receive(key.fileobj, b"ok")  # type: ignore[arg-type]
                stayed += _worker(answer) == worker
    return times, stayed


def _ask(connection: socket.socket, path: str) -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())


def _receive(connection: socket.socket, end: bytes) -> bytes:
    """All that comes until these bytes end it."""
    got = b""
    while not got.endswith(end):
        piece = connection.recv(4096)
        got += piece
        if not piece:
            raise Failed(f"the server has closed a connection behind {got[-100:]!r}")
    return got


def _worker(answer: bytes) -> bytes:
    return answer.partition(b"X-Worker: ")[2].partition(b"\r\n")[0]


def markdown(found: list[Found]) -> str:
    """For each round the first answer, and the last; medians and worst of all rounds."""
    lines = [
        "| pinned worker | kept connections that ask | first answer | worst round |"
        " last answer | p90 of the rounds | worst round | stayed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in found:
        first = [min(times) for times in one.rounds]
        last = sorted(max(times) for times in one.rounds)
        figures = [median(first), max(first), median(last), quantile(last, 0.9), max(last)]
        share = one.stayed / sum(map(len, one.rounds))
        lines.append(
            f"| {one.pin.name} | {one.count} | "
            + " | ".join(f"{1e3 * figure:.2f} ms" for figure in figures)
            + f" | {share:.0%} |"
        )
    return "\n".join(lines) + "\n"
