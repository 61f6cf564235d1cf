"""The supervisor's side of the control socket: clients that come, and what they ask.

Supervisor only. It never waits for a client: one that does not send its line
in one piece or does not take its answer is closed. The commands are one table,
COMMANDS; those that end later (`reload`, `recycle`, `scale`) keep their client until then.
"""

import collections
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poolsrv import operator_messages as say
from poolsrv.between.control import LONGEST_COMMAND, MOST_DESCRIPTORS, Answer, Command, peer
from poolsrv.between.lifecycle import ServerState, State, Unfit
from poolsrv.errors import ControlError
from poolsrv.supervisor.actions import (
    ForGroup,
    GroupAction,
    ReloadFailed,
    ServerAction,
    TookOver,
)
from poolsrv.supervisor.orders import Events, Order, Reloads
from poolsrv.supervisor.pool import Pool
from poolsrv.supervisor.server import Server

_log = logging.getLogger("poolsrv")

# Clients at a time: people and scripts. One more makes the oldest go.
_CLIENTS = 32

# Bytes of events in an answer, the newest: as many as a socket takes at once where
# net.core.wmem_max is what Linux has by default (208 KiB). One may have 16 KB.
_EVENTS_SHOWN = 1 << 17

_ENDS = "the server ends"
_LEFT = "another supervisor has taken over, and goes on with what was asked"


@dataclass(frozen=True, slots=True)
class Served:
    """What the commands show of the server. The descriptors stay the launcher's."""

    about: Mapping[str, object]
    boards: Mapping[str, int]
    settings: Callable[[int], Mapping[str, str]]


class Control:
    """`do` carries out actions; `ask_stacks` has a worker of a group write its stacks: where;
    `begin_succession` begins one, and is told why."""

    def __init__(
        self,
        listener: socket.socket,
        server: Server,
        served: Served,
        do: Callable[[Sequence[ServerAction]], None],
        ask_stacks: Callable[[int, int], int],
        begin_succession: Callable[[str], None],
    ) -> None:
        self.listener = listener
        self.events = Events()
        self._server = server
        self._served = served
        self._do = do
        self._ask_stacks = ask_stacks
        self._begin_succession = begin_succession
        self.successor = 0  # the pid of the supervisor that was started last to take over
        self.succession_failure = ""
        self._clients: dict[int, socket.socket] = {}  # by descriptor, oldest first
        self._waiting: dict[int, Reloads] = {}  # by client
        self._orders: dict[int, Order] = {}  # by client

    # Clients

    def accept(self) -> int | None:
        """Take a client; its descriptor is to be watched. None if it has gone or is a stranger."""
        try:
            client, _ = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        client.setblocking(False)
        _, uid = peer(client)
        if uid not in (0, os.geteuid()):
            client.close()
            return None
        self._clients[client.fileno()] = client
        return client.fileno()

    def crowded(self) -> int | None:
        """The client that must go to make room."""
        return next(iter(self._clients)) if len(self._clients) > _CLIENTS else None

    def read(self, number: int) -> bool:
        """What the client says is there: do it. False: we are done with the client."""
        client = self._clients.get(number)
        if client is None:
            return True
        try:
            line = client.recv(LONGEST_COMMAND)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        if not line or number in self._waiting or number in self._orders:
            return False  # it has gone, or says more than one thing
        answer = self._answer(number, line)
        if answer is not None:
            self._send(number, answer)
        return answer is None

    def close(self, number: int) -> None:
        self._waiting.pop(number, None)
        self._orders.pop(number, None)
        client = self._clients.pop(number, None)
        if client is not None:
            client.close()

    def close_all(self) -> None:
        """At the end, and in a child just forked."""
        self.listener.close()
        for number in list(self._clients):
            self.close(number)

    def _send(self, number: int, answer: Answer) -> None:
        client = self._clients[number]
        body = answer.encode()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(body) + 4096)
        try:
            sent = socket.send_fds(client, [body], list(answer.fds))
        except OSError as error:
            _log.warning(say.CONTROL_CLIENT_GONE, error)
            return
        if sent < len(body):
            _log.warning(say.CONTROL_CLIENT_GONE, f"{sent} of {len(body)} bytes")

    @property
    def _ends(self) -> bool:
        return self._server.state is ServerState.DRAINING

    @property
    def _end(self) -> str:
        """Why nothing more becomes of an order, or nothing."""
        if self._server.has_left:
            return _LEFT
        return _ENDS if self._ends else ""

    # Commands

    def _answer(self, number: int, line: bytes) -> Answer | None:
        try:
            command = Command.decode(line)
            run = COMMANDS.get(command.name)
            if run is None:
                raise ControlError(f"{command.name}: the server has no such command")
            return run(self, number, command.arguments)
        except (ControlError, Unfit) as error:
            return Answer(error=str(error))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            return Answer(error=f"an argument is missing or wrong: {error!r}")

    def hello(self, _number: int, _arguments: Mapping[str, Any]) -> Answer:
        return Answer(self._served.about)

    def board(self, _number: int, _arguments: Mapping[str, Any]) -> Answer:
        """The scoreboards of the groups themselves: the client reads them, which costs the
        supervisor nothing."""
        names = list(self._served.boards)[:MOST_DESCRIPTORS]
        fds = [self._served.boards[name] for name in names]
        return Answer({**self._served.about, "groups": names}, fds=fds)

    def settings(self, _number: int, arguments: Mapping[str, Any]) -> Answer:
        """Those of a group; of several, by name."""
        groups = self._groups(arguments)
        found = {self._server.names[group]: self._served.settings(group) for group in groups}
        return Answer(found if len(found) > 1 else next(iter(found.values())))

    def show_events(self, _number: int, _arguments: Mapping[str, Any]) -> Answer:
        shown: collections.deque[Mapping[str, object]] = collections.deque()
        room = _EVENTS_SHOWN
        for record in reversed(self.events.records):
            room -= len(json.dumps(record))
            if room < 0:
                break
            shown.appendleft(record)
        return Answer({"events": list(shown)})

    def reload(self, number: int, arguments: Mapping[str, Any]) -> Answer | None:
        """Answered when a new generation serves in each group that is meant, or will not."""
        if self._ends:
            raise ControlError(_ENDS)
        if self._server.succession_runs:
            raise ControlError("an upgrade runs, which loads the code anew as well")
        groups = self._groups(arguments)
        _log.info(say.TOLD_TO_RELOAD, extra=self._server.named(groups))
        actions = self._server.reload(time.monotonic(), groups)
        asked = {group: self._server.pools[group].generations.asked for group in groups}
        self._waiting[number] = Reloads(asked)
        self._do(actions)
        return None

    def upgrade(self, number: int, _arguments: Mapping[str, Any]) -> Answer | None:
        """Answered when another supervisor has taken over, or will not."""
        self.succession_failure = ""
        self._begin_succession("told to upgrade")

        def outcome() -> Answer | None:
            if self._server.has_left:
                return Answer({"pid": self.successor})
            if self._server.succession_runs or self._server.succession_waits:
                return None
            return Answer(error=self.succession_failure or _ENDS)

        return self._ordered(number, Order({}, outcome))

    def recycle(self, number: int, arguments: Mapping[str, Any]) -> Answer | None:
        """Answered when the workers have ended, and others serve in their place."""
        given = arguments["slot"]
        chosen = self._groups(arguments) if given == "all" else [self._group(arguments)]
        found: list[tuple[Pool, list[int]]] = []
        for group in chosen:
            pool = self._server.pools[group]
            ready = [slot for slot, at in enumerate(pool.slots) if at.state is State.READY]
            slots = ready if given == "all" else [int(given)]
            if not set(slots) <= set(ready):
                raise ControlError(f"no worker is ready in slot {self._slot(group, slots[0])}")
            found.append((pool, slots))
        names = [
            self._slot(group, slot)
            for group, (_, slots) in zip(chosen, found, strict=True)
            for slot in slots
        ]
        _log.info(say.TOLD_TO_RECYCLE, ", ".join(map(str, names)))
        for group, (pool, slots) in zip(chosen, found, strict=True):
            self._do_for(group, pool.recycle(slots, time.monotonic()))
        facts = {"slots": names}

        def outcome() -> Answer | None:
            left = [pool for pool, slots in found if any(map(pool.is_recycling, slots))]
            if self._ends or not left:
                return Answer(facts, self._end)
            texts = [text for pool in left if (text := pool.obstacle())]
            return Answer(facts, texts[0]) if texts else None

        return self._ordered(number, Order(facts, outcome))

    def scale(self, number: int, arguments: Mapping[str, Any]) -> Answer | None:
        """Answered when so many workers are ready, and those too many get nothing new."""
        group = self._group(arguments)
        pool = self._server.pools[group]
        before, wanted = pool.wanted, int(arguments["processes"])
        actions = pool.scale(wanted, time.monotonic())
        _log.info(say.TOLD_TO_SCALE, before, wanted)
        self._do_for(group, actions)
        facts: Mapping[str, Any] = {"before": before, "wanted": wanted}

        def outcome() -> Answer | None:
            if pool.wanted != wanted:
                return Answer(facts, f"another command has asked for {pool.wanted} workers")
            if self._ends or pool.is_settled():
                return Answer(facts, self._end)
            return Answer(facts, text) if (text := pool.obstacle()) else None

        return self._ordered(number, Order(facts, outcome))

    def _ordered(self, number: int, order: Order) -> Answer | None:
        answer = order.outcome()
        if answer is None:
            self._orders[number] = order
        return answer

    def stacks(self, _number: int, arguments: Mapping[str, Any]) -> Answer:
        group, slot = self._group(arguments), int(arguments["slot"])
        slots = self._server.pools[group].slots
        if not 0 <= slot < len(slots) or not slots[slot].born:
            raise ControlError(f"there is no worker in slot {self._slot(group, slot)}")
        return Answer({"slot": self._slot(group, slot)}, fds=[self._ask_stacks(group, slot)])

    def stop(self, _number: int, arguments: Mapping[str, Any]) -> Answer:
        now = bool(arguments["now"])
        _log.info(say.TOLD_TO_STOP_NOW if now else say.TOLD_TO_STOP)
        self._do(self._server.stop(time.monotonic(), at_once=now))
        return Answer(self._served.about)

    # What clients wait for

    def ended(self, group: int, action: TookOver | ReloadFailed) -> list[int]:
        """A reload has ended: who waited for no other is answered, and is to be closed."""
        told = []
        for number, reloads in self._waiting.items():
            if (answer := reloads.ended(group, action, self._server.names)) is not None:
                self._send(number, answer)
                told.append(number)
        return told

    def settled(self) -> list[int]:
        """Something has changed: whose order has its outcome is answered, and is to be closed."""
        told = []
        for number, order in self._orders.items():
            if (answer := order.outcome()) is not None:
                self._send(number, answer)
                told.append(number)
        return told

    def stopping(self) -> list[int]:
        """The server ends: no reload will. Who waited is answered, and is to be closed."""
        for number in self._waiting:
            self._send(number, Answer(error=_ENDS))
        return list(self._waiting)

    # Groups

    def _do_for(self, group: int, actions: list[GroupAction]) -> None:
        self._do([ForGroup(group, tuple(actions))])

    def _slot(self, group: int, slot: int) -> int | str:
        """What people call it."""
        names = self._server.names
        return f"{names[group]}/{slot}" if len(names) > 1 else slot

    def _groups(self, arguments: Mapping[str, Any]) -> list[int]:
        """Those that a command is for: the one it names, or all."""
        if "group" in arguments:
            return [self._group(arguments)]
        return list(range(len(self._server.pools)))

    def _group(self, arguments: Mapping[str, Any]) -> int:
        """The one that a command is for. Raises ControlError."""
        names = self._server.names
        given = arguments.get("group")
        if given in names:
            return names.index(given)
        if given is None and len(names) == 1:
            return 0
        what = "a group must be named" if given is None else f"there is no group {given}"
        raise ControlError(what, f"the groups are {', '.join(names)}")


Run = Callable[[Control, int, Mapping[str, Any]], Answer | None]

COMMANDS: Mapping[str, Run] = {
    "hello": Control.hello,
    "board": Control.board,
    "settings": Control.settings,
    "events": Control.show_events,
    "reload": Control.reload,
    "upgrade": Control.upgrade,
    "recycle": Control.recycle,
    "scale": Control.scale,
    "stacks": Control.stacks,
    "stop": Control.stop,
}
