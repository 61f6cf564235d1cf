"""The stacks of a worker's threads, as the worker itself writes them: one file for each slot.

Supervisor only. A worker writes by a signal (`processes.WRITE_STACKS`), and needs no
interpreter for it. It is sent by the supervisor when a client of the control socket asks,
and by the worker's own watchdog when the interpreter is not to be had; whoever sends it
empties the file first. The descriptors stay the launcher's.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from poolsrv.system.processes import WRITE_STACKS

# Enough for the innermost frames of a hundred threads. The application has the file, too,
# and may make it longer than a line of a log should be.
_MOST = 16000


@dataclass(frozen=True, slots=True)
class Stacks:
    """The files by slot."""

    files: Sequence[int]

    def ask(self, slot: int, send: Callable[[int], None]) -> int:
        """Have the worker write, by a signal that `send` sends; where it does."""
        file = self.files[slot]
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        send(WRITE_STACKS)
        return file

    def read(self, slot: int) -> str:
        """What the worker in the slot has written last."""
        return os.pread(self.files[slot], _MOST, 0).decode(errors="backslashreplace")
