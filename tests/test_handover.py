"""What supervisors of two releases say to each other: words, descriptors, counters."""

import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, cast

import pytest

from poolsrv import _core
from poolsrv.between import handover, totals
from poolsrv.between.handover import Failed, Hello, Ready, TakeOver, inherit, receive, send
from poolsrv.between.lifecycle import ServerState, State
from poolsrv.between.scoreboard import UPPERS, Reader, Snapshot, up_to_bounds
from poolsrv.errors import SuccessionError
from poolsrv.settings.addresses import TcpAddress
from poolsrv.supervisor.group import Parts
from poolsrv.supervisor.loop import Supervisor
from poolsrv.supervisor.pool import Pool
from poolsrv.supervisor.server import Server as Machine
from poolsrv.supervisor.stacks import Stacks
from poolsrv.supervisor.succession import Counting, Legacy, Predecessor, Seat
from poolsrv.system.sockets import channel_pair
from tests.board import SECOND, Board, place_of
from tests.test_supervisor import Deaf

pytestmark = pytest.mark.once

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ends = channel_pair()
    yield ends
    for end in ends:
        end.close()


def test_words_arrive_with_their_descriptors(pair: Pair) -> None:
    send(pair[0], Hello(pid=7, listeners=["127.0.0.1:80"]), [0, 1])
    send(pair[0], TakeOver(wanted=3, reload=True))
    word, fds = receive(pair[1])
    assert word == Hello(pid=7, listeners=["127.0.0.1:80"])
    assert len(fds) == 2
    assert not any(map(os.get_inheritable, fds))
    for fd in fds:
        os.close(fd)
    assert receive(pair[1]) == (TakeOver(3, True), [])
    with pytest.raises(BlockingIOError):
        receive(pair[1])
    pair[0].close()
    assert receive(pair[1]) == (None, [])


def test_what_another_release_says_is_understood_as_far_as_it_is_known(pair: Pair) -> None:
    words = {"version": handover.VERSION, "word": "Failed", "text": "why", "mood": "bad"}
    pair[0].send(json.dumps(words).encode())
    assert receive(pair[1])[0] == Failed("why")
    pair[0].send(json.dumps({"version": handover.VERSION, "word": "Ready"}).encode())
    assert receive(pair[1])[0] == Ready()


@pytest.mark.parametrize(
    "words", [b"nonsense", b'{"version": 2, "word": "Ready"}', b'{"version": 1, "word": "Dance"}']
)
def test_what_is_not_understood_is_refused_and_nothing_stays_open(pair: Pair, words: bytes) -> None:
    opened = os.dup(0)
    os.close(opened)  # the lowest free number
    socket.send_fds(pair[0], [words], [0])
    with pytest.raises(SuccessionError):
        receive(pair[1])
    again = os.dup(0)
    os.close(again)
    assert again == opened


def test_a_variable_of_another_process_is_refused(pair: Pair) -> None:
    send(pair[0], Hello(pid=7))
    ours = os.dup(pair[1].fileno())
    environ = {handover.VARIABLE: f"{ours}:8"}
    with pytest.raises(SuccessionError):
        inherit(environ)
    assert environ == {}
    with pytest.raises(SuccessionError, match="names no socket"):
        inherit({handover.VARIABLE: "4711:8"})
    assert inherit({}) is None


def test_what_is_inherited_goes_to_who_wants_it_and_the_rest_is_closed(pair: Pair) -> None:
    hello = Hello(
        pid=7, listeners=["127.0.0.1:80", "127.0.0.1:0", "127.0.0.1:0"], admin="127.0.0.1:9"
    )
    descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(7)]
    send(pair[0], hello, descriptors)
    for fd in descriptors:
        os.close(fd)
    ours = os.dup(pair[1].fileno())
    found = inherit({handover.VARIABLE: f"{ours}:7"})
    assert found is not None
    first, second = (found.listener(TcpAddress("127.0.0.1", 0)) for _ in range(2))
    assert first != second
    assert found.listener(TcpAddress("127.0.0.1", 0)) is None
    assert found.take_admin(TcpAddress("127.0.0.1", 8)) is None
    assert found.take_control() is None
    found.close()
    for fd in (first, second):
        assert fd is not None
        os.close(fd)


def test_who_says_nothing_is_no_predecessor(pair: Pair) -> None:
    ours = os.dup(pair[1].fileno())
    with pytest.raises(SuccessionError):
        inherit({handover.VARIABLE: f"{ours}:7"})


# Counters


@pytest.fixture
def boards() -> Iterator[tuple[Board, Board]]:
    """Of the supervisor before, with two slots, and of the one that follows, with one."""
    fds = [_core.scoreboard_create(slots, 2) for slots in (2, 1)]
    yield Board(fds[0]), Board(fds[1])
    for fd in fds:
        os.close(fd)


def read(board: Board) -> Snapshot:
    return Reader(board.fd).read(board.started_at + SECOND)


def test_counters_go_on_where_the_other_supervisor_was(boards: tuple[Board, Board]) -> None:
    old, new = boards
    for slot in (0, 1):
        old.spawn(slot)
        old.count(slot, "requests", 5 + slot, "2xx")
        old.core.add(place_of("thread", "duration"), slot, 3, word=7)
        old.core.add(place_of("thread", "duration"), slot, 1000, word=len(UPPERS) + 1)
        old.core.add(place_of("slot", "restarts"), slot, 1, word=1)
    old.core.add(place_of("supervisor", "accepted"), 0, 9)
    old.supervisor("parked", 4)
    before = read(old)
    totals.carry(new.core, totals.write(before))
    after = read(new)
    (slot,) = after.slots  # although nobody has been in it yet
    assert slot.slot["state"] == State.EMPTY
    assert slot.slot.by_value("restarts")["signal"] == 2
    assert after.threads.words == before.threads.words
    assert after.supervisor["accepted"] == 9
    assert after.supervisor["parked"] == 0  # that is no counter
    new.count(0, "requests", 1, "2xx")
    totals.carry(new.core, totals.write(before))  # said once more, not counted twice
    assert read(new).threads.by_value("requests")["2xx"] == 12
    # What the supervisor asks of a worker is of that worker only.
    assert new.core.totals(0, 0)[after.threads.layout.fields["requests"].index + 1] == 1


def test_a_release_with_other_fields_and_buckets_is_counted_as_well(
    boards: tuple[Board, Board],
) -> None:
    _, new = boards
    bound = UPPERS[100]
    given = {
        "uppers": [bound - 1, UPPERS[-1] * 2],
        "supervisor": {"accepted": {"0": 2}, "forgotten": {"0": 1}, "closed": {"boredom": 3}},
        "slots": [
            {
                "number": 0,
                "slot": {},
                "worker": {},
                "thread": {"duration": {"0": 1, "1": 2, "2": 4, "3": 99}},
            }
        ],
    }
    totals.carry(new.core, json.dumps(given).encode())
    after = read(new)
    duration = after.threads.all("duration")
    assert duration[100] == 1
    assert duration[len(UPPERS)] == 2 + 4  # beyond all of ours
    assert duration[-1] == 99
    assert up_to_bounds(duration[:-1])[-1] == 7
    assert after.supervisor["accepted"] == 2
    assert set(after.supervisor.all("closed")) == {0}


# When a supervisor has left its place, the other one must hear of it, whatever fails


def short_of_everything(*_: object) -> NoReturn:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_that_the_place_is_free_is_said_without_totals_if_need_be(
    pair: Pair, boards: tuple[Board, Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting({"default": boards[0].fd}, pair[0])
    with monkeypatch.context() as short:
        short.setattr(os, "memfd_create", short_of_everything)
        counting.begin(TakeOver(wanted=2), 10.0)
        assert receive(pair[1]) == (TakeOver(wanted=2), [])
        counting.tick(12.0)  # totals that cannot be said are no reason to end
    with pytest.raises(BlockingIOError):
        receive(pair[1])
    counting.tick(counting.deadline())
    word, (fd,) = receive(pair[1])
    assert word == handover.Totals()
    totals.carry(boards[1].core, os.pread(fd, os.fstat(fd).st_size, 0))
    os.close(fd)


def test_that_the_place_is_free_is_said_again_until_it_can_be(
    pair: Pair, boards: tuple[Board, Board]
) -> None:
    counting = Counting({"default": boards[0].fd}, pair[0])
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            send(pair[0], Failed("x" * 60_000))
            filled += 1
    counting.begin(TakeOver(wanted=2), 10.0)
    assert 10.0 < counting.deadline() < 10.5
    for _ in range(filled):
        receive(pair[1])
    counting.tick(counting.deadline())
    word, (fd,) = receive(pair[1])
    os.close(fd)
    assert word == TakeOver(wanted=2)


def test_totals_that_are_none_keep_nobody_from_serving(
    pair: Pair, boards: tuple[Board, Board]
) -> None:
    pool = Pool(1, 2, startup_timeout=9, graceful_timeout=9)
    machine = Machine([pool], exporter=False, predecessor=True)
    machine.start(0.0)
    pool.loaded(1, 0.0)
    pool.spawned(0, 1, 0.0)
    pool.ready(0, 0.0)
    machine.settle(0.0)
    owned: list[None] = []
    legacies = {0: Legacy("default", None, (), 1)}
    predecessor = Predecessor(pair[1], "default", legacies, Ready(), lambda: owned.append(None), 7)
    deaf, board = cast(_core.Dispatcher, Deaf()), boards[0].core
    parts = Parts("default", pool, deaf, board, [], short_of_everything, Stacks([]))
    seat = Seat(short_of_everything, lambda _: None, predecessor)
    supervisor = Supervisor(machine, [parts], None, lambda: None, lambda: None, seat=seat)
    nonsense = os.memfd_create("nonsense")
    os.pwrite(nonsense, b'{"uppers": "lower"}', 0)
    send(pair[0], TakeOver(wanted=1), [nonsense])
    os.close(nonsense)
    supervisor._hear_predecessor()
    assert (machine.state, owned) == (ServerState.SERVING, [None])


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_way_back_that_is_barred_loses_neither_process_nor_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def barred(fd: int) -> None:
        raise PermissionError("no way")

    before, here = open_descriptors(), Path.cwd()
    left, right = socket.socketpair()
    with left, right, monkeypatch.context() as patched:
        patched.setattr(os, "fchdir", barred)
        argv = [sys.executable, "-c", "pass"]
        try:
            pid = handover.execute(argv, str(tmp_path), os.environ, right.fileno())
        finally:
            os.chdir(here)
        assert not right.get_inheritable()
        assert os.waitpid(pid, 0) == (pid, 0)
    assert open_descriptors() == before
