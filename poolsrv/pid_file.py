"""--pid-file: which process is the supervisor, for scripts that ask a file.

The file is locked as long as its server lives, so nobody has to guess whether the
process with that number is the one that wrote it. The lock is one of fcntl(2): it
is the process's, and no child inherits it.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from poolsrv.errors import ConfigError


@contextlib.contextmanager
def pid_file(path: str | None) -> Iterator[None]:
    """Write and lock the file, and remove it at the end if it is still ours.

    Raises ConfigError if it cannot be written, or is another server's.
    """
    if path is None:
        yield
        return
    given, path = path, str(Path(path).absolute())  # a reload may change the working folder
    try:
        fd = _locked(path)
    except OSError as error:
        raise ConfigError(
            f"--pid-file {given}: {error.strerror}", "its folder must exist and be writable"
        ) from None
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        if _is(path, fd):
            Path(path).unlink()
        os.close(fd)


def _locked(path: str) -> int:
    """The open file, locked. One that a server at its end removes meanwhile does not count."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise ConfigError(
                f"--pid-file {path}: the server with pid {owner} runs",
                "stop it first, or give this one another file",
            ) from None
        if _is(path, fd):
            return fd
        os.close(fd)


def _is(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(Path(path).lstat(), os.fstat(fd))
    except FileNotFoundError:
        return False
