"""What a process of the server can be, and which event leads where.

One table for all: the worker in a slot, a template, the exporter, the supervisor
that is to take our place. Knows no
process and no clock. The pool acts by this table, the exporter names states
with it, ARCHITECTURE.md shows it (`python -m poolsrv.between.lifecycle`), and a
property test walks it.
"""

import enum


class State(enum.IntEnum):
    """The state of a slot, a template or the exporter; for slots the scoreboard holds the number.

    A template is READY when it can fork, DRAINING when it was told to end.
    """

    EMPTY = 0  # no process
    STARTING = 1  # a process that loads the application
    READY = 2  # gets work
    DRAINING = 3  # finishes what it holds, gets nothing new
    KILLED = 4  # was sent SIGKILL; its end is awaited
    WAITING = 5  # no process; the next is started after a pause (back-off)
    STANDBY = 6  # is ready, and gets work when all of its generation are


class Event(enum.Enum):
    """What happens to a slot, a template or the exporter."""

    SPAWN = "spawn"
    STAND_BY = "stand by"
    READY = "ready"
    DRAIN = "drain"
    KILL = "kill"
    EXITED = "exited"
    BACK_OFF = "back off"


class ServerState(enum.IntEnum):
    """The whole server's state; the scoreboard holds the number."""

    STARTING = 0
    SERVING = 1
    DRAINING = 2


class Unfit(ValueError):
    """An event that cannot happen in this state; nothing was changed."""


# No process: nothing to signal, and nothing will end.
GONE = (State.EMPTY, State.WAITING)

TRANSITIONS: dict[State, dict[Event, State]] = {
    State.EMPTY: {Event.SPAWN: State.STARTING, Event.BACK_OFF: State.WAITING},
    State.WAITING: {Event.SPAWN: State.STARTING, Event.DRAIN: State.EMPTY},
    State.STARTING: {
        Event.STAND_BY: State.STANDBY,
        Event.READY: State.READY,
        Event.DRAIN: State.DRAINING,
        Event.KILL: State.KILLED,
        Event.EXITED: State.EMPTY,
    },
    State.STANDBY: {
        Event.READY: State.READY,
        Event.DRAIN: State.DRAINING,
        Event.KILL: State.KILLED,
        Event.EXITED: State.EMPTY,
    },
    State.READY: {
        Event.DRAIN: State.DRAINING,
        Event.KILL: State.KILLED,
        Event.EXITED: State.EMPTY,
    },
    State.DRAINING: {
        # Ready came in while the order to drain was on its way.
        Event.READY: State.DRAINING,
        Event.STAND_BY: State.DRAINING,
        Event.DRAIN: State.DRAINING,
        Event.KILL: State.KILLED,
        Event.EXITED: State.EMPTY,
    },
    State.KILLED: {
        Event.READY: State.KILLED,
        Event.STAND_BY: State.KILLED,
        Event.DRAIN: State.KILLED,
        Event.KILL: State.KILLED,
        Event.EXITED: State.EMPTY,
    },
}


def after(state: State, event: Event) -> State:
    """The state that follows; Unfit if `event` cannot happen in `state`."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise Unfit(f"{event.value!r} cannot happen to a slot that is {state.name}") from None


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> EMPTY"]
    for state, row in TRANSITIONS.items():
        for event, following in row.items():
            if following is not state:
                lines.append(f"    {state.name} --> {following.name}: {event.value}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
