"""Lines of the log that a process could not write are counted in the scoreboard.

Any process that logs. A worker's are counted in its slot's row, by all of its interpreters;
those of the supervisor, its templates, the exporter and the watcher in the supervisor's.
So a word has several writers, which `_core.Scoreboard.add` allows.
"""

from poolsrv import _core, log
from poolsrv.between.scoreboard import SUPERVISOR, WORKER, Field


def count_for_server(board: _core.Scoreboard) -> None:
    """From now on, and those lost so far."""
    _count(board, SUPERVISOR.fields["lines_lost"], 0)


def count_for_worker(board: _core.Scoreboard, slot: int) -> None:
    """The same in a worker."""
    _count(board, WORKER.fields["lines_lost"], slot)


def _count(board: _core.Scoreboard, field: Field, slot: int) -> None:
    word = field.values.index("server")
    log.count_lost(lambda: board.add(field.place, slot, 1, word=word))
