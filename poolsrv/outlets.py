"""Where lines go to that must never keep anybody waiting: logs.

A pipe that nobody reads, a terminal that was stopped and a socket whose peer
sleeps all block `write`. O_NONBLOCK is a property of the open file description,
which other programs share with us: so we open one of our own where that can be,
and ask for the single write not to wait where it cannot.
"""

import io
import os
import select
import socket
import stat
import sys
from collections.abc import Callable

# What a pipe that poll calls writable takes at once (pipe(7)).
_PIPE_BUF = 4096


def open_standard() -> None:
    """Have descriptors 0 to 2 open: what is opened later must not become standard output.

    The streams that Python could not make of them lead nowhere.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def print_lines_at_once() -> None:
    """What the application prints is written line by line.

    Python keeps 8 KiB of it back where standard output is no terminal: it would come late, and
    not at all from a process that is killed.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a program may have put what it likes there
        sys.stdout.reconfigure(line_buffering=True)


def flush_standard() -> None:
    """Write what is left of lines, before a fork copies it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue  # the application has closed it or set it to None, or nobody reads it


def unwaiting(fd: int) -> int:
    """A descriptor for what `fd` writes to that does not block; `fd` if there is no such.

    A new one is the caller's, and close-on-exec.
    """
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
            return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        return fd  # no /proc, or the pipe is another user's
    return fd


class Outlet:
    """Writes whole lines to a descriptor, or drops and counts them."""

    def __init__(self, fd: int) -> None:
        self.dropped = 0
        self._rest = b""  # of a line that was taken in part
        own = unwaiting(fd)
        self._own = own if own != fd else -1
        self._send = _way(own, waits=own == fd)

    def close(self) -> None:
        """Release what is ours; nothing is written any more."""
        if self._own >= 0:
            os.close(self._own)
            self._own = -1
        self._send = lambda _: 0

    def put(self, line: bytes) -> bool:
        """Write a line, unless that would have to wait: whether it was taken."""
        if self._rest:
            self._rest = self._rest[self._sent(self._rest) :]
        if self._rest:
            self.dropped += 1
            return False
        sent = self._sent(line)
        if sent:
            self._rest = line[sent:]
        else:
            self.dropped += 1
        return sent > 0

    def _sent(self, data: bytes) -> int:
        try:
            return self._send(data)
        except OSError:
            return 0  # full, or nobody is there any more: there is no place to say so


def _way(fd: int, waits: bool) -> Callable[[bytes], int]:
    try:
        mode = os.fstat(fd).st_mode if waits else 0
    except OSError:
        return lambda data: os.write(fd, data)
    if stat.S_ISSOCK(mode):
        # A descriptor of its own, because this object closes what it has.
        stream = socket.socket(fileno=os.dup(fd))
        return lambda data: stream.send(data, socket.MSG_DONTWAIT)
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return lambda data: _write_if_writable(fd, data)
    return lambda data: os.write(fd, data)


def _write_if_writable(fd: int, data: bytes) -> int:
    """Between the question and the write another may take the room: for a pipe, the kernel
    can be asked (from Linux 6.4 on) not to wait in that case."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(0):
        return 0
    try:
        return os.pwritev(fd, [data[:_PIPE_BUF]], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        return 0
    except OSError:
        return os.write(fd, data[:_PIPE_BUF])
