"""Threads that share something, which the last of them to leave closes.

Knows nothing of servers. Who makes it is a member, too, until it leaves.
"""

import threading
from collections.abc import Callable


class Members:
    """`close` is called once, by the last to leave."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._lock = threading.Lock()
        self._count = 1

    def thread(self, name: str, act: Callable[..., None], *arguments: object) -> threading.Thread:
        """One that will be a member from `start` to its end. The process does not wait for it."""

        def life() -> None:
            try:
                act(*arguments)
            finally:
                self.leave()

        return threading.Thread(target=life, name=name, daemon=True)

    def start(self, thread: threading.Thread) -> None:
        """Raises RuntimeError if the system has no room for it."""
        with self._lock:
            self._count += 1
        try:
            thread.start()
        except RuntimeError:
            self.leave()
            raise

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            is_last = self._count == 0
        if is_last:
            self._close()
