"""Starting the supervisor's two kinds of children: the exporter and templates.

Supervisor only. Both are forked, from a process with one thread, by multiprocess
with its context named: so the application may be any callable, closures
included. Each child first closes what is the supervisor's alone.
"""

import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import multiprocess

from poolsrv import messages

_FORK = multiprocess.get_context("fork")

# What the supervisor handles, and its children each in a way of their own.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(slots=True)
class Child:
    """A process of ours and the pidfd that becomes readable when it ends."""

    process: Any
    pidfd: int

    @classmethod
    def start(cls, name: str, run: Callable[[], None]) -> "Child":
        """Fork; `run` is the whole life of the child.

        No signal reaches the child while it still has the supervisor's handlers: it
        would be lost, or told to the supervisor by the wakeup descriptor they share.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

        def life() -> None:
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            run()

        try:
            process = _FORK.Process(target=life, name=name)
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return cls(process, os.pidfd_open(process.pid))

    def signal(self, number: int) -> None:
        """Send a signal; nothing if the process has ended."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def end(self, grace: float) -> None:
        """Wait for its end, `grace` seconds at most: then it is killed."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(grace * 1000):
            self.signal(signal.SIGKILL)
        self.reap()

    def reap(self) -> int:
        """Wait for its end; the exit status, or minus the signal."""
        self.process.join()
        status: int = self.process.exitcode
        self.process.close()
        os.close(self.pidfd)
        return status


class Template:
    """The process that forks the workers of one generation, as the supervisor sees it."""

    def __init__(self, generation: int, body: Callable[[socket.socket], None]) -> None:
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.generation = generation
        self.control, theirs = socket.socketpair(socket.AF_UNIX, kind)

        def run() -> None:
            self.control.close()
            body(theirs)

        self.child = Child.start(f"poolsrv-template-{generation}", run)
        theirs.close()

    def send(self, message: messages.Message) -> None:
        """Tell the template; one that has just died will be noticed by its pidfd."""
        try:
            messages.send(self.control, message)
        except (BrokenPipeError, ConnectionResetError):
            return

    def received(self) -> list[tuple[messages.Message, int | None]]:
        """What it has said since the last time, with the descriptors that came along."""
        found: list[tuple[messages.Message, int | None]] = []
        while True:
            try:
                message, fd = messages.receive(self.control)
            except BlockingIOError:
                return found
            if message is None:
                return found
            found.append((message, fd))

    def close(self) -> None:
        """Release what is ours; the process has ended."""
        self.control.close()
