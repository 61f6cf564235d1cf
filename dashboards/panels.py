"""The panels of the dashboard, a row of the table each.

What a panel asks, in which unit, and what its answer means; how Grafana wants
to be told is generate.py's affair. In a query, @ stands for the selection of
job and instance.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """`queries` are (legend, expression); an empty legend shows the labels.

    `unit` is one of Grafana's. `warn` and `alarm` are where yellow and red begin.
    """

    title: str
    unit: str
    description: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    stacked: bool = False
    names: bool = False  # a stat that shows the legend and not the number
    top: float | None = None
    warn: float | None = None
    alarm: float | None = None


def rate(metric: str, selector: str = "@") -> str:
    return f"rate(poolsrv_{metric}{{{selector}}}[$__rate_interval])"


def quantile(share: float, histogram: str) -> str:
    buckets = rate(f"{histogram}_bucket")
    return f"histogram_quantile({share}, sum by (le) ({buckets}))"


def mean(seconds: str) -> str:
    """Seconds per request, of a counter of seconds."""
    return f"sum({rate(seconds)}) / sum({rate('request_duration_seconds_count')})"


REFUSED = f"(sum({rate('requests_refused_total')}) or vector(0))"
REQUESTS = f"(sum({rate('requests_total')}) + {REFUSED})"
FAILED = rate("requests_total", '@, status_class="5xx"')
ERRORS = f"(sum({FAILED}) + {REFUSED})"
UTILIZATION = f"sum({rate('thread_busy_seconds_total')}) / sum(poolsrv_threads{{@}})"

OVERVIEW = (
    Panel(
        "Requests",
        "reqps",
        "Requests per second, those that the server refused included.",
        (("", REQUESTS),),
        kind="stat",
    ),
    Panel(
        "Errors",
        "percentunit",
        "Share of the requests that the application answered with 5xx, or that the server refused"
        " itself.",
        (("", f"{ERRORS} / {REQUESTS}"),),
        kind="stat",
        warn=0.01,
        alarm=0.05,
    ),
    Panel(
        "99 % within",
        "s",
        "The time within which 99 of 100 requests are answered, first byte in to last byte out.",
        (("", quantile(0.99, "request_duration_seconds")),),
        kind="stat",
    ),
    Panel(
        "Utilization",
        "percentunit",
        "Busy share of all request threads. Near 1 the next request has to wait.",
        (("", UTILIZATION),),
        kind="stat",
        warn=0.8,
        alarm=0.95,
    ),
    Panel(
        "Queue",
        "short",
        "Connections with a request that wait for a free thread.",
        (("", "sum(poolsrv_queue_length{@})"),),
        kind="stat",
        warn=1,
        alarm=100,
    ),
    Panel(
        "Workers missing",
        "short",
        "Workers that are wanted and do not serve.",
        (("", "sum(poolsrv_workers_configured{@}) - sum(poolsrv_worker_up{@})"),),
        kind="stat",
        alarm=1,
    ),
    Panel(
        "Up for",
        "s",
        "Since the start of the supervisor; a reload does not begin it anew.",
        (("{{instance}}", "time() - poolsrv_start_time_seconds{@}"),),
        kind="stat",
    ),
    Panel(
        "Version",
        "none",
        "What runs: poolsrv and Python.",
        (("{{version}} on Python {{python}}", "sum by (version, python) (poolsrv_build_info{@})"),),
        kind="stat",
        names=True,
    ),
)

TRAFFIC = (
    Panel(
        "Requests by status",
        "reqps",
        "Requests answered by the application, by class of status.",
        (("{{status_class}}", f"sum by (status_class) ({rate('requests_total')})"),),
        stacked=True,
    ),
    Panel(
        "Refused by status",
        "reqps",
        "Requests that the server answered itself: 503 when no thread came free in time, 408 when"
        " the client was too slow, others for what it sent.",
        (("{{status}}", f"sum by (status) ({rate('requests_refused_total')})"),),
        stacked=True,
    ),
    Panel(
        "What went wrong",
        "reqps",
        "Exceptions in the application, requests that the server refused, clients that left"
        " before they had their answer, connections closed because a time limit ran out,"
        " applications that gave no sign of life.",
        (
            ("application errors", f"sum({rate('application_errors_total')})"),
            ("refused", f"sum({rate('requests_refused_total')})"),
            ("clients gone", f"sum({rate('client_disconnects_total')})"),
            ("limit reached", f"sum({rate('connections_limited_total')})"),
            ("timed out", f"sum({rate('requests_timed_out_total')})"),
        ),
    ),
    Panel(
        "Latency",
        "s",
        "From the first byte of a request to the last byte of its answer.",
        tuple(
            (f"{share:.0%}", quantile(share, "request_duration_seconds"))
            for share in (0.5, 0.9, 0.99)
        ),
    ),
    Panel(
        "Latency, all of it",
        "s",
        "How many requests took how long: two bands are two kinds of requests, of which a"
        " quantile shows one.",
        (
            (
                "{{le}}",
                "sum by (le)"
                " (increase(poolsrv_request_duration_seconds_bucket{@}[$__rate_interval]))",
            ),
        ),
        kind="heatmap",
    ),
    Panel(
        "Where the time goes",
        "s",
        "Mean of a request: received, waiting for a thread, in the application, written."
        " Much of the second: more threads. Much of the third: look at the application.",
        (
            ("read", mean("request_read_seconds_total")),
            ("queue", mean("request_queue_seconds_sum")),
            ("application", mean("request_application_seconds_total")),
            ("write", mean("request_write_seconds_total")),
        ),
        stacked=True,
    ),
)

FULL = (
    Panel(
        "Thread utilization",
        "percentunit",
        "Busy share of the request threads, of each worker and of all. It is the integral of"
        " busy time, exact for any window.",
        (
            ("all", UTILIZATION),
            (
                "{{instance}} worker {{worker}}",
                f"sum by (instance, worker) ({rate('thread_busy_seconds_total')})"
                " / (sum by (instance, worker) (poolsrv_threads{@}) > 0)",
            ),
        ),
        top=1,
    ),
    Panel(
        "Threads",
        "short",
        "Request threads there are, and those in a request at the moment of the scrape.",
        (
            ("threads", "sum(poolsrv_threads{@})"),
            ("busy", "sum(poolsrv_threads_busy{@})"),
        ),
    ),
    Panel(
        "Queue time",
        "s",
        "From a complete request to the thread that took it. Long before it shows in the"
        " latency: more threads or processes are needed.",
        tuple(
            (f"{share:.0%}", quantile(share, "request_queue_seconds")) for share in (0.5, 0.9, 0.99)
        ),
    ),
    Panel(
        "Waiting",
        "s",
        "How long the first connection in the queue has waited, and how long the oldest running"
        " request has run. A line that climbs straight is a request that hangs.",
        (
            ("first in the queue", "max(poolsrv_queue_oldest_seconds{@})"),
            ("oldest request", "max(poolsrv_request_oldest_seconds{@})"),
        ),
    ),
)

CONNECTIONS = (
    Panel(
        "Connections",
        "short",
        "Open connections: parked and queued in the supervisor, the others in workers.",
        (("{{state}}", "sum by (state) (poolsrv_connections{@})"),),
        stacked=True,
    ),
    Panel(
        "Movements",
        "ops",
        "Connections accepted, passed to a worker, handed back when idle, and taken back from"
        " workers that ended.",
        tuple(
            (name.replace("_", " "), f"sum({rate(f'connections_{name}_total')})")
            for name in ("accepted", "dispatched", "handed_back", "reclaimed")
        ),
    ),
    Panel(
        "Closed by the supervisor",
        "ops",
        "Idle or waiting connections that ended, by reason. Anything for queue means that"
        " requests were refused with 503.",
        (("{{reason}}", f"sum by (reason) ({rate('connections_closed_total')})"),),
    ),
    Panel(
        "Accept errors",
        "ops",
        "Times accepting failed for want of descriptors or memory. Raise the limit of open files"
        " (LimitNOFILE in systemd), or keep fewer idle connections (keep-alive-timeout).",
        (("{{instance}}", f"sum by (instance) ({rate('accept_errors_total')})"),),
    ),
    Panel(
        "Bytes",
        "Bps",
        "Bytes read from clients and written to them.",
        (
            ("received", f"sum({rate('received_bytes_total')})"),
            ("sent", f"sum({rate('sent_bytes_total')})"),
        ),
    ),
)

WORKERS = (
    Panel(
        "Workers up",
        "short",
        "1 while the worker in the slot gets work. After a reload the slots of the old generation"
        " are spare and stay at 0.",
        (
            (
                "{{instance}} worker {{worker}}",
                "sum by (instance, worker) (poolsrv_worker_up{@})",
            ),
        ),
        kind="state-timeline",
    ),
    Panel(
        "Replaced",
        "short",
        "Workers that ended and were replaced, by reason, in the interval.",
        (
            (
                "{{reason}}",
                "sum by (reason) (increase(poolsrv_worker_restarts_total{@}[$__rate_interval]))",
            ),
        ),
        stacked=True,
    ),
    Panel(
        "Memory",
        "bytes",
        "Resident memory of each worker, pages it shares with the others included.",
        (
            (
                "{{instance}} worker {{worker}}",
                "sum by (instance, worker) (poolsrv_worker_resident_bytes{@})",
            ),
        ),
    ),
    Panel(
        "CPU",
        "short",
        "CPUs that each worker uses.",
        (
            (
                "{{instance}} worker {{worker}}",
                f"sum by (instance, worker) ({rate('worker_cpu_seconds_total')})",
            ),
        ),
        stacked=True,
    ),
)

SUPERVISOR = (
    Panel(
        "Loop lag",
        "s",
        "Time from one wait of the supervisor's loop to the next: what it adds to a request that"
        " comes at a bad moment.",
        tuple(
            (f"{share:.0%}", quantile(share, "supervisor_loop_lag_seconds"))
            for share in (0.5, 0.99)
        ),
    ),
    Panel(
        "Loop busy",
        "percentunit",
        "Share of the time that the supervisor's one thread works. Near 1 it limits the server.",
        (("{{instance}}", rate("supervisor_loop_busy_seconds_total")),),
        top=1,
    ),
    Panel(
        "Log lines lost",
        "short",
        "Lines that nobody read fast enough, or for which the disk had no room, by log, in the"
        " interval.",
        (
            (
                "{{log}}",
                "sum by (log) (increase(poolsrv_log_lines_lost_total{@}[$__rate_interval]))",
            ),
        ),
        stacked=True,
    ),
    Panel(
        "Generation",
        "none",
        "Number of the newest generation that serves: it grows with each reload.",
        (("{{instance}}", "poolsrv_generation{@}"),),
    ),
)

# (title, height of the panels, panels)
ROWS = (
    ("Overview", 4, OVERVIEW),
    ("Traffic", 8, TRAFFIC),
    ("Is it full?", 8, FULL),
    ("Connections", 8, CONNECTIONS),
    ("Workers", 8, WORKERS),
    ("Supervisor", 8, SUPERVISOR),
)
