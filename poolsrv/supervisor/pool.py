"""Which workers exist, and what should happen to them next.

Supervisor only. Knows no sockets, no processes and no clock: callers pass
`now` (monotonic seconds) and carry out the actions it returns, in order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from poolsrv import _core
from poolsrv.lifecycle import Event, ServerState, State, after

# A worker that lived so long was well: the next one starts without a pause.
SETTLED = 10.0

# An order to stop that comes twice within so long is one order: a terminal, an
# init system and `timeout` signal the process and its group.
ONE_ORDER = 0.5

# The pause doubles with each worker that dies young, up to the longest.
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0


class Reason(IntEnum):
    """Why a worker ended; the column of the scoreboard's field `restarts`."""

    EXIT = _core.RESTART_EXIT
    SIGNAL = _core.RESTART_SIGNAL
    OOM = _core.RESTART_OOM
    STARTUP = _core.RESTART_STARTUP
    HANG = _core.RESTART_HANG
    RECYCLE = _core.RESTART_RECYCLE


@dataclass(frozen=True, slots=True)
class Spawn:
    """Have a worker started in this slot."""

    slot: int


@dataclass(frozen=True, slots=True)
class Enable:
    """Dispatch to this slot."""

    slot: int


@dataclass(frozen=True, slots=True)
class Disable:
    """Dispatch no more to this slot."""

    slot: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask the worker to finish what it holds and end."""

    slot: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End the worker at once; `why` for the log."""

    slot: int
    why: str


@dataclass(frozen=True, slots=True)
class Bury:
    """The worker is gone: take back what it had not received, settle its rows."""

    slot: int
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class StopAccepting:
    """Close the listeners and what is idle; tell when nothing waits for a thread."""


@dataclass(frozen=True, slots=True)
class Announce:
    """All workers are ready for the first time."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to do. `text` is an error for the person who started the server."""

    status: int
    text: str = ""


Action = Spawn | Enable | Disable | Drain | Kill | Bury | StopAccepting | Announce | Finish


@dataclass(slots=True)
class Slot:
    """A worker's place. `deadline` is when its state has lasted too long."""

    state: State = State.EMPTY
    started: float = 0.0
    deadline: float | None = None
    deaths: int = 0  # of workers in a row that died young
    served: bool = False  # its worker has been ready


class Pool:
    """The slots of one generation. `processes` of them are kept filled."""

    def __init__(
        self, processes: int, slots: int, *, startup_timeout: float, graceful_timeout: float
    ) -> None:
        self.slots = [Slot() for _ in range(slots)]
        self.state = ServerState.STARTING
        self._wanted = range(processes)
        self._startup_timeout = startup_timeout
        self._graceful_timeout = graceful_timeout
        self._announced = False
        self._failure: Finish | None = None
        self._told: float | None = None  # when the server was told to stop
        self._end: float | None = None  # of its drain

    # What has happened

    def start(self, now: float) -> list[Action]:
        """The generation can fork: fill the slots that are empty.

        All of them at first; of a template that follows one which died, the
        workers of the first still work.
        """
        if self.state is ServerState.DRAINING:
            return []
        empty = [slot for slot in self._wanted if self.slots[slot].state is State.EMPTY]
        return [action for slot in empty for action in self._spawn(slot, now)]

    def ready(self, slot: int, now: float) -> list[Action]:
        """The worker has loaded the application."""
        place = self._move(slot, Event.READY)
        if place.state is not State.READY:
            return []
        place.deadline = None
        place.started = now
        place.served = True
        actions: list[Action] = [Enable(slot)]
        if not self._announced and all(
            self.slots[wanted].state is State.READY for wanted in self._wanted
        ):
            self._announced = True
            self.state = ServerState.SERVING
            actions.append(Announce())
        return actions

    def load_failed(self, text: str, now: float) -> list[Action]:
        """The application cannot be loaded; a worker or the template says so.

        Before anything has served, that is the end: nobody would be helped by trying
        again. Later it may pass (a database that is away), so the slot is tried again.
        """
        if self._announced or self.state is ServerState.DRAINING:
            return []
        return self._give_up(Finish(3, text), now)

    def exited(self, slot: int, reason: Reason, now: float) -> list[Action]:
        """The process in the slot has ended."""
        place = self.slots[slot]
        was, started = place.state, place.started
        served, place.served = place.served, False
        self._move(slot, Event.EXITED)
        place.deadline = None
        expected = was in (State.DRAINING, State.KILLED) and self.state is ServerState.DRAINING
        if not served:
            reason = Reason.STARTUP
        actions: list[Action] = [Disable(slot), Bury(slot, None if expected else reason)]
        if self.state is ServerState.DRAINING:
            return actions + self._finish_if_empty()
        if not self._announced and was is State.STARTING:
            text = f"worker {slot} ended while it loaded the application; its messages are above"
            return actions + self._give_up(Finish(3, text), now)
        young = not served or now - started < SETTLED
        place.deaths = place.deaths + 1 if young else 0
        return actions + self._replace(slot, now)

    def stop(self, now: float) -> list[Action]:
        """Finish what is there, then end. Said again: end now."""
        if self._told is not None:
            if now - self._told < ONE_ORDER:
                return []
            return self._kill(self._alive(), "told to stop at once", now)
        self._told = now
        self.state = ServerState.DRAINING
        self._end = now + self._graceful_timeout
        for place in self.slots:
            if place.state is State.WAITING:
                place.state = after(place.state, Event.DRAIN)
                place.deadline = None
        # Those who never served have nothing to finish.
        starting = [slot for slot in self._alive() if self.slots[slot].state is State.STARTING]
        actions = [StopAccepting(), *self._kill(starting, "", now)]
        return actions + self._finish_if_empty()

    def queue_empty(self, now: float) -> list[Action]:
        """The server drains, and every connection that waited has a worker."""
        actions: list[Action] = []
        for slot in self._alive():
            if self.slots[slot].state is State.READY:
                self._move(slot, Event.DRAIN)
                actions += [Disable(slot), Drain(slot)]
        return actions

    # Time

    def deadline(self) -> float | None:
        """When `tick` should be called next."""
        times = [place.deadline for place in self.slots if place.deadline is not None]
        if self._end is not None:
            times.append(self._end)
        return min(times, default=None)

    def tick(self, now: float) -> list[Action]:
        """Some deadline may have passed."""
        actions: list[Action] = []
        if self._end is not None and self._end <= now:
            self._end = None
            why = f"did not finish within {self._graceful_timeout:g} s"
            actions += self._kill(self._alive(), why, now)
        for slot, place in enumerate(self.slots):
            if place.deadline is None or place.deadline > now:
                continue
            place.deadline = None
            if place.state is State.WAITING:
                actions += self._spawn(slot, now)
            elif place.state is State.STARTING:
                why = f"was not ready within {self._startup_timeout:g} s"
                if self._announced:
                    actions += self._kill([slot], why, now)
                else:
                    text = f"worker {slot} {why}; give it more with --startup-timeout"
                    actions += self._give_up(Finish(3, text), now)
        return actions

    # Inside

    def _move(self, slot: int, event: Event) -> Slot:
        place = self.slots[slot]
        place.state = after(place.state, event)
        return place

    def _alive(self) -> list[int]:
        gone = (State.EMPTY, State.WAITING)
        return [slot for slot, place in enumerate(self.slots) if place.state not in gone]

    def _spawn(self, slot: int, now: float) -> list[Action]:
        place = self._move(slot, Event.SPAWN)
        place.started = now
        place.deadline = now + self._startup_timeout
        return [Spawn(slot)]

    def _replace(self, slot: int, now: float) -> list[Action]:
        place = self.slots[slot]
        if place.deaths < 2:
            return self._spawn(slot, now)
        self._move(slot, Event.BACK_OFF)
        doublings = min(place.deaths - 2, 64)  # deaths have no end, and 2.0 ** 1024 is no float
        pause = min(FIRST_PAUSE * 2.0**doublings, LONGEST_PAUSE)
        place.deadline = now + pause
        return []

    def _kill(self, slots: Iterable[int], why: str, now: float) -> list[Action]:
        actions: list[Action] = []
        for slot in slots:
            if self.slots[slot].state is not State.KILLED:
                self._move(slot, Event.KILL).deadline = None
                actions += [Disable(slot), Kill(slot, why)]
        return actions

    def _give_up(self, failure: Finish, now: float) -> list[Action]:
        self._failure = failure
        return self.stop(now) + self._kill(self._alive(), "", now)

    def _finish_if_empty(self) -> list[Action]:
        if self._alive():
            return []
        self._end = None
        return [self._failure or Finish(0)]
