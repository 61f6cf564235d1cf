"""The control socket: where it is, and what is said on it.

A command is one line of JSON, and so is its answer; a connection carries one of
each, and an answer may carry a descriptor. Used by the server (in the
supervisor) and by the commands of the command line that ask it. Only the
server's user and root may connect.
"""

import array
import errno
import json
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poolsrv.errors import ControlError

# Of the words on the socket. A server answers its own version and no other.
VERSION = 1

# Bytes of a command; an answer has no limit.
LONGEST_COMMAND = 65_536

# Descriptors of an answer: the kernel allows 253.
MOST_DESCRIPTORS = 250

_NAMES = "poolsrv-*.sock"

# (pid, uid, gid) of the peer: unix(7).
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Command:
    """What a client asks for."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        words = {"version": VERSION, "command": self.name, "arguments": dict(self.arguments)}
        return json.dumps(words).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> "Command":
        """Raises ControlError if it is none that we understand."""
        try:
            words = json.loads(line)
            version, name, arguments = words["version"], words["command"], words["arguments"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ControlError("this is no command of poolsrv") from None
        if version != VERSION:
            raise ControlError(
                f"the command is of version {version}, the server understands {VERSION}",
                "use the poolsrv that the server runs",
            )
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise ControlError("this is no command of poolsrv")
        return cls(name, arguments)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server says. With `error` the command has failed; `fds` are the receiver's."""

    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    fds: Sequence[int] = ()

    def encode(self) -> bytes:
        words = {"version": VERSION, "error": self.error, "result": dict(self.result)}
        return json.dumps(words).encode() + b"\n"


def peer(connection: socket.socket) -> tuple[int, int]:
    """Pid and uid of the process at the other end."""
    size = _CREDENTIALS.size
    pid, uid, _ = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, uid


# Where it is


def place(given: str) -> Path:
    """The path of this process's socket; `given` is Settings.control, empty for the default.

    Raises OSError if there is no folder that is ours alone.
    """
    if given:
        return Path(given).absolute()
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        folder = os.environ.get(variable, "").partition(":")[0]
        if folder and os.access(folder, os.W_OK):
            return Path(folder) / f"poolsrv-{os.getpid()}.sock"
    private = _private_folder()
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{private} is not a folder of ours alone; remove it")
    return private / f"poolsrv-{os.getpid()}.sock"


def _private_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"poolsrv-{os.geteuid()}"


def _folders() -> Iterator[Path]:
    """Where servers of this machine may have put theirs."""
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        if folder := os.environ.get(variable, "").partition(":")[0]:
            yield Path(folder)
    yield _private_folder()
    # Services of systemd: their folders are not in a shell's environment.
    run = Path("/run")
    yield run / "user" / str(os.geteuid())
    if run.is_dir():
        yield from (folder for folder in sorted(run.iterdir()) if folder.is_dir())


def listen(path: Path) -> socket.socket:
    """Listen there, with mode 0600. Raises OSError."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        for stale in [path, *path.parent.glob(_NAMES)]:
            _remove_if_stale(stale)
        # Under its name only when it listens: else another server would take it for stale.
        unborn = path.with_name(f"{path.name}.{os.getpid()}")
        unborn.unlink(missing_ok=True)
        opened.bind(str(unborn))
        opened.listen(16)
        opened.setblocking(False)
        if path.exists():
            unborn.unlink()
            raise FileExistsError(errno.EEXIST, "there is a file or another server", str(path))
        unborn.rename(path)
    except OSError:
        opened.close()
        raise
    finally:
        os.umask(umask)
    return opened


def _remove_if_stale(path: Path) -> None:
    """A server that was killed leaves its file."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except OSError:
        return  # another's, or gone, or busy


def servers() -> list[tuple[Path, Mapping[str, Any]]]:
    """Each server that answers us: its socket, and what it says of itself."""
    found = []
    seen = set()
    for folder in _folders():
        try:
            paths = sorted(folder.glob(_NAMES))
        except OSError:
            continue
        for path in paths:
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            try:
                answer = ask(path, Command("hello"), timeout=5)
            except ControlError:
                continue  # it is gone, or another user's
            found.append((path, answer.result))
    return found


def find(given: str) -> Path:
    """The socket of the server that is meant: by path, by pid, or the only one there is.

    Raises ControlError.
    """
    if given and not given.isdecimal():
        return Path(given)
    running = servers()
    if given:
        running = [(path, about) for path, about in running if str(about.get("pid")) == given]
    if len(running) == 1:
        return running[0][0]
    if not running:
        which = f" with the pid {given}" if given else ""
        raise ControlError(
            f"no server of yours{which} is running here",
            "name its socket with --control PATH if it has one of its own",
        )
    lines = [f"\n    {about.get('pid')}  {about.get('application')}" for _, about in running]
    raise ControlError(
        "several servers are running", "name one with --control PID:" + "".join(lines)
    )


# The client's side


def ask(path: Path, command: Command, timeout: float | None = None) -> Answer:
    """The server's answer. Raises ControlError if it cannot be asked, or has failed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            connection.sendall(command.encode())
            line, fds = _receive(connection)
        except TimeoutError:
            raise ControlError(f"{path}: the server does not answer") from None
        except OSError as error:
            raise ControlError(
                f"{path}: {error.strerror}", "is the server running, and as this user?"
            ) from None
    try:
        words = json.loads(line)
        answer = Answer(words["result"], words["error"], fds)
    except (ValueError, KeyError, TypeError):
        raise ControlError(f"{path}: the server ended before it had answered") from None
    return answer


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """All that the server says, and the descriptors that came along."""
    fds = array.array("i")
    line = b""
    while True:
        data, ancillary, _, _ = connection.recvmsg(
            65536, socket.CMSG_SPACE(MOST_DESCRIPTORS * fds.itemsize), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, sent in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(sent[: len(sent) - len(sent) % fds.itemsize])
        line += data
        if not data:
            return line, list(fds)
