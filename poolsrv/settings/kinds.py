"""The kinds of values: what is allowed, how a text is read, how a value is shown.

Knows no single option (those are the rows of rows.Settings) and no source of
values. Whatever the source, a value is read from text, so that `30s` means the
same in a flag, a variable, a file and a call.
"""

import grp
import pwd
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Literal

from poolsrv.settings.addresses import FORMS, Address, BadValue, TcpAddress, parse_address

# Whose word is taken: hosts by their addresses, or the peers of all Unix sockets.
Peers = IPv4Network | IPv6Network | Literal["unix"]


@dataclass(frozen=True, slots=True)
class Owner:
    """A user and a group by number, -1 for one that stays as it is; `name` is how it was given."""

    uid: int
    gid: int
    name: str

    def __str__(self) -> str:
        return self.name


class Mode(int):
    """Permissions of a file."""

    def __str__(self) -> str:
        return f"{int(self):04o}"


def _shown(value: object) -> str:
    return "" if value is None else str(value)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value.

    `parse` raises ValueError for text that is not `allowed` (a noun phrase), a
    BadValue if there is more to say; `show` is its inverse. `text` writes what a
    call or a file gives, an item at a time. With a `separator` the value is a
    tuple of distinct items: a text may hold several, and a flag may be repeated.
    `table` reads an item that is a table of the file, or a dict of a call; `entries` gives the
    items of one that is the whole value.
    """

    parse: Callable[[str], object]
    allowed: str
    metavar: str
    show: Callable[[Any], str] = _shown
    text: Callable[[object], str] = _text
    separator: str | None = None
    examples: str = ""
    is_flag: bool = False
    table: Callable[[Mapping[str, Any]], object] | None = None
    entries: Callable[[Mapping[str, Any]], list[object]] | None = None


def text(allowed: str, metavar: str, *, separator: str | None = None) -> Kind:
    joint = ", " if separator == "\n" else separator or ""

    def show(value: str | tuple[str, ...] | None) -> str:
        return joint.join(value or ())

    return Kind(_whole, allowed, metavar, show, separator=separator)


def path(allowed: str, metavar: str, *, separator: str | None = None) -> Kind:
    """A path, in which `~` stands for a home folder."""

    def show(value: str | tuple[str, ...] | None) -> str:
        return (separator or "").join(value or ())

    return Kind(_path, allowed, metavar, show, separator=separator)


def _whole(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError
    return text


def _path(text: str) -> str:
    if not text.startswith("~"):
        return _whole(text)
    try:
        return str(Path(_whole(text)).expanduser())
    except RuntimeError:
        raise BadValue("this user has no home folder: write the path out") from None


def page() -> Kind:
    """What is asked of an application: `/path` or `host/path`; several, with spaces between."""

    def parse(text: str) -> str:
        if "/" not in text:
            raise BadValue(f"a path begins with a slash: /{text}")
        return _whole(text)

    return Kind(
        parse,
        "a path, or a host and a path",
        "PATH",
        " ".join,
        separator=" ",
        examples="/health or a.org/health",
    )


def integer(low: int, high: int) -> Kind:
    allowed = f"a whole number from {low} to {high}"
    return Kind(lambda text: _integer(text, low, high), allowed, "N")


def _integer(text: str, low: int, high: int) -> int:
    # int() would take `1_000`, ` 1` and the digits of other scripts as well.
    if not re.fullmatch("[0-9]{1,20}", text) or not low <= int(text) <= high:
        raise ValueError
    return int(text)


_SECONDS: Mapping[str, Decimal | int] = {
    **{"": 1, "ms": Decimal("0.001"), "s": 1},
    **{"m": 60, "h": 3600, "d": 86400},
}
_BYTES: Mapping[str, int] = {
    **{"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
}


def _quantity(text: str, units: Mapping[str, Decimal | int]) -> Decimal:
    match = re.fullmatch("([0-9]{1,20}(?:[.][0-9]{1,20})?)([A-Za-z]*)", text)
    if match is None:
        raise ValueError
    if match[2] not in units:
        raise BadValue(f"the units are {', '.join(filter(None, units))}")
    return Decimal(match[1]) * units[match[2]]


def seconds(low: float, high: float) -> Kind:
    def parse(text: str) -> float:
        value = float(_quantity(text, _SECONDS))
        if not low <= value <= high:
            raise ValueError
        return value

    def show(value: float) -> str:
        if 0 < value < 1:
            return f"{value * 1000:.15g}ms"
        return f"{value:.15g}s" if value % 86400 or not value else f"{value / 86400:.15g}d"

    allowed = f"a duration from {show(low)} to {show(high)}"
    return Kind(parse, allowed, "TIME", show, examples="30, 30s, 1.5m or 250ms")


def size(low: int, high: int) -> Kind:
    def parse(text: str) -> int:
        value = _quantity(text, _BYTES)
        if value != int(value) or not low <= value <= high:
            raise ValueError
        return int(value)

    def show(value: int) -> str:
        whole = (unit for unit in ("TiB", "GiB", "MiB", "KiB") if not value % _BYTES[unit])
        unit = next(whole, "") if value else ""
        return f"{value // _BYTES[unit]}{unit}"

    allowed = f"a size from {show(low)} to {show(high)}"
    return Kind(parse, allowed, "SIZE", show, examples="8190, 64KiB or 10MB")


def choice(*names: str) -> Kind:
    def parse(text: str) -> str:
        if text.lower() not in names:
            raise ValueError
        return text.lower()

    return Kind(parse, f"one of {', '.join(names)}", "|".join(names))


def choices(*names: str) -> Kind:
    """Some of these names, separated by commas."""
    one = choice(*names)
    return Kind(
        one.parse,
        one.allowed,
        "NAME,...",
        ",".join,
        separator=",",
        examples=",".join(names[:2]),
    )


_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}


def flag() -> Kind:
    """`--name` and `--no-name` on the command line, a word elsewhere."""

    def parse(text: str) -> bool:
        if text.lower() not in _WORDS:
            raise ValueError
        return _WORDS[text.lower()]

    def show(value: bool) -> str:
        return "true" if value else "false"

    return Kind(parse, "true or false", "true|false", show, is_flag=True)


def address(usual: TcpAddress) -> Kind:
    """An Address, or `off` for none; `usual` fills in what a text leaves out."""

    def parse(text: str) -> Address | None:
        return None if text == "off" else parse_address(text, usual)

    return Kind(parse, f"{FORMS} or off", "ADDRESS", lambda value: str(value or "off"))


def addresses(usual: TcpAddress) -> Kind:
    return Kind(lambda text: parse_address(text, usual), FORMS, "ADDRESS", _show_all, separator=" ")


def _show_all(values: Iterable[object]) -> str:
    return " ".join(map(str, values))


def peers() -> Kind:
    return Kind(
        parse_peers,
        "a network, an address or unix",
        "NETWORK",
        _show_all,
        separator=" ",
        examples="10.0.0.0/8, 2001:db8::1 or unix",
    )


def parse_peers(text: str) -> Peers:
    """Raises ValueError; a BadValue if there is more to say."""
    if text == "unix":
        return "unix"
    # Without what else ip_network() reads: netmasks, which may also be meant
    # the other way round, and zones.
    if not re.fullmatch("[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?", text):
        raise ValueError
    network = ip_network(text, strict=False)
    # Such a peer is known by its IPv4 address: the network would be empty.
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        raise BadValue("such clients are known by their IPv4 addresses: name those")
    if ip_address(text.partition("/")[0]) != network.network_address:
        raise BadValue(f"the network that this address is in is {network}")
    return network


# What these say is the server's or the client's business, and none could stand
# for it.
_TAKEN_FIELDS = re.compile(
    "(?:host|connection|upgrade|date|server|cookie|set-cookie|authorization|forwarded|te|trailer|"
    "keep-alive|expect|content-.*|transfer-.*|proxy-.*|x-forwarded-.*)",
    re.IGNORECASE,
)


def field_name() -> Kind:
    """The name of a header field; "" for none."""

    def parse(text: str) -> str:
        if text == "off":
            return ""
        if not re.fullmatch("[A-Za-z0-9-]{1,64}", text):
            raise ValueError
        if _TAKEN_FIELDS.fullmatch(text):
            raise BadValue("this field has another meaning: take one such as X-Request-ID")
        return text

    return Kind(parse, "the name of a header field or off", "NAME", lambda value: value or "off")


def mode() -> Kind:
    def parse(text: str) -> Mode:
        # The leading zero tells permissions from a number that was meant otherwise.
        if not re.fullmatch("0o?[0-7]{3}", text):
            raise BadValue(f"write 0{text}") if re.fullmatch("[0-7]{3}", text) else ValueError
        return Mode(text, 8)

    def text(value: object) -> str:
        # 0o660 in a file or a call arrives as the number 432. Numbers that were
        # not meant as octal, such as 660, are beyond 0o777.
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
            return str(Mode(value))
        return str(value)

    return Kind(parse, "octal permissions with a leading zero", "MODE", text=text, examples="0660")


def owner() -> Kind:
    def parse(text: str) -> Owner:
        user, _, group = text.partition(":")
        if not user and not group:
            raise ValueError
        uid = _number(user, "user", lambda name: pwd.getpwnam(name).pw_uid)
        gid = _number(group, "group", lambda name: grp.getgrnam(name).gr_gid)
        return Owner(uid, gid, text)

    return Kind(
        parse,
        "a user, user:group or :group of this machine",
        "OWNER",
        lambda value: str(value or ""),
        examples="www-data or :www-data",
    )


def user_of_machine() -> Kind:
    def parse(text: str) -> Owner:
        return Owner(_number(text, "user", lambda name: pwd.getpwnam(name).pw_uid), -1, text)

    return _account(parse, "a user of this machine, by name or number", "USER", "www-data")


def group_of_machine() -> Kind:
    def parse(text: str) -> Owner:
        return Owner(-1, _number(text, "group", lambda name: grp.getgrnam(name).gr_gid), text)

    return _account(parse, "a group of this machine, by name or number", "GROUP", "www-data")


def _account(parse: Callable[[str], Owner], allowed: str, metavar: str, example: str) -> Kind:
    def parse_some(text: str) -> Owner:
        if not text:
            raise ValueError
        return parse(text)

    return Kind(parse_some, allowed, metavar, lambda value: str(value or ""), examples=example)


def _number(name: str, what: str, look_up: Callable[[str], int]) -> int:
    """The number of a user or group; -1 for none."""
    if not name:
        return -1
    try:
        return look_up(name)
    except KeyError:
        if not name.isdecimal():
            raise BadValue(f"there is no {what} {name!r} on this machine") from None
        # 2^32-1 would mean: leave it as it is.
        return _integer(name, 0, 2**32 - 2)
