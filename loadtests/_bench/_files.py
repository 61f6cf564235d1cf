"""What a file costs, beside nginx: CPU a request of each server's whole tree.

Both serve one folder, to one wrk, in turns of a second: so whatever else the
machine does hits both alike. nginx is set up as sites are told to: sendfile and
tcp_nopush, no access log. Each has one worker.
"""

import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from loadtests._bench import _processes, _wrk
from loadtests._bench._cell import HOST, free_port
from loadtests._bench._servers import Failed, Missing

SIZES = {"4 KiB": 4096, "16 KiB": 16384, "64 KiB": 65536, "1 MiB": 1 << 20}

_CONNECTIONS = 16

_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{port};
        location /static/ {{ alias {files}/; add_header Cache-Control max-age=60; }}
    }}
}}
"""


@dataclass
class Cost:
    """What a server has done with the files of one size."""

    requests: int = 0
    cpu: float = 0.0

    @property
    def microseconds(self) -> float:
        return self.cpu / self.requests * 1e6 if self.requests else float("nan")


Costs = dict[str, dict[str, Cost]]  # by server and size


def measure(rounds: int, tell: Callable[[str], None]) -> Costs:
    """So many turns of a second for each server and size. Raises Missing or Failed."""
    if shutil.which("nginx") is None:
        raise Missing("nginx is missing: apt-get install nginx-light")
    costs: Costs = {name: {size: Cost() for size in SIZES} for name in ("poolsrv", "nginx")}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = folder / "files"
        files.mkdir()
        for size in SIZES.values():
            (files / str(size)).write_bytes(random.Random(size).randbytes(size))
        servers = {
            name: stack.enter_context(_running(argv(folder, files, port), folder / name, port))
            for name, argv, port in (
                ("poolsrv", _poolsrv, free_port()),
                ("nginx", _nginx, free_port()),
            )
        }
        for size, number in SIZES.items():
            tell(f"files of {size}")
            for _ in range(rounds):
                for name, (pid, url) in servers.items():
                    before = _processes.cpu_seconds(pid)
                    load = _wrk.load(f"{url}{number}", 1, _wrk.Run(_CONNECTIONS))
                    if load.errors or load.timeouts:
                        raise Failed(f"{name}: {load.errors + load.timeouts} requests failed")
                    costs[name][size].requests += load.requests
                    costs[name][size].cpu += _processes.cpu_seconds(pid) - before
    return costs


def markdown(costs: Costs) -> str:
    lines = [
        "Microseconds of CPU a request:\n",
        f"| | {' | '.join(SIZES)} |",
        f"| --- |{' --- |' * len(SIZES)}",
    ]
    lines += [
        f"| {name} | {' | '.join(f'{cost.microseconds:.1f}' for cost in sizes.values())} |"
        for name, sizes in costs.items()
    ]
    return "\n".join(lines) + "\n"


def _poolsrv(folder: Path, files: Path, port: int) -> list[str]:
    options = ["--bind", f"{HOST}:{port}", "--processes", "1", "--admin", "off"]
    mount = ["--mount", f"/static={files}/"]
    return [sys.executable, "-m", "poolsrv", "serve", *options, *mount, "--control", "off"]


def _nginx(folder: Path, files: Path, port: int) -> list[str]:
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, files=files, host=HOST, port=port))
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(config)]


@contextmanager
def _running(argv: list[str], log: Path, port: int) -> Iterator[tuple[int, str]]:
    """(pid, address of the files) of a server that serves them."""
    url = f"http://{HOST}:{port}/static/"
    with _processes.serving(argv, log, lambda: _serves(url)) as pid:
        yield pid, url


def _serves(url: str) -> bool:
    try:
        with urlopen(f"{url}{SIZES['4 KiB']}", timeout=1) as answer:
            return len(answer.read()) == SIZES["4 KiB"]
    except (URLError, ConnectionError, TimeoutError):
        return False
