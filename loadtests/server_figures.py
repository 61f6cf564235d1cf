"""The server's own figures beside locust's: rows of the type SRV in its table.

A greenlet scrapes the metrics of the server once a second during a run. A
row's "response time" is the figure, a second's worth at a time: `Average` is
its mean over the run, `# reqs` the number of scrapes.

The run fails (exit status 1) if a threshold is passed; see `locust --help`.
"""

import logging
import urllib.request
from argparse import ArgumentParser
from dataclasses import dataclass
from time import monotonic
from typing import Any

import gevent
from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner
from prometheus_client.parser import text_string_to_metric_families

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scrape:
    at: float  # seconds
    samples: dict[str, float]  # sums over all labels

    @classmethod
    def of(cls, url: str) -> "Scrape":
        """OSError if the server does not answer."""
        with urllib.request.urlopen(url, timeout=5) as response:
            text = response.read().decode()
        samples: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name] = samples.get(sample.name, 0.0) + sample.value
        return cls(monotonic(), samples)


def figures(before: Scrape, after: Scrape) -> dict[str, float]:
    """What the server did between two scrapes, by the name of the row."""

    def increase(name: str) -> float:
        return after.samples[name] - before.samples[name]

    seconds = after.at - before.at
    busy = increase("poolsrv_thread_busy_seconds_total")
    found = {
        "requests/s": increase("poolsrv_requests_total") / seconds,
        "thread utilization %": 100 * busy / (seconds * after.samples["poolsrv_threads"]),
    }
    if requests := increase("poolsrv_request_queue_seconds_count"):
        queued = increase("poolsrv_request_queue_seconds_sum")
        found["queue time, mean us"] = 1e6 * queued / requests
    return found


def watch(environment: Environment, url: str) -> None:
    """Log figures once a second until killed."""
    before = None
    while True:
        try:
            after = Scrape.of(url)
        except OSError as error:
            logger.warning("no figures of the server from %s: %s", url, error)
            after = None
        if before and after:
            for name, value in figures(before, after).items():
                # The entry alone: the totals stay locust's own.
                environment.stats.get(name, "SRV").log(round(value), 0)
        before = after
        gevent.sleep(1)


@events.init_command_line_parser.add_listener
def add_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("poolsrv")
    group.add_argument(
        "--metrics-url",
        default="http://127.0.0.1:9464/metrics",
        help="metrics of the server under load; 'off' for none (default: %(default)s)",
    )
    group.add_argument(
        "--max-failure-ratio",
        type=float,
        default=0.0,
        metavar="RATIO",
        help="fail the run if more of the requests fail (default: %(default)s)",
    )
    group.add_argument(
        "--max-p99",
        type=float,
        metavar="MILLISECONDS",
        help="fail the run if the 99th percentile is higher (default: no limit)",
    )


@events.test_start.add_listener
def start_watching(environment: Environment, **_: Any) -> None:
    url = environment.parsed_options.metrics_url
    # Of a distributed run, only the one that shows the table.
    if url == "off" or isinstance(environment.runner, WorkerRunner):
        return
    watcher = gevent.spawn(watch, environment, url)

    def stop_watching(environment: Environment, **_: Any) -> None:
        watcher.kill()
        environment.events.test_stop.remove_listener(stop_watching)

    environment.events.test_stop.add_listener(stop_watching)


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    options, total = environment.parsed_options, environment.stats.total
    reasons = []
    if not total.num_requests:
        reasons.append("no request was answered")
    if total.fail_ratio > options.max_failure_ratio:
        reasons.append(f"{total.fail_ratio:.2%} of the requests failed")
    p99 = total.get_response_time_percentile(0.99)
    if options.max_p99 is not None and p99 > options.max_p99:
        reasons.append(f"the 99th percentile is {p99:g} ms")
    for reason in reasons:
        logger.error("the run failed: %s", reason)
    environment.process_exit_code = 1 if reasons else 0
