"""What one supervisor says to the one that takes its place, and how that finds it.

Used by supervisors only; the two may be of different releases, and run on different
Pythons. One JSON object a message on a SOCK_SEQPACKET pair, whose other end the new
supervisor inherits; descriptors come along. A receiver ignores names that it does not
know and has defaults for those that are missing. The connections themselves go by
another pair, in C (csrc/supervisor/heir.c).
"""

import array
import contextlib
import dataclasses
import json
import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from poolsrv.errors import SuccessionError
from poolsrv.settings.addresses import Address, TcpAddress, parse_address
from poolsrv.settings.mounts import DEFAULT_GROUP

# Of the meaning of these messages; one that says another is not understood.
VERSION = 1

# "FD:PID": our end of the pair, and who has started us. It is taken out of the environment
# before anything else is: no process of the application sees it.
VARIABLE = "_POOLSRV_PREDECESSOR"

# Bytes of a message. What is longer, the totals, comes as a file in memory.
_BYTES = 1 << 17

# Descriptors a message: the kernel allows 253.
MOST_DESCRIPTORS = 250

# Groups a message: each has three descriptors.
_MOST_GROUPS = 80


@dataclass(frozen=True, slots=True)
class Hello:
    """Old: all that is handed over. Its descriptors come along, in this order: the pair for
    connections, the file of poolsrv.once, the table of
    poolsrv.shared, `listeners`, then those of `admin` and `control`
    if they are not None.

    Addresses are as the settings write them. `files` is the soft limit of open files that
    the server was started with; `channel` says in which form connections come. Of several
    groups of processes this is said of the first, which is named `group` and has these
    `bound` of the listeners; `more` messages about the others follow at once.
    """

    pid: int = 0
    generation: int = 0
    processes: int = 0
    wanted: int = 0
    files: int = 0
    channel: int = 0
    listeners: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)  # by the service manager
    admin: str | None = None
    control: str | None = None  # the path
    group: str = DEFAULT_GROUP
    bound: list[str] | None = None  # None: all listeners
    more: int = 0


@dataclass(frozen=True, slots=True)
class Groups:
    """Old: other groups of processes. `groups` has for each the fields of a Heritage that are
    no descriptors; these come along, three for each, in the same order."""

    groups: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ready:
    """New: all workers are ready. It has taken these listeners, by index, and these sockets;
    and it goes on with these groups of processes, None: with the only one. Its pid file is to
    be this path."""

    listeners: list[int] = field(default_factory=list)
    admin: bool = False
    control: bool = False
    groups: list[str] | None = None
    pid_file: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """New: it will not serve; `text` says why."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Old: serve from now on. `reload`: and load the code once more, it may be newer.
    `groups` says of each how many workers it has; of the first that is `wanted`, too. Totals
    come along."""

    wanted: int = 0
    reload: bool = False
    groups: dict[str, int] = field(default_factory=dict)
    counted: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Totals:
    """Old: what all counters are now. A descriptor of a file with them comes along for each of
    the groups `counted`; if none is named, for the first group."""

    counted: list[str] = field(default_factory=list)


Word = Hello | Groups | Ready | Failed | TakeOver | Totals
_KINDS: Mapping[str, type[Word]] = {
    kind.__name__: kind for kind in (Hello, Groups, Ready, Failed, TakeOver, Totals)
}


@dataclass(slots=True)
class Heritage:
    """What there is of a group of processes. `bound` are the listeners by which connections
    come to it. The descriptors are -1 once somebody has taken them."""

    name: str = DEFAULT_GROUP
    generation: int = 0
    processes: int = 0
    wanted: int = 0
    bound: list[str] = field(default_factory=list)
    connections: int = -1
    once: int = -1
    shared: int = -1

    @property
    def descriptors(self) -> list[int]:
        """In the order in which they are sent."""
        return [self.connections, self.once, self.shared]

    def workers(self, configured: int) -> int:
        """How many are wanted: as many as the other server was scaled to, unless the settings
        have changed."""
        same = configured == self.processes
        return self.wanted if same and self.wanted else configured

    def take(self, name: str) -> int:
        """That descriptor; it is the caller's from now on."""
        fd: int = getattr(self, name)
        setattr(self, name, -1)
        return fd

    def close(self) -> None:
        for name in ("connections", "once", "shared"):
            if (fd := self.take(name)) >= 0:
                os.close(fd)


def send(channel: socket.socket, word: Word, fds: Sequence[int] = ()) -> None:
    """Raises OSError if the other side is gone, or reads nothing."""
    words = {"version": VERSION, "word": type(word).__name__, **dataclasses.asdict(word)}
    socket.send_fds(channel, [json.dumps(words).encode()], list(fds))


def receive(channel: socket.socket) -> tuple[Word | None, list[int]]:
    """The next word and its descriptors, which are the caller's; None at the end.

    Raises BlockingIOError if nothing is there, SuccessionError for what is not understood.
    """
    got = array.array("i")
    room = socket.CMSG_SPACE(MOST_DESCRIPTORS * got.itemsize)
    try:
        body, ancillary, flags, _ = channel.recvmsg(_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:  # it has ended with words of ours unread
        return None, []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            got.frombytes(data[: len(data) - len(data) % got.itemsize])
    fds = list(got)
    if not body:
        return None, fds
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise SuccessionError("a message between two supervisors was cut short")
        return _parse(body), fds
    except SuccessionError:
        for fd in fds:
            os.close(fd)
        raise


def _parse(body: bytes) -> Word:
    try:
        words: dict[str, Any] = json.loads(body)
        version, kind = words["version"], _KINDS[words["word"]]
    except (ValueError, KeyError, TypeError) as error:
        raise SuccessionError(f"no message between two supervisors: {error!r}") from None
    if version != VERSION:
        raise SuccessionError(
            f"the other supervisor speaks version {version} of the handover, this one {VERSION}",
            "stop the server and start the new one",
        )
    known = {each.name for each in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in words.items() if name in known})


@dataclass(slots=True)
class Inheritance:
    """In a supervisor that takes another's place: what that has handed over.

    Whoever takes a descriptor out owns it; `close` closes those that nobody wanted.
    """

    channel: socket.socket
    hello: Hello
    groups: list[Heritage]  # the first one first
    listeners: list[int]
    admin: int | None
    control: int | None

    def listener(self, address: object) -> int | None:
        """The listening socket of that address, once; None if the other one had none."""
        for index, (given, fd) in enumerate(zip(self.hello.listeners, self.listeners, strict=True)):
            if given == str(address) and fd >= 0:
                self.listeners[index] = -1
                return fd
        return None

    def passed(self) -> tuple[Address, ...]:
        """The sockets that a service manager has passed to the first of us."""
        usual = TcpAddress("127.0.0.1", 0)
        return tuple(parse_address(given, usual) for given in self.hello.passed)

    def refuse(self, text: str) -> None:
        """Say that we do not start, and why."""
        try:
            send(self.channel, Failed(text))
        except OSError:
            return  # it has ended as well

    def group(self, name: str) -> Heritage | None:
        """What there is of a group of that name."""
        return next((group for group in self.groups if group.name == name), None)

    def take_admin(self, address: object) -> int | None:
        if self.hello.admin != str(address):
            return None
        fd, self.admin = self.admin, None
        return fd

    def take_control(self) -> int | None:
        fd, self.control = self.control, None
        return fd

    def close_rest(self) -> None:
        """What nobody has wanted."""
        for group in self.groups:
            group.close()
        for fd in [*self.listeners, self.admin, self.control]:
            if fd is not None and fd >= 0:
                os.close(fd)
        self.listeners, self.admin, self.control = [], None, None

    def close(self) -> None:
        self.close_rest()
        self.channel.close()


def inherit(environ: MutableMapping[str, str]) -> Inheritance | None:
    """What we are to take over, if another supervisor has executed us for that.

    Raises SuccessionError if it cannot be understood.
    """
    given = environ.pop(VARIABLE, "")
    fd, _, sender = given.partition(":")
    if not fd.isdecimal():
        return None
    # Not the parent's pid is asked for: it may have ended by now, and then we must not serve.
    try:
        channel = socket.socket(fileno=int(fd))
    except OSError:
        raise SuccessionError(
            f"{VARIABLE} names no socket", "take it out of the environment"
        ) from None
    channel.set_inheritable(False)
    channel.setblocking(False)  # it was sent before we were executed
    fds: list[int] = []
    try:
        hello, fds = receive(channel)
        if not isinstance(hello, Hello) or str(hello.pid) != sender:
            raise SuccessionError("the supervisor that has started this one said nothing")
        heir = _inheritance(channel, hello, fds)
        fds = []
        try:
            for _ in range(hello.more):
                heir.groups += _groups(channel)
        except (BlockingIOError, SuccessionError, StopIteration):
            heir.close()
            raise
        return heir
    except (BlockingIOError, SuccessionError, StopIteration) as error:
        channel.close()
        for left in fds:
            os.close(left)
        if isinstance(error, SuccessionError):
            raise
        raise SuccessionError("the supervisor that has started this one said too little") from None


def refuse(environ: MutableMapping[str, str], text: str) -> None:
    """We do not start: if another supervisor has executed us, it hears why."""
    try:
        heir = inherit(environ)
    except SuccessionError:
        return  # it will not understand us either
    if heir is not None:
        heir.refuse(text)
        heir.close()


def _inheritance(channel: socket.socket, hello: Hello, fds: list[int]) -> Inheritance:
    rest = iter(fds)
    first = Heritage(
        hello.group,
        hello.generation,
        hello.processes,
        hello.wanted,
        hello.listeners if hello.bound is None else hello.bound,
        *(next(rest) for _ in range(3)),
    )
    return Inheritance(
        channel,
        hello,
        groups=[first],
        listeners=[next(rest) for _ in range(len(hello.listeners))],
        admin=next(rest) if hello.admin is not None else None,
        control=next(rest) if hello.control is not None else None,
    )


def _groups(channel: socket.socket) -> list[Heritage]:
    word, fds = receive(channel)
    known = {each.name for each in dataclasses.fields(Heritage)}
    try:
        if not isinstance(word, Groups) or len(fds) != 3 * len(word.groups):
            raise SuccessionError("the supervisor that has started this one said too little")
        given = [{name: fact[name] for name in fact if name in known} for fact in word.groups]
        found = [Heritage(**facts) for facts in given]
    except SuccessionError:
        for fd in fds:
            os.close(fd)
        raise
    for group, fd in zip(found, range(0, len(fds), 3), strict=True):
        group.connections, group.once, group.shared = fds[fd : fd + 3]
    return found


def send_groups(
    channel: socket.socket, hello: Hello, groups: Sequence[Heritage], others: Sequence[int]
) -> None:
    """All that is handed over; `others` are the descriptors of listeners and sockets. Those
    of the groups stay the caller's. Raises OSError."""
    first, *rest = groups
    parts = [rest[at : at + _MOST_GROUPS] for at in range(0, len(rest), _MOST_GROUPS)]
    hello = dataclasses.replace(
        hello,
        generation=first.generation,
        processes=first.processes,
        wanted=first.wanted,
        group=first.name,
        bound=first.bound,
        more=len(parts),
    )
    send(channel, hello, [*first.descriptors, *others])
    for part in parts:
        facts = [
            {name: getattr(group, name) for name in ("name", "generation", "processes")}
            | {"wanted": group.wanted, "bound": group.bound}
            for group in part
        ]
        send(channel, Groups(facts), [fd for group in part for fd in group.descriptors])


def execute(argv: list[str], folder: str, environ: Mapping[str, str], ours: int) -> int:
    """Start the new supervisor, with `ours` as its end of the pair; its pid. Raises OSError."""
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(folder)
        os.set_inheritable(ours, True)
        given = {**environ, VARIABLE: f"{ours}:{os.getpid()}"}
        return os.posix_spawn(argv[0], argv, given, setsigmask=())
    finally:
        os.set_inheritable(ours, False)
        # If there is no way back we stay: what is loaded here begins with a folder of its
        # own, and a process that has been started must not become one that nobody knows.
        with contextlib.suppress(OSError):
            os.fchdir(here)
        os.close(here)
