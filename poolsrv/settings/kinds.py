"""How the value of an option is read, wherever it stands.

Owns the kinds of values (numbers, durations, sizes, addresses, ...): what is
allowed, the parser, and its inverse for help and reports. Owns the sources and
their order: command line > keywords of a call > environment > file > default.
Knows no single option: those are the rows of rows.Settings. Every source is
read as text, so `30s` means the same in a flag, a variable, a file and a call.

cyclopts takes the command line apart and collects the help; its tokens carry
the origin of each value. Environment and file are read here, because its
readers match names loosely and skip what they do not know.
"""

import difflib
import grp
import pwd
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal, get_args

from cyclopts import App, Group, Parameter, Token
from cyclopts.argument import Argument, ArgumentCollection

from poolsrv.errors import ConfigError

# Read if the working directory has it and --config names no other.
DEFAULT_FILE = "poolsrv.toml"

_PREFIX = "POOLSRV_"

# Variables of ours that are no options: the build reads it.
_OTHER_VARIABLES = frozenset({"POOLSRV_BUILD"})


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """`host` is a name or a numeric address without brackets; port 0 lets the kernel choose."""

    host: str
    port: int

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


_TCP = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^\s:/\[\]]+)):([0-9]{1,5})", re.ASCII)

# sockaddr_un has 108 bytes with the NUL at the end: unix(7).
_UNIX_PATH_BYTES = 107


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value, called by cyclopts with the tokens of one option.

    `parse` raises ValueError for text that is not `allowed` (a noun phrase);
    `show` is its inverse. With a `separator` the value is a tuple of distinct
    items: a text may hold several, and a flag may be repeated.
    """

    parse: Callable[[str], object]
    allowed: str
    metavar: str
    show: Callable[[Any], str] = str
    separator: str | None = None
    examples: str = ""

    def __call__(self, _hint: object, tokens: Sequence[Token]) -> object:
        if self.separator is None:
            # cyclopts itself refuses a second token.
            return self._parsed(tokens[0].value, tokens[0])
        values: list[object] = []
        for token in tokens:
            for text in token.value.split(self.separator):
                value = self._parsed(text, token)
                if value in values:
                    raise ConfigError(f"{_origin(token)}: {text!r} is given twice")
                values.append(value)
        return tuple(values)

    def _parsed(self, text: str, token: Token) -> object:
        try:
            return self.parse(text)
        except ValueError:
            raise ConfigError(f"{_origin(token)}: {text!r} is not {self.hint}") from None

    @property
    def hint(self) -> str:
        return f"{self.allowed}, such as {self.examples}" if self.examples else self.allowed


def row(
    kind: Kind, group: Group, help: str, *, default: str | None = None, hyphen: bool = False
) -> Parameter:
    """An option of this kind.

    `default` describes a default that depends on the machine; `hyphen` allows
    values that begin with one.
    """
    return Parameter(
        converter=kind,
        metavar=kind.metavar,
        group=group,
        help=help,
        show_default=default or kind.show,
        # One text each, whatever the fields of the type; flags take none.
        accepts_keys=False,
        allow_leading_hyphen=hyphen,
        n_tokens=None if kind.metavar == _FLAG else 1,
        negative_iterable=(),
        json_list=False,
    )


def text(allowed: str, metavar: str, *, separator: str | None = None) -> Kind:
    def parse(text: str) -> str:
        if not text or "\0" in text:
            raise ValueError
        return text

    def show(value: str | tuple[str, ...] | None) -> str:
        return (separator or "").join(value or ())

    return Kind(parse, allowed, metavar, show, separator)


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
    if match is None or match[2] not in units:
        raise ValueError
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
        if text not in names:
            raise ValueError
        return text

    return Kind(parse, f"one of {', '.join(names)}", "|".join(names))


_FLAG = "true|false"


def flag() -> Kind:
    """`--name` and `--no-name` on the command line, a word elsewhere."""
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}

    def parse(text: str) -> bool:
        if text not in words:
            raise ValueError
        return words[text]

    return Kind(parse, "true or false", _FLAG, lambda value: "true" if value else "false")


def address() -> Kind:
    """An Address, or `off` for none."""

    def parse(text: str) -> Address | None:
        return None if text == "off" else _address(text)

    return Kind(parse, f"{_ADDRESSES} or off", "ADDRESS", lambda value: str(value or "off"))


def addresses() -> Kind:
    def show(values: Iterable[Address]) -> str:
        return " ".join(map(str, values))

    return Kind(_address, _ADDRESSES, "ADDRESS", show, separator=" ")


_ADDRESSES = "an address: host:port, [v6]:port, unix:/path or fd://N"


def _address(text: str) -> Address:
    scheme, _, rest = text.partition(":")
    if scheme == "unix" and rest:
        if len(rest.encode()) > _UNIX_PATH_BYTES or "\0" in rest:
            raise ValueError
        return UnixAddress(rest)
    if scheme == "fd" and rest.startswith("//"):
        return FdAddress(_integer(rest.removeprefix("//"), 0, 2**31 - 1))
    if match := _TCP.fullmatch(text):
        v6, host, port = match.groups()
        return TcpAddress(v6 or host, _integer(port, 0, 65535))
    raise ValueError


def peers() -> Kind:
    def show(values: Iterable[Peers]) -> str:
        return " ".join(map(str, values))

    return Kind(
        _peers,
        "a network, an address or unix",
        "NETWORK",
        show,
        separator=" ",
        examples="10.0.0.0/8, 2001:db8::1 or unix",
    )


def _peers(text: str) -> Peers:
    if text == "unix":
        return "unix"
    # Without what else ip_network() reads: netmasks, which may also be meant
    # the other way round, and zones.
    if not re.fullmatch("[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?", text):
        raise ValueError
    network = ip_network(text)
    # Such a peer is known by its IPv4 address: the network would be empty.
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        raise ValueError
    return network


def mode() -> Kind:
    def parse(text: str) -> Mode:
        # The leading zero tells it from a number that was meant otherwise: 0o660
        # in a call or a file arrives here as 432.
        if not re.fullmatch("0[0-7]{3}", text):
            raise ValueError
        return Mode(text, 8)

    return Kind(parse, "octal permissions with a leading zero", "MODE", examples="0660")


def owner() -> Kind:
    def parse(text: str) -> Owner:
        user, _, group = text.partition(":")
        if not user and not group:
            raise ValueError
        uid = _number(user, lambda name: pwd.getpwnam(name).pw_uid)
        gid = _number(group, lambda name: grp.getgrnam(name).gr_gid)
        return Owner(uid, gid, text)

    return Kind(
        parse,
        "a user, user:group or :group of this machine",
        "OWNER",
        lambda value: str(value or ""),
        examples="www-data or :www-data",
    )


def _number(name: str, look_up: Callable[[str], int]) -> int:
    """The number of a user or group; -1 for none."""
    if not name:
        return -1
    try:
        return look_up(name)
    except KeyError:
        # 2^32-1 would mean: leave it as it is.
        return _integer(name, 0, 2**32 - 2)


class Sources:
    """Fills in what the command line leaves open. The `config` of a cyclopts App.

    `keywords` are the options of a call by field name, as text or as Python
    values. After parsing, `rows` are the options and `origin(name)` says where
    the value of a field came from. Raises ConfigError for names that no option
    has; a file that --config names must be there.
    """

    def __init__(
        self, environ: Mapping[str, str], keywords: Mapping[str, object] | None = None
    ) -> None:
        self.environ = environ
        self.keywords = keywords or {}
        self.rows: dict[str, Argument] = {}

    def __call__(self, _app: App, _commands: object, arguments: ArgumentCollection) -> None:
        self.rows = rows_of(arguments)
        _fill(self.rows, _same, self.keywords)
        _fill(self.rows, variable, self._variables())
        if path := self._path():
            # A file cannot name the file to read.
            rows = {name: row for name, row in self.rows.items() if name != "config"}
            _fill(rows, key, _read_file(path), f"{path}: ")

    def origin(self, name: str) -> str:
        tokens = self.rows[name].tokens
        return _origin(tokens[0]) if tokens else "default"

    def _variables(self) -> dict[str, str]:
        return {
            name: value
            for name, value in self.environ.items()
            if name.startswith(_PREFIX) and name not in _OTHER_VARIABLES
        }

    def _path(self) -> str | None:
        if tokens := self.rows["config"].tokens:
            return tokens[0].value
        return DEFAULT_FILE if Path(DEFAULT_FILE).is_file() else None


def rows_of(arguments: ArgumentCollection) -> dict[str, Argument]:
    """The options by field name, without the dataclass that holds them."""
    return {row.field_info.name: row for row in arguments if not row.children}


def kind_of(row: Argument) -> Kind:
    kind = row.parameter.converter
    assert isinstance(kind, Kind)
    return kind


def group_of(row: Argument) -> str:
    """The name of the group that help shows the option in."""
    groups = row.parameter.group
    assert isinstance(groups, tuple)
    (group,) = groups
    assert isinstance(group, Group)
    return group.name


def default_of(row: Argument) -> str:
    """The default as text, or its description; empty if there is none."""
    default = row.parameter.show_default
    return default if isinstance(default, str) else kind_of(row).show(row.field_info.default)


def variable(name: str) -> str:
    """The environment variable of the option with this field name."""
    return _PREFIX + name.upper()


def key(name: str) -> str:
    """The key of the option with this field name: the flag without its dashes."""
    return name.replace("_", "-")


def _same(name: str) -> str:
    return name


def _origin(token: Token) -> str:
    # Only the application is given without a flag.
    return token.keyword or "APP"


def _nearest(name: str, names: Collection[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _fill(
    rows: Mapping[str, Argument],
    spelled: Callable[[str], str],
    values: Mapping[str, object],
    place: str = "",
) -> None:
    """Give each named row its value, unless a stronger source has."""
    known = {spelled(name): row for name, row in rows.items()}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{place}{name}: there is no such option{_nearest(name, known)}")
        row = known[name]
        if not row.tokens:
            for token in _tokens(row, value, f"{place}{name}"):
                row.append(token)


def _read_file(path: str) -> dict[str, object]:
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None


def _tokens(row: Argument, value: object, keyword: str) -> list[Token]:
    if value is None and type(None) in get_args(row.hint):
        return [Token(keyword=keyword, implicit_value=None)]
    if isinstance(value, list | tuple) and kind_of(row).separator is not None:
        if not value and row.field_info.default == ():
            return [Token(keyword=keyword, implicit_value=())]
        items = value
    else:
        items = [value]
    if not items or any(isinstance(item, list | tuple | dict | None) for item in items):
        raise ConfigError(f"{keyword}: {value!r} is not {kind_of(row).hint}")
    return [Token(keyword=keyword, value=_text(item), index=i) for i, item in enumerate(items)]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
