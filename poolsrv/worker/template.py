"""The template: the process that a generation of workers is forked from.

With preload it imports the application, once for all its workers. It forks them
when told to and says so, or why it could not; nothing else, so that it stays a
process of one thread from which forking is safe. The supervisor hears of their
ends itself: they are its children.
"""

import functools
import gc
import importlib
import logging
import os
import select
import signal
import socket
import time

from poolsrv import _core, outlets, shared
from poolsrv import operator_messages as say
from poolsrv.between import messages
from poolsrv.between.claims import attach
from poolsrv.errors import PoolsrvError
from poolsrv.system import forks, privileges, processes
from poolsrv.worker.applications import load_all, must_load
from poolsrv.worker.hooks import refuse_threads, run_hook
from poolsrv.worker.main import Job, reopen_log, run

_log = logging.getLogger("poolsrv")

# After the supervisor's death workers finish within 1.5 s (ORPHAN_GRACE in
# watch.c); one that does not is stuck where its main thread cannot act.
_ORPHANS = 1.75


def template(control: socket.socket, job: Job, generation: int) -> None:
    """The whole life of a template."""
    control.setblocking(True)
    forks.begin()
    outlets.print_lines_at_once()
    forks.keep([control.fileno(), *job.descriptors()])
    try:
        privileges.assume(job.settings)
    except PoolsrvError as error:
        messages.send(control, messages.LoadFailed(generation, str(error)))
        return
    if job.settings.preload and must_load(job.settings, job.application):
        born = os.getpid()
        importlib.invalidate_caches()  # the supervisor has looked into folders before
        try:
            attach(job.once)
            shared.attach(job.shared)
            job.environ = dict(os.environ)
            job.loaded = load_all(job.settings, job.application, job.folder, job.release)
            forks.stay(born)
            run_hook("on-template-ready", job.settings.on_template_ready)
            refuse_threads()
        except PoolsrvError as error:
            forks.stay(born, error.__cause__)
            text = str(error)[: messages.LONGEST_TEXT]
            messages.send(control, messages.LoadFailed(generation, text))
            return
        outlets.flush_standard()  # or each worker would write what is left once more
        gc.collect()
        gc.freeze()  # the collector would write to pages that workers share
        if changed := forks.take_back(dict.fromkeys(forks.NEEDED, forks.nothing)):
            _log.warning(say.SIGNALS_TAKEN_BACK, changed)
    messages.send(control, messages.Loaded(generation))
    _Template(control, job, generation).serve()
    job.application = job.loaded = None
    forks.finish(job.settings.graceful_timeout)


class _Template:
    def __init__(self, control: socket.socket, job: Job, generation: int) -> None:
        self._control = control
        self._job = job
        self._generation = generation
        self._workers: set[int] = set()  # pidfds
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(job.lifeline, select.POLLIN)
        self._keep()

    def _keep(self) -> None:
        """What a child must not have, should the application fork one here."""
        forks.keep([self._control.fileno(), *self._job.descriptors(), *self._workers])

    def serve(self) -> None:
        open_ = True
        while open_ or self._workers:
            for fd, _ in self._poll.poll():
                if fd == self._control.fileno():
                    open_ = self._told()
                elif fd == self._job.lifeline:
                    self._orphaned()
                    return
                else:
                    self._ended(fd)

    def _told(self) -> bool:
        """Do what the supervisor says; false: it wants no more."""
        message, _ = messages.receive(self._control)
        match message:
            case messages.Spawn(slots):
                for slot in slots:
                    self._spawn(slot)
                return True
            case messages.Reopen():
                reopen_log(self._job)
                return True
            case messages.Quit():
                self._poll.unregister(self._control)
                return False
        # The end of the control socket is the end of the supervisor, which the
        # lifeline tells as well, and there it is acted upon.
        self._poll.unregister(self._control)
        return True

    def _spawn(self, slot: int) -> None:
        """Start a worker by a process between, whose end makes it the supervisor's child."""
        pidfd = None
        try:
            kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
            ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        except OSError as error:
            self._say(messages.SpawnFailed(self._generation, slot, str(error)))
            return
        with ours:
            try:
                with theirs:
                    # A signal waits until the worker has its own handlers.
                    mask = signal.pthread_sigmask(signal.SIG_BLOCK, forks.SIGNALS)
                    try:
                        _core.forks_ours()
                        between = os.fork()
                        if between == 0:
                            self._between(slot, ours, theirs)
                    finally:
                        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                os.waitpid(between, 0)
                ours.setblocking(False)  # it has spoken, or never will
                message, pidfd = messages.receive(ours)
                if message is None:
                    raise BlockingIOError
            except BlockingIOError:
                message = messages.SpawnFailed(self._generation, slot, "it was killed as it forked")
            except OSError as error:
                message = messages.SpawnFailed(self._generation, slot, str(error))
            self._say(message, pidfd)
            if pidfd is None:
                return
            self._workers.add(pidfd)
            self._keep()
            self._poll.register(pidfd, select.POLLIN)
            # The worker waits until the supervisor is told of it: no word of its own comes
            # before, and if we die before, it ends with us rather than be nobody's.
            try:
                ours.send(b".")
            except (BrokenPipeError, ConnectionResetError):
                return  # it was killed by now

    def _between(self, slot: int, ours: socket.socket, theirs: socket.socket) -> None:
        """In the process between: fork the worker, tell, end at once."""
        try:
            pidfd = None
            message: messages.Message
            try:
                life = functools.partial(self._child, slot, ours, theirs)
                process = processes.start(f"worker-{slot}", life)
                pidfd = process.sentinel
                message = messages.Spawned(self._generation, slot, process.pid)
            except OSError as error:
                message = messages.SpawnFailed(self._generation, slot, str(error))
            messages.send(theirs, message, pidfd)
        finally:
            os._exit(0)

    def _say(self, message: messages.Message, fd: int | None = None) -> None:
        try:
            messages.send(self._control, message, fd)
        except (BrokenPipeError, ConnectionResetError):
            return  # the supervisor has ended; the lifeline is about to say so

    def _child(self, slot: int, ours: socket.socket, theirs: socket.socket) -> None:
        """In the worker: close what is the template's, and work."""
        ours.close()
        self._control.close()
        for pidfd in self._workers:
            os.close(pidfd)
        with theirs:
            told = theirs.recv(1)
        if told:
            run(self._job, slot)
            self._job.application = self._job.loaded = None
            forks.finish(self._job.settings.graceful_timeout)

    def _ended(self, pidfd: int) -> None:
        self._workers.remove(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        self._keep()

    def _orphaned(self) -> None:
        end = time.monotonic() + _ORPHANS
        remaining = select.poll()
        for pidfd in self._workers:
            remaining.register(pidfd, select.POLLIN)
        left = set(self._workers)
        while left:
            timeout = max(0.0, end - time.monotonic())
            ended = remaining.poll(timeout * 1000)
            for pidfd, _ in ended:
                remaining.unregister(pidfd)
                left.remove(pidfd)
            if not ended:
                for pidfd in left:
                    processes.send_signal(pidfd, signal.SIGKILL)
                end = time.monotonic() + _ORPHANS
