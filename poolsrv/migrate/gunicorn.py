"""gunicorn.conf.py: read as syntax, never executed."""

import ast
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from poolsrv.errors import ConfigError
from poolsrv.migrate.constants import Known, Unknown, value_of
from poolsrv.migrate.outcome import (
    ALWAYS,
    Leave,
    Outcome,
    Place,
    Refused,
    Rule,
    Take,
    lines_of,
    rule_of,
)
from poolsrv.settings.habits import PLATFORM
from poolsrv.settings.sources import variable


def _listed(value: Any) -> list[str]:
    items = value if isinstance(value, list) else str(value).split(",")
    return [str(item).strip() for item in items]


def _limit(value: Any) -> Any:
    if value == 0:
        raise Refused("0 is no limit there; here there is always one: leave it out")
    return value


def _trusted(value: Any) -> list[str]:
    networks = _listed(value)
    if "*" in networks:
        raise Refused('name the networks of your proxies: trust-proxy = ["10.0.0.0/8"]')
    return networks


def _level(value: Any) -> str:
    return "error" if str(value).lower() == "critical" else str(value).lower()


def _mode(value: Any) -> str | None:
    if not isinstance(value, int):
        return str(value)
    return f"{value:04o}" if value else None


def _text(value: Any) -> str:
    return str(value)


def _off_unless(value: Any) -> str:
    return "on" if value else "off"


_ERROR_LOG = Leave("the log is on standard error: redirect it, 2>> FILE")
# What needs no word, because it is so here.
_NEEDLESS: Mapping[str, tuple[object, ...]] = {
    "errorlog": ("-",),
    "logfile": ("-",),
    "worker_class": ("sync", "gthread"),
    "daemon": (False,),
    "reload": (False,),
    "capture_output": (True, False),
}

_HOOK_OF_WORKERS = Leave(
    "name the function with on-worker-start = 'module:function'; it is called without arguments"
)
_HOOK_AT_END = Leave(
    "name the function with on-worker-stop = 'module:function'; it is called without arguments"
)
_HOOK_OF_SERVER = Leave(
    "the supervisor runs no code of the application: what is to be done once is done by "
    "on-service-start = 'module:function', in one worker"
)
_HOOK_OF_REQUEST = Leave("do it in the application, or in middleware: wrap = 'module:callable'")


def _variables(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value])]


# Where the name alone does not say it, as for the rest habits.py does.
RULES: Mapping[str, Rule] = {
    "bind": Take("bind", _listed),
    "workers": Take("processes"),
    "worker_class": Leave(
        "poolsrv serves with threads: take out the monkey patching of gevent and the like, and "
        "give more threads for requests that wait"
    ),
    "config": Leave("it names another file: migrate that, too"),
    "forwarder_headers": Leave("forwarded-fields names what trusted proxies say"),
    "statsd_host": Leave("metrics are served to Prometheus: admin = ADDRESS, at /metrics"),
    "worker_connections": Leave(
        "it is for gevent; --queue-size bounds the requests that wait for a thread"
    ),
    "worker_tmp_dir": Leave("a worker that hangs is seen without files; leave it out"),
    "keepalive": Take("keep_alive_timeout"),
    "max_requests_jitter": Take("jitter"),  # see _jitter
    "preload_app": Take("preload"),
    "pythonpath": Take("pythonpath", _listed),
    "raw_env": Take("environment", _variables),
    "user": Take("user", _text),
    "group": Take("group", _text),
    "umask": Take("umask", _mode),
    "accesslog": Take("access_log", _text),
    "access_log_format": Leave(
        "the access log is JSON with log-format = 'json', else a line that is documented"
    ),
    "errorlog": _ERROR_LOG,
    "logfile": _ERROR_LOG,
    "loglevel": Take("log_level", _level),
    "logconfig": Leave("there are log-level, log-format and access-log"),
    "logconfig_dict": Leave("there are log-level, log-format and access-log"),
    "logconfig_json": Leave("there are log-level, log-format and access-log"),
    "forwarded_allow_ips": Take("trust_proxy", _trusted),
    "proxy_allow_ips": Take("trust_proxy", _trusted),
    "proxy_protocol": Take("proxy_protocol", _off_unless),
    "secure_scheme_headers": Leave(
        "a proxy that is trusted says the scheme with X-Forwarded-Proto or Forwarded"
    ),
    "reload": Take("reload_on_change"),
    "reload_extra_files": Leave("reload-on-change watches Python files only"),
    "limit_request_line": Take("limit_request_line", _limit),
    "limit_request_fields": Take("limit_request_fields", _limit),
    "limit_request_field_size": Take("limit_request_field_size", _limit),
    "sendfile": ALWAYS,
    "syslog": Leave("the log is on standard error, from which systemd or a container takes it"),
    "tmp_upload_dir": Leave("bodies are spooled to the folder that TMPDIR names"),
    "capture_output": Leave("what the application prints is where the server's log is"),
    "default_proc_name": Leave("ps and the metrics name processes by their slot"),
    "on_starting": _HOOK_OF_SERVER,
    "on_reload": _HOOK_OF_SERVER,
    "when_ready": _HOOK_OF_SERVER,
    "pre_fork": _HOOK_OF_SERVER,
    "nworkers_changed": _HOOK_OF_SERVER,
    "on_exit": _HOOK_OF_SERVER,
    "pre_exec": _HOOK_OF_SERVER,
    "child_exit": _HOOK_OF_SERVER,
    "post_fork": _HOOK_OF_WORKERS,
    "post_worker_init": _HOOK_OF_WORKERS,
    "worker_int": _HOOK_AT_END,
    "worker_abort": Leave("the log has the stack of a request that takes too long"),
    "worker_exit": _HOOK_AT_END,
    "pre_request": _HOOK_OF_REQUEST,
    "post_request": _HOOK_OF_REQUEST,
    "ssl_context": Leave("TLS is the work of a proxy in front (nginx, Caddy, HAProxy)"),
}

# All that gunicorn 23 reads: what else a file defines is its own.
_ALL = (
    "accesslog access_log_format backlog bind ca_certs capture_output casefold_http_method "
    "cert_reqs certfile chdir check_config child_exit ciphers config daemon default_proc_name "
    "disable_redirect_access_to_syslog do_handshake_on_connect dogstatsd_tags "
    "enable_stdio_inheritance errorlog forwarded_allow_ips forwarder_headers graceful_timeout "
    "group header_map initgroups keepalive keyfile limit_request_field_size "
    "limit_request_fields limit_request_line logconfig logconfig_dict logconfig_json logfile "
    "logger_class loglevel max_requests max_requests_jitter nworkers_changed on_exit "
    "on_reload on_starting paste permit_obsolete_folding permit_unconventional_http_method "
    "permit_unconventional_http_version pidfile post_fork post_request post_worker_init "
    "pre_exec pre_fork pre_request preload_app print_config proc_name proxy_allow_ips "
    "proxy_protocol pythonpath raw_env raw_paste_global_conf reload reload_engine "
    "reload_extra_files reuse_port secure_scheme_headers sendfile spew ssl_context "
    "ssl_version statsd_host statsd_prefix strip_header_spaces suppress_ragged_eofs syslog "
    "syslog_addr syslog_facility syslog_prefix threads timeout tmp_upload_dir umask user "
    "when_ready worker_abort worker_class worker_connections worker_exit worker_int "
    "worker_tmp_dir workers wsgi_app "
)
SETTINGS = frozenset(_ALL.split())


def read(path: Path, text: str, outcome: Outcome) -> None:
    """Read it into the outcome. Raises ConfigError if it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that it might have meant otherwise
            tree = ast.parse(text)
    except SyntaxError as error:
        raise ConfigError(
            f"{path}:{error.lineno or 1}: is no Python: {error.msg}",
            f"mend that line; python -m py_compile {path} says more",
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{path}: is no Python: {error}", "give a gunicorn.conf.py") from None
    lines = lines_of(text)
    found: dict[str, tuple[Known, Place]] = {}
    names: dict[str, Known] = {}
    mentioned: set[str] = set()
    for statement in tree.body:
        place = Place(statement.lineno, lines[statement.lineno - 1].strip())
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            if statement.name in SETTINGS:
                _leave_unknown(outcome, statement.name, place, is_computed=True)
            continue
        for name, value in _assigned(statement):
            mentioned.add(name)
            found.pop(name, None)
            try:
                if value is None:
                    raise Unknown
                names[name] = known = value_of(value, names)
            except Unknown:
                names.pop(name, None)
                if name in SETTINGS:
                    _leave_unknown(outcome, name, place, is_computed=value is not None)
                continue
            if name in SETTINGS and known.value is not None:
                found[name] = known, place
            elif name in SETTINGS and known.variables:
                outcome.leave(place, f"is in the environment: {_here(name)} does it here")
    _jitter(found, outcome)
    for name, (known, place) in found.items():
        _put(name, known, place, outcome)
    _defaults(mentioned, outcome)


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr | None]]:
    """The names that it assigns to, and the values: None where that depends on the run."""
    match statement:
        case ast.Assign(targets, value):
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target.id, value
                else:
                    yield from ((name, None) for name in _stored(target))
        case ast.AnnAssign(ast.Name(name), _, value) if value is not None:
            yield name, value
        case ast.AugAssign(ast.Name(name), operator, value):
            yield name, ast.BinOp(ast.Name(name, ast.Load()), operator, value)
        case ast.Expr(ast.Call(ast.Attribute(ast.Name(name)))):  # bind.append(...)
            yield name, None
        case ast.Import() | ast.ImportFrom() | ast.ClassDef() | ast.Expr():
            return
        case _:
            yield from ((name, None) for name in _stored(statement))


def _stored(node: ast.AST) -> list[str]:
    """The names that are assigned to somewhere in it."""
    stored: dict[str, None] = {}
    for inner in ast.walk(node):
        match inner:
            case ast.Name(name, ast.Store()):
                stored[name] = None
            case ast.Subscript(ast.Name(name), _, ast.Store()):
                stored[name] = None
    return list(stored)


def _leave_unknown(outcome: Outcome, name: str, place: Place, *, is_computed: bool) -> None:
    rule = rule_of(name, RULES)
    how = "is computed" if is_computed else "is set under a condition, or in a loop"
    if isinstance(rule, Leave):
        outcome.leave(place, rule.reason)
    else:
        outcome.leave(place, f"{name} {how}: give its value, {rule.field.replace('_', '-')} = ...")


def _here(name: str) -> str:
    rule = rule_of(name, RULES)
    if isinstance(rule, Leave):
        return rule.reason
    return " or ".join(
        [variable(rule.field), *(p.variable for p in PLATFORM if p.field == rule.field)]
    )


def _jitter(found: dict[str, tuple[Known, Place]], outcome: Outcome) -> None:
    """Theirs is a number of requests, ours a share."""
    if "max_requests_jitter" not in found:
        return
    known, place = found.pop("max_requests_jitter")
    most = found["max_requests"][0].value if "max_requests" in found else 0
    if not isinstance(most, int) or not isinstance(known.value, int) or most <= 0:
        outcome.leave(place, "without max_requests it means nothing")
        return
    share = min(100, round(100 * known.value / most))
    note = f"a share in percent: of {most} requests up to {known.value} more there, fewer here"
    outcome.take("jitter", share, place, note)


def _put(name: str, known: Known, place: Place, outcome: Outcome) -> None:
    if known.value in _NEEDLESS.get(name, ()):
        return
    if name == "workers" and known.cpus:
        outcome.leave(
            place,
            "the default is the number of CPUs that the server may use, with threads in each "
            "worker: leave it out, and look at poolsrv_threads_busy before you give more",
        )
        return
    note = ""
    if known.cpus:
        note = "as computed for the CPUs of this machine"
    elif known.variables:
        there = ", ".join(known.variables)
        note = f"unless the environment has {there} there; here {_here(name)} does that"
    outcome.put(rule_of(name, RULES), known.value, place, note)


def _defaults(mentioned: set[str], outcome: Outcome) -> None:
    """What gunicorn does without being told, and poolsrv does otherwise."""
    place = Place(1, "nothing is said of it, and this is gunicorn's default")
    if "workers" not in mentioned:
        outcome.take("processes", 1, place)
    if "threads" not in mentioned:
        outcome.take("threads", 1, place, "give more if the application may be used by threads")
    if "forwarded_allow_ips" not in mentioned:
        outcome.remarks.append(
            'gunicorn believes a proxy on 127.0.0.1: if there is one, trust-proxy = ["127.0.0.1", '
            '"::1"], or "unix" for one that connects to a Unix socket.'
        )
