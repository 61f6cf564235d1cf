"""The configurations that docs/deploy.md shows, each in the real proxy before a real server."""

import json
import os
import re
import shutil
import socket
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client import Client
from tests.server import Server, serving
from tests.waiting import wait_until

pytestmark = pytest.mark.once

# With a port that is not the proxy's: the machine may map another to it.
HOST = "shop.example:8080"
GUIDES = Path(__file__).parent.parent / "docs"


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def shown(language: str, guide: str = "deploy.md") -> str:
    """The block of the guide in that language."""
    text = (GUIDES / guide).read_text()
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
    return str(block)


def nginx(folder: Path, config: str) -> list[str]:
    """The command that runs nginx with this configuration of servers, as any user."""
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\n"
        "events {}\n"
        f"http {{\naccess_log off;\n{temporary}{textwrap.indent(config, '    ')}}}\n"
    )
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


def haproxy(folder: Path, config: str) -> list[str]:
    (folder / "haproxy.cfg").write_text(config)
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def caddy(folder: Path, config: str) -> list[str]:
    (folder / "Caddyfile").write_text("{\n    admin off\n}\n" + config)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def apache(folder: Path, config: str) -> list[str]:
    (address,) = re.findall(r"<VirtualHost (.*)>", config)
    names = ("mpm_event", "authz_core", "headers", "proxy", "proxy_http")
    loads = "".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so\n" for name in names)
    (folder / "apache.conf").write_text(
        f"{loads}User nobody\nGroup nogroup\n"
        f"ServerRoot {folder}\nDefaultRuntimeDir {folder}\nPidFile {folder}/pid\n"
        f"ErrorLog /dev/stderr\nServerName localhost\nListen {address}\n{config}"
    )
    return ["apache2", "-X", "-f", str(folder / "apache.conf")]


@dataclass(frozen=True)
class Proxy:
    """A program, its language in the guide, and what it listens on there and in the test."""

    program: str
    language: str
    listens: tuple[str, str]
    command: Callable[[Path, str], list[str]]


APACHE_MODULES = "/usr/lib/apache2/modules"
PROXIES = [
    Proxy("nginx", "nginx", ("listen 80;", "listen {};"), nginx),
    Proxy("apache2", "apache", ("<VirtualHost *:80>", "<VirtualHost {}>"), apache),
    Proxy("caddy", "caddy", ("example.com {", "http://:{port} {{"), caddy),
    Proxy("haproxy", "haproxy", ("bind :80", "bind {}"), haproxy),
]


def configured(proxy: Proxy, port: int, server: Server, guide: str = "deploy.md") -> str:
    """The guide's configuration, for this port and this server."""
    config = shown(proxy.language, guide)
    old, new = proxy.listens
    assert config.count(old) == 1
    config = config.replace(old, new.format(f"127.0.0.1:{port}", port=port))
    return config.replace("127.0.0.1:8000", f"127.0.0.1:{server.address[1]}")


@contextmanager
def running(command: list[str], address: tuple[str, int], log: Path) -> Iterator[None]:
    environ = os.environ | {"HOME": str(log.parent)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environ)

    def connects() -> bool:
        assert process.poll() is None, log.read_text()
        with closing(socket.socket()) as tried:
            return tried.connect_ex(address) == 0

    try:
        wait_until(connects, deadline=10, message=log.read_text)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(params=PROXIES, ids=lambda proxy: proxy.program)
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Server, int]]:
    """A server, and the port of the proxy before it."""
    proxy: Proxy = request.param
    if not shutil.which(proxy.program):
        pytest.skip(f"needs the package {proxy.program}")
    port = free_port()
    with serving("tests.apps.probe:app", tmp_path, trust_proxy="127.0.0.1") as server:
        command = proxy.command(tmp_path, configured(proxy, port, server))
        with running(command, ("127.0.0.1", port), tmp_path / "proxy.log"):
            yield server, port


def test_the_application_sees_the_client_and_believes_nothing_it_says(
    front: tuple[Server, int],
) -> None:
    _, port = front
    said = [
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Port: 7",
        "X-Forwarded-Prefix: /evil",
        "Forwarded: for=203.0.113.9;proto=https;host=evil.example",
    ]
    with Client(("127.0.0.1", port)) as client:
        client.send("\r\n".join(["GET /environ HTTP/1.1", f"Host: {HOST}", *said, "", ""]).encode())
        environ = json.loads(client.receive().body)
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["SERVER_PORT"] == "8080"
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/environ")
    # What the client says is nowhere, and its Host, which it may choose, is kept.
    assert environ["HTTP_HOST"] == HOST
    assert not [value for value in environ.values() if "evil" in str(value)]
    assert "203.0.113.9" not in environ.values()


def test_connections_are_used_again(front: tuple[Server, int]) -> None:
    server, port = front
    with Client(("127.0.0.1", port)) as client:
        for _ in range(5):
            assert client.get("/environ").status == 200
        accepted = server.metric("poolsrv_connections_accepted_total")
        # HAProxy's health check makes connections of its own: none comes with a request.
        assert accepted < 5
