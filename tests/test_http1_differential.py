"""The parser beside h11 and llhttp (through httptools), on the same bytes.

Ours is the strictest of the three. So: what it takes, the others take for the
same message, unless WE_TAKE explains why they refuse; what it refuses, the
others refuse, unless WE_REFUSE explains why they do not. Nothing else differs.
"""

import ctypes
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http_cases import Case, cases, unescaped

pytestmark = pytest.mark.once

FOLDER = Path(__file__).parent / "c"


@dataclass
class Message:
    """What a parser made of the first request in the bytes."""

    method: bytes = b""
    target: bytes = b""
    version: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Names in lower case; without those that hold an underscore."""
    body: bytes = b""

    def add(self, name: bytes, value: bytes) -> None:
        """Keep a field, without what the three may differ in by right."""
        name = name.lower()
        value = value.strip(b" \t")  # llhttp leaves white space at the end
        if name == b"transfer-encoding":
            value = value.lower()  # as h11 does
        if b"_" not in name:
            self.fields.append((name, value))


# None: more bytes are needed; str: refused, and why.
Answer = Message | None | str
Parser = Callable[[bytes], Answer]


class Text(ctypes.Structure):
    """tests/c/text.h."""

    _fields_ = (
        ("bytes", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("room", ctypes.c_size_t),
    )


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Parser:
    build = tmp_path_factory.mktemp("http1")
    subprocess.run(
        ["make", "-s", "-C", FOLDER, "shared", f"BUILD={build}"], check=True, timeout=900
    )
    library = ctypes.CDLL(str(build / "libhttp1.so"))
    limits = ctypes.byref(ctypes.c_byte.in_dll(library, "message_limits"))
    library.message_feed.argtypes = (
        *(ctypes.c_void_p, ctypes.c_char_p),
        *(ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p),
    )
    # The program's own, for a sanitizer replaces malloc and free together.
    free = ctypes.CDLL(None).free
    free.argtypes = (ctypes.c_void_p,)

    def parse(sent: bytes) -> Answer:
        words = Text()
        library.message_feed(limits, sent, len(sent), len(sent), 1, ctypes.byref(words))
        said = ctypes.string_at(words.bytes, words.size).decode("ascii")
        free(words.bytes)
        return read(said)

    return parse


def read(said: str) -> Answer:
    """What message_feed() said."""
    message = Message()
    for line in said.splitlines():
        key, _, value = line.partition(" ")
        match key:
            case "method":
                message.method = unescaped(value)
            case "target":
                message.target = unescaped(value)
            case "minor":
                message.version = b"1." + value.encode()
            case "field":
                name, _, value = value.partition(": ")
                message.add(unescaped(name), unescaped(value))
            case "body":
                message.body = unescaped(value)
            case "result":
                match value:
                    case "HTTP1_DONE":
                        return message
                    case "HTTP1_PARTIAL":
                        return None
                    case refusal:
                        return refusal
    raise AssertionError(said)


def by_h11(sent: bytes) -> Answer:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=65536)
    message = Message()
    if not sent:
        return None  # to h11 it would mean the end of the connection
    try:
        connection.receive_data(sent)
        while True:
            event = connection.next_event()
            match event:
                case h11.Request():
                    message.method, message.target = event.method, event.target
                    message.version = event.http_version
                    for name, value in event.headers:
                        message.add(name, value)
                case h11.Data():
                    message.body += event.data
                case h11.EndOfMessage():
                    return message
                case h11.NEED_DATA:
                    return None
                case other:
                    raise AssertionError(other)
    except h11.RemoteProtocolError as error:
        return str(error)


class Collector:
    """The callbacks of httptools: of the first message, without its trailers."""

    def __init__(self) -> None:
        self.message = Message()
        self.parser = httptools.HttpRequestParser(self)
        self.head_complete = False
        self.complete = False

    def on_url(self, part: bytes) -> None:
        self.message.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_complete:
            self.message.add(name, value)

    def on_headers_complete(self) -> None:
        self.head_complete = True
        self.message.method = self.parser.get_method()
        self.message.version = self.parser.get_http_version().encode()

    def on_body(self, part: bytes) -> None:
        self.message.body += part

    def on_message_complete(self) -> None:
        self.complete = True


def by_llhttp(sent: bytes) -> Answer:
    collector = Collector()
    # Byte by byte, to stop where the first message ends.
    for at in range(len(sent)):
        try:
            collector.parser.feed_data(sent[at : at + 1])
        except httptools.HttpParserUpgrade:
            return collector.message
        except httptools.HttpParserError as error:
            return str(error)
        if collector.complete:
            return collector.message
    return None


PEERS: dict[str, Parser] = {"h11": by_h11, "llhttp": by_llhttp}

LOOKS_NOT = "it does not look into this field"
NO_LIMIT = "it has another limit, or leaves it to its user"

# What we refuse and a peer takes: our result, the peer, why it does.
WE_REFUSE = {
    ("HTTP1_BAD_CHUNK_EXTENSION", "h11"): "it does not look into extensions",
    ("HTTP1_BAD_CHUNK_EXTENSION", "llhttp"): NO_LIMIT,
    ("HTTP1_BAD_CHUNK_SIZE", "h11"): "up to 20 digits; white space may follow them",
    ("HTTP1_BAD_CHUNK_SIZE", "llhttp"): "any number of zeros, and 2^63 and above",
    ("HTTP1_BAD_CODING", "h11"): "chunked is chunked in HTTP/1.0 too",
    ("HTTP1_BAD_CODING", "llhttp"): "other codings may come before; HTTP/1.0 as h11",
    ("HTTP1_BAD_EXPECT", "h11"): LOOKS_NOT,
    ("HTTP1_BAD_EXPECT", "llhttp"): LOOKS_NOT,
    ("HTTP1_BAD_FIELD_VALUE", "h11"): "only NUL and white space controls are refused",
    ("HTTP1_BAD_HOST", "h11"): LOOKS_NOT,
    ("HTTP1_BAD_HOST", "llhttp"): LOOKS_NOT,
    ("HTTP1_BAD_LENGTH", "h11"): "up to 20 digits; equal values of a list are one",
    ("HTTP1_BAD_LENGTH", "llhttp"): "2^63 and above, and any number of zeros",
    ("HTTP1_BAD_LINE_END", "h11"): "LF will do; CR is no fault before it is read on",
    ("HTTP1_BAD_LINE_END", "llhttp"): "before the request line, and in HTTP/0.9",
    ("HTTP1_BAD_METHOD", "llhttp"): "any number of empty lines may come first",
    ("HTTP1_BAD_TARGET", "h11"): "any printable ASCII is a target",
    ("HTTP1_BAD_TARGET", "llhttp"): "escapes and hosts are not looked into, spaces skipped",
    ("HTTP1_BAD_TRAILER", "h11"): "trailers are only parsed",
    ("HTTP1_BAD_TRAILER", "llhttp"): "trailers are parsed; two of the names are refused",
    ("HTTP1_BAD_VERSION", "llhttp"): "HTTP/0.9 is taken, spaces are skipped",
    ("HTTP1_CONNECT", "h11"): "it may be part of a proxy",
    ("HTTP1_CONNECT", "llhttp"): "it may be part of a proxy",
    ("HTTP1_FOLDED_FIELD", "h11"): "it unfolds",
    ("HTTP1_LONG_FIELD", "h11"): NO_LIMIT,
    ("HTTP1_LONG_FIELD", "llhttp"): NO_LIMIT,
    ("HTTP1_LONG_LINE", "h11"): NO_LIMIT,
    ("HTTP1_LONG_LINE", "llhttp"): NO_LIMIT,
    ("HTTP1_LONG_TRAILERS", "h11"): NO_LIMIT,
    ("HTTP1_LONG_TRAILERS", "llhttp"): NO_LIMIT,
    ("HTTP1_MANY_FIELDS", "h11"): NO_LIMIT,
    ("HTTP1_MANY_FIELDS", "llhttp"): NO_LIMIT,
    ("HTTP1_NO_HOST", "llhttp"): LOOKS_NOT,
    ("HTTP1_OTHER_HOST", "h11"): "it does not look into the target",
    ("HTTP1_OTHER_HOST", "llhttp"): "it does not compare",
    ("HTTP1_OTHER_VERSION", "h11"): "it leaves this to its user",
    ("HTTP1_OTHER_VERSION", "llhttp"): "0.9 and 2.0 are versions too",
    ("HTTP1_REPEATED_FIELD", "h11"): "Content-Type may repeat, equal Content-Lengths are one",
    ("HTTP1_REPEATED_FIELD", "llhttp"): "Host and Content-Type may repeat",
    ("HTTP1_TWO_LENGTHS", "h11"): "Transfer-Encoding wins",
}

# What we take and a peer refuses: the peer, a part of its words, why we do.
WE_TAKE = {
    ("h11", "illegal chunk header"): "RFC 9112 section 7.1.1: white space before an extension",
    ("h11", "no request line received"): "RFC 9112 section 2.2: an empty line comes first",
    ("llhttp", "Invalid character in chunk size"): "as h11",
    ("llhttp", "Invalid character in chunk extensions"): "what is in it is nobody's concern",
    ("llhttp", "Invalid method"): "RFC 9110 section 9.1: any token is a method",
    ("llhttp", "Expected space after method"): "likewise",
    ("llhttp", "invalid `Transfer-Encoding`"): "RFC 9110 section 5.5: white space around it",
}


def explained(peer: str, own: Answer, other: Answer) -> bool:
    match own, other:
        case str(), str():
            return True
        case str(), None:
            return True  # it waits for the end of the line or of the head: no verdict
        case str(), _:
            return (own, peer) in WE_REFUSE
        case _, str():
            return any(peer == who and words in other for who, words in WE_TAKE)
        case _:
            return own == other


# A request is put together from parts that are mostly right.
def part(usual: list[bytes], odd: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.sampled_from(usual * (1 + 30 * len(odd) // len(usual)) + odd)


METHOD = part([b"GET", b"POST", b"HEAD", b"OPTIONS"], [b"", b"PUT", b"CONNECT", b"get", b"G(T"])
TARGET = part(
    [b"/", b"/a/b?c=d", b"/a%20b?", b"http://a/b", b"//a", b"/;x=1?y"],
    [b"*", b"", b"a", b"/\xe9", b"/a b", b"/#", b"/%zz", b"http://b", b"https://a/", b"/\x00"],
)
VERSION = part([b"HTTP/1.1", b"HTTP/1.0"], [b"HTTP/2.0", b"HTTP/1.10", b"http/1.1"])
SPACE = part([b" "], [b"  ", b"\t", b""])
END = part([b"\r\n"], [b"\n", b"\r", b"\r\r\n", b"\n\r\n"])
NAME = part(
    [b"Host", b"X", b"Accept", b"Connection", b"content-length", b"Transfer-Encoding"],
    [b"X_Y", b"", b"X ", b" X", b"Expect", b"Content-Type", b"Transfer_Encoding", b"X\x80"],
)
COLON = part([b":"], [b"", b" :"])
VALUE = part(
    [b"a", b"", b"5", b"chunked", b"close", b"keep-alive", b"caf\xc3\xa9", b"b  c"],
    [b"+5", b"5, 5", b"chunked, gzip", b"\x0bchunked", b"a\x00", b"\x01", b"100-continue"],
)
AROUND = part([b" ", b""], [b"\t", b"  \t", b"\x0b", b"\r\n "])
FIELD = st.tuples(NAME, COLON, AROUND, VALUE, AROUND, END).map(b"".join)
CHUNK = st.tuples(
    part([b"5", b"05"], [b"", b"+5", b"0x5", b"6", b"5 ", b"f" * 16, b"0" * 17]),
    part([b"", b";a=b"], [b";", b" ;a", b";a\x01", b";a\rb"]),
    END,
    part([b"hello"], [b"hell", b""]),
    END,
).map(b"".join)
CHUNKS = st.tuples(
    st.lists(CHUNK, max_size=3).map(b"".join),
    part([b"0", b"000"], [b"", b"00000000000000000"]),
    END,
    part([b"", b"X: y\r\n"], [b"Content-Length: 5\r\n", b" y\r\n", b"x", b"X: y\n"]),
    END,
).map(b"".join)
PLAIN = st.tuples(
    st.lists(FIELD, max_size=4).map(b"".join), END, part([b"", b"hello"], [b"hell", b"GET"])
).map(b"".join)
CHUNKED = st.tuples(
    part([b"Transfer-Encoding: chunked\r\n"], [b"Transfer-Encoding:\tCHUNKED \r\n"]), END, CHUNKS
).map(b"".join)
REQUEST = st.tuples(
    part([b""], [b"\r\n", b"\n", b"\r"]),
    *(METHOD, SPACE, TARGET, SPACE, VERSION, END),
    part([b"Host: a\r\n"], [b"", b"Host:a/b\r\n"]),
    st.one_of(PLAIN, CHUNKED),
).map(b"".join)
SHORT = [case.sent for case in cases() if len(case.sent) < 1000]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request or a case with a byte put in, taken out or replaced."""
    sent = draw(st.one_of(REQUEST, st.sampled_from(SHORT)))
    at = draw(st.integers(0, len(sent)))
    put = draw(st.one_of(st.just(b""), st.binary(min_size=1, max_size=1)))
    return sent[:at] + put + sent[at + draw(st.integers(0, 1)) :]


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(sent=st.one_of(REQUEST, damaged()))
def test_any_bytes(ours: Parser, sent: bytes) -> None:
    own = ours(sent)
    for peer, parse in PEERS.items():
        other = parse(sent)
        assert explained(peer, own, other), (peer, own, other)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_cases(ours: Parser, peer: str, case: Case) -> None:
    own, other = ours(case.sent), PEERS[peer](case.sent)
    assert explained(peer, own, other), (own, other)


def test_each_explanation_is_needed(ours: Parser) -> None:
    """By a case; what only hypothesis finds gets a case of its own."""
    refused, taken = set(), set()
    for case in cases():
        own = ours(case.sent)
        for peer, parse in PEERS.items():
            other = parse(case.sent)
            if isinstance(own, str) and isinstance(other, Message):
                refused.add((own, peer))
            if isinstance(other, str) and not isinstance(own, str):
                taken |= {(who, words) for who, words in WE_TAKE if who == peer and words in other}
    assert refused == set(WE_REFUSE)
    assert taken == set(WE_TAKE)
