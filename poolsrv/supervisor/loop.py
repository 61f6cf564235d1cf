"""The supervisor: turns what happens into events for the server's pools, and does what they say.

Runs in the supervisor, on its only thread. The C dispatcher is the one place
that waits; it returns only for what needs policy. What concerns one group's processes is in
poolsrv.supervisor.group; here is what the groups share: signals, the control socket, the
exporter, files that are watched, the supervisors before and behind this one.

Each event and each action is carried out on its own: an exception is logged
and counted, and the next event follows. What was left undone has a deadline in
the pool, or is brought about by `show`.

Long, because it holds both ends of each thread of events: what is heard, and what is
done about it. The parts are named.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from poolsrv import _core
from poolsrv import operator_messages as say
from poolsrv.between import handover, lost_lines, messages
from poolsrv.between.lifecycle import ServerState, Unfit
from poolsrv.supervisor import actions as do
from poolsrv.supervisor.actions import ServerAction
from poolsrv.supervisor.agenda import Agenda
from poolsrv.supervisor.children import Child
from poolsrv.supervisor.control import Control, Served
from poolsrv.supervisor.generations import LAST_WORDS
from poolsrv.supervisor.group import Group, Parts
from poolsrv.supervisor.maintenance import Maintenance
from poolsrv.supervisor.memory import OutOfMemory
from poolsrv.supervisor.notify import Notify
from poolsrv.supervisor.server import Server
from poolsrv.supervisor.succession import Counting, Seat, Successor
from poolsrv.supervisor.touch import SETTLES, Touch, is_there
from poolsrv.supervisor.watch import Progress
from poolsrv.system import forks, processes

_log = logging.getLogger("poolsrv")

# How often a supervisor at its end looks whether all is handed over, and for how long, in seconds.
_LOOK_AGAIN = 0.05
_LINGER = 5.0

# How soon a control client is taken that could not be, in seconds.
_LISTEN_AGAIN = 1.0

# One traceback a second says what is wrong; a thousand fill a disk.
_SAY_AGAIN = 1.0


class Supervisor:
    """The loop. It waits in the dispatcher of the first group. A descriptor that it waits for
    has one who hears of it."""

    def __init__(
        self,
        server: Server,
        groups: Sequence[Parts],
        start_exporter: Callable[[], Child] | None,
        announce: Callable[[], None],
        stop_listening: Callable[[], None],
        reopen_logs: Callable[[], None] = lambda: None,
        control: tuple[socket.socket, Served] | None = None,
        notify: Notify | None = None,
        others: frozenset[int] = frozenset(),
        reload_on_touch: Sequence[tuple[Path, int]] = (),
        maintenance: Path | None = None,
        seat: Seat | None = None,
    ) -> None:
        self.out_of_memory = OutOfMemory()
        self.zombies = False  # some may be left that are not ours to know
        self._server = server
        several = len(groups) > 1
        self.groups = [
            Group(number, parts, {"group": parts.name} if several else {}, self)
            for number, parts in enumerate(groups)
        ]
        self._first = self.groups[0]
        self._dispatcher = self._first.dispatcher  # the one that waits
        for group in self.groups[1:]:
            self._dispatcher.join(group.dispatcher, group.number)
        self._row = self._first.row  # that of the server as a whole
        self._hears: dict[int, Callable[[], None]] = {}  # by descriptor
        self._start_exporter = start_exporter
        self._announce = announce
        self._stop_listening = stop_listening
        self._reopen_logs = reopen_logs
        self._notify = notify if notify is not None else Notify({}, 0)
        self._progress = Progress([group.board for group in self.groups])
        self._control = None
        if control is not None:
            listener, served = control
            self._control = Control(
                listener, server, served, self._do, self._ask_stacks, self.begin_succession
            )
        self._touch = Touch(lambda fd: self.watch(fd, self._files_changed), self.unwatch)
        for path, number in reload_on_touch:
            self._touch.add(path, SETTLES, partial(self._touched, path, number))
        if maintenance is not None:
            rows = [group.row for group in self.groups]
            Maintenance(maintenance, rows).follow(self._touch)
        self._seat = seat
        self._predecessor = None if seat is None else seat.predecessor
        self._successor: Successor | None = None
        self._counting: Counting | None = None  # once another has our place
        self._exporter: Child | None = None
        self._watcher: Child | None = None
        self._listens_at: float | None = None  # to control clients again
        self._wakeup: tuple[socket.socket, ...] = ()
        self._finish: do.Finish | None = None
        self._linger_end = 0.0  # when a supervisor that ends waits for nothing more
        self._others = others  # children of the program that has called serve(): its own to reap
        self._said_at = 0.0  # when an exception was logged last
        self._now = time.monotonic()  # of the event at hand
        self._agenda = Agenda(len(self.groups), self._due_at)
        self._shown: ServerState | None = None

    def close_in_child(self) -> None:
        """In a child just forked: close the copies of what only the supervisor uses."""
        for end in self._wakeup:
            end.close()
        self._notify.close()
        self._touch.close_in_child()
        if self._control is not None:
            self._control.close_all()
        for child in (self._exporter, self._watcher):
            if child is not None:
                os.close(child.pidfd)
        if self._successor is not None:
            self._successor.close()
        if self._predecessor is not None:
            self._predecessor.close()
        for group in self.groups:
            group.close_in_child()

    def run(self) -> do.Finish:
        """Serve until the pool says that nothing is left to do."""
        self._row.started_at = time.monotonic_ns()
        lost_lines.count_for_server(self.groups[0].board)
        with _signals() as self._wakeup:
            self.watch(self._wakeup[0].fileno(), self._signals_came)
            if self._predecessor is not None:
                self.watch(self._predecessor.channel.fileno(), self._hear_predecessor)
            else:
                self._take_commands()
            if self._control is not None:
                _log.addHandler(self._control.events)
            self._touch.begin(time.monotonic())
            try:
                self._do(self._server.start(time.monotonic()))
                self.guarded(self._settle)
                while self._finish is None or self._lingers():
                    self._step()
            finally:
                self._end()
        return self._finish

    def _take_commands(self) -> None:
        if self._control is not None:
            listener = self._control.listener.fileno()
            self.watch(listener, self._client_came)

    def _lingers(self) -> bool:
        """All workers have ended, but their keepers may still have requests for us to answer,
        clients that were refused have not read that, or not all that we have for the next
        supervisor is there."""
        if time.monotonic() >= self._linger_end:
            return False
        if any(group.keepers.some_are_left for group in self.groups):
            return True
        waits = (group for group in self.groups if group.refuses or self._counting is not None)
        return any(group.dispatcher.held for group in waits)

    # For the groups

    @property
    def now(self) -> float:
        return self._now

    @property
    def failed(self) -> bool:
        return self._server.failed

    def watch(self, fd: int, hear: Callable[[], None]) -> None:
        self._dispatcher.watch(fd, fd)
        self._hears[fd] = hear

    def unwatch(self, fd: int) -> None:
        self._hears.pop(fd, None)
        self._dispatcher.unwatch(fd)

    def stir(self, group: int) -> None:
        self._agenda.stir(group)

    def _due_at(self, group: int) -> float | None:
        found = self.groups[group]
        return found.keepers.deadline() if self._server.finished else found.deadline()

    def reload_begins(self) -> None:
        self._notify.reloading()

    def reload_ends(self, group: int, action: do.TookOver | do.ReloadFailed) -> None:
        self._notify.ready()
        if self._control is not None:
            for client in self._control.ended(group, action):
                self._client_gone(client)

    # One round

    def _step(self) -> None:
        times = [self._server.deadline(), self._notify.deadline(), self._touch.deadline()]
        times.append(self._agenda.next())
        if self._counting is not None:
            times.append(self._counting.deadline())
        if self._finish is not None:
            times.append(time.monotonic() + _LOOK_AGAIN)
        times.append(self._listens_at)
        deadline = min((at for at in times if at is not None), default=None)
        for event in self._dispatcher.wait(deadline):
            self._now = time.monotonic()
            self.guarded(self.happened, event)
            self.guarded(self._settle)
        self._now = time.monotonic()
        self.guarded(self._tick)
        self.guarded(self._settle)

    def _settle(self) -> None:
        """What has happened to a group may concern the server, and who has ordered it."""
        if actions := self._server.settle(self._now):
            self._do(actions)
        if self._control is not None:
            for client in self._control.settled():
                self._client_gone(client)

    def guarded(self, act: Callable[..., None], *arguments: object) -> None:
        """Nothing that one event brings about may end the server."""
        try:
            act(*arguments)
        except (Unfit, messages.Malformed) as error:
            self._failed(say.WORD_DROPPED, error)
        except Exception:  # noqa: BLE001 - the one boundary, see above
            self._failed(say.SUPERVISOR_FAILED, exc_info=True)

    def _failed(self, text: str, *arguments: object, exc_info: bool = False) -> None:
        self._row.count_fault()
        if time.monotonic() - self._said_at >= _SAY_AGAIN:
            self._said_at = time.monotonic()
            _log.log(
                logging.ERROR if exc_info else logging.WARNING, text, *arguments, exc_info=exc_info
            )

    def happened(self, event: tuple[object, ...]) -> None:
        """What a dispatcher says."""
        match event:
            case (_core.EVENT_READABLE, int(fd)):
                if fd in self._hears:  # else it was closed in the same round
                    self._hears[fd]()
            case (_core.EVENT_NEWS, int(group), int(slot), int(word), str(text)):
                self.groups[group].heard(slot, word, text)
            case (_core.EVENT_REFUSED, int(_), str(text)):
                _log.warning(say.REFUSED, text)
            case (_core.EVENT_WANTED, int(group)):
                self.groups[group].wanted()
            case (_core.EVENT_DRAINED,):
                self._do(self._server.queue_empty(self._now))

    def _files_changed(self) -> None:
        self._touch.changed(self._now)

    def _tick(self) -> None:
        due = self._agenda.due(self._now)
        self._do(self._server.tick(self._now, due))
        for group in due:
            self.groups[group].tick()
        self._touch.tick(self._now)
        self._notify.tick(self._now, self._progress.made, self._progress.describe)
        if self._counting is not None:
            self._counting.tick(self._now)
        if self._listens_at is not None and self._listens_at <= self._now:
            self._listens_at = None
            self._take_commands()
        if self.zombies:
            self._reap_orphans()

    # Signals

    def _signals_came(self) -> None:
        for number in self._wakeup[0].recv(64):
            self.guarded(self._signalled, number)

    def _signalled(self, number: int) -> None:
        name = processes.signal_name(number)
        match number:
            case signal.SIGTERM | signal.SIGINT | signal.SIGQUIT:
                if self._server.state is not ServerState.DRAINING or self._server.has_left:
                    _log.info(say.STOPS, name)
                self._do(self._server.stop(self._now))
            case signal.SIGHUP:
                self._reload(name)
            case signal.SIGUSR2:
                self._try_succession(name)
            case signal.SIGUSR1:
                _log.info(say.LOGS_REOPENED, name)
                self._reopen()
            case signal.SIGCHLD:
                self.zombies = True
            case _:
                _log.warning(say.SIGNAL_WITHOUT_MEANING, name)

    def _reload(self, why: str, groups: Sequence[int] | None = None) -> None:
        if self._server.state is ServerState.DRAINING:
            _log.warning(say.NO_RELOAD, why)
            return
        _log.info(say.RELOADS, why, extra=self._server.named(groups))
        self._do(self._server.reload(self._now, groups))

    def _touched(self, path: Path, group: int) -> None:
        if is_there(path):  # one that is gone will come again
            self._reload(f"{path} has changed", [group])

    def _try_succession(self, why: str) -> None:
        try:
            self.begin_succession(why)
        except Unfit as error:
            _log.warning(say.NO_SUCCESSION, why, error)
            if self._control is not None:
                self._control.succession_failure = str(error)
            self._do([])  # whoever waits for it is told

    def begin_succession(self, why: str) -> None:
        """Begin one, or do so as soon as the supervisor before has ended. Raises Unfit."""
        if self._seat is None or self._seat.refusal:
            raise Unfit("nobody can take over here" if self._seat is None else self._seat.refusal)
        if self._predecessor is not None and self._server.state is ServerState.SERVING:
            # It still says the totals of its counters, to nobody but us.
            self._server.succession_waits = True
            _log.info(say.SUCCESSION_WAITS, why)
            return
        actions = self._server.begin_succession(self._now)
        _log.info(say.SUCCESSION_BEGINS, why)
        self._do(actions)

    def _reopen(self) -> None:
        self._reopen_logs()
        for group in self.groups:
            group.reopen_logs()

    # What control clients say

    def _client_came(self) -> None:
        assert self._control is not None
        try:
            client = self._control.accept()
        except OSError as error:  # the client waits on: to ask at once would be a tight loop
            _log.warning(say.CONTROL_DEAF, error)
            self.unwatch(self._control.listener.fileno())
            self._listens_at = self._now + _LISTEN_AGAIN
            return
        if client is not None:
            self.watch(client, partial(self._client_said, client))
        crowded = self._control.crowded()
        if crowded is not None:
            self._client_gone(crowded)

    def _client_said(self, client: int) -> None:
        assert self._control is not None
        try:
            stays = self._control.read(client)
        except BaseException:
            self._client_gone(client)
            raise
        if not stays:
            self._client_gone(client)

    def _client_gone(self, client: int) -> None:
        assert self._control is not None
        self.unwatch(client)
        self._control.close(client)

    def _ask_stacks(self, group: int, slot: int) -> int:
        return self.groups[group].ask_stacks(slot)

    # Who takes our place, and whose we take

    def _start_successor(self) -> None:
        assert self._seat is not None
        self._notify.reloading()
        successor = None
        try:
            successor = self._seat.start()
            self.watch(successor.pidfd, self._successor_ended)
            self.watch(successor.channel.fileno(), self._hear_successor)
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing has changed
            if successor is not None:  # it ends when it hears nothing from us any more
                self.unwatch(successor.pidfd)
                successor.close()
            text = f"the new supervisor cannot be started: {error}"
            self._do(self._server.successor_exited(text, self._now))
            return
        self._successor = successor
        if self._control is not None:
            self._control.successor = successor.pid

    def _hear_successor(self) -> None:
        if self._successor is None:
            return  # its end was in the same round
        for word in self._successor.words():
            match word:
                case handover.Ready():
                    self._successor.ready = word
                    self._do(self._server.successor_ready(self._now))
                case handover.Failed(text):
                    self._do(self._server.successor_failed(text, self._now))
                case None:  # its end, as a rule, which its pidfd tells
                    self._successor.is_silent = True
                    self.unwatch(self._successor.channel.fileno())
                case _:
                    raise Unfit(f"the new supervisor said {word}")

    def _successor_ended(self) -> None:
        successor = self._successor
        if successor is None or not processes.has_ended(successor.pidfd):
            return
        for word in successor.words():  # why it has, above all
            if isinstance(word, handover.Failed):
                self._do(self._server.successor_failed(word.text, self._now))
        ending = processes.reap(successor.pidfd)
        self.unwatch(successor.pidfd)
        if not successor.is_silent:
            self.unwatch(successor.channel.fileno())
        self._successor = None
        self._counting = None
        if self._server.has_left:
            _log.error(say.SUCCESSOR_ENDED, ending)
        text = f"the new supervisor {ending}; its messages are in this server's log"
        successor.close()
        self._do(self._server.successor_exited(text, self._now))

    def _hand_over(self, action: do.HandOver) -> None:
        """Give our place away. What nobody takes is served to its end here."""
        assert self._seat is not None
        assert self._successor is not None
        if self._control is not None:
            self.unwatch(self._control.listener.fileno())
        self._listens_at = None
        for group, pair in zip(self.groups, self._successor.connections, strict=True):
            if self._successor.takes(group.number):
                group.dispatcher.bequeath(pair.fileno())
            else:  # nobody goes on with it: who waits is told
                group.dispatcher.accept(False)
                group.dispatcher.last_call()
        # A file that cannot be removed must not keep the other one from serving.
        self.guarded(self._seat.leave, self._successor.ready)
        self._notify.succeeded_by(self._successor.pid)
        self._counting = self._successor.counting
        wanted = {name: self.groups[at].pool.wanted for at, name in enumerate(self._server.names)}
        word = handover.TakeOver(self._first.pool.wanted, action.reload, wanted)
        self._counting.begin(word, self._now)
        _log.info(say.LEFT, self._successor.pid)

    def _hear_predecessor(self) -> None:
        if self._predecessor is None:
            return
        boards = [group.board for group in self.groups]
        for word, fds in self._predecessor.words():
            # Before we serve; and if they are of no use, we serve all the same.
            self.guarded(self._predecessor.carry, word, fds, boards)
            match word:
                case handover.TakeOver():
                    self._take_over(word)
                case handover.Totals():
                    continue
                case None:
                    self._predecessor_ended()
                    return
                case _:
                    raise Unfit(f"the supervisor before said {word}")

    def _take_over(self, word: handover.TakeOver) -> None:
        predecessor = self._predecessor
        assert predecessor is not None
        predecessor.has_left = True
        try:
            predecessor.own()
        except Exception as error:  # noqa: BLE001 - whatever it was, there are clients
            _log.error(say.INHERITANCE_FAILED, error)
        for group in self.groups:
            group.dispatcher.accept(True)
        for number, legacy in predecessor.legacies.items():
            if legacy.connections is None:
                _log.warning(say.CONNECTIONS_UNKNOWN)
                break
            connections = legacy.connections.fileno()
            self.guarded(self.groups[number].dispatcher.inherit, connections, legacy.translation)
        self.guarded(self._take_commands)
        self._row.count_succession(done=True)
        _log.info(say.TOOK_PLACE, predecessor.pid)
        self._do(self._server.take_over(self._now))
        for number, legacy in predecessor.legacies.items():
            wanted = word.groups.get(legacy.name, word.wanted)
            group = self.groups[number]
            if wanted != legacy.wanted and not group.pool.on_demand:  # it was scaled meanwhile
                group.act(group.pool.scale(wanted, self._now))
        if word.reload:
            self._do(self._server.reload(self._now))

    def _predecessor_ended(self) -> None:
        predecessor, self._predecessor = self._predecessor, None
        assert predecessor is not None
        self.unwatch(predecessor.channel.fileno())
        if predecessor.has_left:
            for number, legacy in predecessor.legacies.items():
                if legacy.connections is not None:
                    self.groups[number].dispatcher.inherit_rest()
        predecessor.close()
        if not predecessor.has_left and self._server.state is not ServerState.DRAINING:
            _log.error(say.PREDECESSOR_ENDED)
            self._do(self._server.stop(self._now, at_once=True))
        if self._server.succession_waits:
            self._server.succession_waits = False
            self._try_succession("the supervisor before has ended")

    # Ends of processes

    def _exporter_ended(self) -> None:
        if self._exporter is None or not processes.has_ended(self._exporter.pidfd):
            return
        self.unwatch(self._exporter.pidfd)
        exporter, self._exporter = self._exporter, None
        ending = exporter.reap()
        if self._server.state is not ServerState.DRAINING and not self._server.succession_runs:
            _log.error(say.EXPORTER_ENDED, ending)
        self._do(self._server.exporter_exited(self._now))

    def keep_watcher(self, watcher: Child) -> None:
        """It is ours to look after, and to end."""
        self._watcher = watcher
        self.watch(watcher.pidfd, self._watcher_ended)

    def end_watcher(self) -> None:
        if self._watcher is not None:
            self.unwatch(self._watcher.pidfd)
            watcher, self._watcher = self._watcher, None
            watcher.end(0)

    def _watcher_ended(self) -> None:
        if self._watcher is None or not processes.has_ended(self._watcher.pidfd):
            return
        self.unwatch(self._watcher.pidfd)
        watcher, self._watcher = self._watcher, None
        _log.error(say.WATCHER_ENDED, watcher.reap())

    def _reap_orphans(self) -> None:
        """End the zombies of processes that applications have left; we adopt them."""
        for group in self.groups:
            group.hear_templates()  # of a worker that we are about to know
        last = 0
        while pid := processes.zombie(self._others):
            if pid == last:
                return  # what ends it has failed; in the next round again
            last = pid
            self._ended(pid)
        self.zombies = False

    def _ended(self, pid: int) -> None:
        """End the zombie of a child, as its pidfd would have us do if we know it."""
        for group in self.groups:
            if (end := group.knows(pid)) is not None:
                return end()
        if self._exporter is not None and self._exporter.pid == pid:
            return self._exporter_ended()
        if self._successor is not None and self._successor.pid == pid:
            return self._successor_ended()
        if self._watcher is not None and self._watcher.pid == pid:
            return self._watcher_ended()
        os.waitpid(pid, os.WNOHANG)

    # What the pool wants

    def _do(self, actions: Sequence[ServerAction]) -> None:
        for group in self._server.stirred:
            self._agenda.stir(group)
        self._server.stirred.clear()
        for action in actions:
            self.guarded(self._carry_out, action)
        if self._shown is not self._server.state:
            self._shown = self._server.state
            self.guarded(self._show)

    def _carry_out(self, action: ServerAction) -> None:
        match action:
            case do.ForGroup(number, wanted):
                self.groups[number].act(wanted)
            case do.StartExporter():
                self._open_exporter()
            case do.EndExporter():
                if self._exporter is not None:
                    self._exporter.signal(messages.END_EXPORTER)
            case do.KillExporter():
                if self._exporter is not None:
                    self._exporter.signal(signal.SIGKILL)
            case do.StartSuccessor():
                self._start_successor()
            case do.EndSuccessor():
                if self._successor is not None:
                    self._successor.signal(signal.SIGTERM)
            case do.KillSuccessor():
                if self._successor is not None:
                    self._successor.signal(signal.SIGKILL)
            case do.SuccessionFailed(text):
                self._row.count_succession(done=False)
                _log.error(say.SUCCESSION_FAILED, text)
                self._notify.ready()
                if self._control is not None:
                    self._control.succession_failure = text
            case do.HandOver():
                self._hand_over(action)
            case do.SayReady():
                assert self._predecessor is not None
                self._predecessor.say(self._predecessor.taken)
            case do.StopAccepting():
                self._notify.stopping()
                self._dispatcher.stop()  # and all that are joined to it
                # A client that comes now is refused at once, and may go elsewhere.
                self._stop_listening()
            case do.Announce():
                self._notify.ready()
                self._announce()
            case do.Finish():
                self._finish = action
                self._linger_end = time.monotonic() + _LINGER
                if self._predecessor is not None and action.text:
                    self._predecessor.say(handover.Failed(action.text[: messages.LONGEST_TEXT]))

    def _show(self) -> None:
        for group in self.groups:
            group.row.state = int(self._server.state)
            group.show()

    # Children

    def _open_exporter(self) -> None:
        assert self._start_exporter is not None
        try:
            self._exporter = self._start_exporter()
        except Exception as error:  # noqa: BLE001 - whatever it was, the pool tries again
            _log.error(say.EXPORTER_NOT_STARTED, error)
            self._do(self._server.exporter_exited(self._now))
            return
        self._do(self._server.exporter_started(self._now))
        self.watch(self._exporter.pidfd, self._exporter_ended)

    def _end(self) -> None:
        self._touch.close()
        self.end_watcher()
        if self._control is not None:
            self._control.stopping()
            _log.removeHandler(self._control.events)
        for group in self.groups:
            group.kill_all()
        end = time.monotonic() + LAST_WORDS
        for group in self.groups:
            group.end(end)
        if self._exporter is not None:
            self._exporter.signal(messages.END_EXPORTER)
            self._exporter.end(LAST_WORDS)
        if self._counting is not None:
            self.guarded(self._counting.end)


@contextmanager
def _signals() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of sockets: the first receives the number of each signal that is ours to handle.

    Whatever the parent has ignored or blocked of them: both are inherited. They are blocked
    at the end: a second order to stop must not change the status of a process that ends.
    """
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.setblocking(False)
    numbers = (*forks.SIGNALS, *forks.STRAY)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        yield receiver, sender
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        sender.close()
        receiver.close()
