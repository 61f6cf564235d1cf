"""Starting a process by fork, what it must not keep of its parent, and how it ended.

Used by the supervisor for templates and the exporter, by a template for workers.
Every process is made by multiprocess with its context named: so the application
may be any callable, closures included. Who forks has one thread.
"""

import contextlib
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import multiprocess

_FORK = multiprocess.get_context("fork")

# What the supervisor handles. Operators and tools send these by habit, often to a
# whole group; by default most of them end a process.
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
)

# Descriptors that multiprocess opens for a process before it forks.
_PIPE_ENDS = 4


def start(name: str, life: Callable[[], None]) -> Any:
    """Fork; `life` is the child's whole life. Raises OSError, and then leaves nothing open."""
    places = _lowest(_PIPE_ENDS)
    process = _FORK.Process(target=_live, args=(name, life), name=f"poolsrv-{name}")
    try:
        process.start()
    except OSError:
        # multiprocess leaves its pipes open. They have taken the lowest places.
        for place in places:
            with contextlib.suppress(OSError):
                os.close(place)
        raise
    return process


def _lowest(count: int) -> list[int]:
    """The descriptors that the kernel gives next. Raises OSError if there are not so many."""
    places: list[int] = []
    try:
        places.extend(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(count))
    finally:
        for place in places:
            os.close(place)
    return places


def _live(name: str, life: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):  # only for ps and top
        Path("/proc/self/comm").write_text(f"pool:{name}")
    life()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: its exit status, minus its signal, or None if nobody knows."""

    status: int | None

    @property
    def signal(self) -> int:
        """The signal that ended it, 0 if none did."""
        return -self.status if self.status is not None and self.status < 0 else 0

    def __str__(self) -> str:
        if self.status is None:
            return "ended, and nobody was told how"
        if self.status < 0:
            return f"was ended by {signal_name(-self.status)}"
        return f"exited with status {self.status}"


def signal_name(number: int) -> str:
    """As in `SIGTERM`; real-time signals have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def has_ended(pidfd: int) -> bool:
    """Whether the process has ended, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def reap(pidfd: int) -> Ending | None:
    """How the process has ended, and the end of its zombie if it is ours; None: it lives."""
    if not has_ended(pidfd):
        return None
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:  # another's child, or reaped
        return Ending(None)
    if result is None:
        return None
    killed = result.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
    return Ending(-result.si_status if killed else result.si_status)


def send_signal(pidfd: int, number: int) -> None:
    """By pidfd: never to a stranger that has inherited the pid. Nothing if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
