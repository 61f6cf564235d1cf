"""The pool: cases in tables, then any history of events against a model of the processes.

No process, no clock: the tests say what happens and when.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from poolsrv.lifecycle import ServerState, State
from poolsrv.scoreboard import SLOT
from poolsrv.supervisor.pool import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    ONE_ORDER,
    SETTLED,
    Action,
    Announce,
    Bury,
    Disable,
    Drain,
    Enable,
    Finish,
    Kill,
    Pool,
    Reason,
    Spawn,
    StopAccepting,
)

STARTUP = 60.0
GRACE = 30.0


def new_pool(processes: int = 2, slots: int = 3) -> Pool:
    return Pool(processes, slots, startup_timeout=STARTUP, graceful_timeout=GRACE)


def serving_pool(processes: int = 2, now: float = 0.0) -> Pool:
    """A pool whose workers are all ready at `now`."""
    pool = new_pool(processes)
    pool.start(now)
    for slot in range(processes):
        pool.ready(slot, now)
    return pool


def states(pool: Pool) -> list[State]:
    return [place.state for place in pool.slots]


# Starting


def test_a_start_fills_the_wanted_slots() -> None:
    pool = new_pool()
    assert pool.start(0.0) == [Spawn(0), Spawn(1)]
    assert states(pool) == [State.STARTING, State.STARTING, State.EMPTY]
    assert pool.state is ServerState.STARTING


def test_each_worker_gets_work_when_it_is_ready_and_the_last_is_announced() -> None:
    pool = new_pool()
    pool.start(0.0)
    assert pool.ready(1, 1.0) == [Enable(1)]
    assert pool.ready(0, 2.0) == [Enable(0), Announce()]
    assert pool.state is ServerState.SERVING
    assert pool.deadline() is None


def test_readiness_is_announced_once() -> None:
    pool = serving_pool()
    pool.exited(0, Reason.EXIT, 1.0)
    assert pool.ready(0, 2.0) == [Enable(0)]


def test_a_new_template_fills_only_what_is_empty() -> None:
    """When a template dies its workers go on; the next one says that it has loaded."""
    pool = serving_pool()
    assert pool.start(1.0) == []
    assert states(pool) == [State.READY, State.READY, State.EMPTY]


def test_a_template_that_has_loaded_too_late_starts_nothing() -> None:
    pool = new_pool()
    assert pool.stop(0.0) == [StopAccepting(), Finish(0)]
    assert pool.start(0.0) == []


# Failing to start


def test_an_application_that_cannot_be_loaded_ends_the_server() -> None:
    pool = new_pool()
    pool.start(0.0)
    killed = [Disable(0), Kill(0, ""), Disable(1), Kill(1, "")]
    assert pool.load_failed("no such module", 1.0) == [StopAccepting(), *killed]
    assert pool.exited(0, Reason.EXIT, 1.1) == [Disable(0), Bury(0, None)]
    assert pool.exited(1, Reason.SIGNAL, 1.2) == [
        Disable(1),
        Bury(1, None),
        Finish(3, "no such module"),
    ]


def test_before_any_worker_it_ends_the_server_at_once() -> None:
    assert new_pool().load_failed("no such module", 1.0) == [
        StopAccepting(),
        Finish(3, "no such module"),
    ]


def test_the_first_reason_is_the_one_that_is_told() -> None:
    pool = new_pool(processes=1)
    pool.start(0.0)
    pool.load_failed("first", 1.0)
    assert pool.load_failed("second", 1.1) == []
    assert pool.exited(0, Reason.EXIT, 1.2)[-1] == Finish(3, "first")


def test_one_that_cannot_be_loaded_any_more_is_tried_again() -> None:
    pool = serving_pool()
    pool.exited(0, Reason.EXIT, 1.0)
    assert pool.load_failed("the database is away", 2.0) == []
    assert pool.exited(0, Reason.EXIT, 2.1) == [Disable(0), Bury(0, Reason.STARTUP)]
    assert states(pool)[0] is State.WAITING


def test_a_worker_that_dies_before_the_first_request_ends_the_server() -> None:
    pool = new_pool(processes=1)
    pool.start(0.0)
    *actions, end = pool.exited(0, Reason.SIGNAL, 1.0)
    assert actions == [Disable(0), Bury(0, Reason.STARTUP), StopAccepting()]
    assert isinstance(end, Finish)
    assert end.status == 3
    assert "worker 0" in end.text


def test_a_first_start_that_takes_too_long_ends_the_server() -> None:
    pool = new_pool()
    pool.start(0.0)
    pool.ready(0, 1.0)
    assert pool.deadline() == STARTUP
    assert pool.tick(STARTUP) == [
        StopAccepting(),
        Disable(1),
        Kill(1, ""),
        Disable(0),
        Kill(0, ""),
    ]
    pool.exited(0, Reason.SIGNAL, STARTUP)
    end = pool.exited(1, Reason.SIGNAL, STARTUP)[-1]
    assert isinstance(end, Finish)
    assert end.status == 3
    assert "--startup-timeout" in end.text


def test_a_later_start_that_takes_too_long_is_killed() -> None:
    pool = serving_pool()
    pool.exited(1, Reason.SIGNAL, 100.0)
    assert pool.tick(100.0 + STARTUP - 1) == []
    assert pool.tick(100.0 + STARTUP) == [Disable(1), Kill(1, "was not ready within 60 s")]
    assert pool.ready(1, 161.0) == []  # the word was on its way
    assert Spawn(1) in pool.exited(1, Reason.SIGNAL, 162.0)


# Dying


@pytest.mark.parametrize("reason", [Reason.EXIT, Reason.SIGNAL, Reason.OOM])
def test_a_worker_that_dies_is_replaced_at_once(reason: Reason) -> None:
    pool = serving_pool()
    assert pool.exited(1, reason, SETTLED) == [Disable(1), Bury(1, reason), Spawn(1)]


def die_young(pool: Pool, now: float, times: int) -> Iterable[float]:
    """The pauses before each of the next workers in slot 0, of which each dies when ready."""
    for _ in range(times):
        actions = pool.exited(0, Reason.SIGNAL, now)
        if Spawn(0) in actions:
            yield 0.0
        else:
            again = pool.deadline()
            assert again is not None
            assert pool.tick(again - FIRST_PAUSE / 2) == []
            assert pool.tick(again) == [Spawn(0)]
            yield again - now
            now = again
        pool.ready(0, now)


def test_pauses_double_up_to_a_bound() -> None:
    """For as long as it goes on: a day of deaths is no other than a minute of them."""
    first, *pauses = die_young(serving_pool(processes=1), 1.0, times=3000)
    assert first == 0.0
    assert pauses[0] == FIRST_PAUSE
    for pause, following in pairwise(pauses):
        assert following == pytest.approx(min(2 * pause, LONGEST_PAUSE))
    assert pauses[-1] == LONGEST_PAUSE


def test_a_worker_that_lived_well_ends_the_pauses() -> None:
    pool = serving_pool(processes=1)
    *_, pause = die_young(pool, 1.0, times=5)
    assert pause > 0.0
    assert Spawn(0) in pool.exited(0, Reason.SIGNAL, 1000.0)


def test_the_slots_pause_on_their_own() -> None:
    pool = serving_pool()
    *_, pause = die_young(pool, 1.0, times=5)
    assert pause > 0.0
    assert Spawn(1) in pool.exited(1, Reason.SIGNAL, 2.0)


# Stopping


def test_a_stop_lets_the_queue_run_dry_then_the_workers() -> None:
    pool = serving_pool()
    assert pool.stop(1.0) == [StopAccepting()]
    assert pool.state is ServerState.DRAINING
    assert states(pool)[:2] == [State.READY, State.READY]  # for what is queued
    assert pool.queue_empty(2.0) == [Disable(0), Drain(0), Disable(1), Drain(1)]
    assert pool.exited(1, Reason.EXIT, 3.0) == [Disable(1), Bury(1, None)]
    assert pool.exited(0, Reason.EXIT, 4.0) == [Disable(0), Bury(0, None), Finish(0)]
    assert pool.deadline() is None


def test_a_stop_kills_who_has_nothing_to_finish() -> None:
    pool = serving_pool()
    pool.exited(1, Reason.EXIT, SETTLED)
    assert pool.stop(11.0) == [StopAccepting(), Disable(1), Kill(1, "")]


def test_a_stop_ends_the_pauses() -> None:
    pool = serving_pool(processes=1)
    pool.exited(0, Reason.EXIT, 1.0)
    pool.exited(0, Reason.EXIT, 1.0)
    assert states(pool)[0] is State.WAITING
    assert pool.stop(1.1) == [StopAccepting(), Finish(0)]
    assert pool.deadline() is None


def test_an_order_that_comes_twice_is_one_order() -> None:
    pool = serving_pool()
    pool.stop(1.0)
    assert pool.stop(1.0 + ONE_ORDER / 2) == []
    assert pool.stop(1.0 + ONE_ORDER) == [
        Disable(0),
        Kill(0, "told to stop at once"),
        Disable(1),
        Kill(1, "told to stop at once"),
    ]
    assert pool.stop(5.0) == []


def test_a_drain_that_takes_too_long_is_ended() -> None:
    pool = serving_pool()
    pool.stop(1.0)
    pool.queue_empty(1.0)
    pool.exited(0, Reason.EXIT, 2.0)
    assert pool.deadline() == 1.0 + GRACE
    assert pool.tick(1.0 + GRACE) == [Disable(1), Kill(1, "did not finish within 30 s")]
    assert pool.exited(1, Reason.SIGNAL, 32.0)[-1] == Finish(0)


def test_a_queue_that_never_runs_dry_is_ended_as_well() -> None:
    pool = serving_pool(processes=1)
    pool.stop(1.0)
    assert pool.tick(1.0 + GRACE) == [Disable(0), Kill(0, "did not finish within 30 s")]


def test_who_dies_while_the_server_drains_is_counted_but_not_replaced() -> None:
    pool = serving_pool(processes=1)
    pool.stop(1.0)
    assert pool.exited(0, Reason.SIGNAL, 2.0) == [
        Disable(0),
        Bury(0, Reason.SIGNAL),
        Finish(0),
    ]


# Any history


@dataclass
class Process:
    """A worker as the outside world knows it."""

    said_ready: bool = False
    told_to_drain: bool = False
    killed: bool = False


@dataclass
class World:
    """Carries out what the pool says, and objects to what cannot be carried out."""

    processes: dict[int, Process] = field(default_factory=dict)
    enabled: set[int] = field(default_factory=set)
    to_bury: int | None = None
    accepting: bool = True
    announced: bool = False
    finish: Finish | None = None

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            assert self.finish is None, "nothing follows the end"
            self._carry_out(action)
        assert self.to_bury is None, "a dead worker's connections are taken back at once"

    def _carry_out(self, action: Action) -> None:
        match action:
            case Spawn(slot):
                assert slot not in self.processes
                assert self.accepting, "who stops starts nothing"
                self.processes[slot] = Process()
            case Enable(slot):
                process = self.processes[slot]
                assert process.said_ready
                assert not process.told_to_drain
                assert not process.killed
                self.enabled.add(slot)
            case Disable(slot):
                self.enabled.discard(slot)
            case Drain(slot):
                assert slot not in self.enabled, "no work on the way to who ends"
                self.processes[slot].told_to_drain = True
            case Kill(slot):
                assert slot not in self.enabled
                assert not self.processes[slot].killed
                self.processes[slot].killed = True
            case Bury(slot):
                assert slot == self.to_bury
                assert slot not in self.enabled, "what is taken back must not go there again"
                self.to_bury = None
            case StopAccepting():
                assert self.accepting
                self.accepting = False
            case Announce():
                assert not self.announced
                self.announced = True
            case Finish():
                assert not self.accepting
                assert not self.processes, "nobody is left alone"
                self.finish = action


class AnyHistory(RuleBasedStateMachine):
    """Events as the loop can see them, in any order the kernel may choose.

    Some of one batch come after the end, when nothing may follow from them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.world = World()
        self.drained = False

    @initialize(processes=st.integers(1, 4), spare=st.integers(0, 2))
    def begin(self, processes: int, spare: int) -> None:
        self.wanted = processes
        self.pool = new_pool(processes, processes + spare)

    def choose(self, data: st.DataObject, among: Iterable[int]) -> int:
        return data.draw(st.sampled_from(sorted(among)))

    def starting(self) -> list[int]:
        """Who may still say that it is ready or that it is not; even one that was killed."""
        return [slot for slot, process in self.world.processes.items() if not process.said_ready]

    @rule()
    def template_has_loaded(self) -> None:
        """The first of a generation, or one after its death."""
        self.world.carry_out(self.pool.start(self.now))

    @precondition(lambda self: self.starting())
    @rule(data=st.data())
    def worker_is_ready(self, data: st.DataObject) -> None:
        slot = self.choose(data, self.starting())
        self.world.processes[slot].said_ready = True
        self.world.carry_out(self.pool.ready(slot, self.now))

    @rule()
    def loading_has_failed(self) -> None:
        self.world.carry_out(self.pool.load_failed("a traceback", self.now))

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), reason=st.sampled_from(Reason))
    def process_ends(self, data: st.DataObject, reason: Reason) -> None:
        self.ends(self.choose(data, self.world.processes), reason)

    def ends(self, slot: int, reason: Reason) -> None:
        del self.world.processes[slot]
        self.world.to_bury = slot
        self.world.carry_out(self.pool.exited(slot, reason, self.now))

    @rule(seconds=st.sampled_from([0.0, 0.001, FIRST_PAUSE, 1.0, SETTLED, GRACE, STARTUP]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.look_at_the_clock()

    @precondition(lambda self: self.pool.deadline() is not None)
    @rule()
    def deadline_comes(self) -> None:
        deadline = self.pool.deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.look_at_the_clock()

    def look_at_the_clock(self) -> None:
        self.world.carry_out(self.pool.tick(self.now))
        following = self.pool.deadline()
        assert following is None or following > self.now, "the loop would not sleep"
        assert self.pool.tick(self.now) == []

    @rule()
    def told_to_stop(self) -> None:
        self.world.carry_out(self.pool.stop(self.now))

    @precondition(lambda self: not self.world.accepting and not self.drained)
    @rule()
    def queue_is_empty(self) -> None:
        self.drained = True
        self.world.carry_out(self.pool.queue_empty(self.now))

    @invariant()
    def who_is_ready_gets_work_and_nobody_else(self) -> None:
        ready = {slot for slot, place in enumerate(self.pool.slots) if place.state is State.READY}
        assert self.world.enabled == ready

    @invariant()
    def the_slots_know_who_lives(self) -> None:
        gone = (State.EMPTY, State.WAITING)
        alive = {slot for slot, place in enumerate(self.pool.slots) if place.state not in gone}
        assert alive == set(self.world.processes)
        assert alive <= set(range(self.wanted)), "no more than were asked for"

    @invariant()
    def the_server_is_what_it_says(self) -> None:
        serving = self.world.announced and self.world.accepting
        assert (self.pool.state is ServerState.SERVING) == serving
        assert (self.pool.state is ServerState.DRAINING) == (not self.world.accepting)

    def teardown(self) -> None:
        """However it came to here: told to stop, it ends, and within its time."""
        if not hasattr(self, "pool"):
            return
        if self.world.accepting:
            self.told_to_stop()
        if self.world.finish is None:
            self.now += GRACE
            self.look_at_the_clock()
            for slot, process in list(self.world.processes.items()):
                assert process.killed
                self.ends(slot, Reason.SIGNAL)
        assert self.world.finish is not None
        assert self.world.finish.status in (0, 3)
        assert self.pool.deadline() is None


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_reasons_are_the_values_of_the_scoreboards_label() -> None:
    assert tuple(reason.name.lower() for reason in Reason) == SLOT.fields["restarts"].values
