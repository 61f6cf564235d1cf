"""Signals that are ours to handle, and processes that the application forks.

Such a process is neither a worker nor a template: it has none of our handlers,
and none of our descriptors (common/forks.c). Where its code comes back to ours,
it ends. Any process that runs code of the application.
"""

import atexit
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

try:
    tempfile.gettempdir()
except FileNotFoundError:
    # multiprocess asks for it as it is imported, and raises this. We write nothing there.
    tempfile.tempdir = "/tmp"

from multiprocess import util
from multiprocess.context import ForkProcess
from multiprocess.popen_fork import Popen

from poolsrv import _core, log
from poolsrv import operator_messages as say

# What the supervisor handles. Operators and tools send these by habit, often to a
# whole group; by default most of them end a process.
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
)

# By default these end a process as well, and have no meaning for ours. Sent by mistake,
# to a number that was meant for another, they must not end the server.
STRAY = (
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGSTKFLT,
    *(number for number in signal.valid_signals() if number >= signal.SIGRTMIN),
)

# What a process that runs code of the application must keep for the server.
NEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def nothing() -> None:
    """Of a signal that another process decides about. Unlike to be ignored, it is not
    inherited by the programs that a process starts."""


class _Handler:
    """A handler of ours: no child has it."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def __call__(self, _number: int, _frame: object) -> None:
        self._act()


def handle(handlers: Mapping[signal.Signals, Callable[[], None]], wakeup: int = -1) -> int:
    """Handle these signals from now on, and have `wakeup` told of each. Main thread only.

    Returns the descriptor that was told before.
    """
    for number, act in handlers.items():
        signal.signal(number, _Handler(act))
        # The application's system calls go on.
        signal.siginterrupt(number, False)
    return signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)


def take_back(handlers: Mapping[signal.Signals, Callable[[], None]], wakeup: int = -1) -> str:
    """Handle the signals once more, after code of the application has run.

    Returns what that has changed, in words, or nothing.
    """
    changed = [
        f"{number.name} ({_place(found)})"
        for number in handlers
        if not isinstance(found := signal.getsignal(number), _Handler)
    ]
    if handle(handlers, wakeup) != wakeup:
        changed.append("signal.set_wakeup_fd (asyncio does that)")
    return _said(changed)


def set_since(before: Mapping[signal.Signals, Any]) -> str:
    """Which of these handlers are others by now, in the same words, or nothing."""
    now = {number: signal.getsignal(number) for number in before}
    changed = [number for number in before if now[number] is not before[number]]
    return _said([f"{number.name} ({_place(now[number])})" for number in changed])


def _said(changed: list[str]) -> str:
    if not changed:
        return ""
    return (
        f"the application has set {', '.join(changed)}; the server needs these signals to stop, "
        "and has taken them back: use atexit for what is to be done at the end"
    )


def _place(handler: object) -> str:
    if handler in (signal.SIG_DFL, signal.SIG_IGN):
        return "the default action" if handler is signal.SIG_DFL else "ignored"
    code = getattr(handler, "__code__", None)
    if code is None:
        return repr(handler)
    return f"{handler.__qualname__}, {code.co_filename}:{code.co_firstlineno}"  # type: ignore[attr-defined]


class _Fork(Popen):  # type: ignore[misc]
    """A fork of ours. A pidfd tells of its end; the pipes that multiprocess has for that
    would be inherited by all that is forked later."""

    def _launch(self, process: Any) -> None:
        # No signal reaches the child while it still has our handlers: it would be
        # lost, or told to us by the wakeup descriptor that we share.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            _core.forks_ours()
            self.pid = os.fork()
            if self.pid == 0:
                code = 1
                try:
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                    code = process._bootstrap()
                finally:
                    os._exit(code)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            self.sentinel = os.pidfd_open(self.pid)
        except OSError:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise

    def close(self) -> None:
        os.close(self.sentinel)


class Process(ForkProcess):  # type: ignore[misc]
    """One of the server's own. `sentinel` is its pidfd, which `close` closes."""

    _Popen = _Fork


# What the application may take to come to its end in a process that is done: its threads,
# if the time that all of it has is not short, and then what it does at exit.
_LAST_WORDS = 5.0

# To take an application apart costs as much as half of a load of it, at a moment at which the
# processes that follow have yet to warm up: they have the processors first. It gets a quarter
# of one beside them, which the time for an end allows for.
_MODESTY = 5


class _TooLate(BaseException):
    """In the main thread: the threads have not ended in time."""


def begin() -> None:
    """In a process of ours that runs code of the application, before that does.

    What was registered before the fork is for the process that did it: it might remove the
    files of all workers at the end of one.
    """
    atexit._clear()
    # The last to run: then the interpreter gives up its handlers, and a second order to end
    # would look like a death.
    atexit.register(signal.pthread_sigmask, signal.SIG_BLOCK, set(SIGNALS) - {signal.SIGALRM})
    atexit.register(logging.shutdown)
    atexit.register(util._exit_function)


def finish(time_limit: float) -> NoReturn:
    """End this process as a program ends, within some seconds.

    Forked children of multiprocess do not: threads are not waited for, functions of atexit do
    not run, and files that the application has open are not written out. The caller must hold
    nothing of the application any more. Threads that do not end are named and left behind; an
    end that hangs says where. `time_limit` is for all of it, and known to whoever kills.
    """
    with contextlib.suppress(OSError):  # a filter of system calls refuses it: then not
        os.nice(_MODESTY)  # of this thread: those of the application go on as they were
    gc.unfreeze()  # what is in a cycle is released as well
    _end_threads(patience(time_limit))
    # Not faulthandler's own timer: a child forked meanwhile would wait for its thread.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.setitimer(signal.ITIMER_REAL, _LAST_WORDS)
    _core.exit(0)


def patience(time_limit: float) -> float:
    """How much of the time for an end threads of the application may take."""
    return min(_LAST_WORDS, time_limit / 4)


def _end_threads(patience: float) -> None:
    """Wait for those that are no daemons, as the interpreter does, but not for ever."""
    late = False

    def give_up(_number: int, _frame: object) -> NoReturn:
        nonlocal late
        late = True
        raise _TooLate

    # From 3.13 on the wait ends by it, but does not raise it.
    show, sys.unraisablehook = sys.unraisablehook, lambda _: None
    signal.signal(signal.SIGALRM, give_up)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))
    try:
        with contextlib.suppress(_TooLate):
            signal.setitimer(signal.ITIMER_REAL, patience)
            # And never again: the interpreter sees that it was done.
            threading._shutdown()  # type: ignore[attr-defined]
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        sys.unraisablehook = show
    here = threading.main_thread()
    left = [one for one in threading.enumerate() if not one.daemon and one is not here]
    if late and left:
        frames = sys._current_frames()
        stacks = [
            "".join(traceback.format_stack(frame))
            for one in left
            if (frame := frames.get(one.ident or 0)) is not None
        ]
        names = ", ".join(one.name for one in left)
        log.with_stack(logging.WARNING, say.THREADS_LEFT, {"threads": names}, "".join(stacks))


def keep(descriptors: Iterable[int]) -> None:
    """From now on a child that the application forks has these no more, and default actions
    for the signals that are ours now."""
    _core.forks_keep(list(descriptors), _ours())


def _ours() -> list[signal.Signals]:
    return [number for number in SIGNALS if isinstance(signal.getsignal(number), _Handler)]


def stay(born: int, error: BaseException | None = None) -> None:
    """End this process if it is not the one with the pid `born`, by `error` if there is one."""
    if os.getpid() != born:
        end(error)


def end(error: BaseException | None) -> NoReturn:
    """End a process that the application has forked, as if its program had come to its end.

    Nothing that was registered for the end of the worker runs: it is not its end.
    """
    status = 0
    try:
        match error:
            case None | SystemExit(code=None):
                pass
            case SystemExit(code=int(code)):
                status = code & 0xFF
            case SystemExit(code=text):
                status = 1
                print(text, file=sys.stderr)
            case _:
                status = 1
                traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _leave() -> None:
    """In the child of any fork."""
    if not _core.forks_left():
        return
    signal.set_wakeup_fd(-1)
    for number in _ours():
        usual = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)


os.register_at_fork(after_in_child=_leave)
