"""Request bodies that the application reads as they come (`--no-request-buffering`)."""

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.client import Client, Response, head
from tests.server import Server, serving

PROBE = "tests.apps.probe:app"


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("probe")
    options = {"processes": 1, "threads": 4, "limit_request_body": "1MiB"}
    with serving(PROBE, directory, request_buffering=False, **options) as made:
        yield made


@pytest.fixture
def client(probe: Server) -> Iterator[Client]:
    with Client(probe.address) as made:
        yield made


def call(*calls: list[object]) -> str:
    return f"/call-input?calls={quote(json.dumps(calls))}"


def test_the_application_runs_before_the_body_is_there(probe: Server, client: Client) -> None:
    client.send(head("POST", call(["readline"], ["read", 2], ["read"]), "Content-Length: 9"))
    probe.wait_until(lambda: any(row["state"] == "reading" for row in probe.status()["running"]))
    for part in (b"one\n", b"two\n", b"3"):
        client.send(part)
    assert json.loads(client.receive().body) == ["one\n", "tw", "o\n3"]
    assert client.get("/next").status == 200


def test_a_chunked_body_is_there_before_the_application_runs(probe: Server, client: Client) -> None:
    """Its length is not known before, and without one most applications take it for empty."""
    client.send(head("POST", "/echo", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
    probe.wait_for_metric(1, "poolsrv_connections", state="reading")
    assert not probe.status()["running"]
    client.send(b"0\r\n\r\n")
    assert client.receive().body == b"abc"


def test_what_is_pipelined_behind_a_chunked_body_is_served(client: Client) -> None:
    client.send(head("POST", "/echo", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
    client.send(b"0\r\n\r\n" + head("GET", "/next"))
    assert client.receive().body == b"abc"
    assert json.loads(client.receive().body)["PATH_INFO"] == "/next"


def test_a_large_read_is_given_in_one_piece(client: Client) -> None:
    body = bytes(range(256)) * 3000
    client.send(head("POST", "/echo", f"Content-Length: {len(body)}") + body)
    assert client.receive().body == body


def test_a_body_that_nobody_reads_ends_the_connection(client: Client) -> None:
    """It is never taken for a request."""
    client.send(head("POST", "/ignore-input", "Content-Length: 500000"))
    client.send(head("GET", "/smuggled") * 10)
    response = client.receive()
    assert (response.status, response.get("Connection")) == (200, "close")
    client.expect_end()


def test_100_continue_waits_for_the_first_read(client: Client) -> None:
    fields = ["Content-Length: 3", "Expect: 100-continue"]
    client.send(head("POST", "/echo", *fields))
    assert client.receive().status == 100
    client.send(b"abc")
    assert client.receive().body == b"abc"
    client.send(head("POST", "/ignore-input", *fields))
    assert client.receive().status == 200


def refused(client: Client) -> Response:
    response = client.receive()
    assert response.get("Connection") == "close"
    client.expect_end()
    return response


def test_chunks_beyond_the_limit_are_refused(client: Client) -> None:
    client.send(head("POST", "/echo", "Transfer-Encoding: chunked"))
    client.send(b"100001\r\n" + b"x" * 0x100001)
    assert refused(client).status == 413


def test_malformed_chunks_are_refused(client: Client) -> None:
    client.send(head("POST", "/echo", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n+1\r\n")
    assert refused(client).status == 400


def test_a_client_that_leaves_is_no_error_of_the_application(probe: Server) -> None:
    """The harness refuses ERROR lines; the count tells that it was noticed."""
    name = "poolsrv_client_disconnects_total"
    before = probe.metrics()[name, frozenset()]
    with Client(probe.address) as client:
        client.send(head("POST", "/echo", "Content-Length: 5") + b"ab")
        probe.wait_until(lambda: probe.status()["running"])
    probe.wait_until(lambda: probe.metrics()[name, frozenset()] == before + 1)


def test_a_body_that_pauses_too_long_is_cut_off(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("slow")
    with (
        serving(PROBE, directory, request_buffering=False, body_timeout="0.2s") as probe,
        Client(probe.address) as client,
    ):
        client.send(head("POST", "/echo", "Content-Length: 5") + b"ab")
        assert refused(client).status == 408


def test_a_slow_body_leaves_the_other_threads_alone(probe: Server) -> None:
    with Client(probe.address) as slow, Client(probe.address) as quick:
        slow.send(head("POST", "/echo", "Content-Length: 5") + b"ab")
        probe.wait_until(lambda: probe.status()["running"])
        for _ in range(50):
            assert quick.get("/x").status == 200
        slow.send(b"cde")
        assert slow.receive().body == b"abcde"
