"""A worker: loads the application, starts the threads, and watches over them.

Runs in a worker. The main thread never serves a request; it waits in the C
worker for signals, time and the end.
"""

import atexit
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from poolsrv import _core, access_log, log, shared
from poolsrv import operator_messages as say
from poolsrv.between import lost_lines
from poolsrv.between.claims import attach
from poolsrv.errors import ApplicationError, PoolsrvError
from poolsrv.pages import Page, maintenance_of
from poolsrv.settings.core import core_options
from poolsrv.settings.files import Files
from poolsrv.settings.interpreters import homes
from poolsrv.settings.mounts import Mount, own_of
from poolsrv.settings.rows import Settings
from poolsrv.system import forks
from poolsrv.system.processes import WRITE_STACKS, set_title, title_of
from poolsrv.worker import interpreters
from poolsrv.worker.applications import Application, core_mounts, load_all
from poolsrv.worker.deadlines import Deadlines
from poolsrv.worker.files import core_folders
from poolsrv.worker.guest import Order
from poolsrv.worker.hooks import run_hook
from poolsrv.worker.loader import refuse_patched_threads
from poolsrv.worker.networks import network
from poolsrv.worker.serving import Site, begin_work, core_applications, templates_of

_log = logging.getLogger("poolsrv")


# The file, the type of its content, and for whose clients maintenance is not.
Maintenance = tuple[()] | tuple[bytes, bytes, tuple[tuple[int, int, bytes], ...]]


@dataclass(slots=True)
class Job:
    """What a worker is given. Descriptors are the worker's copies, by fork."""

    settings: Settings
    application: Application | None  # a program's own, which is at /
    loaded: tuple[Application, ...] | None  # all of them; None: the worker loads them itself
    board: int
    channels: list[tuple[socket.socket, socket.socket]]  # (supervisor's, worker's), by slot
    bell: int
    lifeline: int
    access_log: int
    access_log_place: str
    stacks: list[int]  # by slot: the file for the stacks of its threads
    sites: list[Site]
    once: int  # the file of poolsrv.once
    shared: int  # the table of poolsrv.shared
    folder: str  # where the server was started
    pages: tuple[Page, ...]
    release: str | None  # the folder of --chdir when this generation began
    title: str  # what people call the application
    environ: dict[str, str] | None = None  # before an application has changed it
    group: str = ""  # the name of its group of processes, if there are several

    def role(self, kind: str, number: int) -> str:
        """What people call a process of the group."""
        return f"{kind} {number} of {self.group}" if self.group else f"{kind} {number}"

    def descriptors(self) -> list[int]:
        """All of them, but for the standard ones."""
        ends = [end.fileno() for pair in self.channels for end in pair if end.fileno() >= 0]
        own = [self.board, self.bell, self.lifeline, self.access_log, self.once, self.shared]
        own += self.stacks
        return [*ends, *(fd for fd in own if fd > 2)]


def run(job: Job, slot: int) -> None:
    """The whole life of a worker."""
    settings = job.settings
    role = job.role("worker", slot)
    log.setup(settings.log_level, settings.log_format, role)
    board = _core.Scoreboard(job.board)
    lost_lines.count_for_worker(board, slot)
    set_title(role, job.title)
    forks.begin()
    faulthandler.enable()
    guests: list[_core.Interpreter] = []
    several = settings.interpreters > 1
    if several:  # what needs no interpreter writes the stacks of one
        write = partial(interpreters.write_stacks, guests, job.stacks[slot])
        signal.signal(WRITE_STACKS, lambda *_: write())
    faulthandler.register(WRITE_STACKS, file=job.stacks[slot], all_threads=True, chain=several)
    channel = _own_channel(job, slot)
    keeper, places, life = _start_keeper(job, channel, slot)
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.setblocking(False)
    worker: _core.Worker | None = None
    told = False

    def drain() -> None:
        nonlocal told
        told = True
        if worker is not None:
            worker.drain()

    # SIGINT and SIGHUP of a terminal go to all processes: the supervisor decides.
    handlers = dict.fromkeys(forks.NEEDED, forks.nothing) | {
        signal.SIGTERM: drain,
        signal.SIGUSR1: lambda: reopen_log(job),
    }
    forks.handle(handlers, sender.fileno())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, forks.SIGNALS)
    own = [*job.descriptors(), receiver.fileno(), sender.fileno()]
    own += [fd for fd in (places, life) if fd >= 0]
    forks.keep(own)
    born = os.getpid()
    attach(job.once)
    shared.attach(job.shared)
    try:
        loaded = job.loaded
        if loaded is None:
            job.environ = dict(os.environ)
            loaded = load_all(settings, job.application, job.folder, job.release)
            forks.stay(born)
            if changed := forks.take_back(handlers, sender.fileno()):
                _log.warning(say.SIGNALS_TAKEN_BACK, changed)
            forks.keep(own)
        refuse_patched_threads()
        mounts = settings.all_mounts(job.application is not None)
        templates = templates_of(settings, job.sites)
        begin_work(settings, mounts, loaded, templates)
        forks.stay(born)
        further = interpreters.begin(settings.interpreters, _order(job, slot))
        guests.extend(further)
    except PoolsrvError as error:
        forks.stay(born, error.__cause__)
        _say(channel, _core.NEWS_FAILED, str(error))
        sys.exit(error.status)
    gc.collect()
    gc.freeze()
    worker = make_worker(
        settings,
        loaded,
        mounts,
        templates,
        board,
        slot,
        channel=channel.fileno(),
        bell=job.bell,
        lifeline=job.lifeline,
        signals=receiver.fileno(),
        access_log=job.access_log,
        stacks_signal=WRITE_STACKS,
        stacks=job.stacks[slot],
        pages=job.pages,
        maintenance=maintenance_for(settings, job.folder),
        keeper=keeper,
        places=places,
        further=further,
    )
    threads = [
        threading.Thread(
            target=worker.serve,
            args=(index,),
            name=f"poolsrv-{slot}-{index}",
        )
        for index in range(settings.threads)
    ]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        ready = sum(thread.is_alive() for thread in threads)
        words = (
            f"the system let a worker start {ready} of {settings.threads} threads; raise the limit "
            "of processes (ulimit -u, TasksMax= of systemd, pids of a container), or lower "
            "--threads or --processes"
        )
        _say(channel, _core.NEWS_FAILED, words)
        os._exit(ApplicationError.status)  # the other threads wait for work
    if told:  # to drain, while it loaded
        worker.drain()
    _say(channel, _core.NEWS_READY, "")
    deadlines = Deadlines(worker, board, slot, threads, alone=not further)
    try:
        _watch(worker, receiver, deadlines)
    except BaseException:  # noqa: BLE001 - whatever it was, another worker follows
        # Without its main thread a worker knows no time limits and no stop. What
        # raises here: a signal handler of the application, or descriptors of ours
        # that it has closed. Its threads may be waiting for ever.
        _log.critical(say.MAIN_THREAD_FAILED, exc_info=True)
        logging.shutdown()
        os._exit(1)
    all_ended = deadlines.join()
    guests.clear()
    if all_ended and keeper:
        _core.dismiss(keeper)
    try:
        run_hook("on-worker-stop", settings.on_worker_stop)
    except ApplicationError as error:
        _log.error(say.STOP_HOOK_FAILED, error)
    signal.set_wakeup_fd(-1)
    sender.close()
    receiver.close()
    if not all_ended:
        interpreters.give_up(further)
    elif further:
        done, worker = worker, None  # a signal may ask it to drain
        done.close()
        all_ended = interpreters.end(further, forks.patience(settings.graceful_timeout))
    if not all_ended:
        # A program would wait for the threads that are lost.
        atexit._run_exitfuncs()
        os._exit(0)


def _start_keeper(job: Job, channel: socket.socket, slot: int) -> tuple[int, int, int]:
    """(its pid, two descriptors: of the places for connections, and of this process).

    (0, -1, -1): there is none.

    Before anything is loaded: it would keep what this process changes.
    """
    name, title = f"pool:keeper-{slot}".encode(), title_of(f"keeper {slot}", job.title)
    try:
        return _core.keep(channel.fileno(), job.board, slot, name, title)
    except OSError as error:
        _log.warning(say.NO_KEEPER, error.strerror)
        return 0, -1, -1


def make_worker(
    settings: Settings,
    loaded: tuple[Application, ...],
    mounts: Sequence[Mount],
    templates: tuple[dict[str, object], ...],
    board: _core.Scoreboard,
    slot: int,
    *,
    channel: int,
    bell: int,
    lifeline: int,
    signals: int,
    access_log: int,
    stacks_signal: int = 0,
    stacks: int = -1,
    guest: bool = False,
    pages: tuple[Page, ...] = (),
    maintenance: Maintenance = (),
    keeper: int = 0,
    places: int = -1,
    further: tuple[_core.Interpreter, ...] = (),
) -> _core.Worker:
    """The core of a worker: the settings as it takes them, and what it calls back."""
    return _core.Worker(
        board,
        slot,
        channel=channel,
        bell=bell,
        lifeline=lifeline,
        signals=signals,
        stacks_signal=stacks_signal,
        stacks=stacks,
        applications=core_applications(settings, loaded, mounts, templates, forks.end),
        mounts=core_mounts(mounts, settings.group_name, settings.group_names),
        options=core_options(settings),
        trusted=tuple(map(network, settings.trust_proxy)),
        access_log=access_log,
        folders=core_folders([mount.files for mount in mounts if mount.files]),
        sendfile=core_folders([Files(root) for root in settings.sendfile_root]),
        guest=guest,
        pages=pages,
        maintenance=maintenance,
        keeper=keeper,
        places=places,
        interpreters=further,
        homes=homes(own_of(mounts, settings.group_name)),
        group=settings.group_names.index(settings.group_name),
    )


def attend(worker: _core.Worker, deadlines: Deadlines) -> bool:
    """Wait once, and do what the core asks for; true: it is drained."""
    drained, notes, overdue = worker.watch()
    for index, sequence, lost in overdue:
        deadlines.act(index, sequence, lost)
    for level, number, text in notes:
        _log.log(level, say.NOTES[number], text)
    return drained


def _watch(worker: _core.Worker, signals: socket.socket, deadlines: Deadlines) -> None:
    while not attend(worker, deadlines):
        try:
            signals.recv(64)
        except BlockingIOError:
            continue  # it was not a signal that woke us


def reopen_log(job: Job) -> None:
    """The file of the access log was moved away: write to the one that has its name now."""
    try:
        access_log.reopen(job.access_log, job.access_log_place)
    except OSError as error:
        _log.error(say.ACCESS_LOG_NOT_REOPENED, job.access_log_place, error)


def _say(channel: socket.socket, word: int, text: str) -> None:
    """Tell the supervisor, which takes it from no other process than the one it knows."""
    said = f"{os.getpid()} {text}".encode(errors="backslashreplace")
    _core.say(channel.fileno(), word, said)


def _own_channel(job: Job, slot: int) -> socket.socket:
    """The worker's end of its slot's channel; all the others are not its business."""
    for number, (ours, theirs) in enumerate(job.channels):
        ours.close()
        if number != slot:
            theirs.close()
    return job.channels[slot][1]


def _order(job: Job, slot: int) -> Order:
    return Order(
        settings=job.settings,
        called=job.application is not None,
        sites=tuple(job.sites),
        slot=slot,
        folder=job.folder,
        release=job.release,
        environ=dict(os.environ) if job.environ is None else job.environ,
        board=job.board,
        once=job.once,
        shared=job.shared,
    )


def maintenance_for(settings: Settings, folder: str) -> Maintenance:
    """What `make_worker` takes; relative paths are below `folder`."""
    found = maintenance_of(settings, folder)
    return (*found, tuple(map(network, settings.maintenance_bypass))) if found else ()
