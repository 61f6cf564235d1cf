"""The file of the access log: opened before the first fork, and anew when it was moved away.

All processes have it under one descriptor number. To open it anew is to put
another file under that number (dup2), which each process does for itself: so
the core, which writes to the number, need not know.
"""

import errno
import os
from pathlib import Path

from poolsrv.errors import ConfigError
from poolsrv.outlets import unwaiting

# A FIFO without a reader must not keep us waiting, here or later.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK


def open_log(place: str, owner: int | None = None) -> int:
    """A descriptor in append mode, -1 for none; `place` is Settings.access_log."""
    if place == "off":
        return -1
    if place == "-":
        return unwaiting(1)
    try:
        return _open(place) if owner is None else _open_as_root(place, owner)
    except OSError as error:
        remedy = f"{Path(place).absolute().parent} must exist and be writable"
        if error.errno == errno.ENXIO:
            remedy = "nobody reads this FIFO: start its reader first"
        raise ConfigError(f"--access-log {place}: {error.strerror}", remedy) from None


def place_of(place: str) -> str:
    """The same file from any working folder; "" if it cannot be opened anew."""
    return "" if place in ("off", "-") else str(Path(place).absolute())


def reopen(fd: int, place: str) -> None:
    """Put the file that is called `place` now under `fd`. Raises OSError, and keeps the old one."""
    if not place:
        return
    opened = _open(place)
    try:
        os.dup2(opened, fd, inheritable=False)
    finally:
        os.close(opened)


def _open_as_root(place: str, owner: int) -> int:
    """The same for root, whose workers are another user's: a new file is that user's.

    The folder may be too: what was put there is neither followed nor given away.
    """
    try:
        fd = os.open(place, _FLAGS | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, 0o640)
    except FileExistsError:
        return os.open(place, _FLAGS | os.O_NOFOLLOW)
    os.fchown(fd, owner, -1)
    return fd


def _open(place: str) -> int:
    return os.open(place, _FLAGS | os.O_CREAT, 0o640)
