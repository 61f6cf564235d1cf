"""What people read about the metrics; `python -m poolsrv.exporter.reference` prints METRICS.md."""

from poolsrv.between.scoreboard import BOUNDS
from poolsrv.exporter.metrics import BY_METRIC, METRICS, PREFIX
from poolsrv.exporter.reading import seconds

# What people ask first, and the query that answers it.
QUESTIONS = (
    (
        "How full is it? Above 0.8 for long, add threads or processes.",
        "sum(rate(poolsrv_thread_busy_seconds_total[5m])) / sum(poolsrv_threads)",
    ),
    (
        "How long do 99 of 100 requests take at most?",
        "histogram_quantile(0.99, sum by (le) (rate(poolsrv_request_duration_seconds_bucket[5m])))",
    ),
    (
        "How long do they wait for a thread, on average?",
        "sum(rate(poolsrv_request_queue_seconds_sum[5m]))"
        " / sum(rate(poolsrv_request_queue_seconds_count[5m]))",
    ),
    (
        "Which share of the answers are errors, of the application (5xx) or of the server itself?",
        '(sum(rate(poolsrv_requests_total{status_class="5xx"}[5m]))'
        ' + sum(rate(poolsrv_requests_refused_total{status!~"403|404|421"}[5m])))'
        " / (sum(rate(poolsrv_requests_total[5m]))"
        " + sum(rate(poolsrv_requests_refused_total[5m])))",
    ),
    (
        "How many requests does the server refuse, and with which status?",
        "sum by (status) (rate(poolsrv_requests_refused_total[5m])) > 0",
    ),
    (
        "Alert: fewer workers serve than are wanted.",
        "sum by (instance) (poolsrv_worker_up) < sum by (instance) (poolsrv_workers_configured)",
    ),
    (
        "Alert: a request hangs.",
        "poolsrv_request_oldest_seconds > 60",
    ),
    (
        "Why were workers replaced today?",
        "sum by (reason) (increase(poolsrv_worker_restarts_total[1d])) > 0",
    ),
)


def reference() -> str:
    """METRICS.md."""
    lines = [
        "# Metrics",
        "",
        "Generated from the scoreboard's table by `make docs`.",
        "",
        "Served at `/metrics` of the `--admin` address as Prometheus text or OpenMetrics, as the",
        "client accepts. Counters outlive the workers: they start again only with the server.",
        "`worker` is a slot of the pool, not a process: a worker that is replaced leaves its",
        "series to the next. Where the file names groups of processes, all metrics but those",
        "marked *server* have a label more, `group`.",
        "",
        "| Metric | Type | Labels | Unit | Meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for metric in sorted(METRICS, key=lambda metric: metric.name):
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(
            f"| `{metric.name}` | {metric.kind.value.lower()}{', *server*' * metric.common}"
            f" | {labels} | {metric.unit}"
            f" | {metric.help} |"
        )
    bounds = ", ".join(f"{seconds(bound):g}" for bound in BOUNDS)
    lines += ["", "## Values of labels", ""]
    for field, *_ in BY_METRIC.values():
        if field.label:
            values = ", ".join(f"`{value}`" for value in field.values)
            lines.append(f"- `{PREFIX}{field.metric}_total`, `{field.label}`: {values}")
    lines += [
        "",
        "## Buckets",
        "",
        f"Histograms have buckets up to {bounds} seconds and one for all.",
        "",
        "## Questions and queries",
        "",
    ]
    for question, query in QUESTIONS:
        lines += [question, "", "```promql", query, "```", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(reference(), end="")
