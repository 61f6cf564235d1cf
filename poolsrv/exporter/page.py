"""The status page: HTML that needs no script to be read, nor anything from elsewhere.

Methods, paths and request ids come from clients: every text passes escape() on
its way into the page, and the policy lets nothing run but the page's own
script.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

from poolsrv.exporter.status import Status, Verdict
from poolsrv.exporter.tables import GROUPS, RUNNING, WORKERS, duration, quantile_text, rate, table

# More than this at once says no more than their number.
SHOWN = 50

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
    parts = (_heading, _load, _requests, _groups, _connections, _running, _workers)
    sections = [line for part in parts for line in part(status)]
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
    if status.server.maintenance:
        yield '<p class="bad">Maintenance: applications get no requests.</p>'


def _verdict(yes: str, no: str, verdict: Verdict) -> str:
    kind, word = ("good", yes) if verdict.yes else ("bad", no)
    return f'<p class="{kind}">{word}: {escape(verdict.reason)}.</p>'


def _load(status: Status) -> Iterable[str]:
    threads, queue = status.threads, status.queue
    yield "<h2>Load</h2>"
    yield (
        f'<meter min="0" max="{max(threads.total, 1)}" high="{threads.total * 0.8:g}"'
        f' value="{threads.busy}" aria-label="threads busy">{threads.busy} of'
        f" {threads.total}</meter>"
    )
    yield from _facts(
        Fact("threads busy", f"{threads.busy} of {threads.total}", "In a request at this moment"),
        Fact(
            "utilization",
            f"{threads.utilization_ratio:.0%}",
            "Busy share of all threads; near 100 % the next request has to wait",
        ),
        Fact(
            "in the queue",
            f"{queue.length:,}",
            "Requests that wait for a free thread",
            bad=queue.length > 0,
        ),
        Fact(
            "first waits",
            duration(queue.oldest_seconds) if queue.length else "-",
            "How long the first of the queue has waited",
        ),
    )


def _requests(status: Status) -> Iterable[str]:
    requests = status.requests
    refused = ", ".join(f"{number:,} x {code}" for code, number in requests.refused.items())
    yield "<h2>Requests</h2>"
    yield from _facts(
        Fact("per second", rate(requests.per_second), "Answered, refused ones included"),
        Fact(
            "errors per second",
            rate(requests.errors_per_second),
            "5xx of the application, and what the server refused itself, but for 403, 404, 421",
            bad=bool(requests.errors_per_second),
        ),
        Fact("median", quantile_text(requests.median_seconds), "Half of the requests took less"),
        Fact("99 % within", quantile_text(requests.p99_seconds), "One of a hundred took longer"),
    )
    if status.window_seconds:
        yield f"<small>Over the last {duration(status.window_seconds)}.</small>"
    else:
        yield "<small>Rates need a second look, which the page takes in a moment.</small>"
    yield from _facts(
        Fact("in all", f"{requests.total:,}", "Requests since the start of the server"),
        Fact(
            "errors",
            f"{requests.errors:,}",
            "5xx of the application, and what the server refused itself, but for 403, 404, 421",
            bad=requests.errors > 0,
        ),
        Fact(
            "refused",
            refused or "0",
            "Answered by the server itself, by status: 503 when no thread came free in time,"
            " 408 when the client was too slow, 403, 404 and 421 by the mounts, others for what it"
            " sent",
            bad=bool(refused),
        ),
        Fact(
            "workers died",
            f"{status.deaths:,}",
            "Workers that ended unasked; the log says why",
            bad=status.deaths > 0,
        ),
    )
    yield "<small>Since the start of the server.</small>"


def _groups(status: Status) -> Iterable[str]:
    if status.groups:
        yield "<h2>Groups</h2>"
        yield from table(GROUPS, status.groups)


_STATES = {
    "parked": "Idle, held by the supervisor without a thread or a buffer",
    "queued": "With a request that waits for a free thread",
    "idle": "In a worker, between two requests",
    "reading": "In a worker, sending a request",
    "running": "In a worker, with a request in the application",
    "writing": "In a worker, reading an answer slowly",
    "upgraded": "Taken over by the application, with a thread each: WebSockets, for example",
}


def _connections(status: Status) -> Iterable[str]:
    yield "<h2>Connections</h2>"
    yield from _facts(
        *(
            Fact(state, f"{number:,}", _STATES[state])
            for state, number in status.connections.items()
        )
    )


def _running(status: Status) -> Iterable[str]:
    yield "<h2>Running now</h2>"
    if not status.running:
        yield "<p>No request is running.</p>"
        return
    yield from table(RUNNING, status.running[:SHOWN])
    if len(status.running) > SHOWN:
        yield f"<p>And {len(status.running) - SHOWN} younger ones.</p>"


def _workers(status: Status) -> Iterable[str]:
    yield "<h2>Workers</h2>"
    yield _verdict("May be deployed", "Not to be deployed now", status.deployable)
    yield from table(WORKERS, status.workers)


@dataclass(frozen=True, slots=True)
class Fact:
    """`title` explains the name; what is bad stands in red."""

    name: str
    value: str
    title: str
    bad: bool = False


def _facts(*facts: Fact) -> Iterable[str]:
    yield "<dl>"
    for fact in facts:
        kind = ' class="bad"' if fact.bad else ""
        yield (
            f'<div title="{escape(fact.title)}"><dt>{escape(fact.name)}</dt>'
            f"<dd{kind}>{escape(fact.value)}</dd></div>"
        )
    yield "</dl>"
