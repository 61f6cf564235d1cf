"""`poolsrv migrate`: what other servers' configurations become, and that nothing of them runs."""

import contextlib
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolsrv.errors import ConfigError
from poolsrv.migrate import apache_rules, gunicorn, migrate, uwsgi
from poolsrv.migrate.outcome import ALWAYS, Leave, Outcome, Rule, Take, rule_of
from poolsrv.settings.cpus import available_cpus
from poolsrv.settings.rows import ROWS, Settings, key
from poolsrv.settings.sources import Entry, read
from tests.server import ROOT

pytestmark = pytest.mark.once


def outcome_of(folder: Path, name: str, text: str, group: str = "") -> Outcome:
    file = folder / name
    file.write_text(text)
    return migrate(str(file), group)


def settings_of(folder: Path, outcome: Outcome) -> tuple[dict[str, Any], Settings]:
    """What is printed: the names and values as TOML, and the settings as a server reads them."""
    file = folder / "printed.toml"
    file.write_text(outcome.toml())
    reading = read({}, line=[Entry("config", "--config", str(file))])
    assert not reading.faults, reading.faults
    return tomllib.loads(file.read_text()), reading.settings


def reasons(outcome: Outcome) -> dict[str, str]:
    """Of the lines that are not carried over."""
    return {place.text: reason for place, reason in outcome.left}


# Real configurations


GUNICORN = """\
# A site behind nginx, as guides have it.
import multiprocessing
import os

bind = ["unix:/run/site/site.sock", "127.0.0.1:8001"]
backlog = 2048
workers = multiprocessing.cpu_count() * 2 + 1
worker_class = "gthread"
threads = int(os.environ.get("SITE_THREADS", "8"))
timeout = 30 * 2
graceful_timeout = 20
keepalive = 2
max_requests = 1000
max_requests_jitter = 50
preload_app = True
chdir = "/"
pythonpath = "/,/tmp"
raw_env = ["DJANGO_SETTINGS_MODULE=site.settings"]
umask = 0o007
accesslog = "-"
errorlog = "-"
loglevel = "critical"
forwarded_allow_ips = "10.0.0.1, 10.1.0.0/16"
limit_request_line = 4094
proc_name = f"{'site'}-web"
wsgi_app = "site.wsgi:application"
daemon = False
certfile = os.path.join("/etc", "site.pem")
if os.environ.get("DEBUG"):
    reload = True
    limit_request_fields = 10

def post_fork(server, worker):
    server.log.info("worker %s", worker.pid)

def when_ready(server):
    pass
"""


def test_gunicorn(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "gunicorn.conf.py", GUNICORN)
    printed, found = settings_of(tmp_path, outcome)
    assert printed == {
        "application": "site.wsgi:application",
        "bind": ["unix:/run/site/site.sock", "127.0.0.1:8001"],
        "backlog": 2048,
        "threads": 8,
        "request-timeout": 60,
        "graceful-timeout": 20,
        "keep-alive-timeout": 2,
        "max-requests": 1000,
        "jitter": 5,
        "preload": True,
        "chdir": "/",
        "pythonpath": ["/", "/tmp"],
        "umask": "0007",
        "access-log": "-",
        "log-level": "error",
        "trust-proxy": ["10.0.0.1", "10.1.0.0/16"],
        "limit-request-line": 4094,
        "environment": ["DJANGO_SETTINGS_MODULE=site.settings"],
    }
    assert found.processes == available_cpus()
    assert {text.split(" ")[0] for text in reasons(outcome)} == {
        *("workers", "proc_name", "certfile", "if", "def"),
    }
    text = outcome.toml()
    assert "here POOLSRV_THREADS does that" in text
    assert ":29: if os.environ.get" in text
    assert "reload_on_change" not in outcome.settings


UWSGI = """\
; as the guides for Django and nginx have it
[uwsgi]
project = site
username = nobody
base = /tmp

chdir = %(base)/%(project)
home = %(base)/venv
module = %(project).wsgi
callable = app
master = true
processes = %k
threads = 4
http-socket = :8000
socket = /run/%n.sock
chown-socket = %(username)
chmod-socket = 660
vacuum
uid = %(username)
env = DJANGO_SETTINGS_MODULE=%(project).settings
env = LANG=C.UTF-8
harakiri = 60
max-requests = 5000
max-worker-lifetime = 3600
reload-on-rss = 512
buffer-size = 65536
post-buffering = 8192
pythonpath = /tmp
pythonpath = /
touch-reload = %d%n.touch
static-map = /static=%(base)/static
static-map = /favicon.ico=%(base)/favicon.ico
static-map2 = /media/=%(base)
static-gzip-all = true
mount = /api=api:app
attach-daemon = memcached
stats = 127.0.0.1:9191
logto = $(HOME)/log
if-exists = /x
limit-post = 1
endif =
[other]
processes = 99
"""


def test_uwsgi(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "site.ini", UWSGI)
    printed, _ = settings_of(tmp_path, outcome)
    assert printed == {
        "application": "site.wsgi:app",
        "mount": [
            "/static=/tmp/static/",
            {"path": "/favicon.ico", "file": "/tmp/favicon.ico"},
            "/media=/tmp/media/",
            "/api=api:app",
        ],
        "chdir": "/tmp/site",
        "pythonpath": ["/tmp", "/"],
        "threads": 4,
        "bind": [":8000", "/run/site.sock"],
        "unix-mode": "0660",
        "unix-owner": "nobody",
        "user": "nobody",
        "request-timeout": 60,
        "max-requests": 5000,
        "max-age": 3600,
        "max-rss": "512MiB",
        "limit-request-field-size": 65535,
        "body-buffer": 8192,
        "reload-on-touch": [f"{tmp_path}/site.touch"],
        "admin": "127.0.0.1:9191",
        "environment": ["DJANGO_SETTINGS_MODULE=site.settings", "LANG=C.UTF-8"],
    }
    left = reasons(outcome)
    assert "whoever" not in left.get("project = site", "")
    assert set(left) == {
        "home = %(base)/venv",
        "processes = %k",
        "attach-daemon = memcached",
        "logto = $(HOME)/log",
        "limit-post = 1",
    }
    assert outcome.needless == ["master = true", "vacuum", "static-gzip-all = true"]
    assert "proxy_pass takes the place of uwsgi_pass" in outcome.toml()


APACHE = """\
LoadModule wsgi_module modules/mod_wsgi.so
Listen 80
Listen 443 https
WSGIPythonHome /srv/venv
LimitRequestBody 1048576
<VirtualHost *:80>
    ServerName www.example.org
    ServerAlias example.org
    WSGIDaemonProcess site user=nobody processes=3 threads=10 python-path=/:/tmp \\
        home=/tmp maximum-requests=10000 request-timeout=40 display-name=%{GROUP}
    WSGIProcessGroup site
    WSGIApplicationGroup %{GLOBAL}
    WSGIScriptAlias / "/srv/my site/site.wsgi"
    WSGIScriptAlias /tools/ /srv/tools.wsgi callable-object=tools
    Alias /static/ /srv/static/
    <Directory /srv>
        Require all granted
    </Directory>
</VirtualHost>
<VirtualHost *:443>
    ServerName api.example.org
    SSLEngine on
    WSGIScriptAlias / /srv/api.wsgi process-group=api
    WSGIDaemonProcess api threads=30
</VirtualHost>
"""


def test_apache(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "site.conf", APACHE)
    printed, _ = settings_of(tmp_path, outcome)
    assert printed == {
        "mount": [
            {"host": host, "path": path, "application": file, "group": group}
            for host, path, file, group in [
                ("www.example.org", "/", "/srv/my site/site.wsgi", "site"),
                ("example.org", "/", "/srv/my site/site.wsgi", "site"),
                ("www.example.org", "/tools", "/srv/tools.wsgi:tools", "site"),
                ("example.org", "/tools", "/srv/tools.wsgi:tools", "site"),
                ("api.example.org", "/", "/srv/api.wsgi", "api"),
            ]
        ]
        + ["www.example.org/static=/srv/static/", "example.org/static=/srv/static/"],
        "bind": ["0.0.0.0:80"],
        "reload-on-touch": ["auto"],
        "limit-request-body": 1048576,
        "group": {
            "site": {
                "chdir": "/tmp",
                "pythonpath": ["/", "/tmp"],
                "processes": 3,
                "threads": 10,
                "user": "nobody",
                "max-requests": 10000,
                "request-timeout": 40,
            },
            "api": {"processes": 1, "threads": 30},
        },
    }
    assert "TLS" in reasons(outcome)["SSLEngine on"]


def test_one_group_of_apache_may_be_a_server_of_its_own(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "site.conf", APACHE, "api")
    printed, _ = settings_of(tmp_path, outcome)
    assert printed == {
        "application": "/srv/api.wsgi",
        "bind": ["0.0.0.0:80"],
        "processes": 1,
        "threads": 30,
        "reload-on-touch": ["auto"],
        "limit-request-body": 1048576,
    }
    with pytest.raises(ConfigError, match="there are: site, api"):
        outcome_of(tmp_path, "site.conf", APACHE, "other")


def test_hosts_of_one_group_are_mounts(tmp_path: Path) -> None:
    text = """
    WSGIDaemonProcess all
    WSGIProcessGroup all
    WSGIScriptReloading Off
    <VirtualHost *:80>
        ServerName a.example.org:80
        ServerAlias *.a.example.org
        WSGIScriptAlias / /srv/a.wsgi
        Alias /files "/srv/my files"
        Alias /robots.txt /srv/robots.txt
        Alias /v1 /srv/site.v1/
        Alias /old /srv/site.v0
    </VirtualHost>
    <VirtualHost *:80>
        ServerName b.example.org
        WSGIScriptAlias /b /srv/b.wsgi
    </VirtualHost>
    """
    outcome = outcome_of(tmp_path, "httpd.conf", text)
    printed, _ = settings_of(tmp_path, outcome)
    assert printed["mount"] == [
        "a.example.org/=/srv/a.wsgi",
        "*.a.example.org/=/srv/a.wsgi",
        "b.example.org/b=/srv/b.wsgi",
        "a.example.org/files=/srv/my files/",
        "*.a.example.org/files=/srv/my files/",
        {"host": "a.example.org", "path": "/robots.txt", "file": "/srv/robots.txt"},
        {"host": "*.a.example.org", "path": "/robots.txt", "file": "/srv/robots.txt"},
        "a.example.org/v1=/srv/site.v1/",
        "*.a.example.org/v1=/srv/site.v1/",
    ]
    (left,) = [reason for line, reason in reasons(outcome).items() if "/old" in line]
    assert left.startswith("end the path of a folder with a slash")
    assert "reload-on-touch" not in printed


@pytest.mark.parametrize(
    ("name", "text"),
    [("gunicorn.conf.py", "bind = ':1'\n"), ("uwsgi.ini", "[uwsgi]\nhttp = :1\n")],
)
def test_their_defaults_that_an_application_may_rely_on(
    tmp_path: Path, name: str, text: str
) -> None:
    """An application that has always had its process to itself does not get threads unasked."""
    printed, _ = settings_of(tmp_path, outcome_of(tmp_path, name, text))
    assert printed == {"bind": [":1"], "processes": 1, "threads": 1}


# Each line of the tables


def _sample(field: str) -> str:
    """A value that this option may have, as text of a configuration."""
    special = {
        "bind": "127.0.0.1:1",
        "admin": "127.0.0.1:1",
        "trust_proxy": "10.0.0.1",
        "user": "nobody",
        "group": "nogroup",
        "unix_owner": "nobody",
        "unix_mode": "660",
        "umask": "0022",
        "log_level": "info",
        "pythonpath": "/",
        "chdir": "/",
        "mount": "/static=/srv/static",
        "environment": "NAME=value",
    }
    if field in special:
        return special[field]
    return "300" if isinstance(getattr(Settings(), field), int | float) else "x"


def _becomes(outcome: Outcome, rule: Rule) -> None:
    if isinstance(rule, Take):
        assert rule.field in outcome.settings, outcome.toml()
    elif rule == ALWAYS or rule.reason == ALWAYS.reason:
        assert outcome.needless
    else:
        assert rule.reason in [reason for _, reason in outcome.left]


@pytest.mark.parametrize("name", sorted(gunicorn.SETTINGS))
def test_each_setting_of_gunicorn(tmp_path: Path, name: str) -> None:
    rule = rule_of(name, gunicorn.RULES)
    value = repr("x")
    if isinstance(rule, Take):
        kind = ROWS[rule.field].kind
        sample = _sample(rule.field)
        value = "True" if kind.is_flag else repr(int(sample) if sample.isdecimal() else sample)
    text = f"{name} = {value}\n"
    if name == "max_requests_jitter":
        text += "max_requests = 1000\n"
    if name == "proxy_protocol":
        text = f"{name} = True\nforwarded_allow_ips = '10.0.0.1'\n"
    _becomes(outcome_of(tmp_path, "gunicorn.conf.py", text), rule)


@pytest.mark.parametrize("name", uwsgi.RULES)
def test_each_option_of_uwsgi(tmp_path: Path, name: str) -> None:
    rule = uwsgi.RULES[name]
    value = "true"
    if isinstance(rule, Take):
        flags = ("lazy-apps", "lazy")
        takes_number = ROWS[rule.field].kind.is_flag and name not in flags
        value = "1" if takes_number else "false" if name in flags else _sample(rule.field)
    _becomes(outcome_of(tmp_path, "uwsgi.ini", f"[uwsgi]\n{name} = {value}\n"), rule)


@pytest.mark.parametrize("name", apache_rules.PROCESS_OPTIONS)
def test_each_option_of_a_daemon_process(tmp_path: Path, name: str) -> None:
    rule = apache_rules.PROCESS_OPTIONS[name]
    value = _sample(rule.field) if isinstance(rule, Take) else "x"
    _becomes(outcome_of(tmp_path, "x.conf", f"WSGIDaemonProcess site {name}={value}\n"), rule)


@pytest.mark.parametrize("name", apache_rules.RULES)
def test_each_directive_of_apache(tmp_path: Path, name: str) -> None:
    rule = apache_rules.RULES[name]
    value = _sample(rule.field).replace("=", " ") if isinstance(rule, Take) else "x"
    _becomes(outcome_of(tmp_path, "x.conf", f"{name} {value}\n"), rule)


@pytest.mark.parametrize(
    "rules", [gunicorn.RULES, uwsgi.RULES, apache_rules.RULES, apache_rules.PROCESS_OPTIONS]
)
def test_rules_name_options_that_there_are(rules: dict[str, Rule]) -> None:
    fields = {rule.field for rule in rules.values() if isinstance(rule, Take)}
    assert fields <= ROWS.keys()
    for rule in rules.values():
        if isinstance(rule, Leave):
            words = rule.reason.replace("--", " ").replace(":", " ").split()
            pairs = zip(words, [*words[1:], ""], strict=True)
            named = {word for word, mark in pairs if mark == "="}
            assert named <= {*map(key, ROWS), "allow"}, rule.reason


# What cannot be known


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("workers = how_many()", "workers is computed: give its value, processes = ..."),
        ("workers, threads = 1, 2", "is set under a condition, or in a loop"),
        ("for timeout in range(3): pass", "is set under a condition, or in a loop"),
        ("bind = []\nbind.append('x:1')", "is set under a condition, or in a loop"),
        ("workers = os.environ['N']", "POOLSRV_PROCESSES or WEB_CONCURRENCY does it here"),
        ("bind = os.environ.get('B')", "POOLSRV_BIND or PORT does it here"),
        ("timeout = 'soon'", "give a duration"),
        ("user = 'nobody-of-this-name'", "there is no user"),
        ("forwarded_allow_ips = '*'", "name the networks of your proxies"),
        ("worker_class = 'gevent'", "poolsrv serves with threads"),
        ("limit_request_line = 0", "0 is no limit there"),
        ("timeout = '\\ud800'", "cannot be written as UTF-8"),
        ("post_fork = lambda server, worker: None", "on-worker-start"),
    ],
)
def test_what_is_not_known_is_named(tmp_path: Path, line: str, reason: str) -> None:
    outcome = outcome_of(tmp_path, "gunicorn.conf.py", f"import os\n{line}\n")
    assert any(reason in said for said in reasons(outcome).values()), outcome.toml()
    settings_of(tmp_path, outcome)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("timeout = 1 + 2 * 3", 7),
        ("half = 20\ntimeout = half // 2 + half", 30),
        ("timeout = int('40')", 40),
        ("timeout = min(90, 120)", 90),
        ("timeout = 10\ntimeout += 5", 15),
        ("timeout: int = 12", 12),
        ("timeout = False or 9", 9),
        ("timeout = 2 ** 5", 32),
    ],
)
def test_what_can_be_known_is(tmp_path: Path, line: str, value: int) -> None:
    outcome = outcome_of(tmp_path, "gunicorn.conf.py", line)
    assert settings_of(tmp_path, outcome)[0]["request-timeout"] == value


def test_options_that_need_others_are_left_with_the_reason(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "gunicorn.conf.py", "proxy_protocol = True\n")
    assert "no proxy is trusted" in reasons(outcome)["proxy_protocol = True"]
    settings_of(tmp_path, outcome)


# Files that are broken, or meant to harm


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("gunicorn.conf.py", "bind = 1\nworkers = = 2\n", ":2: is no Python"),
        ("gunicorn.conf.py", "bind = '\n", ":1: is no Python"),
        ("gunicorn.conf.py", "x = " + "(" * 5000, "is no Python"),
        ("uwsgi.ini", "http = :80\n", "has no section"),
        ("uwsgi.ini", "[uwsgi\n", ":1: a section ends with ]"),
        ("uwsgi.ini", "[uwsgi]\n= 1\n", ":2: has no name"),
        ("uwsgi.yaml", "uwsgi:\n", "only ini is read"),
        ("uwsgi.xml", "<uwsgi/>", "only ini is read"),
        ("site.conf", "<VirtualHost *:80>\n", ":1: the section virtualhost has no end"),
        ("site.conf", "\n</Directory>\n", ":2: </Directory> ends what is not open"),
        ("site.conf", 'Alias "/x\n', ":1: a quote is not closed"),
        ("site.conf", "<VirtualHost *:80\n", ":1: a section ends with >"),
        ("settings", "bind = 1", "nothing tells of which server"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str, fault: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        outcome_of(tmp_path, name, text)
    assert fault in str(raised.value)
    assert "\n  " in str(raised.value)  # the remedy


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_bytes(b"#" * (2**20 + 1))
    (tmp_path / "latin.py").write_bytes(b"# \n# \xe9\n")
    for name, fault in [
        ("large.py", "larger than a MiB"),
        ("latin.py", ":2: is not UTF-8"),
        ("missing.py", "No such file"),
        (".", "Is a directory"),
    ]:
        with pytest.raises(ConfigError, match=fault):
            migrate(str(tmp_path / name))


def test_nothing_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    text = f"""
import os
open({str(mark)!r}, "w")
workers = open({str(mark)!r}, "w").fileno()
bind = __import__("os").system("touch {mark}")
timeout = (lambda: open({str(mark)!r}, "w"))()
threads = int(os.system("touch {mark}"))
backlog = [open({str(mark)!r}, "w") for _ in "x"]
class X:
    open({str(mark)!r}, "w")
"""
    outcome = outcome_of(tmp_path, "gunicorn.conf.py", text)
    assert not mark.exists()
    assert not outcome.settings.keys() & {"bind", "processes", "threads", "backlog"}


@pytest.mark.parametrize(
    "text",
    [
        "a = 'x'\n" + "a = a + a\n" * 60 + "bind = a\n",
        "a = [1]\n" + "a = [a, a]\n" * 60 + "bind = a\n",
        "a = 10\n" + "a = a * a\n" * 60 + "timeout = a\n",
        "a = 1\n" + "a = f'{a}{a}'\n" * 60 + "bind = a\n",
        "timeout = 9 ** 9 ** 9\n",
        "timeout = " + "+".join("1" for _ in range(20_000)) + "\n",
        "timeout = " + "-" * 20_000 + "1\n",
    ],
)
def test_a_file_of_python_that_would_explode(tmp_path: Path, text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(ConfigError):  # it may be too deep for Python, too
        settings_of(tmp_path, outcome_of(tmp_path, "gunicorn.conf.py", text))
    assert time.process_time() - start < 5


def test_placeholders_that_would_explode(tmp_path: Path) -> None:
    lines = ["[uwsgi]", "a0 = x"]
    lines += [f"a{number + 1} = %(a{number})%(a{number})" for number in range(60)]
    lines += ["chdir = %(a60)"]
    outcome = outcome_of(tmp_path, "uwsgi.ini", "\n".join(lines))
    assert "chdir" not in outcome.settings


def test_a_value_cannot_leave_its_line(tmp_path: Path) -> None:
    """A comment ends with its line, whatever stands in the file that it quotes."""
    text = (
        '[uwsgi]\nenv = X=1\u2028user = "root"\n# \x0b\x0c\nroute = a\x0buser = b\x85c\n'
        'chdir = a\x7f\\"\n'
    )
    outcome = outcome_of(tmp_path, "uwsgi.ini", text)
    printed, _ = settings_of(tmp_path, outcome)
    assert printed == {
        "processes": 1,
        "threads": 1,
        "chdir": 'a\x7f\\"',
        "environment": ['X=1\u2028user = "root"'],
    }


def _words(*names: str) -> st.SearchStrategy[str]:
    text = st.text(max_size=20)
    return st.lists(st.one_of(st.sampled_from(names), text), max_size=12).map(" ".join)


LINES: dict[str, Callable[[], st.SearchStrategy[str]]] = {
    "gunicorn.conf.py": lambda: _words(
        *(
            "bind",
            "workers",
            "=",
            "'x'",
            "1",
            "[",
            "]",
            "(",
            ")",
            "+",
            "*",
            "if",
            ":",
            "os.environ",
        ),
        *("def post_fork(a):", "pass", "\n", "timeout", "umask", "user", ",", "-", "None", "True"),
    ),
    "uwsgi.ini": lambda: _words(
        *("\n", "=", "[uwsgi]", "mount", "module", "%(x)", "%d", "processes", "1", "/a", "if-env"),
        *("endif", "socket", "uid", "chmod-socket", "$(HOME)", "buffer-size", "stats", "umask"),
    ).map(lambda text: f"[uwsgi]\n{text}"),
    "site.conf": lambda: _words(
        *(
            "\n",
            "WSGIScriptAlias",
            "/",
            "/x.wsgi",
            "WSGIDaemonProcess",
            "a",
            "threads=2",
            "\\",
            '"',
        ),
        *("<VirtualHost *:80>", "</VirtualHost>", "ServerName", "Listen", "80", "User", "umask=0"),
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_whatever_is_read_what_is_printed_is_valid(tmp_path: Path, name: str) -> None:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(LINES[name]())
    def check(text: str) -> None:
        try:
            (tmp_path / name).write_text(text, errors="surrogatepass", newline="")
            outcome = migrate(str(tmp_path / name))
        except ConfigError as error:
            fault, remedy = error.args
            assert fault
            assert remedy
        else:
            settings_of(tmp_path, outcome)

    check()


# The command


def test_the_command_prints_the_file_and_says_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("bind = ':8080'\nworkers = f()\n")
    result = subprocess.run(
        [sys.executable, "-m", "poolsrv", "migrate", "gunicorn.conf.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert tomllib.loads(result.stdout) == {"bind": [":8080"], "threads": 1}
    assert result.stderr == (
        "poolsrv: 2 settings are carried over, 1 lines are not: each stands there with the reason\n"
    )


@pytest.mark.parametrize("words", [[], ["a", "b", "c"], ["missing.py"], ["--bind", "x"]])
def test_the_command_refuses(tmp_path: Path, words: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "poolsrv", "migrate", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("poolsrv: error: ")
