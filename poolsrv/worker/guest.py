"""What runs in a further interpreter of a worker.

It is called with bytes and returns bytes (worker/interpreters.py), on the worker's main
thread. Of the server it imports what serves, and no more: each interpreter imports for
itself.
"""

import atexit
import gc
import logging
import os
import pickle
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from poolsrv import _core, log, outlets, shared
from poolsrv import operator_messages as say
from poolsrv.between import claims, lost_lines
from poolsrv.errors import ApplicationError, PoolsrvError
from poolsrv.settings.rows import Settings
from poolsrv.worker.applications import elsewhere, load_all
from poolsrv.worker.errors import ErrorStream
from poolsrv.worker.hooks import run_hook
from poolsrv.worker.loader import refuse_patched_threads
from poolsrv.worker.serving import Site, begin_work, core_applications, templates_of

_log = logging.getLogger("poolsrv")

# The lock under which poolsrv.once() looks, in all interpreters.
ONCE = "poolsrv: once"

_MOST_FRAMES = 100

# What extensions say that cannot be in a second interpreter; CPython, Cython, PyO3 and numpy.
_REFUSALS = re.compile(
    r"module (?P<module>\S+) does not support loading in subinterpreters"
    r"|one interpreter per process|do not yet support subinterpreters"
    r"|load module more than once per process"
)


@dataclass(frozen=True, slots=True)
class Order:
    """What a guest is given. Descriptors are the process's."""

    settings: Settings
    called: bool  # a program's own callable is at /, in the first interpreter
    sites: tuple[Site, ...]
    slot: int
    folder: str
    release: str | None
    environ: Mapping[str, str]  # before an application has changed it
    board: int
    once: int
    shared: int


class _State:
    settings: Settings


def begin(argument: bytes) -> _core.Applications | bytes:
    """Load the applications; or bytes: the pickled PoolsrvError."""
    number, order = pickle.loads(argument)
    _State.settings = settings = order.settings
    _restore(order.environ)
    log.setup(settings.log_level, settings.log_format, f"worker {order.slot}")
    outlets.print_lines_at_once()
    board = _core.Scoreboard(order.board)
    lost_lines.count_for_worker(board, order.slot)
    shared.attach(order.shared)
    refuse_what_ends_us()
    claims.attach(order.once)
    claims.share_process(shared.Lock(ONCE))
    try:
        found = _applications(number, order)
    except PoolsrvError as error:
        return _said(error, number)
    gc.collect()
    gc.freeze()
    return found


def check(argument: bytes) -> bytes:
    """Load the applications, and nothing else; empty, or the pickled PoolsrvError."""
    number, settings, environ = pickle.loads(argument)
    _restore(environ)
    try:
        load_all(settings, interpreter=number)
    except PoolsrvError as error:
        return _said(error, number)
    return b""


def _said(error: PoolsrvError, number: int) -> bytes:
    fault, remedy = error.args
    return pickle.dumps(type(error)(f"in interpreter {number}: {fault}", _refused(error) or remedy))


def _applications(number: int, order: Order) -> _core.Applications:
    settings = order.settings
    called = elsewhere if order.called else None
    loaded = load_all(settings, called, order.folder, order.release, number)
    refuse_patched_threads()
    mounts = settings.all_mounts(order.called)
    templates = templates_of(settings, order.sites)
    begin_work(settings, mounts, loaded, templates, number)
    slot = order.slot

    def take_seat(applications: _core.Applications, index: int) -> ErrorStream:
        # The thread was made elsewhere: here it is one that `threading` does not know, and
        # takes for a daemon. So would be those that an application starts on it, and nobody
        # would wait for them at the end.
        here = threading.current_thread()
        here.name = f"poolsrv-{slot}-{index}"
        here._daemonic = False  # type: ignore[attr-defined]
        return ErrorStream(applications, index)

    return core_applications(settings, loaded, mounts, templates, _leave, take_seat)


def _restore(environ: Mapping[str, str]) -> None:
    """Our os.environ becomes what it was: what another interpreter has set is not ours.

    That of the process, which C code and children see, is one for all.
    """
    data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]
    data.clear()
    data.update((os.fsencode(name), os.fsencode(value)) for name, value in environ.items())


def _leave(error: BaseException | None) -> NoReturn:
    """In a child that an extension has forked."""
    try:
        if error is not None:
            traceback.print_exception(error)
    finally:
        os._exit(error is not None)


def refuse_what_ends_us() -> None:
    """What ends a process that has several interpreters is an exception instead.

    In CPython 3.13 the child of a fork does not come to life there, and these two functions
    of `sys` touch objects of all interpreters under the lock of one. The first has a
    substitute, which knows the threads of its interpreter.
    """
    os.fork = os.forkpty = partial(
        _refuse,
        "a process with several interpreters cannot be forked: use subprocess, the spawn method "
        "of multiprocessing, or leave --interpreters out",
    )
    sys._current_frames = _core.frames
    sys._current_exceptions = partial(
        _refuse,
        "the exceptions of all threads cannot be had in a process with several interpreters: "
        "leave --interpreters out for what needs them",
    )


def _refuse(reason: str) -> NoReturn:
    raise RuntimeError(reason)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _refused(error: BaseException) -> str:
    """The remedy if an extension module has refused to be loaded here."""
    for cause in _causes(error):
        if isinstance(cause, ModuleNotFoundError) or not isinstance(cause, ImportError):
            continue
        found = _REFUSALS.search(str(cause))
        module = (found and found["module"]) or cause.name
        what = f"the extension module {module}" if module else "an extension module"
        does = "works" if found else "perhaps works"
        return (
            f"{what} {does} in the first interpreter only: write interpreter = 1 into the "
            "[[mount]] of its application, or leave --interpreters out and give more --processes"
        )
    return ""


def stacks(argument: bytes) -> bytes:
    """Where each thread is, as faulthandler writes it; `argument` names the interpreter."""
    names = {one.ident: one.name for one in threading.enumerate()}
    here = threading.get_ident()
    lines = []
    for ident, frame in _core.frames().items():
        if ident != here:
            name, number = names.get(ident, ""), argument.decode()
            lines.append(
                f"Thread {ident:#018x} {name} in interpreter {number} (most recent call first):"
            )
            places = reversed(traceback.extract_stack(frame, _MOST_FRAMES))
            lines += [f'  File "{at.filename}", line {at.lineno} in {at.name}' for at in places]
            lines.append("")
    return "\n".join(lines).encode(errors="backslashreplace")


def end(argument: bytes) -> bytes:
    """The worker ends. Threads of the application that have not ended when the patience is
    over are named."""
    _stop_hook()
    patience = time.monotonic() + float(argument)
    left = []
    here = threading.current_thread()
    # Executors end their threads so; it may take as long as what runs in them.
    ends = threading.Thread(target=_end_executors, daemon=True)
    ends.start()
    for one in threading.enumerate():
        if not one.daemon and one is not here and not isinstance(one, threading._DummyThread):
            one.join(max(0.0, patience - time.monotonic()))
            if one.is_alive():
                left.append(one)
    ends.join(max(0.0, patience - time.monotonic()))
    if not left:
        return b""
    names = ", ".join(one.name for one in left)
    _log.warning(say.THREADS_LEFT, extra={"fields": {"threads": names}})
    return names.encode(errors="backslashreplace")


def _end_executors() -> None:
    acts = threading._threading_atexits  # type: ignore[attr-defined]
    while acts:
        acts.pop()()


def give_up(_argument: bytes) -> bytes:
    """The worker ends, and not all of its threads come back."""
    _stop_hook()
    return last_words(b"")


def _stop_hook() -> None:
    try:
        run_hook("on-worker-stop", _State.settings.on_worker_stop)
    except ApplicationError as error:
        _log.error(say.STOP_HOOK_FAILED, error)


def last_words(_argument: bytes) -> bytes:
    """What was registered for the end is done, for an interpreter that does not end itself."""
    atexit._run_exitfuncs()
    outlets.flush_standard()
    return b""
