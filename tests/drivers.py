"""Four HTTP clients of the real world behind one face.

Each keeps its cookies and its connections over the requests of one driver;
curl, a process for each request, only its cookies.
"""

import asyncio
import io
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import aiohttp
import httpx
import requests

LIBRARIES = ["requests", "httpx", "aiohttp"]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    redirects: int


@dataclass(frozen=True)
class Upload:
    """The file of a multipart form with one more text field, `note`."""

    name: str
    data: bytes
    note: str


# What a request carries: a form, a file, raw bytes, or pieces (sent chunked).
Content = dict[str, str] | Upload | bytes | list[bytes] | None


class Driver(Protocol):
    def send(
        self,
        method: str,
        url: str,
        content: Content = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Follows redirects, decodes the content coding."""


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Curl:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._jar = directory / "cookies"

    def send(
        self,
        method: str,
        url: str,
        content: Content = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        body, got_headers = self._directory / "body", self._directory / "headers"
        body.write_bytes(b"")
        command = ["curl", "--silent", "--show-error", "--max-time", "30", "--location"]
        command += ["--compressed", "--cookie", str(self._jar), "--cookie-jar", str(self._jar)]
        command += ["--output", str(body), "--dump-header", str(got_headers)]
        command += ["--write-out", "%{http_code} %{num_redirects}"]
        if method == "HEAD":
            command.append("--head")
        elif method != "POST" or content is None:
            # Not for a POST of something: it would be repeated after a redirect.
            command += ["--request", method]
        for name, value in (headers or {}).items():
            command += ["--header", f"{name}: {value}"]
        sent = b""
        match content:
            case Upload(name, data, note):
                sent = data
                command += ["--form", f"file=@-;filename={name}", "--form", f"note={note}"]
            case dict():
                sent = urlencode(content).encode()
                command += ["--data-binary", "@-"]
            case bytes():
                sent = content
                command += ["--data-binary", "@-"]
                command += ["--header", "Content-Type: application/octet-stream"]
            case list():
                sent = b"".join(content)
                command += ["--data-binary", "@-", "--header", "Transfer-Encoding: chunked"]
                command += ["--header", "Content-Type: application/octet-stream"]
        done = subprocess.run([*command, url], input=sent, capture_output=True, check=True)
        status, redirects = done.stdout.split()
        # One head for each redirect; the last is the answer's.
        last = got_headers.read_bytes().decode("latin-1").split("\r\n\r\n")[-2]
        fields = {}
        for line in last.split("\r\n")[1:]:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        data = b"" if method == "HEAD" else body.read_bytes()
        return Reply(int(status), lowered(fields), data, int(redirects))


class Requests:
    def __init__(self) -> None:
        self.session = requests.Session()
        self.session.trust_env = False

    def send(
        self,
        method: str,
        url: str,
        content: Content = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        files = None
        data: dict[str, str] | bytes | Iterator[bytes] | None
        match content:
            case Upload(name, body, note):
                files, data = {"file": (name, body)}, {"note": note}
            case list():
                data = iter(content)
            case _:
                data = content
        response = self.session.request(
            method, url, data=data, files=files, headers=headers,
            timeout=30, allow_redirects=True,
        )  # fmt: skip
        return Reply(
            response.status_code,
            lowered(response.headers),
            response.content,
            len(response.history),
        )


class Httpx:
    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def send(
        self,
        method: str,
        url: str,
        content: Content = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        form, files = None, None
        body: bytes | Iterator[bytes] | None = None
        match content:
            case Upload(name, file, note):
                files, form = {"file": (name, file)}, {"note": note}
            case dict():
                form = content
            case list():
                body = iter(content)
            case bytes():
                body = content
        response = self._client.request(
            method, url, data=form, files=files, content=body, headers=headers
        )
        return Reply(
            response.status_code,
            lowered(response.headers),
            response.content,
            len(response.history),
        )


class Aiohttp:
    def __init__(self, runner: asyncio.Runner, session: aiohttp.ClientSession) -> None:
        self._runner = runner
        self._session = session

    def send(
        self,
        method: str,
        url: str,
        content: Content = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        return self._runner.run(self._send(method, url, content, headers))

    async def _send(
        self,
        method: str,
        url: str,
        content: Content,
        headers: Mapping[str, str] | None,
    ) -> Reply:
        data: object = content
        match content:
            case Upload(name, body, note):
                form = aiohttp.FormData({"note": note})
                form.add_field("file", io.BytesIO(body), filename=name)
                data = form
            case bytes():
                data = io.BytesIO(content)  # it warns of plain bytes when they are many
            case list():

                async def pieces() -> AsyncIterator[bytes]:
                    for piece in content:
                        yield piece

                data = pieces()
        async with self._session.request(
            method, url, data=data, headers=headers, allow_redirects=True
        ) as response:
            return Reply(
                response.status,
                lowered(response.headers),
                await response.read(),
                len(response.history),
            )


async def open_session() -> aiohttp.ClientSession:
    # unsafe: take cookies from an address without a name.
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=aiohttp.ClientTimeout(30)
    )


@contextmanager
def driver(name: str) -> Iterator[Driver]:
    """ "curl" or one of LIBRARIES, for the time of the block."""
    match name:
        case "curl":
            with tempfile.TemporaryDirectory() as directory:
                yield Curl(Path(directory))
        case "requests":
            client = Requests()
            with client.session:
                yield client
        case "httpx":
            with httpx.Client(timeout=30, follow_redirects=True, trust_env=False) as session:
                yield Httpx(session)
        case "aiohttp":
            with asyncio.Runner() as runner:
                pool = runner.run(open_session())
                yield Aiohttp(runner, pool)
                runner.run(pool.close())
