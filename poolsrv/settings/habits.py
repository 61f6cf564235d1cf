"""What people bring along from other servers and platforms.

Names of options of gunicorn, uWSGI, uvicorn, granian, waitress and mod_wsgi-express
lead to ours; variables that platforms set are defaults of the lowest rank. Nothing
here is an option: the names are refused, with the remedy.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

# What poolsrv calls otherwise: our field, their names.
_OURS: Mapping[str, str] = {
    "bind": "-b host port uds fd listen http http-socket unix-socket",
    "processes": "-w -p workers",
    "threads": "blocking-threads",
    "backlog": "-l listener-backlog listen-backlog",
    "config": "-c ini toml",
    "chdir": "chdir2 working-dir working-directory app-dir",
    "pythonpath": "pp python-path",
    "environment": "-e env raw-env set-env",
    "application": "application app module wsgi wsgi-file wsgi-app callable",
    "mount": "mount-point",
    "unix_mode": "uds-permissions unix-socket-perms chmod-socket",
    "unix_owner": "chown-socket",
    "user": "-u uid",
    "group": "-g gid",
    "umask": "-m",
    "pid_file": "pid pidfile",
    "queue_size": "backpressure limit-concurrency worker-connections connection-limit",
    "graceful_timeout": (
        "timeout-graceful-shutdown workers-kill-timeout worker-reload-mercy shutdown-timeout"
    ),
    "keep_alive_timeout": (
        "keep-alive keepalive timeout-keep-alive http-keepalive http1-keep-alive channel-timeout"
    ),
    "header_timeout": "http1-header-read-timeout header-read-timeout",
    "request_timeout": "-t timeout harakiri",
    "body_timeout": "http-timeout",
    "send_timeout": "socket-timeout",
    "limit_request_field_size": "buffer-size max-request-header-size http1-buffer-size",
    "limit_request_body": "max-request-body-size limit-post",
    "body_buffer": "inbuf-overflow post-buffering",
    "response_buffer": "outbuf-high-watermark outbuf-overflow response-buffer-size",
    "reload_on_touch": "touch-reload touch-workers-reload touch-chain-reload",
    "max_requests": "limit-max-requests maximum-requests",
    "max_age": "max-worker-lifetime workers-lifetime",
    "max_rss": "reload-on-rss workers-max-rss",
    "max_rss_kill": "evil-reload-on-rss",
    "jitter": "max-requests-jitter limit-max-requests-jitter",
    "trust_proxy": (
        "forwarded-allow-ips proxy-allow-ips proxy-allow-from trusted-proxy proxy-headers "
        "trust-proxy-header"
    ),
    "forwarded": "trusted-proxy-headers forwarder-headers",
    "admin": "stats metrics metrics-address metrics-port statsd-host stats-server",
    "access_log": "access-logfile logto req-logger",
    "log_level": "loglevel verbose debug quiet -v -q",
    "log_format": "access-logformat access-log-fmt log-encoder",
}

# What has no counterpart: their names, what to do.
_OTHERS = (
    (
        "daemon -D daemonize",
        "poolsrv stays in the foreground: leave this to systemd, a container or nohup",
    ),
    (
        "keyfile certfile ca-certs ssl-keyfile ssl-certfile https https-socket ssl-certificate "
        "ssl-keyfile-password",
        "TLS is the work of a proxy in front (nginx, Caddy, HAProxy): see --trust-proxy",
    ),
    (
        "reload py-autoreload reload-dir reload-engine reload-extra-file "
        "reload-on-changes reload-include reload-exclude reload-delay reload-paths reload-tick",
        "SIGHUP loads code anew without losing a request; in development --reload-on-change does",
    ),
    (
        "master -M enable-threads vacuum die-on-term strict need-app lazy-apps lazy "
        "single-interpreter no-orphans clear-untrusted-proxy-headers thunder-lock reuse-port "
        "respawn-failed-workers no-sendfile sendfile "
        "reset-contextvars enable-stdio-inheritance -R disable-redirect-access-to-syslog",
        "this is always so; leave it out",
    ),
    (
        "-k worker-class worker-tmp-dir gevent asyncio loop runtime-mode runtime-threads "
        "task-impl cheaper",
        "all workers are of one kind, processes x threads: --processes 4 --threads 8",
    ),
    (
        "initgroups",
        "workers have all groups of their --user",
    ),
    (
        "error-logfile log-file capture-output log-to-terminal",
        "the log is on standard error: redirect it, 2>> FILE",
    ),
    (
        "virtualenv venv home -H python-home",
        "start the poolsrv that is installed in this environment: VENV/bin/poolsrv",
    ),
    (
        "factory call",
        "call the factory in the application's name: 'module:create_app()'",
    ),
    (
        "env-file env-files",
        "name each variable: --environment NAME=value, or a table in the file",
    ),
    (
        "lang locale",
        "set the variable of this purpose: --environment LANG=C.UTF-8",
    ),
    (
        "static-map static-path static-path-mount document-root",
        "serve a folder by a mount: --mount /static=/srv/static/",
    ),
    (
        "log-config log-config-json logger-class log-syslog log disable-logging access-log-format",
        "there are --log-level, --log-format text|json and --access-log",
    ),
    (
        "lifespan ws interface asgi http2 http-protocols",
        "poolsrv serves WSGI only; leave it out",
    ),
    (
        "ident header",
        "set response headers in the application; --no-server-header sends no Server field",
    ),
    (
        "strip-header-spaces casefold-http-method header-map",
        "HTTP is strict, HTTP.md lists what is refused; leave it out",
    ),
    (
        "use-colors spew paste paste-global paster control-socket-mode",
        "poolsrv has nothing like it; leave it out",
    ),
    (
        "-n name proc-name process-name procname-prefix display-name",
        "leave it out: the log and the metrics name processes by their slot",
    ),
    (
        "check-config",
        "poolsrv check app:app loads the application and checks the settings",
    ),
    (
        "print-config show-config",
        "poolsrv config shows each option with its origin",
    ),
    (
        "version -V",
        "poolsrv --version shows it",
    ),
    (
        "-s socket uwsgi-socket",
        "poolsrv speaks HTTP: --bind ADDRESS, and proxy_pass in nginx for uwsgi_pass",
    ),
    (
        "root-path url-prefix url-path-prefix",
        "a trusted proxy says it: X-Forwarded-Prefix with --trust-proxy and --forwarded-fields",
    ),
    (
        "url-scheme",
        "a trusted proxy says it: X-Forwarded-Proto with --trust-proxy",
    ),
)

# The rest of families that have no counterpart either.
_FAMILIES = (
    ("ssl-", "TLS is the work of a proxy in front (nginx, Caddy, HAProxy): see --trust-proxy"),
    ("http2-", "HTTP/2 is the work of a proxy in front; poolsrv speaks HTTP/1.1 to it"),
    ("ws-", "WebSockets are not served; leave it out"),
    ("websocket-", "WebSockets are not served; leave it out"),
    ("asgi-", "poolsrv serves WSGI only; leave it out"),
    ("reload-ignore-", "--reload-on-change watches Python files only, and no virtual environment"),
    ("log-syslog-", "there are --log-level, --log-format text|json and --access-log"),
    ("static-", "a mount of a folder has options in the file: see docs/files.md"),
    ("statsd-", "poolsrv serves its metrics to Prometheus: --admin ADDRESS, at /metrics"),
    ("dogstatsd-", "poolsrv serves its metrics to Prometheus: --admin ADDRESS, at /metrics"),
    ("dirty-", "there are only workers of one kind; leave it out"),
    ("uwsgi-", "poolsrv speaks HTTP: --bind ADDRESS, and proxy_pass in nginx for uwsgi_pass"),
    ("runtime-", "all workers are of one kind, processes x threads: --processes 4 --threads 8"),
    ("permit-", "HTTP is strict, HTTP.md lists what is refused; leave it out"),
)

_CALLED = {name: field for field, names in _OURS.items() for name in names.split()}
_SAID = {name: remedy for names, remedy in _OTHERS for name in names.split()}


def field_of(name: str) -> str:
    """The field of ours that an option of another server is; empty if there is none."""
    return _CALLED.get(_plain(name), "")


def remedy(name: str, write: Callable[[str], str], known: Collection[str]) -> str:
    """What to do instead of `name`, an option of another server; empty if there is none.

    `name` is as the person wrote it, `write` names our options as they are
    written in that place, `known` are their field names.
    """
    plain = name if re.fullmatch("-.", name) else _plain(name)
    if (field := _CALLED.get(plain, "")) in known:
        if field == "application" and write(field) == "APP":
            return "poolsrv takes it without a flag: poolsrv serve module:callable"
        return f"poolsrv calls it {write(field)}{_more(plain, write)}"
    positive = plain.removeprefix("no-")
    if said := _SAID.get(plain) or _SAID.get(positive):
        return said
    if (field := _CALLED.get(positive, "")) in known:
        return f"poolsrv calls it {write(field)}"
    return next((said for prefix, said in _FAMILIES if positive.startswith(prefix)), "")


def _plain(name: str) -> str:
    """--log_level, POOLSRV_LOG_LEVEL and log-level are one name."""
    return name.removeprefix("--").removeprefix("POOLSRV_").replace("_", "-").lower()


def _more(plain: str, write: Callable[[str], str]) -> str:
    bind = write("bind")
    joint = " " if bind.startswith("--") else "="
    match plain:
        case "host" | "port":
            return f", host and port in one: {bind}{joint}127.0.0.1:8000"
        case "uds" | "unix-socket":
            return f": {bind}{joint}unix:/path"
        case "fd":
            return f": {bind}{joint}fd://N"
        case "proxy-headers":
            return ", with the proxy's network: 10.0.0.0/8"
    return ""


@dataclass(frozen=True, slots=True)
class Platform:
    """A variable that platforms set, as text of the option with this field name."""

    variable: str
    field: str
    text: Callable[[str], str]


PLATFORM = (
    # Who gives the port connects from outside: on loopback nobody would be heard.
    Platform("PORT", "bind", lambda port: f":{port}"),
    Platform("WEB_CONCURRENCY", "processes", str),
)

# For a Service `poolsrv` (or `poolsrv-shop`) Kubernetes sets, in every pod of its
# namespace, POOLSRV_SERVICE_HOST, POOLSRV_SERVICE_PORT[_NAME], and the variables of
# Docker's links, as Docker does for a linked container of that name: POOLSRV_NAME,
# POOLSRV_ENV_*, POOLSRV_PORT=tcp://..., POOLSRV_PORT_80_TCP[_PROTO|_PORT|_ADDR].
_PROTOCOL = "(?:TCP|UDP|SCTP)"
_INJECTED = re.compile(
    rf"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|ENV_\w+"
    rf"|PORT_[0-9]+_{_PROTOCOL}(?:_(?:PROTO|PORT|ADDR))?)"
)
# Those that might be typos have values of their own.
_INJECTED_VALUES = (
    (re.compile(r"(?:\w+_)?PORT"), re.compile(rf"{_PROTOCOL}://\S+", re.IGNORECASE)),
    (re.compile(r"(?:\w+_)?NAME"), re.compile(r"/[^/\s]+/[^/\s]+")),
)


def is_injected(name: str, value: str) -> bool:
    """Is POOLSRV_`name` a variable that a platform sets for a service of our name?"""
    return _INJECTED.fullmatch(name) is not None or any(
        names.fullmatch(name) and values.fullmatch(value) for names, values in _INJECTED_VALUES
    )
