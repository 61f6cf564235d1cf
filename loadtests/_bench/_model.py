"""A discrete-event simulation of requests that come to a pool of workers.

Pure: no clock, no I/O, no randomness but that of the seed. Time is in seconds.

Requests come at their own times, whatever has become of the earlier ones (open
loop), each on a connection of its own, to W workers of T threads. A request
holds a thread for its service time. A share of that may need the GIL, which
all threads of a worker have in equal parts; the rest is waiting, which threads
do side by side.

What is compared is where a request goes:

- `MostFree` is poolsrv: poolsrv/csrc/common/choice.c for the supervisor, schedule.c
  (schedule_limit, schedule_tick) for the worker. Left out: how long it takes to
  wake a thread and to learn what a path usually takes, that a worker whose calls
  only compute gets two at a time, connections that are kept alive, and the limits
  of the queue.
- `Sent`: random, or in turn. A request is sent on when it comes, without
  looking, and waits in the worker it was sent to.
- `SharedAccept`: all workers wait at one listening socket, and accept only
  while they have a free thread. The kernel wakes the one that began to wait
  last.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

# ---------------------------------------------------------------------------
# What comes


@dataclass(slots=True)
class Request:
    """`usual`: what requests of its path take, as far as a server can know; 0: it does not."""

    arrival: float
    service: float
    usual: float = 0.0
    started: float = math.nan
    ended: float = math.nan
    worker: int = -1

    @property
    def wait(self) -> float:
        """Until it got a thread."""
        return self.started - self.arrival

    @property
    def response(self) -> float:
        return self.ended - self.arrival

    @property
    def delay(self) -> float:
        """Beyond its own service: the wait, and what sharing the GIL cost."""
        return self.response - self.service


def exponential(source: random.Random) -> float:
    return source.expovariate(1.0)


# Of the bounded Pareto distribution. Without the bound the variance is infinite
# at this exponent, and no simulation would be long enough.
_ALPHA = 1.5
_LONGEST = 1000.0  # times the shortest
_PARETO_MEAN: float = (
    _ALPHA / (_ALPHA - 1) * (1 - _LONGEST ** (1 - _ALPHA)) / (1 - _LONGEST**-_ALPHA)
)


def pareto(source: random.Random) -> float:
    share = source.random() * (1 - _LONGEST**-_ALPHA)
    value: float = (1 - share) ** (-1 / _ALPHA) / _PARETO_MEAN
    return value


# A site with some slow pages: one of ten takes twenty times as long.
_SLOW_SHARE, _SLOW = 0.1, 20.0


def bimodal(source: random.Random) -> float:
    value = _SLOW if source.random() < _SLOW_SHARE else 1.0
    return value / (1 - _SLOW_SHARE + _SLOW_SHARE * _SLOW)


Distribution = Callable[[random.Random], float]

# Each has the mean 1.
DISTRIBUTIONS: dict[str, Distribution] = {
    "exponential": exponential,
    "pareto": pareto,
    "bimodal": bimodal,
}


def trace(
    seed: int, count: int, rate: float, mean: float, distribution: Distribution
) -> list[Request]:
    """Poisson arrivals of `rate` a second, with service times of that mean in seconds.

    Slow and quick pages have paths of their own; otherwise all have the same.
    """
    source = random.Random(seed)
    now, requests = 0.0, []
    for _ in range(count):
        now += source.expovariate(rate)
        service = mean * distribution(source)
        requests.append(Request(now, service, service if distribution is bimodal else mean))
    return requests


# ---------------------------------------------------------------------------
# Who serves


@dataclass(slots=True)
class Worker:
    """`queue`: requests that wait in it for one of its own threads."""

    index: int
    free: int
    starts: int = 0
    queue: deque[Request] = field(default_factory=deque)
    # The GIL, shared in equal parts: each of n requests that want it gets on by
    # 1/n of the time. `progress` is what one that was there from the beginning
    # has got; (progress at which it has enough, order, request) for each.
    progress: float = 0.0
    progress_at: float = 0.0
    computing: list[tuple[float, int, Request]] = field(default_factory=list)
    stamp: int = 0


class Policy(Protocol):
    """Where requests go. Told of each event, it starts requests in the pool."""

    def arrived(self, request: Request) -> None: ...

    def freed(self, worker: Worker) -> None:
        """One of the worker's threads has ended its request."""


# Kinds of events. At the same time, an end comes before an arrival.
_ENDED, _COMPUTED, _TICK, _ARRIVED = range(4)


class Pool:
    """The workers, and the events to come.

    `gil`: the share of each service time that needs the GIL.
    """

    def __init__(self, workers: int, threads: int, gil: float = 0.0) -> None:
        self.threads = threads
        self.workers = [Worker(index, threads) for index in range(workers)]
        self.now = 0.0
        self.inside = 0  # requests that have come and not ended
        self.area = 0.0  # integral of `inside` over time
        self.ended: list[Request] = []
        self._gil = gil
        self._order = 0
        self._events: list[tuple[float, int, int, Callable[[], None]]] = []

    def at(self, when: float, kind: int, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, kind, self._order, action))

    def start(self, worker: Worker, request: Request) -> None:
        """Give the request a thread of the worker, which has one free."""
        assert worker.free > 0
        worker.free -= 1
        worker.starts += 1
        request.started, request.worker = self.now, worker.index
        if self._gil:
            self._compute(worker, request)
        else:
            self._block(worker, request, request.service)

    def run(self, requests: Sequence[Request], policy: Policy) -> None:
        """Until all have ended."""
        self._policy = policy
        for request in requests:
            self.at(request.arrival, _ARRIVED, partial(self._arrive, request))
        while len(self.ended) < len(requests):
            when, _, _, action = heapq.heappop(self._events)
            self.area += self.inside * (when - self.now)
            self.now = when
            action()

    def _arrive(self, request: Request) -> None:
        self.inside += 1
        self._policy.arrived(request)

    def _end(self, worker: Worker, request: Request) -> None:
        self.inside -= 1
        request.ended = self.now
        self.ended.append(request)
        worker.free += 1
        self._policy.freed(worker)

    def _block(self, worker: Worker, request: Request, seconds: float) -> None:
        self.at(self.now + seconds, _ENDED, lambda: self._end(worker, request))

    def _compute(self, worker: Worker, request: Request) -> None:
        self._advance(worker)
        enough = worker.progress + self._gil * request.service
        heapq.heappush(worker.computing, (enough, worker.starts, request))
        self._await_computed(worker)

    def _advance(self, worker: Worker) -> None:
        if worker.computing:
            worker.progress += (self.now - worker.progress_at) / len(worker.computing)
        worker.progress_at = self.now

    def _await_computed(self, worker: Worker) -> None:
        """Who has enough next, if nobody comes meanwhile."""
        worker.stamp += 1
        if worker.computing:
            missing = worker.computing[0][0] - worker.progress
            when = self.now + max(missing, 0.0) * len(worker.computing)
            stamp = worker.stamp
            self.at(when, _COMPUTED, lambda: self._computed(worker, stamp))

    def _computed(self, worker: Worker, stamp: int) -> None:
        if stamp != worker.stamp:
            return  # somebody came meanwhile
        self._advance(worker)
        _, _, request = heapq.heappop(worker.computing)
        self._await_computed(worker)
        self._block(worker, request, (1 - self._gil) * request.service)


# ---------------------------------------------------------------------------
# Where requests go

# As in poolsrv/csrc/worker/schedule.c and schedule.h; a test compares them.
TICK_SECONDS = 0.002
AHEAD_MOST = 64
_MEAN_WEIGHT = 1 / 16


# The default of --queue-overtaking.
OVERTAKING = 10
SLOW_SECONDS = 0.00025


class MostFree:
    """poolsrv: one queue, first come, first served, but that those who will be
    done soon may overtake those who take long. The next goes to the worker with
    the most free threads, if any has less than its limit: its threads, and as many
    more as it serves within a tick. A worker
    whose threads are all in requests that do not end gives back what it has not
    begun."""

    def __init__(self, pool: Pool, overtaking: float = OVERTAKING) -> None:
        self._pool = pool
        self._overtaking = overtaking
        self.queue: list[tuple[float, int, Request]] = []  # a heap
        self._order = itertools.count()
        self._limits = [pool.threads] * len(pool.workers)
        self._means = [0.0] * len(pool.workers)
        self._turn = 0
        self._ticking = [False] * len(pool.workers)
        self._seen = [0] * len(pool.workers)  # worker.starts at the last tick

    def arrived(self, request: Request) -> None:
        self._enqueue(request)
        self._dispatch()

    def freed(self, worker: Worker) -> None:
        request = self._pool.ended[-1]
        mean = self._means[worker.index]
        sample = request.ended - request.started
        self._means[worker.index] = mean + (sample - mean) * _MEAN_WEIGHT
        if worker.queue:
            self._start(worker, worker.queue.popleft())
        self._dispatch()

    def _enqueue(self, request: Request) -> None:
        rank = request.arrival
        if self.queue and self._overtaking and _is_slow(request):
            rank += self._overtaking * request.usual
        heapq.heappush(self.queue, (rank, next(self._order), request))

    def _dispatch(self) -> None:
        while self.queue:
            worker = self._choose()
            if worker is None:
                return
            _, _, request = heapq.heappop(self.queue)
            if worker.free:
                self._start(worker, request)
            else:
                worker.queue.append(request)

    def _choose(self) -> Worker | None:
        best, most = None, -math.inf
        workers = self._pool.workers
        for place in range(self._turn, self._turn + len(workers)):
            worker = workers[place % len(workers)]
            # Of threads, less what it has: negative while a backlog waits in it.
            free = worker.free - len(worker.queue)
            room = self._limits[worker.index] - (self._pool.threads - free)
            if free > most and room > 0:
                best, most = worker, free
        if best is not None:
            self._turn = (best.index + 1) % len(workers)
        return best

    def _start(self, worker: Worker, request: Request) -> None:
        self._pool.start(worker, request)
        if not self._ticking[worker.index]:
            self._ticking[worker.index] = True
            self._tick_later(worker)

    def _tick_later(self, worker: Worker) -> None:
        self._pool.at(self._pool.now + TICK_SECONDS, _TICK, lambda: self._tick(worker))

    def _tick(self, worker: Worker) -> None:
        index = worker.index
        mean = self._means[index]
        ahead = min(int(TICK_SECONDS / mean), AHEAD_MOST) if mean else 0
        self._limits[index] = self._pool.threads + ahead
        if worker.free == 0 and worker.starts == self._seen[index]:
            self._limits[index] = self._pool.threads
            while worker.queue:  # each keeps its time, hence its place
                self._enqueue(worker.queue.popleft())
        self._seen[index] = worker.starts
        self._ticking[index] = worker.free < self._pool.threads
        if self._ticking[index]:
            self._tick_later(worker)
        self._dispatch()


def _is_slow(request: Request) -> bool:
    return request.usual >= SLOW_SECONDS


class Sent:
    """Sent on when it comes, to the worker that a rule says; it stays there."""

    def __init__(self, pool: Pool, choose: Callable[[], Worker]) -> None:
        self._pool = pool
        self._choose = choose

    def arrived(self, request: Request) -> None:
        worker = self._choose()
        if worker.free:
            self._pool.start(worker, request)
        else:
            worker.queue.append(request)

    def freed(self, worker: Worker) -> None:
        if worker.queue:
            self._pool.start(worker, worker.queue.popleft())


class SharedAccept:
    """`_waiting` is the kernel's list of who waits at the socket, the last to
    come at its end. Who accepts and has another free thread waits again, as
    the last."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._backlog: deque[Request] = deque()
        self._waiting = list(pool.workers)

    def arrived(self, request: Request) -> None:
        if not self._waiting:
            self._backlog.append(request)
            return
        worker = self._waiting[-1]
        self._pool.start(worker, request)
        if not worker.free:
            self._waiting.pop()

    def freed(self, worker: Worker) -> None:
        if self._backlog:
            self._pool.start(worker, self._backlog.popleft())
        elif worker.free == 1:
            self._waiting.append(worker)


def _shuffled(pool: Pool, seed: int) -> Policy:
    source = random.Random(seed)
    return Sent(pool, lambda: source.choice(pool.workers))


def _round_robin(pool: Pool, _seed: int) -> Policy:
    turns = itertools.cycle(pool.workers)
    return Sent(pool, lambda: next(turns))


POLICIES: dict[str, Callable[[Pool, int], Policy]] = {
    "poolsrv": lambda pool, _seed: MostFree(pool),
    "first come": lambda pool, _seed: MostFree(pool, overtaking=0),
    "random": _shuffled,
    "round-robin": _round_robin,
    "shared accept": lambda pool, _seed: SharedAccept(pool),
}


def simulate(
    requests: Sequence[Request],
    workers: int,
    threads: int,
    policy: str,
    *,
    gil: float = 0.0,
    seed: int = 0,
) -> Pool:
    """The pool after all of a trace have ended, which must be in order of arrival.

    The trace is left as it is: `Pool.ended` holds copies, in order of their ends.
    `seed` is of the policy's own choices.
    """
    pool = Pool(workers, threads, gil)
    pool.run(
        [Request(request.arrival, request.service, request.usual) for request in requests],
        POLICIES[policy](pool, seed),
    )
    return pool
