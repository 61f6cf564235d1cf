"""wsgi.errors: what the application writes, as lines of our log with the request's id."""

import logging
from collections.abc import Iterable

from poolsrv import _core

_log = logging.getLogger("poolsrv")


class ErrorStream:
    """The wsgi.errors of one request thread (PEP 3333)."""

    def __init__(self, reactor: _core.Reactor, thread: int) -> None:
        self._reactor = reactor
        self._thread = thread
        self._line = ""

    def write(self, text: str) -> int:
        """Log each complete line; the rest waits for its end or for `flush`."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._emit(line)
        if self._line:
            # Without its end it would wait for the next request, and be logged as that one's.
            self._reactor.line_open(self._thread)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log what is there of a line."""
        if self._line:
            line, self._line = self._line, ""
            self._emit(line)

    def isatty(self) -> bool:
        """Asked before colours are written."""
        return False

    def _emit(self, line: str) -> None:
        _log.error(
            "%s", line, extra={"fields": {"request": self._reactor.request_id(self._thread)}}
        )
