"""Behind a proxy: whom the server believes, what it takes from them, and what it passes on."""

import json
import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poolsrv.errors import ConfigError, ListenError
from poolsrv.settings.addresses import UnixAddress
from poolsrv.settings.kinds import Owner
from poolsrv.settings.sources import from_options
from poolsrv.system.sockets import open_listener
from tests.client import Client, head
from tests.server import Server, run_to_end, serving

pytestmark = pytest.mark.once

PROBE = "tests.apps.probe:app"
Start = Callable[..., Server]
Environ = dict[str, Any]

# Every name of http1.h that speaks for a client.
X_FORWARDED = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port"]
X_FORWARDED += ["X-Forwarded-Prefix"]
ALL_PARTS = "for,proto,host,port,prefix"
HEADER = (Path(__file__).parent.parent / "poolsrv/csrc/protocol/http1.h").read_text()
SYNONYMS = re.findall(r'^ +X\("([a-z0-9-]+)"\)', HEADER, re.MULTILINE)

V2 = b"\r\n\r\n\0\r\nQUIT\n"
TO = socket.inet_aton("198.51.100.2")


class UnixClient(Client):
    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.received = b""


def environ_of(client: Client, *fields: str, target: str = "/path") -> Environ:
    """The environ of one more request on this connection."""
    response = client.get(target, *fields)
    assert response.status == 200
    environ: Environ = json.loads(response.body)
    return environ


def environ(server: Server, *fields: str, target: str = "/path") -> Environ:
    with Client(server.address) as client:
        return environ_of(client, *fields, target=target)


def key(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


def v2(command: int, family: int, rest: bytes) -> bytes:
    return V2 + struct.pack("!BBH", command, family, len(rest)) + rest


V1_TCP4 = b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n"
V1_TCP6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 8080 443\r\n"
V2_TCP4 = v2(0x21, 0x11, socket.inet_aton("192.0.2.1") + TO + struct.pack("!HH", 8080, 443))
V2_LOCAL = v2(0x20, 0, b"")


# What a stranger says


@pytest.fixture(params=[(), ("192.0.2.0/24", "::1", "unix")], ids=["nobody", "others"])
def strangers(server: Start, request: pytest.FixtureRequest) -> Server:
    """A server that does not trust us."""
    return server(PROBE, trust_proxy=request.param)


def test_a_stranger_is_not_believed(strangers: Server) -> None:
    names = [*X_FORWARDED, "Forwarded", *SYNONYMS]
    assert len(SYNONYMS) > 20
    with Client(strangers.address) as client:
        plain = environ_of(client)
        told = environ_of(client, *(f"{name}: 192.0.2.1" for name in names))
        del plain["poolsrv.request_id"], told["poolsrv.request_id"]
        assert told == plain
        assert plain["REMOTE_ADDR"] == "127.0.0.1"
        assert plain["REMOTE_PORT"] == str(client.socket.getsockname()[1])
        assert plain["wsgi.url_scheme"] == "http"


# X-Forwarded-*


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    networks = ["127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"]
    directory = tmp_path_factory.mktemp("trusting")
    with serving(PROBE, directory, trust_proxy=networks, forwarded_fields=ALL_PARTS) as started:
        yield started


def test_what_a_trusted_proxy_says(trusting: Server) -> None:
    shown = environ(
        trusting,
        "X-Forwarded-For: 192.0.2.1:50",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.example:8443",
        "X-Forwarded-Prefix: /shop/",
        target="/shop/cart?x=1",
    )
    assert (shown["REMOTE_ADDR"], shown["REMOTE_PORT"]) == ("192.0.2.1", "50")
    assert shown["wsgi.url_scheme"] == "https"
    assert shown["HTTP_HOST"] == "shop.example:8443"
    assert (shown["SERVER_NAME"], shown["SERVER_PORT"]) == ("shop.example", "8443")
    assert (shown["SCRIPT_NAME"], shown["PATH_INFO"]) == ("/shop", "/cart")
    assert shown["QUERY_STRING"] == "x=1"
    assert shown["REQUEST_URI"] == "/shop/cart?x=1"
    assert shown["HTTP_X_FORWARDED_FOR"] == "192.0.2.1:50"


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.0.0.1"], "192.0.2.1"),
        (["192.0.2.66, 192.0.2.1"], "192.0.2.1"),
        (["10.6.6.6, 192.0.2.1"], "192.0.2.1"),
        (["192.0.2.66", "192.0.2.1, 10.0.0.2", "10.0.0.1"], "192.0.2.1"),
        (["10.0.0.2, 10.0.0.1"], "10.0.0.2"),
        (["[2001:DB9::1]:50, 2001:db8::1"], "2001:db9::1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["unknown"], "127.0.0.1"),
        (["192.0.2.66, unknown, 10.0.0.1"], "10.0.0.1"),
        (["192.0.2.66, no address"], "127.0.0.1"),
    ],
)
def test_the_client_is_the_first_that_is_no_proxy(
    trusting: Server, fields: list[str], client: str
) -> None:
    shown = environ(trusting, *(f"X-Forwarded-For: {value}" for value in fields))
    assert shown["REMOTE_ADDR"] == client


@pytest.mark.parametrize(
    ("fields", "host", "port"),
    [
        (["X-Forwarded-Proto: https"], "test.example", "443"),
        (["X-Forwarded-Port: 8443", "X-Forwarded-Proto: https"], "test.example:8443", "8443"),
        (["X-Forwarded-Host: a.example", "X-Forwarded-Port: 81"], "a.example:81", "81"),
        (["X-Forwarded-Host: a.example:82", "X-Forwarded-Port: 81"], "a.example:82", "82"),
        (["X-Forwarded-Host: [2001:db8::1]"], "[2001:db8::1]", "80"),
    ],
)
def test_host_and_port_make_the_url(
    trusting: Server, fields: list[str], host: str, port: str
) -> None:
    shown = environ(trusting, *fields)
    assert (shown["HTTP_HOST"], shown["SERVER_PORT"]) == (host, port)


@pytest.mark.parametrize(
    ("target", "script", "path"),
    [
        ("/a/b", "/a", "/b"),
        ("/%61/b", "/a", "/b"),
        ("/a", "/a", ""),
        ("/a/", "/a", "/"),
        ("/ab", "/a", "/ab"),
        ("/b", "/a", "/b"),
    ],
)
def test_the_prefix_leaves_the_path(trusting: Server, target: str, script: str, path: str) -> None:
    shown = environ(trusting, "X-Forwarded-Prefix: /a", target=target)
    assert (shown["SCRIPT_NAME"], shown["PATH_INFO"]) == (script, path)


@pytest.mark.parametrize(
    "field",
    [
        "X-Forwarded-Proto: gopher",
        "X-Forwarded-Host: a b",
        "X-Forwarded-Host: a.example/path",
        "X-Forwarded-Port: 80x",
        "X-Forwarded-Prefix: //evil.example",
        "X-Forwarded-For: \xff",
    ],
)
def test_what_is_malformed_changes_nothing(trusting: Server, field: str) -> None:
    with Client(trusting.address) as client:
        plain, told = environ_of(client), environ_of(client, field)
    own = {key(field.partition(":")[0]), "poolsrv.request_id", "HTTP_X_REQUEST_ID"}
    for name in (plain.keys() | told.keys()) - own:
        assert told[name] == plain[name]


def test_other_names_are_believed_from_nobody(trusting: Server) -> None:
    shown = environ(
        trusting, *(f"{name}: 192.0.2.1" for name in SYNONYMS), "Forwarded: for=192.0.2.2"
    )
    assert shown["REMOTE_ADDR"] == "127.0.0.1"
    assert not {*map(key, SYNONYMS), "HTTP_FORWARDED"} & shown.keys()


# Forwarded, and neither


def test_the_standard_field(server: Start) -> None:
    parts = "for,proto,host"
    trusting = server(PROBE, trust_proxy="127.0.0.1", forwarded="forwarded", forwarded_fields=parts)
    shown = environ(
        trusting,
        "X-Forwarded-For: 192.0.2.66",
        "X-Forwarded-Prefix: /made-up",
        'Forwarded: for="open, for="[2001:db8:cafe::17]:4711";proto=https;host="a.example:8443"',
    )
    assert (shown["REMOTE_ADDR"], shown["REMOTE_PORT"]) == ("2001:db8:cafe::17", "4711")
    assert shown["wsgi.url_scheme"] == "https"
    assert (shown["HTTP_HOST"], shown["SERVER_PORT"]) == ("a.example:8443", "8443")
    assert shown["SCRIPT_NAME"] == ""
    assert not {*map(key, X_FORWARDED)} & shown.keys()
    hidden = environ(trusting, "Forwarded: for=_hidden")
    assert hidden["REMOTE_ADDR"] == "127.0.0.1"


def test_no_field_at_all(server: Start) -> None:
    deaf = server(PROBE, trust_proxy="127.0.0.1", forwarded="off")
    shown = environ(deaf, "X-Forwarded-For: 192.0.2.66", "Forwarded: for=192.0.2.66")
    assert shown["REMOTE_ADDR"] == "127.0.0.1"
    assert not {"HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED"} & shown.keys()


# Unix sockets


@pytest.mark.parametrize(("trust", "client"), [("unix", "192.0.2.1"), ("127.0.0.1", "")])
def test_a_peer_on_a_unix_socket(server: Start, tmp_path: Path, trust: str, client: str) -> None:
    path = tmp_path / "socket"
    server(PROBE, bind=f"unix:{path}", trust_proxy=trust)
    assert path.stat().st_mode & 0o777 == 0o660
    with UnixClient(path) as proxy:
        shown = environ_of(proxy, "X-Forwarded-For: 192.0.2.1")
    assert (shown["REMOTE_ADDR"], shown["REMOTE_PORT"]) == (client, "")


def test_mode_and_owner_of_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    mask = os.umask(0)
    try:
        owner = Owner(os.getuid(), os.getgid(), "me")
        opened = open_listener(UnixAddress(str(path)), 16, 0o600, owner)
        assert os.umask(0) == 0
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())
    opened.close()


def test_an_owner_that_we_may_not_give_it_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    path = tmp_path / "socket"
    with pytest.raises(ListenError, match="cannot be given to other"):
        open_listener(UnixAddress(str(path)), 16, 0o660, Owner(1, 1, "other"))
    assert not path.exists()


# What is asked for


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    status, text = run_to_end(PROBE, tmp_path, proxy_protocol="on")
    assert status == 2
    assert "proxy-protocol is on, but no proxy is trusted" in text


@pytest.mark.parametrize(
    "network",
    ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "fe80::1%lo", "::ffff:10.0.0.0/104", "all"],
)
def test_networks_that_are_none(network: str) -> None:
    with pytest.raises(ConfigError, match=r"trust_proxy: .* is not allowed"):
        from_options(config=None, trust_proxy=network)


@pytest.mark.parametrize("mode", ["660", "0888", "07777", 660, 0o1000, True])
def test_modes_that_are_none(mode: object) -> None:
    with pytest.raises(ConfigError, match=r"unix_mode: .* is not allowed"):
        from_options(config=None, unix_mode=mode)


@pytest.mark.parametrize("mode", ["0660", "0o660", 0o660])
def test_modes(mode: object) -> None:
    assert from_options(config=None, unix_mode=mode).unix_mode == 0o660


def test_owners() -> None:
    owner = from_options(config=None, unix_owner="root:0").unix_owner
    assert owner is not None
    assert (owner.uid, owner.gid) == (0, 0)
    owner = from_options(config=None, unix_owner=":4294967294").unix_owner
    assert owner is not None
    assert (owner.uid, owner.gid) == (-1, 4294967294)
    for text in (":", "no such user", "0:4294967295"):
        with pytest.raises(ConfigError, match=r"unix_owner: .* is not allowed"):
            from_options(config=None, unix_owner=text)


def test_only_what_is_named_is_believed(server: Start) -> None:
    """The usual lines for nginx set For and Proto, and pass a client's Host on."""
    usual = server(PROBE, trust_proxy="127.0.0.1")
    shown = environ(
        usual,
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Port: 666",
        "X-Forwarded-Prefix: /evil",
    )
    assert (shown["REMOTE_ADDR"], shown["wsgi.url_scheme"]) == ("192.0.2.1", "https")
    assert "evil" not in json.dumps(shown)
    assert (shown["SERVER_PORT"], shown["SCRIPT_NAME"]) == ("443", "")


def test_of_the_standard_field_too(server: Start) -> None:
    usual = server(PROBE, trust_proxy="127.0.0.1", forwarded="forwarded")
    shown = environ(usual, "Forwarded: for=192.0.2.1;proto=https;host=evil.example")
    assert (shown["REMOTE_ADDR"], shown["wsgi.url_scheme"]) == ("192.0.2.1", "https")
    assert shown["HTTP_HOST"] == "test.example"


def test_the_access_log_names_the_client(server: Start, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    trusting = server(PROBE, trust_proxy="127.0.0.1", access_log=log)
    environ(trusting, "X-Forwarded-For: 192.0.2.1")
    trusting.wait_until(lambda: log.read_text().startswith("192.0.2.1 - - ["))


@pytest.mark.parametrize("sends", [True, False])
def test_the_date_is_optional(server: Start, sends: bool) -> None:
    with Client(server(PROBE, date_header=sends).address) as client:
        assert (client.get("/x").get("Date") is not None) is sends


# The PROXY protocol


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        PROBE,
        tmp_path_factory.mktemp("proxied"),
        processes=1,
        trust_proxy="127.0.0.1",
        proxy_protocol="on",
    ) as started:
        yield started
        started.wait_for_metric(0, "poolsrv_connections")  # whatever their state


def refusals(server: Server, reason: str) -> float:
    return server.metric("poolsrv_proxy_protocol_refusals_total", reason=reason)


@pytest.mark.parametrize(
    ("header", "address", "port"),
    [
        (V1_TCP4, "192.0.2.1", "8080"),
        (V1_TCP6, "2001:db8::1", "8080"),
        (b"PROXY UNKNOWN and more\r\n", "127.0.0.1", None),
        (V2_TCP4, "192.0.2.1", "8080"),
        (v2(0x21, 0x21, bytes(15) + b"\1" + bytes(16) + b"\0\7\0\0"), "::1", "7"),
        (v2(0x21, 0x31, bytes(216)), "127.0.0.1", None),
        (v2(0x21, 0, b""), "127.0.0.1", None),
        (V2_TCP4[:14] + b"\0\x10" + V2_TCP4[16:] + b"\4\0\1x", "192.0.2.1", "8080"),
    ],
)
def test_the_header_names_the_client(
    proxied: Server, header: bytes, address: str, port: str | None
) -> None:
    """Or does not know it: then the peer is the best that is known."""
    with Client(proxied.address) as client:
        port = port or str(client.socket.getsockname()[1])
        # With the first request in one segment, and once for all requests.
        client.send(header + head("GET", "/x"))
        first = json.loads(client.receive().body)
        for shown in (first, environ_of(client)):
            assert (shown["REMOTE_ADDR"], shown["REMOTE_PORT"]) == (address, port)


def record(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_records(*records: bytes) -> bytes:
    """V2_TCP4 with these behind the addresses."""
    rest = b"".join(records)
    return V2_TCP4[:14] + struct.pack("!H", 12 + len(rest)) + V2_TCP4[16:] + rest


def test_the_header_says_that_the_client_speaks_tls(proxied: Server) -> None:
    """As hitch and HAProxy (send-proxy-v2-ssl) write it."""
    names = record(0x21, b"TLSv1.3") + record(0x23, b"TLS_AES_256_GCM_SHA384")
    tls = record(0x20, b"\x01\0\0\0\0" + names)
    with Client(proxied.address) as client:
        client.send(with_records(record(0x02, b"shop.example"), tls))
        for _ in range(2):
            shown = environ_of(client)
            assert shown["wsgi.url_scheme"] == "https"
            assert (shown["HTTPS"], shown["SSL_PROTOCOL"]) == ("on", "TLSv1.3")
            assert shown["SSL_CIPHER"] == "TLS_AES_256_GCM_SHA384"
            assert shown["SSL_CLIENT_VERIFY"] == "NONE"
            assert shown["SERVER_PORT"] == "443"


@pytest.mark.parametrize(
    ("said", "verified"), [(b"\3\0\0\0\0", "SUCCESS"), (b"\3\0\0\0\x0a", "FAILED")]
)
def test_the_header_says_how_the_certificate_was(
    proxied: Server, said: bytes, verified: str
) -> None:
    with Client(proxied.address) as client:
        client.send(with_records(record(0x20, said)))
        shown = environ_of(client)
        assert shown["SSL_CLIENT_VERIFY"] == verified
        assert "SSL_CIPHER" not in shown


def test_tls_without_an_address_is_asked_at_its_usual_port(proxied: Server) -> None:
    with Client(proxied.address) as client:
        client.send(v2(0x21, 0, record(0x20, b"\1\0\0\0\0")))
        shown = environ_of(client)
        assert (shown["wsgi.url_scheme"], shown["SERVER_PORT"]) == ("https", "443")


def test_without_tls_nothing_is_said_of_it(proxied: Server) -> None:
    for header in (V1_TCP4, V2_TCP4, with_records(record(0x20, bytes(5)))):
        with Client(proxied.address) as client:
            client.send(header)
            shown = environ_of(client, "HTTPS: on", "SSL-PROTOCOL: TLSv1.3")
            assert shown["wsgi.url_scheme"] == "http"
            assert not {"HTTPS", "SSL_PROTOCOL", "SSL_CLIENT_VERIFY"} & shown.keys()


def test_a_proxy_that_speaks_for_itself(proxied: Server) -> None:
    with Client(proxied.address) as client:
        client.send(V2_LOCAL)
        shown = environ_of(client)
        assert shown["REMOTE_ADDR"] == "127.0.0.1"
        assert shown["REMOTE_PORT"] == str(client.socket.getsockname()[1])


@pytest.mark.parametrize("header", [V1_TCP4, V2_TCP4], ids=["v1", "v2"])
def test_a_header_in_two_pieces(proxied: Server, header: bytes) -> None:
    refused = refusals(proxied, "malformed")
    proxied.wait_for_metric(0, "poolsrv_connections", state="reading")
    for size in range(1, len(header)):
        with Client(proxied.address) as client:
            client.send(header[:size])
            proxied.wait_for_metric(1, "poolsrv_connections", state="reading")
            client.send(header[size:])
            assert environ_of(client)["REMOTE_ADDR"] == "192.0.2.1"
    assert refusals(proxied, "malformed") == refused


def test_a_header_byte_by_byte(proxied: Server) -> None:
    with Client(proxied.address) as client:
        for byte in V2_TCP4 + head("GET", "/x"):
            client.send(bytes([byte]))
        assert json.loads(client.receive().body)["REMOTE_ADDR"] == "192.0.2.1"


@pytest.mark.parametrize(
    "data",
    [
        head("GET", "/x"),
        b"PROXY TCP4 192.0.2.1 198.51.100.2 8080\r\n" + head("GET", "/x"),
        b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\n" + head("GET", "/x"),
        b"PROXY " + b"x" * 200,
        v2(0x22, 0x11, bytes(12)),
        v2(0x21, 0x12, bytes(12)),
        v2(0x21, 0x11, bytes(11)),
        V2 + b"\x21\x11\xff\xff",
        b"\x16\3\1\0\xa5\1",
    ],
)
def test_anything_else_is_closed_without_an_answer(proxied: Server, data: bytes) -> None:
    refused = refusals(proxied, "malformed")
    with Client(proxied.address) as client:
        client.send(data)
        client.expect_end()
    assert refusals(proxied, "malformed") == refused + 1


def test_a_second_header_is_no_request(proxied: Server) -> None:
    with Client(proxied.address) as client:
        client.send(V1_TCP4 + V1_TCP4)
        assert client.receive().status == 400
        client.expect_end()


def test_a_header_of_a_stranger(server: Start) -> None:
    strict = server(PROBE, trust_proxy="192.0.2.0/24", proxy_protocol="on")
    with Client(strict.address) as client:
        client.send(V1_TCP4 + head("GET", "/x"))
        client.expect_end()
    assert refusals(strict, "untrusted") == 1


def test_a_header_that_does_not_end(server: Start) -> None:
    hasty = server(PROBE, trust_proxy="127.0.0.1", proxy_protocol="on", header_timeout="300ms")
    with Client(hasty.address) as client:
        client.send(V1_TCP4[:-1])
        client.expect_end()
    hasty.wait_for_metric(1, "poolsrv_connections_limited_total", limit="header_timeout")
    assert hasty.metric("poolsrv_requests_refused_total") == 0


def test_fields_are_judged_by_whom_the_header_names(server: Start) -> None:
    both = server(PROBE, trust_proxy=["127.0.0.1", "10.0.0.0/8"], proxy_protocol="on")
    known = (("10.0.0.1", "192.0.2.1"), ("192.0.2.2", "192.0.2.2"), (None, "127.0.0.1"))
    for source, client in known:
        words = f"TCP4 {source} 198.51.100.2 80 443" if source else "UNKNOWN"
        with Client(both.address) as connection:
            connection.send(f"PROXY {words}\r\n".encode())
            shown = environ_of(connection, "X-Forwarded-For: 192.0.2.1")
            assert shown["REMOTE_ADDR"] == client
            assert ("HTTP_X_FORWARDED_FOR" in shown) == (source == "10.0.0.1")


def test_a_proxied_connection_outlives_its_worker(server: Start) -> None:
    mortal = server(
        PROBE,
        trust_proxy="127.0.0.1",
        proxy_protocol="on",
        allow_errors="worker was ended by SIGKILL|worker was ended by signal",
    )
    with Client(mortal.address) as client:
        client.send(V1_TCP6)
        assert environ_of(client)["REMOTE_ADDR"] == "2001:db8::1"
        # When it has been idle for a while, the supervisor has it.
        mortal.wait_for_metric(1, "poolsrv_connections_handed_back_total")
        (worker,) = mortal.workers()
        mortal.kill(worker)
        mortal.wait_until(lambda: mortal.workers() not in ([], [worker]))
        shown = environ_of(client)
        assert (shown["REMOTE_ADDR"], shown["REMOTE_PORT"]) == ("2001:db8::1", "8080")
