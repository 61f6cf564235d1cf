"""What is settled before the first process is started."""

import logging
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

import poolsrv
from poolsrv import access_log, launcher, listeners
from poolsrv.errors import ApplicationError, ConfigError, ListenError
from poolsrv.settings.addresses import TcpAddress
from poolsrv.settings.rows import DEFAULTS, Settings


def busy(stack: ExitStack) -> int:
    """A port of loopback that is taken, and the next one is free."""
    while True:
        port: int = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        with socket.socket() as probe:
            if port < 65535 and probe.connect_ex(("127.0.0.1", port + 1)):
                return port


def test_the_usual_admin_address_gives_way(caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        port = busy(stack)
        settings = Settings(admin=TcpAddress("127.0.0.1", port, is_flexible=True))
        with caplog.at_level(logging.WARNING):
            admin = listeners.open_admin(stack, settings)
        assert admin is not None
        found = admin.socket.getsockname()[1]
        assert port < found < port + listeners.ADMIN_PORTS
        (message,) = caplog.messages
        assert message.startswith(f"port {port} is in use: metrics and status page are on {found};")


def test_without_a_port_there_is_no_admin_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listeners, "ADMIN_PORTS", 1)
    with ExitStack() as stack, caplog.at_level(logging.WARNING):
        port = busy(stack)
        settings = Settings(admin=TcpAddress("127.0.0.1", port, is_flexible=True))
        assert listeners.open_admin(stack, settings) is None
    assert caplog.messages[0].startswith("there are no metrics and no status page: 127.0.0.1:")


def test_an_admin_address_that_was_asked_for_is_an_error() -> None:
    with ExitStack() as stack:
        settings = Settings(admin=TcpAddress("127.0.0.1", busy(stack)))
        with pytest.raises(ListenError, match="give another address with --admin"):
            listeners.open_admin(stack, settings)


def test_only_the_default_gives_way() -> None:
    assert isinstance(DEFAULTS.admin, TcpAddress)
    assert DEFAULTS.admin.is_flexible
    assert not TcpAddress("127.0.0.1", 9464).is_flexible


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        (("::", 8), True),
        (("::", 8, "0.0.0.0", 8), False),
        (("::", 8, "127.0.0.1", 8), False),
        (("::", 8, "0.0.0.0", 9), True),
        (("::", 8, "::1", 9), True),
    ],
)
def test_both_families_share_a_listener_unless_each_has_its_own(
    bind: tuple[object, ...], expected: bool
) -> None:
    pairs = zip(bind[::2], bind[1::2], strict=True)
    addresses = tuple(TcpAddress(str(host), int(str(port))) for host, port in pairs)
    assert listeners.takes_both(addresses[0], addresses) is expected


@pytest.mark.parametrize("application", [42, None, b"shop:app", launcher])
def test_serve_refuses_what_is_no_application(application: object) -> None:
    with pytest.raises(ApplicationError, match="no callable"):
        poolsrv.serve(application)  # type: ignore[arg-type]


def test_serve_takes_the_text_of_an_application(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    launched: list[tuple[Settings, object]] = []
    monkeypatch.setattr(
        launcher,
        "launch",
        lambda settings, application=None, *_, **__: launched.append((settings, application)),
    )
    poolsrv.serve("shop:app", threads=2)
    ((settings, application),) = launched
    assert (settings.application, settings.threads, application) == ("shop:app", 2, None)


def test_a_fifo_without_a_reader_does_not_hold_the_start(tmp_path: Path) -> None:
    fifo = tmp_path / "access.log"
    os.mkfifo(fifo)
    with pytest.raises(ConfigError, match="nobody reads this FIFO: start its reader first"):
        access_log.open_log(str(fifo))
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = access_log.open_log(str(fifo))
    # Its reader may stop reading later: lines are dropped then.
    assert not os.get_blocking(writer)
    os.close(writer)
    os.close(reader)
