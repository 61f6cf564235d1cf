"""The scoreboard as Python sees it: its fields by name, and readings of it.

The table of fields stands in csrc/common/scoreboard_fields.h; this module learns it from
the C core and adds none. It only reads: writers use `_core.Scoreboard`. A
number stays what the table stores (times are nanoseconds); whoever shows it
converts it.
"""

import enum
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType

from poolsrv import _core


class Kind(enum.Enum):
    """What a field's numbers do, as the table names it."""

    COUNTER = "COUNTER"  # only grows
    GAUGE = "GAUGE"  # may fall
    HISTOGRAM = "HISTOGRAM"  # a count per bucket, the count beyond, the sum


class ThreadState(enum.IntEnum):
    """What a thread does now: `ThreadState` of csrc/common/scoreboard.h."""

    IDLE = _core.THREAD_IDLE
    APPLICATION = _core.THREAD_APPLICATION
    READING = _core.THREAD_READING
    WRITING = _core.THREAD_WRITING
    UPGRADED = _core.THREAD_UPGRADED
    FILE = _core.THREAD_FILE


@dataclass(frozen=True, slots=True)
class Field:
    """A row of the table, at this `place` in it: `words` 64-bit words from `index` on.

    `unit` is "", "seconds" (stored as nanoseconds) or "bytes". `metric` is the
    exported name without prefix and `_total`, "" if it has none. `label` is ""
    or the name of the label of which each word counts one of `values`.
    """

    place: int
    row: str
    name: str
    kind: Kind
    index: int
    words: int
    unit: str
    metric: str
    label: str
    values: tuple[str, ...]
    help: str


def _fields() -> Iterable[Field]:
    for place, field in enumerate(_core.FIELDS):
        row, name, kind, index, words, unit, metric, labels, text = field
        label, *values = labels.split("|")
        yield Field(
            place,
            row,
            name,
            Kind(kind),
            index,
            words,
            unit,
            metric,
            label,
            tuple(values),
            text,
        )


FIELDS: tuple[Field, ...] = tuple(_fields())

# The longest time in each bucket of a histogram, in nanoseconds; one without follows.
UPPERS: tuple[int, ...] = _core.UPPERS

# Those that the metrics show: their buckets are unions of the fine ones.
BOUNDS: tuple[int, ...] = _core.BOUNDS

_LAST_WITHIN = tuple(UPPERS.index(bound) for bound in BOUNDS)


def up_to_bounds(counts: Iterable[int]) -> tuple[int, ...]:
    """How many times are within each of BOUNDS, and how many in all; `counts` by bucket."""
    within = tuple(accumulate(counts))
    return (*(within[bucket] for bucket in _LAST_WITHIN), within[-1])


def quantile(share: float, counts: Sequence[int]) -> int | None:
    """The time that this share of the times is at most; None if there are none.

    The middle of its bucket, hence within 3.2 % of the truth from 1 us to 18
    minutes: a line through the bucket would be further off where all times are
    alike. `counts` by bucket.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    bucket = next(at for at, within in enumerate(accumulate(counts)) if within >= rank)
    lower = UPPERS[bucket - 1] if bucket else 0
    return (lower + UPPERS[bucket]) // 2 if bucket < len(UPPERS) else lower


class Layout:
    """Where the fields of one kind of row are."""

    def __init__(self, row: str) -> None:
        self.row = row
        self.fields: Mapping[str, Field] = MappingProxyType(
            {field.name: field for field in FIELDS if field.row == row}
        )
        self.words = max(field.index + field.words for field in self.fields.values())
        self._gauges = [
            index
            for field in self.fields.values()
            if field.kind is Kind.GAUGE
            for index in range(field.index, field.index + field.words)
        ]

    def zero(self) -> "Row":
        return Row(self, (0,) * self.words)

    @property
    def place(self) -> int:
        """That of its first field in the table: what the core knows a kind of row by."""
        return next(iter(self.fields.values())).place

    def sum(self, first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
        """Two readings of such rows, added up word by word."""
        return tuple(map(operator.add, first, second))

    def not_below(self, floor: Sequence[int], words: Sequence[int]) -> tuple[int, ...]:
        """`words`, but no counter lower than it is in `floor`."""
        result = list(map(max, floor, words))
        for index in self._gauges:
            result[index] = words[index]
        return tuple(result)


SUPERVISOR = Layout("supervisor")
SLOT = Layout("slot")
WORKER = Layout("worker")
THREAD = Layout("thread")
LAYOUTS = {layout.row: layout for layout in (SUPERVISOR, SLOT, WORKER, THREAD)}
_OF_SLOTS = (SLOT, WORKER, THREAD)


@dataclass(frozen=True, slots=True)
class Row:
    """The words of a row, or of several added up, at one moment."""

    layout: Layout
    words: tuple[int, ...]

    def __getitem__(self, name: str) -> int:
        """The one word of a field, or the first."""
        return self.words[self.layout.fields[name].index]

    def all(self, name: str) -> tuple[int, ...]:
        """Every word of a field."""
        field = self.layout.fields[name]
        return self.words[field.index : field.index + field.words]

    def by_value(self, name: str) -> dict[str, int]:
        """The words of a field with a label, by the label's values."""
        return dict(zip(self.layout.fields[name].values, self.all(name), strict=True))


def total(layout: Layout, rows: Iterable[Row]) -> Row:
    """The rows added up, word by word."""
    words = (row.words for row in rows)
    return Row(layout, tuple(map(sum, zip(layout.zero().words, *words, strict=True))))


@dataclass(frozen=True, slots=True)
class Running:
    """A request that a thread is in. Times in monotonic nanoseconds.

    `method` and `path` are the client's words: escape them. `path` has no
    query and is cut at 159 bytes.
    """

    thread: int
    state: ThreadState
    since: int
    ready: int
    method: str
    path: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot at one moment.

    `threads` is the sum of the slot's thread rows, running requests' time
    included; `load` is the requests reserved or running, `limit` how many the
    supervisor gives it at most. `group` is "" in a server that has one.
    """

    group: str
    number: int
    slot: Row
    worker: Row
    threads: Row
    busy: int
    load: int
    limit: int
    running: tuple[Running, ...]

    @property
    def name(self) -> str:
        """By which people know it, and labels."""
        return f"{self.group}/{self.number}" if self.group else str(self.number)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole scoreboard, read at `now` (monotonic nanoseconds).

    `slots` are those that have ever had a process, also under a supervisor
    before this one. `threads` is the sum of their threads.
    """

    now: int
    supervisor: Row
    slots: tuple[Slot, ...]
    threads: Row


class Reader:
    """Reads the scoreboard of a group of processes; counters never step back.

    They could, by as little as the time between two looks at one running
    request, and `rate()` takes any dip for a restart and counts the whole
    counter anew. So each word of a counter is at least what it was in the
    reading before; sums of such words do not step back either.
    """

    def __init__(self, fd: int, group: str = "") -> None:
        """`fd` stays the caller's. Raises OSError (EINVAL) if it is no scoreboard."""
        self.group = group
        self._board = _core.Scoreboard(fd)
        self._floors: dict[tuple[Layout, int], tuple[int, ...]] = {}

    def read(self, now: int) -> Snapshot:
        """Everything, at `now` (monotonic nanoseconds, not before the last reading)."""
        slots = tuple(
            self._slot(number, now)
            for number in range(self._board.slot_count)
            if self._used(number)
        )
        return Snapshot(
            now,
            self._row(SUPERVISOR, 0, self._board.supervisor()),
            slots,
            total(THREAD, (slot.threads for slot in slots)),
        )

    def _used(self, number: int) -> bool:
        if Row(SLOT, self._board.slot(number))["spawned_at"] != 0:
            return True
        return any(any(self._board.carried(layout.place, number)) for layout in _OF_SLOTS)

    def _slot(self, number: int, now: int) -> Slot:
        load, limit = self._board.load(number)
        running = tuple(
            Running(thread, ThreadState(state), since, ready, *map(_text, texts))
            for thread, state, since, ready, *texts in self._board.current(number)
        )
        return Slot(
            self.group,
            number,
            self._row(SLOT, number, self._board.slot(number)),
            self._row(WORKER, number, self._board.worker(number)),
            self._row(THREAD, number, self._board.totals(number, now)),
            len(running),
            load,
            limit,
            running,
        )

    def _row(self, layout: Layout, number: int, words: tuple[int, ...]) -> Row:
        words = layout.sum(words, self._board.carried(layout.place, number))
        floor = self._floors.get((layout, number))
        if floor is not None:
            words = layout.not_below(floor, words)
        self._floors[layout, number] = words
        return Row(layout, words)


def _text(raw: bytes) -> str:
    """Bytes of a request, torn perhaps, as ASCII; others as \\x.."""
    return raw.decode("ascii", "backslashreplace")
