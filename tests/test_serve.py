"""`poolsrv.serve(app)`: a server for any callable, closures included."""

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
