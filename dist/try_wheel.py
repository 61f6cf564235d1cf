"""Serve from what is installed, ask once, and stop: does this wheel work?

Run by the Python that has it, in no folder of the sources: cibuildwheel does, `make
wheel` and the tests. Standard library only; exit status 0, or a traceback.
"""

import re
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
from importlib.metadata import distribution
from pathlib import Path

DEADLINE = 30


def main() -> None:
    """What is said is the last thing that was found good."""
    found = distribution("poolsrv")
    files = [str(name) for name in found.files or ()]
    sources = [name for name in files if name.endswith((".c", ".h"))]
    assert files, "no file of poolsrv is recorded: was it installed from a wheel?"
    assert not sources, f"the wheel holds sources: {sources}"
    command = [sys.executable, "-m", "poolsrv", "serve", "poolsrv.demo:application"]
    command += ["--processes", "1", "--bind", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with tempfile.TemporaryDirectory() as elsewhere:
        log = Path(elsewhere, "log")
        with log.open("wb") as output:
            server = subprocess.Popen(command, cwd=elsewhere, stdout=output, stderr=output)
        try:
            urls = dict(_printed(server, log))
            for place in (urls["application"], urls["metrics"]):
                with urllib.request.urlopen(place, timeout=DEADLINE) as answer:
                    assert answer.status == 200, answer.status
            server.terminate()
            status = server.wait(DEADLINE)
            assert status == 0, status
        except BaseException:
            print(log.read_text(errors="backslashreplace"))
            raise
        finally:
            server.kill()
            server.wait()
    python = sysconfig.get_python_version()
    print(f"poolsrv {found.version} serves on Python {python}, {sysconfig.get_platform()}")


def _printed(server: "subprocess.Popen[bytes]", log: Path) -> list[tuple[str, str]]:
    """The addresses that the server prints when it serves."""
    # What it says is in a file: reading waits for nothing, so the process is waited for.
    for _ in range(DEADLINE * 10):
        found = re.findall(r"^(application|metrics|status) (\S+)$", log.read_text(), re.MULTILINE)
        if len(found) == 3:
            return found
        try:
            raise AssertionError(f"it has ended with {server.wait(0.1)}")
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(f"it does not serve after {DEADLINE} s")


if __name__ == "__main__":
    main()
