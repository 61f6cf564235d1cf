"""How long somebody new waits for the first answer: from a clone, from a wheel, when installed.

Wall time is what they feel, and depends on the network and on what pip has cached; CPU
time is of all that ran for it.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtests._bench._servers import Failed

ROOT = Path(__file__).parent.parent.parent
HELLO = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
ADDRESSES = ("--bind", "127.0.0.1:0", "--admin", "127.0.0.1:0")


@dataclass(frozen=True, slots=True)
class Wait:
    """What lay between a command and the first answer."""

    what: str
    seconds: float
    cpu_seconds: float


def measure(wheel: Path | None, tell: Callable[[str], None]) -> list[Wait]:
    return list(_waits(wheel, tell))


def _waits(wheel: Path | None, tell: Callable[[str], None]) -> Iterator[Wait]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "hello.py").write_text(HELLO)
        tell("a clone: git clone, make serve")
        clone = folder / "poolsrv"
        words = f"ARGS={' '.join(ADDRESSES)}"
        yield _wait(
            "`git clone`, `make serve`",
            [["git", "clone", "--quiet", str(ROOT), str(clone)]],
            ["make", "-C", str(clone), "serve", f"PYTHON={sys.executable}", words],
            folder,
        )
        serve = [str(clone / ".venv/bin/poolsrv"), "serve", "hello:app", *ADDRESSES]
        yield _wait("`poolsrv serve hello:app`", [], serve, folder)
        if wheel is not None:
            tell(f"a wheel: pip install {wheel}")
            own = folder / "venv"
            install = [
                [sys.executable, "-m", "venv", str(own)],
                [str(own / "bin/pip"), "--quiet", "install", str(wheel.absolute())],
            ]
            serve[0] = str(own / "bin/poolsrv")
            yield _wait("`python -m venv`, `pip install WHEEL`, `serve`", install, serve, folder)


def _wait(what: str, before: list[list[str]], serve: list[str], folder: Path) -> Wait:
    began, cpu = time.monotonic(), _cpu_of_children()
    for command in before:
        if subprocess.run(command, cwd=folder, check=False).returncode:
            raise Failed(f"{' '.join(command)} has failed")
    with subprocess.Popen(
        serve, cwd=folder, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as server:
        assert server.stdout is not None
        try:
            url = next((line.split()[1] for line in server.stdout if line.startswith("app")), None)
            if url is None:
                raise Failed(f"{' '.join(serve)} has printed no address")
            urllib.request.urlopen(url, timeout=60).close()
            seconds = time.monotonic() - began
        finally:
            os.killpg(server.pid, signal.SIGTERM)
    return Wait(what, seconds, _cpu_of_children() - cpu)


def _cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def markdown(waits: list[Wait]) -> str:
    lines = [
        "| From | seconds to the first answer | CPU-seconds, the end included |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {wait.what} | {wait.seconds:.1f} | {wait.cpu_seconds:.1f} |" for wait in waits]
    return "\n".join(lines)
