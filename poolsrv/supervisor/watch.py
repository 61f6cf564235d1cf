"""Looks after the workers that are ready, once a second, if there is a limit for them.

Supervisor only. Reads the scoreboard and /proc; what follows is the pool's decision.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from poolsrv import _core
from poolsrv import operator_messages as say
from poolsrv.between.lifecycle import State
from poolsrv.between.scoreboard import SUPERVISOR, WORKER, Row
from poolsrv.supervisor import limits
from poolsrv.supervisor.actions import GroupAction, Reason
from poolsrv.supervisor.children import Worker
from poolsrv.supervisor.limits import LOOK, Limits, Use
from poolsrv.supervisor.pool import Pool
from poolsrv.supervisor.postmortem import served

_log = logging.getLogger("poolsrv")


# A worker about to reach --max-requests is looked at more often, but not more often than so.
_SOONEST = 0.02


class Progress:
    """Whether the server gets on, and how, since it was asked last."""

    def __init__(self, boards: Sequence[_core.Scoreboard]) -> None:
        self._boards = boards
        self._dispatched = [0] * len(boards)
        self._answered = 0
        self._asked = time.monotonic()

    def made(self) -> bool:
        """Nothing waits for a thread, or something has got one since the last question."""
        rows = [Row(SUPERVISOR, board.supervisor()) for board in self._boards]
        before, self._dispatched = self._dispatched, [row["dispatched"] for row in rows]
        return self._dispatched != before or not any(row["queue_length"] for row in rows)

    def describe(self) -> str:
        """A line for people."""
        now = time.monotonic()
        slots = [(board, slot) for board in self._boards for slot in range(board.slot_count)]
        busy = sum(len(board.current(slot)) for board, slot in slots)
        threads = sum(Row(WORKER, board.worker(slot))["threads"] for board, slot in slots)
        answered = sum(served(board, slot) for board, slot in slots)
        rate = (answered - self._answered) / max(now - self._asked, 0.001)
        self._answered, self._asked = answered, now
        return f"{busy} of {threads} threads busy, {rate:.1f} requests/s"


@dataclass(slots=True)
class _Watched:
    """A worker since it was ready, and its limits."""

    pid: int
    limits: Limits
    since: float
    looked_at: float
    served: int = 0  # until then


class Watch:
    """`given` says what the limits of a worker are that is ready now: a reload may bring
    others. `label` is more to say of a worker."""

    def __init__(
        self,
        pool: Pool,
        board: _core.Scoreboard,
        given: Callable[[], Limits],
        label: Mapping[str, object] | None = None,
    ) -> None:
        self._given = given
        self._label = label or {}
        self._pool = pool
        self._board = board
        self._chance = random.Random()
        self._watched: dict[int, _Watched] = {}
        self._next = 0.0

    def deadline(self) -> float | None:
        """When `look` should be called next."""
        return self._next if self._given().any else None

    def look(self, workers: Mapping[int, Worker], now: float) -> list[GroupAction]:
        """Judge each worker, if it is time."""
        if not self._given().any or now < self._next:
            return []
        self._next = now + LOOK
        actions: list[GroupAction] = []
        for slot, worker in workers.items():
            if self._pool.slots[slot].state is State.READY:
                actions += self._judge(slot, worker, now)
        return actions

    def _until(self, watched: _Watched, requests: int, now: float) -> float:
        """In how many seconds the worker has served enough, if it goes on like that."""
        passed, more = now - watched.looked_at, requests - watched.served
        watched.looked_at, watched.served = now, requests
        left = watched.limits.requests - requests
        if not watched.limits.requests or left <= 0 or more <= 0 or passed <= 0:
            return LOOK
        return max(_SOONEST, left * passed / more)

    def _judge(self, slot: int, worker: Worker, now: float) -> list[GroupAction]:
        watched = self._watched.get(slot)
        if watched is None or watched.pid != worker.pid:
            drawn = self._given().drawn(self._chance)
            watched = self._watched[slot] = _Watched(worker.pid, drawn, now, now)
        requests = served(self._board, slot) - worker.served_before
        self._next = min(self._next, now + self._until(watched, requests, now))
        use = Use(requests, now - watched.since, limits.resident(worker.pid))
        if why := limits.kills(watched.limits, use):
            return self._pool.kill(slot, why, Reason.RECYCLE, now)
        why = limits.exceeded(watched.limits, use)
        if not why or self._pool.is_recycling(slot):
            return []
        fields = {"slot": slot, "worker_pid": worker.pid, **self._label}
        _log.info(say.WORKER_REPLACED, why, extra={"fields": fields})
        return self._pool.recycle([slot], now)
