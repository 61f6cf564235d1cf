"""What can keep poolsrv from starting, by the exit status it ends with; and RequestTimeout.

Each message of the former is written for the person at the keyboard: what was found, where,
and what to do. Caught once, at the command line.
"""

from typing import ClassVar


class PoolsrvError(Exception):
    """The server cannot start: the fault in a line, and the remedy in another.

    `status` is the exit status of the process.
    """

    status: ClassVar[int]

    def __init__(self, fault: str, remedy: str = "") -> None:
        super().__init__(fault, remedy)

    def __str__(self) -> str:
        fault, remedy = self.args
        return f"{fault}\n  {remedy}" if remedy else str(fault)


class RequestTimeout(BaseException):
    """Raised in an application that has given no sign of life for --request-timeout.

    Not an Exception, so that `except Exception` in the application does not hide it.
    """


class ConfigError(PoolsrvError):
    """An option is unknown, or its value is not allowed."""

    status = 2


class ApplicationError(PoolsrvError):
    """The application cannot be loaded. The message ends with the user's own traceback, if any."""

    status = 3


class MachineError(PoolsrvError):
    """The kernel refuses what the server cannot do without."""

    status = 5


class ListenError(PoolsrvError):
    """An address is in use or cannot be bound."""

    status = 4


class SuccessionError(PoolsrvError):
    """Another supervisor has started this one to take its place, and that cannot be."""

    status = 5


class ControlError(PoolsrvError):
    """A running server cannot be asked, or refuses what it was asked for."""

    status = 5
