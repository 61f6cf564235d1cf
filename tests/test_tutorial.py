"""The tutorial, followed line by line: each of its blocks is typed, or named here as done."""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urljoin

import pytest

from tests.server import ROOT, Server

BLOCKS = re.findall(
    r"^```(\w*)\n(.*?)^```$", (ROOT / "docs/tutorial.md").read_text(), re.MULTILINE | re.DOTALL
)
COMMANDS = Path(sys.executable).parent  # poolsrv, django-admin and python, as after `activate`


class Typed(Server):
    """A server that was started by a line of the tutorial."""

    def __init__(self, line: str, folder: Path, env: dict[str, str]) -> None:
        self.start(line.split(), folder, env, folder)


class Reader:
    """Somebody who follows the tutorial in an empty folder; their ports are free ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blocks = iter(BLOCKS)
        others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.env = others | {
            "PATH": f"{COMMANDS}:{os.environ['PATH']}",
            "POOLSRV_BIND": "127.0.0.1:0",
            "POOLSRV_ADMIN": "127.0.0.1:0",
            "POOLSRV_CONTROL": str(folder / "control"),
        }

    def next(self, language: str = "") -> str:
        """The next block, which is of this language."""
        found, text = next(self.blocks)
        assert found == language, text
        return str(text)

    def lines(self) -> list[str]:
        return self.next().splitlines()

    def type(self, line: str) -> str:
        done = subprocess.run(
            line.split(),
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @contextmanager
    def serve(self, line: str) -> Iterator[Server]:
        assert line.startswith("poolsrv serve")
        server = Typed(line, self.folder, self.env)
        try:
            server.wait_until_serving()
            yield server
            assert server.stop() == 0, server.log()
        finally:
            server.end()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def style_of(page: str) -> str:
    """The first style sheet that a page of HTML names."""
    return re.findall(r'<link rel="stylesheet" href="([^"]+)"', page)[0]


@pytest.mark.once
def test_the_tutorial_works_as_it_stands(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    install = reader.lines()
    assert install[0].startswith("python3 -m venv ")
    assert install[-1].startswith("pip install ")

    # Flask
    (tmp_path / "hello.py").write_text(reader.next("python"))
    (line,) = reader.lines()
    for typed in [line, "poolsrv serve hello"]:
        with reader.serve(typed) as server:
            assert len(server.printed("application") + server.printed("status")) == 2
            assert get(server.url) == (200, "hello\n")

    # Django
    install, start, folder, line = reader.lines()
    assert install == "pip install django"
    reader.type(start)
    reader.folder /= folder.removeprefix("cd ")
    with reader.serve(line) as server:
        assert "Django" in get(server.url)[1]
        status, page = get(f"{server.url}/admin/login/")
        assert status == 200
        assert get(urljoin(server.url, style_of(page)))[0] == 404
    settings = reader.folder / "mysite" / "settings.py"
    settings.write_text(f"{settings.read_text()}\n{reader.next('python')}")
    collect, line = reader.lines()
    reader.type(f"{collect} --no-input --verbosity=0")
    with reader.serve(line) as server:
        page = get(f"{server.url}/admin/login/")[1]
        assert get(urljoin(server.url, style_of(page)))[0] == 200
        # New code
        (reload,) = reader.lines()
        reader.type(reload)
        assert get(f"{server.url}/admin/login/")[0] == 200

    # Settings
    file = reader.folder / "poolsrv.toml"
    file.write_text(reader.next("toml"))
    reader.type("poolsrv check")
    assert re.search(r"^threads +8 .*poolsrv\.toml", reader.type("poolsrv config"), re.MULTILINE)
    with reader.serve("poolsrv serve") as server:
        assert len(server.workers()) == 4
        page = get(f"{server.url}/admin/login/")[1]
        assert get(urljoin(server.url, style_of(page)))[0] == 200
        # Numbers
        (curl,) = reader.lines()
        place = curl.removeprefix("curl http://127.0.0.1:9464")
        shown = get(server.admin_url + place)[1]
        for name in ["thread_utilization_ratio", "queue_length", "request_oldest_seconds"]:
            assert f"\npoolsrv_{name} " in shown
        assert "mysite.wsgi" in reader.type("poolsrv status")
        assert "AGE" in reader.type("poolsrv requests")
    assert list(reader.blocks) == []
