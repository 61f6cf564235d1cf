"""`poolsrv.once(name)`: what only one of all workers should do.

The names that were asked for stand in a file in memory that all processes of a
server share, of all generations; it is gone when the server is. A lock of
fcntl(2) guards it, which ends with its owner: nobody waits for a dead worker.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

LONGEST_NAME = 200
MOST_BYTES = 2**20

# Beyond all names: who holds it runs what must be done before anything else.
_START = 2**40

_SERVICE_START = "poolsrv: service start"


class _Process:
    # fcntl's locks are the process's, so its threads need one of their own.
    guard: AbstractContextManager[object] = threading.Lock()


# The files of the servers of this process, the newest last: a process of a server has one,
# a program may run several in itself (poolsrv.running).
_servers: list[int] = []


class _Thread(threading.local):
    fd = -1  # of the server whose requests this thread serves, where there may be several


_thread = _Thread()


def make() -> int:
    """A new file, for a server that starts."""
    return os.memfd_create("poolsrv-once")


def attach(fd: int) -> None:
    """In a worker or a template: this is the server's. In a program: that of one more server."""
    _servers.append(fd)


def attach_thread(fd: int) -> None:
    """The calling thread serves the requests of this server."""
    _thread.fd = fd


def share_process(guard: AbstractContextManager[object]) -> None:
    """Other interpreters of this process ask as well, with the same guard."""
    _Process.guard = guard


def detach(fd: int) -> None:
    """The server is gone."""
    _servers.remove(fd)


def _file() -> int:
    if _thread.fd >= 0:
        return _thread.fd
    return _servers[-1] if _servers else -1


def once(name: str) -> bool:
    """True for the first who asks with this name, of all threads and workers of the server.

    A reload, a recycled worker or a crash changes nothing: to be asked anew, a name must be
    another. What the first one then does may still fail; nobody else is told. Raises
    ValueError for a name that is empty, longer than 200 characters or has line ends, and when
    all names together exceed a MiB; RuntimeError outside of a worker.
    """
    if not name or len(name) > LONGEST_NAME or "\n" in name:
        raise ValueError(f"a name has 1 to {LONGEST_NAME} characters and no line end")
    with _locked(0):
        return _add(name)


def at_service_start(call: Callable[[], None]) -> None:
    """Run it, unless it has been run; meanwhile all who come here wait. If it fails it has not."""
    with _locked(_START):
        if not _has(_SERVICE_START):
            call()
            with _locked(0):
                _add(_SERVICE_START)


def _has(name: str) -> bool:
    return name.encode() in _names().split(b"\n")


def _names() -> bytes:
    return os.pread(_file(), MOST_BYTES, 0)


def _add(name: str) -> bool:
    if _has(name):
        return False
    fd, line = _file(), name.encode() + b"\n"
    end = os.fstat(fd).st_size
    if end + len(line) > MOST_BYTES:
        raise ValueError("there are too many names; once() is not for names that never end")
    os.pwrite(fd, line, end)
    return True


@contextmanager
def _locked(start: int) -> Iterator[None]:
    fd = _file()
    if fd < 0:
        raise RuntimeError("once() is for workers of poolsrv; this process is none")
    guard = _Process.guard if start == 0 else threading.Lock()
    with guard:
        try:
            # In here: a time limit may strike behind any call. To unlock what is not ours
            # does nothing.
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, start)
            yield
        finally:
            fcntl.lockf(fd, fcntl.LOCK_UN, 1, start)
