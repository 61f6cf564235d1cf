"""PEP 3333 at its edges: what applications may do, and what clients then see."""

from collections.abc import Callable, Iterable, Iterator
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from tests.client import Client, head
from tests.server import Server, serving

Query = dict[str, str]
Route = Callable[[WSGIEnvironment, StartResponse, Query], Iterable[bytes]]
ROUTES: dict[str, Route] = {}


def route(function: Route) -> Route:
    ROUTES["/" + function.__name__.replace("_", "-")] = function
    return function


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    return ROUTES[environ["PATH_INFO"]](environ, start_response, query)


@pytest.fixture(scope="module", params=[True, False], ids=["buffered", "streamed"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Shared, so that what a request leaves behind would show in the next test."""
    directory = tmp_path_factory.mktemp("wsgi")
    with serving(
        "tests.test_wsgi:app", directory, processes=1, threads=4, request_buffering=request.param
    ) as made:
        yield made


@pytest.fixture
def client(site: Server) -> Iterator[Client]:
    with Client(site.address) as made:
        yield made


# HEAD, and what has no body


@route
def bodies(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    """Three pieces of unknown length; as many frameworks do it, none of them for a HEAD."""
    start(query.get("status", "200 OK"), [("Content-Type", "text/plain")])
    if environ["REQUEST_METHOD"] == "HEAD":
        return ()
    return (piece for piece in (b"a", b"b", b"c"))


def test_head_has_no_length_that_get_has_not(client: Client) -> None:
    assert client.get("/bodies").get("Content-Length") is None
    client.send(head("HEAD", "/bodies"))
    assert client.receive(to_head=True).get("Content-Length") is None
    assert client.get("/bodies").body == b"abc"


def test_head_by_http_1_0_keeps_the_connection(client: Client) -> None:
    for _ in range(2):
        client.send(head("HEAD", "/bodies", "Connection: keep-alive", version="1.0"))
        assert client.receive(to_head=True).get("Connection") == "keep-alive"


def test_a_205_has_no_body(client: Client) -> None:
    response = client.get("/bodies?status=205%20Reset%20Content")
    assert (response.status, response.get("Content-Length"), response.body) == (205, "0", b"")
    assert client.get("/bodies").body == b"abc"
