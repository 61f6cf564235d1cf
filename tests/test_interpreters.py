"""Applications in interpreters of their own, within one worker."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from poolsrv.errors import ConfigError
from poolsrv.settings.mounts import Mount
from poolsrv.settings.rows import Settings
from tests.apps.gate import Gate
from tests.client import Client, Response
from tests.server import ROOT, Server, run_to_end
from tests.test_operate import told
from tests.test_upgrade import ask, switched, wait_until_left

Start = Callable[..., Server]

APP = "tests.apps.many:app"
# The first, and the second.
TWO = [f"/one={APP}", "/two=tests.apps.many:other"]

needed = pytest.mark.skipif(sys.version_info < (3, 13), reason="own GILs need Python 3.13")


def get(server: Server, path: str) -> Any:
    with Client(server.address, timeout=30) as client:
        response = client.get(path)
        assert response.status == 200, (response.status, response.body)
        return json.loads(response.body)


def status_of(server: Server, path: str) -> int:
    with Client(server.address, timeout=30) as client:
        return client.get(path).status


def notes(folder: Path, event: str) -> list[str]:
    return sorted(path.name for path in folder.glob(f"{event}-*"))


def two(tmp_path: Path, more: str = "") -> Path:
    """A file by which each application is in an interpreter of its own."""
    path = tmp_path / "two.toml"
    path.write_text(
        f"""
processes = 1
threads = 4
interpreters = 2
{more}
[[mount]]
path = "/one"
application = "{APP}"
interpreter = 1
[[mount]]
path = "/two"
application = "tests.apps.many:other"
interpreter = 2
"""
    )
    return path


# What is refused, and why


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigError) as error:
        Settings("app:app", **options)
    return str(error.value)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="there they are")
def test_an_older_python_is_refused() -> None:
    said = refusal(interpreters=2)
    assert f"in Python 3.{sys.version_info[1]} half of" in said
    assert "Python 3.13 or newer" in said


def test_a_mount_names_an_interpreter_that_there_is() -> None:
    assert "is in interpreter 2, and there is one" in refusal(
        mount=(Mount("/a", application="a:a", interpreter=2),)
    )
    twice = (Mount("/a", application="a:a", interpreter=1), Mount("/b", application="a:a"))
    assert "a:a is mounted twice" in refusal(mount=twice)


@needed
def test_each_interpreter_needs_a_thread_and_a_process() -> None:
    assert "give --threads 3 or more" in refusal(interpreters=3, threads=2)
    assert "processes 0" in refusal(interpreters=2, processes=0)


@needed
def test_a_callable_of_a_program_stays_where_it_is() -> None:
    settings = Settings(mount=(Mount("/b", application="b:b"),), interpreters=2)
    assert [mount.interpreter for mount in settings.all_mounts(called=True)] == [1, 0]


@needed
@pytest.mark.parametrize("pinned", [False, True])
def test_an_extension_that_refuses_is_named(tmp_path: Path, pinned: bool) -> None:
    (tmp_path / "single.py").write_text(
        "import _testsinglephase\nfrom tests.apps.hello import app\n"
    )
    (tmp_path / "poolsrv.toml").write_text(
        f"""
interpreters = 2
chdir = "{tmp_path}"
pythonpath = ["{ROOT}"]
[[mount]]
application = "single:app"
{"interpreter = 1" if pinned else ""}
"""
    )
    options = {"config": tmp_path / "poolsrv.toml", "processes": 1, "threads": 2}
    check = subprocess.run(
        [sys.executable, "-c", "import _testsinglephase"], capture_output=True, check=False
    )
    if check.returncode:
        pytest.skip("this Python has no extension of the old kind")
    command = [sys.executable, "-m", "poolsrv", "check", "--config", str(options["config"])]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if pinned:
        assert checked.returncode == 0, checked.stderr
        return
    assert "the extension module _testsinglephase works in the first" in checked.stderr
    code, said = run_to_end("", tmp_path, **options)
    assert code == 3, said
    assert "in interpreter 2: 'single:app' cannot be loaded" in said
    assert "the extension module _testsinglephase works in the first interpreter only" in said
    assert "write interpreter = 1 into the [[mount]]" in said


# What serves


@needed
def test_an_application_is_in_each(server: Start, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    started = server(APP, threads=2, interpreters=2, on_worker_start="tests.apps.many:hook")
    with ThreadPoolExecutor(2) as clients:
        held = clients.map(lambda _: get(started, "/pause"), range(2))
        started.wait_until(lambda: len(gate.arrivals()) == 2)
        gate.close()
        one, other = held
    assert one["here"] != other["here"]
    assert one["pid"] == other["pid"]
    assert {one["thread"], other["thread"]} == {"poolsrv-0-0", "poolsrv-0-1"}
    assert len(notes(tmp_path, "loaded")) == len(notes(tmp_path, "hooked")) == 2
    started.stop()
    assert len(notes(tmp_path, "ended")) == 2


@needed
def test_one_that_holds_its_lock_keeps_no_other_waiting(server: Start, tmp_path: Path) -> None:
    gate = Gate(tmp_path, "held")
    started = server("", config=two(tmp_path))
    for holder, free in ("/two", "/one"), ("/one", "/two"):
        before = len(notes(tmp_path, "holds"))
        with ThreadPoolExecutor(1) as clients:
            held = clients.submit(get, started, f"{holder}/hold")
            started.wait_until(lambda seen=before: len(notes(tmp_path, "holds")) > seen)
            answers = [get(started, free) for _ in range(20)]
            assert not held.done()
            gate.release(1)
            assert held.result()["here"] not in {answer["here"] for answer in answers}
    gate.close()


@needed
def test_a_lock_that_never_comes_is_found_out(server: Start, tmp_path: Path) -> None:
    gate = Gate(tmp_path, "held")
    started = server(
        "", config=two(tmp_path), watchdog_timeout="1s", allow_errors="POOL202|POOL205"
    )
    first = started.workers()
    with Client(started.address) as client:
        client.send(b"GET /two/hold HTTP/1.1\r\nHost: a\r\n\r\n")
        started.wait_until(lambda: notes(tmp_path, "holds"))
        assert get(started, "/one")["script"] == "/one"
        started.wait_until(lambda: started.workers() not in (first, []), deadline=20)
    assert get(started, "/two")["script"] == "/two"
    gate.close()


@needed
def test_what_goes_where(server: Start, tmp_path: Path) -> None:
    started = server("", config=two(tmp_path), allow_errors="POOL302|written in")
    one, other = get(started, "/one/a"), get(started, "/two/b")
    assert (one["script"], one["path"]) == ("/one", "/a")
    assert (other["script"], other["path"]) == ("/two", "/b")
    heres = {"/one": one["here"], "/two": other["here"]}
    for mount, here in heres.items():
        for _ in range(10):
            assert get(started, mount)["here"] == here
        spoken = get(started, f"{mount}/speak")
        started.wait_for_log(f"(?m)^printed in {here}$")
        started.wait_for_log(f"written in {here} request={spoken['id']}")
        assert status_of(started, f"{mount}/raise") == 500
        started.wait_for_log(f"POOL302 .*(\n .*)*raised in {here}")
        with Client(started.address) as client:
            assert len(client.get(f"{mount}/large").body) == 2_000_000
            assert client.get(f"{mount}/file").body == Path("tests/apps/many.py").read_bytes()
            body = b"x" * 300_000
            client.send(b"POST %s/body HTTP/1.1\r\nHost: a\r\n" % mount.encode())
            client.send(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            assert json.loads(client.receive().body) == {"size": len(body)}
    claims = [get(started, f"{mount}/claim") for mount in (*heres, *heres)]
    assert [claim["first"] for claim in claims] == [True, False, False, False]
    assert [claim["count"] for claim in claims] == [1, 2, 3, 4]


@needed
def test_what_would_end_the_process_is_an_exception(server: Start, tmp_path: Path) -> None:
    started = server("", config=two(tmp_path))
    for mount in "/one", "/two":
        found = get(started, f"{mount}/dangers")
        assert "cannot be forked: use subprocess" in found["fork"]
        assert "exceptions of all threads" in found["exceptions"]
        assert found["frames"] == "dangers"
        assert found["echo"] == "hello\n"


@needed
def test_a_request_is_interrupted_where_it_is(server: Start, tmp_path: Path) -> None:
    started = server("", config=two(tmp_path), request_timeout="0.3s", allow_errors="POOL303")
    with ThreadPoolExecutor(4) as clients:
        paths = ["/one/sleep", "/two/sleep"] * 2
        assert list(clients.map(lambda path: status_of(started, path), paths)) == [504] * 4
    assert len(notes(tmp_path, "sleeps")) == 2
    log = started.log()
    assert log.count("POOL303") == 4
    assert log.count(" in sleep\n") == 4
    assert get(started, "/one")["pid"] == get(started, "/two")["pid"]
    assert started.metric("poolsrv_requests_timed_out_total", outcome="interrupted") == 4


@needed
def test_stacks_are_those_of_all(server: Start, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    started = server("", config=two(tmp_path), control=tmp_path / "control")
    with ThreadPoolExecutor(3) as clients:
        held = [
            clients.submit(get, started, f"{mount}/pause") for mount in ("/one", "/two", "/two")
        ]
        started.wait_until(lambda: len(gate.arrivals()) == 3)
        for _ in range(3):
            (text,) = told(tmp_path / "control", "stacks").values()
            assert text.count(" in wait_at_gate\n") == 3
            assert len(re.findall(r"Thread 0x\w+ poolsrv-0-\d in interpreter 2 ", text)) == 2
            # The first, and most recent, is the call in which it waits.
            assert text.count('gate.py", line') == 3
        gate.close()
        assert len({answer.result()["here"] for answer in held}) == 2
    assert get(started, "/two")["script"] == "/two"


SITE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{name}.settings")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""
SETTINGS = """
SECRET_KEY = "{name}"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "{name}.urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "{folder}/{name}.db"}}}}
"""
URLS = """
from django.conf import settings
from django.contrib.auth.models import User
from django.http import JsonResponse
from django.urls import path

def view(request):
    return JsonResponse({
        "project": settings.SECRET_KEY,
        "module": settings.SETTINGS_MODULE,
        "users": [user.username for user in User.objects.all()],
        "url": request.build_absolute_uri(),
    })

urlpatterns = [path("", view), path("page", view)]
"""
FLASK = """
from flask import Flask, request, url_for
app = Flask(__name__)

@app.get("/<name>")
def page(name):
    return {"name": name, "url": url_for("page", name=name), "agent": request.user_agent.string}
"""
BOTTLE = """
import bottle
app = bottle.Bottle()

@app.get("/<name>")
def page(name):
    return {"name": name, "script": bottle.request.script_name}
"""


@needed
@pytest.mark.parametrize("preload", [False, True])
def test_two_django_projects_flask_and_bottle_in_one_process(
    server: Start, tmp_path: Path, preload: bool
) -> None:
    for name in "first", "second":
        (tmp_path / name).mkdir()
        for file, text in ("wsgi", SITE), ("settings", SETTINGS), ("urls", URLS):
            words = text.format(name=name, folder=tmp_path) if "{name}" in text else text
            (tmp_path / name / f"{file}.py").write_text(words)
        code = (
            f"import {name}.wsgi, django.core.management as m; m.call_command('migrate');"
            f"from django.contrib.auth.models import User; User(username='{name}').save()"
        )
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    (tmp_path / "flasked.py").write_text(FLASK)
    (tmp_path / "bottled.py").write_text(BOTTLE)
    mounts = [
        ("/first", "first.wsgi:application", 1),
        ("/second", "second.wsgi:application", 2),
        ("/flask", "flasked:app", 0),
        ("/bottle", "bottled:app", 0),
    ]
    config = f"interpreters = 2\nthreads = 4\nprocesses = 1\nchdir = '{tmp_path}'\n"
    for path, application, number in mounts:
        config += f"[[mount]]\npath = '{path}'\napplication = '{application}'\n"
        config += f"interpreter = {number}\n" if number else ""
    (tmp_path / "sites.toml").write_text(config)
    started = server("", config=tmp_path / "sites.toml", preload=preload)
    assert len(started.workers()) == 1

    def ask(number: int) -> None:
        for name in "first", "second":
            found = get(started, f"/{name}/page")
            assert found["project"] == name
            assert found["module"] == f"{name}.settings"
            assert found["users"] == [name]
            assert found["url"].endswith(f"/{name}/page")
        assert get(started, f"/flask/{number}")["url"] == f"/flask/{number}"
        assert get(started, f"/bottle/{number}") == {"name": str(number), "script": "/bottle/"}

    with ThreadPoolExecutor(4) as clients:
        list(clients.map(ask, range(40)))


@needed
def test_a_reload_brings_new_code_into_each(server: Start, tmp_path: Path) -> None:
    code = tmp_path / "changing.py"
    text = "from tests.apps.many import app, other\nVERSION = {0}\n"
    text += "def numbered(environ, start_response):\n"
    text += "    start_response('200 OK', [])\n    return [b'{0}']\n"
    text += "again = lambda *given: numbered(*given)\n"
    code.write_text(text.format(1))
    config = tmp_path / "changing.toml"
    config.write_text(
        f"""
interpreters = 2
threads = 2
processes = 1
chdir = "{tmp_path}"
pythonpath = ["{ROOT}"]
[[mount]]
path = "/one"
application = "changing:numbered"
interpreter = 1
[[mount]]
path = "/two"
application = "changing:again"
interpreter = 2
"""
    )
    started = server("", config=config)
    stopped = threading.Event()
    failed: list[object] = []

    def ask(path: str) -> None:
        with Client(started.address) as client:
            while not stopped.is_set():
                found = client.get(path).body
                if found not in (b"1", b"2"):
                    failed.append(found)

    with ThreadPoolExecutor(2) as clients:
        asked = [clients.submit(ask, path) for path in ("/one", "/two")]
        # Of another size, for Python takes its old bytecode for that of a file of the same second.
        code.write_text(text.format(22 // 11) + "CHANGED = True\n")
        started.kill(started.pid, 1)
        try:
            started.wait_for_log("generation 2")
            started.wait_until(lambda: body_of(started, "/two") == b"2")
        finally:
            stopped.set()
        for future in asked:
            future.result()
    assert not failed
    assert body_of(started, "/one") == b"2"


def body_of(server: Server, path: str) -> bytes:
    with Client(server.address) as client:
        return client.get(path).body


@needed
def test_ten_thousand_requests_and_clients_that_leave(server: Start, tmp_path: Path) -> None:
    started = server("", config=two(tmp_path), allow_errors="POOL302")
    paths = ["/one", "/two", "/two/large", "/one/large", "/two/body", "/one/file", "/two/file"]

    def ask(number: int) -> int:
        done = 0
        with Client(started.address, timeout=60) as client:
            while done < 1250:
                assert client.get(paths[(done + number) % 2]).status == 200
                done += 1
        for path in paths[2:]:
            with Client(started.address) as leaving:
                leaving.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                leaving.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                leaving.socket.recv(100)
                leaving.reset()
        return done

    with ThreadPoolExecutor(8) as clients:
        assert sum(clients.map(ask, range(8))) == 10_000
    assert len(started.workers()) == 1
    assert status_of(started, "/two") == 200


@needed
def test_websockets_and_files_that_an_application_names(server: Start, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 300_000)
    config = tmp_path / "both.toml"
    applications = {"taken": "tests.apps.taken:app", "naming": "tests.apps.naming:app"}
    text = f"interpreters = 2\nthreads = 4\nsendfile-root = ['{tmp_path}']\n"
    for number in 1, 2:
        for name, application in applications.items():
            # One application has one interpreter.
            module = f"{name}{number}"
            (tmp_path / f"{module}.py").write_text(
                f"from {application.partition(':')[0]} import app as given\n"
                "def app(environ, start_response):\n"
                "    return given(environ, start_response)\n"
            )
            text += f"[[mount]]\npath = '/{module}'\napplication = '{module}:app'\n"
            text += f"interpreter = {number}\n"
    config.write_text(f"chdir = '{tmp_path}'\npythonpath = ['{ROOT}']\n{text}")
    started = server("", config=config)
    for number in 1, 2:
        with Client(started.address) as naming:
            for how in "list", "generator":
                reply = naming.get(f"/naming{number}/{how}?path={tmp_path / 'data'}")
                assert (reply.status, reply.body) == (200, b"x" * 300_000)
        with ask(started, f"/taken{number}/echo") as first:
            switched(first)
            with ask(started, f"/taken{3 - number}/echo") as other:
                switched(other)
                for client in (first, other, first):
                    client.send(b"hello")
                    assert client._exactly(5, Response()) == b"hello"
        wait_until_left(started)


@needed
def test_daemons_of_the_application_end_with_the_worker(server: Start, tmp_path: Path) -> None:
    (tmp_path / "daemon.py").write_text(
        "import threading\nfrom tests.apps.many import app\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    started = server("daemon:app", chdir=tmp_path, pythonpath=ROOT, interpreters=2)
    assert status_of(started, "/") == 200
    started.stop()
    assert len(notes(tmp_path, "ended")) == 2


@needed
def test_what_a_view_leaves_to_threads_is_done_before_the_end(
    server: Start, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    started = server("", config=two(tmp_path))
    for mount in "/one", "/two":
        assert get(started, f"{mount}/later")["script"] == mount
    started.wait_until(lambda: len(gate.arrivals()) == 4)
    started.terminate()
    started.wait_for_log("finishing what runs")
    gate.close()
    assert started.wait() == 0
    assert len(notes(tmp_path, "done")) == 2
    assert len(notes(tmp_path, "pooled")) == 2
    assert "threads=" not in started.log()


@needed
def test_threads_of_the_application_may_outlive_the_worker(server: Start, tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading\nfrom tests.apps.many import app\n"
        "threading.Thread(target=threading.Event().wait, name='forever').start()\n"
    )
    started = server(
        "threaded:app",
        chdir=tmp_path,
        pythonpath=ROOT,
        interpreters=2,
        graceful_timeout="1s",
    )
    assert status_of(started, "/") == 200
    started.stop()
    started.wait_for_log("threads=forever")
    assert len(notes(tmp_path, "ended")) == 2
