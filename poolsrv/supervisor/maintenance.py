"""Maintenance: a file says that applications answer nobody.

Where the dispatcher runs. Workers see it in the row, and answer accordingly: csrc/worker/route.c.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from poolsrv import operator_messages as say
from poolsrv.supervisor.rows import SupervisorRow
from poolsrv.supervisor.touch import Touch, is_there

_log = logging.getLogger("poolsrv")


@dataclass(slots=True)
class Maintenance:
    """Is it now? `look` says so in the rows of all groups, and in the log when it has changed."""

    file: Path
    rows: Sequence[SupervisorRow]
    _is_now: bool = field(default=False, init=False)

    def follow(self, touch: Touch) -> None:
        """Look now, and whenever the file comes or goes."""
        touch.add(self.file, 0.0, self.look)
        self.look()

    def look(self) -> None:
        there = is_there(self.file)
        for row in self.rows:
            row.maintenance = int(there)
        if there != self._is_now:
            self._is_now = there
            _log.warning(say.MAINTENANCE if there else say.MAINTENANCE_OVER, self.file)
