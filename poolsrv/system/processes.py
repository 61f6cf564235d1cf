"""Starting a process by fork, what it must not keep of its parent, and how it ended.

Used by the supervisor for templates and the exporter, by a template for workers.
Every process is made by multiprocess with its context named: so the application
may be any callable, closures included. Who forks has one thread.
"""

import contextlib
import gc
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from poolsrv import _core
from poolsrv.errors import MachineError
from poolsrv.system import forks

# Has a worker write the stacks of its threads, at once and without the GIL.
WRITE_STACKS = signal.SIGRTMIN + 4


def start(name: str, life: Callable[[], None]) -> forks.Process:
    """Fork; `life` is the child's whole life. Raises OSError."""
    process = forks.Process(target=_live, args=(name, life), name=f"poolsrv-{name}")
    process.start()
    return process


def entitle(name: str) -> None:
    """Give this process a name for top and `ps -e`: 15 bytes at most are shown."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def set_title(role: str, application: str) -> None:
    """What `ps -f` and `pgrep -f` show instead of the supervisor's command line.

    That has room for it: it has the application, too, and a path or two.
    """
    _core.set_title(title_of(role, application))


def title_of(role: str, application: str) -> bytes:
    return f"poolsrv: {role} {application}".encode(errors="backslashreplace")


def _live(name: str, life: Callable[[], None]) -> None:
    # What the parent has stays shared with it: a collection would write to each object, so
    # that a worker of 5 MiB copied 6 more, and with hundreds of groups far more.
    gc.freeze()
    entitle(f"pool:{name}")
    life()


def ask_the_kernel() -> None:
    """Raises MachineError for a system call that is refused, before it is missed."""
    name = "memfd_create"
    try:
        os.close(os.memfd_create("poolsrv"))
        name = "pidfd_open"
        pidfd = os.pidfd_open(os.getpid())
        try:
            name = "pidfd_send_signal"
            signal.pidfd_send_signal(pidfd, 0)
        finally:
            os.close(pidfd)
    except OSError as error:
        raise MachineError(
            f"the kernel refuses {name}: {error.strerror}",
            "allow it in the seccomp profile of the container or service, or use Linux 5.4 or "
            "newer",
        ) from None


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


def pid_namespace() -> int:
    """Where pids mean what they mean to us; 0 if /proc does not say."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def signal_name(number: int) -> str:
    """As in `SIGTERM`; real-time signals have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def has_ended(pidfd: int) -> bool:
    """Whether the process has ended, reaped or not.

    Of a child and of who is reaped by calls that no limit makes fail: where RLIMIT_NOFILE
    is 0, poll() refuses even one descriptor, and a loop that asks would go round for ever.
    """
    try:
        return os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # another's child, or reaped
        with contextlib.suppress(PermissionError):
            try:
                signal.pidfd_send_signal(pidfd, 0)
            except ProcessLookupError:
                return True
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


def parent_of(pid: int) -> int:
    """0 if there is no such process, or /proc does not show it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:  # it has ended and is reaped
        return 0
    # pid (name) state parent; the name may hold anything.
    return int(stat.rpartition(b")")[2].split()[1])


def children() -> frozenset[int]:
    """The children of this process, zombies included; empty if /proc does not show them."""
    us = os.getpid()
    pids = (int(place.name) for place in Path("/proc").glob("[0-9]*"))
    return frozenset(pid for pid in pids if parent_of(pid) == us)


def zombie(but: frozenset[int] = frozenset()) -> int:
    """The pid of a child that has ended and is not reaped; 0 if there is none.

    `but` are children that somebody else waits for.
    """
    if not but:
        return _ended(os.P_ALL, 0)
    # The kernel would name the same one of those again and again.
    return next((pid for pid in sorted(children() - but) if _ended(os.P_PID, pid)), 0)


def _ended(which: int, pid: int) -> int:
    try:
        found = os.waitid(which, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_pid if found is not None else 0


def send_signal(pidfd: int, number: int) -> None:
    """By pidfd: never to a stranger that has inherited the pid. Nothing if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
