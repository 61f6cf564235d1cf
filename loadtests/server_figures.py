"""The server's own figures beside locust's: a block of their own, and a page.

A greenlet scrapes the metrics of the server once a second during a run; each
scrape gives the figures of that second. Their means and extremes are printed
when locust ends, and shown meanwhile at /poolsrv of its web interface.

The run fails (exit status 1) if a threshold is passed; see `locust --help`.
"""

import logging
import urllib.request
from argparse import ArgumentParser
from dataclasses import dataclass
from statistics import fmean
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
        "refused/s": increase("poolsrv_requests_refused_total") / seconds,
        "thread utilization %": 100 * busy / (seconds * after.samples["poolsrv_threads"]),
    }
    if requests := increase("poolsrv_request_queue_seconds_count"):
        queued = increase("poolsrv_request_queue_seconds_sum")
        found["queue time, mean us"] = 1e6 * queued / requests
    return found


class Seen:
    """Every figure of a run, by its name."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, found: dict[str, float]) -> None:
        for name, value in found.items():
            self._values.setdefault(name, []).append(value)

    def clear(self) -> None:
        self._values.clear()

    def block(self) -> str:
        """A table for people; empty without figures."""
        if not self._values:
            return ""
        lines = [f"{'Server':24}{'mean':>12}{'min':>12}{'max':>12}{'seconds':>10}"]
        lines += [
            f"{name:24}{fmean(values):12,.1f}{min(values):12,.1f}{max(values):12,.1f}"
            f"{len(values):10}"
            for name, values in self._values.items()
        ]
        return "\n".join(lines)


SEEN = Seen()


def watch(url: str) -> None:
    """Gather figures once a second until killed."""
    before = None
    while True:
        try:
            after = Scrape.of(url)
        except OSError as error:
            logger.warning("no figures of the server from %s: %s", url, error)
            after = None
        if before and after:
            SEEN.add(figures(before, after))
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
        "--user-rate",
        type=float,
        default=0.0,
        metavar="RATE",
        help="requests a second that each user sends, however long answers take; 0: the next as"
        " soon as it has the answer (default: %(default)s)",
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
    SEEN.clear()
    watcher = gevent.spawn(watch, url)

    def stop_watching(environment: Environment, **_: Any) -> None:
        watcher.kill()
        environment.events.test_stop.remove_listener(stop_watching)

    environment.events.test_stop.add_listener(stop_watching)


@events.init.add_listener
def set_the_clock(**_: Any) -> None:
    """gevent counts --run-time from when its loop has last looked at the clock: so far, never.

    What locust needs to start would be taken from the run, on a busy machine all of it.
    """
    gevent.get_hub().loop.update_now()


@events.init.add_listener
def add_page(environment: Environment, **_: Any) -> None:
    if environment.web_ui is not None:
        # Plain text: nothing in it is anybody's but ours.
        environment.web_ui.app.add_url_rule(
            "/poolsrv",
            "poolsrv",
            lambda: (SEEN.block() or "no figures yet", {"Content-Type": "text/plain"}),
        )


@events.quitting.add_listener
def show(**_: Any) -> None:
    if block := SEEN.block():
        print(f"\n{block}")


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
