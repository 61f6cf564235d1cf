"""A small HTTP server for the admin address: one thread, one request a connection.

Knows nothing of poolsrv. Its clients are a few scrapers, browsers and probes,
or somebody who should not be there: a connection has one deadline for
everything, and when there are too many the oldest makes room, so that neither
many clients nor slow ones keep the next from its answer. A connection closes
after its answer: to keep it would spare a scrape every few seconds a handshake
on loopback.
"""

import asyncio
import gzip
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from poolsrv import operator_messages as say

logger = logging.getLogger(__name__)

# From accepted to answered. A scrape takes milliseconds, and Prometheus itself
# gives up after 10 seconds.
DEADLINE = 10.0

CONNECTIONS = 64

# Browsers send up to a few KiB of cookies for the host's other ports.
HEAD_LIMIT = 16 * 1024

# Below this the answer fits in one segment either way.
GZIP_FROM = 1024

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """`path` has no query. Names of `fields` are in lower case; of fields with
    the same name the last counts."""

    method: str
    path: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    body: bytes
    content_type: str = TEXT
    status: HTTPStatus = HTTPStatus.OK
    fields: Mapping[str, str] = field(default_factory=dict)


def refusal(status: HTTPStatus, **fields: str) -> Response:
    return Response(f"{status.phrase}\n".encode(), status=status, fields=fields)


Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """Answers GET and HEAD on one listener with what `routes` has for the path."""

    def __init__(self, routes: Mapping[str, Handler]) -> None:
        self._routes = routes
        # Oldest first.
        self._connections: dict[asyncio.Task[None], asyncio.WriteTransport] = {}

    async def serve(self, listener: socket.socket, until: asyncio.Event) -> None:
        """Serve on `listener` until the event; answers that are on their way get a second."""
        server = await asyncio.start_server(self._connection, sock=listener, limit=HEAD_LIMIT)
        await until.wait()
        server.close()
        if self._connections:
            await asyncio.wait(self._connections, timeout=1)
        for transport in self._connections.values():
            transport.abort()
        await asyncio.gather(*self._connections)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= CONNECTIONS:
            # To abort, not to cancel: for its task the client has gone away.
            self._connections.pop(next(iter(self._connections))).abort()
        self._connections[task] = writer.transport
        try:
            async with asyncio.timeout(DEADLINE):
                writer.write(await self._answer(reader))
                writer.write_eof()  # a child that is forked meanwhile may hold the connection
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError) as error:
            logger.debug(say.ADMIN_CLIENT_GONE, error)
        finally:
            self._connections.pop(task, None)
            # What the client has not taken by now is dropped.
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            response = refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return _message(response, body=True)
        request = parse(head)
        if request is None:
            return _message(refusal(HTTPStatus.BAD_REQUEST), body=True)
        response = await self._respond(request)
        if accepts_gzip(request) and len(response.body) >= GZIP_FROM:
            response = _compressed(response)
        return _message(response, body=request.method != "HEAD")

    async def _respond(self, request: Request) -> Response:
        handler = self._routes.get(request.path)
        if handler is None:
            return refusal(HTTPStatus.NOT_FOUND)
        if request.method not in ("GET", "HEAD"):
            return refusal(HTTPStatus.METHOD_NOT_ALLOWED, Allow="GET, HEAD")
        return await handler(request)


def parse(head: bytes) -> Request | None:
    """A request's head; None if it is none.

    Lenient about fields: nothing but Accept and Accept-Encoding is looked at,
    no body is read and no second request follows, so there is nothing to
    smuggle.
    """
    request_line, *lines = head.decode("latin-1").split("\r\n")
    match request_line.split(" "):
        case [method, target, version] if version.startswith("HTTP/1."):
            fields = (line.partition(":") for line in lines)
            return Request(
                method,
                target.partition("?")[0],
                {name.lower(): value.strip() for name, _, value in fields},
            )
    return None


def accepts_gzip(request: Request) -> bool:
    """Whether gzip is named, with a weight other than nought (RFC 9110 section 12.5.3)."""
    for choice in request.fields.get("accept-encoding", "").split(","):
        coding, *parameters = (part.strip().lower() for part in choice.split(";"))
        if coding == "gzip":
            return not any(p.startswith("q=") and not p[2:].strip("0.") for p in parameters)
    return False


def _compressed(response: Response) -> Response:
    # The first level: the answer crosses a network of this house at most, and
    # level 6 makes it a tenth smaller for twice the time.
    return Response(
        gzip.compress(response.body, 1),
        response.content_type,
        response.status,
        {**response.fields, "Content-Encoding": "gzip"},
    )


def _message(response: Response, body: bool) -> bytes:
    fields = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Cache-Control": "no-store",
        "Vary": "Accept, Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
        **response.fields,
    }
    status = response.status
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head + response.body if body else head
