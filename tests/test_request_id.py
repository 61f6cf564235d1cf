"""The ids of requests: from proxies that are trusted, and back to them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolsrv.errors import ConfigError
from poolsrv.settings.sources import from_options
from tests.client import Client, Response, head
from tests.server import Server

pytestmark = pytest.mark.once

PROBE = "tests.apps.probe:app"
OURS = "127.0.0.1"
Start = Callable[..., Server]


def ask(running: Server, *fields: str) -> tuple[Response, dict[str, Any]]:
    with Client(running.address) as client:
        response = client.get("/environ", *fields)
    assert response.status == 200
    return response, json.loads(response.body)


GOOD = [
    "f9ed4675f1c53513c61a3b3b4e25b4c0",  # nginx
    "01234567-89ab-cdef-0123-456789abcdef",  # Envoy, Heroku
    "Self=1-67891234-12456789abcdef012345678;Root=1-67891233-abcdef012345678912345678",  # AWS
    "105445aa7843bc8bf206b12000100000/1;o=1",  # Google
    "x",
    "x" * 128,
]


@pytest.mark.parametrize("given", GOOD)
def test_what_a_trusted_proxy_gives_is_the_id(server: Start, tmp_path: Path, given: str) -> None:
    log = tmp_path / "access.log"
    running = server(PROBE, trust_proxy=OURS, access_log=log)
    response, environ = ask(running, f"x-request-id: {given}")
    assert response.get("X-Request-ID") == given
    assert environ["poolsrv.request_id"] == given
    assert environ["HTTP_X_REQUEST_ID"] == given
    running.wait_until(lambda: log.read_text().endswith(f" {given}\n"))


BAD = {
    "too long": ["X-Request-ID: " + "x" * 129],
    "empty": ["X-Request-ID:"],
    "a space": ["X-Request-ID: a b"],
    "a quote": ['X-Request-ID: a"b'],
    "a list": ["X-Request-ID: a, b"],
    "beyond ASCII": ["X-Request-ID: \xe9"],
    "a tab": ["X-Request-ID: a\tb"],
    "markup": ["X-Request-ID: <b>"],
    "twice": ["X-Request-ID: a", "X-Request-ID: a"],
    "none": [],
}


@pytest.mark.parametrize("case", BAD)
def test_what_could_be_no_id_is_replaced_by_one(server: Start, case: str) -> None:
    response, environ = ask(server(PROBE, trust_proxy=OURS), *BAD[case])
    own = environ["poolsrv.request_id"]
    assert len(own) == 24
    assert environ["HTTP_X_REQUEST_ID"] == own
    assert response.get("X-Request-ID") == own


@pytest.mark.parametrize("trusted", [(), ("192.0.2.0/24", "unix")])
def test_a_stranger_gives_none_and_is_told_none(server: Start, trusted: tuple[str, ...]) -> None:
    response, environ = ask(server(PROBE, trust_proxy=trusted), "X-Request-ID: abc")
    assert len(environ["poolsrv.request_id"]) == 24
    assert environ["HTTP_X_REQUEST_ID"] == "abc"  # its own word, as it stands
    assert response.get("X-Request-ID") is None


def test_an_id_is_of_its_request_alone(server: Start) -> None:
    running = server(PROBE, trust_proxy=OURS)
    with Client(running.address) as client:
        ids = [
            client.get("/environ", *fields).get("X-Request-ID") or ""
            for fields in (["X-Request-ID: first"], [], ["X-Request-ID: third"], [])
        ]
    assert ids[0::2] == ["first", "third"]
    assert ids[1] != ids[3]
    assert {len(ids[1]), len(ids[3])} == {24}


def test_refusals_have_it_as_well(server: Start, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    running = server(PROBE, trust_proxy=OURS, access_log=log, limit_request_body="1KiB")
    for fields in (["Content-Length: 2000"], ["Host: other"], ["Content-Length: x"]):
        with Client(running.address) as client:
            client.send(head("POST", "/echo", "X-Request-ID: mine", *fields))
            response = client.receive()
        assert response.status in (400, 413)
        assert response.get("X-Request-ID") == "mine"
    running.wait_until(lambda: log.read_text().count(" mine ") == 3)


def test_another_name_and_none(server: Start) -> None:
    running = server(PROBE, trust_proxy=OURS, request_id_header="X-Trace")
    response, environ = ask(running, "X-Request-ID: not", "X-Trace: abc")
    assert environ["poolsrv.request_id"] == environ["HTTP_X_TRACE"] == "abc"
    assert (response.get("X-Trace"), response.get("X-Request-ID")) == ("abc", None)
    running = server(PROBE, trust_proxy=OURS, request_id_header="off")
    response, environ = ask(running, "X-Request-ID: abc")
    assert len(environ["poolsrv.request_id"]) == 24
    assert environ["HTTP_X_REQUEST_ID"] == "abc"
    assert response.get("X-Request-ID") is None


@pytest.mark.parametrize("name", ["X_Request_ID", "a b", "Host", "content-type", "x" * 65, ""])
def test_what_can_be_no_such_field(name: str) -> None:
    with pytest.raises(ConfigError):
        from_options(application="app", request_id_header=name)
