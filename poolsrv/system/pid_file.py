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


class PidFile:
    """The file, written and locked until `close`."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError if it cannot be written, or is another server's."""
        self.path = str(Path(path).absolute())  # a reload may change the working folder
        try:
            self._fd = _locked(self.path)
        except OSError as error:
            raise ConfigError(
                f"--pid-file {path}: {error.strerror}", "its folder must exist and be writable"
            ) from None
        # In this order there is a number in it at any time, should another server leave it to us.
        os.ftruncate(self._fd, os.pwrite(self._fd, b"%d\n" % os.getpid(), 0))

    def leave(self) -> None:
        """Give up the lock: another server follows, and the file is its own."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """Remove it, if it is still ours."""
        if self._fd >= 0:
            if _is(self.path, self._fd):
                Path(self.path).unlink()
            self.leave()


@contextlib.contextmanager
def pid_file(path: str | None) -> Iterator[PidFile | None]:
    """A PidFile for the time of the block, if there is to be one."""
    found = None if path is None else PidFile(path)
    try:
        yield found
    finally:
        if found is not None:
            found.close()


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
