"""Who is measured: one row for each server, and what is installed of them."""

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from loadtests._bench._workloads import Shape


class Failed(Exception):
    """A server, or the load on it, is not as it should be; the message says how."""


class Missing(Exception):
    """Something that must be installed first; the message says how."""


@dataclass(frozen=True)
class Server:
    """A command with {app}, {module}, {callable}, {host}, {port}, {processes},
    {threads}, {python}, {bin} (the folder of {python}) and {folder} (a temporary
    one) to be filled in.

    A command without {processes} or {threads} runs with one of them, and is
    shown so. `package` is its distribution; None: not asked for.
    """

    name: str
    command: str
    package: str | None = None

    def shape(self, asked: Shape) -> Shape:
        """What it can do of what is asked."""
        fields = {field for _, field, _, _ in Formatter().parse(self.command)}
        return Shape(
            asked.processes if "processes" in fields else 1,
            asked.threads if "threads" in fields else 1,
        )

    def argv(self, **values: object) -> list[str]:
        # Split before filling in: a value is one word, whatever it holds.
        return [word.format_map(values) for word in shlex.split(self.command)]

    @classmethod
    def parse(cls, text: str) -> "Server":
        """`NAME=COMMAND`; ValueError if it is not, or has an unknown field."""
        name, equals, command = text.partition("=")
        if not (name and equals and command):
            raise ValueError(f"{text!r} is not NAME=COMMAND")
        fields = {field for _, field, _, _ in Formatter().parse(command) if field is not None}
        if unknown := fields - FIELDS:
            raise ValueError(f"{text!r}: there is no {{{min(unknown)}}}")
        return cls(name, command)


FIELDS = frozenset(
    ("app", "module", "callable", "host", "port", "processes", "threads", "python", "bin", "folder")
)

OURS = Server(
    "poolsrv",
    "{python} -m poolsrv serve {app} --bind {host}:{port} --admin off"
    " --processes {processes} --threads {threads} --log-level warning",
)

_LAUNCH = "{python} -m loadtests._bench._launch %s {app} {host} {port} {processes}"

# Limits on connections are raised and idle times set like ours where a server
# has such settings, so that not its defaults are measured.
PEERS = (
    Server(
        "gunicorn",
        "{bin}/gunicorn --bind {host}:{port} --workers {processes} --threads {threads}"
        " --worker-class gthread --keep-alive 75 --backlog 4096 --worker-connections 8192"
        " --log-level warning {app}",
        "gunicorn",
    ),
    Server(
        "granian",
        "{bin}/granian --interface wsgi --host {host} --port {port} --workers {processes}"
        " --blocking-threads {threads} --http 1 --no-ws --backlog 4096 --backpressure 4096"
        " --log-level warning {app}",
        "granian",
    ),
    Server(
        "uwsgi",
        # Its HTTP router, a process of its own: only with that it keeps connections
        # alive. Between the two a Unix socket, which is faster than its default.
        "{bin}/uwsgi --http {host}:{port} --http-to {folder}/uwsgi --socket {folder}/uwsgi"
        " --http-keepalive=75 --http-auto-chunked --master --virtualenv {bin}/.."
        " --processes {processes} --threads {threads} --enable-threads --single-interpreter"
        " --need-app --die-on-term --disable-logging --module {app}",
        "uWSGI",
    ),
    Server("waitress", _LAUNCH % "waitress" + " {threads}", "waitress"),
    Server("cheroot", _LAUNCH % "cheroot" + " {threads}", "cheroot"),
    Server("bjoern", _LAUNCH % "bjoern", "bjoern"),
    Server("fastwsgi", _LAUNCH % "fastwsgi", "fastwsgi"),
)


def versions(python: Path) -> dict[str, str]:
    """The distributions that an interpreter has, by name in lower case."""
    code = (
        "import json; from importlib.metadata import distributions\n"
        "print(json.dumps({d.name.lower(): d.version for d in distributions() if d.name}))"
    )
    try:
        done = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
    except OSError as error:
        raise Missing(f"{python} cannot be run: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise Missing(f"{python} does not answer: {error.stderr.strip()[-200:]}") from None
    found: dict[str, str] = json.loads(done.stdout)
    return found
