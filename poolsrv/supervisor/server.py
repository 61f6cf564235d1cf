"""What becomes of the server as a whole: it starts, serves, hands over, ends.

Supervisor only. Pure, as the pools of its groups are: callers pass `now`, carry out the
actions it returns, and ask `settle` after whatever has happened to a group. It reads the
pools' state rather than be told of it: so there is no word of theirs that could be lost.
"""

from collections.abc import Callable, Iterable, Sequence

from poolsrv.between.lifecycle import Event, ServerState, State, Unfit
from poolsrv.supervisor.actions import (
    Announce,
    EndExporter,
    EndSuccessor,
    Finish,
    ForGroup,
    GroupAction,
    HandOver,
    KillExporter,
    KillSuccessor,
    SayReady,
    ServerAction,
    StartExporter,
    StartSuccessor,
    StopAccepting,
    SuccessionFailed,
)
from poolsrv.supervisor.generations import KILL_AGAIN, LAST_WORDS, PAUSE, Life
from poolsrv.supervisor.pool import Pool

# An order to stop that comes twice within so long is one order: a terminal, an
# init system and `timeout` signal the process and its group.
ONE_ORDER = 0.5

_AT_ONCE = "told to stop at once"


class Server:
    """The pools of all groups, the exporter, the supervisor that is to follow.

    `predecessor`: another supervisor serves until it hears that we are ready, and tells us
    `take_over`. `names` are the groups'; one group needs none.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        names: Sequence[str] = (),
        *,
        exporter: bool = True,
        predecessor: bool = False,
    ) -> None:
        self.pools = tuple(pools)
        self.state = ServerState.STARTING
        self.successor = Life()  # STANDBY: it waits for our word; READY: it serves
        self.exporter = Life() if exporter else None
        self.names = tuple(names) or ("default",)
        self.stirred: set[int] = set()  # pools that were asked for something; to be cleared
        self._failure: Finish | None = None
        self._left = False
        self._told: float | None = None  # when the server was told to stop
        self.finished = False  # and has nothing due any more
        self._waits = predecessor  # to take the place of another supervisor
        self._said_ready = False  # to that
        self.succession_waits = False  # until that has ended

    def start(self, now: float) -> list[ServerAction]:
        """Nothing runs yet: begin."""
        actions = self._each(lambda pool: pool.start(now))
        if self._waits:
            return actions  # the other one has an exporter, at the same address
        return [*self._start_exporter(now), *actions]

    def settle(self, now: float) -> list[ServerAction]:
        """Something has happened to a group: what follows for the server."""
        if self.state is ServerState.DRAINING:
            return self._finish_if_empty()
        if self.state is ServerState.STARTING:
            for number, pool in enumerate(self.pools):
                if pool.failure:
                    return self._give_up(number, pool.failure, now)
            if all(pool.is_settled() for pool in self.pools):
                return self._begin_to_serve(now)
        return []

    def take_over(self, now: float) -> list[ServerAction]:
        """The supervisor before us has left its place: serve."""
        if not self._said_ready or not self._waits:
            raise Unfit("nobody's place is to be taken")
        self._waits = False
        if self.state is ServerState.DRAINING:
            return []
        return [*self._serve(now), *self._start_exporter(now)]

    def reload(self, now: float, groups: Iterable[int] | None = None) -> list[ServerAction]:
        """Load the applications of these groups anew, or of all."""
        chosen = range(len(self.pools)) if groups is None else groups
        if not self.succession_runs:
            return self._each(lambda pool: pool.reload(now), chosen)
        for number in chosen:
            self.pools[number].generations.again = True
        return []

    def begin_succession(self, now: float) -> list[ServerAction]:
        """Have another supervisor take our place. Raises Unfit while something else goes on."""
        if self.state is not ServerState.SERVING:
            raise Unfit("the server starts or ends; try again when it serves")
        if self.succession_runs:
            raise Unfit("an upgrade runs already")
        if any(pool.generations.coming is not None for pool in self.pools):
            raise Unfit("a reload runs; try again when it has ended")
        self.successor.move(Event.SPAWN)
        self.successor.deadline = now + self._startup_timeout
        return [StartSuccessor()]

    def named(self, groups: Sequence[int] | None) -> dict[str, dict[str, str]]:
        """What is more to say of these groups in a record of the log: nothing of all of them."""
        if groups is None or len(groups) == len(self.pools):
            return {}
        return {"fields": {"group": ", ".join(self.names[group] for group in groups)}}

    @property
    def succession_runs(self) -> bool:
        return self.successor.state in (State.STARTING, State.STANDBY)

    @property
    def has_left(self) -> bool:
        """Another supervisor has taken our place."""
        return self.state is ServerState.DRAINING and self._left

    @property
    def failed(self) -> bool:
        """The server cannot start, and says why as it ends."""
        return self._failure is not None

    def stop(self, now: float, *, at_once: bool = False) -> list[ServerAction]:
        """Finish what is there, then end. Said again, or `at_once`: end now."""
        actions: list[ServerAction] = []
        if self._told is not None:
            one_order = now - self._told < ONE_ORDER and not at_once
            return [] if one_order else self._kill_all(_AT_ONCE, now)
        self._told = now
        if self._left:  # what is ours drains already
            return self._kill_all(_AT_ONCE, now) if at_once else []
        if self._waits:  # nothing has come to us, and the listeners are another's
            actions += self._drain(now, lambda pool: pool.queue_empty(now))
        else:
            actions.append(StopAccepting())
            if self.succession_runs:
                self.successor.move(Event.DRAIN)
                self.successor.deadline = now + LAST_WORDS
                actions.append(EndSuccessor())
            actions += self._drain(now)
            actions += self._each(lambda pool: pool.expect_last_call(now))
        if at_once:
            actions += self._kill_all(_AT_ONCE, now)
        return actions

    def queue_empty(self, now: float) -> list[ServerAction]:
        """The server drains, and every connection that waited has a worker."""
        return self._each(lambda pool: pool.queue_empty(now))

    # What happens to the supervisor that is to take our place

    def successor_ready(self, now: float) -> list[ServerAction]:
        """All its workers are ready. Before it serves our exporter must have ended: who asks
        that one afterwards would not see what the new workers do."""
        self.successor.move(Event.STAND_BY)
        if self.successor.state is not State.STANDBY:
            return []  # it was told to end while its word was on its way
        if self.exporter is None or not self.exporter.alive:
            return self._leave(now)
        self.successor.deadline = now + LAST_WORDS
        return [EndExporter()]

    def successor_failed(self, text: str, now: float) -> list[ServerAction]:
        """It will not serve; its end will follow."""
        if not self.succession_runs:
            return []
        self.successor.move(Event.DRAIN)
        self.successor.deadline = now + LAST_WORDS
        return [SuccessionFailed(text), EndSuccessor(), *self._go_on(now)]

    def successor_exited(self, text: str, now: float) -> list[ServerAction]:
        """It has ended, or could not be started; `text` says so."""
        was_upgrading = self.succession_runs
        self.successor.move(Event.EXITED)
        if not was_upgrading or self.state is ServerState.DRAINING:
            return []
        return [SuccessionFailed(text), *self._go_on(now)]

    # What happens to the exporter

    def exporter_started(self, now: float) -> list[ServerAction]:
        """It runs."""
        assert self.exporter is not None
        self.exporter.move(Event.READY)
        return []

    def exporter_exited(self, now: float) -> list[ServerAction]:
        """It is gone, or could not be started."""
        assert self.exporter is not None
        self.exporter.move(Event.EXITED)
        if self.successor.state is State.STANDBY:
            return self._leave(now)
        if self.state is not ServerState.DRAINING:  # whoever stops us signals all processes
            self.exporter.move(Event.BACK_OFF)
            self.exporter.deadline = now + PAUSE
        return []

    # Time

    def deadline(self) -> float | None:
        """When `tick` should be called next; the pools have deadlines of their own."""
        if self.finished:
            return None
        exporter = None if self.exporter is None else self.exporter.deadline
        times = (exporter, self.successor.deadline)
        return min((at for at in times if at is not None), default=None)

    def tick(self, now: float, groups: Iterable[int] = ()) -> list[ServerAction]:
        """Some deadline may have passed: of ours, or of the pools of these groups."""
        if self.finished:
            return []
        actions = self._each(lambda pool: pool.tick(now), groups)
        exporter = self.exporter
        if exporter is not None and exporter.deadline is not None and exporter.deadline <= now:
            actions += self._start_exporter(now)
        if self.successor.deadline is not None and self.successor.deadline <= now:
            self.successor.deadline = None
            actions += self._successor_due(now)
        return actions

    def _successor_due(self, now: float) -> list[ServerAction]:
        if self.successor.state is State.STARTING:
            why = f"was not ready within {self._startup_timeout:g} s"
            return self.successor_failed(
                f"the new supervisor {why}; give it more with --startup-timeout", now
            )
        self.successor.deadline = now + KILL_AGAIN
        if self.successor.state is State.STANDBY:
            return [KillExporter()]
        if self.successor.state is State.DRAINING:
            self.successor.move(Event.KILL)
            self.successor.deadline = now + KILL_AGAIN
        return [KillSuccessor()]

    # Inside

    @property
    def _startup_timeout(self) -> float:
        """Of a server: all groups start at a time."""
        return max(pool.startup_timeout for pool in self.pools)

    def _each(
        self, ask: Callable[[Pool], list[GroupAction]], groups: Iterable[int] | None = None
    ) -> list[ServerAction]:
        """What the pools of these groups, or of all, want done."""
        chosen = range(len(self.pools)) if groups is None else groups
        self.stirred.update(chosen)
        asked = [(number, tuple(ask(self.pools[number]))) for number in chosen]
        return [ForGroup(number, actions) for number, actions in asked if actions]

    def _kill_all(self, why: str, now: float) -> list[ServerAction]:
        return self._each(lambda pool: pool.kill_all(why, now))

    def _begin_to_serve(self, now: float) -> list[ServerAction]:
        if not self._waits:
            return self._serve(now)
        if self._said_ready:
            return []
        self._said_ready = True
        return [SayReady()]

    def _serve(self, now: float) -> list[ServerAction]:
        self.state = ServerState.SERVING
        return [Announce(), *self._each(lambda pool: pool.serve(now))]

    def _leave(self, now: float) -> list[ServerAction]:
        """The other supervisor serves from now on; all that is ours drains."""
        self.successor.move(Event.READY)
        self._left = True
        again = any(pool.generations.again for pool in self.pools)
        return [HandOver(again), *self._drain(now, lambda pool: pool.queue_empty(now))]

    def _go_on(self, now: float) -> list[ServerAction]:
        """Nobody takes our place after all."""
        actions: list[ServerAction] = []
        if self.exporter is not None and self.exporter.state is State.EMPTY:
            actions += self._start_exporter(now)
        return actions + self._each(lambda pool: pool.reload_again(now))

    def _drain(
        self, now: float, after: Callable[[Pool], list[GroupAction]] = lambda _: []
    ) -> list[ServerAction]:
        self.state = ServerState.DRAINING
        if self.exporter is not None and self.exporter.state is State.WAITING:
            self.exporter.move(Event.DRAIN)
        return self._each(lambda pool: [*pool.drain(now), *after(pool)])

    def _start_exporter(self, now: float) -> list[ServerAction]:
        if self.exporter is None or self.state is ServerState.DRAINING:
            return []
        self.exporter.move(Event.SPAWN)
        return [StartExporter()]

    def _give_up(self, group: int, why: str, now: float) -> list[ServerAction]:
        text = f"group {self.names[group]}: {why}" if len(self.pools) > 1 else why
        self._failure = Finish(3, text)
        return [*self.stop(now), *self._kill_all("", now), *self._finish_if_empty()]

    def _finish_if_empty(self) -> list[ServerAction]:
        ends = self.successor.state in (State.DRAINING, State.KILLED)
        if self.finished or ends or not all(pool.is_empty for pool in self.pools):
            return []
        self.finished = True
        return [self._failure or Finish(0)]
