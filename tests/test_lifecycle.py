"""The table of states: complete for every process that lives, and nothing else happens."""

import pytest

from poolsrv.between.lifecycle import GONE, TRANSITIONS, Event, State, Unfit, after, diagram

pytestmark = pytest.mark.once

LIVE = tuple(state for state in State if state not in GONE)


def reachable(start: State) -> set[State]:
    """The states that some sequence of events leads to, `start` included."""
    found = {start}
    while more := {after for state in found for after in TRANSITIONS[state].values()} - found:
        found |= more
    return found


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize("state", LIVE)
def test_a_process_can_be_killed_and_can_end_in_any_state(state: State) -> None:
    assert after(state, Event.KILL) is State.KILLED
    assert after(state, Event.EXITED) is State.EMPTY


@pytest.mark.parametrize("state", LIVE)
def test_a_slot_with_a_process_gets_no_second_one(state: State) -> None:
    assert Event.SPAWN not in TRANSITIONS[state]


@pytest.mark.parametrize("state", sorted(set(State) - set(LIVE)))
def test_a_slot_without_a_process_only_waits_for_one(state: State) -> None:
    assert not {Event.READY, Event.KILL, Event.EXITED} & set(TRANSITIONS[state])


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached_and_left_for_good(state: State) -> None:
    assert state in reachable(State.EMPTY)
    assert State.EMPTY in reachable(state)


def test_only_a_worker_that_says_so_gets_work() -> None:
    ways = [
        (state, event)
        for state, row in TRANSITIONS.items()
        for event, following in row.items()
        if following is State.READY
    ]
    assert ways == [(State.STARTING, Event.READY), (State.STANDBY, Event.READY)]


@pytest.mark.parametrize("state", [State.DRAINING, State.KILLED])
def test_who_gets_no_work_gets_none_before_its_end(state: State) -> None:
    """Whatever happens, the way back to READY leads through an empty slot."""
    following = {after for after in TRANSITIONS[state].values() if after is not State.EMPTY}
    assert following <= {State.DRAINING, State.KILLED}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_what_the_table_does_not_name_raises(state: State, event: Event) -> None:
    if event in TRANSITIONS[state]:
        assert after(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(Unfit, match=f"'{event.value}' cannot .* {state.name}"):
            after(state, event)


def test_the_diagram_shows_every_state_and_every_move() -> None:
    lines = [line.strip() for line in diagram().splitlines()]
    assert lines[0] == "stateDiagram-v2"
    for state in State:
        assert any(f"--> {state.name}" in line for line in lines)
    moves = {
        f"{state.name} --> {following.name}: {event.value}"
        for state, row in TRANSITIONS.items()
        for event, following in row.items()
        if following is not state
    }
    assert set(lines[2:]) == moves
