"""The model of the pool: it is a queue as the books describe it, and ours is the better policy."""

import math
import random
from collections import Counter
from itertools import accumulate, pairwise
from statistics import fmean

import pytest

from loadtests._bench import _curves
from loadtests._bench._model import (
    DISTRIBUTIONS,
    OVERTAKING,
    POLICIES,
    OneQueue,
    Pool,
    Request,
    simulate,
    trace,
)
from poolsrv.settings.rows import Settings

pytestmark = pytest.mark.once

SHAPES = [(2, 1), (2, 4), (8, 4)]
MEAN = 0.01


def coming(
    workers: int, threads: int, load: float, *, count: int = 4000, of: str = "exponential"
) -> list[Request]:
    return trace(7, count, load * workers * threads / MEAN, MEAN, DISTRIBUTIONS[of])


def mean_wait(pool: Pool) -> float:
    return fmean(request.wait for request in pool.ended)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_service_times_have_the_mean_one(name: str) -> None:
    source = random.Random(1)
    times = [DISTRIBUTIONS[name](source) for _ in range(50_000)]
    assert min(times) > 0
    assert fmean(times) == pytest.approx(1, rel=0.05)


def test_the_same_seed_gives_the_same_requests_and_the_same_ends() -> None:
    requests, again = coming(2, 4, 0.9), coming(2, 4, 0.9)
    assert [(r.arrival, r.service) for r in requests] == [(r.arrival, r.service) for r in again]
    runs = [simulate(requests, 2, 4, "random", seed=3).ended for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("gil", [0.0, 0.1])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("workers", "threads"), SHAPES)
def test_what_comes_ends_once_and_littles_law_holds(
    workers: int, threads: int, policy: str, gil: float
) -> None:
    requests = coming(workers, threads, 0.8, of="bimodal")
    pool = simulate(requests, workers, threads, policy, gil=gil)
    assert sorted(r.arrival for r in pool.ended) == [r.arrival for r in requests]
    assert pool.inside == 0
    assert all(worker.free == threads and not worker.queue for worker in pool.workers)
    # From empty to empty: those inside, over time, are the times spent inside.
    assert pool.area == pytest.approx(sum(r.response for r in pool.ended))
    assert all(r.wait >= 0 and r.delay >= -1e-9 for r in pool.ended)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_worker_serves_more_at_a_time_than_it_has_threads(policy: str) -> None:
    pool = simulate(coming(2, 4, 1.2), 2, 4, policy)
    for worker in range(2):
        mine = [r for r in pool.ended if r.worker == worker]
        # At the same instant, ends before starts.
        changes = sorted([(r.started, 1) for r in mine] + [(r.ended, -1) for r in mine])
        busy = most = 0
        for _, change in changes:
            busy += change
            most = max(most, busy)
        assert most == 4


def erlang_wait(servers: int, load: float) -> float:
    """Mean wait in an M/M/c queue, in units of the mean service time (Erlang, 1917)."""
    offered = servers * load
    waiting = offered**servers / math.factorial(servers) / (1 - load)
    others = sum(offered**k / math.factorial(k) for k in range(servers))
    return waiting / (waiting + others) / (servers * (1 - load))


def long_run_wait(policy: str) -> float:
    """Mean wait of 2x4 at load 0.7, in units of the mean service time."""
    source = DISTRIBUTIONS["exponential"]
    runs = [
        simulate(trace(seed, 40_000, 0.7 * 8 / MEAN, MEAN, source), 2, 4, policy)
        for seed in range(4)
    ]
    return fmean(map(mean_wait, runs)) / MEAN


@pytest.mark.parametrize("policy", ["poolsrv", "shared accept"])
def test_one_queue_for_all_threads_is_the_queue_of_the_books(policy: str) -> None:
    assert long_run_wait(policy) == pytest.approx(erlang_wait(8, 0.7), rel=0.1)


def test_random_is_a_queue_of_the_books_for_each_worker() -> None:
    assert long_run_wait("random") == pytest.approx(erlang_wait(4, 0.7), rel=0.1)


@pytest.mark.parametrize("of", DISTRIBUTIONS)
@pytest.mark.parametrize(("workers", "threads"), SHAPES)
def test_ours_waits_no_longer_than_those_who_do_not_look(
    workers: int, threads: int, of: str
) -> None:
    requests = coming(workers, threads, 0.9, of=of)
    ours = mean_wait(simulate(requests, workers, threads, "poolsrv"))
    for other in ("random", "round-robin"):
        assert ours <= mean_wait(simulate(requests, workers, threads, other))


def test_ours_spreads_the_work_where_shared_accept_gives_it_to_the_last_who_waited() -> None:
    requests = coming(8, 4, 0.5)

    def busiest(policy: str) -> int:
        served = [request.worker for request in simulate(requests, 8, 4, policy).ended]
        return max(served.count(worker) for worker in range(8))

    assert busiest("poolsrv") < 1.2 * len(requests) / 8
    assert busiest("shared accept") > 1.3 * len(requests) / 8


def test_the_model_has_the_default_of_the_option() -> None:
    assert Settings().queue_overtaking == OVERTAKING


@pytest.mark.parametrize(("policy", "of"), [("poolsrv", "exponential"), ("first come", "bimodal")])
def test_slow_requests_wait_in_one_queue_first_come_first_served(policy: str, of: str) -> None:
    pool = simulate(coming(2, 4, 0.95, of=of), 2, 4, policy)
    # The first of all are sent before the worker knows that they are slow.
    started = sorted(pool.ended, key=lambda r: r.arrival)[200:]
    assert all(before.started <= after.started for before, after in pairwise(started))


def p99(pool: Pool, *, slow: bool) -> float:
    responses = sorted(r.response for r in pool.ended if (r.service > MEAN) == slow)
    return _curves.quantile(responses, 0.99)


@pytest.mark.parametrize(("workers", "threads"), SHAPES)
def test_quick_pages_do_not_wait_behind_slow_ones(workers: int, threads: int) -> None:
    requests = coming(workers, threads, 0.97, of="bimodal")
    ours = simulate(requests, workers, threads, "poolsrv")
    strict = simulate(requests, workers, threads, "first come")
    assert p99(ours, slow=False) < p99(strict, slow=False) / 1.5
    # The slow ones pay with less than what they take themselves.
    slow = max(request.service for request in requests)
    assert p99(ours, slow=True) < p99(strict, slow=True) + OVERTAKING * slow


def test_a_request_is_overtaken_for_so_long_only() -> None:
    """One thread is always wanted by quick requests; a slow one gets it in the end."""
    pinned = Request(0.0, 0.5, 0.5)
    first = Request(0.001, 0.0, 0.0)  # where nobody waits, nobody is judged
    slow = Request(0.002, 0.1, 0.1)
    quick = [Request(0.49 + i * 0.0099, 0.01) for i in range(300)]
    pool = simulate([pinned, first, slow, *quick], 1, 1, "poolsrv")
    (started,) = (r.started for r in pool.ended if r.service == 0.1)
    assert OVERTAKING * 0.1 < started < OVERTAKING * 0.1 + 0.05
    (strict,) = (
        r.started
        for r in simulate([pinned, first, slow, *quick], 1, 1, "first come").ended
        if r.service == 0.1
    )
    assert strict == pytest.approx(0.5)


def test_no_request_waits_where_nothing_runs() -> None:
    """That slow ones mostly take longer is no reason to let the thread rest."""
    slow = [Request(i * 0.0001, 0.01, 0.1) for i in range(20)]
    quick = [Request(i * 0.001, 0.0005) for i in range(1, 200)]
    requests = sorted([*slow, *quick], key=lambda r: r.arrival)
    pool = simulate(requests, 1, 1, "poolsrv")
    assert pool.now == pytest.approx(sum(request.service for request in requests))


def test_slow_requests_that_come_together_leave_the_last_thread_to_quick_ones_for_a_moment() -> (
    None
):
    """So they do not end together either, and quick ones never wait for as long as they take."""
    warm = [Request(i * 0.002, 0.0005) for i in range(100)]
    slow = [Request(0.3, 0.008, 0.008) for _ in range(8)]
    quick = Request(0.3081, 0.0005)
    pool = Pool(1, 4)
    pool.run([*warm, *slow, quick], OneQueue(pool, kept=4))
    starts = sorted(r.started for r in pool.ended if r.usual)
    # Three quarters of a quarter of 8 ms behind the others.
    assert starts == pytest.approx([0.3] * 4 + [0.308] * 3 + [0.3095])
    (started,) = (r.started for r in pool.ended if r.arrival == quick.arrival)
    assert started == quick.arrival


def test_a_fast_application_is_sent_more_and_gives_it_back_where_there_is_room() -> None:
    """Two workers of one thread learn that requests take 10 us; then one is in a request of a
    second, and so is the other, for 10 ms."""
    quick = [Request(i * 0.001, 0.00001) for i in range(200)]
    slow = [Request(0.3, 1.0), Request(0.3, 0.01)]
    behind = [Request(0.3005, 0.00001) for _ in range(4)]
    pool = Pool(2, 1)
    pool.run([*quick, *slow, *behind], OneQueue(pool))
    late = [r for r in pool.ended if r.arrival == 0.3005]
    # Within a tick of the end of the 10 ms, all of them in the worker that is free again.
    assert all(0.01 < r.ended - 0.3 < 0.01 + 2 * 0.002 for r in late)
    assert len({r.worker for r in late}) == 1


def test_a_kept_connection_does_not_travel_where_it_is_as_well_off() -> None:
    """One worker: what comes on kept connections waits in it, and in order."""
    pool = Pool(1, 2)
    policy = OneQueue(pool, kept=8)
    requests = coming(1, 2, 0.95, count=2000)
    pool.run(requests, policy)
    started = sorted(pool.ended, key=lambda r: r.arrival)[100:]
    assert all(before.started <= after.started for before, after in pairwise(started))


@pytest.mark.parametrize(("workers", "threads"), SHAPES)
def test_kept_connections_wait_little_longer_than_in_one_queue(workers: int, threads: int) -> None:
    requests = coming(workers, threads, 0.8, of="exponential")
    kept = mean_wait(simulate(requests, workers, threads, "kept"))
    one = mean_wait(simulate(requests, workers, threads, "poolsrv"))
    apart = mean_wait(simulate(requests, workers, threads, "random"))
    # At most a tick for each that waits beside a free thread elsewhere.
    assert kept <= one + 0.002
    assert kept < apart


def test_nobody_behind_a_pinned_worker_waits_for_longer_than_a_tick() -> None:
    """Kept connections of two workers; one is pinned for good."""
    pool = Pool(2, 1)
    warm = [Request(i * 0.002, 0.0005) for i in range(100)]
    pinned = Request(0.3, 2.0)
    later = [Request(0.31 + i * 0.005, 0.0005) for i in range(200)]
    pool.run([*warm, pinned, *later], OneQueue(pool, kept=16))
    late = [r for r in pool.ended if 0.31 <= r.arrival < 1.3]
    assert max(r.wait for r in late) <= 0.002 + 1e-9


@pytest.mark.parametrize(("hanging", "where"), [(3, {0: 3}), (5, {0: 4, 1: 1})])
def test_what_waits_behind_hanging_threads_is_overtaken_for_a_moment_only(
    hanging: int, where: dict[int, int]
) -> None:
    """More comes than the other threads can serve, so all workers are full."""
    warm = [Request(i * 0.002, 0.0005) for i in range(100)]
    hang = [Request(0.3, 10.0) for _ in range(hanging)]
    later = [Request(0.31 + i / (8 - hanging) / 120, 0.01) for i in range(1800)]
    pool = Pool(2, 4)
    pool.run([*warm, *hang, *later], OneQueue(pool, kept=64))
    assert Counter(r.worker for r in pool.ended if r.service == 10) == where
    counted = sorted((r for r in pool.ended if r.service == 0.01), key=lambda r: r.arrival)
    # For each, when the first began of it and those that came later.
    begun = list(accumulate((r.started for r in reversed(counted)), min))[::-1]
    # What is overdue by a sweep is seen within another.
    assert max(r.started - first for r, first in zip(counted, begun, strict=True)) < 0.42


def test_threads_that_compute_share_the_gil_in_equal_parts() -> None:
    pool = simulate([Request(0.0, 1.0), Request(0.0, 1.0)], 1, 2, "poolsrv", gil=0.5)
    # Half a second of computing each, side by side: one second; then half a second of waiting.
    assert [request.ended for request in pool.ended] == pytest.approx([1.5, 1.5])
    apart = simulate([Request(0.0, 1.0), Request(0.0, 1.0)], 2, 1, "poolsrv", gil=0.5)
    assert [request.ended for request in apart.ended] == pytest.approx([1.0, 1.0])


def test_a_request_that_comes_later_gets_its_part_of_the_gil() -> None:
    # The first computes alone for 0.2 s, then both at half speed until the second has its 0.2 s.
    pool = simulate([Request(0.0, 1.0), Request(0.2, 0.2)], 1, 2, "poolsrv", gil=1.0)
    assert [request.ended for request in pool.ended] == pytest.approx([0.6, 1.2])


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2), (0.51, 3), (0.99, 4), (0.0, 1)])
def test_quantile(share: float, expected: float) -> None:
    assert _curves.quantile([1, 2, 3, 4], share) == expected


def test_table_and_curves_show_every_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_curves, "SHAPES", _curves.SHAPES[:2])
    told: list[str] = []
    points = list(_curves.curves(["computing"], 200, 1, told.append))
    assert len(told) == len(DISTRIBUTIONS) * 2
    assert len(points) == len(told) * len(_curves.LOADS) * len(POLICIES)
    table = _curves.markdown(points, 200, 1)
    assert table.count("| 2x4 | 0.9 |") == len(DISTRIBUTIONS)
    drawing = _curves.plot(points, "computing")
    assert all(f">{policy}<" in drawing for policy in POLICIES)
