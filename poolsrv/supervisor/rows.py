"""The scoreboard's rows as the supervisor's policy writes them: its own, and each slot's.

Supervisor only. That a field exists, and is of the kind that its writer needs, is
checked when this module is imported, and that a slot exists when its row is made:
nothing that is written later can name what is not there. The C dispatcher counts
other fields of the same rows; only the exporter and `watch` read them.
"""

from typing import ClassVar

from poolsrv import _core
from poolsrv.between.scoreboard import SLOT, SUPERVISOR, Field, Kind, Layout
from poolsrv.supervisor.actions import Reason


class _Row:
    """A row of `board`; without a dictionary, so that a name not declared is an error."""

    __slots__ = ("board", "number")
    LAYOUT: ClassVar[Layout]

    def __init__(self, board: _core.Scoreboard, number: int) -> None:
        self.board = board
        self.number = number


def _field(row: type[_Row], name: str, kind: Kind) -> Field:
    field = row.LAYOUT.fields[name]
    if field.kind is not kind:
        raise TypeError(f"{field.row}.{name} is a {field.kind.name}, not a {kind.name}")
    return field


class _Gauge:
    """An attribute that can only be set."""

    def __set_name__(self, row: type[_Row], name: str) -> None:
        self._field = _field(row, name, Kind.GAUGE)

    def __set__(self, row: _Row, value: int) -> None:
        row.board.set(self._field.place, row.number, value)


class _Counter:
    """A counter, or the one of its words that counts `value` of its label."""

    def __init__(self, row: type[_Row], name: str, value: str = "") -> None:
        self._field = _field(row, name, Kind.COUNTER)
        self._word = self._field.values.index(value) if value else 0

    def add(self, row: _Row) -> None:
        row.board.add(self._field.place, row.number, 1, word=self._word)


class SupervisorRow(_Row):
    """The server as a whole."""

    __slots__ = ()
    LAYOUT = SUPERVISOR
    state = _Gauge()
    generation = _Gauge()
    wanted = _Gauge()
    maintenance = _Gauge()
    started_at = _Gauge()

    def __init__(self, board: _core.Scoreboard) -> None:
        super().__init__(board, 0)

    def count_fault(self) -> None:
        _FAULTS.add(self)

    def count_reload(self, *, done: bool) -> None:
        (_RELOADS_DONE if done else _RELOADS_FAILED).add(self)

    def count_succession(self, *, done: bool) -> None:
        (_SUCCESSIONS_DONE if done else _SUCCESSIONS_FAILED).add(self)


class SlotRow(_Row):
    """A slot, and the process in it."""

    __slots__ = ()
    LAYOUT = SLOT
    state = _Gauge()
    pid = _Gauge()
    slot_generation = _Gauge()
    spawned_at = _Gauge()
    ready_at = _Gauge()

    def __init__(self, board: _core.Scoreboard, slot: int) -> None:
        """Raises IndexError if the scoreboard has no such slot."""
        board.slot(slot)
        super().__init__(board, slot)

    def count_restart(self, reason: Reason) -> None:
        _RESTARTS[reason].add(self)


_FAULTS = _Counter(SupervisorRow, "faults")
_RELOADS_DONE = _Counter(SupervisorRow, "reloads", "done")
_RELOADS_FAILED = _Counter(SupervisorRow, "reloads", "failed")
_SUCCESSIONS_DONE = _Counter(SupervisorRow, "upgrades", "done")
_SUCCESSIONS_FAILED = _Counter(SupervisorRow, "upgrades", "failed")
_RESTARTS = {reason: _Counter(SlotRow, "restarts", reason.name.lower()) for reason in Reason}
