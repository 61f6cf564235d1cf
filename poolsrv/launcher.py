"""Builds the parts of a server and wires them: the one place that knows all processes.

Runs in the process that becomes the supervisor. Everything that children share
is made here before the first fork; every child closes what is not its own.
"""

import contextlib
import dataclasses
import gc
import logging
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from poolsrv import _core, access_log, changes, exporter, log
from poolsrv import operator_messages as say
from poolsrv._version import __version__
from poolsrv.between import lost_lines
from poolsrv.between.claims import make
from poolsrv.between.handover import Heritage, Inheritance, Ready, inherit
from poolsrv.between.messages import END_EXPORTER
from poolsrv.endpoints import Endpoints, cannot_be_followed
from poolsrv.errors import ApplicationError, ConfigError, MachineError, PoolsrvError
from poolsrv.estate import (
    Common,
    Estate,
    Fresh,
    heritages,
    owned,
    reloaded,
    sharing,
    title_of,
    title_of_all,
    wanted,
)
from poolsrv.listeners import announce, close_unused, take_passed, url_of, use_passed
from poolsrv.pages import maintenance_of, read_pages
from poolsrv.settings.exposed import exposed
from poolsrv.settings.groups import Group, groups_of
from poolsrv.settings.mounts import DEFAULT_GROUP
from poolsrv.settings.rows import ROWS, Settings, key
from poolsrv.settings.sources import from_options
from poolsrv.shared import make as make_shared
from poolsrv.single import one_process
from poolsrv.supervisor.children import Child
from poolsrv.supervisor.control import Served
from poolsrv.supervisor.loop import Supervisor
from poolsrv.supervisor.notify import Notify
from poolsrv.supervisor.server import Server
from poolsrv.supervisor.succession import Predecessor, Seat, Successor
from poolsrv.supervisor.touch import touched_files
from poolsrv.system import privileges, processes
from poolsrv.system.processes import set_title
from poolsrv.worker.loader import enter, require, started_in

_log = logging.getLogger("poolsrv")

# By the exit status.
_CANNOT_START = {
    2: say.BAD_SETTINGS,
    3: say.NO_APPLICATION,
    4: say.NO_LISTENER,
    5: say.MACHINE_REFUSES,
}


def serve(application: Callable[..., Any] | str, **options: object) -> None:
    """Serve a WSGI application until told to stop (SIGTERM or SIGINT).

    `application` is the callable, or the text of APP, which is loaded as by
    `poolsrv serve`. `options` are those of `poolsrv serve` with underscores, as values or as
    text: `serve(app, bind="0.0.0.0:8000", threads=8, keep_alive_timeout="30s")`.
    Call it from a process with one thread: it forks. Raises ConfigError,
    ApplicationError or ListenError if the server cannot start.
    """
    called: Callable[..., Any] | None = None
    if isinstance(application, str):
        options = {**options, "application": application}
    else:
        require(application)
        called = application
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # Whoever is process 1 has been given strangers already, and must reap them.
        others = processes.children() if os.getpid() != 1 else frozenset()
        launch(from_options(**options), called, lambda: from_options(**options), others)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def launch(
    settings: Settings,
    application: Callable[..., Any] | None = None,
    read_again: Callable[[], Settings] | None = None,
    others: frozenset[int] = frozenset(),
) -> int:
    """Run a server; the exit status.

    `application` takes the place of the one that the settings name. `read_again`
    reads the settings for a reload. Signals that the server handles are blocked when it
    has ended. `others` are children that the caller waits for itself. Raises PoolsrvError
    if the server cannot start.
    """
    role = "supervisor" if settings.processes else "server"
    log.setup(settings.log_level, settings.log_format, role)
    heir = None
    try:
        heir = inherit(os.environ)
        if settings.processes == 0:
            if heir is not None:
                raise ConfigError(
                    "--processes 0: a server of one process cannot take another's place",
                    "stop the server and start the new one",
                )
            status = one_process.serve(settings, application)
        else:
            status = _run(settings, application, read_again, others, heir)
    except PoolsrvError as error:
        if heir is not None:
            heir.refuse(str(error))
        if settings.log_format != "json":
            raise
        _log.critical(_CANNOT_START[error.status], error)  # who reads the log reads no other form
        return error.status
    finally:
        if heir is not None:
            heir.close()
    _log.info(say.STOPPED)
    return status


def _run(
    settings: Settings,
    application: Callable[..., Any] | None,
    read_again: Callable[[], Settings] | None,
    others: frozenset[int],
    heir: Inheritance | None,
) -> int:
    processes.ask_the_kernel()
    if settings.reload_on_change:
        changes.require()
    # The usual soft limit of 1024 is for programs that use select(): idle connections
    # alone may be more. The application has what the server was started with.
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if heir is not None:
        usual = heir.hello.files
    whom = privileges.identity(settings)
    for named in settings.named:
        privileges.identity(named.settings)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    notify = Notify(os.environ, os.getpid(), waits=heir is not None)
    passed = take_passed(os.environ) if heir is None else heir.passed()
    settings = use_passed(settings, passed)
    folder = started_in()
    groups = groups_of(settings, application is not None)
    several = len(groups) > 1
    together = sharing(groups)
    if heir is None:
        binds = (settings.bind, *(group.settings.bind for group in groups))
        close_unused(frozenset(chain.from_iterable(binds)), passed)
    touched = [
        (path, group.number) for group in groups for path in touched_files(group.settings, folder)
    ]
    for line in exposed(settings, folder, application is not None):
        _log.warning(say.FILES_EXPOSED, line)
    maintenance = maintenance_of(settings, folder)
    with privileges.acting_as(whom):
        pages = read_pages(settings, folder)
    with ExitStack() as stack:
        stack.callback(notify.close)
        endpoints = Endpoints(stack, settings, heir, groups)
        listeners, admin = endpoints.listeners, endpoints.admin
        log_owner = whom.uid if whom is not None and os.geteuid() == 0 else None
        common = Common(
            lifeline=owned(stack, os.pidfd_open(os.getpid())),
            access_log=owned(stack, access_log.open_log(settings.access_log, log_owner)),
            access_log_place=access_log.place_of(settings.access_log),
            # The other half of the processors is for those who serve meanwhile.
            at_once=max(1, len(os.sched_getaffinity(0)) // (2 * len(groups))),
            several=several,
            leave=lambda own: leave_supervisor(own),
        )

        def fresh(group: Group) -> Fresh:
            """For a reload: options are read where the code is loaded, in what a deploy has
            put there."""
            assert read_again is not None
            with privileges.acting_as(whom):
                enter(folder)
            given = use_passed(read_again(), passed)
            found = groups_of(given, application is not None)
            settled = reloaded(group, found, shares=group in together)
            with privileges.acting_as(whom):
                return Fresh(settled, read_pages(settled, folder))

        title = title_of_all(settings, groups, application)
        inherited = heritages(heir, groups)
        estates = []
        for group in groups:
            given = inherited.get(group.number)
            estate = Estate(
                stack,
                common,
                group,
                Fresh(group.settings, pages),
                endpoints.of(group),
                accepts=group.owns_bind or not together or group is together[0],
                shares=group in together,
                application=application if group.name == DEFAULT_GROUP else None,
                title=title_of(group, application) if several else title,
                once=make() if given is None else given.take("once"),
                shared=make_shared() if given is None else given.take("shared"),
                first=1 if given is None else given.generation + 1,
                wanted=wanted(group, given),
                follows=heir is not None,
                read_again=None if read_again is None else partial(fresh, group),
            )
            estates.append(estate)
            # Not before: a start that fails says one thing.
            _log.info(
                say.STARTS,
                __version__,
                platform.python_version(),
                group.processes,
                group.settings.threads,
                extra={"fields": {"group": group.name} if several else {}},
            )
        first = estates[0]

        def close_supervisors_own() -> None:
            """In a child: an open copy of a listener would keep its port."""
            supervisor.close_in_child()
            for each in estates:
                each.dispatcher.close_in_child()
            for listener in listeners:
                listener.socket.close()

        def leave_supervisor(own: Estate) -> None:
            """In a template of that group."""
            close_supervisors_own()
            for each in estates:
                if each is not own:
                    each.close()
            if admin is not None:
                admin.socket.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (usual, most))

        def leave_groups() -> None:
            """In a child that belongs to none."""
            close_supervisors_own()
            for each in estates:
                each.close_channels()

        def begin(role: str) -> None:
            log.setup(settings.log_level, settings.log_format, role)
            lost_lines.count_for_server(first.board)
            set_title(role, title)

        def start_exporter() -> Child:
            assert admin is not None

            def run() -> None:
                leave_groups()
                begin("exporter")
                privileges.assume(settings)
                exporter.run(admin.socket, boards, common.lifeline, first.job.bell, about)

            return Child.start("exporter", run, ends_by=END_EXPORTER)

        boards = {each.group.name: each.board_fd for each in estates}
        about = exporter.About(
            version=__version__,
            application=title,
            addresses=tuple(url_of(listener) for listener in listeners),
            supervisor_pid=os.getpid(),
            started_at=time.time(),
        )

        def shown_settings(group: int) -> dict[str, str]:
            now = estates[group].settings
            return {key(name): row.kind.show(getattr(now, name)) for name, row in ROWS.items()}

        control = endpoints.control
        served = None
        if control is not None:
            facts = dataclasses.asdict(about)
            facts["pid"] = facts.pop("supervisor_pid")
            facts["pid_namespace"] = processes.pid_namespace()
            served = Served(facts, boards, shown_settings)

        def start_watcher() -> Child:
            def run() -> None:
                leave_groups()
                if admin is not None:
                    admin.socket.close()
                begin("watcher")
                changes.watch(changes.folders(settings, first.job.folder), common.lifeline)

            return Child.start("watcher", run)

        def reopen_logs() -> None:
            with privileges.acting_as(whom):  # who may have put anything in its place
                access_log.reopen(common.access_log, common.access_log_place)

        def start_successor() -> Successor:
            used = [str(address) for address in passed if address in settings.bind]
            hello = endpoints.hello(usual, used)
            left = [
                Heritage(
                    each.group.name,
                    each.pool.generations.serving.number,
                    each.group.settings.processes,
                    each.pool.wanted,
                    endpoints.bound(each.group),
                    once=each.job.once,
                    shared=each.job.shared,
                )
                for each in estates
            ]
            argv = [sys.executable, *sys.orig_argv[1:]]
            environ = {**os.environ, **notify.given}
            return Successor(argv, folder, environ, hello, left, endpoints.descriptors(), boards)

        def leave(ready: Ready) -> None:
            supervisor.end_watcher()
            endpoints.leave(ready)

        predecessor = None
        if heir is not None:
            predecessor = Predecessor.of(
                heir,
                {
                    number: (given, endpoints.translation(given.bound, groups[number]))
                    for number, given in inherited.items()
                },
                endpoints.taken,
                endpoints.own,
            )
            stack.callback(predecessor.close)
            heir.close_rest()
        server = Server(
            [each.pool for each in estates],
            [each.group.name for each in estates],
            exporter=admin is not None,
            predecessor=heir is not None,
        )
        supervisor = Supervisor(
            server,
            [each.parts() for each in estates],
            start_exporter if admin is not None else None,
            lambda: announce(settings, listeners, admin),
            endpoints.stop_listening,
            reopen_logs,
            control=(control.socket, served) if control and served is not None else None,
            reload_on_touch=touched,
            maintenance=None if maintenance is None else Path(os.fsdecode(maintenance[0])),
            notify=notify,
            others=others,
            seat=Seat(start_successor, leave, predecessor, cannot_be_followed(bool(notify.given))),
        )
        if os.geteuid() == 0:
            _give_up_rights(groups)
        with contextlib.suppress(OSError):  # then nobody knows how a worker has ended
            _core.adopt_orphans()
        if settings.reload_on_change:
            supervisor.keep_watcher(start_watcher())
        if first.dispatcher.measure() < 1:
            raise MachineError(
                f"the limit of open files is {most}, and the server itself needs as many",
                "raise it (ulimit -n, LimitNOFILE= of systemd), or lower --processes",
            )
        # Else a collection writes to what all processes share from now on.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        finish = supervisor.run()
    if finish.text:
        raise ApplicationError(finish.text)
    return finish.status


def _give_up_rights(groups: Sequence[Group]) -> None:
    """Of root, if no process of the application needs them."""
    found = [privileges.identity(group.settings) for group in groups]
    if any(whom is None for whom in found):
        _log.warning(say.RUNS_AS_ROOT)
    users = sorted({whom.uid for whom in found if whom is not None})
    if len(users) and None not in found and 0 not in users:
        kept = privileges.keep_what_is_needed()
        _log.info(say.KEEPS, ", ".join(map(str, users)), kept)
