"""The template: the process that a generation of workers is forked from.

With preload it imports the application, once for all its workers. It forks them
when told to, waits for their ends and reports them; nothing else, so that it
stays a process of one thread from which forking is safe.
"""

import atexit
import gc
import os
import select
import signal
import socket
import time
from typing import Any

import multiprocess

from poolsrv import messages
from poolsrv.errors import PoolsrvError
from poolsrv.worker.loader import load, prepare
from poolsrv.worker.main import Job, run

_FORK = multiprocess.get_context("fork")

# After the supervisor's death workers finish within 1.5 s (ORPHAN_GRACE in
# watch.c); one that does not is stuck where its main thread cannot act.
_ORPHANS = 1.75


def template(control: socket.socket, job: Job) -> None:
    """The whole life of a template."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The supervisor decides; a terminal or an init system signals all at once.
        signal.signal(ignored, signal.SIG_IGN)
    control.setblocking(True)
    atexit._clear()  # what is registered so far is for the supervisor's end
    if job.settings.preload and job.application is None:
        try:
            prepare(job.settings)
            job.application = load(job.settings.application)
        except PoolsrvError as error:
            messages.send(control, messages.LoadFailed(str(error)[: messages.LONGEST_TEXT]))
            return
        gc.collect()
        gc.freeze()  # the collector would write to pages that workers share
    messages.send(control, messages.Loaded())
    _Template(control, job).serve()
    atexit._run_exitfuncs()  # what the application has registered here


class _Template:
    def __init__(self, control: socket.socket, job: Job) -> None:
        self._control = control
        self._job = job
        self._workers: dict[int, tuple[int, Any]] = {}  # pidfd -> slot, process
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(job.lifeline, select.POLLIN)

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
            case messages.Quit():
                self._poll.unregister(self._control)
                return False
        # The end of the control socket is the end of the supervisor, which the
        # lifeline tells as well, and there it is acted upon.
        self._poll.unregister(self._control)
        return True

    def _spawn(self, slot: int) -> None:
        # The worker waits until the supervisor is told of it: no word of its own comes
        # before, and if we die before, it ends with us rather than be nobody's.
        start, told = os.pipe()
        process = _FORK.Process(
            target=self._child,
            args=(slot, start, told),
            name=f"poolsrv-worker-{slot}",
            daemon=False,
        )
        process.start()
        pidfd = os.pidfd_open(process.pid)
        self._workers[pidfd] = (slot, process)
        self._poll.register(pidfd, select.POLLIN)
        self._say(messages.Spawned(slot, process.pid), pidfd)
        os.write(told, b".")
        os.close(told)
        os.close(start)

    def _say(self, message: messages.Message, fd: int | None = None) -> None:
        try:
            messages.send(self._control, message, fd)
        except (BrokenPipeError, ConnectionResetError):
            return  # the supervisor has ended; the lifeline is about to say so

    def _child(self, slot: int, start: int, told: int) -> None:
        """In the worker: close what is the template's, and work."""
        self._control.close()
        for pidfd in self._workers:
            os.close(pidfd)
        os.close(told)
        if os.read(start, 1):
            os.close(start)
            run(self._job, slot)

    def _ended(self, pidfd: int) -> None:
        slot, process = self._workers.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        process.join()
        pid, status = process.pid, process.exitcode
        process.close()
        self._say(messages.Exited(slot, pid, status))

    def _orphaned(self) -> None:
        end = time.monotonic() + _ORPHANS
        remaining = select.poll()
        for pidfd in self._workers:
            remaining.register(pidfd, select.POLLIN)
        left = dict(self._workers)
        while left:
            timeout = max(0.0, end - time.monotonic())
            ended = remaining.poll(timeout * 1000)
            for pidfd, _ in ended:
                remaining.unregister(pidfd)
                left.pop(pidfd)[1].join()
            if not ended:
                for pidfd in left:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                end = time.monotonic() + _ORPHANS
