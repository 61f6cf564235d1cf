"""The socket that environ holds when a client asks for another protocol.

Runs in a worker, on a thread that serves. The first use of the socket, whatever it
is, takes the connection over from the server: until then it is none, and the
request is one like others. Where its descriptor comes from is csrc/worker/upgrade.h.
"""

import os
import socket
from collections.abc import Callable
from typing import Any

# The connection is taken over: its descriptor, and what has been received already.
Takeover = Callable[[], tuple[int, bytes]]


class UpgradedSocket(socket.socket):
    """`environ["poolsrv.socket"]`: a connection that the application has taken over.

    It blocks, as sockets do, and is closed like any. The server ends the connection
    when the application's call returns.
    """

    __slots__ = ("_ahead", "_takeover")

    _ahead: bytes
    _takeover: Takeover

    def pending(self) -> int:
        """Bytes that recv() has before it asks the kernel: `select` does not know of them."""
        return 0


class _Ahead(UpgradedSocket):
    """The client has sent bytes behind the head of its request, without an answer to that.

    They come first. When all are given the socket is a usual one.
    """

    __slots__ = ()

    def pending(self) -> int:
        return len(self._ahead)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        given = self._ahead[:bufsize]
        if not flags & socket.MSG_PEEK:
            self._ahead = self._ahead[bufsize:]
            if not self._ahead:
                self.__class__ = UpgradedSocket  # type: ignore[assignment]
        return given

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        room = memoryview(buffer).cast("B")
        given = self.recv(min(nbytes, len(room)) or len(room), flags)
        room[: len(given)] = given
        return len(given)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        return self.recv_into(buffer, nbytes, flags), None

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        return self.recv(bufsize, flags), [], 0, None

    def recvmsg_into(
        self, buffers: Any, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        first = next((room for room in buffers if len(room)), b"")
        return self.recv_into(first, 0, flags), [], 0, None


class _Untouched(UpgradedSocket):
    """Nobody has used it."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        # Whoever only looks at what environ holds asks for names like __class__.
        if not name.startswith("__"):
            _take_over(self)
        return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        return "<the client's connection: the first use takes it over>"


def offer(takeover: Takeover) -> UpgradedSocket:
    """A socket that calls `takeover` on its first use."""
    found = _Untouched.__new__(_Untouched)
    found._takeover = takeover
    return found


def _take_over(untouched: _Untouched) -> None:
    descriptor, ahead = object.__getattribute__(untouched, "_takeover")()
    untouched.__class__ = _Ahead if ahead else UpgradedSocket  # type: ignore[assignment]
    try:
        socket.socket.__init__(untouched, fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise
    untouched._ahead = ahead
    untouched.setblocking(True)
