"""How many CPUs there are for us: the default of --processes.

Reads proc and sys only; knows no option.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

# More than any machine has that we serve on: the quota of a group without one.
_UNLIMITED = 512.0


def available_cpus(root: Path = Path("/")) -> int:
    """How many CPUs this process may use, by affinity and by the quotas of its cgroups.

    A part of a CPU counts as one, so that no share lies idle. `root` is the
    folder that holds proc and sys.
    """
    quotas = [math.ceil(_quota(folder)) for folder in _cgroups(root)]
    return max(1, min([len(os.sched_getaffinity(0)), *quotas]))


def _cgroups(root: Path) -> Iterator[Path]:
    # Any ancestor may set the tightest quota. In a container the path may lie
    # outside of what is mounted there: then only the mount itself is found.
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            group = Path(path.lstrip("/"))
            yield from (mount / folder for folder in (group, *group.parents))


def _quota(cgroup: Path) -> float:
    """CPUs that a cgroup may use: cpu.max (version 2) or cpu.cfs_* (version 1)."""
    words = _read(cgroup / "cpu.max").split() or [
        *_read(cgroup / "cpu.cfs_quota_us").split(),
        *_read(cgroup / "cpu.cfs_period_us").split(),
    ]
    match words:
        case [quota, period] if quota not in ("max", "-1"):
            return int(quota) / int(period)
    return _UNLIMITED


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # this kernel or container has no such file
        return ""
