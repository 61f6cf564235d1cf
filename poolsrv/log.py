"""Where our messages go: standard error, one event a line.

Used by every process; each calls `setup` once with its role, a child again
after the fork. Messages are sentences, the facts behind them are fields; those of
poolsrv.operator_messages have a code, which is shown:

    logging.getLogger("poolsrv").info(say.WORKER_READY, extra={"fields": {"slot": 1}})

Whatever comes from outside (paths, client data, tracebacks) is escaped here,
so that no one who sends us bytes can forge a line or move a terminal's cursor.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from datetime import datetime

from poolsrv import operator_messages as say
from poolsrv.operator_messages import Message
from poolsrv.outlets import Outlet

_LOGGER = "poolsrv"

# C0, DEL, C1 and the Unicode line ends; a lone surrogate cannot be encoded.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# A value with none of these needs no quotes.
_PLAIN = re.compile(r'[^\s"=\\]+')


def setup(level: str, format: str, role: str) -> None:
    """Send the records of "poolsrv" to standard error.

    `level` and `format` are Settings.log_level and .log_format; `role` is the
    process in our words, such as `supervisor` or `worker 2`. Call it again after
    a fork: the handler is replaced, so that no lock is inherited.
    """
    handler = _Handler(Outlet(2))
    handler.setFormatter(_Json(role) if format == "json" else _Text(role))
    logger = logging.getLogger(_LOGGER)
    logger.__class__ = _Logger  # whoever has asked for it before has the same object
    logger.manager = logging.Manager(logging.root)
    for former in logger.handlers:
        if isinstance(former, _Handler):
            former.let_go()
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    # The application's own logging set-up gets its records, not ours.
    logger.propagate = False


def count_lost(count: Callable[[], None]) -> None:
    """Call it for each line that is dropped, those dropped so far included."""
    for handler in logging.getLogger(_LOGGER).handlers:
        if isinstance(handler, _Handler):
            handler.count_lost(count)


def with_stack(level: int, message: str, fields: Mapping[str, object], stack: str) -> None:
    """Log with a stack of another thread or process, as text."""
    logger = logging.getLogger(_LOGGER)
    extra = {"fields": fields}
    logger.handle(
        logger.makeRecord(
            _LOGGER, level, "", 0, message, (), None, extra=extra, sinfo=stack or None
        )
    )


class _Logger(logging.Logger):
    """What the application does to all loggers, it does not do to ours.

    `logging.config.dictConfig` and `fileConfig` disable those that they do not name,
    unless told otherwise; `logging.disable` is a property of the manager.
    """

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, _value: bool) -> None:
        return


class _Handler(logging.Handler):
    """To an outlet: nobody waits for who reads the log."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet
        self._lost = 0  # lines, until somebody counts them
        self._count: Callable[[], None] | None = None

    def count_lost(self, count: Callable[[], None]) -> None:
        self._count = count
        while self._lost:
            self._lost -= 1
            count()

    def let_go(self) -> None:
        """Not `close`: `logging.config` closes all handlers that there are."""
        self._outlet.close()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - the record is the application's, in part
            self.handleError(record)
            return
        if lost := self._outlet.dropped:
            text = say.LINES_DROPPED
            said = logging.LogRecord(record.name, logging.WARNING, __file__, 0, text, (lost,), None)
            if self._outlet.put(self._line(said)):
                self._outlet.dropped -= lost
        if not self._outlet.put(line):
            if self._count is None:
                self._lost += 1
            else:
                self._count()

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode(errors="backslashreplace")


class _Text(logging.Formatter):
    """`2026-11-20 12:00:00.123 +0000 INFO    supervisor[1234] POOL101 message key=value`"""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        when = _local(record)
        stamp = f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03d} {when:%z}"
        fields = "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())
        head = f"{stamp} {record.levelname:<7} {self.role}[{os.getpid()}]"
        first, *rest = record.getMessage().split("\n")
        code = f"{found} " if (found := code_of(record)) else ""
        lines = [f"{head} {code}{escape(first)}{fields}"]
        lines += ["    " + escape(line) for line in [*rest, *_traceback(self, record)]]
        return "\n".join(lines)


class _Json(logging.Formatter):
    """One object a line: time, level, role, pid, code, message, the fields, traceback if any."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": _local(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "role": self.role,
            "pid": os.getpid(),
            **({"code": code} if (code := code_of(record)) else {}),
            "message": record.getMessage(),
            **_fields(record),
        }
        if lines := _traceback(self, record):
            event["traceback"] = "\n".join(lines)
        # ASCII only: every control character and line end leaves as an escape.
        return json.dumps(event, default=str)


def code_of(record: logging.LogRecord) -> str:
    """That of the message (ERRORS.md); empty for a line of the application."""
    return record.msg.code if isinstance(record.msg, Message) else ""


def escape(text: str) -> str:
    r"""Replace control characters, as Python would write them: `\n`, `\x1b`."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def _quoted(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return escape(text) if _PLAIN.fullmatch(text) else escape(json.dumps(text, ensure_ascii=False))


def _local(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created).astimezone()


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    lines: list[str] = []
    if record.exc_info and record.exc_info[0] is not None:
        lines += formatter.formatException(record.exc_info).split("\n")
    if record.stack_info:
        lines += record.stack_info.split("\n")
    return lines
