"""Keepers whose worker has ended: they end within moments, or are ended.

Supervisor only. As long as a keeper lives, its worker's connections are open, and what the
application had locked stays locked: one that is stopped must not keep them for ever.
"""

import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from poolsrv import operator_messages as say
from poolsrv.supervisor.host import Host
from poolsrv.system import processes

_log = logging.getLogger("poolsrv")

# Longer than a keeper tries to give back what it has (PATIENCE in csrc/worker/keeper.c).
_PATIENCE = 10.0


@dataclass(slots=True)
class _Left:
    pid: int
    late_at: float
    killed: bool = False


class Keepers:
    """By pidfd, which is ours. `label` is more to say of each."""

    def __init__(self, host: Host, label: Mapping[str, object]) -> None:
        self._host = host
        self._label = label
        self._left: dict[int, _Left] = {}

    def left(self, pid: int) -> None:
        """The worker whose keeper had this pid has ended. 0: it had none."""
        # It became our child with the end of the worker: no other process has its pid before
        # we have waited for it.
        if not pid or processes.parent_of(pid) != os.getpid():
            return
        pidfd = os.pidfd_open(pid)
        # Whoever has stopped both, or a whole group of processes, has stopped it, too.
        processes.send_signal(pidfd, signal.SIGCONT)
        self._left[pidfd] = _Left(pid, self._host.now + _PATIENCE)
        self._host.watch(pidfd, lambda: self._ended(pidfd))

    def _ended(self, pidfd: int) -> None:
        if processes.reap(pidfd) is not None:
            self._forget(pidfd)

    def _forget(self, pidfd: int) -> None:
        del self._left[pidfd]
        self._host.unwatch(pidfd)
        os.close(pidfd)

    @property
    def some_are_left(self) -> bool:
        return bool(self._left)

    def deadline(self) -> float | None:
        """When `tick` should be called next."""
        return min((one.late_at for one in self._left.values() if not one.killed), default=None)

    def tick(self) -> None:
        """Kill those that are late."""
        for pidfd, one in self._left.items():
            if not one.killed and one.late_at <= self._host.now:
                one.killed = True
                processes.send_signal(pidfd, signal.SIGKILL)
                fields = {"keeper_pid": one.pid, **self._label}
                _log.error(say.KEEPER_KILLED, extra={"fields": fields})

    def close_in_child(self) -> None:
        """In a child just forked: close the copies of what only the supervisor uses."""
        for pidfd in self._left:
            os.close(pidfd)

    def end(self) -> None:
        """The server ends: nobody takes what they have."""
        for pidfd in list(self._left):
            processes.send_signal(pidfd, signal.SIGKILL)
            self._forget(pidfd)
