"""The supervisor: turns what happens into events for the pool, and does what it says.

Runs in the supervisor, on its only thread. The C dispatcher is the one place
that waits; it returns only for what needs policy. Owns the listeners, the
channels and the scoreboard; knows templates and the exporter by their pidfds.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from poolsrv import _core, messages
from poolsrv.lifecycle import ServerState, State
from poolsrv.supervisor import pool as policy
from poolsrv.supervisor.children import SIGNALS, Child, Template
from poolsrv.supervisor.pool import Pool, Reason

_log = logging.getLogger("poolsrv")

# Tokens of the dispatcher's watched descriptors; workers' pidfds follow.
_SIGNALS, _CONTROL, _TEMPLATE, _EXPORTER, _FIRST_WORKER = range(5)

# A template or an exporter that dies is started again, but not in a tight loop.
_PAUSE = 1.0

# What they may take to end once nothing is left to do: code that the application
# has imported may have a say in it.
_LAST_WORDS = 5.0


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
    ) -> None:
        self._pool = pool
        self._dispatcher = dispatcher
        self._board = board
        self._start_template = start_template
        self._start_exporter = start_exporter
        self._announce = announce
        self._stop_listening = stop_listening
        self._template: Template | None = None
        self._template_due: float | None = None
        self._exporter: Child | None = None
        self._exporter_due: float | None = None
        self._workers: dict[int, tuple[int, int]] = {}  # slot -> pid, pidfd
        self._wakeup: tuple[socket.socket, ...] = ()
        self._killed_by_kernel = _oom_kills()
        self._finish: policy.Finish | None = None
        self._generation = 1
        for slot, (ours, theirs) in enumerate(channels):
            dispatcher.channel(slot, ours.fileno(), theirs.fileno())

    def close_in_child(self) -> None:
        """In a child just forked: close the copies of what only the supervisor uses."""
        for end in self._wakeup:
            end.close()
        if self._exporter is not None:
            os.close(self._exporter.pidfd)
        if self._template is not None:
            self._template.close()
            os.close(self._template.child.pidfd)
        for _, pidfd in self._workers.values():
            os.close(pidfd)

    def run(self) -> policy.Finish:
        """Serve until the pool says that nothing is left to do."""
        self._board.set("supervisor", 0, "started_at", time.monotonic_ns())
        with _signals() as self._wakeup:
            wakeup = self._wakeup[0]
            self._dispatcher.watch(wakeup.fileno(), _SIGNALS)
            self._open_exporter()
            self._open_template()
            try:
                while self._finish is None:
                    self._step(wakeup)
            finally:
                self._end()
        return self._finish

    # One round

    def _step(self, wakeup: socket.socket) -> None:
        times = (self._pool.deadline(), self._template_due, self._exporter_due)
        deadline = min((at for at in times if at is not None), default=None)
        for event in self._dispatcher.wait(deadline):
            now = time.monotonic()
            match event:
                case ():
                    self._do(self._pool.queue_empty(now))
                case (token,):
                    self._readable(token, wakeup, now)
                case (slot, word, text):
                    self._heard(slot, word, text, now)
        now = time.monotonic()
        self._do(self._pool.tick(now))
        if self._template_due is not None and self._template_due <= now:
            self._open_template()
        if self._exporter_due is not None and self._exporter_due <= now:
            self._open_exporter()

    def _readable(self, token: int, wakeup: socket.socket, now: float) -> None:
        match token:
            case 0:  # _SIGNALS
                for number in wakeup.recv(64):
                    self._signalled(signal.Signals(number), now)
            case 1:  # _CONTROL
                self._template_said(now)
            case 2:  # _TEMPLATE
                self._template_ended(now)
            case 3:  # _EXPORTER
                self._exporter_ended(now)
            case _:
                self._orphan_ended(token - _FIRST_WORKER, now)

    def _signalled(self, number: signal.Signals, now: float) -> None:
        if number is signal.SIGHUP:
            _log.warning("SIGHUP: reloading is not built yet; restart the server instead")
            return
        if self._pool.state is not ServerState.DRAINING:
            _log.info("%s: finishing what runs; once more stops at once", number.name)
        self._do(self._pool.stop(now))

    def _heard(self, slot: int, word: int, text: str, now: float) -> None:
        if word == _core.WORD_READY:
            if slot not in self._workers:
                return  # its last word came after its end
            self._board.set("slot", slot, "ready_at", time.monotonic_ns())
            fields = {"slot": slot, "worker": self._pid(slot)}
            _log.info("worker is ready", extra={"fields": fields})
            self._do(self._pool.ready(slot, now))
        elif word == _core.WORD_FAILED:
            if self._pool.state is ServerState.SERVING:
                _log.error("worker cannot load the application: %s", text)
            self._do(self._pool.load_failed(text, now))

    def _template_said(self, now: float) -> None:
        if self._template is None:
            return  # its end was in the same round, and all that it had said with it
        for message, fd in self._template.received():
            match message:
                case messages.Loaded():
                    self._do(self._pool.start(now))
                case messages.LoadFailed(text):
                    self._do(self._pool.load_failed(text, now))
                case messages.Spawned(slot, pid):
                    assert fd is not None
                    self._workers[slot] = (pid, fd)
                    self._board.set("slot", slot, "pid", pid)
                    if self._pool.slots[slot].state is State.KILLED:
                        self._signal(slot, signal.SIGKILL)
                case messages.Exited(slot, _, status):
                    self._worker_ended(slot, status, now)

    # Ends of processes

    def _worker_ended(self, slot: int, status: int | None, now: float) -> None:
        # Its last words may still be on their way: why it could not load, above all.
        for _, word, text in self._dispatcher.hear(slot):
            self._heard(slot, word, text, now)
        pid, pidfd = self._workers.pop(slot)
        os.close(pidfd)
        reason, words = self._cause(status)
        planned = self._pool.slots[slot].state in (State.DRAINING, State.KILLED)
        level = logging.INFO if planned and reason is Reason.EXIT else logging.ERROR
        if self._pool.slots[slot].state is State.KILLED:
            level = logging.INFO  # said when it was killed
        _log.log(level, "worker %s", words, extra={"fields": {"slot": slot, "worker": pid}})
        self._do(self._pool.exited(slot, reason, now))

    def _cause(self, status: int | None) -> tuple[Reason, str]:
        if status is None:
            return Reason.EXIT, "ended; its template died before it, so nobody knows how"
        if status >= 0:
            return Reason.EXIT, f"exited with status {status}"
        name = signal.Signals(-status).name
        kills = _oom_kills()
        by_kernel = status == -signal.SIGKILL and kills > self._killed_by_kernel
        self._killed_by_kernel = kills
        if by_kernel:
            return Reason.OOM, "was killed by the kernel: out of memory"
        return Reason.SIGNAL, f"was ended by {name}"

    def _template_ended(self, now: float) -> None:
        assert self._template is not None
        self._template_said(now)
        template, self._template = self._template, None
        self._dispatcher.unwatch(template.control.fileno())
        self._dispatcher.unwatch(template.child.pidfd)
        template.close()
        status = template.child.reap()
        # Its workers go on; only nobody else can tell us when they end.
        for slot, (_, pidfd) in self._workers.items():
            self._dispatcher.watch(pidfd, _FIRST_WORKER + slot)
        if self._pool.state is ServerState.STARTING:
            text = f"the template ended with status {status}; its messages are above"
            self._do(self._pool.load_failed(text, now))
        if self._pool.state is ServerState.DRAINING:
            for slot in self._unborn():
                self._do(self._pool.exited(slot, Reason.EXIT, now))
            return
        _log.error("template ended with status %d; starting another", status)
        self._template_due = now + _PAUSE

    def _orphan_ended(self, slot: int, now: float) -> None:
        self._dispatcher.unwatch(self._workers[slot][1])
        self._worker_ended(slot, None, now)

    def _exporter_ended(self, now: float) -> None:
        assert self._exporter is not None
        self._dispatcher.unwatch(self._exporter.pidfd)
        status = self._exporter.reap()
        self._exporter = None
        if self._pool.state is ServerState.DRAINING:
            return  # the signal to stop went to all processes
        _log.error("exporter ended with status %d; starting it again", status)
        self._exporter_due = now + _PAUSE

    # What the pool wants

    def _do(self, actions: list[policy.Action]) -> None:
        spawn: list[int] = []
        for action in actions:
            match action:
                case policy.Spawn(slot):
                    self._board.set("slot", slot, "spawned_at", time.monotonic_ns())
                    self._board.set("slot", slot, "slot_generation", self._generation)
                    spawn.append(slot)
                case policy.Enable(slot):
                    self._dispatcher.enable(slot, True)
                case policy.Disable(slot):
                    self._dispatcher.enable(slot, False)
                case policy.Drain(slot):
                    self._signal(slot, signal.SIGTERM)
                case policy.Kill(slot, why):
                    if why:
                        fields = {"slot": slot, "worker": self._pid(slot)}
                        _log.error("worker %s: killed", why, extra={"fields": fields})
                    self._signal(slot, signal.SIGKILL)
                case policy.Bury(slot, reason):
                    self._bury(slot, reason)
                case policy.StopAccepting():
                    self._dispatcher.stop()
                    # A client that comes now is refused at once, and may go elsewhere.
                    self._stop_listening()
                case policy.Announce():
                    self._announce()
                case policy.Finish():
                    self._finish = action
        if spawn and self._template is not None:  # else the next one will be told
            self._template.send(messages.Spawn(spawn))
        self._show()

    def _bury(self, slot: int, reason: Reason | None) -> None:
        """The post-mortem, and all that the worker leaves behind."""
        now = time.monotonic_ns()
        for thread, _, since, _, method, path, request_id in self._board.current(slot):
            _log.error(
                "request was lost with its worker",
                extra={
                    "fields": {
                        "request": request_id.decode("latin-1"),
                        "method": method.decode("latin-1"),
                        "path": path.decode("latin-1"),
                        "age": f"{(now - since) / 1e9:.3f}s",
                        "slot": slot,
                        "thread": thread,
                    }
                },
            )
        count = self._dispatcher.reclaim(slot)
        if count:
            _log.info("%d connections that the worker had not received go to others", count)
        self._board.bury(slot)
        self._board.set("slot", slot, "pid", 0)
        self._board.set("slot", slot, "ready_at", 0)
        if reason is not None:
            self._board.add("slot", slot, "restarts", 1, word=int(reason))

    def _show(self) -> None:
        self._board.set("supervisor", 0, "state", int(self._pool.state))
        self._board.set("supervisor", 0, "generation", self._generation)
        for slot, place in enumerate(self._pool.slots):
            self._board.set("slot", slot, "state", int(place.state))

    def _pid(self, slot: int) -> int:
        return self._workers[slot][0] if slot in self._workers else 0

    def _signal(self, slot: int, number: int) -> None:
        """By pidfd: never to a stranger that has inherited the pid."""
        if slot not in self._workers:
            return
        try:
            signal.pidfd_send_signal(self._workers[slot][1], number)
        except ProcessLookupError:
            return  # it has just ended; the template is about to say so

    # Children

    def _unborn(self) -> list[int]:
        """Slots whose worker was ordered, and of which no template has told yet."""
        ordered = (State.STARTING, State.KILLED)
        return [
            slot
            for slot, place in enumerate(self._pool.slots)
            if place.state in ordered and slot not in self._workers
        ]

    def _open_template(self) -> None:
        self._template_due = None
        self._template = self._start_template(self._generation)
        self._dispatcher.watch(self._template.control.fileno(), _CONTROL)
        self._dispatcher.watch(self._template.child.pidfd, _TEMPLATE)
        if unborn := self._unborn():  # ordered of the one before
            self._template.send(messages.Spawn(unborn))

    def _open_exporter(self) -> None:
        self._exporter_due = None
        if self._start_exporter is not None:
            self._exporter = self._start_exporter()
            self._dispatcher.watch(self._exporter.pidfd, _EXPORTER)

    def _end(self) -> None:
        for slot in list(self._workers):  # only if the loop itself has failed
            self._signal(slot, signal.SIGKILL)
        if self._template is not None:
            self._template.send(messages.Quit())
            self._template.child.end(_LAST_WORDS)
            self._template.close()
        if self._exporter is not None:
            self._exporter.signal(messages.END_EXPORTER)
            self._exporter.end(_LAST_WORDS)


@contextmanager
def _signals() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of sockets: the first receives the number of each signal that is ours to handle."""
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield receiver, sender
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        sender.close()
        receiver.close()


def _oom_kills() -> int:
    """How often the kernel has killed for want of memory since boot, cgroups included."""
    with open("/proc/vmstat") as lines:  # noqa: PTH123 - a dozen lines of a file of the kernel
        for line in lines:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
