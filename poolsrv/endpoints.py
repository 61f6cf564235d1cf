"""All places where a server is reached, opened or taken over from the server before it.

Runs in the process that becomes the supervisor. Until that one has left its place, what
is taken over is used by both and owned by it: its files are not ours to remove.
"""

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from poolsrv import _core
from poolsrv.between.control import place
from poolsrv.between.handover import MOST_DESCRIPTORS, Hello, Inheritance, Ready
from poolsrv.errors import ConfigError
from poolsrv.listeners import ControlSocket, open_admin, open_bound, open_control
from poolsrv.settings.addresses import Address
from poolsrv.settings.groups import Group
from poolsrv.settings.rows import Settings
from poolsrv.system.pid_file import PidFile, pid_file
from poolsrv.system.sockets import Listener, inherit_listener


class Endpoints:
    """The listeners of --bind and --admin, the control socket, the pid file.

    `taken` says which of the other server's we have; what it still holds at `own` is ours.
    """

    def __init__(
        self,
        stack: ExitStack,
        settings: Settings,
        heir: Inheritance | None,
        groups: Sequence[Group] = (),
    ) -> None:
        """`groups` with listeners of their own have those; the others share --bind.

        Raises ListenError or ConfigError. What is open is closed by `stack`.
        """
        self._stack = stack
        self._settings = settings
        self._heir = heir
        self._inherited: list[Listener] = []
        self.pid_file: PidFile | None = None
        if heir is None:
            self.pid_file = stack.enter_context(pid_file(settings.pid_file))
        own = [group for group in groups if group.owns_bind]
        _refuse_twice(settings, own, len(own) < len(groups))
        self._shared: list[Listener] = []
        if len(own) < len(groups) or not groups:
            self._shared = [self._open(address, settings) for address in settings.bind]
        self._bound = {group.name: group.settings.bind for group in own}
        self._own = {
            group.name: [self._open(address, group.settings) for address in group.settings.bind]
            for group in own
        }
        self.admin = self._open_admin()
        self.control = self._open_control()

    @property
    def taken(self) -> Ready:
        """What we have of the server before us."""
        heir, given = self._heir, self._settings.pid_file
        if heir is None:
            return Ready()
        return Ready(
            [index for index, fd in enumerate(heir.listeners) if fd < 0],
            admin=heir.hello.admin is not None and heir.admin is None,
            control=heir.hello.control is not None and heir.control is None,
            pid_file=None if given is None else str(Path(given).absolute()),
        )

    @property
    def listeners(self) -> list[Listener]:
        """Those of --bind, then those that a group has for itself."""
        return [*self._shared, *chain(*self._own.values())]

    def translation(self, bound: Sequence[str], group: Group) -> tuple[int, ...]:
        """For each of these listeners of another server, which of the group's it is; the first
        if none."""
        ours = self.bound(group)
        found = []
        for given in bound:
            found.append(ours.index(given) if given in ours else 0)
            if given in ours:
                ours[found[-1]] = ""  # each stands for one
        return tuple(found)

    def of(self, group: Group) -> list[Listener]:
        """Those by which connections come to a group."""
        return self._own.get(group.name, self._shared)

    def _open(self, address: Address, settings: Settings) -> Listener:
        fd = None if self._heir is None else self._heir.listener(address)
        if fd is None:
            return open_bound(self._stack, address, settings, settings.backlog)
        return self._inherit(fd, address)

    def _open_admin(self) -> Listener | None:
        address = self._settings.admin
        if self._heir is not None and address is not None:
            fd = self._heir.take_admin(address)
            if fd is not None:
                return self._inherit(fd, address)
        return open_admin(self._stack, self._settings)

    def _inherit(self, fd: int, address: Address) -> Listener:
        listener = inherit_listener(fd, address)
        self._stack.callback(listener.close)
        self._inherited.append(listener)
        return listener

    def _open_control(self) -> ControlSocket | None:
        given, heir = self._settings.control, self._heir
        path = None if heir is None else heir.hello.control
        # By default the path is that of a process: then whatever the other one has is meant.
        if path is None or heir is None or (given and place(given) != Path(path)):
            return open_control(self._stack, given)
        fd = heir.take_control()
        assert fd is not None
        control = ControlSocket(socket.socket(fileno=fd), Path(path), ours=False)
        self._stack.callback(control.close)
        return control

    # To whoever follows

    def hello(self, files: int, passed: list[str]) -> Hello:
        return Hello(
            pid=os.getpid(),
            files=files,
            channel=_core.CHANNEL_VERSION,
            listeners=self._addresses(),
            passed=passed,
            admin=None if self.admin is None else str(self._settings.admin),
            control=None if self.control is None else str(self.control.path),
        )

    def _addresses(self) -> list[str]:
        """Of all listeners, as the settings write them, in their order."""
        shared = self._settings.bind if self._shared else ()
        return list(map(str, chain(shared, *self._bound.values())))

    def bound(self, group: Group) -> list[str]:
        """The addresses by which connections come to a group, as the settings write them."""
        return list(map(str, self._bound.get(group.name, self._settings.bind)))

    def descriptors(self) -> list[int]:
        """In the order of Hello. Raises OSError if they are too many for a message."""
        found = [listener.socket.fileno() for listener in self.listeners]
        found += [] if self.admin is None else [self.admin.socket.fileno()]
        found += [] if self.control is None else [self.control.socket.fileno()]
        if len(found) + 3 > MOST_DESCRIPTORS:
            raise OSError(f"{len(found)} addresses are more than can be handed over")
        return found

    def leave(self, ready: Ready) -> None:
        """Another server has what `ready` says; what it has not is closed for good."""
        if self.pid_file is not None:
            same = ready.pid_file == self.pid_file.path
            (self.pid_file.leave if same else self.pid_file.close)()
        for index, listener in enumerate(self.listeners):
            (listener.leave if index in ready.listeners else listener.close)()
        if self.admin is not None:
            (self.admin.leave if ready.admin else self.admin.close)()
        if self.control is not None:
            (self.control.leave if ready.control else self.control.close)()

    def own(self) -> None:
        """The server before us has left: its files are ours. Raises ConfigError, OSError."""
        for listener in self._inherited:
            listener.own()
        if self.control is not None:
            given = self._settings.control
            # Of a path that somebody has given the name stays.
            name = self.control.path.name if given else f"poolsrv-{os.getpid()}.sock"
            self.control.own(self.control.path.with_name(name))
        self.pid_file = self._stack.enter_context(pid_file(self._settings.pid_file))

    def stop_listening(self) -> None:
        for listener in self.listeners:
            listener.close()


def _refuse_twice(settings: Settings, own: Sequence[Group], shared: bool) -> None:
    """Raises ConfigError for an address that two groups have."""
    taken = dict.fromkeys(map(str, settings.bind), "--bind") if shared else {}
    for group in own:
        place = f"group.{group.name}.bind"
        for address in map(str, group.settings.bind):
            if address in taken and not address.endswith(":0"):
                raise ConfigError(
                    f"{place}: {address} is that of {taken[address]} as well",
                    "give each its own, or leave this bind out: then mounts choose the group",
                )
            taken[address] = place


def cannot_be_followed(manager_is_told: bool) -> str:
    """Why nobody can take our place, or nothing. `manager_is_told` who the main process is."""
    if os.getpid() == 1:
        return (
            "this is process 1, with which its container ends; reload loads new code, and a new "
            "container brings a new poolsrv"
        )
    if os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()) and not manager_is_told:
        return (
            "systemd takes the end of this process for the end of the service, and ends the next "
            "one with it; give the service Type=notify, and systemd is told which process follows"
        )
    return ""
