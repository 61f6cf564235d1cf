"""A supervisor's ends to the one that is to take its place, and to the one whose place it takes.

Supervisor only. What follows from what they say is the pool's decision; the words
themselves are poolsrv.between.handover's. A supervisor that has left says once a second what its
counters are by now, and a last time at its end.
"""

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from poolsrv import _core
from poolsrv.between import handover, totals
from poolsrv.between.handover import Hello, Heritage, Inheritance, Ready, TakeOver, Totals, Word
from poolsrv.between.scoreboard import Reader
from poolsrv.system import processes
from poolsrv.system.sockets import channel_pair

# How often a server that has left its place says what it counts, in seconds; and how soon
# it says once more what could not be said.
_SAY_TOTALS = 1.0
_SAY_AGAIN = 0.05


class Counting:
    """What a server that has left its place says of its counters. `boards` are those of its
    groups, by name.

    Made before it leaves: of what could fail, nothing is left to do then.
    """

    def __init__(self, boards: Mapping[str, int], channel: socket.socket) -> None:
        """Raises OSError."""
        self._readers = {name: Reader(fd) for name, fd in boards.items()}
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
        names = list(self._readers)
        most = handover.MOST_DESCRIPTORS
        first, *rest = (names[at : at + most] for at in range(0, len(names), most))
        for some in rest:
            self._send(Totals(), some)
        self._send(word, first)

    def _send(self, word: TakeOver | Totals, names: Sequence[str]) -> None:
        files: list[int] = []
        try:
            for name in names:
                files.append(os.memfd_create("poolsrv-totals", os.MFD_CLOEXEC))
                text = totals.write(self._readers[name].read(time.monotonic_ns()))
                os.pwrite(files[-1], text, 0)
            if len(self._readers) > 1:
                word = dataclasses.replace(word, counted=list(names))
            handover.send(self._channel, word, files)
        finally:
            for file in files:
                os.close(file)


class Successor:
    """The supervisor that we have executed. `groups` is what there is of ours, without their
    pairs for connections; `others` are the descriptors that Hello names behind those."""

    def __init__(
        self,
        argv: list[str],
        folder: str,
        environ: dict[str, str],
        hello: Hello,
        groups: Sequence[Heritage],
        others: Sequence[int],
        boards: Mapping[str, int],
    ) -> None:
        """Raises OSError."""
        self.ready = Ready()
        self.is_silent = False  # it has closed its end
        self._names = [group.name for group in groups]
        self.channel, theirs = channel_pair()
        pairs = [channel_pair() for _ in groups]
        self.connections = [ours for ours, _ in pairs]  # by group
        try:
            for group, (_, far) in zip(groups, pairs, strict=True):
                group.connections = far.fileno()
            with theirs:
                self.counting = Counting(boards, self.channel)
                handover.send_groups(self.channel, hello, groups, others)
                self.pid = handover.execute(argv, folder, environ, theirs.fileno())
            # A child of ours that was not waited for: the pid cannot be another's.
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            self._close_pairs()
            raise
        finally:
            for _, far in pairs:
                far.close()

    def takes(self, group: int) -> bool:
        """Does it go on with that group?"""
        named = self.ready.groups
        return group == 0 if named is None else self._names[group] in named

    def signal(self, number: int) -> None:
        processes.send_signal(self.pidfd, number)

    def words(self) -> Iterator[Word | None]:
        """What it has said since the last time, None at its end. Raises SuccessionError."""
        return (word for word, _ in _words(self.channel))

    def close(self) -> None:
        """Also in a child just forked."""
        self._close_pairs()
        os.close(self.pidfd)

    def _close_pairs(self) -> None:
        self.channel.close()
        for pair in self.connections:
            pair.close()


@dataclass(slots=True)
class Legacy:
    """What comes to a group of ours from one of the supervisor before, of that name."""

    name: str
    connections: socket.socket | None  # None: it has them in a form that we do not know
    translation: tuple[int, ...]
    wanted: int


@dataclass(slots=True)
class Predecessor:
    """The supervisor whose place we are to take, or have taken until it has ended.

    `legacies` are by the number of our group. `own` makes what it has left to us ours.
    """

    channel: socket.socket
    first: str  # the name of its first group
    legacies: Mapping[int, Legacy]
    taken: Ready
    own: Callable[[], None]
    pid: int
    has_left: bool = False

    @classmethod
    def of(
        cls,
        heir: Inheritance,
        groups: Mapping[int, tuple[Heritage, tuple[int, ...]]],
        taken: Ready,
        own: Callable[[], None],
    ) -> "Predecessor":
        """`groups` says of which group of its ours is the heir, and the translation of its
        listeners."""
        known = heir.hello.channel == _core.CHANNEL_VERSION
        legacies = {
            number: Legacy(
                given.name,
                socket.socket(fileno=given.take("connections")) if known else None,
                translation,
                given.wanted,
            )
            for number, (given, translation) in groups.items()
        }
        names = sorted(legacy.name for legacy in legacies.values())
        taken = dataclasses.replace(taken, groups=names)
        return cls(heir.channel, heir.groups[0].name, legacies, taken, own, heir.hello.pid)

    def say(self, word: Word) -> None:
        """Nothing if it has ended, which is heard anyway."""
        try:
            handover.send(self.channel, word)
        except (BrokenPipeError, ConnectionResetError):
            return

    def words(self) -> Iterator[tuple[Word | None, list[int]]]:
        """What it has said since the last time, None at its end, with the descriptors that
        came along: they are closed when the next word is asked for. Raises SuccessionError.
        """
        return _words(self.channel)

    def carry(
        self, word: Word | None, fds: Sequence[int], boards: Sequence[_core.Scoreboard]
    ) -> None:
        """Have `boards`, those of our groups, begin with the totals that came along with the
        word. Raises OSError, or ValueError, KeyError or TypeError for what are none."""
        if not isinstance(word, TakeOver | Totals):
            return
        numbers = {legacy.name: number for number, legacy in self.legacies.items()}
        for name, fd in zip(word.counted or [self.first], fds, strict=False):
            if name in numbers:  # else none of our groups goes on with it
                text = os.pread(fd, os.fstat(fd).st_size, 0)
                totals.carry(boards[numbers[name]], text)

    def close(self) -> None:
        """Also in a child just forked."""
        self.channel.close()
        for legacy in self.legacies.values():
            if legacy.connections is not None:
                legacy.connections.close()


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
