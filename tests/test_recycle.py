"""Limits of a worker: pure cases, then real workers under load."""

import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from poolsrv import _core
from poolsrv.supervisor.actions import Spawn
from poolsrv.supervisor.children import Worker
from poolsrv.supervisor.limits import Limits, Use, exceeded, kills, resident
from poolsrv.supervisor.pool import Pool
from poolsrv.supervisor.watch import Watch
from tests.board import Board
from tests.client import Client, Truncated
from tests.server import Server
from tests.test_reload import Kept

pytestmark = pytest.mark.once

Start = Callable[..., Server]


@pytest.mark.parametrize(
    ("limits", "use", "words"),
    [
        (Limits(), Use(10**9, 1e9, 10**12), ""),
        (Limits(requests=5), Use(4, 0, 0), ""),
        (Limits(requests=5), Use(5, 0, 0), "5 requests"),
        (Limits(age=60), Use(0, 59.9, 0), ""),
        (Limits(age=60), Use(0, 60, 0), "60 s old"),
        (Limits(rss=2**30), Use(0, 0, 2**30), ""),
        (Limits(rss=2**30), Use(0, 0, 2**30 + 1), "1024 MiB"),
    ],
)
def test_a_limit_is_named_when_it_is_reached(limits: Limits, use: Use, words: str) -> None:
    assert words in exceeded(limits, use)
    assert bool(words) == bool(exceeded(limits, use))


def test_only_memory_kills() -> None:
    assert not kills(Limits(requests=1, age=1, rss=1), Use(9, 9, 9))
    assert kills(Limits(rss_kill=8), Use(0, 0, 9))


def test_limits_are_drawn_lower_by_the_jitter_at_most() -> None:
    limits = Limits(requests=1000, age=100.0, rss=10**6, rss_kill=10**7, jitter=0.1)
    chance = random.Random(1)
    drawn = [limits.drawn(chance) for _ in range(1000)]
    assert all(900 <= one.requests <= 1000 for one in drawn)
    assert len({one.requests for one in drawn}) > 50
    assert {one.rss_kill for one in drawn} == {10**7}
    assert Limits(requests=1, jitter=1.0).drawn(chance).requests == 1
    assert not Limits(jitter=0.5).drawn(chance).any


def test_memory_of_a_process_that_is_gone() -> None:
    assert resident(0) == 0


def test_recycling_under_load_loses_nothing(server: Start) -> None:
    probe = server("tests.apps.hello:app", processes=2, threads=4, max_requests=500)
    before = set(probe.workers())
    with Kept(probe, clients=8) as clients:
        probe.wait_until(
            lambda: probe.metric("poolsrv_worker_restarts_total", reason="recycle") >= 3,
            deadline=60,
        )
        assert clients.failures == []
    assert not before & set(probe.workers())
    assert "worker is replaced: it has served" in probe.log()


GROWING = """
kept = []

def app(environ, start_response):
    kept.append(bytearray(b"x") * (120 << 20))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"max_rss": "100MiB", "max_rss_kill": "4GiB"}, "worker is replaced: it uses .* MiB"),
        ({"max_rss": "1GiB", "max_rss_kill": "100MiB"}, "worker used .* MiB of memory: killed"),
    ],
)
def test_a_worker_that_grows_is_replaced(
    server: Start, tmp_path: Path, options: dict[str, object], line: str
) -> None:
    (tmp_path / "growing.py").write_text(GROWING)
    growing = server(
        "growing:app", processes=1, pythonpath=tmp_path, allow_errors="killed|was ended", **options
    )
    (before,) = growing.workers()
    with Client(growing.address) as client, suppress(Truncated):  # it may be killed within
        assert client.get("/").status == 200
    growing.wait_for_log(line)
    growing.wait_until(lambda: growing.workers() not in ([], [before]))
    growing.wait_for_metric(1, "poolsrv_worker_restarts_total", reason="recycle")


def test_an_old_worker_is_replaced(server: Start) -> None:
    probe = server("tests.apps.hello:app", processes=1, max_age="0.5s", jitter=0)
    probe.wait_until(
        lambda: probe.metric("poolsrv_worker_restarts_total", reason="recycle") >= 2, deadline=30
    )


def test_a_worker_is_looked_at_when_it_will_have_served_enough() -> None:
    fd = _core.scoreboard_create(2, 1)
    board = Board(fd)
    os.close(fd)
    pool = Pool(1, 2, startup_timeout=60, graceful_timeout=60)
    pool.start(0.0)
    pool.loaded(1, 0.0)
    pool.spawned(0, 1, 0.0)
    pool.ready(0, 0.0)
    pool.serve(0.0)
    watch = Watch(pool, board.core, lambda: Limits(requests=1000))
    workers = {0: Worker(os.getpid(), -1, 1)}
    assert watch.look(workers, 10.0) == []
    assert watch.deadline() == 11.0
    board.count(0, "requests", 800, "2xx")
    assert watch.look(workers, 11.0) == []
    assert watch.deadline() == pytest.approx(11.25)  # 800 a second: 200 more take so long
    board.count(0, "requests", 199, "2xx")
    assert watch.look(workers, 11.25) == []
    assert watch.deadline() == pytest.approx(11.27)  # no more often than so
    board.count(0, "requests", 1, "2xx")
    assert watch.look(workers, 11.27) == [Spawn(1, 1)]
