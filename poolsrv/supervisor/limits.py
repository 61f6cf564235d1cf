"""When a worker has served enough: how many requests, how long, how much memory.

Supervisor only; pure but for `resident`. Each worker's limits are drawn once, when
it is ready, and judged from outside, once a second at least: so they hold for a worker
that is stuck as well.
"""

import os
import random
from dataclasses import dataclass
from pathlib import Path

from poolsrv.settings.rows import Settings

# How often workers are looked at, in seconds.
LOOK = 1.0

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings say; 0 is no limit. `jitter` is a share, 0 to 1."""

    requests: int = 0
    age: float = 0.0
    rss: int = 0
    rss_kill: int = 0
    jitter: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(
            settings.max_requests,
            settings.max_age,
            settings.max_rss,
            settings.max_rss_kill or 2 * settings.max_rss,
            settings.jitter / 100,
        )

    @property
    def any(self) -> bool:
        return bool(self.requests or self.age or self.rss or self.rss_kill)

    def drawn(self, chance: random.Random) -> "Limits":
        """Those of one worker: lower by a share of its own."""

        def lower(limit: float) -> float:
            return limit * (1 - self.jitter * chance.random())

        return Limits(
            max(1, round(lower(self.requests))) if self.requests else 0,
            lower(self.age),
            round(lower(self.rss)),
            self.rss_kill,
        )


@dataclass(frozen=True, slots=True)
class Use:
    """What a worker has used. `age` in seconds, `resident` in bytes."""

    requests: int
    age: float
    resident: int


def exceeded(limits: Limits, use: Use) -> str:
    """The limit that the worker has reached, in words; empty if none."""
    if limits.requests and use.requests >= limits.requests:
        return f"it has served {use.requests} requests"
    if limits.age and use.age >= limits.age:
        return f"it is {use.age:.0f} s old"
    if limits.rss and use.resident > limits.rss:
        return f"it uses {use.resident / 2**20:.0f} MiB of memory"
    return ""


def kills(limits: Limits, use: Use) -> str:
    """Why the worker must end at once, in words; empty if it need not."""
    if limits.rss_kill and use.resident > limits.rss_kill:
        return f"used {use.resident / 2**20:.0f} MiB of memory"
    return ""


def resident(pid: int) -> int:
    """Resident bytes that are a process's own: not shared with its template by files.

    0 if it is gone.
    """
    try:
        # proc(5): size, resident, shared (of files and shared memory), in pages.
        _, pages, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(pages) - int(shared)) * _PAGE
