"""The file of the access log: opened before the first fork, and anew when it was moved away.

All processes have it under one descriptor number. To open it anew is to put
another file under that number (dup2), which each process does for itself: so
the core, which writes to the number, need not know.
"""

import errno
import os
import stat
from pathlib import Path

from poolsrv.errors import ConfigError
from poolsrv.outlets import unwaiting

# A FIFO without a reader must not keep us waiting, here or later.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK

_STANDARD = {
    "-": 1,
    **dict.fromkeys(("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"), 1),
    **dict.fromkeys(("/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"), 2),
}


def open_log(place: str, owner: int | None = None) -> int:
    """A descriptor in append mode, -1 for none; `place` is Settings.access_log."""
    if place == "off":
        return -1
    if (standard := _standard(place)) is not None:
        return unwaiting(standard)
    try:
        return _open(place) if owner is None else _open_as_root(place, owner)
    except OSError as error:
        remedy = f"{Path(place).absolute().parent} must exist and be writable"
        if error.errno == errno.ENXIO:
            remedy = "nobody reads this FIFO: start its reader first"
        raise ConfigError(f"--access-log {place}: {error.strerror}", remedy) from None


def place_of(place: str) -> str:
    """The same file from any working folder; "" if it cannot be opened anew."""
    is_file = place != "off" and _standard(place) is None
    return str(Path(place).absolute()) if is_file else ""


def reopen(fd: int, place: str) -> None:
    """Put the file that is called `place` now under `fd`. Raises OSError, and keeps the old one."""
    if not place:
        return
    opened = _open(place)
    try:
        os.dup2(opened, fd, inheritable=False)
    finally:
        os.close(opened)


def _standard(place: str) -> int | None:
    """Our standard output or error, if `place` is a name of it, such as /dev/stdout.

    It must not be opened by that name: a socket cannot be, the pipe of another user's may not
    be, and of a file we would have a second position, and write over what others write.
    """
    if place in _STANDARD:
        return _STANDARD[place]
    for fd in (1, 2):
        try:
            named, ours = Path(place).stat(), os.fstat(fd)
        except OSError:
            continue  # it is to be made, or cannot be: whoever opens it will say so
        if not stat.S_ISREG(named.st_mode) and os.path.samestat(named, ours):
            return fd
    return None


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
