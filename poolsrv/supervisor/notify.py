"""What the supervisor tells systemd, or whoever has set NOTIFY_SOCKET: sd_notify(3).

Supervisor only. Never waits; whoever does not read is not told.
"""

import logging
import socket
import time
from collections.abc import Callable, MutableMapping

from poolsrv import operator_messages as say

_log = logging.getLogger("poolsrv")

# What the supervisor that takes our place must know; WATCHDOG_PID would say that we are meant.
_PASSED_ON = ("NOTIFY_SOCKET", "WATCHDOG_USEC")

# How often the status line is told, in seconds.
_STATUS = 10.0


class Notify:
    """Takes its variables out of the environment: they are for this process, not for
    the application's. `progress` and `describe` are asked when it is time to tell.
    """

    def __init__(self, environ: MutableMapping[str, str], pid: int, *, waits: bool = False) -> None:
        """`waits`: another process is the service's main one, until `ready` is called."""
        self.given = {name: environ[name] for name in _PASSED_ON if name in environ}
        self._silent = waits
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog = environ.pop("WATCHDOG_USEC", "")
        owner = environ.pop("WATCHDOG_PID", str(pid))
        self._socket: socket.socket | None = None
        self._period: float | None = None
        self._watches = False
        if address:
            self._address = "\0" + address[1:] if address.startswith("@") else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._period = _STATUS
            if watchdog.isdecimal() and owner == str(pid):
                self._watches = True
                # Half of it, as sd_watchdog_enabled(3) advises.
                self._period = min(_STATUS, int(watchdog) / 2e6)
        self._next = 0.0

    def deadline(self) -> float | None:
        """When `tick` should be called next."""
        return None if self._period is None or self._silent else self._next

    def tick(self, now: float, progress: Callable[[], bool], describe: Callable[[], str]) -> None:
        """Tell how it goes, if it is time."""
        if self._period is None or self._silent or now < self._next:
            return
        self._next = now + self._period
        moves = progress()
        self._tell(f"STATUS={describe()}", *(["WATCHDOG=1"] if self._watches and moves else []))

    def ready(self) -> None:
        """It serves: for the first time, or after a reload, whatever came of that."""
        self._silent = False
        self._tell("READY=1")

    def succeeded_by(self, pid: int) -> None:
        """That process is the service from now on; we are silent."""
        # One message: it is taken from us because we are the main process still.
        self._tell(f"MAINPID={pid}", "READY=1")
        self._silent = True

    def reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _tell(self, *lines: str) -> None:
        if self._socket is None or self._silent:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _log.warning(say.MANAGER_UNREACHABLE, lines[0], error)
