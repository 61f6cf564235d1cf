"""Every allocation of the core's constructors fails in turn: `python -m tests.constructors`.

A program of its own, because what it looks for may end the process. Each
failure must be a MemoryError and leave nothing behind.
"""

import _imp
import _testcapi
import gc
import itertools
import socket
import sys
from array import array
from collections.abc import Callable
from functools import partial

from poolsrv import _core
from tests.test_core import OPTIONS, descriptors, hello, options

# One success does not say that the end is reached: what is absorbed (a cache
# that could not grow) is no failure.
SUCCESSES = 8
# CPython's own caches grow in the first sweeps; a leak grows in each.
SWEEPS = 20

SPEC = _core.__spec__
assert SPEC is not None


def module() -> None:
    """The core once more, as another interpreter would load it.

    CPython 3.11 forgets the exception where a heap type's name finds no memory.
    """
    try:
        _imp.exec_dynamic(_imp.create_dynamic(SPEC))
    except SystemError as error:
        raise MemoryError from error


def sweep(construct: Callable[[], object], *, once: bool) -> int:
    """How many allocations may fail before it succeeds."""
    successes = 0
    for at in itertools.count():
        _testcapi.set_nomemory(at, at + 1 if once else 0)
        try:
            construct()
            successes += 1
        except MemoryError:
            successes = 0
        finally:
            _testcapi.remove_mem_hooks()
        if successes == SUCCESSES:
            return at + 1 - SUCCESSES
    raise AssertionError("unreachable")


def settles(construct: Callable[[], object], *, once: bool) -> bool:
    """Whether a sweep comes that leaves no object behind."""
    blocks = array("q", [0, 0])  # not ints, which would be blocks themselves
    for _ in range(SWEEPS):
        gc.collect()
        blocks[0] = sys.getallocatedblocks()
        sweep(construct, once=once)
        gc.collect()
        blocks[1] = sys.getallocatedblocks()
        if blocks[1] <= blocks[0]:
            return True
    return False


def main() -> None:
    fd = _core.scoreboard_create(2, 3)
    board = _core.Scoreboard(fd)
    listener = socket.create_server(("127.0.0.1", 0))
    listeners = [listener.fileno()]
    (channel, _other), (lifeline, signals) = socket.socketpair(), socket.socketpair()
    chosen = options(channel, (lifeline.fileno(), signals.fileno()))
    # Without a Python frame of their own, whose allocations would fail as well.
    constructors: dict[str, Callable[[], object]] = {
        "Scoreboard": partial(_core.Scoreboard, fd),
        "Routes": partial(_core.Routes, ((b"a.org", b"/x", 1), (b"", b"", -1))),
        "Dispatcher": partial(_core.Dispatcher, board, listeners, OPTIONS),
        "Applications": partial(
            _core.Applications,
            (hello,),
            script_names=("/a",),
            templates=({},),
            options=OPTIONS,
            errors=print,
            on_error=print,
            on_left=print,
            offer=print,
            timeout=Exception,
        ),
        "Worker": partial(_core.Worker, board, 0, **chosen),
        "FileWrapper": partial(_core.FileWrapper, listener, 100),
    }
    if sys.version_info < (3, 13):
        # From then on, making a type ends in a crash of CPython's own if a dict
        # cannot grow (PyDict_SetDefaultRef leaves a hole where the key should be).
        constructors["module"] = module
    held = descriptors()
    for (name, construct), once in itertools.product(constructors.items(), (True, False)):
        allocations = sweep(construct, once=once)
        print(f"{name}: {allocations} allocations, failing {'once' if once else 'from there on'}")
        assert settles(construct, once=once), "objects leak where an allocation fails"
        assert descriptors() == held


if __name__ == "__main__":
    main()
