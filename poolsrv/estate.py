"""What the processes of a group have in common: made before the first of them is forked.

Runs in the process that becomes the supervisor. A group shares nothing with another one
but what is in Common; so its queue, its rows and its processes are its own, and no process
of another group has a descriptor of them.
"""

import dataclasses
import logging
import os
import socket
from collections.abc import Callable, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poolsrv import _core, log
from poolsrv import operator_messages as say
from poolsrv.between import lost_lines
from poolsrv.between.handover import Heritage, Inheritance
from poolsrv.listeners import site_of
from poolsrv.pages import Page
from poolsrv.settings.core import core_options
from poolsrv.settings.groups import Group
from poolsrv.settings.mounts import Mount
from poolsrv.settings.rows import ROWS, Settings, key
from poolsrv.supervisor.children import Template
from poolsrv.supervisor.group import Parts
from poolsrv.supervisor.limits import Limits
from poolsrv.supervisor.pool import Pool
from poolsrv.supervisor.stacks import Stacks
from poolsrv.system.processes import set_title
from poolsrv.system.sockets import Listener, channel_pair
from poolsrv.worker.applications import core_routes
from poolsrv.worker.loader import release
from poolsrv.worker.main import Job
from poolsrv.worker.template import template

_log = logging.getLogger("poolsrv")

# What a reload cannot change; `scale` changes the number of workers.
_KEPT = [name for name, row in ROWS.items() if not row.reloadable]


class Routes:
    """Whose a request is. One table for all groups: they agree, but while a reload that brings
    other files goes from one to the next."""

    def __init__(self) -> None:
        self._mounts: tuple[Mount, ...] = ()
        self._table = _core.Routes(())

    def of(self, mounts: tuple[Mount, ...], names: Sequence[str]) -> _core.Routes:
        if mounts != self._mounts:
            self._mounts = mounts
            self._table = _core.Routes(core_routes(mounts, names))
        return self._table


@dataclass(frozen=True, slots=True)
class Common:
    """What all groups of a server share. `leave` closes in a template what is not that of
    its group. `at_once` is how many workers of a group load while others serve."""

    lifeline: int
    access_log: int
    access_log_place: str
    at_once: int
    several: bool
    leave: Callable[["Estate"], None]
    routes: Routes = field(default_factory=Routes)


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a reload has read: the settings of the group, and the pages that they name."""

    settings: Settings
    pages: tuple[Page, ...]


class Estate:
    """What is made for one group. What is open is closed by `stack`.

    Connections come to it by `listeners`. If it `shares` them with other groups, one of these
    `accepts` for all, and gives each what is its.

    `once` and `shared` are the files of poolsrv.once and poolsrv.shared, `first` the number
    of the first generation; `wanted` workers it has, None: as the settings say. `read_again`
    reads the settings for a generation that a reload brings; None: they are those of the first.
    """

    def __init__(
        self,
        stack: ExitStack,
        common: Common,
        group: Group,
        given: Fresh,
        listeners: Sequence[Listener],
        *,
        accepts: bool,
        shares: bool,
        application: Callable[..., Any] | None,
        title: str,
        once: int,
        shared: int,
        first: int,
        wanted: int | None,
        follows: bool,
        read_again: Callable[[], Fresh] | None,
    ) -> None:
        settings = given.settings
        self.group = group
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
            [listener.socket.fileno() for listener in listeners] if accepts else [],
            core_options(settings),
        )
        stack.callback(self.dispatcher.close)
        self.dispatcher.set_pages(given.pages)
        self._called = application is not None
        self._shares = shares
        self._set_routes(settings)
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
            group=group.name if common.several else "",
        )
        self._jobs = {first: self.job}  # by generation
        self._latest = self.job
        self.pool = Pool(
            settings.processes,
            self.board.slot_count,
            startup_timeout=settings.startup_timeout,
            graceful_timeout=settings.graceful_timeout,
            first=first,
            at_once=common.at_once,
            others_serve=follows,
            on_demand=group.on_demand,
            wanted=None if wanted is None else min(wanted, self.board.slot_count // 2),
        )

    def parts(self) -> Parts:
        """For the supervisor."""
        return Parts(
            self.group.name,
            self.pool,
            self.dispatcher,
            self.board,
            self.channels,
            self._start_template,
            Stacks(self.job.stacks),
            lambda: self.limits,
            lambda: self._latest.settings.idle_timeout,
        )

    @property
    def settings(self) -> Settings:
        """Those of the generation that serves."""
        return self._jobs.get(self.pool.generations.serving.number, self._latest).settings

    def close_channels(self) -> None:
        """In a child that is no process of the group."""
        for pair in self.channels:
            for end in pair:
                end.close()

    def close(self) -> None:
        """In a process of another group."""
        self.close_channels()
        job = self.job
        for fd in (self.board_fd, job.bell, job.once, job.shared, *job.stacks):
            os.close(fd)

    def _start_template(self, generation: int) -> Template:
        known = {found.number for found in self.pool.generations.all()}
        for gone in set(self._jobs) - known:
            del self._jobs[gone]
        found = self.pool.generations.find(generation)
        if found.is_new:
            self._latest = self._next_job()
            found.is_new = False
        job = self._jobs.setdefault(generation, self._latest)

        def run(control: socket.socket) -> None:
            self._common.leave(self)
            role = job.role("template", generation)
            log.setup(job.settings.log_level, job.settings.log_format, role)
            lost_lines.count_for_server(self.board)
            set_title(role, job.title)
            template(control, job, generation)

        return Template(generation, run)

    def _set_routes(self, settings: Settings) -> None:
        """Where several groups share listeners, the dispatcher looks whose a request is."""
        if self._shares:
            mounts = settings.all_mounts(self._called)
            self.dispatcher.set_routes(self._common.routes.of(mounts, settings.group_names))

    def _next_job(self) -> Job:
        """Of a generation that a reload brings."""
        if self._read_again is None:
            return self.job
        fresh = self._read_again()
        given = fresh.settings
        self.dispatcher.set_pages(fresh.pages)
        self._set_routes(given)
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


def heritages(heir: Inheritance | None, groups: Sequence[Group]) -> dict[int, Heritage]:
    """Which group of the server before comes to which of ours, by number: that of its name;
    else the first one to the first of ours that has none, with whom it shares listeners."""
    if heir is None:
        return {}
    found = {group.number: given for group in groups if (given := heir.group(group.name))}
    former = heir.groups[0]
    heirless = [group for group in groups if not group.owns_bind and group.number not in found]
    if former not in found.values() and heirless:
        found[heirless[0].number] = former
    return found


def wanted(group: Group, given: Heritage | None) -> int | None:
    """How many workers a group has from the start; None: as the settings say."""
    if given is None:
        return None
    return given.wanted if group.on_demand else given.workers(group.settings.processes)


def sharing(groups: Sequence[Group]) -> list[Group]:
    """Those that have the server's listeners in common; the first one accepts. None if there
    is only one."""
    found = [group for group in groups if not group.owns_bind]
    return found if len(found) > 1 else []


def reloaded(group: Group, given: Sequence[Group], *, shares: bool) -> Settings:
    """The settings of a group's next generation: those given, but for what must stay."""
    first = group.settings
    found = next((each.settings for each in given if each.name == group.name), first)
    kept = [name for name in _KEPT if getattr(found, name) != getattr(first, name)]
    flags = [f"--{key(name)}" for name in kept]
    values = {name: getattr(first, name) for name in _KEPT}
    if found.mount == first.mount:  # all groups have the same ones, and many are as many mounts
        values["mount"] = first.mount
    if found.group_names != first.group_names:
        flags.append("groups of processes")
    if shares and _routes(found) != _routes(first):
        flags.append("which group a mount is in")
        values["mount"] = first.mount
    if flags:
        fields = {"group": group.name} if len(first.group_names) > 1 else {}
        _log.warning(say.RELOAD_CANNOT_CHANGE, ", ".join(flags), extra={"fields": fields})
    return dataclasses.replace(found, **values, group_names=first.group_names)


def _routes(settings: Settings) -> Set[tuple[str, str, str]]:
    """What all groups that share listeners must agree about: where which of them answers."""
    return {
        (mount.host, mount.path, mount.group)
        for mount in settings.all_mounts()
        if mount.has_application
    }


def title_of_all(
    settings: Settings, groups: Sequence[Group], called: Callable[..., Any] | None
) -> str:
    """What is served, for people."""
    if len(groups) > 1:
        own = dict.fromkeys(title_of(group, called) for group in groups)
        return ", ".join(own)
    if called is None:
        return groups[0].settings.title
    return ", ".join([repr(called), *map(str, settings.mount)])


def title_of(group: Group, called: Callable[..., Any] | None) -> str:
    """What a group serves, of several."""
    mounts = group.settings.own_mounts(called is not None)
    return ", ".join(str(mount) for mount in mounts if mount.has_application)
