"""An application that forks in each way that there is: one path for each.

FORK_AT names a moment at which it forks a child that comes back: `import` or `exit`.
"""

import atexit
import json
import multiprocessing
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

PLAIN = [("Content-Type", "text/plain")]

View = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]


def _file(name: str) -> Path:
    return Path(os.environ["PROBE_DIR"]) / name


def _wait(name: str) -> None:
    """Until the test lets it go; opening a FIFO blocks until the other side is there."""
    _file(name).read_bytes()


def _text(start: StartResponse, value: object) -> Iterable[bytes]:
    start("200 OK", PLAIN)
    return [json.dumps(value).encode()]


def _held() -> dict[int, str]:
    held = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            held[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            continue
    return held


def _signals() -> dict[str, list[int]]:
    """By their disposition: the numbers up to 31 that this process ignores, or catches."""
    lines = Path("/proc/self/status").read_text().splitlines()
    masks = {
        line.split(":")[0]: int(line.split()[1], 16)
        for line in lines
        if line[:3] == "Sig" and line[3:6] in ("Ign", "Cgt", "Blk")
    }
    return {
        name: [number for number in (1, 2, 3, 10, 12, 14, 15, 21, 22) if mask >> (number - 1) & 1]
        for name, mask in masks.items()
    }


def _serve_for_ever() -> None:
    while True:
        time.sleep(60)


def terminated(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """A child that is ended by SIGTERM: its exit code."""
    child = multiprocessing.get_context("fork").Process(target=_serve_for_ever)
    child.start()
    child.terminate()
    child.join(5)
    return _text(start, child.exitcode)


def pool(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    with multiprocessing.get_context("fork").Pool(2) as workers:
        return _text(start, workers.map(abs, [-1, -2, -3]))


def spawned(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    method = environ["QUERY_STRING"]
    child = multiprocessing.get_context(method).Process(target=os.getpid)
    child.start()
    child.join(10)
    return _text(start, child.exitcode)


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def returns(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    pid = os.fork()
    if pid == 0:
        return _text(start, "the child")
    return _text(start, _status(pid))


def exits(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    pid = os.fork()
    if pid == 0:
        raise SystemExit(7)
    return _text(start, _status(pid))


def fails(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    pid = os.fork()
    if pid == 0:
        raise ValueError("in the child")
    return _text(start, _status(pid))


def yields(environ: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
    start("200 OK", PLAIN)
    yield b"one "
    pid = os.fork()
    yield b"" if pid == 0 else str(_status(pid)).encode()
    yield b" two"


class Closing:
    def __init__(self) -> None:
        self.pid = -1

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"body"])

    def close(self) -> None:
        self.pid = os.fork()
        if self.pid:
            _file("closed").write_text(str(_status(self.pid)))


def closes(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    start("200 OK", PLAIN)
    return Closing()


def writes(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    write = start("200 OK", PLAIN)
    pid = os.fork()
    if pid == 0:
        try:
            write(b"the child")
        except OSError:
            os._exit(5)
        os._exit(0)
    write(str(_status(pid)).encode())
    return []


def reads(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    pid = os.fork()
    if pid == 0:
        try:
            environ["wsgi.input"].read()
        except OSError:
            os._exit(5)
        os._exit(0)
    status = _status(pid)
    _file("tried").touch()
    return _text(start, [status, environ["wsgi.input"].read().decode()])


def reads_beside(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """The same while a thread of the worker waits for the body; which the child has not."""
    found: list[bytes] = []
    body = environ["wsgi.input"]
    thread = threading.Thread(target=lambda: found.append(body.read()))
    thread.start()
    _wait("go")
    pid = os.fork()
    if pid == 0:
        try:
            body.read()
        except OSError:
            os._exit(5)
        os._exit(0)
    status = _status(pid)
    _file("tried").touch()
    thread.join()
    return _text(start, [status, found[0].decode()])


def helped(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """Start a child that stays until the test lets it go."""
    pid = os.fork()
    if pid == 0:
        _wait("helper")
        os._exit(0)
    return _text(start, pid)


def daemon(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """The same, forked twice."""
    pid = os.fork()
    if pid == 0:
        if os.fork():
            os._exit(0)
        _wait("helper")
        os._exit(0)
    _status(pid)
    return _text(start, pid)


def threaded(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """Fork in a thread of the application's own, whose child comes to its end there."""
    found: list[int] = []

    def run() -> None:
        pid = os.fork()
        if pid:
            found.append(_status(pid))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return _text(start, found[0])


def sees(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """What a child holds open, and how it takes signals."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        seen = [list(_held().values()), _signals(), signal.set_wakeup_fd(-1)]
        os.write(writer, json.dumps(seen).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        seen = json.loads(pipe.read())
    _status(pid)
    return _text(start, seen)


_SEEN = """
import sys; sys.path.insert(0, %r)
from tests.apps.forking import _held, _signals
import json, resource
print(json.dumps([list(_held().values()), _signals(), resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""


def program(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """The same of another program."""
    code = _SEEN % str(Path.cwd())
    out = subprocess.run(
        [sys.executable, "-c", code], close_fds=False, stdout=subprocess.PIPE, check=True
    )
    return _text(start, json.loads(out.stdout))


def lowest(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """The number that a file of the application's gets, and whether select() takes it."""
    with Path(os.devnull).open() as file:
        return _text(start, [file.fileno(), len(select.select([file], [], [], 0)[0])])


def limit(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """The soft limit of open files that a child and a program have."""
    out = subprocess.run(["sh", "-c", "ulimit -n"], stdout=subprocess.PIPE, check=True)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]).encode())
        os._exit(0)
    _status(pid)
    child = int(os.read(reader, 20))
    os.close(reader)
    os.close(writer)
    return _text(start, [child, int(out.stdout)])


def hello(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    return _text(start, os.getpid())


_VIEWS: list[View] = [
    terminated,
    pool,
    spawned,
    returns,
    exits,
    fails,
    yields,
    closes,
    writes,
    reads,
    reads_beside,
    helped,
    daemon,
    threaded,
    sees,
    program,
    hello,
    lowest,
    limit,
]
_PATHS = {f"/{view.__name__}".replace("_", "-"): view for view in _VIEWS}


def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    return _PATHS[environ["PATH_INFO"]](environ, start)


def _fork_and_note(moment: str) -> None:
    pid = os.fork()
    if pid:
        with _file(moment).open("a") as file:
            file.write(f"{os.getpid()} {pid}\n")


if os.environ.get("FORK_AT") == "import":
    _fork_and_note("import")
elif os.environ.get("FORK_AT") == "exit":
    atexit.register(_fork_and_note, "exit")
elif os.environ.get("FORK_AT") == "helper" and os.fork() == 0:
    _file("seen").write_text(json.dumps([list(_held().values()), _signals()]))
    _wait("helper")
    os._exit(0)
