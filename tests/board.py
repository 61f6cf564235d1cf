"""A real scoreboard without a server: the test is the supervisor and the workers."""

import time

from poolsrv import _core
from poolsrv.between.lifecycle import ServerState, State
from poolsrv.between.scoreboard import FIELDS, LAYOUTS, Reader
from poolsrv.exporter import About
from poolsrv.exporter.reading import Reading, Source

SECOND = 1_000_000_000

ABOUT = About(
    version="1.2.3",
    application="shop:app",
    addresses=("http://127.0.0.1:8000",),
    supervisor_pid=4711,
    started_at=1_800_000_000.5,
)


class Board:
    """A scoreboard of `slots` x `threads` whose server started at `started_at`.

    `fd` stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.started_at = time.monotonic_ns()
        self.core = _core.Scoreboard(fd)
        self.supervisor("started_at", self.started_at)
        self.supervisor("state", ServerState.SERVING)
        self.supervisor("wanted", 2)
        self.source = Source([Reader(fd)], ABOUT)

    def supervisor(self, field: str, value: int) -> None:
        self.core.set(place_of("supervisor", field), 0, value)

    def spawn(self, slot: int, state: State = State.READY, pid: int = 0) -> None:
        self.core.set(place_of("slot", "spawned_at"), slot, self.started_at)
        self.core.set(place_of("slot", "state"), slot, state)
        self.core.set(place_of("slot", "pid"), slot, pid)
        self.core.set(place_of("worker", "threads"), slot, self.core.thread_count)

    def count(self, slot: int, field: str, more: int, value: str = "", thread: int = 0) -> None:
        """A thread's counter grows; `value` is of the field's label."""
        word = label_values("thread", field).index(value) if value else 0
        self.core.add(place_of("thread", field), slot, more, word=word, thread=thread)

    def read(self, after: float = 0) -> Reading:
        """A reading so many seconds after the server's start."""
        return self.source.read(self.started_at + round(after * SECOND))


def place_of(row: str, name: str) -> int:
    """The place of a field in the table."""
    return LAYOUTS[row].fields[name].place


def label_values(row: str, name: str) -> tuple[str, ...]:
    """The values of a field's label."""
    return next(field.values for field in FIELDS if (field.row, field.name) == (row, name))
