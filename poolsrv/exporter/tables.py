"""The columns of the status page's tables, and how a number is written there."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Generic, TypeVar

from poolsrv.exporter.status import Group, RunningRequest, Worker

T = TypeVar("T")

# Longer than people wait for a page: worth a look.
LONG = 10.0


def rate(per_second: float | None) -> str:
    if per_second is None:
        return "-"
    return f"{per_second:,.1f}" if per_second >= 1 or not per_second else f"{per_second:.2g}"


def _replaced(worker: Worker) -> str:
    return ", ".join(f"{times} x {why}" for why, times in worker.restarts.items()) or "-"


def _state_of_group(group: Group) -> str:
    verdict = group.deployable if group.ready.yes else group.ready
    return verdict.reason


def _age(request: RunningRequest) -> str:
    age = duration(request.age_seconds)
    # A connection that is taken over is meant to last.
    is_long = request.age_seconds >= LONG and request.state != "upgraded"
    return f"{age} (long)" if is_long else age


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """`kind` is the cells' class in the style sheet, `title` explains the head."""

    head: str
    kind: str
    text: Callable[[T], object]
    title: str


GROUPS: tuple[Column[Group], ...] = (
    Column("group", "words", lambda group: group.name, "Its section of the file"),
    Column(
        "busy",
        "number",
        lambda group: f"{group.threads.busy} of {group.threads.total}",
        "Threads that are in a request",
    ),
    Column(
        "utilization",
        "number",
        lambda group: f"{group.threads.utilization_ratio:.0%}",
        "Busy share of its threads",
    ),
    Column(
        "in the queue",
        "number",
        lambda group: f"{group.queue.length:,}",
        "Requests that wait for a free thread of this group",
    ),
    Column(
        "first waits",
        "number",
        lambda group: duration(group.queue.oldest_seconds) if group.queue.length else "-",
        "How long the first of its queue has waited",
    ),
    Column(
        "per second",
        "number",
        lambda group: rate(group.requests.per_second),
        "Answered, refused ones included",
    ),
    Column(
        "99 % within",
        "number",
        lambda group: quantile_text(group.requests.p99_seconds),
        "One of a hundred took longer",
    ),
    Column("errors", "number", lambda group: f"{group.requests.errors:,}", "Since the start"),
    Column(
        "generation",
        "number",
        lambda group: group.generation,
        "Counts the loads of its application",
    ),
    Column("state", "words", _state_of_group, "Does it take requests, and is a reload under way?"),
)


def _slot(row: Worker | RunningRequest) -> str:
    return f"{row.group}/{row.slot}" if row.group else str(row.slot)


RUNNING: tuple[Column[RunningRequest], ...] = (
    Column("age", "number", _age, "Since a thread took the request"),
    Column(
        "queued",
        "number",
        lambda request: duration(request.queue_seconds),
        "How long it had waited for the thread",
    ),
    Column("slot", "number", _slot, "The worker's place in the pool"),
    Column("pid", "number", lambda request: request.pid, "The worker's process"),
    Column("method", "literal", lambda request: request.method, "As the client sent it"),
    Column("path", "literal path", lambda request: request.path, "As sent, without the query"),
    Column(
        "request",
        "literal",
        lambda request: request.request_id,
        "Its id in the logs and in environ",
    ),
    Column("in", "words", lambda request: request.state, "What the thread does at this moment"),
)

WORKERS: tuple[Column[Worker], ...] = (
    Column("slot", "number", _slot, "The worker's place in the pool"),
    Column("pid", "number", lambda worker: worker.pid or "-", "The process in the slot"),
    Column("state", "words", lambda worker: worker.state, "Only ready ones get requests"),
    Column(
        "generation",
        "number",
        lambda worker: worker.generation,
        "Workers of one load of the application have one number",
    ),
    Column("age", "number", lambda worker: duration(worker.age_seconds), "Since its start"),
    Column(
        "busy",
        "number",
        lambda worker: f"{worker.busy} of {worker.threads}",
        "Threads that are in a request",
    ),
    Column(
        "load",
        "number",
        lambda worker: f"{worker.load} of {worker.limit}",
        "Requests that it has, and how many the supervisor gives it at most",
    ),
    Column(
        "requests",
        "number",
        lambda worker: f"{worker.requests:,}",
        "Of all processes that have been in the slot",
    ),
    Column(
        "memory",
        "number",
        lambda worker: f"{worker.resident_bytes / 2**20:,.0f} MiB",
        "Resident, pages that it shares with others included",
    ),
    Column(
        "CPU",
        "number",
        lambda worker: duration(worker.cpu_seconds),
        "Time of all processes that have been in the slot",
    ),
    Column("replaced", "words", _replaced, "How often, and why"),
)


def table(columns: Sequence[Column[T]], rows: Iterable[T]) -> Iterable[str]:
    yield '<div class="table" tabindex="0"><table><thead><tr>'
    for column in columns:
        yield f'<th class="{column.kind}" title="{escape(column.title)}">{column.head}</th>'
    yield "</tr></thead><tbody>"
    for row in rows:
        cells = (
            f'<td class="{column.kind}">{escape(str(column.text(row)))}</td>' for column in columns
        )
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def quantile_text(seconds: float | None) -> str:
    """Two figures: a third would be beyond what a bucket knows."""
    if seconds is None:
        return "-"
    return duration(float(f"{seconds:.1e}")).replace(".0 ", " ")


def duration(seconds: float) -> str:
    """Two figures that say enough: 120 us, 3.4 ms, 12.0 s, 5 min 3 s, 2 h 10 min, 3 d 4 h."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
