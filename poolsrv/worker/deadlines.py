"""Applications that give no sign of life: named with their stacks, and interrupted.

Runs in a worker, on its main thread. Who is late, and what happens to the
connection of a thread that does not come back, is decided in the core
(overdue.h); here is what needs the interpreter.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Sequence

from poolsrv import _core, log
from poolsrv import operator_messages as say


class Deadlines:
    """The threads of a worker, by index, and which of them are lost.

    `alone`: the process has one interpreter.
    """

    def __init__(
        self,
        worker: _core.Worker,
        board: _core.Scoreboard,
        slot: int,
        threads: Sequence[threading.Thread],
        *,
        alone: bool = True,
        lost_message: str = say.THREAD_LOST,
    ) -> None:
        self._worker = worker
        self._board = board
        self._slot = slot
        self._threads = threads
        self._alone = alone
        self._lost_message = lost_message
        self._lost: set[int] = set()

    def act(self, index: int, sequence: int, lost: bool) -> None:
        """The thread is overdue in the request that has this number."""
        # Before anything is raised: where it hangs, not where it ends.
        fields, stack = self._fields(index), self._stack(index)
        if lost:
            self._lost.add(index)
            log.with_stack(logging.ERROR, self._lost_message, fields, stack)
        elif self._worker.interrupt(index, sequence):
            log.with_stack(logging.ERROR, say.REQUEST_INTERRUPTED, fields, stack)

    def lost_threads(self) -> list[threading.Thread]:
        """Those that nobody should wait for."""
        return [self._threads[index] for index in list(self._lost)]

    def join(self) -> bool:
        """Wait for the ends of the threads; false: not all of them will end."""
        for index, thread in enumerate(self._threads):
            if index not in self._lost:
                thread.join()
        return not any(thread.is_alive() for thread in self._threads)

    def _stack(self, index: int) -> str:
        if not self._alone:
            return self._worker.stack(index).rstrip()
        frame = sys._current_frames().get(self._threads[index].ident or 0)
        return "".join(traceback.format_stack(frame)).rstrip() if frame is not None else ""

    def _fields(self, index: int) -> dict[str, object]:
        now = time.monotonic_ns()
        for thread, _, since, ready, method, path, request_id in self._board.current(self._slot):
            if thread == index:
                return {
                    "request": request_id.decode("latin-1"),
                    "method": method.decode("latin-1"),
                    "path": path.decode("latin-1"),
                    "age": f"{(now - since) / 1e9:.3f}s",
                    "queued": f"{max(0, since - ready) / 1e9:.3f}s",
                    "thread": index,
                }
        return {"thread": index}  # it has ended meanwhile
