"""What the supervisor and a template say to each other.

One JSON object a message on a SOCK_SEQPACKET pair; a message that announces a
worker carries its pidfd. What a template says names its generation. The
supervisor never waits: what it has to say fits a few messages, however many
workers there are. A template may, until the supervisor has read.
"""

import array
import dataclasses
import json
import os
import signal
import socket
from dataclasses import dataclass

# How the supervisor ends the exporter. Not SIGTERM: an init system sends that to
# all processes, and until the last request is done somebody may want to look.
END_EXPORTER = signal.SIGUSR2

# Characters of a traceback that a message has room for.
LONGEST_TEXT = 16_000

# JSON writes some characters as twelve ("\\ud83d\\ude00"); a socket buffer takes 212,960.
_BYTES = 12 * LONGEST_TEXT + 1024


class Malformed(Exception):
    """A message that is none of ours; it is dropped, with its descriptors."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Supervisor: start a worker in each of these slots."""

    slots: list[int]


@dataclass(frozen=True, slots=True)
class Quit:
    """Supervisor: no more workers; end when the last has ended."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """Supervisor: open the access log anew, for the workers to come."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Template: ready to fork."""

    generation: int


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """Template: the application could not be loaded. At most LONGEST_TEXT characters."""

    generation: int
    text: str


@dataclass(frozen=True, slots=True)
class Spawned:
    """Template: a worker was started; its pidfd comes along."""

    generation: int
    slot: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """Template: a worker could not be started; another order may be carried out."""

    generation: int
    slot: int
    text: str


Message = Spawn | Quit | Reopen | Loaded | LoadFailed | Spawned | SpawnFailed
_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (Spawn, Quit, Reopen, Loaded, LoadFailed, Spawned, SpawnFailed)
}


def send(channel: socket.socket, message: Message, fd: int | None = None) -> None:
    """Send one message. Raises OSError if the other side is gone."""
    body = json.dumps([type(message).__name__, dataclasses.asdict(message)]).encode()
    socket.send_fds(channel, [body], [] if fd is None else [fd])


def receive(channel: socket.socket) -> tuple[Message | None, int | None]:
    """The next message and its descriptor, which is the caller's; (None, None) at the end.

    Raises BlockingIOError if nothing is there yet, Malformed if what was there is
    no message of ours or was cut short. A worker's pidfd is missing (None) if this
    process had no descriptor left for it.
    """
    fds = array.array("i")
    # CMSG_LEN, because CMSG_SPACE rounds up to room for a second one.
    room = socket.CMSG_LEN(fds.itemsize)
    # Not socket.recv_fds: it ignores its flags, and descriptors must be born CLOEXEC.
    try:
        body, ancillary, flags, _ = channel.recvmsg(_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The other side ended with messages of ours unread. That is said once, and
        # before what it had told us.
        return receive(channel)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if not body:
        return None, None
    try:
        if flags & socket.MSG_TRUNC or (flags & socket.MSG_CTRUNC and fds):
            raise Malformed("a message between supervisor and template was cut short")
        message = _parse(body)
    except Malformed:
        for fd in fds:
            os.close(fd)
        raise
    return message, fds[0] if fds else None


def _parse(body: bytes) -> Message:
    try:
        name, fields = json.loads(body)
        return _KINDS[name](**fields)
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed(f"no message between supervisor and template: {error!r}") from None
