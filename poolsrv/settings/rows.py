"""The options of poolsrv, each in one row.

A row of Settings is all there is to an option: from it come the flag, the
environment variable, the key in the file, validation, help, `poolsrv config`
and SETTINGS.md. How a text is read is in kinds.py, where it may stand in
sources.py. Every process holds the same Settings; inside, no value can be wrong.
Long, because the table of options is.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, get_args, get_type_hints

from poolsrv.errors import ConfigError
from poolsrv.settings.addresses import Address, TcpAddress
from poolsrv.settings.cpus import available_cpus
from poolsrv.settings.interpreters import MOST_INTERPRETERS, check_interpreters
from poolsrv.settings.kinds import (
    Kind,
    Mode,
    Owner,
    Peers,
    address,
    addresses,
    choice,
    choices,
    field_name,
    flag,
    group_of_machine,
    integer,
    mode,
    owner,
    page,
    path,
    peers,
    seconds,
    size,
    text,
    user_of_machine,
)
from poolsrv.settings.mounts import DEFAULT_GROUP, Mount, mounts, own_of, table, twice, with_parts
from poolsrv.settings.pages import ErrorPage, pages
from poolsrv.settings.variables import Variable, variables

# Read if the working directory has it and --config names no other.
DEFAULT_FILE = "poolsrv.toml"


# The parts of help and reference; their order is that of the rows.
APPLICATION = "Application"
LISTENING = "Listening"
PROCESSES = "Processes and threads"
PRIVILEGES = "Privileges"
TIMES = "Time limits"
MESSAGES = "Requests and responses"
FILES = "Files"
PROXIES = "Behind a proxy"
OBSERVATION = "Observation"


@dataclass(frozen=True, slots=True)
class Row:
    """What there is to say about an option beside its name, type and default.

    `default` describes a default that depends on the machine. `reloadable`: a
    reload may give it another value. The others are in what is made once, before
    the first fork (listeners, scoreboard, dispatcher, logs): they need a new start.
    `supervised`: it means nothing where a server is one process. `common`: it is one for
    the whole server; of the others each group of processes may have its own.
    """

    kind: Kind
    group: str
    help: str
    default: str = ""
    reloadable: bool = True
    supervised: bool = False
    common: bool = False


# Long enough for anyone, and nanoseconds of it fit 64 bits with room for sums.
_YEAR = 365 * 86400.0

# The shortest limit that still lets a local client through.
_MOMENT = 0.001

_MAX_PROCESSES = 512
_MAX_COUNT = 2**31 - 1

_PUBLIC = TcpAddress("127.0.0.1", 8000)
# Also the port of OpenTelemetry: if it is taken, another will do.
_ADMIN = TcpAddress("127.0.0.1", 9464, is_flexible=True)

# A proxy gets in by its group; no other user of the machine does.
_UNIX_MODE = Mode(0o660)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All options. Sizes are bytes, times are seconds."""

    application: Annotated[
        str,
        Row(
            text("module:callable or the path of a file", "APP"),
            APPLICATION,
            "The WSGI application: module:callable, module (its application or app), "
            "module:factory() with literal arguments, or path/to/file.py or .wsgi.",
        ),
    ] = field(default="", kw_only=False)
    mount: Annotated[
        tuple[Mount, ...],
        Row(
            mounts(),
            APPLICATION,
            "Serve one more application below a path, or at a host: /api=shop.api:app, "
            "admin.example.org/=shop.admin:app; or the files of a folder, whose path ends with a "
            "slash: /static=/srv/static/. Repeatable. APP, if it is given, is at /. In the file "
            "each is a section [[mount]], with path, host, allow (networks of clients), and "
            "application, folder, file or status.",
            common=True,
        ),
    ] = ()
    wrap: Annotated[
        tuple[str, ...],
        Row(
            text("module:callable", "MIDDLEWARE", separator="\n"),
            APPLICATION,
            "Put middleware around each application: module:callable, which is called with it and "
            "returns one, or module:factory() with literal arguments, whose result is. Repeatable; "
            "the first is the outermost.",
        ),
    ] = ()
    import_: Annotated[
        tuple[str, ...],
        Row(
            text("the name of a module", "MODULE", separator=" "),
            APPLICATION,
            "Import this module before the applications, in each worker, or in the template with "
            "preload. If it fails, so does the start. Repeatable.",
        ),
    ] = ()
    warm_up: Annotated[
        tuple[str, ...],
        Row(
            page(),
            APPLICATION,
            "GET this path in each worker before it serves, such as /health or a.org/health. If "
            "the application raises or answers 4xx or 5xx, the start, or the reload, fails. "
            "Repeatable.",
        ),
    ] = ()
    chdir: Annotated[
        str | None,
        Row(
            path("the path of a folder", "FOLDER"),
            APPLICATION,
            "Change to this folder before the application is loaded.",
        ),
    ] = None
    pythonpath: Annotated[
        tuple[str, ...],
        Row(
            path("the path of a folder", "FOLDER", separator=":"),
            APPLICATION,
            "Folder to import from, ahead of the installed packages. Repeatable.",
        ),
    ] = ()
    environment: Annotated[
        tuple[Variable, ...],
        Row(
            variables(),
            APPLICATION,
            "Set this variable of the environment before the application is loaded. Repeatable. "
            "Those that Python reads when it starts are set where poolsrv is started.",
        ),
    ] = ()
    config: Annotated[
        str | None,
        Row(
            path("the path of a file", "FILE"),
            APPLICATION,
            f"Read options from this file instead of {DEFAULT_FILE} in the working directory.",
            reloadable=False,
            common=True,
        ),
    ] = None

    bind: Annotated[
        tuple[Address, ...],
        Row(
            addresses(_PUBLIC),
            LISTENING,
            "Where to listen: host:port, [v6]:port, unix:/path, or fd://N for an inherited "
            "socket; [::]:port is IPv6 and IPv4. Repeatable.",
            reloadable=False,
        ),
    ] = (_PUBLIC,)
    backlog: Annotated[
        int,
        Row(
            integer(1, _MAX_COUNT),
            LISTENING,
            "Connections the kernel keeps until they are accepted; it caps this at "
            "net.core.somaxconn.",
            reloadable=False,
        ),
    ] = 4096
    unix_mode: Annotated[
        Mode,
        Row(
            mode(),
            LISTENING,
            "Permissions of the Unix sockets that are made; who may write to one may connect.",
            reloadable=False,
        ),
    ] = _UNIX_MODE
    unix_owner: Annotated[
        Owner | None,
        Row(
            owner(),
            LISTENING,
            "Give the Unix sockets that are made to this user and group, such as those of the "
            "proxy in front.",
            reloadable=False,
        ),
    ] = None

    processes: Annotated[
        int,
        Row(
            integer(0, _MAX_PROCESSES),
            PROCESSES,
            "Worker processes; 0: serve in this process, which nobody replaces or reloads, for "
            "debuggers, profilers and small containers.",
            default="the CPUs this process may use",
            reloadable=False,
        ),
    ] = field(default_factory=available_cpus)
    max_processes: Annotated[
        int,
        Row(
            integer(0, _MAX_PROCESSES),
            PROCESSES,
            "The most workers that poolsrv scale may ask for; 0: as many as --processes.",
            reloadable=False,
            supervised=True,
        ),
    ] = 0
    threads: Annotated[
        int,
        Row(
            integer(1, 1024),
            PROCESSES,
            "Threads in each worker: requests that it serves at the same time.",
            reloadable=False,
        ),
    ] = 4
    idle_timeout: Annotated[
        float,
        Row(
            seconds(1.0, _YEAR),
            PROCESSES,
            'A group that starts on its first request (processes = "0..N") ends its processes '
            "when none has come for so long.",
            supervised=True,
        ),
    ] = 300.0
    interpreters: Annotated[
        int,
        Row(
            integer(1, MOST_INTERPRETERS),
            PROCESSES,
            "Interpreters in each worker, each with a lock of its own, so that as many threads "
            "compute at the same time; the applications are loaded in each, or where their "
            "[[mount]] says: interpreter = 2. Needs Python 3.13; many extension modules work in "
            "the first interpreter only.",
            supervised=True,
        ),
    ] = 1
    upgraded_connections: Annotated[
        int,
        Row(
            integer(0, 1024),
            PROCESSES,
            "The most connections of a worker that the application may have taken over for "
            "WebSockets. Each keeps a thread, and one thread at least is left for requests; more "
            "clients that ask for WebSockets are answered 503. 0: none can be taken over.",
        ),
    ] = 1024
    preload: Annotated[
        bool,
        Row(
            flag(),
            PROCESSES,
            "Load the application once and fork the workers from it: quicker and smaller, but "
            "what it opens while loading is shared.",
            supervised=True,
        ),
    ] = False
    reload_on_change: Annotated[
        bool,
        Row(
            flag(),
            PROCESSES,
            "For development: reload when a Python file changes in a folder that the application "
            "is imported from. Needs poolsrv[watch].",
            reloadable=False,
            supervised=True,
            common=True,
        ),
    ] = False
    reload_on_touch: Annotated[
        tuple[str, ...],
        Row(
            path("the path of a file, or auto", "FILE", separator=":"),
            PROCESSES,
            "Reload when this file is written, replaced or touched: a deploy that ends with touch "
            "needs no command. auto: the scripts that are served. Repeatable.",
            reloadable=False,
            supervised=True,
        ),
    ] = ()
    max_requests: Annotated[
        int,
        Row(
            integer(0, _MAX_COUNT),
            PROCESSES,
            "Replace a worker after about so many requests, looked at once a second; 0: never.",
            supervised=True,
        ),
    ] = 0
    max_age: Annotated[
        float,
        Row(
            seconds(0.0, _YEAR),
            PROCESSES,
            "Replace a worker after this time; 0: never.",
            supervised=True,
        ),
    ] = 0.0
    max_rss: Annotated[
        int,
        Row(
            size(0, 2**50),
            PROCESSES,
            "Replace a worker whose own resident memory is more; 0: never.",
            supervised=True,
        ),
    ] = 0
    max_rss_kill: Annotated[
        int,
        Row(
            size(0, 2**50),
            PROCESSES,
            "Kill a worker whose own resident memory is more, with what runs in it; 0: twice "
            "--max-rss.",
            supervised=True,
        ),
    ] = 0
    jitter: Annotated[
        int,
        Row(
            integer(0, 100),
            PROCESSES,
            "Percent by which each worker's --max-requests, --max-age and --max-rss are drawn "
            "lower, so that they are not replaced in a row.",
            supervised=True,
        ),
    ] = 10
    on_template_ready: Annotated[
        str | None,
        Row(
            text("module:function", "FUNCTION"),
            PROCESSES,
            "Call this function in the template, once the application is loaded there and "
            "before workers are forked; needs preload.",
            supervised=True,
        ),
    ] = None
    on_worker_start: Annotated[
        str | None,
        Row(
            text("module:function", "FUNCTION"),
            PROCESSES,
            "Call this function in each worker before it serves: for threads and connections of "
            "its own.",
        ),
    ] = None
    on_worker_stop: Annotated[
        str | None,
        Row(
            text("module:function", "FUNCTION"),
            PROCESSES,
            "Call this function in each worker when its last request is done.",
        ),
    ] = None
    on_service_start: Annotated[
        str | None,
        Row(
            text("module:function", "FUNCTION"),
            PROCESSES,
            "Call this function in one worker, before any serves, and only once in the life of "
            "the server: not again after a reload, a recycled worker or a crash.",
        ),
    ] = None
    queue_size: Annotated[
        int,
        Row(
            integer(0, 2**20),
            PROCESSES,
            "Connections that may wait for a free thread; more are answered 503.",
            reloadable=False,
        ),
    ] = 2048
    queue_overtaking: Annotated[
        int,
        Row(
            integer(0, 1000),
            PROCESSES,
            "How long shorter requests may overtake a request that waits for a thread, as a "
            "multiple of the usual time of its path; 0: first come, first served.",
            reloadable=False,
        ),
    ] = 10

    user: Annotated[
        Owner | None,
        Row(
            user_of_machine(),
            PRIVILEGES,
            "Load and run the application, and the exporter, as this user, with all its groups. "
            "The supervisor stays who it is, and keeps only the rights that it needs.",
            reloadable=False,
            supervised=True,
        ),
    ] = None
    group: Annotated[
        Owner | None,
        Row(
            group_of_machine(),
            PRIVILEGES,
            "The group of these processes, instead of the user's own.",
            reloadable=False,
            supervised=True,
        ),
    ] = None
    umask: Annotated[
        Mode | None,
        Row(
            mode(),
            PRIVILEGES,
            "Permissions that files of the application do not get.",
            supervised=True,
        ),
    ] = None
    new_privs: Annotated[
        bool,
        Row(
            flag(),
            PRIVILEGES,
            "Programs that the application starts may gain rights, as sudo does; "
            "--no-new-privs forbids that.",
            supervised=True,
            common=True,
        ),
    ] = True
    pid_file: Annotated[
        str | None,
        Row(
            path("the path of a file", "FILE"),
            PRIVILEGES,
            "Write the supervisor's pid to this file, which is locked while it runs and removed "
            "at the end.",
            reloadable=False,
            common=True,
        ),
    ] = None

    startup_timeout: Annotated[
        float,
        Row(
            seconds(_MOMENT, _YEAR),
            TIMES,
            "How long a worker may take to load the application.",
            supervised=True,
        ),
    ] = 60.0
    graceful_timeout: Annotated[
        float,
        Row(
            seconds(0, _YEAR),
            TIMES,
            "How long running requests may go on when a worker stops. When the server stops, those "
            "that still wait for a thread a second before the end are answered 503.",
        ),
    ] = 30.0
    request_timeout: Annotated[
        float,
        Row(
            seconds(0, _YEAR),
            TIMES,
            "How long the application may go without a sign of life in a request, that is without "
            "giving a piece of its answer or taking a piece of the body. Then RequestTimeout is "
            "raised in it, and its client is answered 504; 0 for any time. "
            'environ["poolsrv.set_timeout"](seconds) changes it for one request.',
        ),
    ] = 60.0
    interrupt_timeout: Annotated[
        float,
        Row(
            seconds(0, _YEAR),
            TIMES,
            "How long the application may take to come back from RequestTimeout. Then its client "
            "is answered or cut off at once, and the worker is replaced when its other requests "
            "are done.",
        ),
    ] = 5.0
    watchdog_timeout: Annotated[
        float,
        Row(
            seconds(0, _YEAR),
            TIMES,
            "How long a worker may be without the interpreter, which a call in C may keep while "
            "requests run. Then its stacks are logged, its clients answered 504 or cut off, and it "
            "is killed and replaced; 0 for any time.",
            supervised=True,
        ),
    ] = 60.0
    queue_timeout: Annotated[
        float,
        Row(
            seconds(0, _YEAR),
            TIMES,
            "How long a request may wait for a free thread before it is answered 503.",
            reloadable=False,
        ),
    ] = 30.0
    header_timeout: Annotated[
        float,
        Row(
            seconds(_MOMENT, _YEAR),
            TIMES,
            "How long a client may take to send the whole head of a request.",
            reloadable=False,
        ),
    ] = 15.0
    body_timeout: Annotated[
        float,
        Row(
            seconds(_MOMENT, _YEAR),
            TIMES,
            "How long a client may pause while it sends a request body.",
        ),
    ] = 30.0
    body_min_rate: Annotated[
        int,
        Row(
            size(0, 2**30),
            TIMES,
            "The least average rate of a request body, in bytes a second, once body-timeout is "
            "over; 0 for any.",
        ),
    ] = 240
    send_timeout: Annotated[
        float,
        Row(
            seconds(_MOMENT, _YEAR),
            TIMES,
            "How long a client may take nothing of a response that waits for it.",
        ),
    ] = 30.0
    send_min_rate: Annotated[
        int,
        Row(
            size(0, 2**30),
            TIMES,
            "The least average rate at which a client must take a response, in bytes a second; it "
            "may fall behind by send-timeout before the connection is closed. 0 for any.",
        ),
        # An honest reader may be as slow as 10 KB a second, and pause.
    ] = 4096
    keep_alive_timeout: Annotated[
        float,
        Row(
            seconds(0, _YEAR),
            TIMES,
            "How long an idle connection is kept for its next request.",
            reloadable=False,
        ),
    ] = 75.0
    keep_alive_requests: Annotated[
        int,
        Row(
            integer(0, _MAX_COUNT),
            TIMES,
            "Requests on one connection before it is closed; 0 for no limit.",
        ),
    ] = 0

    limit_request_line: Annotated[
        int,
        Row(size(64, 65535), MESSAGES, "The longest request line; more is answered 414."),
    ] = 8190
    limit_request_fields: Annotated[
        int,
        Row(
            integer(1, 32768),
            MESSAGES,
            "The most header fields in a request; more are answered 431.",
        ),
    ] = 100
    limit_request_field_size: Annotated[
        int,
        Row(
            size(64, 65535),
            MESSAGES,
            "The longest header field; more is answered 431, as is a head of more than 65535 "
            "bytes in all.",
        ),
    ] = 8190
    limit_request_body: Annotated[
        int,
        Row(
            size(0, 2**60),
            MESSAGES,
            "The largest request body; more is answered 413. 0 for no limit.",
        ),
    ] = 2**30
    body_buffer: Annotated[
        int,
        Row(
            size(0, 2**30),
            MESSAGES,
            "A request body up to this size stays in memory; a larger one is spooled to a "
            "temporary file.",
        ),
    ] = 2**20
    request_buffering: Annotated[
        bool,
        Row(
            flag(),
            MESSAGES,
            "Receive a request body before the application is called; without, the application "
            "reads it as it comes, and a slow client holds a thread. A chunked body, whose length "
            "is not known before, is received first in either case: frameworks take a body without "
            "a length for empty.",
        ),
    ] = True
    response_buffer: Annotated[
        int,
        Row(
            size(0, 2**30),
            MESSAGES,
            "How much of a response is kept for a slow client before the thread waits for it.",
        ),
    ] = 2**20
    worker_buffer: Annotated[
        int,
        Row(
            size(0, 2**40),
            MESSAGES,
            "How much memory request heads, bodies and responses of all clients of a worker may "
            "take together. Beyond it bodies are spooled, a thread waits until the client has "
            "taken its response, and a request that comes in parts is answered 503; 0 for no "
            "limit.",
        ),
    ] = 2**28
    worker_spool: Annotated[
        int,
        Row(
            size(0, 2**60),
            MESSAGES,
            "How much of the temporary folder the spooled bodies of all clients of a worker may "
            "take together (poolsrv_worker_spooled_bytes); a request that needs more is answered "
            "503. All workers together may take as many times that. 0 for no limit.",
        ),
    ] = 2**32
    server_header: Annotated[bool, Row(flag(), MESSAGES, "Send the Server header field.")] = True
    date_header: Annotated[bool, Row(flag(), MESSAGES, "Send the Date header field.")] = True

    sendfile_root: Annotated[
        tuple[str, ...],
        Row(
            path("the path of a folder", "FOLDER", separator=":"),
            FILES,
            "Folder of files that the application may name as its answer with X-Sendfile; workers "
            "must be able to read them. Without one the field is sent on, to a proxy that knows "
            "it. Repeatable.",
        ),
    ] = ()

    error_pages: Annotated[
        tuple[ErrorPage, ...],
        Row(
            pages(),
            MESSAGES,
            "Answer with the content of this file where the server itself answers with this "
            "status: 500 if the application has failed, 503 if no thread came free, 404 where "
            "nothing is mounted. What the application answers is left as it is. At most 16 KiB "
            "each, read at the start and at each reload; in the file a section [error-pages]. "
            "Repeatable.",
            common=True,
        ),
    ] = ()
    maintenance_file: Annotated[
        str | None,
        Row(
            path("the path of a file", "FILE"),
            MESSAGES,
            "While this file is there, applications get no requests: the server answers 503 with "
            "its content, at most 16 KiB of it, or with the page for 503 if it is empty.",
            reloadable=False,
            common=True,
        ),
    ] = None
    maintenance_bypass: Annotated[
        tuple[Peers, ...],
        Row(
            peers(),
            MESSAGES,
            "Clients in this network reach the applications during maintenance. Repeatable.",
            common=True,
        ),
    ] = ()

    trust_proxy: Annotated[
        tuple[Peers, ...],
        Row(
            peers(),
            PROXIES,
            "Believe what proxies in this network say about the client; unix stands for all who "
            "connect by Unix sockets. They must set or remove each of the fields themselves. "
            "Repeatable; nobody else is believed.",
            common=True,
        ),
    ] = ()
    forwarded: Annotated[
        str,
        Row(
            choice("x-forwarded", "forwarded", "off"),
            PROXIES,
            "The fields that trusted proxies use: X-Forwarded-For, -Proto, -Host, -Port and "
            "-Prefix, or Forwarded (RFC 7239). All others of this purpose are removed.",
            common=True,
        ),
    ] = "x-forwarded"
    forwarded_fields: Annotated[
        tuple[str, ...],
        Row(
            choices("for", "proto", "host", "port", "prefix"),
            PROXIES,
            "What trusted proxies say in those fields. Name only what each of them sets or removes "
            "itself: what it passes through is the client's word, and a false host reaches links "
            "and caches.",
            common=True,
        ),
    ] = ("for", "proto")
    request_id_header: Annotated[
        str,
        Row(
            field_name(),
            PROXIES,
            "The field in which trusted proxies give a request its id, and in which their answer "
            "tells it, or off. An id of up to 128 letters, digits and -._~:/@=+;, is taken as it "
            "is, for the logs, the status page and poolsrv.request_id; otherwise the server makes "
            "one. Strangers give and are told none.",
            common=True,
        ),
    ] = "X-Request-ID"
    proxy_protocol: Annotated[
        str,
        Row(
            choice("off", "on"),
            PROXIES,
            "Require that each connection comes from a trusted proxy and begins with the PROXY "
            "protocol, version 1 or 2. What version 2 says of TLS becomes wsgi.url_scheme, HTTPS, "
            "SSL_PROTOCOL, SSL_CIPHER and SSL_CLIENT_VERIFY.",
            common=True,
        ),
    ] = "off"

    admin: Annotated[
        Address | None,
        Row(
            address(_ADMIN),
            OBSERVATION,
            "Where metrics, health checks and the status page are served, or off.",
            reloadable=False,
            common=True,
        ),
    ] = _ADMIN
    control: Annotated[
        str,
        Row(
            path("the path of a socket, off, or the pid of a running server", "PATH"),
            OBSERVATION,
            "Where the server takes commands (poolsrv status, reload, stop, ...), as a Unix socket "
            "for its own user and root: a path, or off. For commands, a path or the server's pid.",
            default="$RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR or a folder of its user in /tmp",
            reloadable=False,
            supervised=True,
            common=True,
        ),
    ] = ""
    log_level: Annotated[
        str,
        Row(
            choice("debug", "info", "warning", "error"),
            OBSERVATION,
            "The least severe messages to log.",
            reloadable=False,
            common=True,
        ),
    ] = "info"
    log_format: Annotated[
        str,
        Row(
            choice("text", "json"),
            OBSERVATION,
            "Log for readers or for programs.",
            reloadable=False,
            common=True,
        ),
    ] = "text"
    access_log: Annotated[
        str,
        Row(
            path("off, - or the path of a file", "FILE"),
            OBSERVATION,
            "Log each request to this file, to standard output (- or /dev/stdout), or not (off).",
            reloadable=False,
            common=True,
        ),
    ] = "off"

    # What the sections [group.NAME] of the file say, in the settings of a whole server; and in
    # those of one of its groups: which it is, of these.
    named: tuple["NamedGroup", ...] = ()
    group_name: str = DEFAULT_GROUP
    group_names: tuple[str, ...] = (DEFAULT_GROUP,)

    def own_mounts(self, called: bool = False) -> tuple[Mount, ...]:
        """Those of all_mounts that this group of processes answers itself."""
        return own_of(self.all_mounts(called), self.group_name)

    def all_mounts(self, called: bool = False) -> tuple[Mount, ...]:
        """All of them; `called`: the program gives the callable that is at /."""
        return with_parts(table(self.application, self.mount, called))

    @property
    def title(self) -> str:
        """What is served, for people."""
        if not self.mount:
            return self.application
        return ", ".join(str(mount) for mount in self.all_mounts())

    def __post_init__(self) -> None:
        if self.maintenance_bypass and self.maintenance_file is None:
            raise ConfigError(
                "maintenance-bypass: there is no maintenance without its file",
                "give --maintenance-file FILE, too",
            )
        statuses = [found.status for found in self.error_pages]
        for status in statuses:
            if statuses.count(status) > 1:
                raise ConfigError(
                    f"error-pages: there are two pages for {status}", "leave one of them out"
                )
        if not self.named:
            own = own_of(table(self.application, self.mount), self.group_name)
            check_interpreters(self.interpreters, self.threads, self.processes, own)
        if self.named and not self.processes:
            raise ConfigError(
                "processes: 0 is one process, and a section [group.NAME] needs its own",
                "leave one of them out",
            )
        if not self.named and (again := twice(table(self.application, self.mount))):
            raise ConfigError(
                f"mount: there are two applications at {again.host}{again.path}",
                "leave one of them out; APP alone is at /",
            )
        if names := [name for name in self.idle if ROWS[name].group == PRIVILEGES]:
            raise ConfigError(
                f"{key(names[0])}: with processes 0 nobody stays who keeps the rights that this "
                "gives up",
                "let whoever starts the server do it (User= and UMask= of systemd, USER of a "
                "Dockerfile), or give --processes 1",
            )
        if self.on_template_ready is not None and not self.preload:
            raise ConfigError(
                "on-template-ready: the template loads nothing without preload",
                "add --preload, or use on-worker-start",
            )
        if self.reload_on_change and self.user is not None:
            raise ConfigError(
                "reload-on-change is for development, and runs no watcher beside --user",
                "leave one of them out; poolsrv reload brings new code in production",
            )
        if self.proxy_protocol == "on" and not self.trust_proxy:
            raise ConfigError(
                "proxy-protocol is on, but no proxy is trusted: each connection would be refused",
                "name the network of the proxy: --trust-proxy 10.0.0.0/8",
            )

    @property
    def idle(self) -> list[str]:
        """The options, by field name, that were given and need a supervisor, if there is none."""
        if self.processes:
            return []
        return [
            name
            for name, row in ROWS.items()
            if row.supervised and getattr(self, name) != getattr(DEFAULTS, name)
        ]


@dataclass(frozen=True, slots=True)
class NamedGroup:
    """A section [group.NAME]: `settings` are the server's, but for what the section says.

    `application` is what the section names, and `owns_bind` is whether it says where to
    listen. With `on_demand` there are up to settings.processes, and none while nobody asks.
    """

    name: str
    settings: Settings
    application: str = ""
    owns_bind: bool = False
    on_demand: bool = False


DEFAULTS = Settings()


def _rows() -> dict[str, Row]:
    hints = get_type_hints(Settings, include_extras=True)
    return {
        option.name: hints[option.name].__metadata__[0]
        for option in dataclasses.fields(Settings)
        if hasattr(hints[option.name], "__metadata__")
    }


# By field name.
ROWS: Mapping[str, Row] = _rows()


def is_optional(name: str) -> bool:
    """May the value of this option be None?"""
    return type(None) in get_args(get_type_hints(Settings)[name])


def default_of(name: str) -> str:
    """The default as text, or its description; empty if there is none."""
    return ROWS[name].default or ROWS[name].kind.show(getattr(DEFAULTS, name))


def key(name: str) -> str:
    """The name of an option in the file: the flag without its dashes."""
    return name.rstrip("_").replace("_", "-")
