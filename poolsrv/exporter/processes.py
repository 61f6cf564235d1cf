"""Memory and CPU time of the workers, from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGESIZE")
_TICK = 1 / os.sysconf("SC_CLK_TCK")

# proc_pid_stat(5), counted from the field after the command's name, which may
# hold spaces and parentheses itself: utime, stime and, in pages, rss.
_STATE, _UTIME, _STIME, _RSS = 0, 11, 12, 21

# Stopped by a signal or a debugger, or dead and not yet reaped.
_STILL = ("T", "t", "Z", "X")


@dataclass(frozen=True, slots=True)
class Usage:
    """`resident` in bytes, shared pages included; `cpu` in seconds.

    `runs` is false for a process that is stopped or dead.
    """

    resident: int
    cpu: float
    runs: bool = True


def usage(pid: int, proc: Path = Path("/proc")) -> Usage | None:
    """What a process uses; None if there is no such process (any more)."""
    try:
        stat = (proc / str(pid) / "stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    values = stat.rpartition(")")[2].split()
    return Usage(
        int(values[_RSS]) * _PAGE,
        (int(values[_UTIME]) + int(values[_STIME])) * _TICK,
        values[_STATE] not in _STILL,
    )


class CpuTime:
    """CPU time of a slot, across the processes in it: it never steps back.

    What a process used after the last look at it is lost with it.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._before = 0.0
        self._latest = 0.0

    def advance(self, pid: int, cpu: float) -> None:
        """The process now in the slot has used `cpu` seconds."""
        if pid != self._pid:
            self._before += self._latest
            self._pid, self._latest = pid, 0.0
        self._latest = max(self._latest, cpu)

    @property
    def seconds(self) -> float:
        return self._before + self._latest
