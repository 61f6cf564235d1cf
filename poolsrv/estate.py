"""What the processes of a group have in common: made before the first of them is forked.

Runs in the process that becomes the supervisor. A group shares nothing with another one
but what is in Common; so its queue, its rows and its processes are its own, and no process
of another group has a descriptor of them.
"""

import dataclasses
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolsrv import _core, log
from poolsrv.listeners import site_of
from poolsrv.pages import Page
from poolsrv.settings.core import core_options
from poolsrv.settings.rows import Settings
from poolsrv.supervisor.children import Template
from poolsrv.supervisor.group import Parts
from poolsrv.supervisor.limits import Limits
from poolsrv.supervisor.pool import Pool
from poolsrv.supervisor.stacks import Stacks
from poolsrv.system.processes import set_title
from poolsrv.system.sockets import Listener, channel_pair
from poolsrv.worker.loader import release
from poolsrv.worker.main import Job
from poolsrv.worker.template import template


@dataclass(frozen=True, slots=True)
class Common:
    """What all groups of a server share. `leave` closes in a child what is not its group's."""

    lifeline: int
    access_log: int
    access_log_place: str
    leave: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a reload has read: the settings of the group, and the pages that they name."""

    settings: Settings
    pages: tuple[Page, ...]


class Estate:
    """What is made for one group. What is open is closed by `stack`.

    `once` and `shared` are the files of poolsrv.once and poolsrv.shared, `first` the number
    of the first generation, `wanted` how many workers it has. `read_again` reads the settings
    for a generation that a reload brings; None: they are those of the first.
    """

    def __init__(
        self,
        stack: ExitStack,
        common: Common,
        name: str,
        given: Fresh,
        listeners: Sequence[Listener],
        *,
        application: Callable[..., Any] | None,
        title: str,
        once: int,
        shared: int,
        first: int,
        wanted: int,
        follows: bool,
        read_again: Callable[[], Fresh] | None,
    ) -> None:
        settings = given.settings
        self.name = name
        self._common = common
        self._read_again = read_again
        # Twice the workers: a generation that takes over needs slots of its own.
        slots = 2 * max(settings.processes, settings.max_processes)
        self.board_fd = _core.scoreboard_create(slots, settings.threads)
        stack.callback(os.close, self.board_fd)
        self.board = _core.Scoreboard(self.board_fd)
        self.channels = [channel_pair() for _ in range(self.board.slot_count)]
        for pair in self.channels:
            for end in pair:
                stack.callback(end.close)
        self.dispatcher = _core.Dispatcher(
            self.board,
            [listener.socket.fileno() for listener in listeners],
            core_options(settings),
        )
        stack.callback(self.dispatcher.close)
        self.dispatcher.set_pages(given.pages)
        self.dispatcher.accept(not follows)
        self.dispatcher.log(common.access_log)
        self.limits = Limits.of(settings)
        self.job = Job(
            settings=settings,
            application=application,
            loaded=None,
            board=self.board_fd,
            channels=self.channels,
            bell=owned(stack, os.dup(self.dispatcher.bell)),
            lifeline=common.lifeline,
            access_log=common.access_log,
            access_log_place=common.access_log_place,
            stacks=[
                owned(stack, os.memfd_create(f"stacks of worker {slot}", os.MFD_CLOEXEC))
                for slot in range(self.board.slot_count)
            ],
            sites=[site_of(listener) for listener in listeners],
            once=owned(stack, once),
            shared=owned(stack, shared),
            folder=str(Path.cwd()),
            pages=given.pages,
            release=release(settings),
            title=title,
        )
        self._jobs = {first: self.job}  # by generation
        self.pool = Pool(
            min(wanted, self.board.slot_count // 2),
            self.board.slot_count,
            startup_timeout=settings.startup_timeout,
            graceful_timeout=settings.graceful_timeout,
            first=first,
            # The other half of the processors is for those who serve meanwhile.
            at_once=max(1, len(os.sched_getaffinity(0)) // 2),
            others_serve=follows,
        )

    def parts(self) -> Parts:
        """For the supervisor."""
        return Parts(
            self.name,
            self.pool,
            self.dispatcher,
            self.board,
            self.channels,
            self._start_template,
            Stacks(self.job.stacks),
            lambda: self.limits,
        )

    @property
    def settings(self) -> Settings:
        """Those of the generation that serves."""
        return self._jobs[self.pool.generations.serving.number].settings

    def close_channels(self) -> None:
        """In a child that is no process of the group."""
        for pair in self.channels:
            for end in pair:
                end.close()

    def _start_template(self, generation: int) -> Template:
        known = {found.number for found in self.pool.generations.all()}
        for gone in set(self._jobs) - known:
            del self._jobs[gone]
        if generation not in self._jobs:
            self._jobs[generation] = self._next_job()
        job = self._jobs[generation]

        def run(control: socket.socket) -> None:
            self._common.leave()
            log.setup(job.settings.log_level, job.settings.log_format, f"template {generation}")
            set_title(f"template {generation}", job.title)
            template(control, job, generation)

        return Template(generation, run)

    def _next_job(self) -> Job:
        """Of a generation that a reload brings."""
        if self._read_again is None:
            return self.job
        fresh = self._read_again()
        given = fresh.settings
        self.dispatcher.set_pages(fresh.pages)
        self.pool.set_times(given.startup_timeout, given.graceful_timeout)
        self.limits = Limits.of(given)
        return dataclasses.replace(
            self.job,
            settings=given,
            folder=str(Path.cwd()),
            pages=fresh.pages,
            release=release(given),
        )


def owned(stack: ExitStack, fd: int) -> int:
    """A descriptor that `stack` closes; not one of the standard ones."""
    if fd > 2:
        stack.callback(os.close, fd)
    return fd
