"""The access log: a line for each answer, also for those that no application gave."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from poolsrv.access_log import open_log, place_of
from tests.apps.gate import Gate
from tests.client import Client, head
from tests.server import Server

pytestmark = pytest.mark.once

PROBE = "tests.apps.probe:app"
Start = Callable[..., Server]
LINE = re.compile(
    r'(\S+) - - \[[^]]+\] "(\S*) (\S*) HTTP/1\.([01])" (\d{3}) (\d+) "([^"]*)" "([^"]*)" '
    r'(\d+\.\d{6}) ([0-9a-f]{24}|-)(?: "([^"]+)")?'
)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with closing(Gate(tmp_path)) as made:
        yield made


def lines(log: Path, server: Server, count: int) -> list[re.Match[str]]:
    server.wait_until(lambda: log.read_text().count("\n") >= count)
    found = [LINE.fullmatch(line) for line in log.read_text().splitlines()]
    assert len(found) == count
    assert all(found), log.read_text()
    return [match for match in found if match]


def test_an_answer_of_the_application(server: Start, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    probe = server(PROBE, access_log=log)
    with Client(probe.address) as client:
        response = client.get("/answer?body=abc", "Referer: here", "User-Agent: test")
        assert response.body == b"abc"
    (line,) = lines(log, probe, 1)
    assert line.groups()[:8] == (
        "127.0.0.1", "GET", "/answer?body=abc", "1", "200", "3", "here", "test",
    )  # fmt: skip
    assert line[11] is None


def test_standard_output_by_its_name(server: Start) -> None:
    """It has one position in the file that it is, for the log and for all others."""
    probe = server(PROBE, access_log="/dev/stdout")
    with Client(probe.address) as client:
        client.get("/answer?body=abc")
    probe.wait_for_log(r"^127\.0\.0\.1 - - .* 200 3 ")
    assert probe.log().startswith("2")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/stderr"])
def test_standard_output_belongs_to_any_user(name: str) -> None:
    fd = open_log(name, os.geteuid())  # as root for the workers of another user
    standard = 2 if name == "/dev/stderr" else 1
    assert os.path.sameopenfile(fd, standard)
    assert place_of(name) == ""


REFUSED = {
    "a field without a name": (head("GET", "/x", ": y"), "400", "GET /x"),
    "no method": (b"\r\r\r\r\r\n", "400", " "),
    "a body beyond the limit": (head("POST", "/x", "Content-Length: 5000"), "413", "POST /x"),
    "a body that does not come": (head("POST", "/x", "Content-Length: 5"), "408", "POST /x"),
    "a bad chunk": (head("PUT", "/x", "Transfer-Encoding: chunked") + b"?\r\n", "400", "PUT /x"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_is_refused(server: Start, tmp_path: Path, name: str) -> None:
    sent, status, asked = REFUSED[name]
    log = tmp_path / "access.log"
    options = {"limit_request_body": "1KiB", "body_timeout": "0.2s"}
    probe = server(PROBE, access_log=log, **options)
    with Client(probe.address) as client:
        client.send(sent)
        response = client.receive()
        client.expect_end()
    assert response.status == int(status)
    assert response.get("Connection") == "close"
    assert (response.get("Date") or "").endswith(" GMT")
    assert response.get("Server") == "poolsrv"
    (line,) = lines(log, probe, 1)
    assert (f"{line[2]} {line[3]}", line[5]) == (asked, status)
    assert int(line[6]) == len(response.body)
    assert line[11] in response.body.decode()


@pytest.mark.parametrize("form", ["text", "json"])
def test_requests_that_the_supervisor_refuses(
    server: Start, gate: Gate, tmp_path: Path, form: str
) -> None:
    log = tmp_path / "access.log"
    options = {"queue_timeout": "0.2s", "processes": 1, "threads": 1, "log_format": form}
    probe = server(PROBE, access_log=log, **options)
    sent = [
        head("GET", "/late?x=1"),
        head("HEAD", "/late"),
        head("GET", "/late", version="1.0"),
        head("GET", "/" + "long" * 2000),
        b"no request\r\n\r\n",
    ]
    with ExitStack() as stack:
        pinned = stack.enter_context(Client(probe.address))
        pinned.send(head("GET", "/hold?gate=gate"))
        probe.wait_until(gate.arrivals)
        for data in sent:
            client = stack.enter_context(Client(probe.address))
            client.send(data)
            response = client.receive(to_head=data.startswith(b"HEAD"))
            assert (response.status, response.get("Server")) == (503, "poolsrv")
            assert (response.get("Date") or "").endswith(" GMT")
            client.expect_end()
        gate.release(1)
        assert pinned.receive().status == 200
    if form == "json":
        probe.wait_until(lambda: log.read_text().count("\n") >= 6)
        records = [json.loads(line) for line in log.read_text().splitlines()]
        assert records[0]["target"] == "/late?x=1"
        assert {record["reason"] for record in records[:-1]} == {"no thread came free in time"}
        return
    found = lines(log, probe, 6)[:-1]
    size = len("All threads are busy. Please try again soon.\n")
    assert [line.groups()[1:6] for line in found] == [
        ("GET", "/late?x=1", "1", "503", str(size)),
        ("HEAD", "/late", "1", "503", "0"),
        ("GET", "/late", "0", "503", str(size)),
        ("GET", ("/" + "long" * 2000)[:1020], "1", "503", str(size)),
        ("", "", "1", "503", str(size)),
    ]
    for line in found:
        assert (line[1], line[10], line[11]) == ("127.0.0.1", "-", "no thread came free in time")
        assert 0.2 <= float(line[9]) < 10


def test_an_application_that_fails(server: Start, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    probe = server(PROBE, access_log=log, allow_errors="the application failed")
    with Client(probe.address) as client:
        assert client.get("/fail").status == 500
    (line,) = lines(log, probe, 1)
    assert (line[5], line[11]) == ("500", "the application failed")


def test_as_json(server: Start, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    probe = server(PROBE, access_log=log, log_format="json")
    with Client(probe.address) as client:
        assert client.get('/"x', 'User-Agent: "\\').status == 200
        client.send(head("GET", "/x", ": y"))
        assert client.receive().status == 400
    probe.wait_until(lambda: log.read_text().count("\n") >= 2)
    first, second = map(json.loads, log.read_text().splitlines())
    assert (first["target"], first["user_agent"], first["status"]) == ('/"x', '"\\', 200)
    assert "reason" not in first
    assert second["reason"] == "field name is not a token and a colon"
