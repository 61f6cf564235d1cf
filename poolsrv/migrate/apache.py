"""Apache with mod_wsgi: the directives that say what is served, and by which processes."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from poolsrv.errors import ConfigError
from poolsrv.migrate.outcome import (
    ALWAYS,
    UNKNOWN,
    Leave,
    Outcome,
    Place,
    Refused,
    Rule,
    Take,
    lines_of,
)
from poolsrv.migrate.static import mount_of


def _number(value: str) -> int:
    if not re.fullmatch("[0-9]{1,15}", value):
        raise Refused("is a whole number there")
    return int(value)


def _folders(value: str) -> list[str]:
    return value.split(":")


def _mode(value: str) -> str:
    return f"0{value.lstrip('0').rjust(3, '0')}"


def _unlimited(value: str) -> int:
    return 0 if value == "0" else _number(value)


_TLS = Leave("TLS is the work of a proxy in front (nginx, Caddy, HAProxy, Apache itself)")
_PYTHON = Leave("start the poolsrv that is installed in this environment: VENV/bin/poolsrv")
_WRAP = Leave("write it as WSGI middleware, and name that: wrap = 'module:callable'")
_BUFFERS = Leave("there is no relay here that would have such buffers")
_APACHES = Leave(
    "Apache's own; Apache may stay in front as a proxy: ProxyPass / http://127.0.0.1:8000/"
)

# Of WSGIDaemonProcess.
PROCESS_OPTIONS: Mapping[str, Rule] = {
    "processes": Take("processes", _number),
    "threads": Take("threads", _number),
    "user": Take("user"),
    "group": Take("group"),
    "supplementary-groups": Leave("workers have all groups of their user"),
    "umask": Take("umask", _mode),
    "home": Take("chdir"),
    "python-home": _PYTHON,
    "python-path": Take("pythonpath", _folders),
    "python-eggs": Leave("Python has no egg cache any more; leave it out"),
    "listen-backlog": Take("backlog", _number),
    "request-timeout": Take("request_timeout", _number),
    "queue-timeout": Take("queue_timeout", _number),
    "connect-timeout": Leave("workers are handed connections; nothing connects to them"),
    "socket-timeout": Take("send_timeout", _number),
    "startup-timeout": Take("startup_timeout", _number),
    "graceful-timeout": Take("graceful_timeout", _number),
    "shutdown-timeout": Take("graceful_timeout", _number),
    "eviction-timeout": Take("graceful_timeout", _number),
    "deadlock-timeout": Take("watchdog_timeout", _number),
    "inactivity-timeout": Leave("workers are not ended for being idle"),
    "maximum-requests": Take("max_requests", _number),
    "restart-interval": Take("max_age", _number),
    "memory-limit": Leave("whoever starts the server limits memory: MemoryMax= of systemd"),
    "virtual-memory-limit": Leave("whoever starts the server limits memory: MemoryMax= of systemd"),
    "stack-size": Leave("set the limit where the server is started: LimitSTACK= of systemd"),
    "cpu-time-limit": Leave("whoever starts the server limits it: LimitCPU= of systemd"),
    "cpu-priority": Leave("whoever starts the server sets it: Nice= of systemd"),
    "display-name": Leave("ps names processes by their role and application"),
    "lang": Leave("set LANG where the server is started"),
    "locale": Leave("set LC_ALL where the server is started"),
    "dump-stack-traces": Leave("poolsrv stacks shows them, and the log when a request hangs"),
    "header-buffer-size": _BUFFERS,
    "response-buffer-size": _BUFFERS,
    "response-proxy-buffer-size": _BUFFERS,
    "send-buffer-size": _BUFFERS,
    "receive-buffer-size": _BUFFERS,
    "script-user": Leave("the user of workers is --user; scripts have no user of their own"),
    "script-group": Leave("the user of workers is --user; scripts have no user of their own"),
    "server-metrics": ALWAYS,
}

RULES: Mapping[str, Rule] = {
    "WSGIPythonPath": Take("pythonpath", _folders),
    "WSGIPythonHome": _PYTHON,
    "WSGIPythonEggs": PROCESS_OPTIONS["python-eggs"],
    "WSGIPythonOptimize": Leave("set PYTHONOPTIMIZE where the server is started"),
    "WSGIPythonHashSeed": Leave("set PYTHONHASHSEED where the server is started"),
    "WSGIPythonWarnings": Leave("set PYTHONWARNINGS where the server is started"),
    "WSGIDontWriteBytecode": Leave("set PYTHONDONTWRITEBYTECODE where the server is started"),
    "WSGITrustedProxies": Take("trust_proxy", str.split),
    "WSGITrustedProxyHeaders": Leave(
        "forwarded-fields names what trusted proxies say: for, proto, host, port, prefix"
    ),
    "WSGIImportScript": Leave("import = 'module' imports a module in each worker, not a script"),
    "WSGIDispatchScript": Leave("mounts say what is served where"),
    "WSGIHandlerScript": Leave("name each script with a mount"),
    "WSGIScriptAliasMatch": Leave("a mount has a path, no pattern: write one for each"),
    "WSGIAccessScript": _WRAP,
    "WSGIAuthUserScript": _WRAP,
    "WSGIAuthGroupScript": _WRAP,
    "WSGIGroupAuthoritative": _WRAP,
    "WSGIPassAuthorization": ALWAYS,
    "WSGIChunkedRequest": ALWAYS,
    "WSGIErrorOverride": Leave("the answers of the application are never replaced; leave it out"),
    "WSGIEnableSendfile": ALWAYS,
    "WSGIIgnoreActivity": Leave("workers are not ended for being idle"),
    "WSGIMapHEADToGET": ALWAYS,
    "WSGICaseSensitivity": ALWAYS,
    "WSGILazyInitialization": ALWAYS,
    "WSGIRestrictEmbedded": ALWAYS,
    "WSGIRestrictProcess": ALWAYS,
    "WSGIRestrictSignal": ALWAYS,
    "WSGIRestrictStdin": ALWAYS,
    "WSGIRestrictStdout": Leave("what is printed is where the server's log is"),
    "WSGISocketPrefix": ALWAYS,
    "WSGIAcceptMutex": ALWAYS,
    "WSGIVerboseDebugging": Leave("log-level = 'debug' says more"),
    "WSGIServerMetrics": ALWAYS,
    "WSGISwitchInterval": Leave("sys.setswitchinterval() in on-worker-start does it"),
    "WSGIDestroyInterpreter": ALWAYS,
    "LimitRequestBody": Take("limit_request_body", _unlimited),
    "LimitRequestLine": Take("limit_request_line", _number),
    "LimitRequestFields": Take("limit_request_fields", _number),
    "LimitRequestFieldSize": Take("limit_request_field_size", _number),
    "KeepAliveTimeout": Take("keep_alive_timeout", _number),
    "MaxKeepAliveRequests": Take("keep_alive_requests", _unlimited),
    "ListenBacklog": Take("backlog", _number),
    "PidFile": Take("pid_file"),
    "Alias": Take("mount"),  # see _files
    "AliasMatch": Leave("a mount has a path, no pattern: write one for each"),
    "DocumentRoot": Leave(
        'a folder at / answers before the application: mount = ["/=/srv/htdocs/"] does that'
    ),
    "SetEnv": Leave(
        "set variables where the server is started; what an application looks for in environ is "
        "set by middleware: wrap = 'module:callable'"
    ),
    "Redirect": Leave("the application or a proxy in front does this"),
    "RewriteRule": Leave("the application or a proxy in front does this"),
    "ErrorDocument": Leave("error-pages has a file for each status that the server answers with"),
    "Require": Leave('a mount may say who is served: allow = ["10.0.0.0/8"]'),
    "ProxyPass": Leave("this is for Apache, which may stay in front"),
    "CustomLog": Leave("access-log = 'FILE' has a line a request"),
    "ErrorLog": Leave("the log is on standard error: redirect it, 2>> FILE"),
    "LogLevel": Leave("log-level is debug, info, warning or error"),
    "Timeout": Leave(
        "each wait has a limit of its own: header-timeout, body-timeout, send-timeout"
    ),
    "User": Take("user"),
    "Group": Take("group"),
}
_BY_LOWER = {name.lower(): name for name in RULES}

# What this file reads itself.
_READ = (
    "wsgidaemonprocess wsgiscriptalias wsgiprocessgroup wsgiapplicationgroup "
    "wsgicallableobject wsgiscriptreloading listen servername serveralias keepalive"
)
_OWN = frozenset(_READ.split())


@dataclass(frozen=True, slots=True)
class _Directive:
    name: str  # in lower case
    words: tuple[str, ...]
    place: Place
    host: int  # the line of its <VirtualHost>, 0 outside of all


@dataclass(slots=True)
class _Host:
    names: list[str] = field(default_factory=list)
    callable: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class _Script:
    path: str
    file: str
    group: str
    place: Place
    host: int


def read(path: Path, text: str, outcome: Outcome, group: str = "") -> None:
    """Read it into the outcome. Raises ConfigError for a line that Apache would not take."""
    directives = list(_directives(path, text))
    hosts: dict[int, _Host] = {0: _Host()}
    for directive in directives:
        host = hosts.setdefault(directive.host, _Host())
        match directive.name, directive.words:
            case "servername" | "serveralias", names:
                host.names += [name.partition(":")[0].removeprefix("//") for name in names]
            case "wsgicallableobject", (name,):
                host.callable = name
            case "wsgiprocessgroup", (name,):
                host.group = name
    scripts = list(_scripts(directives, hosts, outcome))
    daemons = [found for found in directives if found.name == "wsgidaemonprocess" and found.words]
    groups = [daemon.words[0] for daemon in daemons]
    if group and group not in groups:
        raise ConfigError(
            f"{path}: there is no WSGIDaemonProcess {group}", f"there are: {', '.join(groups)}"
        )
    used = [script.group for script in scripts if script.group in groups]
    chosen = group or next(iter([*used, *groups]), "")
    for daemon in daemons:
        if daemon.words[0] == chosen:
            _processes(daemon, outcome)
        else:
            outcome.leave(daemon.place, _another(path, daemon.words[0]))
    own = [script for script in scripts if script.group == chosen or script.group not in groups]
    for script in scripts:
        if script not in own:
            outcome.leave(script.place, _another(path, script.group))
    _files(directives, _mounts(own, hosts, outcome), outcome)
    if own and ("wsgiscriptreloading", ("Off",)) not in [(d.name, d.words) for d in directives]:
        place = Place(own[0].place.line, "mod_wsgi loads a script anew that was touched")
        outcome.take("reload_on_touch", ["auto"], place)
    for directive in directives:
        _rest(directive, outcome)
    if "bind" in outcome.settings:
        outcome.remarks.append(
            'If Apache stays in front: bind = "127.0.0.1:8000", and there ProxyPass / '
            "http://127.0.0.1:8000/ in place of WSGIScriptAlias."
        )


def _directives(path: Path, text: str) -> Iterator[_Directive]:
    open_sections: list[tuple[str, int]] = []
    host = 0
    for number, line in _logical_lines(text):
        if closing := re.fullmatch(r"</\s*(\w+)\s*>", line):
            if not open_sections or open_sections[-1][0] != closing[1].lower():
                raise ConfigError(f"{path}:{number}: {line} ends what is not open", "leave it out")
            name, _ = open_sections.pop()
            host = 0 if name == "virtualhost" else host
            continue
        if opening := re.fullmatch(r"<\s*(\w+)([^>]*)>", line):
            open_sections.append((opening[1].lower(), number))
            host = number if open_sections[-1][0] == "virtualhost" else host
            continue
        if line.startswith("<"):
            raise ConfigError(f"{path}:{number}: a section ends with >", "complete this line")
        try:
            name, *words = shlex.split(line)
        except ValueError:
            raise ConfigError(
                f"{path}:{number}: a quote is not closed", "close it in the same line"
            ) from None
        yield _Directive(name.lower(), tuple(words), Place(number, line), host)
    if open_sections:
        name, number = open_sections[-1]
        raise ConfigError(
            f"{path}:{number}: the section {name} has no end", f"write </{name}> behind it"
        )


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; one that ends with a backslash goes on in the next."""
    begun, parts = 0, ""
    for number, raw in enumerate(lines_of(text), 1):
        begun = begun or number
        if raw.endswith("\\"):
            parts += raw[:-1]
            continue
        line = (parts + raw).strip()
        if line and not line.startswith("#"):
            yield begun, line
        begun, parts = 0, ""
    if parts.strip():
        yield begun, parts.strip()


def _another(path: Path, group: str) -> str:
    return (
        f"another group of processes is a poolsrv of its own: poolsrv migrate {path} {group} "
        "prints its settings"
    )


def _processes(daemon: _Directive, outcome: Outcome) -> None:
    given = dict(word.partition("=")[::2] for word in daemon.words[1:])
    for name, value in given.items():
        rule = PROCESS_OPTIONS.get(name.lower(), UNKNOWN)
        place = Place(daemon.place.line, f"WSGIDaemonProcess {name}={value}")
        outcome.put(rule, value, place)
    usual = Place(daemon.place.line, "nothing is said of it, and this is mod_wsgi's default")
    for name, count in (("processes", 1), ("threads", 15)):
        if name not in given:
            outcome.take(name, count, usual)


def _scripts(
    directives: list[_Directive], hosts: Mapping[int, _Host], outcome: Outcome
) -> Iterator[_Script]:
    for found in directives:
        if found.name != "wsgiscriptalias":
            continue
        if len(found.words) < 2:
            outcome.leave(found.place, "it has a path and a file")
            continue
        path, file, *rest = found.words
        options = dict(word.partition("=")[::2] for word in rest)
        host = hosts[found.host]
        group = options.get("process-group", host.group or hosts[0].group)
        name = options.get("callable-object", host.callable or hosts[0].callable)
        spec = f"{file}:{name}" if name and name != "application" else file
        yield _Script(path.rstrip("/") or "/", spec, group, found.place, found.host)


def _files(directives: list[_Directive], at: Mapping[int, list[str]], outcome: Outcome) -> None:
    """Folders and files beside the scripts, at the hosts that have any of them."""
    for found in directives:
        if found.name != "alias" or len(found.words) != 2 or found.host not in at:
            continue
        path, target = found.words
        try:
            mounts = [mount_of(path, target, host) for host in at[found.host] or [""]]
        except Refused as error:
            outcome.leave(found.place, str(error))
            continue
        outcome.take("mount", mounts, found.place)


def _mounts(
    scripts: list[_Script], hosts: Mapping[int, _Host], outcome: Outcome
) -> dict[int, list[str]]:
    """The names under which each host's paths are, none where there is one host."""
    several = len({script.host for script in scripts}) > 1
    at: dict[int, list[str]] = {0: []}
    for script in scripts:
        names = at[script.host] = hosts[script.host].names if several else []
        if script.path == "/" and not names and "application" not in outcome.settings:
            outcome.take("application", script.file, script.place)
            continue
        for host in names or [""]:
            outcome.take("mount", [f"{host}{script.path}={script.file}"], script.place)
    return at


def _rest(directive: _Directive, outcome: Outcome) -> None:
    value = " ".join(directive.words)
    match directive.name:
        case "listen":
            port = directive.words[0].rpartition(":")[2] if directive.words else ""
            if "https" in directive.words[1:] or port == "443":
                outcome.put(_TLS, value, directive.place)
            else:
                address = directive.words[0] if directive.words else ""
                whole = address if ":" in address else f"0.0.0.0:{address}"
                outcome.take("bind", [whole], directive.place)
        case "keepalive" if value.lower() == "off":
            outcome.take("keep_alive_timeout", 0, directive.place)
        case "wsgiapplicationgroup" if value != "%{GLOBAL}":
            outcome.leave(
                directive.place,
                "all applications of a worker are in its main interpreter, as with %{GLOBAL}",
            )
        case "alias":  # read with the scripts
            return
        case name if name in _BY_LOWER:
            outcome.put(RULES[_BY_LOWER[name]], value, directive.place)
        case name if name.startswith("ssl"):
            outcome.put(_TLS, value, directive.place)
        case name if name.startswith("wsgi") and name not in _OWN:
            outcome.put(UNKNOWN, value, directive.place)
        case name if name not in _OWN:
            outcome.put(_APACHES, value, directive.place)
