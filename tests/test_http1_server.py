"""The raw-byte cases against a running server."""

import json
import socket
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from tests.client import Client
from tests.http_cases import Case, cases, unescaped
from tests.server import Server, serving

pytestmark = pytest.mark.once

# Sent behind every request that is refused: it must never run.
BEHIND = b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"

# The size of a head follows from the other limits: no option sets it.
CASES = [case for case in cases() if not case.limits]


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Says what it was asked."""
    answer = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["SCRIPT_NAME"] + environ["PATH_INFO"],
        "query": environ["QUERY_STRING"],
        "body": environ["wsgi.input"].read().decode("latin-1"),
    }
    body = json.dumps(answer).encode()
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", fields)
    return [body]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(f"{__name__}:app", tmp_path_factory.mktemp("http1"), threads=2) as server:
        yield server


def of_status(kind: str) -> pytest.MarkDecorator:
    chosen = [
        case for case in CASES if kind == {200: "accepted", 0: "open"}.get(case.status, "refused")
    ]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.name)


@of_status("accepted")
def test_accepted(mirror: Server, case: Case) -> None:
    with Client(mirror.address) as client:
        client.send(case.sent)
        is_head = case.expect.get("is-head") == "1"
        response = client.receive(to_head=is_head)
        if response.status == 100:
            response = client.receive()
        assert response.status == 200
        if is_head:
            return
        seen = json.loads(response.body)
        for key in case.expect.keys() & {"method", "query", "body"}:
            assert seen[key] == unescaped(case.expect[key]).decode("latin-1")
        if "path" in case.expect:
            path = unquote_to_bytes(unescaped(case.expect["path"])).decode("latin-1")
            assert seen["path"] == path


@of_status("refused")
def test_refused(mirror: Server, case: Case) -> None:
    with Client(mirror.address) as client:
        client.send(case.sent + BEHIND)
        response = client.receive()
        assert response.status == case.status
        assert response.get("Connection") == "close"
        client.expect_end()


@of_status("open")
def test_not_complete(mirror: Server, case: Case) -> None:
    """The client says no more: the application is not called."""
    with Client(mirror.address) as client:
        client.send(case.sent)
        client.socket.shutdown(socket.SHUT_WR)
        assert b"200 OK" not in client.read_to_end()
