"""A server within one process: `--processes 0`, and `poolsrv.running` for tests.

What are processes elsewhere are threads here: one runs the supervisor's dispatcher, one
watches over the worker's core, the others serve. A connection goes its usual way, from the
dispatcher through a channel to the worker, so there is one way for all. Nobody forks, and
nobody replaces what is lost.

Each thread is a member, and so is the caller. The last to leave closes the descriptors: one
that hangs in the application, and comes back when all others have gone, still finds its own.

Long, because all of these begin and end together.
"""

import contextlib
import dataclasses
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from poolsrv import _core, access_log, exporter
from poolsrv import operator_messages as say
from poolsrv._version import __version__
from poolsrv.between import claims, lost_lines
from poolsrv.between.lifecycle import ServerState, State
from poolsrv.errors import ApplicationError
from poolsrv.listeners import open_admin, open_bound, site_of, url_of
from poolsrv.pages import read_pages
from poolsrv.settings.addresses import TcpAddress
from poolsrv.settings.core import core_options
from poolsrv.settings.mounts import DEFAULT_GROUP, Mount
from poolsrv.settings.rows import Settings
from poolsrv.single.members import Members
from poolsrv.supervisor.maintenance import Maintenance
from poolsrv.supervisor.notify import Notify
from poolsrv.supervisor.rows import SlotRow, SupervisorRow
from poolsrv.supervisor.touch import Touch
from poolsrv.supervisor.watch import Progress
from poolsrv.system.sockets import channel_pair
from poolsrv.worker.applications import Application
from poolsrv.worker.deadlines import Deadlines
from poolsrv.worker.hooks import run_hook
from poolsrv.worker.loader import refuse_patched_threads
from poolsrv.worker.main import attend, maintenance_for, make_worker
from poolsrv.worker.serving import begin_work, templates_of

_log = logging.getLogger("poolsrv")

_SLOT = 0  # the only one
# For requests that are interrupted, then for their threads; twice the limit in overdue.c.
_LAST_WORDS = 1.0

_CALL, _SIGNALS, _FILES = range(3)  # what the dispatcher watches


class Embedded:
    """The threads and descriptors of one server. Raises PoolsrvError if it cannot be made.

    `first` is what the end waits for until `graceful_timeout` is over: DRAIN_ALL, as clients
    that are strangers may expect, or DRAIN_REQUESTS.
    """

    def __init__(
        self,
        settings: Settings,
        loaded: tuple[Application, ...],
        mounts: Sequence[Mount],
        first: int,
        notify: Notify | None = None,
    ) -> None:
        refuse_patched_threads()
        # Nobody would end the process that it finds to hang.
        self.settings = settings = dataclasses.replace(settings, watchdog_timeout=0.0)
        self._first = first
        self._notify = notify if notify is not None else Notify({}, 0)
        self._signals: socket.socket | None = None
        self.is_told = self.has_failed = self._has_started = self._hurried = False
        self._queue_is_empty = self._watch_has_ended = False
        self._admin_has_begun = threading.Event()
        self._step = -1
        self._members = Members(self._close)
        with ExitStack() as stack:
            self.listeners = [
                open_bound(stack, address, settings, settings.backlog) for address in settings.bind
            ]
            # The default of --admin is for servers that have a process for it.
            asked = settings.admin
            if isinstance(asked, TcpAddress) and asked.is_flexible:
                settings = dataclasses.replace(settings, admin=None)
            self.admin = open_admin(stack, settings)
            # asyncio closes what it serves on; the file of a Unix socket would stay.
            self._admin_copy = None
            if self.admin is not None:
                self._admin_copy = stack.enter_context(self.admin.socket.dup())
            self._board_fd = _core.scoreboard_create(1, settings.threads)
            stack.callback(os.close, self._board_fd)
            self._board = _core.Scoreboard(self._board_fd)
            lost_lines.count_for_server(self._board)
            ours, theirs = self._channel = channel_pair()
            stack.callback(ours.close)
            stack.callback(theirs.close)
            # Woken by these: the dispatcher, the watching thread, the thread that serves --admin.
            self._call, self._nudge, self._admin_end, self._lifeline = self._events = [
                os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(4)
            ]
            for event in self._events:
                stack.callback(os.close, event)
            self._access_log = access_log.open_log(settings.access_log)
            self._access_log_place = access_log.place_of(settings.access_log)
            if self._access_log > 2:
                stack.callback(os.close, self._access_log)
            self._once = claims.make()
            stack.callback(os.close, self._once)
            claims.attach(self._once)
            stack.callback(claims.detach, self._once)
            fds = [listener.socket.fileno() for listener in self.listeners]
            self._dispatcher = _core.Dispatcher(self._board, fds, core_options(settings))
            self._dispatcher.log(self._access_log)
            pages = read_pages(settings, str(Path.cwd()))
            self._dispatcher.set_pages(pages)
            stack.callback(self._dispatcher.close)
            self._bell = os.dup(self._dispatcher.bell)  # a thread that is late rings it
            stack.callback(os.close, self._bell)
            self._dispatcher.channel(_SLOT, ours.fileno(), theirs.fileno())
            self._dispatcher.watch(self._call, _CALL)
            self._dispatcher.measure()
            self._row, self._slot = SupervisorRow(self._board), SlotRow(self._board, _SLOT)
            self._touch = Touch(
                lambda fd: self._dispatcher.watch(fd, _FILES), self._dispatcher.unwatch
            )
            maintenance = maintenance_for(settings, str(Path.cwd()))
            if maintenance:
                file = Path(os.fsdecode(maintenance[0]))
                Maintenance(file, [self._row]).follow(self._touch)
            templates = templates_of(settings, map(site_of, self.listeners))
            self._begin_work = partial(begin_work, settings, mounts, loaded, templates)
            self._worker = make_worker(
                settings,
                loaded,
                mounts,
                templates,
                self._board,
                _SLOT,
                channel=theirs.fileno(),
                bell=self._bell,
                lifeline=self._lifeline,
                signals=self._nudge,
                access_log=self._access_log,
                guest=True,
                pages=pages,
                maintenance=maintenance,
            )
            stack.callback(self._worker.close)
            servers = [
                self._members.thread(f"poolsrv-{index}", self._serve, index)
                for index in range(settings.threads)
            ]
            self._deadlines = Deadlines(
                self._worker, self._board, _SLOT, servers, lost_message=say.THREAD_LOST_HERE
            )
            self._watcher = self._members.thread("poolsrv-watch", self._watch)
            self._threads = [self._watcher, *servers]  # it lets the others end
            self._dispatching: threading.Thread | None = None
            if self.admin is not None:
                self._threads.append(self._members.thread("poolsrv-admin", self._export))
            self._stack = stack.pop_all()
        _all.add(self)

    def _close(self) -> None:
        _all.discard(self)  # first: a child must not close what has got these numbers since
        self._stack.close()

    def start(self, *, dispatches: bool) -> None:
        """Start the threads, also that of the dispatcher if `dispatches`: else the caller
        becomes it with `dispatch`. Raises ApplicationError, and has ended then."""
        try:
            self._begin_work()
            self._show_as_ready()
            self._start_threads(dispatches)
            if self.admin is not None:
                self._admin_has_begun.wait()
            self._has_started = True
        except BaseException:
            self.stop()
            if self._watcher.ident is not None:
                self._order(_core.DRAIN_NOTHING)
            os.eventfd_write(self._admin_end, 1)
            self._stop_listening()
            self.join()
            raise

    def _show_as_ready(self) -> None:
        now = time.monotonic_ns()
        self._row.started_at = self._slot.spawned_at = self._slot.ready_at = now
        self._row.wanted = self._row.generation = self._slot.slot_generation = 1
        self._slot.pid = os.getpid()
        self._row.state, self._slot.state = ServerState.SERVING, State.READY
        self._dispatcher.enable(_SLOT, True)

    def _start_threads(self, dispatches: bool) -> None:
        if dispatches:
            self._dispatching = self._members.thread("poolsrv-dispatch", self.dispatch)
            self._threads.append(self._dispatching)
        for started, thread in enumerate(self._threads):
            try:
                self._members.start(thread)
            except RuntimeError:
                raise ApplicationError(
                    f"the system let the server start {started} of {len(self._threads)} threads",
                    "raise the limit of processes (ulimit -u, pids of a container), or lower "
                    "threads",
                ) from None

    def _serve(self, index: int) -> None:
        claims.attach_thread(self._once)
        self._worker.serve(index)

    def _export(self) -> None:
        assert self._admin_copy is not None
        about = exporter.About(
            version=__version__,
            application=self.settings.title or "a program's own",
            addresses=tuple(url_of(listener) for listener in self.listeners),
            supervisor_pid=os.getpid(),
            started_at=time.time(),
        )
        try:
            exporter.run_within(
                self._admin_copy,
                {DEFAULT_GROUP: self._board_fd},
                self._admin_end,
                self._bell,
                about,
                self._admin_has_begun.set,
            )
        finally:
            self._admin_has_begun.set()  # or it never will

    def _watch(self) -> None:
        try:
            while not attend(self._worker, self._deadlines):
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._nudge)
                if self._step >= 0:
                    self._worker.drain(self._step)
                elif not self.has_failed and self._worker.lost == self.settings.threads:
                    _log.critical(say.NO_THREAD_IS_LEFT)
                    self.has_failed = True
                    self.stop(at_once=True)
        except Exception:  # noqa: BLE001 - whatever it was, the server is at its end
            _log.critical(say.ONE_PROCESS_FAILED, exc_info=True)
            self.has_failed = True
            self._worker.drain(_core.DRAIN_NOTHING)
            self._worker.watch()
        self._watch_has_ended = True
        self.stop()

    def _order(self, step: int) -> None:
        self._step = step
        os.eventfd_write(self._nudge, 1)

    # The dispatcher's part

    def dispatch(self) -> None:
        """Accept and pass on, until told to stop; then end, within the times that there are."""
        try:
            self._touch.begin(time.monotonic())
            self._dispatch()
        except Exception:  # noqa: BLE001 - as above
            _log.critical(say.ONE_PROCESS_FAILED, exc_info=True)
            self._stop_listening()
            self._order(_core.DRAIN_NOTHING)
        os.eventfd_write(self._admin_end, 1)
        self._touch.close()
        # Threads may be late, but clients that nobody will serve need not wait for them.
        self._dispatcher.reclaim(_SLOT)
        self._dispatcher.close()

    def _dispatch(self) -> None:
        self._until(lambda: self.is_told)
        self._notify.stopping()
        self._row.state, self._slot.state = ServerState.DRAINING, State.DRAINING
        self._dispatcher.stop()
        self._stop_listening()
        end = time.monotonic() + self.settings.graceful_timeout
        self._until(lambda: self._queue_is_empty or self._watch_has_ended or self._hurried, end)
        self._order(self._first)
        self._until(lambda: self._watch_has_ended or self._hurried, end)
        if self._watch_has_ended:
            return
        for step in _core.DRAIN_INTERRUPTS, _core.DRAIN_NOTHING:
            self._order(step)
            if self._until(lambda: self._watch_has_ended, time.monotonic() + _LAST_WORDS):
                return

    def _until(self, is_so: Callable[[], bool], end: float | None = None) -> bool:
        """Do the dispatcher's work until it is so, or until the monotonic time `end`; is it so?"""
        progress = Progress([self._board])
        while not is_so():
            now = time.monotonic()
            if end is not None and now >= end:
                return False
            self._notify.tick(now, progress.made, progress.describe)
            times = (end, self._notify.deadline(), self._touch.deadline())
            soonest = min((at for at in times if at is not None), default=None)
            for event in self._dispatcher.wait(soonest):
                self._happened(event)
            self._touch.tick(time.monotonic())
        return True

    def _happened(self, event: tuple[object, ...]) -> None:
        match event:
            case (_core.EVENT_READABLE, 0):
                os.eventfd_read(self._call)
            case (_core.EVENT_READABLE, 1):
                assert self._signals is not None
                for number in self._signals.recv(64):
                    self._heard(number)
            case (_core.EVENT_READABLE, 2):
                self._touch.changed(time.monotonic())
            case (_core.EVENT_REFUSED, 0, str(text)):
                _log.warning(say.REFUSED, text)
            case (_core.EVENT_DRAINED,):
                self._queue_is_empty = True

    def hear(self, signals: socket.socket, heard: Callable[[int], None]) -> None:
        """From now on this socket receives the numbers of signals; who dispatches calls `heard`."""
        self._signals, self._heard = signals, heard
        self._dispatcher.watch(signals.fileno(), _SIGNALS)

    def reopen_log(self) -> None:
        try:
            access_log.reopen(self._access_log, self._access_log_place)
        except OSError as error:
            _log.error(say.ACCESS_LOG_NOT_REOPENED, self._access_log_place, error)

    def _stop_listening(self) -> None:
        for listener in self.listeners:
            listener.close()

    # Its end

    def stop(self, *, at_once: bool = False) -> None:
        """Tell it to end, from any thread; `at_once` does not wait for what runs."""
        self._hurried = self._hurried or at_once
        self.is_told = True
        os.eventfd_write(self._call, 1)

    def join(self) -> list[str]:
        """Wait for the threads, and leave; the names of those that are left behind.

        Nothing of the server may be used any more.
        """
        try:
            if self._dispatching is not None and self._dispatching.ident is not None:
                # It keeps its own bounds, unless it hangs itself.
                self._dispatching.join(self.settings.graceful_timeout + 4 * _LAST_WORDS)
            end = time.monotonic() + 2 * _LAST_WORDS
            # One that was lost may just have come back.
            lost = self._deadlines.lost_threads() if self._worker.lost else []
            started = [thread for thread in self._threads if thread.ident is not None]
            for thread in started:
                most = _LAST_WORDS / 10 if thread in lost else 2 * _LAST_WORDS
                thread.join(max(0.0, min(most, end - time.monotonic())))
            left = [thread.name for thread in started if thread.is_alive()]
            if left:
                _log.error(say.LEFT_BEHIND, ", ".join(left))
            self._run_stop_hook()
        finally:
            self._members.leave()
        return left

    def _run_stop_hook(self) -> None:
        if self._has_started:
            try:
                run_hook("on-worker-stop", self.settings.on_worker_stop)
            except ApplicationError as error:
                _log.error(say.STOP_HOOK_FAILED, error)

    def forget(self) -> None:
        """In a child that somebody has forked, which has none of the threads: close its copies."""
        for listener in [*self.listeners, *([self.admin] if self.admin else [])]:
            listener.socket.close()
        for end in self._channel:
            end.close()
        if self._admin_copy is not None:
            self._admin_copy.close()
        self._touch.close_in_child()
        self._dispatcher.close()
        own = [self._board_fd, self._once, self._bell, *self._events]
        for fd in [*own, *([self._access_log] if self._access_log > 2 else [])]:
            os.close(fd)
        claims.detach(self._once)
        self._stack.pop_all()


# Those of this process, and no other.
_all: set[Embedded] = set()


def _forget_all() -> None:
    for embedded in _all:
        embedded.forget()
    _all.clear()


os.register_at_fork(after_in_child=_forget_all)
