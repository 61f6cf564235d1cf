"""uwsgi.ini: its own dialect, in which keys repeat and values have placeholders."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
    rule_of,
)
from poolsrv.migrate.static import mount_of

# Of a value, whose placeholders could double it with each line.
_MOST = 10_000

_TRUE = ("true", "1", "yes", "on", "")
_FALSE = ("false", "0", "no", "off")


def _flag(value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise Refused("is true or false there")


def _number(value: str) -> int:
    if not re.fullmatch("[0-9]{1,15}", value):
        raise Refused("is a whole number there")
    return int(value)


def _megabytes(value: str) -> str:
    return f"{_number(value)}MiB"


def _address(value: str) -> list[str]:
    return [value.partition(",")[0]]


def _field_size(value: str) -> int:
    """Theirs bounds the whole head, ours a field of it."""
    return max(64, min(_number(value), 65535))


def _positive(value: str) -> bool:
    return _number(value) > 0


def _mode(value: str) -> str:
    """`chmod-socket` alone is for all."""
    return f"0{value.lstrip('0').rjust(3, '0')}" if value != "true" else "0666"


def _lazy(value: str) -> bool:
    return not _flag(value)


def _static(value: str) -> list[str | dict[str, str]]:
    path, equals, target = value.partition("=")
    if not equals:
        raise Refused("is path=folder there")
    return [mount_of(path, target)]


def _static_below(value: str) -> list[str | dict[str, str]]:
    """`static-map2` adds the path to the folder."""
    path, _, folder = value.partition("=")
    return _static(f"{value.rstrip('/')}/{path.strip('/')}" if folder else value)


_OTHERS = Leave("other programs do this: systemd, cron, a job queue, Redis")
_ROUTES = Leave("the application or a proxy in front does this")
_LOGS = Leave("the log is on standard error, and there are log-level, log-format and access-log")
_STATIC = Leave("a mount of a folder has options in the file: docs/files.md")

# Where the name alone does not say it, as for the rest habits.py does.
RULES: Mapping[str, Rule] = {
    "http": Take("bind", _address),
    "http-socket": Take("bind", _address),
    "https": Leave("TLS is the work of a proxy in front (nginx, Caddy, HAProxy)"),
    "socket": Take(
        "bind",
        _address,
        "poolsrv speaks HTTP there: in nginx, proxy_pass takes the place of uwsgi_pass",
    ),
    "processes": Take("processes", _number),
    "workers": Take("processes", _number),
    "threads": Take("threads", _number),
    "listen": Take("backlog", _number),
    "harakiri": Take("request_timeout", _number),
    "max-requests": Take("max_requests", _number),
    "max-requests-delta": Leave("jitter, in percent, keeps workers from being replaced in a row"),
    "max-worker-lifetime": Take("max_age", _number),
    "min-worker-lifetime": Leave(
        "a worker that dies before it has answered anything is started again after a pause"
    ),
    "reload-on-rss": Take("max_rss", _megabytes),
    "evil-reload-on-rss": Take("max_rss_kill", _megabytes),
    "worker-reload-mercy": Take("graceful_timeout", _number),
    "reload-mercy": Take("graceful_timeout", _number),
    "buffer-size": Take("limit_request_field_size", _field_size),
    "post-buffering": Take("body_buffer", _number),
    "limit-post": Take("limit_request_body", _number),
    "http-timeout": Take("body_timeout", _number),
    "http-keepalive": Take("keep_alive_timeout", _number),
    "socket-timeout": Take("send_timeout", _number),
    "lazy-apps": Take("preload", _lazy),
    "lazy": Take("preload", _lazy),
    "touch-reload": Take("reload_on_touch"),
    "touch-workers-reload": Take("reload_on_touch"),
    "touch-chain-reload": Take("reload_on_touch"),
    "py-autoreload": Take("reload_on_change", _positive),
    "python-autoreload": Take("reload_on_change", _positive),
    "uid": Take("user"),
    "gid": Take("group"),
    "umask": Take("umask", _mode),
    "chmod-socket": Take("unix_mode", _mode),
    "chown-socket": Take("unix_owner"),
    "chdir": Take("chdir"),
    "chdir2": Take("chdir"),
    "pythonpath": Take("pythonpath"),
    "python-path": Take("pythonpath"),
    "pp": Take("pythonpath"),
    "pidfile": Take("pid_file"),
    "pidfile2": Take("pid_file"),
    "safe-pidfile": Take("pid_file"),
    "stats": Take("admin", note="metrics, a status page and health checks are there"),
    "stats-server": Take("admin", note="metrics, a status page and health checks are there"),
    "import": Take("import_"),
    "pyimport": Take("import_"),
    "shared-import": Take("import_"),
    "master": ALWAYS,
    "manage-script-name": ALWAYS,
    "no-default-app": ALWAYS,
    "ignore-sigpipe": ALWAYS,
    "ignore-write-errors": ALWAYS,
    "disable-write-exception": ALWAYS,
    "auto-procname": ALWAYS,
    "close-on-exec": ALWAYS,
    "exit-on-reload": ALWAYS,
    "offload-threads": Leave("a slow client holds no thread here"),
    "http-auto-chunked": ALWAYS,
    "add-header": Leave("set response headers in the application"),
    "uwsgi-socket": Leave("poolsrv speaks HTTP: bind = ADDRESS, and proxy_pass in nginx"),
    "plugin": Leave("poolsrv has no plugins; leave it out"),
    "plugins": Leave("poolsrv has no plugins; leave it out"),
    "plugins-dir": Leave("poolsrv has no plugins; leave it out"),
    "procname": Leave("ps and the metrics name processes by their slot"),
    "env": Take("environment", lambda value: [value]),
    "limit-as": Leave("whoever starts the server limits memory: MemoryMax= of systemd"),
    "cheaper": Leave("poolsrv scale N changes the number of workers while it runs"),
    "disable-logging": Leave("access-log is off unless it is asked for"),
    "logger": _LOGS,
    "log-master": _LOGS,
    "log-4xx": _LOGS,
    "log-5xx": _LOGS,
    "log-slow": _LOGS,
    "log-maxsize": Leave("logrotate keeps the access log small: SIGUSR1 opens it anew"),
    "logformat": Leave("the access log is JSON with log-format = 'json', else one line a request"),
    "log-format": Leave("the access log is JSON with log-format = 'json', else one line a request"),
    "spooler": _OTHERS,
    "mule": _OTHERS,
    "mules": _OTHERS,
    "cron": _OTHERS,
    "cache2": _OTHERS,
    "cache": _OTHERS,
    "attach-daemon": _OTHERS,
    "smart-attach-daemon": _OTHERS,
    "emperor": Leave("each application is a service of systemd, or a mount"),
    "static-map": Take("mount", _static),
    "static-map2": Take("mount", _static_below),
    "check-static": Take("mount", lambda folder: _static(f"/={folder.rstrip('/')}/")),
    "static-gzip-all": ALWAYS,
    "static-index": _STATIC,
    "static-expires": _STATIC,
    "gevent": Leave("poolsrv serves with threads: give more threads for requests that wait"),
    "async": Leave("poolsrv serves with threads: give more threads for requests that wait"),
    "include": Leave("it names another file: migrate that, too"),
    "ini": Leave("it names another file: migrate that, too"),
    "inherit": Leave("it names another file: migrate that, too"),
    "yaml": Leave("it names another file, which is not read"),
    "xml": Leave("it names another file, which is not read"),
    "exec-pre-app": Leave("let whoever starts the server do it: ExecStartPre= of systemd"),
    "hook-pre-app": Leave("let whoever starts the server do it: ExecStartPre= of systemd"),
    "exec-as-user": Leave("let whoever starts the server do it: ExecStartPre= of systemd"),
    "optimize": Leave("set PYTHONOPTIMIZE where the server is started"),
}

# These have no value of their own, and are one setting together.
_APPLICATION = ("module", "wsgi", "wsgi-file", "file", "callable", "mount")
_FAMILIES = (
    ("route", _ROUTES),
    ("static-", _STATIC),
    ("cache", _OTHERS),
    ("spool", _OTHERS),
    ("cheaper", RULES["cheaper"]),
    ("log-", _LOGS),
    ("exec-", RULES["exec-pre-app"]),
    ("hook-", RULES["hook-pre-app"]),
)


@dataclass(frozen=True, slots=True)
class _Line:
    key: str
    value: str
    place: Place


def read(path: Path, text: str, outcome: Outcome) -> None:
    """Read it into the outcome. Raises ConfigError if it has no section [uwsgi]."""
    known: dict[str, str] = {}
    applications: dict[str, _Line] = {}
    mounts: list[_Line] = []
    condition = 0
    for line in _lines(path, text):
        name = line.key
        if re.match(r"(?:if|for)\b|(?:if|for)-", name):
            condition += 1
        elif re.fullmatch(r"end-?(?:if|for)", name):
            condition -= 1
        elif condition > 0:
            outcome.leave(line.place, "it is under a condition: give what holds on this machine")
        elif name in ("set", "set-placeholder", "set-ph"):
            inner, _, value = line.value.partition("=")
            known[inner.strip()] = _filled(path, value.strip(), known) or value.strip()
        else:
            value_or_none = _filled(path, line.value, known)
            if value_or_none is None:
                outcome.leave(line.place, "a part is known only when uWSGI runs: write it out")
                continue
            known[name] = value_or_none
            filled = _Line(name, value_or_none, line.place)
            if name == "mount":
                mounts.append(filled)
            elif name in _APPLICATION:
                applications[name] = filled
            elif name in ("processes", "workers", "p") and "%k" in line.value:
                outcome.leave(line.place, "the default is the number of CPUs: leave it out")
            elif not (f"%({line.key})" in text and _rule(name) is UNKNOWN):
                outcome.put(_rule(name), filled.value, line.place)
    _name_application(applications, outcome)
    for line in mounts:
        _mount(line, applications.get("callable"), outcome)
    _defaults(known, outcome)


def _rule(name: str) -> Rule:
    if name in RULES:
        return RULES[name]
    family = next((rule for prefix, rule in _FAMILIES if name.startswith(prefix)), None)
    return family or rule_of(name, RULES)


def _lines(path: Path, text: str) -> Iterator[_Line]:
    section, has_any = "", False
    for number, raw in enumerate(lines_of(text), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            if not line.endswith("]"):
                raise ConfigError(f"{path}:{number}: a section ends with ]", "write [uwsgi]")
            section = line[1:-1].strip()
            has_any = has_any or section == "uwsgi"
        elif section == "uwsgi":
            name, equals, value = line.partition("=")
            if not name.strip():
                raise ConfigError(f"{path}:{number}: has no name", "write name = value")
            key = name.strip().removeprefix("--").replace("_", "-")
            yield _Line(key, value.strip() if equals else "true", Place(number, line))
    if not has_any:
        raise ConfigError(f"{path}: has no section [uwsgi]", "give a uwsgi.ini")


def _filled(path: Path, value: str, known: Mapping[str, str]) -> str | None:
    """The value with its placeholders replaced; None if one is known to uWSGI alone."""
    place = Path(path).absolute()
    magic = {
        "p": str(place),
        "s": place.name,
        "d": f"{place.parent}/",
        "n": place.stem,
        "e": place.suffix.removeprefix("."),
        "c": place.parent.name,
        "x": "uwsgi",
        "k": "",
        "%": "%",
    }
    unknown = False

    def fill(match: re.Match[str]) -> str:
        nonlocal unknown
        if match["variable"] or match["file"]:
            unknown = True
            return ""
        if match["name"] is not None:
            unknown = unknown or match["name"] not in known
            return known.get(match["name"], "")
        unknown = unknown or match["magic"] not in magic
        return magic.get(match["magic"], "")

    pattern = r"%\((?P<name>[^)]*)\)|(?P<variable>\$\([^)]*\))|(?P<file>@\([^)]*\))|%(?P<magic>.)"
    filled = re.sub(pattern, fill, value)
    return None if unknown or len(filled) > _MOST else filled


def _spec(place: str, callable_: str) -> str:
    return f"{place}:{callable_}" if callable_ and ":" not in place else place


def _name_application(given: Mapping[str, _Line], outcome: Outcome) -> None:
    """module and wsgi name a module, perhaps with its callable; wsgi-file and file a file."""
    named = next((given[name] for name in _APPLICATION[:4] if name in given), None)
    extra = given.get("callable")
    if named is not None:
        spec = _spec(named.value, extra.value if extra else "")
        file = named.value
        if named.key in ("wsgi-file", "file") and not ("/" in file or file.endswith(".py")):
            outcome.leave(named.place, "write its path, so that it is no module: ./FILE")
            return
        outcome.take("application", spec, named.place)
    elif extra is not None and "mount" not in given:
        outcome.leave(extra.place, "no module or file is named beside it")


def _mount(line: _Line, callable_: _Line | None, outcome: Outcome) -> None:
    path, equals, target = line.value.partition("=")
    if not equals:
        outcome.leave(line.place, "a mount is path=application")
        return
    spec = _spec(target.strip(), callable_.value if callable_ else "")
    host, slash, rest = path.strip().partition("/")
    where = f"{host}/{rest}".rstrip("/") if slash and rest else f"{host}/"
    outcome.take("mount", [f"{where}={spec}"], line.place)


def _defaults(known: Mapping[str, str], outcome: Outcome) -> None:
    """What uWSGI does without being told, and poolsrv does otherwise."""
    place = Place(1, "nothing is said of it, and this is uWSGI's default")
    if not known.keys() & {"processes", "workers", "p"}:
        outcome.take("processes", 1, place)
    if "threads" not in known:
        outcome.take("threads", 1, place, "give more if the application may be used by threads")
    if not known.keys() & {"lazy-apps", "lazy"}:
        outcome.remarks.append(
            "uWSGI loads the application once and forks its workers from that: preload = true does."
        )
