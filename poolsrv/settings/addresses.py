"""Where to listen: the forms of an address, and how each is written.

Knows no option and opens no socket. What can have one meaning only is taken,
whatever server it is the habit of; the rest is refused with the form to write.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

# sockaddr_un has 108 bytes with the NUL at the end: unix(7).
_UNIX_PATH_BYTES = 107

_MAX_FD = 2**31 - 1
_MAX_PORT = 65535

FORMS = "an address: host:port, [v6]:port, unix:/path or fd://N"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """`host` is a name or a numeric address without brackets; port 0 lets the kernel choose.

    `is_flexible`: a port near by will do as well.
    """

    host: str
    port: int
    is_flexible: bool = field(default=False, compare=False, repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a socket file."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class FdAddress:
    """A listening socket that was inherited as this descriptor."""

    fd: int

    def __str__(self) -> str:
        return f"fd://{self.fd}"


Address = TcpAddress | UnixAddress | FdAddress


class BadValue(ValueError):
    """A text that is not allowed. `str()` is the remedy, for the person who wrote the text."""


_HOST = r"\[(?P<v6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<name>[^\s:/\[\]]*)"
_TCP = re.compile(rf"(?:{_HOST})(?::(?P<port>[^\s:/\[\]]*))?", re.ASCII)
_URL = re.compile(r"(?P<scheme>[a-z]+)://(?P<rest>[^/]+)/?", re.ASCII | re.IGNORECASE)


def parse_address(text: str, usual: TcpAddress) -> Address:
    """The address that `text` means; `usual` fills in the host or port that it leaves out.

    Raises ValueError, a BadValue if there is more to say than the forms.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "unix":
        return _unix(rest)
    if scheme == "fd" and rest.startswith("//"):
        return FdAddress(_number(rest.removeprefix("//"), _MAX_FD, "descriptor"))
    if text.startswith(("/", "./", "../", "~")):
        return _unix(text)
    if url := _URL.fullmatch(text):
        raise BadValue(_without_scheme(url["scheme"].lower(), url["rest"]))
    if re.fullmatch("[0-9]+", text, re.ASCII):
        return TcpAddress(usual.host, _number(text, _MAX_PORT, "port"))
    if match := _TCP.fullmatch(text):
        return _tcp(match, usual)
    if _is_ipv6(text):
        host, _, port = text.rpartition(":")
        example = f"[{host}]:{port}" if _is_ipv6(host) and port.isdecimal() else ""
        raise BadValue(
            "write an IPv6 address in brackets: "
            + " or ".join(filter(None, (example, f"[{text}]:{usual.port}")))
        )
    raise ValueError


def _tcp(match: re.Match[str], usual: TcpAddress) -> TcpAddress:
    v6, name, port = match["v6"], match["name"], match["port"]
    if v6 and not _is_ipv6(v6):
        raise BadValue(f"{v6} is no IPv6 address")
    if port is None:
        # A lone word may be anything; a lone address is one.
        if not v6 and name != "localhost" and not _is_ipv4(name):
            raise BadValue(f"the port is missing: {name}:{usual.port}" if "." in name else "")
        number = usual.port
    elif not port:
        raise BadValue(f"the port is missing: {match[0]}{usual.port}")
    else:
        number = _number(port, _MAX_PORT, "port")
    if v6:
        return TcpAddress(v6, number)
    # `:8000` and `*:8000` are all addresses of IPv4 to other servers too.
    return TcpAddress("0.0.0.0" if name in ("", "*") else name, number)


def _unix(path: str) -> UnixAddress:
    # unix:///run/app.sock is how URLs write unix:/run/app.sock.
    path = path.removeprefix("//") if path.startswith("///") else path
    try:
        path = str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError as error:
        raise BadValue(str(error)) from None
    length = len(path.encode())
    if length > _UNIX_PATH_BYTES:
        raise BadValue(
            f"its path has {length} bytes, and the kernel takes {_UNIX_PATH_BYTES}: "
            "choose a shorter one"
        )
    if not path or "\0" in path:
        raise ValueError
    return UnixAddress(path)


def _number(text: str, most: int, what: str) -> int:
    if not re.fullmatch("[0-9]{1,20}", text):
        raise BadValue(f"the {what} is no number")
    if int(text) > most:
        raise BadValue(f"the highest {what} is {most}")
    return int(text)


def _without_scheme(scheme: str, rest: str) -> str:
    if scheme == "https":
        return f"TLS is the work of a proxy in front: {rest}"
    return f"leave {scheme}:// out: {rest}"


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
