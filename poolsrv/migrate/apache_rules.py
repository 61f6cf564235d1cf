"""What becomes of each directive of Apache, and of each option of WSGIDaemonProcess."""

import re
from collections.abc import Mapping

from poolsrv.migrate.outcome import ALWAYS, Leave, Refused, Rule, Take


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


TLS = Leave("TLS is the work of a proxy in front (nginx, Caddy, HAProxy, Apache itself)")
_PYTHON = Leave("start the poolsrv that is installed in this environment: VENV/bin/poolsrv")
_WRAP = Leave("write it as WSGI middleware, and name that: wrap = 'module:callable'")
_BUFFERS = Leave("there is no relay here that would have such buffers")
APACHES = Leave(
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
    "lang": Take("environment", lambda value: [f"LANG={value}"]),
    "locale": Take("environment", lambda value: [f"LC_ALL={value}"]),
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
