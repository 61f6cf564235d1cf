"""What options of other servers are called here, as a page: docs/from-other-servers.md.

`python -m poolsrv.commands.moving` writes it. What stands in the tables is what somebody reads who
gives such an option to poolsrv (settings/habits.py), or what `poolsrv migrate` makes of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from poolsrv.migrate import apache_rules, gunicorn, uwsgi
from poolsrv.migrate.outcome import Rule, Take, rule_of
from poolsrv.settings.habits import remedy
from poolsrv.settings.rows import ROWS, key

PAGE = "docs/from-other-servers.md"


@dataclass(frozen=True, slots=True)
class _Table:
    """What `poolsrv migrate` makes of the names in a file."""

    title: str
    names: tuple[str, ...]
    rules: Mapping[str, Rule]


@dataclass(frozen=True, slots=True)
class _Server:
    """`options` as their own manual writes them; `here` where one name has two meanings."""

    title: str
    text: str
    options: str
    tables: tuple["_Table", ...]
    here: Mapping[str, str] = field(default_factory=dict)


_SERVERS = (
    _Server(
        "gunicorn",
        """\
```
gunicorn -w 4 --threads 8 -b 0.0.0.0:8000 mysite.wsgi
poolsrv serve mysite.wsgi --processes 4 --threads 8 --bind 0.0.0.0:8000
```

- Every worker has threads. You choose no worker class.
- A connection goes only to a worker with a free thread. A slow client holds no thread.
- gunicorn.conf.py becomes `poolsrv.toml`. [Hooks](HOOKS.md) are named there: for `post_fork` take
  `--on-worker-start`, for `worker_exit` take `--on-worker-stop`.""",
        "-b --bind -w --workers --threads -k --worker-class --worker-connections -t --timeout "
        "--graceful-timeout --keep-alive --max-requests --max-requests-jitter --preload --reload "
        "--chdir -c --config --pythonpath -e --env -u --user -g --group -m --umask -p --pid -D "
        "--daemon --backlog --access-logfile --access-logformat --error-logfile --log-level "
        "--log-config --capture-output --statsd-host --forwarded-allow-ips --proxy-allow-ips "
        "--proxy-protocol --limit-request-line --limit-request-fields "
        "--limit-request-field_size --certfile --keyfile --worker-tmp-dir --name --check-config "
        "--print-config",
        (_Table("In `gunicorn.conf.py`", tuple(sorted(gunicorn.SETTINGS)), gunicorn.RULES),),
        {"-p": "`--pid-file`", "-m": "`--umask`"},
    ),
    _Server(
        "uWSGI",
        """\
```
uwsgi --http-socket :8000 --master --processes 4 --threads 8 --module mysite.wsgi
poolsrv serve mysite.wsgi --processes 4 --threads 8 --bind :8000
```

- poolsrv speaks HTTP. In nginx, `proxy_pass` takes the place of `uwsgi_pass`
  ([deploy.md](deploy.md#nginx)).
- There is no cache, spooler, mule, cron or emperor. Other programs do this.""",
        "http http-socket socket listen processes workers threads master module wsgi-file callable "
        "chdir virtualenv pythonpath harakiri max-requests max-worker-lifetime reload-on-rss "
        "evil-reload-on-rss buffer-size post-buffering limit-post lazy-apps cheaper die-on-term "
        "vacuum uid gid chmod-socket chown-socket touch-reload py-autoreload static-map stats "
        "logto log-format req-logger http-timeout http-keepalive socket-timeout "
        "worker-reload-mercy enable-threads single-interpreter need-app env daemonize pidfile",
        (_Table("In `uwsgi.ini`", tuple(uwsgi.RULES), uwsgi.RULES),),
        {"listen": "`--backlog`", "log-format": "`--log-format`, which is text or json"},
    ),
    _Server(
        "mod_wsgi",
        """\
```
WSGIDaemonProcess site processes=4 threads=8 python-home=/srv/venv home=/srv/site
/srv/venv/bin/poolsrv serve site.wsgi --chdir /srv/site --processes 4 --threads 8
```

- `.wsgi` files work as they are. Their callable is called `application`.
- Apache may stay in front, as a proxy ([deploy.md](deploy.md#apache)). It then needs no Python.
- The options are those of `WSGIDaemonProcess`.""",
        "processes threads user group umask home python-home python-path listen-backlog "
        "queue-timeout request-timeout socket-timeout startup-timeout graceful-timeout "
        "shutdown-timeout deadlock-timeout inactivity-timeout maximum-requests restart-interval "
        "memory-limit display-name lang locale",
        (
            _Table(
                "Options of `WSGIDaemonProcess`",
                tuple(apache_rules.PROCESS_OPTIONS),
                apache_rules.PROCESS_OPTIONS,
            ),
            _Table("Directives of Apache", tuple(apache_rules.RULES), apache_rules.RULES),
        ),
        {"home": "`--chdir`"},
    ),
)

_HEAD = """\
# From other servers

Written by `python -m poolsrv.commands.moving`.

`poolsrv migrate` reads the configuration of gunicorn, uWSGI or Apache with mod_wsgi, and prints
a `poolsrv.toml`:

```
poolsrv migrate gunicorn.conf.py > poolsrv.toml
poolsrv check
```

It executes nothing of what it reads. Each setting has the line that it comes from. What is not
carried over stands at the end with the reason: what is computed when the file runs, what is set
under a condition, and what poolsrv has not. Of uWSGI's formats it reads ini, and of Apache the
lines about WSGI, names of hosts, limits and addresses. Each `WSGIDaemonProcess` becomes a
[group](groups.md) of processes.

You can also ask poolsrv itself. Give it an option of gunicorn, uWSGI, uvicorn, granian, waitress
or mod_wsgi, and its message says what to write instead.

`poolsrv check APP` finds all such options at once, in `poolsrv.toml` and in the environment too.
"""


def page() -> str:
    """The text of the page."""
    lines = [_HEAD]
    for server in _SERVERS:
        lines += [f"## {server.title}", "", server.text, "", "| There | Here |", "| --- | --- |"]
        rows = [(_here(server, name), f"`{name}`") for name in server.options.split()]
        lines += _grouped(rows)
        for table in server.tables:
            lines += ["", f"{table.title}, as `poolsrv migrate` reads it:", ""]
            lines += ["| There | In `poolsrv.toml` |", "| --- | --- |"]
            ruled = [(_carried(rule_of(name, table.rules)), f"`{name}`") for name in table.names]
            lines += _grouped(sorted(ruled))
        lines.append("")
    return "\n".join(lines)


def _grouped(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Rows of neighbours that lead to the same are one."""
    return [
        f"| {', '.join(name for _, name in alike)} | {here} |"
        for here, alike in groupby(rows, itemgetter(0))
    ]


def _carried(rule: Rule) -> str:
    if not isinstance(rule, Take):
        return rule.reason.replace("|", "\\|")
    note = f"; {rule.note}" if rule.note else ""
    return f"`{key(rule.field)}`{note}"


def _here(server: _Server, name: str) -> str:
    field = name.removeprefix("--").replace("-", "_")
    if said := server.here.get(name):
        return said
    if field in ROWS:
        return _flag(field)
    said = remedy(name, _flag, ROWS).removeprefix("poolsrv calls it ")
    return said.replace("|", "\\|") or "nothing like it"


def _flag(field: str) -> str:
    return "APP" if field == "application" else f"`--{key(field)}`"


if __name__ == "__main__":
    Path(PAGE).write_text(page())
