"""The Python face of the C core: what it takes, what it refuses, what it gives back."""

import contextlib
import errno
import gc
import importlib
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

from poolsrv import _core
from tests.client import Client
from tests.waiting import wait_until

SLOTS, THREADS = 2, 3
TIMES = {"header_timeout": 60.0, "keep_alive_timeout": 60.0, "queue_timeout": 60.0}


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    before = descriptors()
    yield
    gc.collect()
    assert descriptors() == before


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - Path.iterdir keeps its own open


def new_board(slots: int = SLOTS, threads: int = THREADS) -> _core.Scoreboard:
    fd = _core.scoreboard_create(slots, threads)
    try:
        return _core.Scoreboard(fd)
    finally:
        os.close(fd)


# Scoreboard


@pytest.mark.parametrize(
    ("slots", "threads"), [(0, 1), (1, 0), (4097, 1), (1, 4097), (-1, 1), (1, -1)]
)
def test_sizes_have_bounds(slots: int, threads: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 4096"):
        _core.scoreboard_create(slots, threads)


def test_a_board_knows_its_size_and_its_descriptor_is_not_inherited() -> None:
    fd = _core.scoreboard_create(5, 7)
    assert not os.get_inheritable(fd)
    board = _core.Scoreboard(fd)
    os.close(fd)
    assert (board.slot_count, board.thread_count) == (5, 7)


def test_what_is_no_scoreboard_is_refused() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(1 << 16))
        file.flush()
        with pytest.raises(OSError, match="Invalid") as refusal:
            _core.Scoreboard(file.fileno())
    assert refusal.value.errno == errno.EINVAL
    with pytest.raises(OSError, match="descriptor") as refusal:
        _core.Scoreboard(-1)
    assert refusal.value.errno == errno.EBADF
    with pytest.raises(TypeError):
        _core.Scoreboard("fd")  # type: ignore[arg-type]


def test_the_table_has_no_gaps_and_each_label_a_word() -> None:
    words: dict[str, int] = {}
    for row, name, kind, index, length, unit, _, label, text in _core.FIELDS:
        assert index == words.get(row, 0), name
        words[row] = index + length
        assert kind in ("COUNTER", "GAUGE", "HISTOGRAM")
        assert unit in ("", "seconds", "bytes")
        assert text
        if kind == "HISTOGRAM":
            assert length == len(_core.BUCKETS) + 2
        elif label:
            assert len(label.partition("=")[2].split("|")) == length
        else:
            assert length == 1
    assert set(words) == {"supervisor", "slot", "worker", "thread"}
    assert all(bound < following for bound, following in pairwise(_core.BUCKETS))


def test_every_word_is_where_the_table_says() -> None:
    """Each gets a number of its own, in each row, before any is read."""
    board = new_board()
    numbers = count(1)
    wanted: dict[tuple[str, int], dict[int, int]] = {}
    for row, name, _, index, length, *_ in _core.FIELDS:
        for slot in range(1 if row == "supervisor" else SLOTS):
            for word in range(length):
                number = next(numbers)
                board.set(row, slot, name, number - 1, word=word)
                board.add(row, slot, name, 1, word=word)
                wanted.setdefault((row, slot), {})[index + word] = number
    for (row, slot), words in wanted.items():
        read = {
            "supervisor": board.supervisor,
            "slot": lambda slot=slot: board.slot(slot),
            "worker": lambda slot=slot: board.worker(slot),
            "thread": lambda slot=slot: board.totals(slot, 0),
        }[row]()
        assert dict(enumerate(read)) == words


def test_totals_add_up_the_threads_and_gauges_have_a_sign() -> None:
    board = new_board()
    for thread in range(THREADS):
        board.add("thread", 1, "bytes_in", 10, thread=thread)
    board.add("thread", 1, "connections", 2, word=0, thread=0)
    board.add("thread", 1, "connections", -3, word=0, thread=1)
    where = {name: index for row, name, _, index, *_ in _core.FIELDS if row == "thread"}
    totals = board.totals(1, time.monotonic_ns())
    assert totals[where["bytes_in"]] == 10 * THREADS
    assert totals[where["connections"]] == -1
    assert set(board.totals(0, time.monotonic_ns())) == {0}


@pytest.mark.parametrize(
    "words",
    [
        ("thread", 0, "no_such_field"),
        ("no_such_row", 0, "pid"),
        ("thread", 0, "pid"),
        ("slot", SLOTS, "pid"),
        ("slot", 0, "pid", 1),
        ("thread", 0, "bytes_in", 0, THREADS),
    ],
)
def test_a_word_that_is_not_there(words: tuple[Any, ...]) -> None:
    board = new_board()
    row, slot, name, *rest = words
    for write in (board.set, board.add):
        with pytest.raises(KeyError, match=r"no word"):
            write(row, slot, name, 1, *rest)


@pytest.mark.parametrize("slot", [SLOTS, 2**32, 2**64])
def test_a_slot_that_is_not_there(slot: int) -> None:
    board = new_board()
    readers: list[Callable[[int], object]] = [
        board.slot,
        board.worker,
        board.load,
        board.busy,
        board.current,
        board.bury,
        lambda slot: board.totals(slot, 0),
    ]
    for read in readers:
        with pytest.raises((IndexError, OverflowError)):
            read(slot)
        with pytest.raises(OverflowError):
            read(-1)
        with pytest.raises(TypeError):
            read("0")  # type: ignore[arg-type]


def test_types_are_as_they_are() -> None:
    for kind in (_core.Scoreboard, _core.Dispatcher, _core.Reactor, _core.FileWrapper):
        with pytest.raises(TypeError, match="immutable"):
            kind.added = 1  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="base type"):
            type("Derived", (kind,), {})
    for kind in (_core.Input, _core.StartResponse):
        with pytest.raises(TypeError, match="cannot create"):
            kind()


# Dispatcher


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def new_dispatcher(board: _core.Scoreboard, listeners: Iterable[int] = ()) -> _core.Dispatcher:
    return _core.Dispatcher(board, list(listeners), queue_size=10, **TIMES)


def test_a_dispatcher_is_made_of_a_board_and_listeners(listener: socket.socket) -> None:
    board: Any = new_board()
    with pytest.raises(TypeError, match="a Scoreboard is needed, not object"):
        new_dispatcher(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="listeners must be a sequence"):
        _core.Dispatcher(board, 3, queue_size=10, **TIMES)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        new_dispatcher(board, [listener.fileno(), "a file"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="negative"):
        new_dispatcher(board, [-1])
    with pytest.raises(TypeError, match="queue_timeout"):
        _core.Dispatcher(  # type: ignore[call-arg]
            board, [], header_timeout=1.0, keep_alive_timeout=1.0, queue_size=10
        )
    with tempfile.TemporaryFile() as file, pytest.raises(PermissionError):
        new_dispatcher(board, [listener.fileno(), file.fileno()])  # files are always readable


def test_a_dispatcher_keeps_its_board() -> None:
    dispatcher = new_dispatcher(new_board())
    gc.collect()
    assert dispatcher.wait(0.0) == []
    assert dispatcher.queued == 0


def test_a_dispatcher_refuses_slots_and_descriptors_that_are_not_there(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    dispatcher = new_dispatcher(new_board())
    ours, theirs = (end.fileno() for end in channel)
    calls: list[Callable[[int], object]] = [
        lambda slot: dispatcher.channel(slot, ours, theirs),
        lambda slot: dispatcher.enable(slot, True),
        dispatcher.reclaim,
        dispatcher.hear,
    ]
    for call in calls:
        with pytest.raises(IndexError, match=f"slot {SLOTS} of {SLOTS}"):
            call(SLOTS)
    for failing in (lambda: dispatcher.channel(0, -1, -1), lambda: dispatcher.watch(-1, 0)):
        with pytest.raises(OSError, match="descriptor") as refusal:
            failing()
        assert refusal.value.errno == errno.EBADF
    with pytest.raises(OSError, match="No such") as refusal:
        dispatcher.unwatch(ours)
    assert refusal.value.errno == errno.ENOENT


def test_what_the_loop_tells(channel: tuple[socket.socket, socket.socket]) -> None:
    dispatcher = new_dispatcher(new_board())
    ours, theirs = (end.fileno() for end in channel)
    dispatcher.channel(1, ours, theirs)
    receiver, sender = os.pipe()
    dispatcher.watch(receiver, 7)

    def told() -> list[Any]:
        return list(dispatcher.wait(time.monotonic() + 5))

    os.write(sender, b"x")
    assert told() == [(7,)]
    dispatcher.unwatch(receiver)
    _core.say(theirs, _core.WORD_FAILED, "Grüße")
    assert told() == [(1, _core.WORD_FAILED, "Grüße")]
    _core.say(theirs, _core.WORD_FAILED, "é" * 16000)
    assert told() == [(1, _core.WORD_FAILED, "é" * 8000)]
    _core.say(theirs, _core.WORD_READY, "last words")
    assert dispatcher.hear(1) == [(1, _core.WORD_READY, "last words")]
    assert dispatcher.hear(1) == []
    dispatcher.stop()
    assert told() == [()]
    assert dispatcher.wait(0.0) == []
    os.close(receiver)
    os.close(sender)


def test_a_word_to_nobody_raises() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    with theirs, pytest.raises(BrokenPipeError):
        _core.say(theirs.fileno(), _core.WORD_READY, "")


def test_a_closed_dispatcher_does_nothing_more(listener: socket.socket) -> None:
    dispatcher = new_dispatcher(new_board(), [listener.fileno()])
    with socket.create_connection(listener.getsockname()) as client:
        wait_until(lambda: (dispatcher.wait(0.0), new_parked(dispatcher, client))[1])
        dispatcher.close()
        dispatcher.close()
        assert client.recv(1) == b""
    calls: list[Callable[[], object]] = [
        lambda: dispatcher.wait(0.0),
        lambda: dispatcher.bell,
        lambda: dispatcher.queued,
        lambda: dispatcher.channel(0, 0, 0),
        lambda: dispatcher.enable(0, True),
        lambda: dispatcher.reclaim(0),
        lambda: dispatcher.hear(0),
        lambda: dispatcher.watch(0, 0),
        lambda: dispatcher.unwatch(0),
        dispatcher.stop,
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()
