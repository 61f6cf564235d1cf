"""All that a scrape or the status page shows, gathered at one moment.

The metrics and the status are functions of a Reading; what has to be
remembered from one reading to the next is remembered here.
"""

import platform
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poolsrv.between.lifecycle import ServerState, State
from poolsrv.between.scoreboard import (
    SUPERVISOR,
    THREAD,
    Reader,
    Row,
    Slot,
    Snapshot,
    ThreadState,
    total,
)
from poolsrv.exporter import About
from poolsrv.exporter.processes import CpuTime, Usage, usage

PYTHON = platform.python_version()

# Ratios and rates that are shown ready-made cover at least this time, so that
# a second reader just before does not leave one a window of nothing.
WINDOW = 10_000_000_000

# What is older is no window of now: as soon as there is anything newer, that counts.
STALE = 60_000_000_000

# Readings closer together than this are not worth keeping.
_SPACING = 1_000_000_000


def seconds(nanoseconds: int) -> float:
    """Divided, not multiplied by 1e-9: 300 ms are 0.3, not 0.30000000000000004."""
    return nanoseconds / 1e9


# What the settings say of requests; the dashboard and the alerts leave them out, too.
_OF_MOUNTS = frozenset({"403", "404", "421"})


@dataclass(frozen=True, slots=True)
class Totals:
    """What all had done at `now` (monotonic nanoseconds)."""

    now: int
    supervisor: Row
    threads: Row

    @property
    def requests(self) -> int:
        """Requests that the application got."""
        return sum(self.threads.all("requests"))

    @property
    def refused(self) -> dict[str, int]:
        """Requests that the server answered itself, by status."""
        return {
            status: number + self.supervisor.by_value("refused")[status]
            for status, number in self.threads.by_value("refused").items()
        }

    @property
    def errors(self) -> int:
        """Requests that got no good answer: 5xx of the application, or refused.

        What is asked for where nothing is mounted, or by whom it is not for, is no error.
        """
        refused = sum(n for status, n in self.refused.items() if status not in _OF_MOUNTS)
        return self.threads.by_value("requests")["5xx"] + refused


class History:
    """Totals to compare the present ones with."""

    def __init__(self) -> None:
        self._past: deque[Totals] = deque()

    def baseline(self, present: Totals, started_at: int) -> Totals:
        """The latest totals at least a WINDOW old, those of the start if there are none.

        Keeps the present ones for later. `started_at` in monotonic nanoseconds.
        """
        past = self._past
        if not past:
            past.append(Totals(started_at, SUPERVISOR.zero(), THREAD.zero()))
        while len(past) > 1 and (
            past[1].now <= present.now - WINDOW
            or (past[0].now < present.now - STALE and past[1].now <= present.now - _SPACING)
        ):
            past.popleft()
        if present.now - past[-1].now >= _SPACING:
            past.append(present)
        return past[0]


@dataclass(frozen=True, slots=True)
class Reading:
    """Of a group of processes, or of a whole server, which has `groups` if there are several.

    `usage` and `cpu` are by the slots' names; a slot without a process has no usage.
    """

    about: About
    snapshot: Snapshot
    present: Totals
    baseline: Totals
    usage: Mapping[str, Usage]
    cpu: Mapping[str, float]
    group: str = ""
    groups: "tuple[Reading, ...]" = ()

    @property
    def state(self) -> ServerState:
        return ServerState(self.snapshot.supervisor["state"])

    def slots_in(self, state: State) -> list[Slot]:
        return [slot for slot in self.snapshot.slots if state_of(slot) is state]

    @property
    def threads(self) -> int:
        """Request threads of the processes that live."""
        return sum(slot.worker["threads"] for slot in self.snapshot.slots)

    @property
    def busy(self) -> int:
        return sum(slot.busy for slot in self.snapshot.slots)

    @property
    def elapsed(self) -> float:
        """Seconds since the baseline."""
        return seconds(self.snapshot.now - self.baseline.now)

    @property
    def is_recent(self) -> bool:
        """Whether the time since the baseline says how it is now."""
        return self.snapshot.now - self.baseline.now <= STALE

    def since_baseline(self, field: str) -> tuple[int, ...]:
        """How much each word of a thread's counter has grown since the baseline."""
        then, now = self.baseline.threads.all(field), self.snapshot.threads.all(field)
        return tuple(after - before for before, after in zip(then, now, strict=True))

    @property
    def utilization(self) -> float:
        """Busy thread-seconds of the possible ones since the baseline, 0 to 1."""
        possible = self.elapsed * self.threads
        busy = seconds(self.since_baseline("busy_time")[0])
        # More than 1 only while threads that were busy have just gone.
        return min(busy / possible, 1.0) if possible > 0 else 0.0

    @property
    def queue_length(self) -> int:
        """Connections with a request that wait for a thread, in supervisor and workers."""
        workers = sum(slot.worker["waiting"] for slot in self.snapshot.slots)
        return self.snapshot.supervisor["queue_length"] + workers

    @property
    def queue_age(self) -> float:
        """Seconds the one of those that has waited longest has waited."""
        moments = [slot.worker["waiting_since"] for slot in self.snapshot.slots]
        moments.append(self.snapshot.supervisor["queue_since"])
        return max((self.age(since) for since in moments if since), default=0.0)

    @property
    def oldest_request(self) -> float:
        """Seconds the oldest running request has run; a connection taken over is none."""
        return max(
            (
                self.age(run.since)
                for slot in self.snapshot.slots
                for run in slot.running
                if run.state is not ThreadState.UPGRADED
            ),
            default=0.0,
        )

    def age(self, moment: int) -> float:
        """Seconds since a moment (monotonic nanoseconds); 0 for one that is newer."""
        return seconds(max(self.snapshot.now - moment, 0))


def state_of(slot: Slot) -> State:
    return State(slot.slot["state"])


# Of these one group's word is the whole server's.
_OF_THE_FIRST = ("state", "generation", "maintenance", "started_at")


def _together(groups: Sequence[Reading]) -> Reading:
    """All groups of a server as one."""
    first = groups[0]
    words = list(total(SUPERVISOR, (group.snapshot.supervisor for group in groups)).words)
    for name in _OF_THE_FIRST:
        words[SUPERVISOR.fields[name].index] = first.snapshot.supervisor[name]
    since = [group.snapshot.supervisor["queue_since"] for group in groups]
    words[SUPERVISOR.fields["queue_since"].index] = min(filter(None, since), default=0)
    supervisor = Row(SUPERVISOR, tuple(words))

    def sum_of(all_totals: Sequence[Totals]) -> Totals:
        return Totals(
            all_totals[0].now,
            total(SUPERVISOR, (totals.supervisor for totals in all_totals)),
            total(THREAD, (totals.threads for totals in all_totals)),
        )

    present = sum_of([group.present for group in groups])
    return Reading(
        first.about,
        Snapshot(
            first.snapshot.now,
            supervisor,
            tuple(slot for group in groups for slot in group.snapshot.slots),
            present.threads,
        ),
        present,
        sum_of([group.baseline for group in groups]),
        {name: usage for group in groups for name, usage in group.usage.items()},
        {name: cpu for group in groups for name, cpu in group.cpu.items()},
        groups=tuple(groups),
    )


class Source:
    """Takes readings of a server; each of `readers` reads a group of processes."""

    def __init__(self, readers: Sequence[Reader], about: About) -> None:
        self._groups = [_GroupSource(reader, about) for reader in readers]

    def read(self, now: int) -> Reading:
        """A reading at `now` (monotonic nanoseconds, not before the last one)."""
        groups = [group.read(now) for group in self._groups]
        return groups[0] if len(groups) == 1 else _together(groups)


class _GroupSource:
    def __init__(self, reader: Reader, about: About) -> None:
        self._reader = reader
        self._about = about
        self._history = History()
        self._cpu: defaultdict[str, CpuTime] = defaultdict(CpuTime)

    def read(self, now: int) -> Reading:
        snapshot = self._reader.read(now)
        used: dict[str, Usage] = {}
        for slot in snapshot.slots:
            pid = slot.slot["pid"]
            used_now = usage(pid) if pid else None
            if used_now:
                used[slot.name] = used_now
                self._cpu[slot.name].advance(pid, used_now.cpu)
        present = Totals(now, snapshot.supervisor, snapshot.threads)
        return Reading(
            self._about,
            snapshot,
            present,
            self._history.baseline(present, snapshot.supervisor["started_at"]),
            used,
            {slot.name: self._cpu[slot.name].seconds for slot in snapshot.slots},
            self._reader.group,
        )
