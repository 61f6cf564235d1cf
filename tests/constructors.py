"""Every allocation of the core's constructors fails in turn: `python -m tests.constructors`.

A program of its own, because what it looks for may end the process. Says what
it swept, and how many allocations each had.
"""

import gc
import importlib.machinery
import importlib.util
import itertools
import os
import socket
import sys
from collections.abc import Callable

import _testcapi

from poolsrv import _core
from tests.test_core import descriptors, new_dispatcher, options

# What was absorbed (a cache that could not grow) is no failure, so one success
# does not say that the end is reached.
SUCCESSES = 8


def load_module() -> None:
    """The core once more, as a second interpreter would have it.

    CPython 3.11 forgets the exception where a heap type's name finds no memory.
    """
    spec = importlib.util.spec_from_file_location(_core.__name__, _core.__file__)
    assert spec is not None
    assert isinstance(spec.loader, importlib.machinery.ExtensionFileLoader)
    try:
        spec.loader.exec_module(spec.loader.create_module(spec))
    except SystemError as error:
        raise MemoryError from error


def sweep(construct: Callable[[], object], *, once: bool) -> int:
    """How many allocations it takes until nothing fails; each failure is a MemoryError."""
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
            return at - SUCCESSES + 1
    raise AssertionError("unreachable")


def living_blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def main() -> None:
    fd = _core.scoreboard_create(2, 3)
    board = _core.Scoreboard(fd)
    listener = socket.create_server(("127.0.0.1", 0))
    channel, other = socket.socketpair()
    chosen = options(channel, (other.fileno(), other.fileno()))
    constructors: list[Callable[[], object]] = [
        load_module,
        lambda: os.close(_core.scoreboard_create(2, 3)),
        lambda: _core.Scoreboard(fd),
        lambda: new_dispatcher(board, [listener.fileno()]),
        lambda: _core.Reactor(board, 0, **chosen),
        lambda: _core.FileWrapper(listener, 100),
    ]
    for construct in constructors:
        for once in (True, False):
            sweep(construct, once=once)
            held, blocks = descriptors(), living_blocks()
            allocations = sweep(construct, once=once)
            grown = living_blocks() - blocks
            print(f"{construct.__name__} {once}: {allocations} allocations, {grown} blocks more")
            assert descriptors() == held
            assert grown < 10, "references leak where an allocation fails"


if __name__ == "__main__":
    main()
