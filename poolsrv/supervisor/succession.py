"""A supervisor's ends to the one that is to take its place, and to the one whose place it takes.

Supervisor only. What follows from what they say is the pool's decision; the words
themselves are poolsrv.between.handover's. A supervisor that has left says once a second what its
counters are by now, and a last time at its end.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from poolsrv import _core
from poolsrv.between import handover, totals
from poolsrv.between.handover import Hello, Inheritance, Ready, TakeOver, Totals, Word
from poolsrv.between.scoreboard import Reader
from poolsrv.system import processes
from poolsrv.system.sockets import channel_pair

# How often a server that has left its place says what it counts, in seconds; and how soon
# it says once more what could not be said.
_SAY_TOTALS = 1.0
_SAY_AGAIN = 0.05


class Counting:
    """What a server that has left its place says of its counters.

    Made before it leaves: of what could fail, nothing is left to do then.
    """

    def __init__(self, board_fd: int, channel: socket.socket) -> None:
        """Raises OSError."""
        self._reader = Reader(board_fd)
        self._channel = channel
        self._word: TakeOver | Totals = Totals()
        self._next = 0.0

    def deadline(self) -> float:
        return self._next

    def begin(self, word: TakeOver, now: float) -> None:
        """Say that the place is free, now or as soon as it can be said."""
        self._word = word
        self.tick(now)

    def tick(self, now: float) -> None:
        """Say what there is to say, if it is time."""
        if now < self._next:
            return
        try:
            self._say(self._word)
        except OSError:
            # The other side has ended, which is heard anyway; or the machine is short of
            # something: then nobody serves before this is said.
            self._next = now + _SAY_AGAIN
            return
        self._word = Totals()
        self._next = now + _SAY_TOTALS

    def end(self) -> None:
        """Say it a last time. Raises OSError if nobody is there."""
        self._say(Totals())

    def _say(self, word: TakeOver | Totals) -> None:
        """With all counters as they are now; to serve is more than to count."""
        try:
            self._say_totals(word)
        except OSError:
            if isinstance(word, Totals):
                raise
            handover.send(self._channel, word)

    def _say_totals(self, word: TakeOver | Totals) -> None:
        file = os.memfd_create("poolsrv-totals", os.MFD_CLOEXEC)
        try:
            os.pwrite(file, totals.write(self._reader.read(time.monotonic_ns())), 0)
            handover.send(self._channel, word, [file])
        finally:
            os.close(file)


class Successor:
    """The supervisor that we have executed. `fds` are what Hello says, but for the first."""

    def __init__(
        self,
        argv: list[str],
        folder: str,
        environ: dict[str, str],
        hello: Hello,
        fds: list[int],
        board_fd: int,
    ) -> None:
        """Raises OSError."""
        self.ready = Ready()
        self.is_silent = False  # it has closed its end
        self.channel, theirs = channel_pair()
        self.connections, far = channel_pair()
        try:
            with theirs, far:
                self.counting = Counting(board_fd, self.channel)
                handover.send(self.channel, hello, [far.fileno(), *fds])
                self.pid = handover.execute(argv, folder, environ, theirs.fileno())
            # A child of ours that was not waited for: the pid cannot be another's.
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            self.channel.close()
            self.connections.close()
            raise

    def signal(self, number: int) -> None:
        processes.send_signal(self.pidfd, number)

    def words(self) -> Iterator[Word | None]:
        """What it has said since the last time, None at its end. Raises UpgradeError."""
        return (word for word, _ in _words(self.channel))

    def close(self) -> None:
        """Also in a child just forked."""
        self.channel.close()
        self.connections.close()
        os.close(self.pidfd)


@dataclass(slots=True)
class Predecessor:
    """The supervisor whose place we are to take, or have taken until it has ended.

    `own` makes what it has left to us ours.
    """

    channel: socket.socket
    connections: socket.socket | None  # None: it has them in a form that we do not know
    translation: tuple[int, ...]
    taken: Ready
    own: Callable[[], None]
    pid: int
    wanted: int
    has_left: bool = False

    @classmethod
    def of(
        cls,
        heir: Inheritance,
        translation: tuple[int, ...],
        taken: Ready,
        own: Callable[[], None],
    ) -> "Predecessor":
        connections = None
        if heir.hello.channel == _core.CHANNEL_VERSION:
            connections = socket.socket(fileno=heir.connections)
            heir.connections = -1
        hello = heir.hello
        return cls(heir.channel, connections, translation, taken, own, hello.pid, hello.wanted)

    def say(self, word: Word) -> None:
        """Nothing if it has ended, which is heard anyway."""
        try:
            handover.send(self.channel, word)
        except (BrokenPipeError, ConnectionResetError):
            return

    def words(self) -> Iterator[tuple[Word | None, list[int]]]:
        """What it has said since the last time, None at its end, with the descriptors that
        came along: they are closed when the next word is asked for. Raises UpgradeError.
        """
        return _words(self.channel)

    def close(self) -> None:
        """Also in a child just forked."""
        self.channel.close()
        if self.connections is not None:
            self.connections.close()


def carry(board: _core.Scoreboard, fds: list[int]) -> None:
    """Have `board` begin with the totals that came along. Raises OSError, or ValueError,
    KeyError or TypeError for what are none."""
    for fd in fds:
        totals.carry(board, os.pread(fd, os.fstat(fd).st_size, 0))


def _words(channel: socket.socket) -> Iterator[tuple[Word | None, list[int]]]:
    while True:
        try:
            word, fds = handover.receive(channel)
        except BlockingIOError:
            return
        try:
            yield word, fds
        finally:
            for fd in fds:
                os.close(fd)
        if word is None:
            return


@dataclass(frozen=True, slots=True)
class Seat:
    """What the launcher knows of the server's place. `start` executes the new supervisor;
    `leave` closes what that has taken over.
    `refusal` says why nobody can take over, if so.
    """

    start: Callable[[], Successor]
    leave: Callable[[Ready], None]
    predecessor: Predecessor | None = None
    refusal: str = ""
