"""What a server listens on: opened from its settings before the first fork, and named.

Runs in the process that becomes the supervisor. Whoever opens closes: each goes on the
caller's stack.
"""

import contextlib
import dataclasses
import ipaddress
import json
import logging
import os
import socket
import sys
from collections.abc import Collection, MutableMapping
from contextlib import ExitStack
from pathlib import Path

from poolsrv import operator_messages as say
from poolsrv.between.control import listen, place
from poolsrv.errors import ListenError
from poolsrv.outlets import Outlet
from poolsrv.settings.addresses import Address, FdAddress, TcpAddress, UnixAddress
from poolsrv.settings.rows import Settings
from poolsrv.system.sockets import Listener, open_listener
from poolsrv.worker.serving import Site

_log = logging.getLogger("poolsrv")


def open_bound(
    stack: ExitStack, address: Address, settings: Settings, backlog: int, option: str = "--bind"
) -> Listener:
    listener = open_listener(
        address,
        backlog,
        settings.unix_mode,
        settings.unix_owner,
        option=option,
        both_families=takes_both(address, settings.bind),
    )
    stack.callback(listener.close)
    return listener


# How many ports are tried for an admin address that is flexible.
ADMIN_PORTS = 16


def open_admin(stack: ExitStack, settings: Settings) -> Listener | None:
    """The listener of the exporter, if there is to be one.

    An address that nobody has asked for must not keep the server from starting:
    the next free port will do, or none.
    """
    address = settings.admin
    if address is None:
        return None
    if not (isinstance(address, TcpAddress) and address.is_flexible):
        return open_bound(stack, address, settings, 64, "--admin")
    for port in range(address.port, address.port + ADMIN_PORTS):
        try:
            admin = open_bound(stack, TcpAddress(address.host, port), settings, 64, "--admin")
        except ListenError as error:
            reason = error
            continue
        if port != address.port:
            _log.warning(
                say.ADMIN_MOVED,
                address.port,
                port,
            )
        return admin
    _log.warning(say.NO_ADMIN, " ".join(str(reason).split()))
    return None


def describe_reach(listeners: list[Listener]) -> str:
    """A note for who wonders why no other machine gets through, where that is so."""
    local = [
        not listener.is_unix and ipaddress.ip_address(listener.socket.getsockname()[0]).is_loopback
        for listener in listeners
    ]
    if not all(local):
        return ""
    return "; it is reached from this machine only (--bind 0.0.0.0:8000 opens it to others)"


def announce(settings: Settings, listeners: list[Listener], admin: Listener | None) -> None:
    """Print the addresses of a server that serves, for people and programs."""
    places = [("application", url_of(listener)) for listener in listeners]
    if admin is not None:
        places += [("metrics", f"{url_of(admin)}/metrics"), ("status", f"{url_of(admin)}/")]
    if settings.log_format == "json":
        lines = [json.dumps({name: place}) for name, place in places]
    else:
        lines = [f"{name} {place}" for name, place in places]
    text = "".join(f"{line}\n" for line in lines)
    output = Outlet(1)
    if not output.put(os.fsencode(text)):
        _log.warning(say.STDOUT_FULL, ", ".join(lines))
    output.close()
    if sys.stderr.isatty():
        _log.info(say.CTRL_C, describe_reach(listeners))


def takes_both(address: Address, bind: tuple[Address, ...]) -> bool:
    """Does `[::]` take connections of IPv4 too? Unless another address has that port there."""
    return not any(
        isinstance(other, TcpAddress)
        and isinstance(address, TcpAddress)
        and other.port == address.port
        and ":" not in other.host
        for other in bind
    )


def take_passed(environ: MutableMapping[str, str]) -> tuple[Address, ...]:
    """The sockets that a service manager has opened for us: sd_listen_fds(3)."""
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", "")
    if not count.isdecimal() or pid != str(os.getpid()):
        return ()
    first = 3  # SD_LISTEN_FDS_START
    return tuple(FdAddress(fd) for fd in range(first, first + int(count)))


def use_passed(settings: Settings, passed: tuple[Address, ...]) -> Settings:
    """Sockets that were passed to us take the place of the default of --bind."""
    if not passed or settings.bind != Settings().bind:
        return settings
    return dataclasses.replace(settings, bind=passed)


def close_unused(used: Collection[Address], passed: tuple[Address, ...]) -> None:
    """Those that the settings do not use: else all processes had them open, also what the
    application executes."""
    for address in passed:
        if isinstance(address, FdAddress) and address not in used:
            with contextlib.suppress(OSError):  # nothing was passed as that
                os.close(address.fd)
                _log.warning(say.PASSED_NOT_USED, address)


class ControlSocket:
    """The listener of the control socket, and its file."""

    def __init__(self, socket: socket.socket, path: Path, *, ours: bool = True) -> None:
        """`ours`: the file goes with it. One that another server has made is not, before `own`."""
        self.socket = socket
        self.path = path
        self._owner = os.getpid()
        self._file = path.stat().st_ino if ours else None

    def own(self, path: Path) -> None:
        """Another server has left it to us, to be found at this path."""
        if path != self.path:
            self.path = self.path.rename(path)
        self._file = self.path.stat().st_ino

    def leave(self) -> None:
        """Close it; the file is another server's from now on."""
        self.socket.close()
        self._file = None

    def close(self) -> None:
        self.socket.close()
        with contextlib.suppress(OSError):
            ours = os.getpid() == self._owner and self._file is not None
            if ours and self.path.stat().st_ino == self._file:
                self.path.unlink()


def open_control(stack: ExitStack, given: str) -> ControlSocket | None:
    """The listener of the control socket; a server does without rather than not start."""
    if given == "off":
        return None
    try:
        path = place(given)
        opened = ControlSocket(listen(path), path)
    except OSError as error:
        _log.warning(
            say.NO_CONTROL,
            error,
        )
        return None
    stack.callback(opened.close)
    return opened


def site_of(listener: Listener) -> Site:
    """SERVER_NAME and SERVER_PORT (RFC 3875 sections 4.1.14, 4.1.15)."""
    if listener.is_unix:
        # Neither may be empty (PEP 3333): the port is that of a URL without one.
        return Site("localhost", "80")
    host, port = listener.socket.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    elif ":" in host:
        host = f"[{host}]"  # as in a URL (RFC 3875 section 4.1.14)
    return Site(host, str(port))


def url_of(listener: Listener) -> str:
    """The address as a person or curl would open it."""
    if isinstance(listener.address, UnixAddress) or listener.is_unix:
        return listener.name
    return f"http://{listener.name}"
