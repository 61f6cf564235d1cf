"""The supervisor's children as it sees them: the exporter, templates, workers.

Supervisor only. It forks the exporter and templates, from a process with one
thread; each first closes what is the supervisor's alone. Workers are forked by
a template in such a way that they become our children: so we hear of their end
and how it came, whatever the template does.
"""

import select
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from poolsrv.between import messages
from poolsrv.system import forks, processes
from poolsrv.system.forks import SIGNALS, STRAY
from poolsrv.system.processes import WRITE_STACKS, Ending


@dataclass(slots=True)
class Child:
    """A process of ours and the pidfd that becomes readable when it ends."""

    process: Any
    pid: int
    pidfd: int

    @classmethod
    def start(cls, name: str, run: Callable[[], None], ends_by: int | None = None) -> "Child":
        """Fork; `run` is the whole life of the child, which `ends_by` may end. Raises OSError.

        What else is for the supervisor to decide does nothing in the child: a terminal
        or an init system signals all. No signal reaches it while it still has the
        supervisor's handlers: the wakeup descriptor that they share would tell us.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (*SIGNALS, *STRAY))

        def life() -> None:
            signal.set_wakeup_fd(-1)
            usual = {signal.SIGCHLD, ends_by}
            for number in (*SIGNALS, *STRAY):
                signal.signal(number, signal.SIG_DFL)
            forks.handle({number: forks.nothing for number in SIGNALS if number not in usual})
            # Until a worker writes its stacks by it: by default it would end the process.
            signal.signal(WRITE_STACKS, lambda *_: None)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            run()

        try:
            process = processes.start(name, life)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return cls(process, process.pid, process.sentinel)

    def signal(self, number: int) -> None:
        """Send a signal; nothing if the process has ended."""
        processes.send_signal(self.pidfd, number)

    def end(self, grace: float) -> None:
        """Wait for its end, `grace` seconds at most: then it is killed."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(grace * 1000):
            self.signal(signal.SIGKILL)
        self.reap()

    def reap(self) -> Ending:
        """Wait for its end, and release what we hold of it."""
        self.process.join()
        ending = Ending(self.process.exitcode)
        self.process.close()
        return ending


class Template:
    """The process that forks the workers of one generation, as the supervisor sees it."""

    def __init__(self, generation: int, body: Callable[[socket.socket], None]) -> None:
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.generation = generation
        self.control, theirs = socket.socketpair(socket.AF_UNIX, kind)

        def run() -> None:
            self.control.close()
            body(theirs)

        try:
            self.child = Child.start(f"tmpl-{generation}", run)
        except OSError:
            self.control.close()
            raise
        finally:
            theirs.close()

    def send(self, message: messages.Message) -> None:
        """Tell the template; one that has just died will be noticed by its pidfd.

        Raises BlockingIOError if it has read nothing for long.
        """
        try:
            messages.send(self.control, message)
        except (BrokenPipeError, ConnectionResetError):
            return

    def received(self) -> Iterator[tuple[messages.Message, int | None]]:
        """What it has said since the last time, with the descriptors that came along."""
        while True:
            try:
                message, fd = messages.receive(self.control)
            except BlockingIOError:
                return
            if message is None:
                return
            yield message, fd

    def close(self) -> None:
        """Release what is ours; the process has ended."""
        self.control.close()


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker's process. The pidfd is ours. `served_before`, `answered_before`: requests
    of its slot till then, and those of the application."""

    pid: int
    pidfd: int
    generation: int
    served_before: int = 0
    answered_before: int = 0

    def signal(self, number: int) -> None:
        """Send a signal; nothing if the process has ended."""
        processes.send_signal(self.pidfd, number)
