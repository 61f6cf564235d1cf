"""Listeners and channels: what they promise, and what a person reads when they fail."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from poolsrv.errors import ListenError
from poolsrv.settings.addresses import Address, FdAddress, TcpAddress, UnixAddress
from poolsrv.system.sockets import Listener, channel_pair, open_listener

pytestmark = pytest.mark.once

ANY = TcpAddress("127.0.0.1", 0)


@pytest.fixture
def listener() -> Iterator[Listener]:
    with closing(open_listener(ANY, 16)) as opened:
        yield opened


def refusal(address: Address) -> str:
    with pytest.raises(ListenError) as caught:
        open_listener(address, 16)
    assert caught.value.status == 4
    return str(caught.value)


def test_a_tcp_listener(listener: Listener) -> None:
    port = listener.socket.getsockname()[1]
    assert listener.name == f"127.0.0.1:{port}"
    assert not listener.is_unix
    assert not listener.socket.getblocking()
    assert not listener.socket.get_inheritable()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.send(b"x")
        with socket.socket(fileno=_accept(listener)) as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_connection_is_heard_of_when_its_client_has_sent_something(listener: Listener) -> None:
    with socket.create_connection(listener.socket.getsockname()):
        assert listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 1


def _accept(listener: Listener) -> int:
    # The connection of a local client is complete once it has sent something.
    return listener.socket.accept()[0].detach()


def test_ipv6_leaves_ipv4_alone_if_told() -> None:
    with closing(open_listener(TcpAddress("::", 0), 16, both_families=False)) as v6:
        port = v6.socket.getsockname()[1]
        assert v6.name == f"[::]:{port}"
        with closing(open_listener(TcpAddress("0.0.0.0", port), 16)) as v4:
            assert v4.name == f"0.0.0.0:{port}"


def test_all_of_ipv6_is_all_of_ipv4_too() -> None:
    with closing(open_listener(TcpAddress("::", 0), 16)) as both:
        port = both.socket.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        socket.create_connection(("::1", port)).close()


def test_localhost_is_what_clients_of_both_families_find() -> None:
    with closing(open_listener(TcpAddress("localhost", 0), 16)) as listener:
        assert listener.name.startswith("127.0.0.1:")


def test_an_address_in_use_names_who_may_hold_it(listener: Listener) -> None:
    message = refusal(TcpAddress("127.0.0.1", listener.socket.getsockname()[1]))
    assert message.startswith(f"{listener.name}: the address is in use")
    assert f"it may be held by pid {os.getpid()} (" in message
    assert "--bind" in message


def test_an_address_of_another_machine() -> None:
    # 192.0.2.0/24 is for documentation: RFC 5737.
    assert "this machine has no such address" in refusal(TcpAddress("192.0.2.1", 0))


def test_an_unknown_host() -> None:
    # .invalid never resolves: RFC 6761.
    assert "the host is not known" in refusal(TcpAddress("host.invalid", 80))


def test_a_unix_listener_and_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    monkeypatch.chdir(tmp_path)
    opened = open_listener(UnixAddress("socket"), 16)
    assert opened.is_unix
    assert path.is_socket()
    monkeypatch.chdir("/")
    opened.close()
    assert not path.exists()


def test_a_child_does_not_remove_the_file(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    opened = open_listener(UnixAddress(str(path)), 16)
    with closing(opened):
        pid = os.fork()
        if pid == 0:
            opened.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert path.exists()


def test_a_stale_socket_file_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "socket"))
    open_listener(address, 16).socket.close()
    with closing(open_listener(address, 16)):
        assert "another process listens there" in refusal(address)


def test_a_file_in_the_place_of_the_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("precious")
    assert "there is a file in this place" in refusal(UnixAddress(str(path)))
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file or directory" in refusal(UnixAddress(str(tmp_path / "no/socket")))


def test_an_inherited_listener(listener: Listener) -> None:
    adopted = open_listener(FdAddress(os.dup(listener.socket.fileno())), 16)
    with closing(adopted):
        assert adopted.name == listener.name
        assert not adopted.socket.getblocking()
        assert not adopted.socket.get_inheritable()


def test_descriptors_that_are_no_listener(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert "no socket was inherited" in refusal(FdAddress(file.fileno()))
    with socket.socket() as idle:
        assert "no stream socket that listens" in refusal(FdAddress(idle.fileno()))
        assert idle.fileno() == os.dup2(idle.fileno(), idle.fileno())  # still open
    assert "no socket was inherited" in refusal(FdAddress(2**31 - 1))


def test_a_channel_keeps_messages_whole_and_never_blocks() -> None:
    here, there = channel_pair()
    with here, there:
        here.send(b"one")
        here.send(b"two")
        assert (there.recv(64), there.recv(64)) == (b"one", b"two")
        for end in (here, there):
            assert not end.getblocking()
            assert not end.get_inheritable()
        with pytest.raises(BlockingIOError):
            there.recv(64)


def test_a_link_in_the_place_of_a_socket_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever may write to the folder could have any file given away."""
    victim, path = tmp_path / "victim", tmp_path / "shop.sock"
    victim.write_text("secret")
    victim.chmod(0o600)
    really = os.open

    def swapped(file: str, flags: int) -> int:
        Path(file).unlink()
        Path(file).symlink_to(victim)
        return really(file, flags)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(ListenError, match="another file has taken the place of the socket"):
        open_listener(UnixAddress(str(path)), 16, 0o666)
    assert victim.stat().st_mode & 0o777 == 0o600
