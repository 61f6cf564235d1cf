"""The supervisor: turns what happens into events for the pool, and does what it says.

Runs in the supervisor, on its only thread. The C dispatcher is the one place
that waits; it returns only for what needs policy. Owns the listeners, the
channels and the scoreboard; knows its children by their pidfds.

Each event and each action is carried out on its own: an exception is logged
and counted, and the next event follows. What was left undone has a deadline in
the pool, or is brought about by `_show`.

Long, because it holds both ends of each thread of events: what is heard, and what is
done about it. The parts are named.
"""

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from pathlib import Path

from poolsrv import _core, log
from poolsrv import operator_messages as say
from poolsrv.between import handover, messages
from poolsrv.between.lifecycle import ServerState, State, Unfit
from poolsrv.supervisor import actions as do
from poolsrv.supervisor.actions import Action, Reason
from poolsrv.supervisor.children import Child, Template, Worker
from poolsrv.supervisor.control import Control, Served
from poolsrv.supervisor.limits import Limits
from poolsrv.supervisor.memory import OutOfMemory
from poolsrv.supervisor.notify import Notify
from poolsrv.supervisor.pool import LAST_WORDS, Pool
from poolsrv.supervisor.postmortem import postmortem, served
from poolsrv.supervisor.rows import SlotRow, SupervisorRow
from poolsrv.supervisor.stacks import Stacks
from poolsrv.supervisor.succession import Counting, Seat, Successor
from poolsrv.supervisor.touch import SETTLES, Touch, is_there
from poolsrv.supervisor.watch import Progress, Watch
from poolsrv.system import forks, processes
from poolsrv.system.processes import Ending

_log = logging.getLogger("poolsrv")

# How often a supervisor at its end looks whether all is handed over, and for how long, in seconds.
_LOOK_AGAIN = 0.05
_LINGER = 5.0

# One traceback a second says what is wrong; a thousand fill a disk.
_SAY_AGAIN = 1.0


class Watched(IntEnum):
    """What a descriptor that the dispatcher watches is: the lower bits of its token."""

    SIGNALS = 0
    EXPORTER = 1  # its pidfd
    CONTROL = 2  # the control socket of a generation's template
    TEMPLATE = 3  # the pidfd of a generation's template
    WORKER = 4  # the pidfd of a slot's worker
    COMMANDS = 5  # the listener of the control socket
    CLIENT = 6  # a connection to it
    FILES = 7  # the descriptor that tells of files
    SUCCESSOR = 8  # the pidfd of the supervisor that is to take our place
    HEIR = 9  # what it says
    PREDECESSOR = 10  # what the one says whose place we take
    WATCHER = 11  # the pidfd of the process that watches the code


_KINDS = 16


def token(kind: Watched, number: int = 0) -> int:
    return number * _KINDS + kind


class Supervisor:
    """The loop. `channels` are (ours, the worker's) for each slot."""

    def __init__(
        self,
        pool: Pool,
        dispatcher: _core.Dispatcher,
        board: _core.Scoreboard,
        channels: list[tuple[socket.socket, socket.socket]],
        start_template: Callable[[int], Template],
        start_exporter: Callable[[], Child] | None,
        announce: Callable[[], None],
        stop_listening: Callable[[], None],
        stacks: Stacks,
        reopen_logs: Callable[[], None] = lambda: None,
        control: tuple[socket.socket, Served] | None = None,
        limits: Limits | None = None,
        notify: Notify | None = None,
        others: frozenset[int] = frozenset(),
        reload_on_touch: Sequence[Path] = (),
        maintenance: Path | None = None,
        seat: Seat | None = None,
    ) -> None:
        self._pool = pool
        self._dispatcher = dispatcher
        self._board = board
        self._row = SupervisorRow(board)
        self._rows = [SlotRow(board, slot) for slot in range(len(pool.slots))]
        self._start_template = start_template
        self._start_exporter = start_exporter
        self._announce = announce
        self._stop_listening = stop_listening
        self._stacks = stacks
        self._reopen_logs = reopen_logs
        self._notify = notify if notify is not None else Notify({}, 0)
        self._progress = Progress(board)
        self._watch = Watch(pool, board, limits if limits is not None else Limits())
        self._control = None
        if control is not None:
            listener, served = control
            self._control = Control(
                listener, pool, served, self._do, self._ask_stacks, self.upgrade
            )
        self._touch = Touch(
            lambda fd: dispatcher.watch(fd, token(Watched.FILES)), dispatcher.unwatch
        )
        for path in reload_on_touch:
            self._touch.add(path, SETTLES, partial(self._touched, path))
        self._maintenance = maintenance
        self._in_maintenance = False
        if maintenance is not None:
            self._touch.add(maintenance, 0.0, self._look_after_maintenance)
            self._look_after_maintenance()
        self._seat = seat
        self._predecessor = None if seat is None else seat.predecessor
        self._successor: Successor | None = None
        self._counting: Counting | None = None  # once another has our place
        self._templates: dict[int, Template] = {}  # by generation
        self._exporter: Child | None = None
        self._watcher: Child | None = None
        self._workers: dict[int, Worker] = {}  # by slot
        self._enabled: set[int] = set()
        self._wakeup: tuple[socket.socket, ...] = ()
        self._out_of_memory = OutOfMemory()
        self._finish: do.Finish | None = None
        self._linger_end = 0.0  # when a supervisor that ends waits for nothing more
        self._zombies = False  # some may be left that are not ours to know
        self._others = others  # children of the program that has called serve(): its own to reap
        self._said_at = 0.0  # when an exception was logged last
        self._now = time.monotonic()  # of the event at hand
        for slot, (ours, theirs) in enumerate(channels):
            dispatcher.channel(slot, ours.fileno(), theirs.fileno())

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
        for template in self._templates.values():
            template.close()
            os.close(template.child.pidfd)
        for worker in self._workers.values():
            os.close(worker.pidfd)

    def run(self) -> do.Finish:
        """Serve until the pool says that nothing is left to do."""
        self._row.started_at = time.monotonic_ns()
        log.count_lost(self._row.count_lost_line)
        with _signals() as self._wakeup:
            self._dispatcher.watch(self._wakeup[0].fileno(), token(Watched.SIGNALS))
            if self._predecessor is not None:
                channel = self._predecessor.channel.fileno()
                self._dispatcher.watch(channel, token(Watched.PREDECESSOR))
            else:
                self._take_commands()
            if self._control is not None:
                _log.addHandler(self._control.events)
            self._touch.begin(time.monotonic())
            try:
                self._do(self._pool.start(time.monotonic()))
                while self._finish is None or self._lingers():
                    self._step()
            finally:
                self._end()
        return self._finish

    def _take_commands(self) -> None:
        if self._control is not None:
            listener = self._control.listener.fileno()
            self._dispatcher.watch(listener, token(Watched.COMMANDS))

    def _lingers(self) -> bool:
        """All workers have ended, but not all that we have for the next supervisor is there."""
        if self._counting is None or time.monotonic() >= self._linger_end:
            return False
        return self._dispatcher.held > 0

    def set_limits(self, limits: Limits) -> None:
        """Those of the workers that are ready from now on."""
        self._watch.given = limits

    # One round

    def _step(self) -> None:
        times = [self._pool.deadline(), self._watch.deadline(), self._notify.deadline()]
        times.append(self._touch.deadline())
        if self._counting is not None:
            times.append(self._counting.deadline())
        if self._finish is not None:
            times.append(time.monotonic() + _LOOK_AGAIN)
        deadline = min((at for at in times if at is not None), default=None)
        for event in self._dispatcher.wait(deadline):
            self._now = time.monotonic()
            self._guarded(self._happened, event)
        self._now = time.monotonic()
        self._guarded(self._tick)

    def _guarded(self, act: Callable[..., None], *arguments: object) -> None:
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

    def _happened(self, event: tuple[object, ...]) -> None:
        match event:
            case (_core.EVENT_READABLE, int(token)):
                self._readable(Watched(token % _KINDS), token // _KINDS)
            case (_core.EVENT_NEWS, 0, int(slot), int(word), str(text)):
                self._heard(slot, word, text)
            case (_core.EVENT_REFUSED, 0, str(text)):
                _log.warning(say.REFUSED, text)
            case (_core.EVENT_DRAINED,):
                self._do(self._pool.queue_empty(self._now))

    def _readable(self, kind: Watched, number: int) -> None:
        match kind:
            case Watched.SIGNALS:
                for signal_number in self._wakeup[0].recv(64):
                    self._guarded(self._signalled, signal_number)
            case Watched.CONTROL:
                self._hear_template(number)
            case Watched.TEMPLATE:
                self._template_ended(number)
            case Watched.EXPORTER:
                self._exporter_ended()
            case Watched.WORKER:
                self._worker_ended(number)
            case Watched.WATCHER:
                self._watcher_ended()
            case Watched.COMMANDS:
                self._client_came()
            case Watched.CLIENT:
                self._client_said(number)
            case Watched.FILES:
                self._touch.changed(self._now)
            case Watched.SUCCESSOR:
                self._successor_ended()
            case Watched.HEIR:
                self._hear_successor()
            case Watched.PREDECESSOR:
                self._hear_predecessor()

    def _tick(self) -> None:
        self._do(self._pool.tick(self._now))
        if actions := self._watch.look(self._workers, self._now):
            self._do(actions)
        self._touch.tick(self._now)
        self._notify.tick(self._now, self._progress.made, self._progress.describe)
        if self._counting is not None:
            self._counting.tick(self._now)
        if self._zombies:
            self._reap_orphans()

    # Signals

    def _signalled(self, number: int) -> None:
        name = processes.signal_name(number)
        match number:
            case signal.SIGTERM | signal.SIGINT | signal.SIGQUIT:
                if self._pool.state is not ServerState.DRAINING or self._pool.has_left:
                    _log.info(say.STOPS, name)
                self._do(self._pool.stop(self._now))
            case signal.SIGHUP:
                self._reload(name)
            case signal.SIGUSR2:
                self._upgrade(name)
            case signal.SIGUSR1:
                _log.info(say.LOGS_REOPENED, name)
                self._reopen()
            case signal.SIGCHLD:
                self._zombies = True
            case _:
                _log.warning(say.SIGNAL_WITHOUT_MEANING, name)

    def _reload(self, why: str) -> None:
        if self._pool.state is ServerState.DRAINING:
            _log.warning(say.NO_RELOAD, why)
            return
        _log.info(say.RELOADS, why)
        self._do(self._pool.reload(self._now))

    def _touched(self, path: Path) -> None:
        if is_there(path):  # one that is gone will come again
            self._reload(f"{path} has changed")

    def _look_after_maintenance(self) -> None:
        assert self._maintenance is not None
        there = is_there(self._maintenance)
        self._row.maintenance = int(there)
        if there != self._in_maintenance:
            self._in_maintenance = there
            _log.warning(say.MAINTENANCE if there else say.MAINTENANCE_OVER, self._maintenance)

    def _upgrade(self, why: str) -> None:
        try:
            actions = self.upgrade()
        except Unfit as error:
            _log.warning(say.NO_UPGRADE, why, error)
            return
        _log.info(say.UPGRADES, why)
        self._do(actions)

    def upgrade(self) -> list[Action]:
        """What the pool wants done for one. Raises Unfit."""
        if self._seat is None or self._seat.refusal:
            raise Unfit("nobody can take over here" if self._seat is None else self._seat.refusal)
        if self._predecessor is not None:
            raise Unfit("the server that this one has followed still ends; try again when it has")
        return self._pool.upgrade(self._now)

    def _reopen(self) -> None:
        self._reopen_logs()
        for template in self._templates.values():
            self._guarded(template.send, messages.Reopen())
        for worker in self._workers.values():
            self._guarded(worker.signal, signal.SIGUSR1)

    # What control clients say

    def _client_came(self) -> None:
        assert self._control is not None
        client = self._control.accept()
        if client is not None:
            self._dispatcher.watch(client, token(Watched.CLIENT, client))
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
        self._dispatcher.unwatch(client)
        self._control.close(client)

    def _reload_ended(self, action: do.TookOver | do.ReloadFailed) -> None:
        self._notify.ready()
        if self._control is not None:
            for client in self._control.ended(action):
                self._client_gone(client)

    def _ask_stacks(self, slot: int) -> int:
        return self._stacks.ask(slot, self._workers[slot].signal)

    # Who takes our place, and whose we take

    def _start_successor(self) -> None:
        assert self._seat is not None
        self._notify.reloading()
        try:
            self._successor = self._seat.start(
                self._pool.generations.serving.number, self._pool.wanted
            )
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing has changed
            text = f"the new supervisor cannot be started: {error}"
            self._do(self._pool.successor_exited(text, self._now))
            return
        if self._control is not None:
            self._control.successor = self._successor.pid
        self._dispatcher.watch(self._successor.pidfd, token(Watched.SUCCESSOR))
        self._dispatcher.watch(self._successor.channel.fileno(), token(Watched.HEIR))

    def _hear_successor(self) -> None:
        if self._successor is None:
            return  # its end was in the same round
        for word in self._successor.words():
            match word:
                case handover.Ready():
                    self._successor.ready = word
                    self._do(self._pool.successor_ready(self._now))
                case handover.Failed(text):
                    self._do(self._pool.successor_failed(text, self._now))
                case None:  # its end, as a rule, which its pidfd tells
                    self._successor.is_silent = True
                    self._dispatcher.unwatch(self._successor.channel.fileno())
                case _:
                    raise Unfit(f"the new supervisor said {word}")

    def _successor_ended(self) -> None:
        successor = self._successor
        if successor is None or not processes.has_ended(successor.pidfd):
            return
        for word in successor.words():  # why it has, above all
            if isinstance(word, handover.Failed):
                self._do(self._pool.successor_failed(word.text, self._now))
        ending = processes.reap(successor.pidfd)
        self._dispatcher.unwatch(successor.pidfd)
        if not successor.is_silent:
            self._dispatcher.unwatch(successor.channel.fileno())
        self._successor = None
        self._counting = None
        if self._pool.has_left:
            _log.error(say.SUCCESSOR_ENDED, ending)
        text = f"the new supervisor {ending}; its messages are above"
        successor.close()
        self._do(self._pool.successor_exited(text, self._now))

    def _hand_over(self, action: do.HandOver) -> None:
        """Give our place away. What nobody takes is served to its end here."""
        assert self._seat is not None
        assert self._successor is not None
        if self._control is not None:
            self._dispatcher.unwatch(self._control.listener.fileno())
        self._dispatcher.bequeath(self._successor.connections.fileno())
        self._seat.leave(self._successor.ready)
        self._notify.succeeded_by(self._successor.pid)
        self._counting = Counting(self._seat.board_fd, self._successor.channel)
        self._counting.say(handover.TakeOver(self._pool.wanted, action.reload))
        _log.info(say.LEFT, self._successor.pid)

    def _hear_predecessor(self) -> None:
        if self._predecessor is None:
            return
        for word in self._predecessor.words(self._board):
            match word:
                case handover.TakeOver():
                    self._take_over(word)
                case handover.Totals():
                    continue  # they are in the scoreboard
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
        if predecessor.connections is None:
            _log.warning(say.CONNECTIONS_UNKNOWN)
        else:
            connections = predecessor.connections.fileno()
            self._dispatcher.inherit(connections, predecessor.translation)
        self._dispatcher.accept(True)
        self._take_commands()
        self._row.count_upgrade(done=True)
        _log.info(say.TOOK_PLACE, predecessor.pid)
        self._do(self._pool.take_over(self._now))
        if word.wanted != predecessor.wanted:  # it has been scaled meanwhile
            self._do(self._pool.scale(word.wanted, self._now))
        if word.reload:
            self._do(self._pool.reload(self._now))

    def _predecessor_ended(self) -> None:
        predecessor, self._predecessor = self._predecessor, None
        assert predecessor is not None
        self._dispatcher.unwatch(predecessor.channel.fileno())
        if predecessor.has_left and predecessor.connections is not None:
            self._dispatcher.inherit_rest()
        predecessor.close()
        if not predecessor.has_left and self._pool.state is not ServerState.DRAINING:
            _log.error(say.PREDECESSOR_ENDED)
            self._do(self._pool.stop(self._now, at_once=True))

    # What workers and templates say

    def _heard(self, slot: int, word: int, text: str) -> None:
        if slot not in self._workers:
            self._hear_templates()  # that it was started may be in the same round
        worker = self._workers.get(slot)
        speaker, _, text = text.partition(" ")
        if worker is None or speaker != str(worker.pid):
            raise Unfit(f"process {speaker} is not the worker in slot {slot}")
        if word == _core.NEWS_READY:
            actions = self._pool.ready(slot, self._now)
            self._rows[slot].ready_at = time.monotonic_ns()
            _log.info(say.WORKER_READY, extra=self._fields(slot))
            self._do(actions)
        elif word == _core.NEWS_FAILED:
            actions = self._pool.worker_failed(slot, text, self._now)
            if self._pool.state is ServerState.SERVING and not actions:
                _log.error(say.WORKER_CANNOT_LOAD, text)
            self._do(actions)
        elif word == _core.NEWS_REPLACE:
            _log.warning(say.WORKER_REPLACED, text, extra=self._fields(slot))
            self._do(self._pool.recycle([slot], self._now, Reason.HANG))
        elif word == _core.NEWS_HUNG:
            fields = {"slot": slot, "worker_pid": worker.pid}
            log.with_stack(logging.ERROR, say.WORKER_HANGS, fields, self._stacks.read(slot))
            self._do(self._pool.kill(slot, "", Reason.HANG, self._now))

    def _hear_templates(self) -> None:
        for generation in list(self._templates):
            self._hear_template(generation)

    def _hear_template(self, generation: int) -> None:
        template = self._templates.get(generation)
        if template is None:
            return  # its end was in the same round, and all that it had said with it
        for message, fd in template.received():
            self._guarded(self._template_said, generation, message, fd)

    def _template_said(self, generation: int, message: messages.Message, fd: int | None) -> None:
        match message:
            case messages.Spawned(number, slot, pid):
                if number != generation or fd is None:
                    self._refuse_worker(slot, pid, fd)
                    self._do(self._pool.spawn_failed(slot, number, "no descriptor", self._now))
                else:
                    self._spawned(generation, slot, pid, fd)
            case messages.Loaded(number) if number == generation:
                self._do(self._pool.loaded(generation, self._now))
            case messages.LoadFailed(number, text) if number == generation:
                actions = self._pool.load_failed(generation, text, self._now)
                if self._pool.state is ServerState.SERVING and not actions:
                    _log.error(say.TEMPLATE_CANNOT_LOAD, text)
                self._do(actions)
            case messages.SpawnFailed(number, slot, text) if number == generation:
                _log.error(
                    say.FORK_FAILED,
                    text,
                    extra=self._fields(slot),
                )
                self._do(self._pool.spawn_failed(slot, generation, text, self._now))
            case _:
                raise Unfit(f"the template of generation {generation} said {message}")

    def _spawned(self, generation: int, slot: int, pid: int, pidfd: int) -> None:
        try:
            actions = self._pool.spawned(slot, generation, self._now)
        except Unfit:
            self._refuse_worker(slot, pid, pidfd)
            raise
        self._workers[slot] = Worker(pid, pidfd, generation, served(self._board, slot))
        self._rows[slot].pid = pid
        self._do(actions)
        self._dispatcher.watch(pidfd, token(Watched.WORKER, slot))

    def _refuse_worker(self, slot: int, pid: int, pidfd: int | None) -> None:
        """End a worker that nobody has ordered, or that we have no descriptor to watch."""
        _log.error(say.WORKER_UNWANTED, extra=self._fields(slot))
        if pidfd is not None:
            processes.send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            return
        # A child of ours that was not waited for: the pid cannot be another's.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            os.kill(pid, signal.SIGKILL)

    # Ends of processes

    def _worker_ended(self, slot: int) -> None:
        worker = self._workers.get(slot)
        ending = None if worker is None else processes.reap(worker.pidfd)
        if worker is None or ending is None:
            return  # its end was heard in the same round
        self._zombies = True  # those that it leaves behind are ours now
        # Its last words may still be on their way: why it could not load, above all.
        for event in self._dispatcher.hear(slot):
            self._guarded(self._happened, event)
        del self._workers[slot]
        self._dispatcher.unwatch(worker.pidfd)
        os.close(worker.pidfd)
        reason, words = self._cause(ending)
        state = self._pool.slots[slot].state
        # A signal to stop may have gone to all processes.
        ends = state is State.DRAINING or self._pool.state is ServerState.DRAINING
        planned = ends and ending.status == 0
        # Of one that was killed that was said when it was.
        level = logging.INFO if planned or state is State.KILLED else logging.ERROR
        if state is State.KILLED and self._pool.failed:
            level = logging.DEBUG  # why the server does not start is said, and nothing else
        text, fields = postmortem(self._board, slot, worker, words)
        level = logging.ERROR if fields["lost"] else level
        _log.log(level, say.WORKER_ENDED, text, extra={"fields": fields})
        self._do(self._pool.exited(slot, reason, self._now))

    def _cause(self, ending: Ending) -> tuple[Reason, str]:
        if self._out_of_memory.happened() and ending.signal == signal.SIGKILL:
            return Reason.OOM, "was killed by the kernel: out of memory"
        return (Reason.SIGNAL if ending.signal else Reason.EXIT), str(ending)

    def _template_ended(self, generation: int) -> None:
        template = self._templates.get(generation)
        if template is None or not processes.has_ended(template.child.pidfd):
            return
        self._hear_template(generation)
        del self._templates[generation]
        self._dispatcher.unwatch(template.control.fileno())
        self._dispatcher.unwatch(template.child.pidfd)
        template.close()
        ending = template.child.reap()
        told = self._pool.generations.find(generation).template.state is State.DRAINING
        text = f"the template {ending}; its messages are above"
        actions = self._pool.template_exited(generation, text, self._now)
        if not told and self._pool.state is ServerState.SERVING:
            _log.error(say.TEMPLATE_ENDED, ending, extra={"fields": {"generation": generation}})
        self._do(actions)

    def _exporter_ended(self) -> None:
        if self._exporter is None or not processes.has_ended(self._exporter.pidfd):
            return
        self._dispatcher.unwatch(self._exporter.pidfd)
        exporter, self._exporter = self._exporter, None
        ending = exporter.reap()
        if self._pool.state is not ServerState.DRAINING and not self._pool.is_upgrading:
            _log.error(say.EXPORTER_ENDED, ending)
        self._do(self._pool.exporter_exited(self._now))

    def keep_watcher(self, watcher: Child) -> None:
        """It is ours to look after, and to end."""
        self._watcher = watcher
        self._dispatcher.watch(watcher.pidfd, token(Watched.WATCHER))

    def end_watcher(self) -> None:
        if self._watcher is not None:
            self._dispatcher.unwatch(self._watcher.pidfd)
            watcher, self._watcher = self._watcher, None
            watcher.end(0)

    def _watcher_ended(self) -> None:
        if self._watcher is None or not processes.has_ended(self._watcher.pidfd):
            return
        self._dispatcher.unwatch(self._watcher.pidfd)
        watcher, self._watcher = self._watcher, None
        _log.error(say.WATCHER_ENDED, watcher.reap())

    def _reap_orphans(self) -> None:
        """End the zombies of processes that applications have left; we adopt them."""
        self._hear_templates()  # of a worker that we are about to know
        last = 0
        while pid := processes.zombie(self._others):
            if pid == last:
                return  # what ends it has failed; in the next round again
            last = pid
            self._ended(pid)
        self._zombies = False

    def _ended(self, pid: int) -> None:
        """End the zombie of a child, as its pidfd would have us do if we know it."""
        for slot, worker in list(self._workers.items()):
            if worker.pid == pid:
                return self._worker_ended(slot)
        for generation, template in list(self._templates.items()):
            if template.child.pid == pid:
                return self._template_ended(generation)
        if self._exporter is not None and self._exporter.pid == pid:
            return self._exporter_ended()
        if self._successor is not None and self._successor.pid == pid:
            return self._successor_ended()
        if self._watcher is not None and self._watcher.pid == pid:
            return self._watcher_ended()
        os.waitpid(pid, os.WNOHANG)

    # What the pool wants

    def _do(self, actions: list[Action]) -> None:
        spawn: dict[int, list[int]] = {}
        for action in actions:
            match action:
                case do.Spawn(slot, generation):
                    spawn.setdefault(generation, []).append(slot)
                case _:
                    self._guarded(self._carry_out, action)
        for generation, slots in spawn.items():
            self._guarded(self._spawn, generation, slots)
        self._guarded(self._show)

    def _carry_out(self, action: Action) -> None:
        match action:
            case do.StartTemplate(generation):
                self._open_template(generation)
            case do.QuitTemplate(generation):
                if generation in self._templates:
                    self._templates[generation].send(messages.Quit())
            case do.KillTemplate(generation, why):
                if why:
                    fields = {"generation": generation}
                    _log.error(say.TEMPLATE_KILLED, why, extra={"fields": fields})
                self._templates[generation].child.signal(signal.SIGKILL)
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
            case do.UpgradeFailed(text):
                self._row.count_upgrade(done=False)
                _log.error(say.UPGRADE_FAILED, text)
                self._notify.ready()
                if self._control is not None:
                    self._control.upgrade_failure = text
            case do.HandOver():
                self._hand_over(action)
            case do.SayReady():
                assert self._predecessor is not None
                self._predecessor.say(self._predecessor.taken)
            case do.Enable(slot):
                self._enable(slot, True)
            case do.Disable(slot):
                self._enable(slot, False)
            case do.Drain(slot):
                self._workers[slot].signal(signal.SIGTERM)
            case do.Kill(slot, why):
                if why:
                    _log.error(say.WORKER_KILLED, why, extra=self._fields(slot))
                self._workers[slot].signal(signal.SIGKILL)
            case do.Bury(slot, reason):
                self._bury(slot, reason)
            case do.StopAccepting():
                self._notify.stopping()
                self._dispatcher.stop()
                # A client that comes now is refused at once, and may go elsewhere.
                self._stop_listening()
            case do.LastCall():
                self._dispatcher.last_call()
            case do.Announce():
                self._notify.ready()
                self._announce()
            case do.TookOver(generation):
                self._row.count_reload(done=True)
                _log.info(say.TOOK_OVER, generation)
                self._reload_ended(action)
            case do.ReloadFailed(generation, text):
                self._row.count_reload(done=False)
                _log.error(say.RELOAD_FAILED, text)
                self._reload_ended(action)
            case do.Finish():
                self._finish = action
                self._linger_end = time.monotonic() + _LINGER
                if self._predecessor is not None and action.text:
                    self._predecessor.say(handover.Failed(action.text[: messages.LONGEST_TEXT]))

    def _enable(self, slot: int, on: bool) -> None:
        self._dispatcher.enable(slot, on)
        (self._enabled.add if on else self._enabled.discard)(slot)

    def _spawn(self, generation: int, slots: list[int]) -> None:
        for slot in slots:
            self._rows[slot].spawned_at = time.monotonic_ns()
            self._rows[slot].slot_generation = generation
        self._templates[generation].send(messages.Spawn(slots))

    def _bury(self, slot: int, reason: Reason | None) -> None:
        """All that the worker leaves behind."""
        count = self._dispatcher.reclaim(slot)
        if count:
            _log.info(say.CONNECTIONS_MOVE, count)
        self._board.bury(slot)
        self._rows[slot].pid = 0
        self._rows[slot].ready_at = 0
        if reason is not None:
            self._rows[slot].count_restart(reason)

    def _show(self) -> None:
        pool = self._pool
        self._row.state = int(pool.state)
        self._row.generation = pool.generations.serving.number
        self._row.wanted = pool.wanted
        for slot, place in enumerate(pool.slots):
            self._rows[slot].state = int(place.state)
            ready = place.state is State.READY
            if ready != (slot in self._enabled):  # it failed when it was due
                self._enable(slot, ready)
        if self._control is not None:
            for client in self._control.settled():
                self._client_gone(client)

    def _fields(self, slot: int) -> dict[str, object]:
        worker = self._workers.get(slot)
        return {"fields": {"slot": slot, "worker_pid": worker.pid if worker is not None else 0}}

    # Children

    def _open_template(self, generation: int) -> None:
        if generation != self._pool.generations.serving.number:
            self._notify.reloading()
        try:
            template = self._start_template(generation)
        except Exception as error:  # noqa: BLE001 - whatever it was, the pool tries again
            text = f"the application cannot be loaded: {error}"
            actions = self._pool.template_not_started(generation, text, self._now)
            if not actions:
                _log.error(say.TEMPLATE_NOT_STARTED, text)
            self._do(actions)
            return
        self._templates[generation] = template
        self._dispatcher.watch(template.control.fileno(), token(Watched.CONTROL, generation))
        self._dispatcher.watch(template.child.pidfd, token(Watched.TEMPLATE, generation))

    def _open_exporter(self) -> None:
        assert self._start_exporter is not None
        try:
            self._exporter = self._start_exporter()
        except Exception as error:  # noqa: BLE001 - whatever it was, the pool tries again
            _log.error(say.EXPORTER_NOT_STARTED, error)
            self._do(self._pool.exporter_exited(self._now))
            return
        self._do(self._pool.exporter_started(self._now))
        self._dispatcher.watch(self._exporter.pidfd, token(Watched.EXPORTER))

    def _end(self) -> None:
        self._touch.close()
        self.end_watcher()
        if self._control is not None:
            self._control.stopping()
            _log.removeHandler(self._control.events)
        for worker in self._workers.values():  # only if the loop itself has failed
            worker.signal(signal.SIGKILL)
        for template in self._templates.values():
            template.send(messages.Quit())
        end = time.monotonic() + LAST_WORDS
        for template in self._templates.values():
            template.child.end(max(0.0, end - time.monotonic()))
            template.close()
        if self._exporter is not None:
            self._exporter.signal(messages.END_EXPORTER)
            self._exporter.end(LAST_WORDS)
        if self._counting is not None:
            self._guarded(self._counting.say, handover.Totals())


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
