"""Every way to be refused, found again by those who look: metrics, status, page, log."""

import re
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from poolsrv.between.scoreboard import THREAD
from tests.apps.gate import Gate
from tests.client import Client, head
from tests.server import Server

pytestmark = pytest.mark.once

# What is answered with the status, by a server with the limits below.
REFUSED = {
    "400": b"BAD\r\n\r\n",
    "408": b"GET / HTT",
    "413": head("POST", "/", "Content-Length: 2000"),
    "414": head("GET", "/" + "a" * 300),
    "417": head("GET", "/", "Expect: wonders"),
    "431": head("GET", "/", "X: " + "a" * 300),
    "501": head("CONNECT", "a:80"),
    "505": head("GET", "/", version="2.0"),
}


def test_a_refusal_of_each_status_is_seen(server: Callable[..., Server], tmp_path: Path) -> None:
    strict = server(
        "tests.apps.probe:app",
        processes=1,
        threads=1,
        queue_timeout="200ms",
        header_timeout="300ms",
        limit_request_line=100,
        limit_request_field_size=100,
        limit_request_body=1000,
    )
    for status, request in REFUSED.items():
        with Client(strict.address) as client:
            client.send(request)
            assert client.receive().status == int(status)
    with (
        closing(Gate(tmp_path)) as gate,
        Client(strict.address) as holder,
        Client(strict.address) as client,
    ):
        holder.send(head("GET", "/hold?gate=gate"))
        strict.wait_until(gate.arrivals)
        client.send(head("GET", "/"))
        assert client.receive().status == 503
        gate.release(1)
        assert holder.receive().status == 200
    strict.wait_for_log(r"WARNING supervisor.* refused 1 request: 1 x 503 \(no thread came free")
    # The first at once, all others in a line a second.
    lines = r"WARNING worker 0.* refused \d+ requests?: (.*)"
    said: Counter[str] = Counter()

    def all_said() -> bool:
        said.clear()
        for line in re.findall(lines, strict.log()):
            for number, status in re.findall(r"(\d+) x (\d+)", line):
                said[status] += int(number)
        return said == dict.fromkeys(REFUSED, 1)

    strict.wait_until(all_said)
    seen = [*REFUSED, "503"]
    for status in seen:
        strict.wait_for_metric(1, "poolsrv_requests_refused_total", status=status)
    requests = strict.status()["requests"]
    assert requests["refused"] == dict.fromkeys(sorted(seen), 1)
    assert requests["errors"] == len(seen)
    assert "1 x 503" in strict.admin("/").decode()
    # The others are not the server's refusals, for the application was called
    # (502: test_keeper.py), or those of mounts (test_mounts.py).
    mounts = {"403", "404", "421"}
    assert set(THREAD.fields["refused"].values) - set(seen) == {"500", "502", "504"} | mounts
