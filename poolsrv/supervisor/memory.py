"""Whether the kernel has killed one of us for want of memory.

Supervisor only. The cgroup's own count says it of us; /proc/vmstat counts the
whole host, and is asked only where there is no cgroup to ask.
"""

from pathlib import Path


class OutOfMemory:
    """Counts from the moment at which it is made."""

    def __init__(self) -> None:
        self._files = [found for found in (_cgroup_events(), Path("/proc/vmstat")) if found]
        self._kills = self._count()

    def happened(self) -> bool:
        """Whether the kernel has killed since the last call."""
        before, self._kills = self._kills, self._count()
        return self._kills > before

    def _count(self) -> int:
        for file in self._files:
            try:
                lines = file.read_text().splitlines()
            except OSError:  # gVisor, a chroot, /proc with subset=pid
                continue
            for line in lines:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0


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
