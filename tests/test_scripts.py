"""What is done around the applications before a worker serves: --import, --wrap, --warm-up."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client import Client
from tests.server import ROOT, Server

APP = "tests.apps.scripted"


def test_the_order_of_things(server: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text("from tests.apps.scripted import note\nnote('early')\n")
    made = server(
        f"{APP}:app",
        mount=f"/b={APP}:app",
        import_="early",
        pythonpath=tmp_path,
        wrap=[f"{APP}:outer", f"{APP}:named('inner')"],
        warm_up=["/a%20b?c=%20", "a.org/b/x"],
    )
    with Client(made.address) as client:
        words = client.get("/").body.decode().split(" ")
    assert words[:3] == ["imported", "early", "GET:127.0.0.1/a"]
    assert words[3:5] == ["b?c=%20", "GET:a.org/b/x?"]
    assert words[-2:] == ["outer", "inner"]


def test_with_preload_a_module_is_imported_once(
    server: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "early.py").write_text("print('importing early')")
    options = {"processes": 2, "preload": True, "warm_up": "/x"}
    made = server(f"{APP}:app", import_="early", pythonpath=tmp_path, **options)
    assert made.log().count("importing early") == 1
    with Client(made.address) as client:
        assert b"GET:127.0.0.1/x?" in client.get("/").body


def start(*words: str) -> subprocess.CompletedProcess[str]:
    """A server that does not start."""
    options = ["--bind", "127.0.0.1:0", "--admin", "off", "--control", "off", "--processes", "1"]
    return subprocess.run(
        [sys.executable, "-m", "poolsrv", "serve", f"{APP}:app", *options, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--warm-up", "/fail"], "--warm-up /fail: the application answered 500 Broken"),
        (["--warm-up", "/raise"], "LookupError: the database is not there"),
        (["--wrap", f"{APP}:nothing"], "calling nothing with the application failed"),
        (["--wrap", f"{APP}:forgets"], "middleware takes an application and returns one"),
        (["--wrap", f"{APP}:outr"], f"--wrap {APP}:outr: {APP} has no 'outr'"),
        (["--wrap", APP], f"--wrap {APP}: it names no middleware"),
        (["--import", "nosuchmodule"], "--import nosuchmodule: there is no module 'nosuchmodule'"),
    ],
    ids=str,
)
def test_a_start_that_fails_says_why(words: list[str], said: str) -> None:
    done = start(*words)
    assert done.returncode == 3
    assert said in done.stderr


def test_what_no_mount_has_cannot_be_warmed_up() -> None:
    done = start("--warm-up", "/b", "--warm-up", "nowhere")
    assert (done.returncode, "a path begins with a slash: /nowhere" in done.stderr) == (2, True)


def test_a_reload_that_cannot_warm_up_leaves_the_old_generation(
    server: Callable[..., Server], tmp_path: Path
) -> None:
    script = tmp_path / "site.wsgi"
    text = "def application(environ, start):\n    start('200 OK', [])\n    return [b'one']\n"
    script.write_text(text)
    made = server(str(script), warm_up="/", allow_errors="POOL")
    script.write_text(text.replace("200 OK", "503 Busy").replace("one", "two"))
    os.kill(made.pid, signal.SIGHUP)
    made.wait_for_log("the application answered 503 Busy")
    with Client(made.address) as client:
        assert client.get("/").body == b"one"
