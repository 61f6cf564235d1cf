"""What the status page says, and that no client can make it say anything else."""

import dataclasses
import hashlib
import json
import os
import re
from base64 import b64encode
from bisect import bisect_left
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from poolsrv import _core
from poolsrv.between.lifecycle import ServerState, State
from poolsrv.between.scoreboard import UPPERS, Running, ThreadState, quantile
from poolsrv.exporter.page import POLICY, SHOWN, page
from poolsrv.exporter.reading import Reading
from poolsrv.exporter.status import Status, Verdict, deployable, ready, status
from poolsrv.exporter.tables import duration
from tests.board import SECOND, Board, label_values, place_of

pytestmark = pytest.mark.once


@pytest.fixture
def board() -> Iterator[Board]:
    fd = _core.scoreboard_create(3, 100)
    yield Board(fd)
    os.close(fd)


def inside(reading: Reading, *requests: Running) -> Reading:
    """The reading, with these requests in slot 0."""
    first, *others = reading.snapshot.slots
    first = dataclasses.replace(first, running=requests, busy=len(requests))
    snapshot = dataclasses.replace(reading.snapshot, slots=(first, *others))
    return dataclasses.replace(reading, snapshot=snapshot)


def request(board: Board, since: float, path: str = "/", thread: int = 0) -> Running:
    """A request that was ready half a second before a thread took it."""
    taken = board.started_at + round(since * SECOND)
    return Running(
        thread, ThreadState.APPLICATION, taken, taken - SECOND // 2, "GET", path, f"id-{thread}"
    )


# May I deploy?


@pytest.mark.parametrize(
    ("server", "workers", "verdict"),
    [
        (ServerState.STARTING, [], Verdict(False, "no worker is ready (none has started)")),
        (
            ServerState.STARTING,
            [State.STARTING, State.STARTING],
            Verdict(False, "no worker is ready (2 starting)"),
        ),
        (
            ServerState.SERVING,
            [State.WAITING, State.DRAINING],
            Verdict(False, "no worker is ready (1 draining, 1 waiting)"),
        ),
        (
            ServerState.SERVING,
            [State.READY, State.STARTING],
            Verdict(True, "1 of 2 workers are ready"),
        ),
        (
            ServerState.DRAINING,
            [State.READY, State.READY],
            Verdict(False, "the server drains and will stop"),
        ),
    ],
)
def test_ready_means_that_a_worker_is(
    board: Board, server: ServerState, workers: list[State], verdict: Verdict
) -> None:
    board.supervisor("state", server)
    for slot, state in enumerate(workers):
        board.spawn(slot, state)
    assert ready(board.read()) == verdict


def test_deployable_means_that_nothing_is_under_way(board: Board) -> None:
    board.supervisor("generation", 3)
    board.spawn(0)
    board.spawn(1, State.EMPTY)
    assert deployable(board.read()) == Verdict(True, "generation 3 serves and nothing is under way")
    board.spawn(1, State.STARTING)
    assert deployable(board.read()) == Verdict(False, "workers: 1 starting")
    board.supervisor("state", ServerState.DRAINING)
    assert deployable(board.read()) == Verdict(False, "the server is draining")


# Is it full?


def test_rates_are_over_the_window(board: Board) -> None:
    board.spawn(0)
    board.count(0, "requests", 100, "2xx")
    board.read(20)
    board.count(0, "requests", 95, "2xx")
    board.count(0, "requests", 5, "5xx")
    requests = status(board.read(30)).requests
    assert (requests.total, requests.per_second, requests.errors_per_second) == (200, 10, 0.5)


def test_a_refusal_is_an_error(board: Board) -> None:
    board.spawn(0)
    board.count(0, "requests", 10, "5xx")
    board.count(0, "refused", 20, "408")
    refused = label_values("supervisor", "refused").index("503")
    board.core.add(place_of("supervisor", "refused"), 0, 70, word=refused)
    shown = status(board.read(10))
    requests = shown.requests
    assert (requests.total, requests.errors) == (100, 100)
    assert requests.refused == {"408": 20, "503": 70}
    assert (requests.per_second, requests.errors_per_second) == (10, 10)
    assert '<dd class="bad">20 x 408, 70 x 503</dd>' in page(shown).decode()


def test_no_rate_is_shown_without_a_window(board: Board) -> None:
    board.spawn(0)
    board.count(0, "requests", 100, "2xx")
    requests = status(board.read(1000)).requests
    assert (requests.total, requests.per_second, requests.p99_seconds) == (100, None, None)


@pytest.mark.parametrize(
    "time",
    [1_000, 23_456, 99_999, 100_000, 100_001, 50_300_000, SECOND, 11 * SECOND, 600 * SECOND],
)
def test_a_quantile_is_within_a_twentieth_of_the_truth(time: int) -> None:
    counts = [0] * (len(UPPERS) + 1)
    assert quantile(0.5, counts) is None
    counts[bisect_left(UPPERS, time)] = 7
    for share in (0.001, 0.5, 0.99, 1):
        assert quantile(share, counts) == pytest.approx(time, rel=0.05)


def test_a_share_of_the_requests_takes_a_quantile_at_most() -> None:
    counts = [0] * (len(UPPERS) + 1)
    counts[bisect_left(UPPERS, 1_000_000)] = 90
    counts[bisect_left(UPPERS, 20_000_000)] = 10
    assert quantile(0.9, counts) == pytest.approx(1_000_000, rel=0.05)
    assert quantile(0.91, counts) == pytest.approx(20_000_000, rel=0.05)
    counts[-1] = 900  # longer than can be told
    assert quantile(0.99, counts) == UPPERS[-1]


# What hangs?


def test_the_oldest_request_comes_first(board: Board) -> None:
    board.spawn(0, pid=os.getpid())
    reading = inside(board.read(100), request(board, 99, "/b"), request(board, 10, "/a"))
    assert reading.oldest_request == 90
    first, second = status(reading).running
    assert (first.path, first.age_seconds, first.queue_seconds) == ("/a", 90, 0.5)
    assert (first.slot, first.pid, first.state) == (0, os.getpid(), "application")
    assert second.path == "/b"


def test_a_connection_that_is_taken_over_is_meant_to_last(board: Board) -> None:
    board.spawn(0)
    taken = dataclasses.replace(request(board, 10, "/chat"), state=ThreadState.UPGRADED)
    reading = inside(board.read(100), taken, request(board, 98, thread=1))
    assert reading.oldest_request == 2
    shown = page(status(reading)).decode()
    assert ">upgraded<" in shown
    assert "(long)" not in shown
    assert "(long)" in page(status(inside(reading, request(board, 10)))).decode()


def test_the_page_shows_the_oldest_and_counts_the_others(board: Board) -> None:
    board.spawn(0)
    requests = (request(board, thread, f"/{thread}", thread) for thread in range(SHOWN + 7))
    shown = page(status(inside(board.read(100), *requests))).decode()
    assert f">/{SHOWN - 1}<" in shown
    assert f">/{SHOWN}<" not in shown
    assert "And 7 younger ones." in shown


class Tags(HTMLParser):
    """The tags of a page, and the text of its cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "td":
            self.cells.append(data)


@pytest.mark.parametrize(
    "path",
    [
        "/<script>alert(1)</script>",
        "/</table><img src=x onerror=alert(1)>",
        "/\"'&amp;<!--",
        "/$main",
    ],
)
def test_a_path_is_text_and_nothing_else(board: Board, path: str) -> None:
    board.spawn(0)
    harmless, hostile = Tags(), Tags()
    harmless.feed(page(status(inside(board.read(10), request(board, 5)))).decode())
    hostile.feed(page(status(inside(board.read(10), request(board, 5, path)))).decode())
    assert hostile.tags == harmless.tags
    assert path in hostile.cells


def test_the_policy_allows_what_the_page_brings_and_no_more(board: Board) -> None:
    shown = page(status(board.read())).decode()
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", shown, re.DOTALL)
        digest = b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in POLICY
    assert POLICY.startswith("default-src 'none'; ")
    assert "unsafe" not in POLICY
    assert "http" not in re.sub(r"<main>.*</main>", "", shown, flags=re.DOTALL).replace(
        "http-equiv", ""
    )


def test_the_status_is_json(board: Board) -> None:
    board.spawn(0, pid=os.getpid())
    board.spawn(1, State.EMPTY)
    board.core.add(place_of("slot", "restarts"), 0, 2, word=1)
    told = json.loads(json.dumps(dataclasses.asdict(status(board.read(10)))))
    assert set(told) == {field.name for field in dataclasses.fields(Status)}
    (worker,) = told["workers"]
    assert worker["pid"] == os.getpid()
    assert worker["state"] == "ready"
    assert worker["restarts"] == {"signal": 2}
    assert worker["resident_bytes"] > 2**20


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 us"),
        (0.00012, "120 us"),
        (0.0034, "3.4 ms"),
        (12, "12.0 s"),
        (303, "5 min 3 s"),
        (7800.9, "2 h 10 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations_are_told_in_two_figures(seconds: float, text: str) -> None:
    assert duration(seconds) == text
