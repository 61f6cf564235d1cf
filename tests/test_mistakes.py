"""What somebody new gets wrong, and reads then: mistakes.txt, a session at a shell.

Each mistake is answered by a line of fault and one of remedy, and an exit status.
`python -m tests.test_mistakes` writes the answers anew: read the difference.
"""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Some of the words are the interpreter's.
pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
SESSION = Path(__file__).parent / "mistakes.txt"

# BUSY stands for an address that another process has, FOLDER for the one that the
# command runs in, PYTHON for the interpreter.
WIDTH = 130

FILES = {
    "shop.py": """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]

def create_app():
    return app

def make_app(config=None, debug=False):
    return app

def forgets():
    app

async def create_later():
    return app

async def awaited(environ, start_response):
    return [b""]

async def asgi(scope, receive, send):
    pass

def view(request):
    return "hello"

class Shop:
    def __call__(self, environ, start_response):
        return app(environ, start_response)

number = 8000
""",
    "fast.py": "from fastapi import FastAPI\napp = FastAPI()\n",
    "fastapi.py": "class FastAPI:\n    def __call__(self, scope, receive, send): pass\n",
    "broken.py": "import nosuchmodule\n",
    "leaves.py": "import os\nos._exit(7)\n",
    "nothing.py": "x = 1\n",
    "hidden/site.py": "def app(environ, start_response): return []\n",
    "near.py": "def aplication(environ, start_response): return []\n",
    "site/manage.py": 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")\n',
    "site/mysite/wsgi.py": "application = get_wsgi_application()\n",
    "flask/app.py": "app = Flask(__name__)\n",
    "flask/wsgi.py": "from app import app as application\n",
    "factory/app.py": "def create_app():\n    return Flask(__name__)\n",
    "empty/readme.txt": "",
    "section.toml": "[poolsrv]\nthreads = 4\n",
    "unquoted.toml": "bind = 0.0.0.0:8000\n",
    "other.toml": "workers = 4\n",
    "mode.toml": "unix-mode = 660\n",
}


def cases() -> Iterator[tuple[str, str]]:
    """Each command with what is answered."""
    for block in SESSION.read_text().split("\n$ ")[1:]:
        command, _, answer = block.partition("\n")
        yield command, answer.strip("\n")


def answer(command: str, folder: Path, busy: str) -> str:
    """What the command says in this folder, and its status."""
    words = re.findall(r"'[^']*'|\S+", command)
    environ = {"PATH": os.environ["PATH"], "HOME": "/home/ann", "PYTHONPATH": str(ROOT)}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environ[name] = value.strip("'")
    if words[0] == "cd":
        folder = folder / words[1]
        words = words[3:]
    assert words[0] == "poolsrv"
    arguments = [word.strip("'").replace("BUSY", busy) for word in words[1:]]
    done = subprocess.run(
        [sys.executable, "-m", "poolsrv", *arguments],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = (done.stdout + done.stderr).replace(str(folder), "FOLDER").replace(busy, "BUSY")
    said = said.replace(sys.executable, "PYTHON")
    said = re.sub(r"held by pid .*", "held by pid N", said)
    return f"{said.rstrip()}\n[{done.returncode}]"


def lay_out(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mistakes")
    lay_out(made)
    return made


@pytest.fixture(scope="module")
def busy() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(("command", "expected"), list(cases()))
def test_a_mistake_is_answered(command: str, expected: str, folder: Path, busy: str) -> None:
    assert answer(command, folder, busy) == expected


def test_each_answer_is_short() -> None:
    answers = [answer for _, answer in cases()]
    assert len(answers) >= 53
    for text in answers:
        *lines, status = text.splitlines()
        assert status in ("[2]", "[3]", "[4]")
        if "Traceback" not in text:
            assert len(lines) % 2 == 0, text
            assert all(line.startswith("poolsrv: error: ") for line in lines[::2]), text
            assert all(line.startswith("  ") for line in lines[1::2]), text
        assert max(map(len, lines)) <= WIDTH, text


def write_session() -> None:
    """The same commands with the answers of today."""
    import tempfile

    head = SESSION.read_text().partition("\n$ ")[0]
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as server:
        lay_out(Path(name))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        said = [f"$ {command}\n{answer(command, Path(name), address)}\n" for command, _ in cases()]
    SESSION.write_text(head.rstrip("\n") + "\n\n" + "\n".join(said))


if __name__ == "__main__":
    write_session()
