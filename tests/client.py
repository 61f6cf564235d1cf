"""A raw HTTP/1.1 client: the bytes are the test's own, the answer is read strictly.

It follows RFC 9112 as a suspicious peer would: CRLF only, no leniency in
framing, nothing between two answers. What is not so raises Malformed.
"""

import re
import socket
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")


class Malformed(AssertionError):
    """Not an answer of HTTP/1.1."""


class Truncated(AssertionError):
    """The connection ended within an answer; `response` is what there was of it."""

    def __init__(self, response: "Response") -> None:
        super().__init__(f"cut off: {response}")
        self.response = response


@dataclass
class Response:
    status: int = 0
    reason: str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """The values of every field of that name, in order."""
        return [value for other, value in self.fields if other.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a field that may stand once at most."""
        values = self.all(name)
        if len(values) > 1:
            raise Malformed(f"{name} stands {len(values)} times")
        return values[0] if values else None


class Client:
    """One connection. Every wait ends after `timeout` seconds with TimeoutError."""

    def __init__(self, address: tuple[str, int], timeout: float = 30) -> None:
        self.socket = socket.create_connection(address, timeout)
        # What is sent in pieces shall arrive in pieces.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()  # bytes would be copied for each piece of a large answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close so that the peer sees a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def get(self, target: str, *fields: str, version: str = "1.1") -> Response:
        """GET over this connection; `fields` are whole lines."""
        self.send(head("GET", target, *fields, version=version))
        return self.receive()

    def receive(self, *, to_head: bool = False) -> Response:
        """One answer, with its body; `to_head` if it answers a HEAD request."""
        response = Response()
        lines = self._until(b"\r\n\r\n", response).split(b"\r\n")
        if not (match := STATUS_LINE.fullmatch(lines[0])):
            raise Malformed(f"status line {lines[0]!r}")
        response.status, response.reason = int(match[1]), match[2].decode("latin-1")
        for line in lines[1:]:
            if not (match := FIELD_LINE.fullmatch(line)):
                raise Malformed(f"field line {line!r}")
            response.fields.append((match[1].decode(), match[2].decode("latin-1").rstrip()))
        self._read_body(response, to_head)
        return response

    def _read_body(self, response: Response, to_head: bool) -> None:
        """RFC 9112 section 6.3."""
        length, coding = response.get("Content-Length"), response.get("Transfer-Encoding")
        if response.status < 200 or response.status == 204:
            if length is not None or coding is not None:
                raise Malformed(f"framing in a {response.status}")
        elif to_head or response.status == 304:
            pass
        elif coding is not None:
            if coding != "chunked" or length is not None:
                raise Malformed(f"Transfer-Encoding {coding!r}, Content-Length {length!r}")
            self._read_chunks(response)
        elif length is not None:
            if not re.fullmatch(r"[0-9]+", length):
                raise Malformed(f"Content-Length {length!r}")
            response.body = self._exactly(int(length), response)
        else:
            if response.get("Connection") != "close":
                raise Malformed("neither a length nor an announced end")
            response.body, self.received = self.read_to_end(), bytearray()

    def _read_chunks(self, response: Response) -> None:
        while True:
            line = self._until(b"\r\n", response)
            if not CHUNK_SIZE.fullmatch(line):
                raise Malformed(f"chunk size {line!r}")
            chunk = self._exactly(int(line, 16), response)
            if self._exactly(2, response) != b"\r\n":
                raise Malformed("a chunk without its end")
            if not chunk:
                return
            response.chunks.append(chunk)
            response.body += chunk

    def _more(self) -> bool:
        """Read what there is; false at the end of the connection, however it came."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self.received += data
        return bool(data)

    def _until(self, mark: bytes, response: Response) -> bytes:
        while mark not in self.received:
            if not self._more():
                raise Truncated(response)
        data, _, self.received = self.received.partition(mark)
        return bytes(data)

    def _exactly(self, size: int, response: Response) -> bytes:
        while len(self.received) < size:
            if not self._more():
                response.body += self.received
                raise Truncated(response)
        data, self.received = self.received[:size], self.received[size:]
        return bytes(data)

    def read_to_end(self) -> bytes:
        """Everything the server sends until it closes."""
        while self._more():
            pass
        return bytes(self.received)

    def expect_end(self) -> None:
        """Wait until the server closes; a byte more is Malformed."""
        if self.received or self._more():
            raise Malformed(f"bytes where the connection should end: {self.received[:200]!r}")


def head(method: str, target: str, *fields: str, version: str = "1.1") -> bytes:
    """A request head, with a Host field."""
    lines = [f"{method} {target} HTTP/{version}", "Host: test.example", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
