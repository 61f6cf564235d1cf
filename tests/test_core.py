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
from poolsrv.errors import RequestTimeout
from poolsrv.settings.core import core_options
from poolsrv.settings.rows import Settings
from tests.board import place_of
from tests.client import Client
from tests.waiting import wait_until

SLOTS, THREADS = 2, 3
OPTIONS = core_options(Settings())


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


def index_of(row: str, name: str) -> int:
    """Where the first word of a field is in its row."""
    return next(field[3] for field in _core.FIELDS if field[:2] == (row, name))


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
            assert length == len(_core.UPPERS) + 2
        elif label:
            assert len(label.split("|")) == 1 + length
        else:
            assert length == 1
    assert set(words) == {"supervisor", "slot", "worker", "thread"}
    assert all(upper < following for upper, following in pairwise(_core.UPPERS))
    assert set(_core.BOUNDS) < set(_core.UPPERS)


def test_every_word_is_where_the_table_says() -> None:
    """Each gets a number of its own, in each row, before any is read."""
    board = new_board()
    numbers = count(1)
    wanted: dict[tuple[str, int], dict[int, int]] = {}
    for place, (row, _, _, index, length, *_) in enumerate(_core.FIELDS):
        for slot in range(1 if row == "supervisor" else SLOTS):
            for word in range(length):
                number = next(numbers)
                board.set(place, slot, number - 1, word=word)
                board.add(place, slot, 1, word=word)
                wanted.setdefault((row, slot), {})[index + word] = number
    readers: dict[str, Callable[[int], tuple[int, ...]]] = {
        "supervisor": lambda _: board.supervisor(),
        "slot": board.slot,
        "worker": board.worker,
        "thread": lambda slot: board.totals(slot, 0),
    }
    for (row, slot), words in wanted.items():
        assert dict(enumerate(readers[row](slot))) == words


def test_totals_add_up_the_threads_and_gauges_have_a_sign() -> None:
    board = new_board()
    for thread in range(THREADS):
        board.add(place_of("thread", "bytes_in"), 1, 10, thread=thread)
    board.add(place_of("thread", "connections"), 1, 2, word=0, thread=0)
    board.add(place_of("thread", "connections"), 1, -3, word=0, thread=1)
    totals = board.totals(1, time.monotonic_ns())
    assert totals[index_of("thread", "bytes_in")] == 10 * THREADS
    assert totals[index_of("thread", "connections")] == -1
    assert set(board.totals(0, time.monotonic_ns())) == {0}


@pytest.mark.parametrize(
    "words",
    [
        (len(_core.FIELDS), 0),
        (place_of("slot", "pid"), SLOTS),
        (place_of("slot", "pid"), 0, 1),
        (place_of("thread", "bytes_in"), 0, 0, THREADS),
    ],
)
def test_a_word_that_is_not_there(words: tuple[int, ...]) -> None:
    board = new_board()
    place, slot, *rest = words
    for write in (board.set, board.add):
        with pytest.raises(KeyError, match=r"no word"):
            write(place, slot, 1, *rest)


@pytest.mark.parametrize("slot", [SLOTS, 2**32, 2**64])
def test_a_slot_that_is_not_there(slot: int) -> None:
    board = new_board()
    readers: list[Callable[[int], object]] = [
        board.slot,
        board.worker,
        board.load,
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
    kinds: list[Any] = [_core.Scoreboard, _core.Dispatcher, _core.Worker, _core.FileWrapper]
    for kind in kinds:
        with pytest.raises(TypeError, match="immutable"):
            kind.added = 1
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
    return _core.Dispatcher(board, list(listeners), OPTIONS)


def test_a_dispatcher_is_made_of_a_board_and_listeners(listener: socket.socket) -> None:
    board: Any = new_board()
    with pytest.raises(TypeError, match="a Scoreboard is needed, not object"):
        new_dispatcher(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="listeners must be a sequence"):
        _core.Dispatcher(board, 3, OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        new_dispatcher(board, [listener.fileno(), "a file"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="negative"):
        new_dispatcher(board, [-1])
    with pytest.raises(TypeError, match="queue_timeout"):
        _core.Dispatcher(board, [], {**OPTIONS, "queue_timeout": "1s"})
    with tempfile.TemporaryFile() as file, pytest.raises(PermissionError):
        new_dispatcher(board, [listener.fileno(), file.fileno()])  # files are always readable


def test_routes_are_of_hosts_paths_and_groups() -> None:
    dispatcher = new_dispatcher(new_board())
    for given in (
        (b"", b""),
        (b"", "/a", 0),
        (b"", b"/a", 8191),
        (b"", b"/a", -2),
        (b"", b"/" * 65536, 0),
    ):
        with pytest.raises((TypeError, ValueError)):
            _core.Routes((given,))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a _core\.Routes"):
        dispatcher.set_routes(())  # type: ignore[arg-type]
    for _ in range(2):  # it keeps the last ones
        dispatcher.set_routes(_core.Routes(((b"a.org", b"/x", 8190), (b"", b"", -1))))
    gc.collect()
    assert dispatcher.wait(0.0) == []


def test_a_dispatcher_keeps_its_board() -> None:
    dispatcher = new_dispatcher(new_board())
    gc.collect()
    assert dispatcher.wait(0.0) == []


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
    with pytest.raises(OSError, match="descriptor"):
        dispatcher.channel(0, -1, -1)
    with pytest.raises(OSError, match="descriptor"):
        dispatcher.watch(-1, 0)
    dispatcher.unwatch(ours)  # that could not be watched: the way out does not fail


def test_what_the_loop_tells(channel: tuple[socket.socket, socket.socket]) -> None:
    dispatcher = new_dispatcher(new_board())
    ours, theirs = (end.fileno() for end in channel)
    dispatcher.channel(1, ours, theirs)
    receiver, sender = os.pipe()
    dispatcher.watch(receiver, 7)

    def told() -> list[Any]:
        return list(dispatcher.wait(time.monotonic() + 5))

    os.write(sender, b"x")
    assert told() == [(_core.EVENT_READABLE, 7)]
    dispatcher.unwatch(receiver)
    _core.say(theirs, _core.NEWS_FAILED, "Grüße".encode())
    assert told() == [(_core.EVENT_NEWS, 0, 1, _core.NEWS_FAILED, "Grüße")]
    _core.say(theirs, _core.NEWS_FAILED, "é".encode() * 16000)
    assert told() == [(_core.EVENT_NEWS, 0, 1, _core.NEWS_FAILED, "é" * 8000)]
    _core.say(theirs, _core.NEWS_READY, b"last words")
    assert dispatcher.hear(1) == [(_core.EVENT_NEWS, 0, 1, _core.NEWS_READY, "last words")]
    assert dispatcher.hear(1) == []
    dispatcher.stop()
    assert told() == [(_core.EVENT_DRAINED,)]
    assert dispatcher.wait(0.0) == []
    os.close(receiver)
    os.close(sender)


def test_joined_dispatchers_tell_whose_news_it_is(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    first, other = new_dispatcher(new_board()), new_dispatcher(new_board())
    first.join(other, 3)
    ours, theirs = (end.fileno() for end in channel)
    other.channel(1, ours, theirs)
    _core.say(theirs, _core.NEWS_READY, b"")
    told: list[Any] = first.wait(time.monotonic() + 5)
    assert told == [(_core.EVENT_NEWS, 3, 1, _core.NEWS_READY, "")]
    _core.say(theirs, _core.NEWS_READY, b"")
    assert other.hear(1) == [(_core.EVENT_NEWS, 3, 1, _core.NEWS_READY, "")]
    with pytest.raises(ValueError, match="another dispatcher waits for this"):
        other.wait(0.0)
    with pytest.raises(OSError, match="Invalid"):
        first.join(new_dispatcher(new_board()), 3)
    with pytest.raises(TypeError):
        first.join(new_board(), 4)  # type: ignore[arg-type]
    first.stop()
    assert first.wait(time.monotonic() + 5) == [(_core.EVENT_DRAINED,)]
    del other  # the first keeps it
    gc.collect()
    assert first.wait(0.0) == []


def test_a_dispatcher_that_is_closed_is_waited_for_no_more(listener: socket.socket) -> None:
    first, other = new_dispatcher(new_board()), new_dispatcher(new_board(), [listener.fileno()])
    first.join(other, 1)
    other.close()
    with socket.create_connection(listener.getsockname()):
        assert first.wait(time.monotonic() + 0.05) == []
    with pytest.raises(ValueError, match="closed"):
        first.join(other, 2)


def test_a_word_to_nobody_raises() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    with theirs, pytest.raises(BrokenPipeError):
        _core.say(theirs.fileno(), _core.NEWS_READY, b"")


def test_a_closed_dispatcher_does_nothing_more(listener: socket.socket) -> None:
    board = new_board()
    dispatcher = new_dispatcher(board, [listener.fileno()])

    def accepted() -> int:
        dispatcher.wait(0.0)
        return board.supervisor()[index_of("supervisor", "accepted")]

    with socket.create_connection(listener.getsockname()) as client:
        wait_until(accepted)
        dispatcher.close()
        dispatcher.close()
        assert client.recv(1) == b""
    calls: list[Callable[[], object]] = [
        lambda: dispatcher.wait(0.0),
        lambda: dispatcher.bell,
        lambda: dispatcher.channel(0, 0, 0),
        lambda: dispatcher.enable(0, True),
        lambda: dispatcher.reclaim(0),
        lambda: dispatcher.hear(0),
        lambda: dispatcher.watch(0, 0),
        lambda: dispatcher.unwatch(0),
        lambda: dispatcher.join(new_dispatcher(new_board()), 1),
        dispatcher.stop,
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()


# Worker


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    body = f"hello from {environ['PATH_INFO']}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def applications(*callables: Callable[..., Any], **others: Any) -> _core.Applications:
    chosen: dict[str, Any] = {
        "script_names": (),
        "templates": ({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": ""},),
        "options": OPTIONS,
        "errors": lambda *_: sys.stderr,
        "on_error": print,
        "on_left": print,
        "offer": print,
        "timeout": RequestTimeout,
    }
    return _core.Applications(callables, **chosen | others)


def options(worker: socket.socket, quiet: tuple[int, int], **others: Any) -> dict[str, Any]:
    """What a worker is made of; `quiet` are descriptors that are never readable."""
    return {
        "channel": worker.fileno(),
        "bell": -1,
        "lifeline": quiet[0],
        "signals": quiet[1],
        "stacks_signal": 0,
        "stacks": -1,
        "applications": applications(hello),
        "mounts": (),
        "options": OPTIONS,
        "trusted": (),
        "access_log": -1,
        "folders": (),
        "sendfile": (),
        "guest": False,
        "pages": (),
        "maintenance": (),
        "keeper": 0,
        "places": -1,
        "interpreters": (),
        "homes": (0,),
        "group": 0,
    } | others


@pytest.fixture
def quiet() -> Iterator[tuple[int, int]]:
    """Two descriptors that can be watched and are never readable."""
    one, other = socket.socketpair()
    with one, other:
        yield one.fileno(), other.fileno()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"applications": ()}, TypeError),
        ({"options": {}}, TypeError),
        ({"options": None}, TypeError),
        ({"channel": "fd"}, TypeError),
        ({"channel": -1}, OSError),
        ({"lifeline": -1}, OSError),
        ({"trusted": ((socket.AF_INET, 33, bytes(4)),)}, ValueError),
        ({"trusted": ((socket.AF_INET, 8, bytes(16)),)}, ValueError),
        pytest.param({"applications": applications()}, ValueError, id="no application"),
        ({"mounts": ((b"", b"", 0, "application", 0, -1, 0, 0, ()),)}, ValueError),
        ({"mounts": ((b"", b"", 0, "application", 1, -1, 0, 0, ()),)}, ValueError),
        ({"mounts": ((b"", b"", 0, "application", -1, -1, 0, 0, ()),)}, ValueError),
        ({"mounts": ((b"", b"", 0, "folder", 0, -1, 0, 0, ()),)}, ValueError),
        ({"mounts": ((b"", b"", 0, "unheard of", 0, -1, 0, 0, ()),)}, ValueError),
        (
            {"mounts": ((b"", b"", 0, "application", 0, -1, 0, 0, ((2, 33, bytes(4)),)),)},
            ValueError,
        ),
        ({"mounts": ((b"", b"", 1, "application", 0, -1, 0, 0, ()),)}, ValueError),
        ({"mounts": (("", "", 0, "application", 0, -1, 0, 0, ()),)}, TypeError),
        ({"pages": ((503, "html", b""),)}, TypeError),
        ({"pages": ((503, b"html", bytes(16385)),)}, ValueError),
        ({"maintenance": (b"file",)}, TypeError),
        ({"homes": ()}, ValueError),
        ({"homes": (2,)}, ValueError),
        ({"homes": (-1,)}, ValueError),
        ({"homes": ("1",)}, TypeError),
        ({"interpreters": (1,)}, TypeError),
        ({"unheard_of": 1}, TypeError),
    ],
    ids=str,
)
def test_what_a_worker_is_not_made_of(
    channel: tuple[socket.socket, socket.socket],
    quiet: tuple[int, int],
    wrong: dict[str, Any],
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        _core.Worker(new_board(), 0, **options(channel[1], quiet, **wrong))


def test_each_option_is_read_by_its_name(
    channel: tuple[socket.socket, socket.socket], quiet: tuple[int, int]
) -> None:

    def make_both(given: dict[str, object]) -> None:
        _core.Worker(new_board(), 0, **options(channel[1], quiet, options=given))
        _core.Dispatcher(new_board(), [], given)

    make_both(OPTIONS)
    for name in _core.OPTIONS:
        with pytest.raises(TypeError, match=f"the option {name} must be"):
            make_both(OPTIONS | {name: None})
        with pytest.raises(TypeError, match=f"the option {name} is missing"):
            make_both({other: value for other, value in OPTIONS.items() if other != name})


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("header_timeout", -0.1, ValueError),
        ("header_timeout", float("nan"), ValueError),
        ("header_timeout", float("inf"), ValueError),
        ("header_timeout", 10**400, OverflowError),
        ("body_buffer", -1, OverflowError),
        ("body_buffer", 2**64, OverflowError),
        ("body_buffer", 1.0, TypeError),
        ("limit_request_body", -1, OverflowError),
        ("limit_request_fields", 2**32, OverflowError),
        ("request_buffering", 1, TypeError),
        ("request_id_header", 1, TypeError),
        ("request_id_header", "X" * 65, ValueError),
        ("request_id_header", "\ud800", UnicodeEncodeError),
        ("forwarded", "", ValueError),
        ("forwarded", "of", ValueError),
        ("forwarded", "off|x-forwarded", ValueError),
        ("forwarded", "\ud800", UnicodeEncodeError),
        ("forwarded_fields", "for", TypeError),
        ("forwarded_fields", ("for", "by"), ValueError),
    ],
)
def test_values_that_no_option_has(
    channel: tuple[socket.socket, socket.socket],
    quiet: tuple[int, int],
    name: str,
    value: object,
    error: type[Exception],
) -> None:
    given = OPTIONS | {name: value}
    with pytest.raises(error):
        _core.Worker(new_board(), 0, **options(channel[1], quiet, options=given))


def test_a_worker_has_the_threads_and_the_slot_of_its_board(
    channel: tuple[socket.socket, socket.socket], quiet: tuple[int, int]
) -> None:
    board = new_board()
    with pytest.raises(IndexError):
        _core.Worker(board, SLOTS, **options(channel[1], quiet))
    worker = _core.Worker(board, 1, **options(channel[1], quiet))
    assert board.load(1) == (0, THREADS)
    assert board.worker(1)[index_of("worker", "threads")] == THREADS
    with pytest.raises(ValueError, match="thread 3"):
        worker.serve(THREADS)


def test_applications_are_one_workers(
    channel: tuple[socket.socket, socket.socket], quiet: tuple[int, int]
) -> None:
    found = applications(hello)
    with pytest.raises(TypeError):
        applications(hello, templates=[])
    chosen = options(channel[1], quiet, applications=found)
    worker = _core.Worker(new_board(), 0, **chosen)
    with pytest.raises(ValueError, match="another worker's"):
        _core.Worker(new_board(), 0, **chosen)
    for index in (0, THREADS, 2**32):
        assert found.request_id(index) == ""
        found.line_open(index)
    del worker
    _core.Worker(new_board(), 0, **chosen)


# A whole server in one process


@dataclass
class Server:
    """A dispatcher and a worker, each on threads of this process.

    Nothing of Python's part is here, so what it shows is the core's doing alone.
    """

    address: tuple[str, int]
    board: _core.Scoreboard
    dispatcher: _core.Dispatcher
    worker: _core.Worker
    told: list[Any] = field(default_factory=list)
    drained: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)
    draining: threading.Event = field(default_factory=threading.Event)
    order: int = -1  # an eventfd that interrupts the dispatcher
    signals: int = -1  # another, for the worker's main thread

    def dispatch(self) -> None:
        while (_core.EVENT_DRAINED,) not in self.told:
            self.told += self.dispatcher.wait(None)
            if self.stopping.is_set():
                self.dispatcher.unwatch(self.order)
                self.dispatcher.stop()
                self.stopping.clear()

    def watch(self) -> None:
        """The worker's main thread: it alone may drain, too."""
        while not self.drained:
            self.drained, _, _ = self.worker.watch()
            if self.draining.is_set():
                self.draining.clear()
                os.eventfd_read(self.signals)
                self.worker.drain()

    def requests(self) -> int:
        index = index_of("thread", "requests")
        return sum(self.board.totals(0, 0)[index : index + 5])


@contextlib.contextmanager
def in_one_process(
    listener: socket.socket,
    quiet: tuple[int, int],
    application: Callable[..., Any],
    threads: int,
) -> Iterator[Server]:
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order, signals = os.eventfd(0), os.eventfd(0)
        stack.enter_context(ours)
        stack.enter_context(theirs)
        stack.callback(os.close, order)
        stack.callback(os.close, signals)
        board = new_board(1, threads)
        dispatcher = new_dispatcher(board, [listener.fileno()])
        dispatcher.channel(0, ours.fileno(), theirs.fileno())
        dispatcher.watch(order, 0)
        dispatcher.enable(0, True)
        chosen = options(
            theirs,
            (quiet[0], signals),
            applications=applications(application),
            bell=dispatcher.bell,
        )
        worker = _core.Worker(board, 0, **chosen)
        server = Server(
            listener.getsockname(), board, dispatcher, worker, order=order, signals=signals
        )
        bodies: list[tuple[Callable[..., object], tuple[object, ...]]] = [
            (server.dispatch, ()),
            (server.watch, ()),
            *((worker.serve, (index,)) for index in range(threads)),
        ]
        running = [threading.Thread(target=body, args=args) for body, args in bodies]
        for thread in running:
            thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            os.eventfd_write(order, 1)
            running[0].join()
            server.draining.set()
            os.eventfd_write(signals, 1)
            for thread in running[1:]:
                thread.join()
            dispatcher.close()
    assert server.drained


@pytest.mark.parametrize("threads", [1, 4])
def test_a_server_in_one_process(
    listener: socket.socket, quiet: tuple[int, int], threads: int
) -> None:
    with in_one_process(listener, quiet, hello, threads) as server:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(server.address)) for _ in range(8)]
            for turn in range(3):
                for number, client in enumerate(clients):
                    response = client.get(f"/{turn}/{number}")
                    assert response.body == f"hello from /{turn}/{number}".encode()
        # The client has its answer before the thread has counted it.
        wait_until(lambda: server.requests() == 24)
        wait_until(lambda: server.board.load(0)[0] == 0)


def test_a_server_in_one_process_ends_with_connections_open(
    listener: socket.socket, quiet: tuple[int, int]
) -> None:
    with contextlib.ExitStack() as stack:
        with in_one_process(listener, quiet, hello, 2) as server:
            clients = [stack.enter_context(Client(server.address)) for _ in range(4)]
            for client in clients[:2]:
                assert client.get("/").status == 200
        for client in clients:
            client.socket.settimeout(5)
            assert client.socket.recv(1) == b""


# Interpreters


def isolated(code: str) -> str | None:
    """Run code in an interpreter with a GIL of its own; what it raised, None if nothing."""
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    interpreters = importlib.import_module(name)
    if sys.version_info >= (3, 13):
        number = interpreters.create("isolated")
    else:
        number = interpreters.create(isolated=True)
    try:
        failure = interpreters.run_string(number, code)
    except interpreters.RunFailedError as error:  # 3.12 raises, 3.13 returns
        failure = error
    finally:
        interpreters.destroy(number)
    return None if failure is None else str(failure)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no GIL of its own before Python 3.12")
def test_the_core_loads_in_an_interpreter_with_its_own_gil() -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(_core.__file__).parents[1])!r})
from poolsrv import _core
fd = _core.scoreboard_create(2, 3)
board = _core.Scoreboard(fd)
os.close(fd)
board.add([field[:2] for field in _core.FIELDS].index(("slot", "pid")), 1, 42)
assert 42 in board.slot(1)
assert id(_core.Scoreboard) != {id(_core.Scoreboard)}, "types are each interpreter's own"
"""
    for _ in range(3):  # loaded, unloaded, loaded again
        assert isolated(code) is None
    assert isolated("1 / 0") is not None
