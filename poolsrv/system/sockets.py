"""Sockets that outlive a request: the public listeners and the channels of slots.

Made in the supervisor before anything is forked. Every descriptor is
close-on-exec and does not block. OS errors become ListenErrors that say what
to do.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poolsrv.errors import ListenError
from poolsrv.log import escape
from poolsrv.settings.addresses import Address, FdAddress, TcpAddress, UnixAddress
from poolsrv.settings.kinds import Owner
from poolsrv.settings.rows import DEFAULTS

# Room for messages that a worker has not read yet: by default (208 KiB) the kernel
# takes 167 of 528 bytes (the words for 64 connections), with this 1639: a worker
# whose threads all compute must not make its channel refuse. Linux caps the value
# at net.core.wmem_max, silently.
_CHANNEL_BYTES = 1 << 20

# Seconds; the least that the kernel knows.
_SILENCE = 1


@dataclass(slots=True)
class Listener:
    """A listening socket and its owner. `name` is its address as bound, for log and links."""

    socket: socket.socket
    address: Address
    name: str
    is_unix: bool
    owner: int
    file: tuple[int, int] | None = None  # of a Unix socket that is ours: which it is

    def own(self) -> None:
        """It was another server's: the file of a Unix socket is ours from now on."""
        if isinstance(self.address, UnixAddress):
            self.file = _identity(Path(self.address.path))

    def leave(self) -> None:
        """Close it; the file is another server's from now on."""
        self.socket.close()

    def close(self) -> None:
        """Close it; the owner also removes the file of a Unix socket that is ours."""
        was_open = self.socket.fileno() >= 0
        self.socket.close()
        if was_open and os.getpid() == self.owner and isinstance(self.address, UnixAddress):
            file = Path(self.address.path)
            # A successor may have put its own in the same place.
            if self.file is not None and _identity(file) == self.file:
                file.unlink(missing_ok=True)


def open_listener(
    address: Address,
    backlog: int,
    unix_mode: int = DEFAULTS.unix_mode,
    unix_owner: Owner | None = DEFAULTS.unix_owner,
    *,
    option: str = "--bind",
    both_families: bool = True,
) -> Listener:
    """Bind and listen; the file of a Unix socket gets this mode and owner. Raises ListenError.

    `option` is where the address comes from, for the remedy. `both_families`: an
    address that stands for all of IPv6 takes connections of IPv4 as well.
    """
    match address:
        case TcpAddress():
            opened = _listen_tcp(address, backlog, option, both_families)
        case UnixAddress():
            opened = _listen_unix(address, backlog, unix_mode, unix_owner)
            # The working directory may be another when it is closed.
            address = UnixAddress(str(Path(address.path).absolute()))
        case FdAddress():
            opened = _adopt(address)
    opened.setblocking(False)
    listener = _listener(opened, address)
    listener.own()
    return listener


def inherit_listener(fd: int, address: Address) -> Listener:
    """That of another server, which we follow; its file is not ours before `own`."""
    if isinstance(address, UnixAddress):
        address = UnixAddress(str(Path(address.path).absolute()))
    return _listener(socket.socket(fileno=fd), address)


def _listener(opened: socket.socket, address: Address) -> Listener:
    is_unix = opened.family == socket.AF_UNIX
    return Listener(opened, address, _name(opened), is_unix, os.getpid())


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a channel: ordered messages, each whole or not at all."""
    kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    ends = socket.socketpair(socket.AF_UNIX, kind)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CHANNEL_BYTES)
    return ends


def _listen_tcp(
    address: TcpAddress, backlog: int, option: str, both_families: bool
) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ListenError(
            f"{address}: the host is not known: {error.strerror}",
            f"give a name or an address of this machine with {option}",
        ) from None
    # A name that has addresses of both families, such as localhost, means the one
    # that clients of either find: those of IPv6 try IPv4 next.
    family, kind, protocol, _, target = min(found, key=lambda info: info[0] != socket.AF_INET)
    opened = socket.socket(family, kind, protocol)
    try:
        # A restart must not wait for connections of the last one in TIME_WAIT.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it on Linux: one call less for each.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The kernel tells of a connection when its first bytes are here. To be told before
        # costs a wake-up, an accept and two epoll_ctl for nothing: 0.4 of all that a connection
        # with one small request takes. After a second of silence it tells anyway.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _SILENCE)
        if family == socket.AF_INET6:
            # Platforms tell to bind `[::]`, and mean all; beside `0.0.0.0` it is IPv6 only.
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both_families)
        opened.bind(target)
        opened.listen(backlog)
    except OSError as error:
        opened.close()
        fault, remedy = _tcp_reason(error, address.port, option)
        raise ListenError(f"{address}: {fault}", remedy) from None
    return opened


def _tcp_reason(error: OSError, port: int, option: str) -> tuple[str, str]:
    """Fault and remedy."""
    another = f"give another address with {option}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"the address is in use{_holders(port)}", f"stop that, or {another}"
        case errno.EACCES:
            return f"port {port} is privileged", (
                "give a higher one, grant CAP_NET_BIND_SERVICE, or lower the sysctl "
                f"net.ipv4.ip_unprivileged_port_start to {port}"
            )
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address", "`ip address` lists those it has"
        case errno.EAFNOSUPPORT:
            return "this kernel has no IPv6", f"{another}, such as 0.0.0.0:{port}"
    return os.strerror(error.errno or 0), another


def _listen_unix(
    address: UnixAddress, backlog: int, mode: int, owner: Owner | None
) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(address)
        _bind_unix(opened, address.path, mode, owner)
        opened.listen(backlog)
    except OSError as error:
        opened.close()
        raise ListenError(
            f"{address}: {error.strerror}", "check the folder and its owner"
        ) from None
    except ListenError:
        opened.close()
        raise
    return opened


def _bind_unix(opened: socket.socket, path: str, mode: int, owner: Owner | None) -> None:
    """Nobody but us may connect until the file has its owner and then its mode."""
    umask = os.umask(0o177)
    try:
        opened.bind(path)
    finally:
        os.umask(umask)
    # Whoever may write to the folder could put a link in its place meanwhile: owner
    # and mode go to the file that is found once, if that is a socket of ours.
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
            raise ListenError(
                f"unix:{path}: another file has taken the place of the socket",
                "choose a folder that only the server's user may write to",
            )
        _set_owner_and_mode(fd, path, mode, owner)
    finally:
        os.close(fd)


def _set_owner_and_mode(fd: int, path: str, mode: int, owner: Owner | None) -> None:
    file = f"/proc/self/fd/{fd}"
    if not Path(file).exists():  # without /proc the path must do
        file = path
    if owner is not None:
        try:
            os.chown(file, owner.uid, owner.gid)
        except OSError as error:
            Path(path).unlink()
            raise ListenError(
                f"unix:{path}: cannot be given to {owner}: {error.strerror}",
                "only root gives files away; others may give them to a group of their own",
            ) from None
    Path(file).chmod(mode)


def _remove_stale(address: UnixAddress) -> None:
    """Remove the socket file of a server that is gone; refuse one that is alive."""
    path = Path(address.path)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(
            f"{address}: there is a file in this place", "remove it or give another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        refused = probe.connect_ex(address.path) == errno.ECONNREFUSED
    if not refused:
        raise ListenError(
            f"{address}: another process listens there", "stop it or give another path"
        )
    path.unlink(missing_ok=True)


def _adopt(address: FdAddress) -> socket.socket:
    try:
        opened = socket.socket(fileno=address.fd)
        kind = opened.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        listens = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        fits = kind == socket.SOCK_STREAM and listens and opened.family in families
    except OSError:
        raise ListenError(
            f"{address}: no socket was inherited as this descriptor",
            "the program that starts poolsrv must open it, as systemd does with a .socket unit",
        ) from None
    if not fits:
        opened.detach()
        raise ListenError(
            f"{address}: the descriptor is no stream socket that listens",
            "it must be bound and listening before poolsrv starts",
        )
    opened.set_inheritable(False)
    if opened.family != socket.AF_UNIX:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def _name(opened: socket.socket) -> str:
    bound = opened.getsockname()
    if isinstance(bound, tuple):
        return str(TcpAddress(*bound[:2]))
    # One without a file, which a service manager may pass, begins with a NUL: unix(7).
    name = os.fsdecode(bound)
    return str(UnixAddress(f"@{name[1:]}" if name.startswith("\0") else name))


def _holders(port: int) -> str:
    """` by pid 12 (python app.py)`, or nothing: other users' processes are closed to us."""
    pids = sorted(_pids_of(set(_listening_inodes(port))))
    if not pids:
        return ""
    # The oldest of them, as a rule, has forked the others.
    return f"; it may be held by pid {pids[0]} ({_command(pids[0])})"


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it is gone by now
        return "already gone"
    return escape(os.fsdecode(b" ".join(words).strip()))[:80]


def _listening_inodes(port: int) -> Iterator[str]:
    # proc(5): columns local_address (hexadecimal, host:port), st (0A is LISTEN) and inode.
    for table in filter(Path.exists, (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))):
        for line in table.read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                yield words[9]


def _pids_of(inodes: set[str]) -> Iterator[int]:
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(str(fd.readlink()) in links for fd in (process / "fd").iterdir()):
                yield int(process.name)
        except OSError:  # it is gone by now, or another user's
            continue
