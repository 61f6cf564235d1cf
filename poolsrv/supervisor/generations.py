"""Which generation serves, which is to take over, which leave; and the lives in them.

Supervisor only; pure. A generation is all workers that were started from one
load of the application, and the template that forks them. At most one serves
and one comes; any number may be leaving.
"""

from dataclasses import dataclass, field

from poolsrv.between.lifecycle import GONE, Event, State, Unfit, after
from poolsrv.supervisor.actions import Reason

# The pause doubles with each process in a row that was of no use, up to the longest. The
# first is also the least time between two starts in a slot: who dies at once all the same,
# of what clients send, has four processes a second started, however fast they load.
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0

# A template or an exporter that dies is started again, but not in a tight loop;
# a fork that failed (EAGAIN, ENOMEM) is tried again after as long.
PAUSE = 1.0

# A template that was told to end waits for its workers, then runs what the application
# has registered for the end. As long for an exporter, or a supervisor that has not served.
LAST_WORDS = 5.0

# SIGKILL needs no second one, but sending it may fail.
KILL_AGAIN = 5.0


@dataclass(slots=True)
class Life:
    """A process that is wanted: a worker, a template, the exporter.

    `deadline` is when its state has lasted too long.
    """

    state: State = State.EMPTY
    started: float = 0.0
    deadline: float | None = None
    deaths: int = 0  # in a row, of processes that were of no use

    def move(self, event: Event) -> None:
        """Into the state that follows; what was due in the old one is void. Raises Unfit."""
        before, self.state = self.state, after(self.state, event)
        if self.state is not before:
            self.deadline = None

    @property
    def alive(self) -> bool:
        return self.state not in GONE

    def pause(self) -> float:
        """How long the next process may have to wait, by how many were of no use."""
        if self.deaths == 0:
            return 0.0
        doublings = min(self.deaths - 1, 64)  # deaths have no end, and 2.0 ** 1024 is no float
        return min(FIRST_PAUSE * 2.0**doublings, LONGEST_PAUSE)

    def put_off(self, lived: float) -> float:
        """A process has died that was ready for so long: how long the next one waits.

        The time for which it was ready is part of the pause. Who lived through all of
        it was of use: that ends the row, and the next one starts at once.
        """
        self.deaths += 1
        left = self.pause() - lived
        if left <= 0.0:
            self.deaths = 0
        return max(0.0, left)


@dataclass(slots=True)
class Slot(Life):
    """A worker's place. `generation` is that of its last process."""

    generation: int = 0
    born: bool = False  # its process is known, not only ordered
    ready_at: float | None = None  # since then its worker is ready, or was
    dismissed: bool = False  # its worker was not wanted any more before it served
    tried_since: float | None = None  # forking has failed since then
    ending: Reason | None = None  # why it was told to end, if it is replaced


@dataclass(slots=True)
class Generation:
    """`template` is READY when it can fork. `is_new`: a reload has brought it, and
    its settings are still to be read."""

    number: int
    is_new: bool = False
    template: Life = field(default_factory=Life)


class Generations:
    """The generations that have a process, by what is wanted of them."""

    def __init__(self, first: int = 1) -> None:
        self.serving = Generation(first)
        self.coming: Generation | None = None
        self.leaving: dict[int, Generation] = {}
        self.again = False  # another reload was asked for while one ran
        self._newest = first

    def all(self) -> list[Generation]:
        coming = [] if self.coming is None else [self.coming]
        return [self.serving, *coming, *self.leaving.values()]

    @property
    def asked(self) -> int:
        """The number of the generation that the last order to reload will have brought."""
        if self.again:
            return self._newest + 1
        return self._newest if self.coming is None else self.coming.number

    def find(self, number: int) -> Generation:
        """Raises Unfit if there is none of that number any more."""
        for generation in self.all():
            if generation.number == number:
                return generation
        raise Unfit(f"there is no generation {number}")

    def begin(self) -> Generation:
        """One that is to take over."""
        assert self.coming is None
        self._newest += 1
        self.coming = Generation(self._newest, is_new=True)
        return self.coming

    def rest(self) -> Generation:
        """Nobody is to serve until the next one is wanted. The one that leaves."""
        assert self.coming is None
        old = self.serving
        self._newest += 1
        self.serving = Generation(self._newest, is_new=old.is_new)
        self.leaving[old.number] = old
        return old

    def renew(self) -> Generation:
        """While nobody serves: the next one loads what is there by then."""
        assert self.coming is None
        self._newest += 1
        self.serving = Generation(self._newest, is_new=True)
        return self.serving

    def take_over(self) -> Generation:
        """The one that comes serves from now on. The one that leaves."""
        assert self.coming is not None
        old, self.serving, self.coming = self.serving, self.coming, None
        self.leaving[old.number] = old
        return old

    def abandon(self) -> Generation:
        """The one that was to come leaves."""
        assert self.coming is not None
        failed, self.coming = self.coming, None
        self.leaving[failed.number] = failed
        return failed
