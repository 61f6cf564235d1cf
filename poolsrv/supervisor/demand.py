"""Whether a group that runs on demand is still in use, and whether it needs another worker.

Supervisor only. Reads the scoreboard; what follows is the pool's decision.
"""

import logging
from collections.abc import Callable, Mapping

from poolsrv import _core
from poolsrv import operator_messages as say
from poolsrv.between.scoreboard import SUPERVISOR, Row
from poolsrv.supervisor.actions import GroupAction
from poolsrv.supervisor.pool import Pool
from poolsrv.supervisor.postmortem import served

_log = logging.getLogger("poolsrv")

# How often it is looked at, in seconds; a shorter time limit makes it more often.
_LOOK = 1.0

# A queue that is not empty for so long needs another worker: one that is free takes what
# comes within a millisecond.
_PRESSES = 0.1


class Demand:
    """`idle_timeout` says for how many seconds no request has come before all workers end."""

    def __init__(
        self,
        pool: Pool,
        board: _core.Scoreboard,
        idle_timeout: Callable[[], float],
        label: Mapping[str, object],
    ) -> None:
        self._label = label
        self._pool = pool
        self._board = board
        self._idle_timeout = idle_timeout
        self._seen = (0, 0)
        self._used_at = 0.0  # a request came, or ran, at that time or later
        self._next = 0.0

    def wake(self, now: float) -> list[GroupAction]:
        """A request waits, and nobody is there."""
        self._used_at = self._next = now
        return self._pool.wake(now)

    def deadline(self) -> float | None:
        """When `look` should be called next."""
        return self._next if self._pool.on_demand and self._pool.wanted else None

    def look(self, now: float) -> list[GroupAction]:
        """Judge the group, if it is time."""
        at = self.deadline()
        if at is None or now < at:
            return []
        row = Row(SUPERVISOR, self._board.supervisor())
        slots = range(self._board.slot_count)
        seen = (row["dispatched"], sum(served(self._board, slot) for slot in slots))
        waits = row["queue_length"] > 0
        if waits or seen != self._seen or any(self._board.current(slot) for slot in slots):
            self._seen = seen
            self._used_at = now
        limit = self._idle_timeout()
        self._next = now + (_PRESSES if waits else min(_LOOK, limit / 4))
        if waits:
            return self._pool.press(now)
        if now - self._used_at >= limit:
            if actions := self._pool.rest(now):
                _log.info(say.GROUP_RESTS, limit, extra={"fields": self._label})
            return actions
        return []
