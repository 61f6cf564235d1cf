"""poolsrv.shared: what all workers have in common, and what becomes of it when one ends."""

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import poolsrv
from poolsrv import _core
from poolsrv.shared import Counter, Flag, Lock, Outcome
from tests.client import Client
from tests.server import Server
from tests.test_operate import told
from tests.test_reload import Site
from tests.waiting import wait_until

Start = Callable[..., Server]

APP = """
import os, signal
from poolsrv import shared

requests = shared.Counter("requests")
lock = shared.Lock("lock")

def app(environ, start_response):
    if environ["PATH_INFO"] == "/die":
        lock.acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    with lock as outcome:
        body = f"{requests.add()} {outcome.name}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
"""


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """One of its own for each test: they share a process."""
    return str(request.node.name)


def in_child(act: Callable[[], object]) -> int:
    """The exit status of a forked child that does this, 1 if it fails."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_number_is_the_same_for_all_who_know_its_name(name: str) -> None:
    counter = Counter(name)
    assert (counter.value, counter.add(), counter.add(-3)) == (0, 1, -2)
    assert in_child(lambda: Counter(name).add(10)) == 0
    assert Counter(name).value == 8
    assert (counter.set(2), counter.value) == (8, 2)
    counter.set(2**63 - 1)
    assert counter.add() == -(2**63)
    with pytest.raises(OverflowError):
        counter.add(2**63)


def test_nothing_is_lost_when_many_count_at_once(name: str) -> None:
    counter = Counter(name)
    threads = [
        threading.Thread(target=lambda: [counter.add() for _ in range(1000)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.value == 8000


def test_a_flag_tells_who_has_set_it(name: str) -> None:
    flag = Flag(name)
    assert not flag
    assert (flag.set(), flag.set(), bool(Flag(name))) == (True, False, True)
    assert (flag.clear(), flag.clear(), bool(flag)) == (True, False, False)


def test_a_lock_is_had_by_one_thread(name: str) -> None:
    lock = Lock(name)
    with lock as outcome:
        assert outcome is Outcome.ACQUIRED
        with pytest.raises(RuntimeError, match="already"):
            lock.acquire()
        assert in_child(lambda: Lock(name).acquire(0) or 1 / 0) == 1
        assert in_child(lambda: Lock(name).release()) == 1, "a child does not have it"
        found: list[Outcome] = []
        other = threading.Thread(target=lambda: found.append(lock.acquire(0.01)))
        other.start()
        other.join()
        assert found == [Outcome.TIMED_OUT]
    with pytest.raises(RuntimeError, match="does not have"):
        lock.release()


def test_who_waits_gets_it_when_it_is_given_back(name: str) -> None:
    lock, held, had = Lock(name), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            had.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    threading.Timer(0.01, had.set).start()
    with lock as outcome:
        assert outcome is Outcome.ACQUIRED
    holder.join()


@pytest.mark.parametrize("ends", ["exits", "is killed", "thread"])
def test_the_next_owner_is_told_that_the_last_one_ended_with_it(
    name: str, ends: str, caplog: pytest.LogCaptureFixture
) -> None:
    lock = Lock(name)
    if ends == "thread":
        thread = threading.Thread(target=lock.acquire)
        thread.start()
        thread.join()
    else:

        def end() -> None:
            lock.acquire()
            if ends == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)

        in_child(end)
    with lock as outcome:
        assert outcome is Outcome.OWNER_DIED
    with lock as outcome:
        assert outcome is Outcome.ACQUIRED  # it is told once


class Late(BaseException):
    """As RequestTimeout: it may be raised anywhere."""


def with_it(lock: Lock) -> Outcome:
    with lock as outcome:
        return outcome


def waits_for_a_lock(thread: threading.Thread) -> bool:
    """Does the kernel have it wait for a word that all workers have in common?"""
    call = Path(f"/proc/self/task/{thread.native_id}/syscall").read_text().split()
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "memfd:poolsrv-shared" in line and len(call) > 1:
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            if first <= int(call[1], 16) < last:
                return True
    return False


@pytest.mark.parametrize("get", [with_it, Lock.acquire])
def test_a_time_limit_that_strikes_as_the_lock_comes_free_leaves_it_free(
    name: str, get: Callable[[Lock], Outcome]
) -> None:
    """Once the thread had it for ever, and all workers waited."""
    lock, over = Lock(name), threading.Event()
    waits, ended = threading.Event(), threading.Event()

    def wait() -> None:
        with contextlib.suppress(Late):
            waits.set()
            get(lock)
        ended.set()
        over.wait(10)  # the thread lives on, as one of a worker does

    lock.acquire()
    thread = threading.Thread(target=wait)
    thread.start()
    waits.wait(10)
    late = ctypes.pythonapi.PyThreadState_SetAsyncExc
    wait_until(lambda: waits_for_a_lock(thread))
    assert late(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Late)) == 1
    lock.release()
    ended.wait(10)
    assert lock.acquire(0) is Outcome.ACQUIRED
    lock.release()
    over.set()
    thread.join()


def test_what_was_not_told_is_told_to_the_next(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lock(name)
    in_child(lock.acquire)
    with monkeypatch.context() as broken:
        broken.setattr("poolsrv.shared._OUTCOMES", ())
        with pytest.raises(IndexError):
            lock.acquire()
    assert [with_it(lock), with_it(lock)] == [Outcome.OWNER_DIED, Outcome.ACQUIRED]


def test_names_that_cannot_be(name: str) -> None:
    Lock(name)
    for wrong in ("", "x" * 201):
        with pytest.raises(ValueError, match="1 to 200 bytes"):
            Counter(wrong)
    with pytest.raises(ValueError, match="something else"):
        Counter(name)
    assert poolsrv.shared.Counter is Counter


def test_a_table_has_an_end_and_another_file_is_none(tmp_path: Path) -> None:
    fd = _core.shared_create()
    table = _core.SharedTable(fd)
    for number in range(1024):
        assert table.find(1, b"%d" % number) == number
    with pytest.raises(OSError, match="No space"):
        table.find(1, b"one more")
    assert table.find(1, b"7") == 7
    with pytest.raises(IndexError):
        _core.SharedLock(table, 7)  # that is a number
    with pytest.raises(IndexError):
        table.add(4711, 1)
    os.pwrite(fd, b"?", 0)
    with pytest.raises(OSError, match="Invalid"):
        _core.SharedTable(fd)
    os.close(fd)
    with (tmp_path / "short").open("wb") as short, pytest.raises(OSError, match="Invalid"):
        _core.SharedTable(short.fileno())


@pytest.mark.parametrize("preload", [False, True])
def test_it_outlives_workers_generations_and_supervisors(
    server: Start, tmp_path: Path, preload: bool
) -> None:
    folder, path = tmp_path / "site", tmp_path / "control"
    folder.mkdir()
    site = Site(folder)
    site.write_code(APP)
    changing = server(
        "changing:app",
        processes=2,
        preload=preload,
        control=path,
        allow_errors="was ended by SIGKILL|was lost with it",
        **site.options,
    )

    def ask(target: str = "/") -> str:
        with Client(changing.address) as client:
            return client.get(target).body.decode()

    assert [ask() for _ in range(4)] == [f"{number} ACQUIRED" for number in range(1, 5)]
    with Client(changing.address) as client:
        assert client.get("/die").status == 502
    assert ask() == "5 OWNER_DIED"
    changing.wait_for_log("POOL250")
    told(path, "reload")
    assert ask() == "6 ACQUIRED"
    changing.follow(told(path, "upgrade")["pid"])
    assert ask() == "7 ACQUIRED"
