"""`poolsrv.running(app)`: a server within the test's own process, which leaves nothing behind."""

import contextlib
import gc
import io
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import poolsrv
from poolsrv.errors import ApplicationError, ConfigError, ListenError
from poolsrv.single.testing import Running
from tests.server import ROOT
from tests.test_documents import fenced
from tests.waiting import wait_until

Environ = dict[str, Any]
Start = Callable[..., Any]


def application(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    names = ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once", "SERVER_PORT", "PATH_INFO")
    return [repr([environ[name] for name in names]).encode()]


def saying(text: bytes) -> Callable[[Environ, Start], Iterable[bytes]]:
    def app(_environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [text]

    return app


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def descriptors() -> list[str]:
    """What this process has open, but for the folder that is being read."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(f"{entry.name} {entry.readlink()}")
    return sorted(found)


def everything() -> dict[str, object]:
    """What a server could leave behind in its process."""
    logger = logging.getLogger("poolsrv")
    return {
        "descriptors": descriptors(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "folder": Path.cwd(),
        "path": list(sys.path),
        "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
        "log": (logger.handlers[:], logger.level, logger.propagate, type(logger)),
        "frozen": gc.get_freeze_count(),
        "switch": sys.getswitchinterval(),
    }


# From Python 3.12 on a fork of a process with threads warns; that it works is tested below.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with poolsrv.running(application):
        pass  # what is imported on the first use stays
    before = everything()
    yield
    after = everything()
    assert {name: after[name] for name in before if after[name] != before[name]} == {}


@pytest.mark.parametrize("threads", [1, 4])
def test_the_application_is_told_what_runs_it(threads: int) -> None:
    with poolsrv.running(application, threads=threads) as server:
        shown = get(f"{server.url}/x")
        assert shown.decode() == repr([threads > 1, False, False, str(server.port), "/x"])
        assert (server.host, server.path) == ("127.0.0.1", None)
        assert server.url == f"http://127.0.0.1:{server.port}"


def time_of_the_first_answer() -> float:
    start = time.perf_counter()
    with poolsrv.running(saying(b"hello")) as server:
        with socket.create_connection((server.host, server.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(4096).endswith(b"hello")
        return time.perf_counter() - start


def test_the_first_answer_can_come_within_10_ms() -> None:
    """Others use this machine as well: once is enough."""
    assert any(time_of_the_first_answer() < 0.010 for _ in range(200))


def test_several_run_at_once() -> None:
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(poolsrv.running(saying(b"%d" % number), threads=2))
            for number in range(5)
        ]
        assert len({server.port for server in servers}) == 5
        for _ in range(3):
            assert [get(server.url) for server in servers] == [b"%d" % n for n in range(5)]


def test_any_thread_may_have_one() -> None:
    answers: list[bytes] = []

    def life(text: bytes) -> None:
        with poolsrv.running(saying(text)) as server:
            answers.append(get(server.url))

    threads = [threading.Thread(target=life, args=(b"%d" % n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [b"0", b"1", b"2", b"3"]


def test_a_connection_that_is_kept_does_not_keep_the_server() -> None:
    with poolsrv.running(saying(b"hello")) as server:
        client = socket.create_connection((server.host, server.port))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).endswith(b"hello")
        start = time.process_time()
    assert time.process_time() - start < 1
    with client:
        assert client.recv(1) == b""


def test_what_runs_is_finished() -> None:
    entered, goes_on = threading.Event(), threading.Event()

    def app(_environ: Environ, start_response: Start) -> Iterable[bytes]:
        entered.set()
        assert goes_on.wait(10)
        start_response("200 OK", [])
        return [b"finished"]

    answers: list[bytes] = []
    with poolsrv.running(app) as server:
        client = threading.Thread(target=lambda: answers.append(get(server.url)))
        client.start()
        assert entered.wait(10)
        threading.Timer(0.2, goes_on.set).start()
    client.join()
    assert answers == [b"finished"]


def test_the_object_is_served_as_it_is_and_let_go() -> None:
    class App:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
            self.seen.append(environ["PATH_INFO"])
            start_response("204 No Content", [])
            return []

    app = App()
    with poolsrv.running(app) as server:
        get(f"{server.url}/one")
    assert app.seen == ["/one"]
    reference = weakref.ref(app)
    del app
    gc.collect()
    assert reference() is None


def test_errors_of_the_application_are_in_the_log_of_the_test(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def app(environ: Environ, _start_response: Start) -> Iterable[bytes]:
        print("a note", file=environ["wsgi.errors"])
        raise LookupError("on purpose")

    with poolsrv.running(app) as server, pytest.raises(urllib.error.HTTPError, match="500"):
        get(f"{server.url}/x")
    note, failed = caplog.records
    assert note.getMessage() == "a note"
    assert failed.exc_info is not None
    assert str(failed.exc_info[1]) == "on purpose"
    assert failed.fields["path"] == "/x"  # type: ignore[attr-defined]


def ask(server: Running) -> socket.socket:
    """A client that has sent its request."""
    client = socket.create_connection((server.host, server.port), timeout=20)
    client.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return client


def read_all(client: socket.socket) -> bytes:
    with client, client.makefile("rb") as file:
        return file.read()


def test_an_application_that_hangs_does_not_keep_the_block(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its stack is logged, its client is answered, and all is released when it comes back."""
    entered, goes_on = threading.Event(), threading.Event()

    def hangs_on_purpose() -> None:
        entered.set()
        goes_on.wait()

    def app(_environ: Environ, start_response: Start) -> Iterable[bytes]:
        hangs_on_purpose()
        start_response("200 OK", [])
        return [b"too late"]

    def run() -> socket.socket:
        with poolsrv.running(app, graceful_timeout=0.1) as server:
            client = ask(server)
            assert entered.wait(10)
        return client

    before = everything()
    with pytest.warns(RuntimeWarning, match="keeps 1 thread"):
        client = run()
    assert read_all(client).startswith(b"HTTP/1.1 504 ")
    interrupted, lost, left = caplog.records
    assert "hangs_on_purpose" in str(interrupted.stack_info)
    assert "hangs_on_purpose" in str(lost.stack_info)
    assert "poolsrv-" in left.getMessage()
    assert everything() != before
    goes_on.set()
    wait_until(lambda: everything() == before)


def test_an_application_that_computes_for_ever_is_interrupted() -> None:
    entered = threading.Event()
    interrupted = []

    def app(_environ: Environ, _start_response: Start) -> Iterable[bytes]:
        entered.set()
        try:
            while True:
                pass
        except poolsrv.RequestTimeout:
            interrupted.append(True)
            raise

    with poolsrv.running(app, graceful_timeout=0.1) as server:
        client = ask(server)
        assert entered.wait(10)
    assert read_all(client).startswith(b"HTTP/1.1 504 ")
    assert interrupted == [True]


def test_a_thread_that_was_lost_and_has_come_back_is_not_left_behind() -> None:
    goes_on = threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/wait":
            goes_on.wait()
        start_response("200 OK", [])
        return [b"served"]

    options = {"threads": 2, "request_timeout": 0.05, "interrupt_timeout": 0.05}
    with poolsrv.running(app, **options) as server:
        with pytest.raises(urllib.error.HTTPError, match="504"):
            get(f"{server.url}/wait")
        assert get(server.url) == b"served"  # the other thread
        goes_on.set()


def test_a_socket_that_is_taken_over_does_not_keep_the_block() -> None:
    def app(environ: Environ, _start_response: Start) -> Iterable[bytes]:
        with environ["poolsrv.socket"] as taken:
            taken.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n")
            while data := taken.recv(100):
                taken.sendall(data)
        return []

    with poolsrv.running(app) as server:
        client = socket.create_connection((server.host, server.port), timeout=20)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 101 ")
        client.sendall(b"said")
        assert client.recv(100) == b"said"
    assert read_all(client) == b""


def test_who_waits_behind_one_that_hangs_is_let_go() -> None:
    entered, goes_on = threading.Event(), threading.Event()

    def app(_environ: Environ, start_response: Start) -> Iterable[bytes]:
        entered.set()
        goes_on.wait()
        start_response("200 OK", [])
        return [b"too late"]

    def run() -> tuple[socket.socket, list[socket.socket]]:
        with poolsrv.running(app, threads=1, graceful_timeout=0.1) as server:
            first = ask(server)
            assert entered.wait(10)
            return first, [ask(server) for _ in range(20)]

    before = everything()
    with pytest.warns(RuntimeWarning):
        first, others = run()
    assert read_all(first).startswith(b"HTTP/1.1 504 ")
    for client in others:
        with contextlib.suppress(ConnectionResetError):
            assert read_all(client)[:13] in (b"", b"HTTP/1.1 503 ")
    goes_on.set()
    wait_until(lambda: everything() == before)


def test_an_error_in_the_block_comes_out_of_it() -> None:
    with pytest.raises(LookupError, match="in the test"), poolsrv.running(application) as server:
        raise LookupError("in the test")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port))


# Forks


def in_child(act: Callable[[], int]) -> int:
    """The exit status of a child that is forked for it."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = act()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_of_the_test_has_nothing_of_it() -> None:
    before = len(descriptors())
    with poolsrv.running(saying(b"parent")) as server, requests.Session() as kept:
        assert kept.get(server.url).content == b"parent"

        def child() -> int:
            kept.close()
            with poolsrv.running(saying(b"child")) as own:
                assert get(own.url) == b"child"
            return len(descriptors())

        assert in_child(child) == before
        assert kept.get(server.url).content == b"parent"
        assert get(server.url) == b"parent"


def test_a_child_that_lives_on_holds_no_address_and_no_client() -> None:
    ours, theirs = socket.socketpair()
    with poolsrv.running(saying(b"parent"), admin="127.0.0.1:0") as server:
        assert server.admin_url is not None
        ports = server.port, int(server.admin_url.rpartition(":")[2])
        client = socket.create_connection((server.host, server.port), timeout=20)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).endswith(b"parent")
        pid = os.fork()
        if pid == 0:
            ours.close()
            client.close()
            theirs.recv(1)
            os._exit(0)
        assert get(f"{server.admin_url}/livez") == b"ok\n"
    assert client.recv(1) == b""
    for port in ports:
        with poolsrv.running(application, bind=f"127.0.0.1:{port}"):
            pass
    for end in (client, ours, theirs):
        end.close()
    os.waitpid(pid, 0)


def test_a_child_may_leave_the_block_by_its_end() -> None:
    """It neither stops the server of its parent nor removes its socket."""

    def child(server: contextlib.ExitStack) -> int:
        server.close()
        return 7

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(poolsrv.running(saying(b"parent")))
        assert in_child(lambda: child(stack)) == 7
        assert get(server.url) == b"parent"


def test_a_view_may_fork() -> None:
    def app(_environ: Environ, start_response: Start) -> Iterable[bytes]:
        pid = os.fork()
        start_response("200 OK", [])
        if pid:
            os.waitpid(pid, 0)
        return [b"once"]

    with poolsrv.running(app) as server:
        answer = read_all(ask(server))
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.count(b"once") == 1
        assert get(server.url) == b"once"


# What is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"processes": 2}, "in this process"),
        ({"max_requests": 10}, "max_requests: needs a supervisor"),
        ({"user": "nobody"}, "processes 0"),
        ({"control": "/tmp/x"}, "control: needs a supervisor"),
        ({"no_such": 1}, "no such option"),
        ({"mount": "/x=app:app"}, "mount: running"),
        ({"threads": 0}, "threads"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words), poolsrv.running(application, **options):
        pass


def test_what_is_no_application_is_refused() -> None:
    with pytest.raises(ApplicationError), poolsrv.running("module:app"):  # type: ignore[arg-type]
        pass


def test_an_address_in_use_is_refused() -> None:
    with (
        poolsrv.running(application) as server,
        pytest.raises(ListenError, match="in use"),
        poolsrv.running(application, bind=f"127.0.0.1:{server.port}"),
    ):
        pass


@pytest.mark.parametrize("starts", range(7))
def test_a_system_without_room_for_threads(monkeypatch: pytest.MonkeyPatch, starts: int) -> None:
    """Those that have started end, whichever they are."""
    left = starts
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        nonlocal left
        if not left:
            raise RuntimeError("can't start new thread")
        left -= 1
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with (
            pytest.raises(ApplicationError, match=f"start {starts} of 7 threads"),
            poolsrv.running(application, admin="127.0.0.1:0"),
        ):
            pass


# What comes with a server


def test_metrics_and_status_are_there_if_asked_for() -> None:
    with poolsrv.running(application, admin="127.0.0.1:0") as server:
        get(server.url)
        assert server.admin_url is not None
        assert b"poolsrv_requests_total" in get(f"{server.admin_url}/metrics")
        assert get(f"{server.admin_url}/readyz") == b"1 of 1 workers are ready\n"
        assert get(f"{server.admin_url}/livez") == b"ok\n"
    with poolsrv.running(application) as server:
        assert server.admin_url is None


def test_a_unix_socket_has_a_path(tmp_path: Path) -> None:
    with poolsrv.running(saying(b"hello"), bind=f"unix:{tmp_path}/socket") as server:
        assert (server.host, server.port, server.path) == (None, None, f"{tmp_path}/socket")
        client = socket.socket(socket.AF_UNIX)
        client.connect(f"{tmp_path}/socket")
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_all(client).endswith(b"hello")
    assert not list(tmp_path.iterdir())


def test_each_server_has_its_own_names_of_once() -> None:
    def app(_environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [repr(poolsrv.once("name")).encode()]

    for _ in range(2):
        with poolsrv.running(app) as one, poolsrv.running(app) as other:
            urls = (one.url, one.url, other.url, other.url)
            assert [get(url) for url in urls] == [b"True", b"False", b"True", b"False"]
    with pytest.raises(RuntimeError):
        poolsrv.once("name")


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("POOLSRV_THREADS", "nonsense")
        patch.setenv("PORT", "1")
        with poolsrv.running(application) as server:
            assert get(server.url)


def test_an_upload_is_read_and_a_file_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3_000_000))

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [])
        if environ["REQUEST_METHOD"] == "POST":
            return [b"%d" % len(environ["wsgi.input"].read())]
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file.open("rb"))
        return wrapped

    with poolsrv.running(app, body_buffer=1000) as server, requests.Session() as session:
        for _ in range(3):
            assert session.get(server.url).content == file.read_bytes()
            assert session.post(server.url, data=io.BytesIO(bytes(2_000_000))).text == "2000000"


def test_files_are_served_beside_the_application(tmp_path: Path) -> None:
    (tmp_path / "style.css").write_text("body {}")
    with poolsrv.running(saying(b"the application"), mount=f"/static={tmp_path}/") as server:
        assert get(f"{server.url}/static/style.css") == b"body {}"
        assert get(f"{server.url}/other") == b"the application"


def test_many_clients_at_once() -> None:
    with poolsrv.running(saying(b"hello")) as server:
        failed: list[object] = []

        def client() -> None:
            with requests.Session() as session:
                failed.extend(1 for _ in range(25) if session.get(server.url).content != b"hello")

        clients = [threading.Thread(target=client) for _ in range(16)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
    assert not failed


# Frameworks


def test_flask() -> None:
    from tests.apps.flask_site import app

    with poolsrv.running(app) as server:
        assert requests.get(f"{server.url}/page", timeout=10).status_code == 200


def pytest_of(folder: Path, *options: str) -> str:
    """What a run of pytest in a folder says at its end."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *options, str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


DJANGO = """
import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    STATIC_URL="/static/",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()

def home(request):
    from django.contrib.auth.models import User
    return HttpResponse(", ".join(user.username for user in User.objects.all()))

urlpatterns = [path("", home)]

from django.db import connection
connection.creation.create_test_db(verbosity=0)
"""

SEES = """
    def test_rows(self):
        from urllib.request import urlopen
        from django.contrib.auth.models import User

        User.objects.create(username="somebody")
        assert urlopen(self.live_server_url).read() == b"somebody"
"""


def test_what_the_guide_shows_runs(tmp_path: Path) -> None:
    """Its Django test sees what the test has put into the database."""
    guide = (ROOT / "docs" / "testing.md").read_text()
    blocks = [text for language, text in fenced(guide) if language == "python"]
    for number, block in enumerate(blocks):
        whole = f"{DJANGO}\n{block}\n{SEES}" if "django" in block else block
        (tmp_path / f"test_{number}.py").write_text(whole)
    assert len(blocks) == 4
    assert "5 passed" in pytest_of(tmp_path)


PLUGIN = """
import pytest
def app(environ, start_response):
    start_response("200 OK", [])
    return [environ["PATH_INFO"].encode()]

@pytest.mark.parametrize("number", range(6))
def test_it(poolsrv_server, number):
    import urllib.request
    one, other = poolsrv_server(app), poolsrv_server(app, threads=1)
    for server in (one, other):
        with urllib.request.urlopen(f"{server.url}/{number}") as answer:
            assert answer.read() == b"/%d" % number
"""


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_pytest_has_a_fixture(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "test_with_fixture.py").write_text(PLUGIN)
    assert "6 passed" in pytest_of(tmp_path, *options)


def test_the_fixture_costs_nothing_where_it_is_not_used() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import poolsrv.pytest_plugin; "
        "new = set(sys.modules) - before; print(sorted(new))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str(["poolsrv", "poolsrv._version", "poolsrv.pytest_plugin"])
