"""What supervisor and template say to each other, over a real pair of sockets."""

import contextlib
import os
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolsrv.between import messages
from poolsrv.between.messages import (
    Loaded,
    LoadFailed,
    Malformed,
    Message,
    Quit,
    Reopen,
    Spawn,
    Spawned,
    SpawnFailed,
)

Pair = tuple[socket.socket, socket.socket]

NUMBERS = st.integers(-(2**31), 2**31 - 1)
# Of every kind of character that JSON escapes, and what file names decode to.
TEXTS = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["\x00\x1f\x7f", 'Ä"\\\n\t', "\u2028\udc80", "\U0001f600"]
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Spawn, NUMBERS),
    st.just(Quit()),
    st.just(Reopen()),
    st.builds(Loaded, NUMBERS),
    st.builds(LoadFailed, NUMBERS, TEXTS),
    st.builds(SpawnFailed, NUMBERS, NUMBERS, TEXTS),
)


@pytest.fixture
def pair() -> Iterator[Pair]:
    kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    with one, other:
        yield one, other


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - Path.iterdir keeps its own open


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MESSAGES, max_size=5))
def test_messages_arrive_as_they_were_in_order(pair: Pair, said: list[Message]) -> None:
    for message in said:
        messages.send(pair[0], message)
    assert [messages.receive(pair[1]) for _ in said] == [(message, None) for message in said]


@pytest.mark.parametrize("character", ["a", "\n", "é", "\x1b", "\U0001f600", "\udc80"])
def test_the_longest_text_arrives_whole(pair: Pair, character: str) -> None:
    message = LoadFailed(1, character * messages.LONGEST_TEXT)
    messages.send(pair[0], message)
    assert messages.receive(pair[1]) == (message, None)


def test_a_descriptor_comes_along_and_is_the_receivers(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"the same file")
    with open(tmp_path / "file", "rb") as file:  # noqa: PTH123
        messages.send(pair[0], Spawned(1, 3, 4711), file.fileno())
    message, fd = messages.receive(pair[1])
    assert message == Spawned(1, 3, 4711)
    assert fd is not None
    assert not os.get_inheritable(fd)
    with open(fd, "rb") as received:  # noqa: PTH123
        assert received.read() == b"the same file"


def test_nothing_there_yet(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        messages.receive(pair[1])


def test_the_end_is_told_from_a_message(pair: Pair) -> None:
    messages.send(pair[0], Quit())
    pair[0].close()
    assert messages.receive(pair[1]) == (Quit(), None)
    assert messages.receive(pair[1]) == (None, None)
    with pytest.raises(BrokenPipeError):
        messages.send(pair[1], Quit())


@pytest.mark.parametrize(
    ("bytes_", "fds"), [(1, 2), (1 << 18, 1)], ids=["two descriptors", "a long text"]
)
def test_a_message_that_was_cut_short_leaves_no_descriptor(
    pair: Pair, bytes_: int, fds: int
) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    held = descriptors()
    socket.send_fds(pair[0], [b"x" * bytes_], [pair[1].fileno()] * fds)
    with pytest.raises(Malformed, match="cut short"):
        messages.receive(pair[1])
    assert descriptors() == held


def test_neither_side_waits_for_the_other_to_read(pair: Pair) -> None:
    """What does not fit is refused at once, and nothing of the rest is lost."""
    said = 0
    with contextlib.suppress(BlockingIOError):
        for said in count():
            messages.send(pair[0], Spawn([said]))
    assert said > 0
    assert [messages.receive(pair[1]) for _ in range(said)] == [
        (Spawn([number]), None) for number in range(said)
    ]
    with pytest.raises(BlockingIOError):
        messages.receive(pair[1])


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'["Nothing", {}]',
        b'["Loaded", {}]',
        b'["Loaded", {"generation": 1, "more": 2}]',
        b"\xff",
    ],
)
def test_what_is_no_message_is_refused_and_the_next_is_read(pair: Pair, body: bytes) -> None:
    pair[0].send(body)
    messages.send(pair[0], Quit())
    with pytest.raises(Malformed):
        messages.receive(pair[1])
    assert messages.receive(pair[1]) == (Quit(), None)
