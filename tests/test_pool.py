"""The pool: cases in tables, then any history of events against a model of the processes.

No process, no clock: the tests say what happens and when.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

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

from poolsrv.between.lifecycle import GONE, ServerState, State, Unfit
from poolsrv.between.scoreboard import SLOT
from poolsrv.supervisor.actions import (
    Announce,
    Bury,
    Disable,
    Drain,
    Enable,
    EndExporter,
    EndSuccessor,
    Finish,
    ForGroup,
    GroupAction,
    HandOver,
    Kill,
    KillExporter,
    KillSuccessor,
    KillTemplate,
    LastCall,
    QuitTemplate,
    Reason,
    ReloadFailed,
    SayReady,
    ServerAction,
    Spawn,
    StartExporter,
    StartSuccessor,
    StartTemplate,
    StopAccepting,
    SuccessionFailed,
    TookOver,
)
from poolsrv.supervisor.generations import (
    FIRST_PAUSE,
    KILL_AGAIN,
    LAST_WORDS,
    LONGEST_PAUSE,
    PAUSE,
)
from poolsrv.supervisor.pool import (
    FORK_TIMEOUT,
    LAST_CALL,
    Pool,
)
from poolsrv.supervisor.server import ONE_ORDER, Server

pytestmark = pytest.mark.once

STARTUP = 60.0
GRACE = 30.0

Action = GroupAction | ServerAction


class Whole:
    """A server of one group, asked as the loop asks: first its pool or itself, then what
    follows for the server. What is for the group stands in one list with the rest."""

    def __init__(
        self,
        processes: int,
        slots: int,
        *,
        exporter: bool = True,
        predecessor: bool = False,
        first: int = 1,
        at_once: int = 0,
        on_demand: bool = False,
    ) -> None:
        self.pool = Pool(
            processes,
            slots,
            startup_timeout=STARTUP,
            graceful_timeout=GRACE,
            first=first,
            at_once=at_once,
            others_serve=predecessor,
            on_demand=on_demand,
        )
        self.server = Server([self.pool], exporter=exporter, predecessor=predecessor)

    def exited(
        self, slot: int, reason: Reason, now: float, *, answered: bool = False
    ) -> list[Action]:
        actions = flat(self.pool.exited(slot, reason, now, answered=answered))
        return [*actions, *flat(self.server.settle(now))]

    def deadline(self) -> float | None:
        if self.server.finished:
            return None
        times = (self.server.deadline(), self.pool.deadline())
        return min((at for at in times if at is not None), default=None)

    def tick(self, now: float) -> list[Action]:
        actions = flat(self.server.tick(now, [0]))
        return [*actions, *flat(self.server.settle(now))]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.server, name, None)
        found = getattr(self.pool, name) if found is None else found
        if not callable(found):
            return found

        def ask(*arguments: Any, **options: Any) -> list[Action]:
            actions = flat(found(*arguments, **options))
            return [*actions, *flat(self.server.settle(arguments[-1]))]

        return ask


def flat(actions: Iterable[Action]) -> list[Action]:
    found: list[Action] = []
    for action in actions:
        found += action.actions if isinstance(action, ForGroup) else [action]
    return found


def new_pool(processes: int = 2, slots: int = 4) -> Whole:
    return Whole(processes, slots)


def spawned(pool: Whole, slots: Iterable[int], now: float, generation: int = 1) -> None:
    for slot in slots:
        assert pool.spawned(slot, generation, now) == []


def starting_pool(processes: int = 2, now: float = 0.0) -> Whole:
    """A pool whose workers all load."""
    pool = new_pool(processes, 2 * processes)
    assert pool.start(now) == [StartExporter(), StartTemplate(1)]
    pool.exporter_started(now)
    assert pool.loaded(1, now) == [Spawn(slot, 1) for slot in range(processes)]
    spawned(pool, range(processes), now)
    return pool


def serving_pool(processes: int = 2, now: float = 0.0) -> Whole:
    """A pool whose workers are all ready at `now`."""
    pool = starting_pool(processes, now)
    for slot in range(processes):
        pool.ready(slot, now)
    return pool


def reloading_pool(now: float = 1.0) -> Whole:
    """Two workers serve; two of the next generation load."""
    pool = serving_pool()
    assert pool.reload(now) == [StartTemplate(2)]
    assert pool.loaded(2, now) == [Spawn(2, 2), Spawn(3, 2)]
    spawned(pool, (2, 3), now, generation=2)
    return pool


def states(pool: Whole) -> list[State]:
    return [place.state for place in pool.slots]


# Starting


def test_a_start_fills_the_wanted_slots() -> None:
    pool = starting_pool()
    assert states(pool) == [State.STARTING, State.STARTING, State.EMPTY, State.EMPTY]
    assert pool.state is ServerState.STARTING


def test_each_worker_gets_work_when_it_is_ready_and_the_last_is_announced() -> None:
    pool = starting_pool()
    assert pool.ready(1, 1.0) == [Enable(1)]
    assert pool.ready(0, 2.0) == [Enable(0), Announce()]
    assert pool.state is ServerState.SERVING
    assert pool.deadline() is None


def test_readiness_is_announced_once() -> None:
    pool = serving_pool()
    pool.exited(0, Reason.EXIT, 1.0)
    pool.spawned(0, 1, 1.0)
    assert pool.ready(0, 2.0) == [Enable(0)]


@pytest.mark.parametrize("state", [State.READY, State.EMPTY])
def test_a_word_that_does_not_fit_changes_nothing(state: State) -> None:
    """What a worker says must not end the server, nor a slot's work."""
    pool = serving_pool()
    slot = states(pool).index(state)
    before = states(pool)
    for say in (pool.ready, lambda slot, now: pool.worker_failed(slot, "why", now)):
        with pytest.raises(Unfit):
            say(slot, 1.0)
    assert states(pool) == before


@pytest.mark.parametrize(("slot", "generation"), [(0, 1), (2, 1), (0, 2), (-1, 1), (99, 1)])
def test_a_process_that_nobody_ordered_is_not_taken(slot: int, generation: int) -> None:
    pool = serving_pool()
    with pytest.raises(Unfit):
        pool.spawned(slot, generation, 1.0)
    with pytest.raises(Unfit):
        pool.spawn_failed(slot, generation, "why", 1.0)


def test_a_template_that_has_loaded_too_late_starts_nothing() -> None:
    pool = new_pool()
    pool.start(0.0)
    assert pool.stop(0.0) == [StopAccepting(), QuitTemplate(1), LastCall(), Finish(0)]
    assert pool.loaded(1, 0.0) == []


# Failing to start


def test_an_application_that_cannot_be_loaded_ends_the_server() -> None:
    pool = starting_pool()
    killed = [Disable(0), Kill(0, ""), Disable(1), Kill(1, "")]
    assert pool.worker_failed(0, "no such module", 1.0) == [
        StopAccepting(),
        *killed,
        QuitTemplate(1),
        LastCall(),
    ]
    assert pool.exited(0, Reason.EXIT, 1.1) == [Disable(0), Bury(0, None)]
    assert pool.exited(1, Reason.SIGNAL, 1.2) == [
        Disable(1),
        Bury(1, None),
        Finish(3, "no such module"),
    ]


def test_before_any_worker_it_ends_the_server_at_once() -> None:
    pool = new_pool()
    pool.start(0.0)
    assert pool.load_failed(1, "no such module", 1.0) == [
        StopAccepting(),
        QuitTemplate(1),
        LastCall(),
        Finish(3, "no such module"),
    ]


def test_the_first_reason_is_the_one_that_is_told() -> None:
    pool = starting_pool(processes=1)
    pool.load_failed(1, "first", 1.0)
    assert pool.load_failed(1, "second", 1.1) == []
    assert pool.exited(0, Reason.EXIT, 1.2)[-1] == Finish(3, "first")


def test_one_that_cannot_be_loaded_any_more_is_tried_again() -> None:
    pool = serving_pool()
    pool.exited(0, Reason.EXIT, 1.0)
    pool.spawned(0, 1, 1.0)
    assert pool.worker_failed(0, "the database is away", 2.0) == []
    assert pool.exited(0, Reason.EXIT, 2.1) == [Disable(0), Bury(0, Reason.STARTUP)]
    assert states(pool)[0] is State.WAITING


def test_a_worker_that_dies_before_the_first_request_ends_the_server() -> None:
    pool = starting_pool(processes=1)
    *actions, end = pool.exited(0, Reason.SIGNAL, 1.0)
    assert actions == [
        Disable(0),
        Bury(0, Reason.STARTUP),
        StopAccepting(),
        QuitTemplate(1),
        LastCall(),
    ]
    assert isinstance(end, Finish)
    assert end.status == 3
    assert "worker 0" in end.text


def test_a_first_start_that_takes_too_long_ends_the_server() -> None:
    pool = starting_pool()
    pool.ready(0, 1.0)
    assert pool.deadline() == STARTUP
    assert pool.tick(STARTUP) == [
        StopAccepting(),
        Disable(1),
        Kill(1, ""),
        QuitTemplate(1),
        Disable(0),
        Kill(0, ""),
    ]
    pool.exited(0, Reason.SIGNAL, STARTUP)
    end = pool.exited(1, Reason.SIGNAL, STARTUP)[-1]
    assert isinstance(end, Finish)
    assert end.status == 3
    assert "--startup-timeout" in end.text


def test_a_template_that_does_not_load_ends_the_server() -> None:
    pool = new_pool()
    pool.start(0.0)
    *actions, end = pool.tick(STARTUP)
    assert actions == [StopAccepting(), QuitTemplate(1), LastCall()]
    assert isinstance(end, Finish)
    assert "--startup-timeout" in end.text


def test_a_later_start_that_takes_too_long_is_killed() -> None:
    pool = serving_pool()
    pool.exited(1, Reason.SIGNAL, 100.0)
    pool.spawned(1, 1, 100.0)
    assert pool.tick(100.0 + STARTUP - 1) == []
    assert pool.tick(100.0 + STARTUP) == [Disable(1), Kill(1, "was not ready within 60 s")]
    assert pool.ready(1, 161.0) == []  # the word was on its way
    pool.exited(1, Reason.SIGNAL, 162.0)
    assert pool.tick(162.0 + FIRST_PAUSE) == [Spawn(1, 1)]


# Forks that fail


def test_a_fork_that_fails_is_tried_again_after_a_pause() -> None:
    pool = serving_pool()
    pool.exited(1, Reason.SIGNAL, 100.0)
    for attempt in range(1000):
        now = 100.0 + PAUSE * attempt
        assert pool.spawn_failed(1, 1, "Resource temporarily unavailable", now) == []
        assert states(pool)[:2] == [State.READY, State.WAITING]
        assert pool.tick(now + PAUSE) == [Spawn(1, 1)]
    pool.spawned(1, 1, 2000.0)
    assert pool.ready(1, 2000.0) == [Enable(1)]


def test_forks_that_fail_from_the_start_end_it_in_time() -> None:
    pool = new_pool(1)
    pool.start(0.0)
    pool.loaded(1, 0.0)
    assert pool.spawn_failed(0, 1, "no more processes", 0.0) == []
    pool.tick(PAUSE)
    end = pool.spawn_failed(0, 1, "no more processes", STARTUP)[-1]
    assert isinstance(end, Finish)
    assert "no more processes" in end.text


def test_a_template_that_cannot_be_forked_is_tried_again() -> None:
    pool = new_pool(1)
    pool.start(0.0)
    assert pool.template_not_started(1, "why", 0.0) == []
    assert pool.tick(PAUSE) == [StartTemplate(1)]
    assert pool.loaded(1, PAUSE) == [Spawn(0, 1)]


def test_a_template_that_does_not_answer_is_replaced_and_its_order_given_again() -> None:
    """A stopped one: it neither forks nor ends."""
    pool = serving_pool()
    assert pool.exited(0, Reason.SIGNAL, 100.0)[-1] == Spawn(0, 1)
    late = 100.0 + FORK_TIMEOUT
    assert pool.tick(late) == [KillTemplate(1, "did not fork within 10 s")]
    assert pool.template_exited(1, "was ended by SIGKILL", late) == []
    assert states(pool)[:2] == [State.EMPTY, State.READY]
    assert pool.tick(late + PAUSE) == [StartTemplate(1)]
    assert pool.loaded(1, late + PAUSE) == [Spawn(0, 1)]


def test_workers_outlive_their_template() -> None:
    pool = serving_pool()
    assert pool.template_exited(1, "exited with status 1", 100.0) == []
    assert pool.exited(0, Reason.EXIT, 100.5) == [Disable(0), Bury(0, Reason.EXIT)]
    assert states(pool)[:2] == [State.EMPTY, State.READY]
    assert pool.tick(100.0 + PAUSE) == [StartTemplate(1)]
    assert pool.loaded(1, 102.0) == [Spawn(0, 1)]


def test_a_worker_that_was_killed_before_it_was_known_is_killed_when_it_is() -> None:
    pool = serving_pool()
    pool.exited(0, Reason.SIGNAL, 100.0)
    assert pool.stop(100.0) == [StopAccepting(), QuitTemplate(1)]
    assert pool.spawned(0, 1, 100.1) == [Kill(0, "")]
    assert pool.exited(0, Reason.SIGNAL, 100.2) == [Disable(0), Bury(0, None)]


def test_a_kill_is_said_again() -> None:
    pool = serving_pool(processes=1)
    pool.stop(0.0)
    pool.stop(ONE_ORDER)
    assert pool.tick(ONE_ORDER + KILL_AGAIN) == [Disable(0), Kill(0, "")]


def test_the_exporter_is_started_again_after_a_pause() -> None:
    pool = serving_pool()
    assert pool.exporter_exited(100.0) == []
    assert pool.tick(100.0 + PAUSE) == [StartExporter()]


# Dying


@pytest.mark.parametrize("reason", [Reason.EXIT, Reason.SIGNAL, Reason.OOM])
def test_a_worker_that_dies_is_replaced_at_once(reason: Reason) -> None:
    pool = serving_pool()
    assert pool.exited(1, reason, 1.0) == [Disable(1), Bury(1, reason), Spawn(1, 1)]


def die(
    pool: Whole, now: float, times: int, *, after: float = 0.0, answered: bool = False
) -> Iterable[float]:
    """The pauses before each of the next workers in slot 0, of which each dies so long after
    it was ready."""
    for _ in range(times):
        now += after
        actions = pool.exited(0, Reason.SIGNAL, now, answered=answered)
        if Spawn(0, 1) in actions:
            yield 0.0
        else:
            again = pool.deadline()
            assert again is not None
            assert pool.tick((now + again) / 2) == []
            assert pool.tick(again) == [Spawn(0, 1)]
            yield again - now
            now = again
        pool.spawned(0, 1, now)
        pool.ready(0, now)


def test_pauses_double_up_to_a_bound() -> None:
    """For as long as it goes on: a day of deaths is no other than a minute of them."""
    pauses = list(die(serving_pool(processes=1), 0.0, times=3000))
    assert pauses[0] == FIRST_PAUSE
    for pause, following in pairwise(pauses):
        assert following == pytest.approx(min(2 * pause, LONGEST_PAUSE))
    assert pauses[-1] == LONGEST_PAUSE


def test_who_dies_while_it_loads_is_put_off_longer_each_time() -> None:
    """However long that takes: it is of no use."""
    pool = serving_pool(processes=1)
    pool.exited(0, Reason.SIGNAL, 100.0)
    now, pauses = 100.0, []
    for _ in range(4):
        pool.spawned(0, 1, now)
        died = now + STARTUP / 2
        assert pool.exited(0, Reason.EXIT, died) == [Disable(0), Bury(0, Reason.STARTUP)]
        again = pool.deadline()
        assert again is not None
        assert pool.tick(again) == [Spawn(0, 1)]
        pauses.append(again - died)
        now = again
    assert pauses == [FIRST_PAUSE * factor for factor in (1, 2, 4, 8)]


def test_who_has_answered_is_replaced_at_once_however_often() -> None:
    """A kill each second or two in a slot: there is no pause, and none that has grown."""
    pool = serving_pool(processes=1)
    assert set(die(pool, 0.0, times=100, after=FIRST_PAUSE, answered=True)) == {0.0}
    assert pool.slots[0].deaths == 0


def test_an_answer_ends_the_pauses() -> None:
    pool = serving_pool(processes=1)
    *_, pause = die(pool, 0.0, times=9)
    assert pause > 10.0
    now = 1000.0
    assert Spawn(0, 1) in pool.exited(0, Reason.SIGNAL, now, answered=True)
    pool.spawned(0, 1, now)
    pool.ready(0, now)
    assert list(die(pool, now, times=1)) == [FIRST_PAUSE]


def test_clients_that_kill_workers_have_few_started() -> None:
    """Although each has answered: some request ends the process each time it is sent."""
    pool = serving_pool(processes=1)
    pauses = list(die(pool, 0.0, times=100, after=0.001, answered=True))
    assert sum(pauses) + 100 * 0.001 >= 99 * FIRST_PAUSE
    assert max(pauses) <= FIRST_PAUSE


def test_who_was_ready_for_as_long_as_it_would_be_put_off_is_replaced_at_once() -> None:
    """A request that kills comes each second, and no other: workers are not away for longer."""
    pool = serving_pool(processes=1)
    assert set(die(pool, 0.0, times=100, after=1.0)) == {0.0}
    pauses = list(die(pool, 100.0, times=6))
    assert pauses[-1] == FIRST_PAUSE * 2**5
    now, following = 100.0 + sum(pauses), FIRST_PAUSE * 2**6
    assert next(iter(die(pool, now, times=1, after=following / 4))) == following * 3 / 4


def test_the_slots_pause_on_their_own() -> None:
    pool = serving_pool()
    *_, pause = die(pool, 0.0, times=5)
    assert pause > 0.0
    assert Spawn(1, 1) in pool.exited(1, Reason.SIGNAL, 2.0)


# Stopping


def test_a_stop_lets_the_queue_run_dry_then_the_workers() -> None:
    pool = serving_pool()
    assert pool.stop(1.0) == [StopAccepting(), QuitTemplate(1)]
    assert pool.state is ServerState.DRAINING
    assert states(pool)[:2] == [State.READY, State.READY]  # for what is queued
    assert pool.queue_empty(2.0) == [Disable(0), Drain(0), Disable(1), Drain(1)]
    assert pool.exited(1, Reason.EXIT, 3.0) == [Disable(1), Bury(1, None)]
    assert pool.exited(0, Reason.EXIT, 4.0) == [Disable(0), Bury(0, None), Finish(0)]
    pool.template_exited(1, "exited with status 0", 4.1)
    assert pool.deadline() is None


def test_a_stop_kills_who_has_nothing_to_finish() -> None:
    pool = serving_pool()
    pool.exited(1, Reason.EXIT, 1.0)
    pool.spawned(1, 1, 1.0)
    assert pool.stop(11.0) == [StopAccepting(), Disable(1), Kill(1, ""), QuitTemplate(1)]


def test_a_stop_ends_the_pauses() -> None:
    pool = serving_pool(processes=1)
    pool.exited(0, Reason.EXIT, 0.1)
    assert states(pool)[0] is State.WAITING
    assert pool.stop(1.1) == [StopAccepting(), QuitTemplate(1), LastCall(), Finish(0)]


def test_a_stop_at_once_kills() -> None:
    pool = serving_pool(processes=1)
    assert pool.stop(1.0, at_once=True)[-1] == Kill(0, "told to stop at once")


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
    assert pool.deadline() == 1.0 + GRACE - LAST_CALL
    assert pool.tick(1.0 + GRACE - LAST_CALL) == [LastCall()]
    late = pool.tick(1.0 + GRACE)
    assert late == [Disable(1), Kill(1, "did not finish within 30 s")]
    assert pool.exited(1, Reason.SIGNAL, 32.0)[-1] == Finish(0)


def test_a_queue_that_never_runs_dry_is_ended_as_well() -> None:
    pool = serving_pool(processes=1)
    pool.stop(1.0)
    pool.tick(1.0 + GRACE - LAST_CALL)
    assert pool.tick(1.0 + GRACE) == [Disable(0), Kill(0, "did not finish within 30 s")]


def test_who_dies_while_the_server_drains_is_counted_but_not_replaced() -> None:
    pool = serving_pool(processes=1)
    pool.stop(1.0)
    assert pool.exited(0, Reason.SIGNAL, 2.0) == [
        Disable(0),
        Bury(0, Reason.SIGNAL),
        LastCall(),  # nobody serves those that wait
        Finish(0),
    ]


# Reloading


def test_a_new_generation_takes_over_when_all_of_it_are_ready() -> None:
    pool = reloading_pool()
    assert pool.ready(3, 2.0) == []
    assert states(pool) == [State.READY, State.READY, State.STARTING, State.STANDBY]
    assert pool.ready(2, 3.0) == [
        Enable(2),
        Enable(3),
        Disable(0),
        Drain(0),
        Disable(1),
        Drain(1),
        QuitTemplate(1),
        TookOver(2),
    ]
    assert pool.exited(0, Reason.EXIT, 4.0) == [Disable(0), Bury(0, None)]
    assert pool.exited(1, Reason.EXIT, 4.0) == [Disable(1), Bury(1, None)]
    assert pool.template_exited(1, "exited with status 0", 4.0) == []
    assert pool.deadline() is None
    assert pool.reload(5.0) == [StartTemplate(3)]
    assert pool.loaded(3, 5.0) == [Spawn(0, 3), Spawn(1, 3)]


FAILURES: dict[str, Callable[[Whole], list[Action]]] = {
    "load": lambda pool: pool.worker_failed(2, "a traceback", 2.0),
    "template": lambda pool: pool.template_exited(2, "exited with status 1", 2.0),
    "death": lambda pool: pool.exited(2, Reason.SIGNAL, 2.0),
    "time": lambda pool: pool.tick(1.0 + STARTUP),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_generation_that_fails_leaves_the_one_before_serving(how: str) -> None:
    pool = reloading_pool()
    pool.ready(3, 1.5)
    actions = FAILURES[how](pool)
    assert [type(action) for action in actions if isinstance(action, ReloadFailed)]
    assert not {Enable(2), Enable(3)} & set(actions)
    for slot in (2, 3):
        if states(pool)[slot] is State.KILLED:
            assert Kill(slot, "") in actions
            pool.exited(slot, Reason.SIGNAL, 100.0)
    assert states(pool) == [State.READY, State.READY, State.EMPTY, State.EMPTY]
    assert pool.generations.serving.number == 1
    assert pool.reload(101.0) == [StartTemplate(3)]


def test_a_worker_that_dies_while_the_next_generation_loads_is_replaced() -> None:
    pool = reloading_pool()
    assert Spawn(0, 1) in pool.exited(0, Reason.SIGNAL, 10.0)
    pool.ready(2, 11.0)
    taken = pool.ready(3, 11.0)
    assert [Enable(2), Enable(3)] == taken[:2]
    assert states(pool)[0] is State.KILLED  # not known yet, so not killed yet
    assert pool.spawned(0, 1, 11.1) == [Kill(0, "")]


def test_reloads_while_one_runs_are_one_more() -> None:
    pool = reloading_pool()
    assert [pool.reload(2.0) for _ in range(5)] == [[]] * 5
    pool.ready(2, 3.0)
    assert pool.ready(3, 3.0)[-1] == StartTemplate(3)
    # Its workers start as places become free.
    assert pool.loaded(3, 3.5) == []
    assert pool.exited(0, Reason.EXIT, 4.0)[-1] == Spawn(0, 3)
    assert pool.exited(1, Reason.EXIT, 4.0)[-1] == Spawn(1, 3)
    spawned(pool, (0, 1), 4.0, generation=3)
    pool.ready(0, 5.0)
    assert TookOver(3) in pool.ready(1, 5.0)
    assert pool.generations.coming is None


def test_a_reload_that_is_asked_for_while_the_server_starts_comes_after() -> None:
    pool = starting_pool()
    assert pool.reload(0.5) == []
    pool.ready(0, 1.0)
    assert pool.ready(1, 1.0) == [Enable(1), Announce(), StartTemplate(2)]


def test_a_stop_during_a_reload_ends_both_generations() -> None:
    pool = reloading_pool()
    pool.ready(2, 2.0)
    assert pool.stop(3.0) == [
        StopAccepting(),
        Disable(2),
        Kill(2, ""),
        Disable(3),
        Kill(3, ""),
        QuitTemplate(1),
        QuitTemplate(2),
    ]
    for slot in (2, 3):
        pool.exited(slot, Reason.SIGNAL, 4.0)
    pool.queue_empty(5.0)
    pool.exited(0, Reason.EXIT, 6.0)
    assert pool.exited(1, Reason.EXIT, 6.0)[-1] == Finish(0)


# Recycling


def test_a_worker_is_recycled_when_its_replacement_is_ready() -> None:
    pool = serving_pool()
    assert pool.recycle([0, 1], 1.0) == [Spawn(2, 1)]
    pool.spawned(2, 1, 1.0)
    assert pool.ready(2, 2.0) == [Enable(2), Disable(0), Drain(0)]
    assert pool.exited(0, Reason.EXIT, 3.0) == [
        Disable(0),
        Bury(0, Reason.RECYCLE),
        Spawn(0, 1),  # of the next, whose turn it is only now
    ]
    pool.spawned(0, 1, 3.0)
    assert pool.ready(0, 4.0) == [Enable(0), Disable(1), Drain(1)]
    assert pool.exited(1, Reason.EXIT, 5.0) == [Disable(1), Bury(1, Reason.RECYCLE)]
    assert states(pool) == [State.READY, State.EMPTY, State.READY, State.EMPTY]
    assert pool.deadline() is None


def test_one_that_dies_before_it_is_recycled_has_its_replacement_already() -> None:
    pool = serving_pool()
    pool.recycle([0], 1.0)
    assert pool.exited(0, Reason.SIGNAL, 10.0) == [Disable(0), Bury(0, Reason.SIGNAL)]
    pool.spawned(2, 1, 10.0)
    assert pool.ready(2, 10.0) == [Enable(2)]


def test_one_is_recycled_once() -> None:
    pool = serving_pool()
    pool.recycle([0, 0], 1.0)
    assert pool.recycle([0], 1.0) == []


# Scaling


def test_more_workers_are_started_and_the_last_ones_leave_first() -> None:
    pool = serving_pool(processes=2)
    with pytest.raises(Unfit):
        pool.scale(3, 1.0)
    assert pool.scale(1, 1.0) == [Disable(1), Drain(1)]
    assert pool.scale(2, 1.1) == [Spawn(2, 1)]
    assert pool.exited(1, Reason.EXIT, 2.0) == [Disable(1), Bury(1, None)]


def test_who_is_not_wanted_any_more_while_it_loads_is_no_death() -> None:
    """Counted as one, it would have somebody look for a reason."""
    pool = new_pool(processes=2, slots=8)
    pool.start(0.0)
    pool.exporter_started(0.0)
    pool.loaded(1, 0.0)
    spawned(pool, (0, 1), 0.0)
    pool.ready(0, 0.0)
    pool.ready(1, 0.0)
    assert pool.scale(3, 1.0) == [Spawn(2, 1)]
    pool.spawned(2, 1, 1.0)
    assert pool.scale(2, 1.1) == [Disable(2), Kill(2, "")]
    assert pool.scale(3, 1.2) == [Spawn(3, 1)]
    assert pool.exited(2, Reason.SIGNAL, 1.3) == [Disable(2), Bury(2, None)]
    assert pool.slots[2].deaths == 0


def test_scaling_while_a_generation_comes_concerns_both() -> None:
    pool = reloading_pool()
    pool.ready(2, 2.0)
    actions = pool.scale(1, 2.0)
    assert actions[:4] == [Disable(1), Drain(1), Disable(3), Kill(3, "")]
    assert TookOver(2) in actions


def test_who_comes_loads_a_few_at_a_time_while_others_serve() -> None:
    pool = Whole(3, 6, at_once=2)
    pool.start(0.0)
    assert pool.loaded(1, 0.0) == [Spawn(slot, 1) for slot in range(3)]  # nobody serves yet
    spawned(pool, range(3), 0.0)
    for slot in range(3):
        pool.ready(slot, 0.0)
    pool.reload(1.0)
    assert pool.loaded(2, 1.0) == [Spawn(3, 2), Spawn(4, 2)]
    spawned(pool, (3, 4), 1.0, generation=2)
    assert pool.ready(4, 2.0) == [Spawn(5, 2)]
    assert pool.ready(3, 2.0) == []
    spawned(pool, [5], 2.0, generation=2)
    assert TookOver(2) in pool.ready(5, 3.0)


# On demand


def test_a_group_on_demand_starts_with_a_request_and_ends_without() -> None:
    pool = Whole(2, 4, on_demand=True, exporter=False)
    assert pool.start(0.0) == [Announce()]
    assert pool.wake(1.0) == [StartTemplate(1)]
    assert pool.wake(1.0) == []
    assert pool.loaded(1, 1.0) == [Spawn(0, 1)]
    assert pool.press(1.0) == []  # the first one is not even ready
    pool.spawned(0, 1, 1.0)
    assert pool.ready(0, 2.0) == [Enable(0)]
    assert pool.press(3.0) == [Spawn(1, 1)]
    pool.spawned(1, 1, 3.0)
    assert pool.ready(1, 4.0) == [Enable(1)]
    assert pool.press(5.0) == []  # there may be no more
    assert pool.rest(9.0) == [Disable(0), Drain(0), Disable(1), Drain(1), QuitTemplate(1)]
    # It need not have ended when the next request comes.
    assert pool.wake(9.1) == [StartTemplate(2)]
    assert pool.loaded(2, 9.2) == [Spawn(2, 2)]


def test_a_group_that_sleeps_loads_new_code_when_it_wakes() -> None:
    pool = Whole(1, 2, on_demand=True, exporter=False)
    pool.start(0.0)
    assert pool.reload(1.0) == [TookOver(2)]
    assert pool.generations.serving.is_new
    assert pool.wake(2.0) == [StartTemplate(2)]


def test_who_waits_where_nobody_will_serve_is_refused_at_once_at_a_stop() -> None:
    """A worker that loads, or a pause of one that dies: it ends with the stop."""
    pool = Whole(1, 2, exporter=False, on_demand=True)
    pool.start(0.0)
    assert LastCall() in pool.stop(1.0)  # nobody has asked for it, and nobody must
    pool = Whole(1, 2, exporter=False, on_demand=True)
    pool.start(0.0)
    assert pool.wake(1.0) == [StartTemplate(1)]
    pool.loaded(1, 1.0)
    pool.spawned(0, 1, 1.0)
    assert pool.stop(2.0)[-1] == LastCall()

    pool = serving_pool()
    assert LastCall() not in pool.stop(2.0)
    assert LastCall() not in pool.exited(0, Reason.SIGNAL, 2.1)  # the other one serves
    assert LastCall() in pool.exited(1, Reason.SIGNAL, 2.2)
    assert pool.pool.deadline() != 2.0 + GRACE - LAST_CALL


# Several groups


def two_groups() -> tuple[Server, Pool, Pool]:
    one, two = (Pool(1, 2, startup_timeout=STARTUP, graceful_timeout=GRACE) for _ in range(2))
    server = Server([one, two], ["one", "two"], exporter=False)
    assert flat(server.start(0.0)) == [StartTemplate(1), StartTemplate(1)]
    for pool in (one, two):
        pool.loaded(1, 0.0)
        pool.spawned(0, 1, 0.0)
    return server, one, two


def serving_groups() -> tuple[Server, Pool, Pool]:
    server, one, two = two_groups()
    one.ready(0, 1.0)
    assert server.settle(1.0) == []
    two.ready(0, 2.0)
    assert server.settle(2.0) == [Announce()]
    return server, one, two


def test_a_server_serves_when_all_groups_do() -> None:
    server, one, two = serving_groups()
    assert [each.state for each in (server, one, two)] == [ServerState.SERVING] * 3


def test_a_group_that_cannot_start_ends_the_server_and_is_named() -> None:
    server, one, two = two_groups()
    two.worker_failed(0, "no such module", 1.0)
    actions = server.settle(1.0)
    assert StopAccepting() in actions
    assert ForGroup(0, (Disable(0), Kill(0, ""), QuitTemplate(1))) in actions
    for pool in (two, one):
        assert server.settle(2.0) == []
        pool.exited(0, Reason.SIGNAL, 2.0, answered=False)
    assert server.settle(2.0) == [Finish(3, "group two: no such module")]


def test_later_a_group_fails_alone() -> None:
    server, one, two = serving_groups()
    two.exited(0, Reason.EXIT, 3.0, answered=False)
    two.spawned(0, 1, 3.0)
    two.worker_failed(0, "no such module", 3.0)
    two.exited(0, Reason.EXIT, 3.0, answered=False)
    assert server.settle(3.0) == []
    assert (server.state, one.slots[0].state) == (ServerState.SERVING, State.READY)


def test_a_reload_is_of_one_group_or_of_all() -> None:
    server, _, _ = serving_groups()
    assert server.reload(3.0, [1]) == [ForGroup(1, (StartTemplate(2),))]
    assert server.reload(3.0) == [ForGroup(0, (StartTemplate(2),))]  # once more for the other
    with pytest.raises(Unfit):
        server.begin_succession(3.0)


def test_a_server_ends_when_its_last_group_has() -> None:
    server, one, two = serving_groups()
    server.stop(3.0)
    server.queue_empty(3.0)
    one.exited(0, Reason.EXIT, 4.0, answered=False)
    assert server.settle(4.0) == []
    two.exited(0, Reason.EXIT, 5.0, answered=False)
    assert server.settle(5.0) == [Finish(0)]


# Another supervisor takes the place


def upgrading_pool(now: float = 1.0) -> Whole:
    """Two workers serve, and another supervisor starts its own."""
    pool = serving_pool()
    assert pool.begin_succession(now) == [StartSuccessor()]
    return pool


def test_a_supervisor_leaves_its_place_when_its_exporter_has_ended() -> None:
    pool = upgrading_pool()
    assert pool.successor_ready(2.0) == [EndExporter()]
    assert pool.deadline() == 2.0 + LAST_WORDS
    assert not pool.has_left
    leaving = [HandOver(False), QuitTemplate(1), Disable(0), Drain(0), Disable(1), Drain(1)]
    assert pool.exporter_exited(3.0) == leaving
    assert pool.has_left
    assert pool.template_exited(1, "", 3.0) == []
    assert pool.exited(0, Reason.EXIT, 4.0) == [Disable(0), Bury(0, None)]
    assert pool.exited(1, Reason.EXIT, 4.0) == [Disable(1), Bury(1, None), Finish(0)]


def test_without_an_exporter_it_leaves_at_once() -> None:
    pool = Whole(1, 2, exporter=False)
    pool.start(0.0)
    pool.loaded(1, 0.0)
    spawned(pool, [0], 0.0)
    pool.ready(0, 0.0)
    pool.begin_succession(1.0)
    assert pool.successor_ready(2.0)[0] == HandOver(False)


def test_an_exporter_that_does_not_end_is_killed() -> None:
    pool = upgrading_pool()
    pool.successor_ready(2.0)
    assert pool.tick(2.0 + LAST_WORDS) == [KillExporter()]


@pytest.mark.parametrize("is_ready", [False, True])
def test_a_successor_that_ends_before_it_serves_changes_nothing(is_ready: bool) -> None:
    pool = upgrading_pool()
    if is_ready:
        pool.successor_ready(2.0)
    assert pool.successor_exited("it is gone", 3.0) == [SuccessionFailed("it is gone")]
    assert states(pool)[:2] == [State.READY, State.READY]
    assert pool.state is ServerState.SERVING
    if is_ready:  # its exporter was told to end: it gets another
        assert pool.exporter_exited(3.0) == []
        assert pool.tick(3.0 + PAUSE) == [StartExporter()]
    assert pool.begin_succession(9.0) == [StartSuccessor()]


def test_a_successor_that_is_late_is_ended_and_then_killed() -> None:
    pool = upgrading_pool(1.0)
    failed, ended = pool.tick(1.0 + STARTUP)
    assert isinstance(failed, SuccessionFailed)
    assert ended == EndSuccessor()
    assert pool.tick(1.0 + STARTUP + LAST_WORDS) == [KillSuccessor()]
    assert pool.tick(1.0 + STARTUP + LAST_WORDS + KILL_AGAIN) == [KillSuccessor()]
    assert pool.successor_exited("it is gone", 99.0) == []
    assert pool.deadline() is None


def test_a_successor_that_was_told_to_end_takes_no_place() -> None:
    pool = upgrading_pool()
    pool.exporter_exited(1.5)
    pool.successor_failed("no", 2.0)
    assert pool.successor_ready(2.1) == []  # the word was on its way
    assert pool.state is ServerState.SERVING


def test_a_stop_ends_the_successor_first() -> None:
    pool = upgrading_pool()
    assert pool.stop(2.0)[:2] == [StopAccepting(), EndSuccessor()]
    pool.queue_empty(2.0)
    pool.template_exited(1, "", 2.0)
    for slot in (0, 1):
        assert pool.exited(slot, Reason.EXIT, 3.0)[-1] == Bury(slot, None)
    assert pool.successor_exited("it is gone", 3.0) == [Finish(0)]


def test_after_it_has_left_the_first_order_to_stop_is_no_second_one() -> None:
    pool = upgrading_pool()
    pool.successor_ready(2.0)
    pool.exporter_exited(3.0)
    assert pool.stop(9.0) == []
    assert pool.stop(10.0) == [
        Disable(0),
        Kill(0, "told to stop at once"),
        Disable(1),
        Kill(1, "told to stop at once"),
    ]


def test_a_reload_meanwhile_is_the_successors() -> None:
    pool = upgrading_pool()
    assert pool.reload(2.0) == []
    pool.successor_ready(2.0)
    assert pool.exporter_exited(3.0)[0] == HandOver(True)


def test_a_reload_meanwhile_follows_an_upgrade_that_fails() -> None:
    pool = upgrading_pool()
    pool.reload(2.0)
    assert pool.successor_failed("no", 3.0) == [
        SuccessionFailed("no"),
        EndSuccessor(),
        StartTemplate(2),
    ]


@pytest.mark.parametrize("pool", [starting_pool, reloading_pool, upgrading_pool])
def test_no_upgrade_while_something_else_goes_on(pool: Callable[[], Whole]) -> None:
    with pytest.raises(Unfit):
        pool().begin_succession(5.0)


def following_pool() -> Whole:
    """A pool that has said that it is ready to take another supervisor's place."""
    pool = Whole(2, 4, predecessor=True, first=7)
    assert pool.start(0.0) == [StartTemplate(7)]
    assert pool.loaded(7, 0.0) == [Spawn(0, 7), Spawn(1, 7)]
    spawned(pool, (0, 1), 0.0, generation=7)
    assert pool.ready(0, 1.0) == [Enable(0)]
    assert pool.ready(1, 1.0) == [Enable(1), SayReady()]
    return pool


def test_who_follows_another_serves_when_it_is_told() -> None:
    pool = following_pool()
    assert pool.state is ServerState.STARTING
    assert pool.take_over(2.0) == [Announce(), StartExporter()]
    assert pool.state is ServerState.SERVING
    with pytest.raises(Unfit):
        pool.take_over(3.0)


def test_who_follows_another_and_is_not_ready_is_not_asked() -> None:
    pool = Whole(1, 2, predecessor=True)
    pool.start(0.0)
    with pytest.raises(Unfit):
        pool.take_over(1.0)


def test_who_follows_another_and_is_told_to_stop_leaves_that_ones_listeners() -> None:
    pool = following_pool()
    told = pool.stop(2.0)
    assert told == [QuitTemplate(7), Disable(0), Drain(0), Disable(1), Drain(1)]
    assert pool.take_over(3.0) == []


# Any history


@dataclass
class Process:
    """A worker as the outside world knows it."""

    generation: int
    said_ready: bool = False
    told_to_drain: bool = False
    killed: bool = False


@dataclass
class TemplateProcess:
    """A template as the outside world knows it, and what it was told to fork."""

    loaded: bool = False
    said_failed: bool = False
    told_to_quit: bool = False
    killed: bool = False
    orders: list[int] = field(default_factory=list)


EXPORTER, SUCCESSOR = 0, -1


@dataclass
class SuccessorProcess:
    """The supervisor that is to take our place, as the outside world knows it."""

    said_ready: bool = False
    told_to_end: bool = False


@dataclass
class World:
    """Carries out what the pool says, and objects to what cannot be carried out."""

    pool: Whole
    processes: dict[int, Process] = field(default_factory=dict)
    templates: dict[int, TemplateProcess] = field(default_factory=dict)
    exporters: int = 0
    enabled: set[int] = field(default_factory=set)
    to_bury: int | None = None
    accepting: bool = True
    announced: bool = False
    finish: Finish | None = None
    serving: int = 1
    forks: bool = True  # whether the supervisor can fork
    not_started: list[int] = field(default_factory=list)  # generations; exporter, successor:
    successor: "SuccessorProcess | None" = None
    follows: bool = False  # another supervisor serves until it hears from us
    said_ready: bool = False
    handed_over: bool = False
    upgrades: int = 0  # that have not ended

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            assert self.finish is None, "nothing follows the end"
            self._carry_out(action)
        assert self.to_bury is None, "a dead worker's connections are taken back at once"

    def _carry_out(self, action: Action) -> None:
        match action:
            case StartTemplate(generation):
                assert self.accepting, "who stops starts nothing"
                assert generation not in self.templates
                if self.forks:
                    self.templates[generation] = TemplateProcess()
                else:
                    self.not_started.append(generation)
            case QuitTemplate(generation):
                assert not self.templates[generation].told_to_quit
                self.templates[generation].told_to_quit = True
            case KillTemplate(generation):
                self.templates[generation].killed = True
            case StartExporter():
                assert not self.exporters
                assert not self.follows, "the other supervisor has one"
                if self.forks:
                    self.exporters = 1
                else:
                    self.not_started.append(EXPORTER)
            case EndExporter() | KillExporter():
                assert self.exporters
            case StartSuccessor():
                assert self.accepting
                assert self.successor is None
                self.upgrades += 1
                if self.forks:
                    self.successor = SuccessorProcess()
                else:
                    self.not_started.append(SUCCESSOR)
            case EndSuccessor() | KillSuccessor():
                assert self.successor is not None
                assert not self.handed_over, "nobody ends who serves"
                self.successor.told_to_end = True
            case SuccessionFailed():
                assert self.accepting
                self.upgrades -= 1
            case HandOver():
                assert self.successor is not None
                assert self.successor.said_ready
                assert not self.exporters, "it would not know of the new workers"
                self.upgrades -= 1
                self.accepting = False
                self.handed_over = True
            case SayReady():
                assert self.follows
                assert not self.said_ready
                self.said_ready = True
            case Spawn(slot, generation):
                template = self.templates[generation]
                assert template.loaded
                assert not template.told_to_quit
                assert slot not in self.processes
                assert slot not in self.ordered()
                assert self.accepting, "who stops starts nothing"
                template.orders.append(slot)
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
                assert not self.accepting or len(self.enabled) >= self.pool.wanted
                self.processes[slot].told_to_drain = True
            case Kill(slot):
                assert slot not in self.enabled
                self.processes[slot].killed = True
            case Bury(slot):
                assert slot == self.to_bury
                assert slot not in self.enabled, "what is taken back must not go there again"
                self.to_bury = None
            case LastCall():
                assert not self.accepting
            case StopAccepting():
                assert self.accepting
                self.accepting = False
            case Announce():
                assert not self.announced
                assert not self.follows
                self.announced = True
            case TookOver(generation):
                assert self.accepting
                assert generation > self.serving
                serve = {self.processes[slot].generation for slot in self.enabled}
                assert serve == ({generation} if self.pool.wanted else set())
                self.serving = generation
            case ReloadFailed(generation):
                assert generation > self.serving
                assert all(self.processes[slot].generation < generation for slot in self.enabled)
            case Finish():
                assert not self.accepting
                assert not self.processes, "nobody is left alone"
                assert not self.ordered()
                assert self.handed_over or self.successor is None
                self.finish = action

    def ordered(self) -> dict[int, int]:
        """Slots whose worker was ordered and is not there: their generations."""
        return {
            slot: generation
            for generation, template in self.templates.items()
            for slot in template.orders
        }


class AnyHistory(RuleBasedStateMachine):
    """Events as the loop can see them, in any order the kernel may choose.

    Some of one batch come after the end, when nothing may follow from them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.drained = False

    @initialize(
        processes=st.integers(1, 4),
        spare=st.integers(0, 2),
        follows=st.booleans(),
        at_once=st.integers(0, 2),
        on_demand=st.booleans(),
    )
    def begin(
        self, processes: int, spare: int, follows: bool, at_once: int, on_demand: bool
    ) -> None:
        self.pool = Whole(
            processes,
            2 * (processes + spare),
            predecessor=follows,
            at_once=at_once,
            on_demand=on_demand,
        )
        self.world = World(self.pool, follows=follows)
        self.do(self.pool.start(self.now))

    def do(self, actions: list[Action]) -> None:
        """Carry them out, and what the loop says at once of those that could not be."""
        if self.world.follows and self.pool.state is ServerState.DRAINING:
            self.world.accepting = False  # it never did, and is not told
        self.world.carry_out(actions)
        while self.world.not_started:
            generation = self.world.not_started.pop(0)
            if generation == SUCCESSOR:
                self.do(self.pool.successor_exited("no memory", self.now))
            elif generation == EXPORTER:
                self.do(self.pool.exporter_exited(self.now))
            else:
                self.do(self.pool.template_not_started(generation, "no memory", self.now))

    def choose(self, data: st.DataObject, among: Iterable[int]) -> int:
        return data.draw(st.sampled_from(sorted(among)))

    # The supervisor's children

    @rule(forks=st.booleans())
    def memory_ends_or_is_back(self, forks: bool) -> None:
        self.world.forks = forks

    def loading(self) -> list[int]:
        return [
            generation
            for generation, template in self.world.templates.items()
            if not template.loaded and not template.said_failed
        ]

    @precondition(lambda self: self.loading())
    @rule(data=st.data())
    def template_has_loaded(self, data: st.DataObject) -> None:
        generation = self.choose(data, self.loading())
        self.world.templates[generation].loaded = True
        self.do(self.pool.loaded(generation, self.now))

    @precondition(lambda self: self.loading())
    @rule(data=st.data())
    def template_cannot_load(self, data: st.DataObject) -> None:
        generation = self.choose(data, self.loading())
        self.world.templates[generation].said_failed = True
        self.do(self.pool.load_failed(generation, "a traceback", self.now))

    @precondition(lambda self: self.world.templates)
    @rule(data=st.data())
    def template_ends(self, data: st.DataObject) -> None:
        self.template_gone(self.choose(data, self.world.templates))

    def template_gone(self, generation: int) -> None:
        del self.world.templates[generation]  # and all that it was told to do
        self.do(self.pool.template_exited(generation, "was ended by SIGKILL", self.now))

    @precondition(lambda self: self.world.exporters)
    @rule()
    def exporter_ends(self) -> None:
        self.world.exporters = 0
        self.do(self.pool.exporter_exited(self.now))

    # Other supervisors

    @rule()
    def told_to_upgrade(self) -> None:
        with suppress(Unfit):  # something else goes on
            self.do(self.pool.begin_succession(self.now))

    @precondition(lambda self: self.world.successor is not None)
    @rule(event=st.sampled_from(["ready", "failed", "ends"]))
    def something_becomes_of_the_successor(self, event: str) -> None:
        successor = self.world.successor
        assert successor is not None
        if event == "ends":
            self.world.successor = None
            self.do(self.pool.successor_exited("was ended by SIGKILL", self.now))
        elif event == "failed":
            self.do(self.pool.successor_failed("a traceback", self.now))
        elif not successor.said_ready:
            successor.said_ready = True
            try:
                self.do(self.pool.successor_ready(self.now))
            except Unfit:
                assert successor.told_to_end  # it has not heard that yet

    @precondition(lambda self: self.world.said_ready and self.world.follows)
    @rule()
    def told_to_take_over(self) -> None:
        self.world.follows = False
        self.do(self.pool.take_over(self.now))

    # Workers

    @precondition(lambda self: self.world.ordered())
    @rule(data=st.data(), forks=st.booleans())
    def template_forks_or_cannot(self, data: st.DataObject, forks: bool) -> None:
        self.answer(self.choose(data, self.world.ordered()), forks)

    def answer(self, slot: int, forks: bool) -> None:
        generation = self.world.ordered()[slot]
        self.world.templates[generation].orders.remove(slot)
        if forks:
            self.world.processes[slot] = Process(generation)
            self.do(self.pool.spawned(slot, generation, self.now))
        else:
            self.do(self.pool.spawn_failed(slot, generation, "no memory", self.now))

    def starting(self) -> list[int]:
        """Who may still say that it is ready or that it is not; even one that was killed."""
        return [slot for slot, process in self.world.processes.items() if not process.said_ready]

    @precondition(lambda self: self.starting())
    @rule(data=st.data())
    def worker_is_ready(self, data: st.DataObject) -> None:
        self.says_ready(self.choose(data, self.starting()))

    def says_ready(self, slot: int) -> None:
        self.world.processes[slot].said_ready = True
        self.do(self.pool.ready(slot, self.now))

    @precondition(lambda self: self.starting())
    @rule(data=st.data())
    def worker_cannot_load(self, data: st.DataObject) -> None:
        slot = self.choose(data, self.starting())
        with suppress(Unfit):  # it was killed by now
            self.do(self.pool.worker_failed(slot, "a traceback", self.now))

    @rule(slot=st.integers(-1, 12), generation=st.integers(0, 9), data=st.data())
    def something_is_said_that_does_not_fit(
        self, slot: int, generation: int, data: st.DataObject
    ) -> None:
        """Twice, too late, by the wrong one: it changes nothing."""
        say: list[Callable[[], object]] = []
        if self.world.ordered().get(slot) != generation:
            say.append(lambda: self.pool.spawned(slot, generation, self.now))
            say.append(lambda: self.pool.spawn_failed(slot, generation, "why", self.now))
        if generation not in [found.number for found in self.pool.generations.all()]:
            say.append(lambda: self.pool.loaded(generation, self.now))
            say.append(lambda: self.pool.load_failed(generation, "why", self.now))
            say.append(lambda: self.pool.template_exited(generation, "why", self.now))
        process = self.world.processes.get(slot)
        if 0 <= slot < len(self.pool.slots) and (process is None or process.said_ready):
            say.append(lambda: self.pool.worker_failed(slot, "why", self.now))
        if say:
            before = [place.state for place in self.pool.slots]
            with pytest.raises(Unfit):
                data.draw(st.sampled_from(say))()
            assert before == [place.state for place in self.pool.slots]

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), reason=st.sampled_from(Reason), answers=st.booleans())
    def process_ends(self, data: st.DataObject, reason: Reason, answers: bool) -> None:
        self.ends(self.choose(data, self.world.processes), reason, answers)

    def ends(self, slot: int, reason: Reason, answers: bool = False) -> None:
        answered = answers and slot in self.world.enabled
        del self.world.processes[slot]
        self.world.to_bury = slot
        self.do(self.pool.exited(slot, reason, self.now, answered=answered))

    # Time and orders

    @rule(
        seconds=st.sampled_from(
            [
                0.0,
                0.001,
                FIRST_PAUSE,
                PAUSE,
                KILL_AGAIN,
                LONGEST_PAUSE,
                FORK_TIMEOUT,
                GRACE,
                STARTUP,
            ]
        )
    )
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
        self.do(self.pool.tick(self.now))
        following = self.pool.deadline()
        assert following is None or following > self.now, "the loop would not sleep"
        assert self.pool.tick(self.now) == []

    @rule()
    def told_to_reload(self) -> None:
        self.do(self.pool.reload(self.now))

    @rule(slots=st.sets(st.integers(0, 1)))
    def told_to_recycle(self, slots: set[int]) -> None:
        self.do(self.pool.recycle(slots, self.now))

    @rule(processes=st.integers(1, 6))
    def told_to_scale(self, processes: int) -> None:
        if self.pool.on_demand:
            with pytest.raises(Unfit):
                self.pool.scale(processes, self.now)
        elif processes <= len(self.pool.slots) // 2:
            self.do(self.pool.scale(processes, self.now))

    @rule(what=st.sampled_from(["wake", "press", "rest"]))
    def demand_changes(self, what: str) -> None:
        """Also where there is none: then nothing follows."""
        asleep = self.pool.is_asleep
        self.do(getattr(self.pool, what)(self.now))
        if not self.pool.on_demand or (what == "wake" and self.pool.state is ServerState.SERVING):
            assert not self.pool.is_asleep
        elif what != "rest":
            assert self.pool.is_asleep == asleep

    @precondition(lambda self: self.world.announced)
    @rule(at_once=st.booleans())
    def told_to_stop(self, at_once: bool) -> None:
        self.do(self.pool.stop(self.now, at_once=at_once))

    @precondition(lambda self: not self.world.accepting and not self.drained)
    @rule()
    def queue_is_empty(self) -> None:
        self.drained = True
        self.do(self.pool.queue_empty(self.now))

    @precondition(lambda self: self.world.accepting)
    @rule()
    def all_goes_well_for_a_while(self) -> None:
        """Whatever went before, it serves: the newest code, as many workers as are wanted."""
        self.world.forks = True
        for _ in range(200):
            for generation in self.loading():
                self.world.templates[generation].loaded = True
                self.do(self.pool.loaded(generation, self.now))
            for generation, template in list(self.world.templates.items()):
                quits = template.told_to_quit and not template.orders
                if template.killed or template.said_failed or quits:
                    self.template_gone(generation)
            for slot in list(self.world.ordered()):
                self.answer(slot, forks=True)
            for slot in self.starting():
                self.says_ready(slot)
            for slot, process in list(self.world.processes.items()):
                if process.told_to_drain or process.killed:
                    self.ends(slot, Reason.EXIT)
            if self.world.successor is not None:
                self.something_becomes_of_the_successor("ends")
            if self.settled() or not self.world.accepting:
                break
            self.now = max(self.now + 0.001, self.pool.deadline() or 0.0)
            self.look_at_the_clock()
        assert self.settled() or not self.world.accepting

    def settled(self) -> bool:
        """As many as are wanted serve, of one generation, and nothing is under way."""
        number = self.pool.generations.serving.number
        serving = [p for p in self.world.processes.values() if p.generation == number]
        return (
            len(self.world.enabled) == self.pool.wanted == len(serving)
            and len(self.world.processes) == self.pool.wanted
            and list(self.world.templates) == ([number] if self.pool.wanted else [])
            and self.pool.deadline() is None
        )

    @invariant()
    def who_is_ready_gets_work_and_nobody_else(self) -> None:
        ready = {slot for slot, place in enumerate(self.pool.slots) if place.state is State.READY}
        assert self.world.enabled == ready

    @invariant()
    def the_slots_know_who_lives(self) -> None:
        alive = {slot for slot, place in enumerate(self.pool.slots) if place.state not in GONE}
        born = {slot for slot in alive if self.pool.slots[slot].born}
        assert born == set(self.world.processes)
        assert alive - born == set(self.world.ordered())

    @invariant()
    def the_templates_are_known(self) -> None:
        known = {found.number for found in self.pool.generations.all() if found.template.alive}
        assert known == set(self.world.templates)

    @invariant()
    def every_state_but_rest_has_an_end(self) -> None:
        """Whoever is awaited is awaited for a time: nothing hangs if it is stopped."""
        if self.world.finish is None:
            for place in self.pool.slots:
                rest = (State.EMPTY, State.READY, State.STANDBY)
                assert place.state in rest or place.deadline is not None

    @invariant()
    def the_server_is_what_it_says(self) -> None:
        serving = self.world.announced and self.world.accepting
        assert (self.pool.state is ServerState.SERVING) == serving
        assert (self.pool.state is ServerState.DRAINING) == (not self.world.accepting)
        assert self.pool.has_left == self.world.handed_over
        if self.world.accepting:
            assert self.world.upgrades == self.pool.succession_runs
        assert (self.world.successor is not None) == self.pool.successor.alive

    def teardown(self) -> None:
        """However it came to here: told to stop, it ends, and within its time."""
        if not hasattr(self, "pool"):
            return
        if self.world.accepting:
            self.do(self.pool.stop(self.now))
        if self.world.finish is None:
            self.now += GRACE + FORK_TIMEOUT
            self.look_at_the_clock()
            for generation in list(self.world.templates):
                self.template_gone(generation)
            for slot, process in list(self.world.processes.items()):
                assert process.killed
                self.ends(slot, Reason.SIGNAL)
        successor = self.world.successor
        if self.world.finish is None and successor is not None:
            assert successor.told_to_end
            self.something_becomes_of_the_successor("ends")
        assert self.world.finish is not None
        assert self.world.finish.status in (0, 3)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_reasons_are_the_values_of_the_scoreboards_label() -> None:
    assert tuple(reason.name.lower() for reason in Reason) == SLOT.fields["restarts"].values
