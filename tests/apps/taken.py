"""An application that takes connections over, or does not, in all ways there are."""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.apps.gate import wait_at_gate

Environ = dict[str, Any]
Start = Callable[..., Any]

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"

kept: list[socket.socket] = []


def _answer(start: Start, text: object) -> list[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return [str(text).encode()]


def _echo(connection: socket.socket) -> None:
    connection.sendall(SWITCHED)
    while data := connection.recv(4096):
        connection.sendall(data)


def echo(environ: Environ, start: Start) -> list[bytes]:
    _echo(environ["poolsrv.socket"])
    environ["poolsrv.socket"].close()
    return _answer(start, "nobody reads this")


def ahead(environ: Environ, start: Start) -> list[bytes]:
    """What was sent behind the head, by all ways to receive."""
    connection = environ["werkzeug.socket"]
    waiting = connection.pending()
    room = bytearray(2)
    got = [
        connection.recv(1, socket.MSG_PEEK),
        connection.recv(1),
        bytes(room[: connection.recv_into(room)]),
        connection.recvmsg(1)[0],
        connection.recvfrom(100)[0],
    ]
    connection.sendall(f"{waiting} {got} {connection.pending()} ".encode())
    connection.sendall(connection.recv(100))
    return []


def fails(environ: Environ, start: Start) -> list[bytes]:
    environ["poolsrv.socket"].sendall(SWITCHED)
    raise ValueError("broken after it was taken over")


def leaves(environ: Environ, start: Start) -> list[bytes]:
    environ["poolsrv.socket"].sendall(SWITCHED)
    raise ConnectionError


def writes(environ: Environ, start: Start) -> list[bytes]:
    """Answers before and after, and again."""
    write = start("200 OK", [("Content-Length", "5")])
    environ["poolsrv.socket"].sendall(SWITCHED)
    write(b"first")
    start("500 No", [])(b"second")
    return [b"third"]


def later(environ: Environ, start: Start) -> Iterator[bytes]:
    """Takes it while the server iterates."""
    start("200 OK", [])
    yield b""
    _echo(environ["poolsrv.socket"])
    yield b"nobody reads this"


def begun(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", [])(b"begun: ")
    try:
        environ["poolsrv.socket"].fileno()
    except RuntimeError as error:
        return [str(error).encode()]
    return []


def tries(environ: Environ, start: Start) -> list[bytes]:
    try:
        environ["poolsrv.socket"].fileno()
    except RuntimeError as error:
        return _answer(start, error)
    return []


def looks(environ: Environ, start: Start) -> list[bytes]:
    """Is it there? Nothing of this is use."""
    found = environ.get("poolsrv.socket")
    assert found is environ.get("werkzeug.socket")
    assert isinstance(found, socket.socket) or found is None
    return _answer(start, repr(found))


def keeps(environ: Environ, start: Start) -> list[bytes]:
    kept.append(environ["poolsrv.socket"])
    return _answer(start, "kept")


def late(environ: Environ, start: Start) -> list[bytes]:
    try:
        kept.pop().recv(1)
    except RuntimeError as error:
        return _answer(start, error)
    return []


def forks(environ: Environ, start: Start) -> list[bytes]:
    """A child, which tells what it sees of the connection and then waits."""
    connection = environ["poolsrv.socket"]
    connection.sendall(SWITCHED)
    if os.fork() == 0:
        try:
            connection.send(b"from the child")
            found = "sent"
        except OSError as error:
            found = type(error).__name__
        (Path(os.environ["PROBE_DIR"]) / "found").write_text(found)
        wait_at_gate("child")
        os._exit(0)
    while connection.recv(4096):
        pass
    return []


def hangs(environ: Environ, start: Start) -> list[bytes]:
    while True:
        time.sleep(0.01)


WAYS = {
    way.__name__: way
    for way in (
        echo,
        ahead,
        fails,
        leaves,
        writes,
        later,
        begun,
        tries,
        looks,
        keeps,
        late,
        forks,
        hangs,
    )
}


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    return WAYS[environ["PATH_INFO"].strip("/")](environ, start)
