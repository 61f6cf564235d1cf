"""What the pools and the server may ask to be done: each is carried out once, in order.

Supervisor only; pure. GroupAction is what a group's pool asks for its own processes,
ServerAction what concerns all.
"""

from dataclasses import dataclass
from enum import IntEnum


class Reason(IntEnum):
    """Why a worker ended; the column of the scoreboard's field `restarts`."""

    EXIT = 0
    SIGNAL = 1
    OOM = 2
    STARTUP = 3
    HANG = 4
    RECYCLE = 5


@dataclass(frozen=True, slots=True)
class StartTemplate:
    """Start the template of a generation; say `template_started` or `template_not_started`."""

    generation: int


@dataclass(frozen=True, slots=True)
class QuitTemplate:
    """Ask the template to end: it is to fork no more."""

    generation: int


@dataclass(frozen=True, slots=True)
class KillTemplate:
    """End the template at once; `why` for the log."""

    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class StartExporter:
    """Start the exporter; say `exporter_started` or `exporter_not_started`."""


@dataclass(frozen=True, slots=True)
class EndExporter:
    """Have the exporter end; say `exporter_exited`."""


@dataclass(frozen=True, slots=True)
class KillExporter:
    """End the exporter at once; say `exporter_exited`."""


@dataclass(frozen=True, slots=True)
class StartSuccessor:
    """Execute another supervisor, that is to take our place."""


@dataclass(frozen=True, slots=True)
class EndSuccessor:
    """Have it end: it will not take our place."""


@dataclass(frozen=True, slots=True)
class KillSuccessor:
    """End it at once."""


@dataclass(frozen=True, slots=True)
class SuccessionFailed:
    """It will not take our place. `text` says why."""

    text: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """It takes our place now: all that is held goes there, and what comes back.

    `reload`: a reload was asked for since it was started.
    """

    reload: bool


@dataclass(frozen=True, slots=True)
class SayReady:
    """Our workers are ready: tell the supervisor whose place we are to take."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Have the template of this generation start a worker in this slot."""

    slot: int
    generation: int


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
class LastCall:
    """Who has waited for a thread in vain is told so, before all is over."""


@dataclass(frozen=True, slots=True)
class Announce:
    """All workers are ready for the first time."""


@dataclass(frozen=True, slots=True)
class TookOver:
    """A reload is done: this generation serves."""

    generation: int


@dataclass(frozen=True, slots=True)
class ReloadFailed:
    """This generation will not serve; the one before does. `text` says why."""

    generation: int
    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to do. `text` is an error for the person who started the server."""

    status: int
    text: str = ""


GroupAction = (
    StartTemplate
    | QuitTemplate
    | KillTemplate
    | Spawn
    | Enable
    | Disable
    | Drain
    | Kill
    | Bury
    | LastCall
    | TookOver
    | ReloadFailed
)


@dataclass(frozen=True, slots=True)
class ForGroup:
    """What the pool of this group asks for."""

    group: int
    actions: tuple[GroupAction, ...]


ServerAction = (
    StartExporter
    | EndExporter
    | KillExporter
    | StartSuccessor
    | EndSuccessor
    | KillSuccessor
    | SuccessionFailed
    | HandOver
    | SayReady
    | StopAccepting
    | Announce
    | Finish
    | ForGroup
)
