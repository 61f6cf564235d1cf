"""Flask, Django and httpbin behind the server, driven by the clients people use."""

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.apps.gate import Gate
from tests.drivers import LIBRARIES, Driver, Upload, driver
from tests.server import Server, serving

SIZE: dict[str, Any] = {"processes": 2, "threads": 4}
SITES = ["flask_site", "django_site"]
LARGE = bytes(range(256)) * 20_480  # 5 MiB, more than any buffer on the way


needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")


@pytest.fixture(params=[pytest.param("curl", marks=needs_curl), *LIBRARIES])
def client(request: pytest.FixtureRequest) -> Iterator[Driver]:
    with driver(request.param) as made:
        yield made


@pytest.fixture(scope="module", params=SITES)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp(request.param)
    with serving(f"tests.apps.{request.param}:app", directory, **SIZE) as made:
        yield made


@pytest.fixture(scope="module")
def httpbin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving("httpbin:app", tmp_path_factory.mktemp("httpbin"), **SIZE) as made:
        yield made


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# Sites written with Flask and Django


def test_a_template(site: Server, client: Driver) -> None:
    reply = client.send("GET", f"{site.url}/page")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert b"&amp; friends</title>" in reply.body
    assert b"<li>one</li><li>&lt;two&gt;</li>" in reply.body


def test_a_session(site: Server, client: Driver) -> None:
    reply = client.send("POST", f"{site.url}/login", {"name": "Ada"})
    assert (reply.status, reply.redirects) == (200, 1)
    assert json.loads(reply.body) == {"name": "Ada", "visits": 1}
    for visits in range(2, 6):
        reply = client.send("GET", f"{site.url}/visit")
        assert json.loads(reply.body) == {"name": "Ada", "visits": visits}


def test_an_upload(site: Server, client: Driver) -> None:
    reply = client.send("POST", f"{site.url}/upload", Upload("five.bin", LARGE, "a note"))
    assert json.loads(reply.body) == {
        "name": "five.bin",
        "note": "a note",
        "size": len(LARGE),
        "digest": digest(LARGE),
    }


@pytest.mark.parametrize("pieces", [[b"one", b"two" * 1000, b"three"], [LARGE[:100_000]] * 50])
def test_a_chunked_upload(site: Server, client: Driver, pieces: list[bytes]) -> None:
    """Django reads CONTENT_LENGTH bytes and no more: the server has to know it by then."""
    reply = client.send("POST", f"{site.url}/raw", pieces)
    data = b"".join(pieces)
    assert json.loads(reply.body) == {"size": len(data), "digest": digest(data)}


def test_a_large_body_both_ways(site: Server, client: Driver) -> None:
    reply = client.send("POST", f"{site.url}/raw", LARGE)
    assert json.loads(reply.body) == {"size": len(LARGE), "digest": digest(LARGE)}
    assert client.send("GET", f"{site.url}/large").body == LARGE


def test_a_stream(site: Server, client: Driver) -> None:
    reply = client.send("GET", f"{site.url}/stream")
    assert reply.body.decode().splitlines() == [f"line {number}" for number in range(100)]
    assert "content-length" not in reply.headers


def test_a_static_file(site: Server, client: Driver) -> None:
    reply = client.send("GET", f"{site.url}/static/style.css")
    assert (reply.status, reply.body) == (200, b"body { color: rebeccapurple; }\n")
    assert reply.headers["content-type"].startswith("text/css")
    again = {"If-Modified-Since": reply.headers["last-modified"]}
    reply = client.send("GET", f"{site.url}/static/style.css", headers=again)
    assert (reply.status, reply.body) == (304, b"")


def test_head(site: Server, client: Driver) -> None:
    whole = client.send("GET", f"{site.url}/page")
    reply = client.send("HEAD", f"{site.url}/page")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["content-length"] == str(len(whole.body))


def test_what_is_not_there(site: Server, client: Driver) -> None:
    assert client.send("GET", f"{site.url}/nowhere").status == 404


@pytest.mark.parametrize("name", SITES)
def test_a_view_that_fails(server: Callable[..., Server], name: str) -> None:
    failing = server(f"tests.apps.{name}:app", **SIZE, allow_errors=".")
    assert httpx.get(f"{failing.url}/fail", trust_env=False).status_code == 500
    failing.wait_for_log("RuntimeError: failed on purpose")
    assert httpx.get(f"{failing.url}/page", trust_env=False).status_code == 200


def test_a_session_in_every_thread_of_every_worker(
    site: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Eight requests at once need all of 2 x 4 threads: none is refused, none waits."""
    directory = site.log_path.parent
    with (
        httpx.Client(base_url=site.url, trust_env=False, follow_redirects=True) as client,
        ThreadPoolExecutor(8) as threads,
        closing(Gate(directory)) as gate,
    ):
        client.post("/login", data={"name": "Grace"})
        replies = [threads.submit(client.get, f"/who?gate={gate.name}") for _ in range(8)]
        site.wait_until(lambda: len(gate.arrivals()) == 8)
        gate.release(8)
        answers = [reply.result().json() for reply in replies]
    assert {answer["name"] for answer in answers} == {"Grace"}
    assert {answer["process"] for answer in answers} == set(site.workers())
    assert len(set(gate.arrivals())) == 8


# httpbin


def test_httpbin_methods(httpbin: Server, client: Driver) -> None:
    for method in ("GET", "DELETE", "PUT", "PATCH", "POST"):
        reply = client.send(method, f"{httpbin.url}/{method.lower()}?a=1&a=2&b=%C3%A9")
        assert reply.status == 200
        answer = json.loads(reply.body)
        assert answer["args"] == {"a": ["1", "2"], "b": "é"}
        assert answer["origin"] == "127.0.0.1"
        assert answer["url"].startswith(f"{httpbin.url}/{method.lower()}?")


def test_httpbin_post(httpbin: Server, client: Driver) -> None:
    form = json.loads(client.send("POST", f"{httpbin.url}/post", {"a": "x y", "b": "&"}).body)
    assert form["form"] == {"a": "x y", "b": "&"}
    file = json.loads(client.send("POST", f"{httpbin.url}/post", Upload("f", b"data", "n")).body)
    assert (file["files"], file["form"]) == ({"file": "data"}, {"note": "n"})
    raw = json.loads(client.send("POST", f"{httpbin.url}/post", b"bytes").body)
    assert raw["data"] == "bytes"


def test_httpbin_chunked_post(httpbin: Server, client: Driver) -> None:
    """httpbin answers 501 to a body without a length, except behind servers it knows."""
    reply = client.send("POST", f"{httpbin.url}/post", [b"one ", b"two ", b"three"])
    assert reply.status == 200
    assert json.loads(reply.body)["data"] == "one two three"


def test_httpbin_headers(httpbin: Server, client: Driver) -> None:
    sent = {"X-One": "1", "X-Empty-Ish": ",", "Accept-Language": "en, de;q=0.5"}
    reply = client.send("GET", f"{httpbin.url}/headers", headers=sent)
    answer = json.loads(reply.body)["headers"]
    assert answer["Host"] == httpbin.url.removeprefix("http://")
    assert sent.items() <= answer.items()
    reply = client.send("GET", f"{httpbin.url}/response-headers?X-Back=yes")
    assert reply.headers["x-back"] == "yes"


def test_httpbin_cookies(httpbin: Server, client: Driver) -> None:
    reply = client.send("GET", f"{httpbin.url}/cookies/set?one=1&two=2")
    assert reply.redirects == 1
    assert json.loads(reply.body)["cookies"] == {"one": "1", "two": "2"}
    reply = client.send("GET", f"{httpbin.url}/cookies/delete?one")
    assert json.loads(reply.body)["cookies"] == {"two": "2"}


def test_httpbin_redirects(httpbin: Server, client: Driver) -> None:
    for path in ("redirect/4", "absolute-redirect/4", "relative-redirect/4"):
        reply = client.send("GET", f"{httpbin.url}/{path}")
        assert (reply.status, reply.redirects) == (200, 4)


def test_httpbin_streams(httpbin: Server, client: Driver) -> None:
    reply = client.send("GET", f"{httpbin.url}/stream/20")
    assert [json.loads(line)["id"] for line in reply.body.splitlines()] == list(range(20))
    reply = client.send("GET", f"{httpbin.url}/stream-bytes/50000?seed=1&chunk_size=999")
    assert len(reply.body) == 50_000
    reply = client.send("GET", f"{httpbin.url}/drip?numbytes=5&duration=0.1&delay=0")
    assert reply.body == b"*****"


def test_httpbin_bytes(httpbin: Server, client: Driver) -> None:
    """The same seed gives the same bytes, whichever worker answers."""
    first, second = (client.send("GET", f"{httpbin.url}/bytes/90000?seed=7").body for _ in range(2))
    assert first == second
    assert len(first) == 90_000
    reply = client.send("GET", f"{httpbin.url}/range/1024", headers={"Range": "bytes=10-19"})
    assert (reply.status, len(reply.body)) == (206, 10)
    assert reply.headers["content-range"] == "bytes 10-19/1024"


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 404, 405, 418, 500, 503])
def test_httpbin_status(httpbin: Server, client: Driver, status: int) -> None:
    assert client.send("GET", f"{httpbin.url}/status/{status}").status == status
    # The connection is in step after an answer without a body.
    assert client.send("GET", f"{httpbin.url}/get").status == 200


def test_httpbin_codings(httpbin: Server, client: Driver) -> None:
    accept = {"Accept-Encoding": "gzip, deflate"}
    assert json.loads(client.send("GET", f"{httpbin.url}/gzip", headers=accept).body)["gzipped"]
    assert json.loads(client.send("GET", f"{httpbin.url}/deflate", headers=accept).body)["deflated"]


def test_httpbin_authentication(httpbin: Server, client: Driver) -> None:
    url = f"{httpbin.url}/basic-auth/ada/secret"
    assert client.send("GET", url).status == 401
    credentials = base64.b64encode(b"ada:secret").decode()
    reply = client.send("GET", url, headers={"Authorization": f"Basic {credentials}"})
    assert json.loads(reply.body) == {"authenticated": True, "user": "ada"}


def test_httpbin_anything(httpbin: Server, client: Driver) -> None:
    reply = client.send("PUT", f"{httpbin.url}/anything/a%20b/c?q=1", b"{}")
    answer = json.loads(reply.body)
    assert (answer["method"], answer["data"], answer["args"]) == ("PUT", "{}", {"q": "1"})
    assert answer["url"].startswith(f"{httpbin.url}/anything/a")


# Connections


@pytest.mark.parametrize("name", LIBRARIES)
def test_one_connection_for_many_requests(httpbin: Server, name: str) -> None:
    accepted = httpbin.metric("poolsrv_connections_accepted_total")
    with driver(name) as client:
        for _ in range(10):
            assert client.send("GET", f"{httpbin.url}/get").status == 200
    assert httpbin.metric("poolsrv_connections_accepted_total") == accepted + 1


@needs_curl
def test_curl_keeps_its_connection(httpbin: Server) -> None:
    done = subprocess.run(
        [
            "curl",
            "--silent",
            "--fail",
            "--max-time",
            "30",
            "--write-out",
            "%{stderr}%{num_connects}",
        ]
        + [f"{httpbin.url}/get"] * 5,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "10000"
