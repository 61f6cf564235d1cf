"""Whether the kernel has killed one of us for want of memory.

Supervisor only. The cgroup's own count says it of us; /proc/vmstat counts the
whole host, and is asked only where there is no cgroup to ask.
"""

from collections.abc import Sequence
from pathlib import Path


class OutOfMemory:
    """Counts from the moment at which it is made."""

    def __init__(self, files: Sequence[Path] | None = None) -> None:
        usual = [found for found in (_cgroup_events(), Path("/proc/vmstat")) if found is not None]
        # The first that can be read, and no other later: they count different things.
        readable = [file for file in files or usual if _kills(file) is not None]
        self._file = readable[0] if readable else None
        self._kills = 0
        self._kills = self._count()

    def happened(self) -> bool:
        """Whether the kernel has killed since the last call."""
        before, self._kills = self._kills, self._count()
        return self._kills > before

    def _count(self) -> int:
        found = None if self._file is None else _kills(self._file)
        return found if found is not None else self._kills


def _kills(file: Path) -> int | None:
    """What the file counts; None if it cannot be read or does not say."""
    try:
        lines = file.read_text().splitlines()
    except OSError:  # gVisor, a chroot, /proc with subset=pid; no descriptor left
        return None
    for line in lines:
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return None


def _cgroup_events() -> Path | None:
    """memory.events of our cgroup (version 2); None if there is none."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::"):
            return Path("/sys/fs/cgroup", line[3:].lstrip("/"), "memory.events")
    return None
