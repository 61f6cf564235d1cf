"""`poolsrv.serve(app)`: a server for any callable, closures included."""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.server import ROOT
from tests.waiting import wait_until

PROGRAM = """
import atexit, os, sys
import poolsrv

greeting = b"from a closure"
starter = os.getpid()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [greeting]


def ended():
    with open(sys.argv[1], "a") as file:
        print("starter" if os.getpid() == starter else "another", file=file)


atexit.register(ended)
poolsrv.serve(application, bind="127.0.0.1:0", admin=None, processes=2, threads=2)
"""


def test_a_closure_is_served_and_its_exit_handlers_run_once(tmp_path: Path) -> None:
    """Handlers of the process that calls serve() are not for the workers."""
    file = tmp_path / "ended"
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(file)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "application http" in log.read_text(), 20, message=log.read_text)
        (line,) = [line for line in log.read_text().splitlines() if line.startswith("application")]
        with urllib.request.urlopen(line.split()[1]) as answer:
            assert answer.read() == b"from a closure"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert file.read_text().split() == ["starter"]


OF_ITS_OWN = """
import os, subprocess, sys
import poolsrv

helper = subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE)


def application(environ, start_response):
    if environ["PATH_INFO"] == "/end":
        os.write(helper.stdin.fileno(), b"line\\n")
    # A grandchild that its parent leaves behind.
    subprocess.run(["sh", "-c", "true & true"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % helper.pid]


poolsrv.serve(application, bind="127.0.0.1:0", admin=None)
with open(sys.argv[1], "w") as file:
    print(helper.wait(), file=file)
"""


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone"


def test_the_program_reaps_the_children_that_it_has_started(tmp_path: Path) -> None:
    """What applications leave behind is reaped beside them."""
    file = tmp_path / "status"
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", OF_ITS_OWN, str(file)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def zombies() -> set[int]:
        places = Path("/proc").glob("[0-9]*/stat")
        of_it = set()
        for place in places:
            with contextlib.suppress(OSError):
                fields = place.read_text().rpartition(")")[2].split()
                if fields[0] == "Z" and fields[1] == str(process.pid):
                    of_it.add(int(place.parent.name))
        return of_it

    try:
        wait_until(lambda: "application http" in log.read_text(), 20, message=log.read_text)
        (line,) = [line for line in log.read_text().splitlines() if line.startswith("application")]
        with urllib.request.urlopen(line.split()[1] + "/end") as answer:
            helper = int(answer.read())
        wait_until(lambda: state(helper) == "Z", 20, message=log.read_text)
        with urllib.request.urlopen(line.split()[1] + "/") as answer:
            assert int(answer.read()) == helper
        wait_until(lambda: zombies() == {helper}, 20, message=log.read_text)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert file.read_text().split() == ["7"]
