"""wsgi.errors: what the application writes, as messages of our log with the request's id."""

import logging
import sys
from collections.abc import Iterable
from types import FrameType

from poolsrv import _core

_log = logging.getLogger("poolsrv")


class ErrorStream:
    """The wsgi.errors of one request thread (PEP 3333)."""

    def __init__(self, applications: _core.Applications, thread: int) -> None:
        self._applications = applications
        self._thread = thread
        self._line = ""

    def write(self, text: str) -> int:
        """Log what ends with a line, as one message; the rest waits for its end or `flush`.

        What a handler of `logging` writes has the level of its record.
        """
        message, end, self._line = (self._line + text).rpartition("\n")
        if end:
            self._emit(message, _level(sys._getframe(1)))
        if self._line:
            # Without its end it would wait for the next request, and be logged as that one's.
            self._applications.line_open(self._thread)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log what is there of a line."""
        if self._line:
            line, self._line = self._line, ""
            self._emit(line, logging.ERROR)

    def isatty(self) -> bool:
        """Asked before colours are written."""
        return False

    def _emit(self, message: str, level: int) -> None:
        fields = {"request": self._applications.request_id(self._thread)}
        _log.log(level, "%s", message, extra={"fields": fields})


def _level(writer: FrameType) -> int:
    """Of the record that `logging.StreamHandler` is writing, or ERROR."""
    if writer.f_code is logging.StreamHandler.emit.__code__:
        level: int = writer.f_locals["record"].levelno
        return level
    return logging.ERROR
