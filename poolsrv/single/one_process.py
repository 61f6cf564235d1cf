"""`--processes 0`: the process that was started serves, until a signal ends it.

Main thread only; the server itself is poolsrv.single.embedded.
"""

import dataclasses
import faulthandler
import logging
import os
import platform
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from poolsrv import _core, access_log
from poolsrv import operator_messages as say
from poolsrv._version import __version__
from poolsrv.errors import ConfigError
from poolsrv.listeners import announce, close_unused, take_passed, use_passed
from poolsrv.settings.addresses import Address, UnixAddress
from poolsrv.settings.exposed import exposed
from poolsrv.settings.rows import Settings, key
from poolsrv.single.embedded import Embedded
from poolsrv.supervisor.notify import Notify
from poolsrv.system import forks
from poolsrv.system.pid_file import pid_file
from poolsrv.system.processes import signal_name
from poolsrv.worker.applications import Application, load_all
from poolsrv.worker.loader import release, started_in

_log = logging.getLogger("poolsrv")

# Their meaning is the same as for a supervisor; others are the application's.
_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def serve(settings: Settings, application: Application | None) -> int:
    """Serve in this process until a signal ends it; the exit status.

    `application` takes the place of the one that the settings name. Raises PoolsrvError.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError(
            "serve() waits for signals, which only the main thread of a program gets",
            "with poolsrv.running(app): serves on any thread",
        )
    notify = Notify(os.environ, os.getpid())
    passed = take_passed(os.environ)
    settings = use_passed(settings, passed)
    close_unused(settings.bind, passed)
    faults_are_shown = faulthandler.is_enabled()
    with ExitStack() as stack:
        stack.callback(notify.close)
        stack.enter_context(pid_file(settings.pid_file))
        born = os.getpid()
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        folder = started_in()
        loaded = load_all(settings, application, folder, release(settings))
        for line in exposed(settings, folder, application is not None):
            _log.warning(say.FILES_EXPOSED, line)
        settings = _anchored(settings, folder)  # --chdir has been done
        forks.stay(born)
        if taken := forks.set_since(handlers):
            _log.warning(say.SIGNALS_TAKEN_BACK, taken)
        mounts = settings.all_mounts(application is not None)
        embedded = Embedded(settings, loaded, mounts, _core.DRAIN_ALL, notify)
        if settings.idle:
            _log.warning(say.IDLE_OPTIONS, ", ".join(f"--{key(name)}" for name in settings.idle))
        _log.info(say.ONE_PROCESS_STARTS, __version__, platform.python_version(), settings.threads)
        if not faults_are_shown:
            faulthandler.enable()
            stack.callback(faulthandler.disable)
        stack.enter_context(_signals(embedded, handlers))
        embedded.start(dispatches=False)
        announce(settings, embedded.listeners, embedded.admin)
        notify.ready()
        embedded.dispatch()
        embedded.join()
    return 1 if embedded.has_failed else 0


def _anchored(settings: Settings, folder: str) -> Settings:
    """The same, whose files and sockets are named from any working folder.

    As those of a supervisor they are below the folder in which the server was started.
    """
    if settings.chdir is None:
        return settings

    def whole(path: str) -> str:
        return str(Path(folder, path))

    def at(address: Address) -> Address:
        return UnixAddress(whole(address.path)) if isinstance(address, UnixAddress) else address

    page, log = settings.maintenance_file, settings.access_log
    return dataclasses.replace(
        settings,
        bind=tuple(map(at, settings.bind)),
        admin=settings.admin and at(settings.admin),
        access_log=whole(log) if access_log.place_of(log) else log,
        error_pages=tuple(
            dataclasses.replace(found, path=whole(found.path)) for found in settings.error_pages
        ),
        maintenance_file=page and whole(page),
    )


@contextmanager
def _signals(embedded: Embedded, before: Mapping[signal.Signals, Any]) -> Iterator[None]:
    """The server hears the signals that are its own meanwhile, whatever the application has set.

    At the end they have the handlers of `before`, and are blocked, as those of a supervisor are:
    see launcher.serve.
    """
    receiver, sender = socket.socketpair()
    for end in receiver, sender:
        end.setblocking(False)
    previous = forks.handle(dict.fromkeys(_SIGNALS, forks.nothing), sender.fileno())
    forks.keep([receiver.fileno(), sender.fileno()])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    embedded.hear(receiver, lambda number: _heard(embedded, number))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            if handler is not None:  # else it is one of C
                signal.signal(number, handler)
        forks.keep([])
        receiver.close()
        sender.close()


def _heard(embedded: Embedded, number: int) -> None:
    name = signal_name(number)
    match number:
        case signal.SIGTERM | signal.SIGINT | signal.SIGQUIT:
            if not embedded.is_told:
                _log.info(say.STOPS, name)
            embedded.stop(at_once=embedded.is_told)
        case signal.SIGHUP | signal.SIGUSR2:
            _log.warning(say.NOT_IN_ONE_PROCESS, name)
        case signal.SIGUSR1:
            _log.info(say.LOGS_REOPENED, name)
            embedded.reopen_log()
        case _:
            pass  # the application's
