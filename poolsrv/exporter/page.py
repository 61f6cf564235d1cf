"""The status page: HTML that needs no script to be read, nor anything from elsewhere.

Methods, paths and request ids come from clients: every text passes escape() on
its way into the page, and the policy lets nothing run but the page's own
script.
"""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Generic, TypeVar

from poolsrv.exporter.status import RunningRequest, Status, Verdict, Worker

T = TypeVar("T")

# More than this at once says no more than their number.
SHOWN = 50

# Longer than people wait for a page: worth a look.
LONG = 10.0

_HERE = files("poolsrv.exporter")
_PAGE = Template(_HERE.joinpath("page.html").read_text("utf-8"))
_STYLE = _HERE.joinpath("page.css").read_text("utf-8")
_SCRIPT = _HERE.joinpath("page.js").read_text("utf-8")


def _hash(source: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


# For the field Content-Security-Policy.
POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(_STYLE)}",
        f"script-src {_hash(_SCRIPT)}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def page(status: Status) -> bytes:
    server = status.server
    sections = [*_heading(status), *_full(status), *_hanging(status), *_deploying(status)]
    sections += [
        f"<footer>poolsrv {escape(server.version)}, Python {escape(server.python)},"
        f" supervisor {server.pid}, up {duration(server.uptime_seconds)}."
        ' <a href="metrics">Metrics</a>, <a href="status.json">JSON</a></footer>'
    ]
    return _PAGE.substitute(
        title=f"{escape(server.application)} - poolsrv",
        style=_STYLE,
        script=_SCRIPT,
        main="\n".join(sections),
    ).encode()


def _heading(status: Status) -> Iterable[str]:
    yield f"<h1>{escape(status.server.application)}</h1>"
    yield f"<small>{escape(', '.join(status.server.addresses))}</small>"
    yield _verdict("Ready", "Not ready", status.ready)


def _verdict(yes: str, no: str, verdict: Verdict) -> str:
    kind, word = ("good", yes) if verdict.yes else ("bad", no)
    return f'<p class="{kind}">{word}: {escape(verdict.reason)}.</p>'


def _full(status: Status) -> Iterable[str]:
    threads, queue, requests = status.threads, status.queue, status.requests
    yield "<h2>Is it full?</h2>"
    yield (
        f'<meter min="0" max="{max(threads.total, 1)}" high="{threads.total * 0.8:g}"'
        f' value="{threads.busy}">{threads.busy} of {threads.total}</meter>'
    )
    yield from _facts(
        ("threads busy", f"{threads.busy} of {threads.total}"),
        ("utilization", f"{threads.utilization_ratio:.0%}"),
        ("in the queue", f"{queue.length}"),
        ("first waits", duration(queue.oldest_seconds) if queue.length else "-"),
        ("requests/s", f"{requests.per_second:,.1f}"),
        ("errors/s", f"{requests.errors_per_second:,.1f}"),
        ("median", _quantile(requests.median_seconds)),
        ("99 % within", _quantile(requests.p99_seconds)),
    )
    yield f"<small>Rates and times over the last {duration(status.window_seconds)}.</small>"
    yield "<h2>Connections</h2>"
    yield from _facts(*((state, f"{number:,}") for state, number in status.connections.items()))


def _hanging(status: Status) -> Iterable[str]:
    yield "<h2>What hangs?</h2>"
    if not status.running:
        yield "<p>No request is running.</p>"
        return
    yield from _table(_RUNNING, status.running[:SHOWN])
    if len(status.running) > SHOWN:
        yield f"<p>And {len(status.running) - SHOWN} younger ones.</p>"


def _deploying(status: Status) -> Iterable[str]:
    yield "<h2>May I deploy?</h2>"
    yield _verdict("Yes", "Not now", status.deployable)
    yield from _table(_WORKERS, status.workers)


def _replaced(worker: Worker) -> str:
    return ", ".join(f"{times} x {why}" for why, times in worker.restarts.items()) or "-"


def _age(request: RunningRequest) -> str:
    age = duration(request.age_seconds)
    return f"{age} (long)" if request.age_seconds >= LONG else age


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """`kind` is the cells' class in the style sheet."""

    head: str
    kind: str
    text: Callable[[T], object]


_RUNNING: tuple[Column[RunningRequest], ...] = (
    Column("age", "number", _age),
    Column("queued", "number", lambda request: duration(request.queue_seconds)),
    Column("slot", "number", lambda request: request.slot),
    Column("pid", "number", lambda request: request.pid),
    Column("method", "literal", lambda request: request.method),
    Column("path", "literal", lambda request: request.path),
    Column("request", "literal", lambda request: request.request_id),
    Column("in", "words", lambda request: request.state),
)

_WORKERS: tuple[Column[Worker], ...] = (
    Column("slot", "number", lambda worker: worker.slot),
    Column("pid", "number", lambda worker: worker.pid or "-"),
    Column("state", "words", lambda worker: worker.state),
    Column("generation", "number", lambda worker: worker.generation),
    Column("age", "number", lambda worker: duration(worker.age_seconds)),
    Column("busy", "number", lambda worker: f"{worker.busy} of {worker.threads}"),
    Column("load", "number", lambda worker: f"{worker.load} of {worker.limit}"),
    Column("requests", "number", lambda worker: f"{worker.requests:,}"),
    Column("memory", "number", lambda worker: f"{worker.resident_bytes / 2**20:,.0f} MiB"),
    Column("CPU", "number", lambda worker: duration(worker.cpu_seconds)),
    Column("replaced", "words", _replaced),
)


def _table(columns: Sequence[Column[T]], rows: Iterable[T]) -> Iterable[str]:
    yield '<div class="table"><table><thead><tr>'
    for column in columns:
        yield f'<th class="{column.kind}">{column.head}</th>'
    yield "</tr></thead><tbody>"
    for row in rows:
        cells = (
            f'<td class="{column.kind}">{escape(str(column.text(row)))}</td>' for column in columns
        )
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def _facts(*facts: tuple[str, str]) -> Iterable[str]:
    yield "<dl>"
    for name, value in facts:
        yield f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
    yield "</dl>"


def _quantile(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


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
