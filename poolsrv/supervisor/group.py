"""A group as it runs: its templates and workers, and what its pool wants done with them.

Runs in the supervisor. Owns the pidfds of its processes and the control sockets of its
templates; all that it shares with them is the launcher's. It waits for nothing itself: the
supervisor says what has happened, and has each thing carried out on its own.
"""

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from poolsrv import _core, log
from poolsrv import operator_messages as say
from poolsrv.between import messages
from poolsrv.between.lifecycle import ServerState, State, Unfit
from poolsrv.between.scoreboard import WORKER, Row
from poolsrv.supervisor import actions as do
from poolsrv.supervisor.actions import GroupAction, Reason
from poolsrv.supervisor.children import Template, Worker
from poolsrv.supervisor.demand import Demand
from poolsrv.supervisor.host import Host
from poolsrv.supervisor.keepers import Keepers
from poolsrv.supervisor.limits import Limits
from poolsrv.supervisor.pool import Pool
from poolsrv.supervisor.postmortem import answered, postmortem, served
from poolsrv.supervisor.rows import SlotRow, SupervisorRow
from poolsrv.supervisor.stacks import Stacks
from poolsrv.supervisor.watch import Watch
from poolsrv.system import processes
from poolsrv.system.processes import Ending

_log = logging.getLogger("poolsrv")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the launcher has made for a group. `channels` are (ours, the worker's) by slot."""

    name: str
    pool: Pool
    dispatcher: _core.Dispatcher
    board: _core.Scoreboard
    channels: Sequence[tuple[socket.socket, socket.socket]]
    start_template: Callable[[int], Template]
    stacks: Stacks
    limits: Callable[[], Limits] = Limits
    idle_timeout: Callable[[], float] = lambda: 0.0


class Group:
    """`number` is its place among the groups of the server. `label` is what names it in the
    fields of a log record: empty if there is no other."""

    def __init__(self, number: int, parts: Parts, label: dict[str, object], host: Host) -> None:
        self.number = number
        self.pool = parts.pool
        self.dispatcher = parts.dispatcher
        self.board = parts.board
        self.row = SupervisorRow(parts.board)
        self.watch = Watch(parts.pool, parts.board, parts.limits, label)
        self.demand = Demand(parts.pool, parts.board, parts.idle_timeout, label)
        self.keepers = Keepers(host, label)
        self.templates: dict[int, Template] = {}  # by generation
        self.workers: dict[int, Worker] = {}  # by slot
        self.refuses = False  # what waits for a thread, or will
        self._label = label
        self._host = host
        self._stacks = parts.stacks
        self._start_template = parts.start_template
        self._rows = [SlotRow(parts.board, slot) for slot in range(len(parts.pool.slots))]
        self._enabled: set[int] = set()
        for slot, (ours, theirs) in enumerate(parts.channels):
            parts.dispatcher.channel(slot, ours.fileno(), theirs.fileno())

    def close_in_child(self) -> None:
        """In a child just forked: close the copies of what only the supervisor uses."""
        for template in self.templates.values():
            template.close()
            os.close(template.child.pidfd)
        for worker in self.workers.values():
            os.close(worker.pidfd)
        self.keepers.close_in_child()

    def knows(self, pid: int) -> Callable[[], None] | None:
        """What is to be done at the end of that process, if it is one of ours."""
        for slot, worker in self.workers.items():
            if worker.pid == pid:
                return lambda: self._worker_ended(slot)
        for generation, template in self.templates.items():
            if template.child.pid == pid:
                return lambda: self._template_ended(generation)
        return None

    # What workers and templates say

    def heard(self, slot: int, word: int, text: str) -> None:
        """A worker has said something."""
        if slot not in self.workers:
            self.hear_templates()  # that it was started may be in the same round
        worker = self.workers.get(slot)
        speaker, _, text = text.partition(" ")
        if worker is None or speaker != str(worker.pid):
            raise Unfit(f"process {speaker} is not the worker in slot {slot}")
        now = self._host.now
        if word == _core.NEWS_READY:
            actions = self.pool.ready(slot, now)
            self._rows[slot].ready_at = time.monotonic_ns()
            _log.info(say.WORKER_READY, extra=self._fields(slot))
            self.act(actions)
        elif word == _core.NEWS_FAILED:
            actions = self.pool.worker_failed(slot, text, now)
            if self.pool.state is ServerState.SERVING and not actions:
                _log.error(say.WORKER_CANNOT_LOAD, text, extra=self._named())
            self.act(actions)
        elif word == _core.NEWS_REPLACE:
            _log.warning(say.WORKER_REPLACED, text, extra=self._fields(slot))
            self.act(self.pool.recycle([slot], now, Reason.HANG))
        elif word == _core.NEWS_HUNG:
            fields = {"slot": slot, "worker_pid": worker.pid, **self._label}
            log.with_stack(logging.ERROR, say.WORKER_HANGS, fields, self._stacks.read(slot))
            self.act(self.pool.kill(slot, "", Reason.HANG, now))

    def hear_templates(self) -> None:
        """What they have said by now."""
        for generation in list(self.templates):
            self._hear_template(generation)

    def _hear_template(self, generation: int) -> None:
        template = self.templates.get(generation)
        if template is None:
            return  # its end was in the same round, and all that it had said with it
        for message, fd in template.received():
            self._host.guarded(self._template_said, generation, message, fd)

    def _template_said(self, generation: int, message: messages.Message, fd: int | None) -> None:
        now = self._host.now
        match message:
            case messages.Spawned(number, slot, pid):
                if number != generation or fd is None:
                    self._refuse_worker(slot, pid, fd)
                    self.act(self.pool.spawn_failed(slot, number, "no descriptor", now))
                else:
                    self._spawned(generation, slot, pid, fd)
            case messages.Loaded(number) if number == generation:
                self.act(self.pool.loaded(generation, now))
            case messages.LoadFailed(number, text) if number == generation:
                actions = self.pool.load_failed(generation, text, now)
                if self.pool.state is ServerState.SERVING and not actions:
                    _log.error(say.TEMPLATE_CANNOT_LOAD, text, extra=self._named())
                self.act(actions)
            case messages.SpawnFailed(number, slot, text) if number == generation:
                _log.error(
                    say.FORK_FAILED,
                    text,
                    extra=self._fields(slot),
                )
                self.act(self.pool.spawn_failed(slot, generation, text, now))
            case _:
                raise Unfit(f"the template of generation {generation} said {message}")

    def _spawned(self, generation: int, slot: int, pid: int, pidfd: int) -> None:
        try:
            actions = self.pool.spawned(slot, generation, self._host.now)
        except Unfit:
            self._refuse_worker(slot, pid, pidfd)
            raise
        before = served(self.board, slot), answered(self.board, slot)
        self.workers[slot] = Worker(pid, pidfd, generation, *before)
        self._rows[slot].pid = pid
        self.act(actions)
        self._host.watch(pidfd, lambda: self._worker_ended(slot))

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
        worker = self.workers.get(slot)
        ending = None if worker is None else processes.reap(worker.pidfd)
        if worker is None or ending is None:
            return  # its end was heard in the same round
        self._host.zombies = True  # those that it leaves behind are ours now
        self.keepers.left(Row(WORKER, self.board.worker(slot))["keeper"])
        # Its last words may still be on their way: why it could not load, above all.
        for event in self.dispatcher.hear(slot):
            self._host.guarded(self._host.happened, event)
        del self.workers[slot]
        self._host.unwatch(worker.pidfd)
        os.close(worker.pidfd)
        reason, words = self._cause(ending)
        state = self.pool.slots[slot].state
        # A signal to stop may have gone to all processes.
        ends = state is State.DRAINING or self.pool.state is ServerState.DRAINING
        planned = ends and ending.status == 0
        # Of one that was killed that was said when it was.
        level = logging.INFO if planned or state is State.KILLED else logging.ERROR
        if state is State.KILLED and self._host.failed:
            level = logging.DEBUG  # why the server does not start is said, and nothing else
        text, fields = postmortem(self.board, slot, worker, words)
        level = logging.ERROR if fields["lost"] else level
        _log.log(level, say.WORKER_ENDED, text, extra=self._named(fields))
        proven = answered(self.board, slot) > worker.answered_before
        self.act(self.pool.exited(slot, reason, self._host.now, answered=proven))

    def _cause(self, ending: Ending) -> tuple[Reason, str]:
        if self._host.out_of_memory.happened() and ending.signal == signal.SIGKILL:
            return Reason.OOM, "was killed by the kernel: out of memory"
        return (Reason.SIGNAL if ending.signal else Reason.EXIT), str(ending)

    def _template_ended(self, generation: int) -> None:
        template = self.templates.get(generation)
        if template is None or not processes.has_ended(template.child.pidfd):
            return
        self._hear_template(generation)
        del self.templates[generation]
        self._host.unwatch(template.control.fileno())
        self._host.unwatch(template.child.pidfd)
        template.close()
        ending = template.child.reap()
        told = self.pool.generations.find(generation).template.state is State.DRAINING
        text = f"the template {ending}; its messages are above"
        actions = self.pool.template_exited(generation, text, self._host.now)
        if not told and self.pool.state is ServerState.SERVING:
            fields = {"generation": generation}
            _log.error(say.TEMPLATE_ENDED, ending, extra=self._named(fields))
        self.act(actions)

    # What the pool wants

    def act(self, actions: Iterable[GroupAction]) -> None:
        """Carry them out, in order; spawns at the end, those of a template in one message.

        To be called after whatever the pool was asked, also if it wants nothing.
        """
        self._host.stir(self.number)
        spawn: dict[int, list[int]] = {}
        for action in actions:
            match action:
                case do.Spawn(slot, generation):
                    spawn.setdefault(generation, []).append(slot)
                case _:
                    self._host.guarded(self._carry_out, action)
        for generation, slots in spawn.items():
            self._host.guarded(self._spawn, generation, slots)
        self._host.guarded(self.show)

    def _carry_out(self, action: GroupAction) -> None:
        match action:
            case do.StartTemplate(generation):
                self._open_template(generation)
            case do.QuitTemplate(generation):
                if generation in self.templates:
                    self.templates[generation].send(messages.Quit())
            case do.KillTemplate(generation, why):
                if why:
                    fields = {"generation": generation}
                    _log.error(say.TEMPLATE_KILLED, why, extra=self._named(fields))
                self.templates[generation].child.signal(signal.SIGKILL)
            case do.Enable(slot):
                self._enable(slot, True)
            case do.Disable(slot):
                self._enable(slot, False)
            case do.Drain(slot):
                self.workers[slot].signal(signal.SIGTERM)
                self.workers[slot].signal(signal.SIGCONT)  # it may have been stopped
            case do.Kill(slot, why):
                if why:
                    _log.error(say.WORKER_KILLED, why, extra=self._fields(slot))
                self.workers[slot].signal(signal.SIGKILL)
            case do.Bury(slot, reason):
                self._bury(slot, reason)
            case do.LastCall():
                self.dispatcher.last_call()
                self.refuses = True
            case do.TookOver(generation):
                self.row.count_reload(done=True)
                _log.info(say.TOOK_OVER, generation, extra=self._named())
                self._host.reload_ends(self.number, action)
            case do.ReloadFailed(generation, text):
                self.row.count_reload(done=False)
                _log.error(say.RELOAD_FAILED, text, extra=self._named())
                self._host.reload_ends(self.number, action)

    def _enable(self, slot: int, on: bool) -> None:
        self.dispatcher.enable(slot, on)
        (self._enabled.add if on else self._enabled.discard)(slot)

    def _spawn(self, generation: int, slots: list[int]) -> None:
        for slot in slots:
            self._rows[slot].spawned_at = time.monotonic_ns()
            self._rows[slot].slot_generation = generation
        self.templates[generation].send(messages.Spawn(slots))

    def _bury(self, slot: int, reason: Reason | None) -> None:
        """All that the worker leaves behind."""
        count = self.dispatcher.reclaim(slot)
        if count:
            _log.info(say.CONNECTIONS_MOVE, count, extra=self._named())
        self.board.bury(slot)
        self._rows[slot].pid = 0
        self._rows[slot].ready_at = 0
        if reason is not None:
            self._rows[slot].count_restart(reason)

    def _open_template(self, generation: int) -> None:
        if generation != self.pool.generations.serving.number:
            self._host.reload_begins()
        try:
            template = self._start_template(generation)
        except Exception as error:  # noqa: BLE001 - whatever it was, the pool tries again
            text = f"the application cannot be loaded: {error}"
            actions = self.pool.template_not_started(generation, text, self._host.now)
            if not actions:
                _log.error(say.TEMPLATE_NOT_STARTED, text, extra=self._named())
            self.act(actions)
            return
        self.templates[generation] = template
        self._host.watch(template.control.fileno(), lambda: self._hear_template(generation))
        self._host.watch(template.child.pidfd, lambda: self._template_ended(generation))

    def show(self) -> None:
        """The rows of the scoreboard say what is; who is ready has work."""
        pool = self.pool
        self.row.generation = pool.generations.serving.number
        self.row.wanted = pool.wanted
        for slot, place in enumerate(pool.slots):
            self._rows[slot].state = int(place.state)
            ready = place.state is State.READY
            if ready != (slot in self._enabled):  # it failed when it was due
                self._enable(slot, ready)

    # Of all its processes

    def tick(self) -> None:
        """Look after the workers, if it is time."""
        for look in (partial(self.watch.look, self.workers), self.demand.look):
            if actions := look(self._host.now):
                self.act(actions)
        self.keepers.tick()

    def deadline(self) -> float | None:
        """When `tick` should be called next."""
        times = [self.pool.deadline(), self.demand.deadline(), self.keepers.deadline()]
        if self.workers:
            times.append(self.watch.deadline())
        return min((at for at in times if at is not None), default=None)

    def wanted(self) -> None:
        """A request waits, and no worker is there."""
        if actions := self.demand.wake(self._host.now):
            _log.info(say.GROUP_WAKES, extra=self._named())
        self.act(actions)

    def reopen_logs(self) -> None:
        for template in self.templates.values():
            self._host.guarded(template.send, messages.Reopen())
        for worker in self.workers.values():
            self._host.guarded(worker.signal, signal.SIGUSR1)

    def ask_stacks(self, slot: int) -> int:
        """Have the worker write its stacks; where it does."""
        return self._stacks.ask(slot, self.workers[slot].signal)

    def kill_all(self) -> None:
        """At the end: workers are left only if the loop itself has failed."""
        for worker in self.workers.values():
            worker.signal(signal.SIGKILL)
        for template in self.templates.values():
            template.send(messages.Quit())

    def end(self, until: float) -> None:
        """Wait for the templates."""
        for template in self.templates.values():
            template.child.end(max(0.0, until - time.monotonic()))
            template.close()
        self.keepers.end()

    def _named(self, fields: Mapping[str, object] | None = None) -> dict[str, dict[str, object]]:
        return {"fields": {**(fields or {}), **self._label}}

    def _fields(self, slot: int) -> dict[str, dict[str, object]]:
        worker = self.workers.get(slot)
        pid = worker.pid if worker is not None else 0
        return self._named({"slot": slot, "worker_pid": pid})
