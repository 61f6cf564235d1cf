"""Every exported metric: name, type, labels, unit, help, and how a reading gives it.

A field of the scoreboard that has a metric's name is a metric as it stands;
those that need a word more are listed here. Knows no exposition format.
reference.py writes them down for people.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from poolsrv.between.lifecycle import State
from poolsrv.between.scoreboard import (
    FIELDS,
    LAYOUTS,
    Field,
    Kind,
    Row,
    Slot,
    total,
    up_to_bounds,
)
from poolsrv.exporter.reading import PYTHON, Reading, seconds, state_of

PREFIX = "poolsrv_"


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts` are cumulative, one for each of BOUNDS and one for all; `sum` in seconds."""

    counts: tuple[int, ...]
    sum: float


Value = float | Histogram

# The values of the labels, in the order of the metric's, and the number.
Sample = tuple[tuple[str, ...], Value]


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` is what a query says: with the prefix and, for a counter, `_total`.

    `samples` are of a group of processes, but for a metric that is `common` to all.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    unit: str
    help: str
    samples: Callable[[Reading], Iterable[Sample]]
    common: bool = False

    def series(self, reading: Reading) -> tuple[tuple[str, ...], Iterator[Sample]]:
        """The labels and the samples; where there are groups, by group."""
        if self.common or not reading.groups:
            return self.labels, iter(self.samples(reading))
        samples = (
            ((group.group, *labels), value)
            for group in reading.groups
            for labels, value in self.samples(group)
        )
        return ("group", *self.labels), samples


# Of the supervisor's fields these are about the one process, not about a group.
_COMMON = frozenset(
    {
        "accepted",
        "accept_errors",
        "loop_busy",
        "loop_lag",
        "maintenance",
        "lines_lost",
        "upgrades",
        "inherited",
        "faults",
    }
)


# Which row of a slot a field is in.
_ROWS: dict[str, Callable[[Slot], Row]] = {
    "slot": lambda slot: slot.slot,
    "worker": lambda slot: slot.worker,
    "thread": lambda slot: slot.threads,
}


def _by_worker(field: Field) -> bool:
    """Whether a metric has a series for each worker.

    What says how a worker is has one. What says how requests fared is the sum,
    as are fields that have a label: 16 workers times a histogram's 18 series
    would be worth nothing to anybody. Busy time is the exception: against the
    threads of each worker it shows whether they share the work.
    """
    if field.row in ("slot", "worker"):
        return not field.label
    return field.name == "busy_time"


def _of_fields(fields: Sequence[Field]) -> Metric:
    """Of the fields with one metric's name, in rows of several kinds: their sum."""
    field = fields[0]
    labels = ("worker",) if _by_worker(field) else ()
    samples = partial(_samples, field) if len(fields) == 1 else partial(_sums, fields)
    return Metric(
        PREFIX + field.metric + ("_total" if field.kind is Kind.COUNTER else ""),
        field.kind,
        (*labels, field.label) if field.label else labels,
        field.unit,
        field.help,
        samples,
        common=field.row == "supervisor" and field.name in _COMMON,
    )


def _sums(fields: Sequence[Field], reading: Reading) -> Iterator[Sample]:
    sums: Counter[tuple[str, ...]] = Counter()
    for field in fields:
        for labels, value in _samples(field, reading):
            assert isinstance(value, int), "histograms and times stand in one row"
            sums[labels] += value
    yield from sums.items()


def _samples(field: Field, reading: Reading) -> Iterator[Sample]:
    for labels, row in _rows(field, reading):
        words = row.all(field.name)
        if field.kind is Kind.HISTOGRAM:
            *counts, time = words
            yield labels, Histogram(up_to_bounds(counts), seconds(time))
        else:
            values = map(seconds, words) if field.unit == "seconds" else words
            for value, number in zip(field.values or (None,), values, strict=True):
                yield labels if value is None else (*labels, value), number


def _rows(field: Field, reading: Reading) -> Iterator[tuple[tuple[str, ...], Row]]:
    if field.row == "supervisor":
        yield (), reading.snapshot.supervisor
    else:
        rows = [(str(slot.number), _ROWS[field.row](slot)) for slot in reading.snapshot.slots]
        if _by_worker(field):
            yield from (((number,), row) for number, row in rows)
        else:
            yield (), total(LAYOUTS[field.row], (row for _, row in rows))


def _one(number: Callable[[Reading], float]) -> Callable[[Reading], Iterator[Sample]]:
    """Samples of a metric without labels."""

    def samples(reading: Reading) -> Iterator[Sample]:
        yield (), number(reading)

    return samples


def _each(
    numbers: Callable[[Reading], Iterable[tuple[object, float]]],
) -> Callable[[Reading], Iterator[Sample]]:
    """Samples of a metric with one label."""

    def samples(reading: Reading) -> Iterator[Sample]:
        for value, number in numbers(reading):
            yield (str(value),), number

    return samples


def connections(reading: Reading) -> dict[str, int]:
    """Open connections of the whole server, by state."""
    supervisor = reading.snapshot.supervisor
    return {
        "parked": supervisor["parked"],
        "queued": supervisor["queue_length"],
        **reading.snapshot.threads.by_value("connections"),
    }


def workers(reading: Reading) -> dict[State, int]:
    """Slots by state."""
    count = Counter(map(state_of, reading.snapshot.slots))
    return {state: count[state] for state in State if state is not State.EMPTY}


_DERIVED = (
    Metric(
        "poolsrv_threads_busy",
        Kind.GAUGE,
        ("worker",),
        "",
        "Request threads that are in a request now",
        _each(lambda reading: ((slot.number, slot.busy) for slot in reading.snapshot.slots)),
    ),
    Metric(
        "poolsrv_thread_utilization_ratio",
        Kind.GAUGE,
        (),
        "",
        "Busy share of all request threads, 0 to 1, since an earlier reading"
        " (of 10 seconds ago, if there was one)",
        _one(lambda reading: reading.utilization),
    ),
    Metric(
        "poolsrv_connections",
        Kind.GAUGE,
        ("state",),
        "",
        "Open connections: parked and queued in the supervisor; idle, reading, running, writing"
        " in workers; upgraded, which the application has taken over",
        _each(lambda reading: connections(reading).items()),
    ),
    Metric(
        "poolsrv_queue_length",
        Kind.GAUGE,
        (),
        "",
        "Connections with a request that wait for a free thread, in the supervisor and in workers",
        _one(lambda reading: reading.queue_length),
    ),
    Metric(
        "poolsrv_queue_oldest_seconds",
        Kind.GAUGE,
        (),
        "seconds",
        "How long the first connection in the queue has waited, 0 if there is none",
        _one(lambda reading: reading.queue_age),
    ),
    Metric(
        "poolsrv_request_oldest_seconds",
        Kind.GAUGE,
        (),
        "seconds",
        "How long the oldest running request has run, 0 if there is none",
        _one(lambda reading: reading.oldest_request),
    ),
    Metric(
        "poolsrv_workers",
        Kind.GAUGE,
        ("state",),
        "",
        "Slots of the pool by state",
        _each(lambda reading: ((s.name.lower(), n) for s, n in workers(reading).items())),
    ),
    Metric(
        "poolsrv_worker_up",
        Kind.GAUGE,
        ("worker",),
        "",
        "1 if the worker in the slot gets work, else 0 (a spare slot after a reload, too)",
        _each(
            lambda reading: (
                (slot.number, state_of(slot) is State.READY) for slot in reading.snapshot.slots
            )
        ),
    ),
    Metric(
        "poolsrv_worker_resident_bytes",
        Kind.GAUGE,
        ("worker",),
        "bytes",
        "Memory of the worker, pages it shares with others included",
        _each(
            lambda reading: (
                (slot.number, reading.usage[slot.name].resident)
                for slot in reading.snapshot.slots
                if slot.name in reading.usage
            )
        ),
    ),
    Metric(
        "poolsrv_worker_cpu_seconds_total",
        Kind.COUNTER,
        ("worker",),
        "seconds",
        "CPU time of the processes that have been in the slot",
        _each(
            lambda reading: (
                (slot.number, reading.cpu[slot.name]) for slot in reading.snapshot.slots
            )
        ),
    ),
    Metric(
        "poolsrv_start_time_seconds",
        Kind.GAUGE,
        (),
        "seconds",
        "Start of the supervisor, in Unix time",
        _one(lambda reading: reading.about.started_at),
        common=True,
    ),
    Metric(
        "poolsrv_build_info",
        Kind.GAUGE,
        ("version", "python"),
        "",
        "Always 1; the labels say what runs",
        lambda reading: [((reading.about.version, PYTHON), 1)],
        common=True,
    ),
)

BY_METRIC: dict[str, list[Field]] = {}
for _field in FIELDS:
    if _field.metric:
        BY_METRIC.setdefault(_field.metric, []).append(_field)

METRICS: tuple[Metric, ...] = (*map(_of_fields, BY_METRIC.values()), *_DERIVED)
