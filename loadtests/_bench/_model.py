"""A discrete-event simulation of requests that come to a pool of workers.

Pure: no clock, no I/O, no randomness but that of the seed. Time is in seconds.

Requests come at their own times, whatever has become of the earlier ones (open
loop), each on a connection of its own, to W workers of T threads. A request
holds a thread for its service time. A share of that may need the GIL, which
all threads of a worker have in equal parts; the rest is waiting, which threads
do side by side.

What is compared is where a request goes:

- `OneQueue` is poolsrv: it calls the rules of the server itself (_rules.py). Left
  out: how long it takes to wake a thread, to pass a connection on and to learn
  what a path usually takes, and the limits of the queue.
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
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from loadtests._bench._rules import NONE, Patience, Schedule, View, library

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

# The default of --queue-overtaking; and the default of half of --queue-timeout.
OVERTAKING = 10
_PATIENCE_SECONDS = 15.0


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


@dataclass(slots=True, order=True)
class _Waiting:
    """One that waits, in a lane: in order of arrival."""

    since: int
    order: int
    rank: int = field(compare=False)
    request: Request = field(compare=False)
    placed: bool = field(default=False, compare=False)  # the supervisor has sent it


_PLACED_LANE, _SLOW_LANE = 0, 2


class _Here:
    """What the policy knows of one worker."""

    def __init__(self, threads: int) -> None:
        self.schedule = Schedule(threads)
        self.width = self.limit = threads
        # What the supervisor sent, then what came on kept connections: fast, and what is slow.
        self.lanes: tuple[list[_Waiting], ...] = ([], [], [])
        self.began: dict[int, float] = {}  # requests that run, by their identity
        self.begun = 0  # in this tick
        self.took_at = -math.inf  # when the last one was begun
        self.slow_at = -math.inf  # when the last one of the slow lane was
        self.pausing = False
        self.ticking = False
        self.ticked = 0.0
        self.evened = 0.0  # when it last looked for workers with fewer connections
        self.connections = 0  # that it has kept
        self.placed = 0  # of those that wait, so many were sent by the supervisor

    @property
    def waiting(self) -> int:
        return sum(map(len, self.lanes))


class OneQueue:
    """poolsrv, by its own rules (_rules.py): a new request waits in the supervisor,
    one that comes on a kept connection in the worker that has kept it, and together
    they are one queue. `kept`: so many connections, each asks again and again, on
    whichever the seed says; 0: each request has a connection of its own."""

    def __init__(
        self, pool: Pool, overtaking: int = OVERTAKING, *, kept: int = 0, seed: int = 0
    ) -> None:
        self._rules = library()
        self._pool = pool
        self._patience = Patience(overtaking, _nanoseconds(_PATIENCE_SECONDS) if overtaking else 0)
        self._tick_seconds = self._rules.rules_tick() / 1e9
        self._sweep_seconds = self._rules.rules_sweep() / 1e9
        self.lanes: tuple[list[_Waiting], list[_Waiting]] = ([], [])
        self.here = [_Here(pool.threads) for _ in pool.workers]
        self._views = (View * len(pool.workers))()
        self._first = 0
        self._mean = 0
        self._order = itertools.count()
        self._source = random.Random(seed)
        self._kept = kept
        self._homes: dict[int, int] = {}  # of connections: the worker that has kept it
        self._connection: dict[int, int] = {}  # of requests that are inside

    def arrived(self, request: Request) -> None:
        waiting = _Waiting(_nanoseconds(request.arrival), next(self._order), 0, request)
        if self._kept:
            connection = self._source.randrange(self._kept)
            self._connection[id(request)] = connection
            if connection in self._homes:
                self._arrived_in(self._pool.workers[self._homes[connection]], waiting)
                return
        self._enqueue(waiting)
        self._dispatch()

    def freed(self, worker: Worker) -> None:
        request, here = self._pool.ended[-1], self.here[worker.index]
        del here.began[id(request)]
        if self._kept:
            self._keep(self._connection.pop(id(request)), worker.index)
        assert request.ended >= request.started
        took = _nanoseconds(request.ended - request.started)
        here.schedule.ran(took)
        self._mean = self._rules.rules_mean(self._mean, took)
        self._take(worker)
        self._dispatch()

    def _keep(self, connection: int, index: int) -> None:
        self._leave(connection)
        self._homes[connection] = index
        self.here[index].connections += 1

    def _leave(self, connection: int) -> None:
        home = self._homes.pop(connection, None)
        if home is not None:
            self.here[home].connections -= 1

    # --- Those that wait

    def _judge(self, waiting: _Waiting, anybody: bool) -> int:
        """Its lane; where nobody waits nobody is judged."""
        delay = 0
        if anybody:
            usual = _nanoseconds(waiting.request.usual)
            delay = self._rules.choice_delay(usual, self._mean, self._patience)
        waiting.rank = waiting.since + delay
        return int(delay > 0)

    def _enqueue(self, waiting: _Waiting) -> None:
        anybody = any(self.lanes) or any(here.waiting for here in self.here)
        insort(self.lanes[self._judge(waiting, anybody)], waiting)

    # --- In the supervisor

    def _view(self, index: int) -> View:
        worker, here = self._pool.workers[index], self.here[index]
        load = self._pool.threads - worker.free + here.placed
        fast, slow = (
            next((waiting.rank for waiting in lane if not waiting.placed), 0)
            for lane in here.lanes[_PLACED_LANE + 1 :]
        )
        first = min(fast or slow, slow or fast)
        return View(load, here.limit, here.width, here.waiting, here.connections, first, slow)

    def _dispatch(self) -> None:
        while any(self.lanes):
            for index in range(len(self.here)):
                self._views[index] = self._view(index)
            for lane in sorted(
                (lane for lane in self.lanes if lane), key=lambda lane: lane[0].rank
            ):
                is_slow = lane is self.lanes[1]
                best = self._rules.choice_worker(
                    self._views, len(self.here), self._first, is_slow, lane[0].rank
                )
                if best != NONE:
                    break
            else:
                return
            self._first = (best + 1) % len(self.here)
            self._place(self.here[best], lane.pop(0), is_slow)
            self._take(self._pool.workers[best])

    def _place(self, here: _Here, waiting: _Waiting, is_slow: bool) -> None:
        waiting.placed = True
        here.placed += 1
        if is_slow:
            here.lanes[_SLOW_LANE].insert(0, waiting)
            here.lanes[_SLOW_LANE].sort(key=lambda waiting: waiting.rank)
        else:
            waiting.rank = waiting.since
            here.lanes[_PLACED_LANE].append(waiting)

    # --- In a worker

    def _arrived_in(self, worker: Worker, waiting: _Waiting) -> None:
        here = self.here[worker.index]
        # The last thread may be kept for fast ones.
        few = worker.free == 0 or (worker.free == 1 and self._pool.threads > 1)
        lane = self._judge(waiting, few or here.waiting > 0)
        here.lanes[1 + lane].append(waiting)
        self._take(worker)

    def _take(self, worker: Worker) -> None:
        here = self.here[worker.index]
        while worker.free and here.waiting:
            lane = min((lane for lane in here.lanes if lane), key=lambda lane: lane[0].rank)
            if lane is here.lanes[_SLOW_LANE]:
                if pause := self._pause(worker, lane[0]):
                    self._take_later(worker, pause)
                    return
                here.slow_at = self._pool.now
            waiting = lane.pop(0)
            here.placed -= waiting.placed
            request = waiting.request
            here.begun += 1
            here.took_at = self._pool.now
            here.began[id(request)] = self._pool.now
            self._pool.start(worker, request)
            if not here.ticking:
                here.ticking = True
                self._tick_later(worker)

    def _pause(self, worker: Worker, waiting: _Waiting) -> float:
        if worker.free > 1:
            return 0.0
        since = min(self._pool.now - self.here[worker.index].slow_at, 1.0)
        usual = (waiting.rank - waiting.since) // self._patience.times
        pause = self._rules.choice_pause(usual, self._pool.threads, _nanoseconds(since))
        return int(pause) / 1e9

    def _take_later(self, worker: Worker, seconds: float) -> None:
        here = self.here[worker.index]

        def take() -> None:
            here.pausing = False
            self._take(worker)

        if not here.pausing:
            here.pausing = True
            self._pool.at(self._pool.now + seconds, _TICK, take)

    def _tick_later(self, worker: Worker) -> None:
        self._pool.at(self._pool.now + self._tick_seconds, _TICK, lambda: self._tick(worker))

    def _tick(self, worker: Worker) -> None:
        here = self.here[worker.index]
        stuck = sum(since <= here.ticked for since in here.began.values())
        here.width, here.limit = here.schedule.width(stuck), here.schedule.limit(stuck)
        others = [self._view(i) for i in range(len(self.here)) if i != worker.index]
        room = sum(self._rules.choice_room(view) for view in others)
        since = _nanoseconds(min(self._pool.now - here.took_at, 1.0))
        surplus = self._rules.choice_surplus(here.waiting, here.begun, since)
        hangs = self._pool.now - here.took_at > self._sweep_seconds
        self._give_back(
            here,
            here.waiting if hangs else self._rules.choice_moving(here.waiting, surplus, room),
        )
        if self._pool.now >= here.evened + self._sweep_seconds:
            here.evened = self._pool.now
            waits = [view.connections for view in others if view.waiting]
            fewest = min(waits, default=2**31 - 1)
            self._give_back(here, self._rules.choice_excess(here.connections, fewest, here.waiting))
            for lane in (0, 1):
                overdue = max(
                    (self._rules.choice_overdue(view, lane) for view in others), default=0
                )
                self._give_back_overdue(here, here.lanes[_PLACED_LANE + 1 + lane], overdue)
        here.begun, here.ticked = 0, self._pool.now
        here.ticking = bool(here.began)
        if here.ticking:
            self._tick_later(worker)
        self._dispatch()

    def _give_back(self, here: _Here, count: int) -> None:
        for _ in range(count):
            lane = min((lane for lane in here.lanes if lane), key=lambda lane: lane[0].rank)
            self._hand_back(here, lane.pop(0))

    def _give_back_overdue(self, here: _Here, lane: list[_Waiting], overdue: int) -> None:
        while lane and lane[0].rank < overdue:
            self._hand_back(here, lane.pop(0))

    def _hand_back(self, here: _Here, waiting: _Waiting) -> None:
        here.placed -= waiting.placed
        waiting.placed = False
        if self._kept:
            self._leave(self._connection[id(waiting.request)])
        self._enqueue(waiting)


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


# Of kept connections, for each thread.
_KEPT_EACH = 4


def _all_kept(pool: Pool, seed: int) -> Policy:
    return OneQueue(pool, kept=_KEPT_EACH * pool.threads * len(pool.workers), seed=seed)


POLICIES: dict[str, Callable[[Pool, int], Policy]] = {
    "poolsrv": lambda pool, _seed: OneQueue(pool),
    "kept": _all_kept,
    "first come": lambda pool, _seed: OneQueue(pool, overtaking=0),
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
