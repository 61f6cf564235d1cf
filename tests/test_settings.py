"""Every option from every source: precedence, units, refusals, origins, reference."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolsrv.errors import ConfigError
from poolsrv.settings import habits
from poolsrv.settings.addresses import FdAddress, TcpAddress, UnixAddress
from poolsrv.settings.command_line import split
from poolsrv.settings.cpus import available_cpus
from poolsrv.settings.habits import is_injected
from poolsrv.settings.kinds import seconds, size
from poolsrv.settings.reference import report
from poolsrv.settings.rows import DEFAULTS, ROWS, Settings, key
from poolsrv.settings.sources import Reading, from_options, read


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No option from the environment or the folder that the tests run in."""
    ours = [name for name in os.environ if name.startswith("POOLSRV_")]
    for name in [*ours, "PORT", "WEB_CONCURRENCY"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def parse(*arguments: str, **environ: str) -> tuple[Settings, Reading]:
    line = split(arguments)
    reading = read(environ, line=line.entries, faults=line.faults)
    if reading.faults:
        raise reading.faults[0]
    return reading.settings, reading


def write(text: str, name: str = "poolsrv.toml") -> None:
    Path(name).write_text(text)


def test_defaults() -> None:
    settings = from_options()
    assert settings == DEFAULTS
    assert settings.bind == (TcpAddress("127.0.0.1", 8000),)
    assert settings.admin == TcpAddress("127.0.0.1", 9464)
    assert settings.threads == 4
    assert 1 <= settings.processes <= len(os.sched_getaffinity(0))


def test_the_stronger_source_wins_and_is_named() -> None:
    write("threads = 1\nbacklog = 1\nqueue-size = 1\n")
    settings, sources = parse("--threads", "3", POOLSRV_THREADS="2", POOLSRV_BACKLOG="2")
    found = {name: sources.origin(name) for name in ("threads", "backlog", "queue_size", "chdir")}
    assert (settings.threads, settings.backlog, settings.queue_size) == (3, 2, 1)
    assert found == {
        "threads": "--threads",
        "backlog": "POOLSRV_BACKLOG",
        "queue_size": "poolsrv.toml: queue-size",
        "chdir": "default",
    }


def test_keywords_win_over_environment_and_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write("threads = 1\nbacklog = 1\n")
    monkeypatch.setenv("POOLSRV_THREADS", "2")
    settings = from_options(threads=3)
    assert (settings.threads, settings.backlog) == (3, 1)


def test_a_call_can_do_without_the_file() -> None:
    write("threads = 1\n")
    assert from_options(config=None).threads == 4


def test_keywords_are_python_values_or_text() -> None:
    settings = from_options(
        bind=[TcpAddress("::1", 80), "unix:/run/app.sock"],
        admin=None,
        preload=True,
        keep_alive_timeout="1.5m",
        body_timeout=2.5,
        limit_request_body="10MB",
    )
    assert settings.bind == (TcpAddress("::1", 80), UnixAddress("/run/app.sock"))
    assert settings.admin is None
    assert settings.preload is True
    assert (settings.keep_alive_timeout, settings.body_timeout) == (90.0, 2.5)
    assert settings.limit_request_body == 10_000_000


def test_values_of_a_file() -> None:
    write(
        """
        application = "shop:create()"
        bind = ["[::]:80", "fd://3"]
        admin = "off"
        preload = true
        header-timeout = 2.5
        body-buffer = "64KiB"
        """,
        "other.toml",
    )
    settings, sources = parse("--config", "other.toml")
    assert settings.application == "shop:create()"
    assert settings.bind == (TcpAddress("::", 80), FdAddress(3))
    assert settings.admin is None
    assert settings.preload is True
    assert (settings.header_timeout, settings.body_buffer) == (2.5, 65536)
    assert sources.origin("bind") == "other.toml: bind"


def test_repeatable_options_in_flags_and_variables() -> None:
    settings, _ = parse("--bind", "localhost:1", "--bind", "unix:/s", POOLSRV_PYTHONPATH="/a b:/c")
    assert settings.bind == (TcpAddress("localhost", 1), UnixAddress("/s"))
    assert settings.pythonpath == ("/a b", "/c")


def test_variables_of_the_build_are_no_options() -> None:
    parse(POOLSRV_BUILD="strict")


@pytest.mark.parametrize(
    ("arguments", "environ", "fault", "remedy"),
    [
        (["--threads", "0"], {}, "--threads: '0'", "give a whole number from 1 to 1024"),
        (["--threads", "1_0"], {}, "--threads: '1_0'", "give a whole number from 1 to 1024"),
        (["--threads=-1"], {}, "--threads: '-1'", "give a whole number from 1 to 1024"),
        (["--threads", "-1"], {}, "--threads: '-1'", "give a whole number from 1 to 1024"),
        (["--chdir", ""], {}, "--chdir: ''", "give the path of a folder"),
        ([], {"POOLSRV_LOG_LEVEL": "loud"}, "POOLSRV_LOG_LEVEL: 'loud'", "give one of debug, info"),
        ([], {"POOLSRV_PRELOAD": "maybe"}, "POOLSRV_PRELOAD: 'maybe'", "give true or false"),
        ([], {"PORT": "http"}, "PORT: ':http'", "the port is no number"),
        (["--bind", "a:99999"], {}, "--bind: 'a:99999'", "the highest port is 65535"),
        (["--queue-timeout", "3 s"], {}, "--queue-timeout: '3 s'", "such as 30, 30s"),
        (
            ["--queue-timeout", "3sec"],
            {},
            "--queue-timeout: '3sec'",
            "the units are ms, s, m, h, d",
        ),
    ],
)
def test_values_that_are_not_allowed(
    arguments: list[str], environ: dict[str, str], fault: str, remedy: str
) -> None:
    found, advice = refused(*arguments, **environ)
    assert found == f"{fault} is not allowed"
    assert remedy in advice


def refused(*arguments: str, **environ: str) -> tuple[str, str]:
    """Fault and remedy."""
    with pytest.raises(ConfigError) as caught:
        parse(*arguments, **environ)
    assert caught.value.status == 2
    fault, remedy = caught.value.args
    return fault, remedy


@pytest.mark.parametrize(
    ("arguments", "environ", "fault", "remedy"),
    [
        (
            [],
            {"POOLSRV_TREADS": "4"},
            "POOLSRV_TREADS: there is no such option",
            "did you mean POOLSRV_THREADS?",
        ),
        (["--thread=4"], {}, "--thread: there is no such option", "did you mean --threads?"),
        (["--no-prelaod"], {}, "--no-prelaod: there is no such option", "mean --no-preload?"),
        (["--xyz"], {}, "--xyz: there is no such option", "poolsrv serve --help lists all"),
        (["--threads", "--preload"], {}, "--threads: its value is missing", "write --threads 4"),
        (["--chdir"], {}, "--chdir: its value is missing", "write --chdir FOLDER"),
        (["--access-log"], {}, "--access-log: its value is missing", "write --access-log FILE"),
        (["--no-preload=1"], {}, "--no-preload: takes no value", "write --no-preload alone"),
        (["--threads", "1", "--threads", "2"], {}, "--threads: is given twice", "leave one"),
        (["--bind", "a:1", "--bind", "a:1"], {}, "--bind: 'a:1' is given twice", "leave one"),
        (["--config", "no.toml"], {}, "no.toml: cannot be read: No such file or directory", ""),
    ],
)
def test_names_and_forms_that_are_refused(
    arguments: list[str], environ: dict[str, str], fault: str, remedy: str
) -> None:
    found, advice = refused(*arguments, **environ)
    assert found == fault
    assert remedy in advice


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("treads = 1", "poolsrv.toml: treads: there is no such option\n  did you mean threads?"),
        ("keep_alive_timeout = 1", "did you mean keep-alive-timeout?"),
        ("[serve]\nthreads = 1", "poolsrv.toml: serve: there is no such option"),
        ("[serve]\nthreads = 1", "at the top of the file, in no section"),
        ("threads = [1]", "poolsrv.toml: threads: [1] is not allowed"),
        ("threads = true", "poolsrv.toml: threads: True is not allowed"),
        ("threads.x = 1", "poolsrv.toml: threads: {'x': 1} is not allowed"),
        ("bind = []", "poolsrv.toml: bind: [] is not allowed"),
        ("header-timeout = inf", "poolsrv.toml: header-timeout: inf is not allowed"),
        ("unix-mode = 660", "poolsrv.toml: unix-mode: 660 is not allowed\n  write 0660"),
        ('config = "x"', "poolsrv.toml: config: there is no such option"),
        ("threads =", "poolsrv.toml: not a TOML file: "),
    ],
)
def test_refusals_in_a_file(text: str, message: str) -> None:
    write(text)
    with pytest.raises(ConfigError) as caught:
        parse()
    assert message in str(caught.value)


def test_all_faults_are_found_at_once() -> None:
    write("treads = 1\nthreads = 0\n")
    line = split(["--bnid", "a:1", "--backlog", "x", "app:app"])
    reading = read({"POOLSRV_PRELOAD": "maybe"}, line=line.entries, faults=line.faults)
    places = sorted(fault.args[0].rpartition(":")[0] for fault in reading.faults)
    assert places == [
        "--backlog",
        "--bnid",
        "POOLSRV_PRELOAD",
        "poolsrv.toml: threads",
        "poolsrv.toml: treads",
    ]


def test_a_word_behind_an_unknown_option_is_not_judged() -> None:
    line = split(["--workers", "4", "--daemon", "app:app"])
    assert (line.operands, line.undecided) == ([], ["4", "app:app"])
    assert split(["-w4", "app:app"]).operands == ["app:app"]
    assert split(["--workers=4", "--", "--app"]).operands == ["--app"]


def test_a_file_of_another_editor() -> None:
    Path("poolsrv.toml").write_bytes("threads = 2\r\nunix-mode = 0o600\r\n".encode("utf-8-sig"))
    settings, _ = parse()
    assert (settings.threads, settings.unix_mode) == (2, 0o600)
    Path("poolsrv.toml").write_bytes("threads = 2".encode("utf-16"))
    assert refused() == ("poolsrv.toml: is not UTF-8", "save it in this encoding")


def test_paths_of_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    settings, _ = parse("--chdir", "~/shop", "--bind", "~/s", POOLSRV_PYTHONPATH="~/lib:/a")
    assert settings.chdir == "/home/ann/shop"
    assert settings.bind == (UnixAddress("/home/ann/s"),)
    assert settings.pythonpath == ("/home/ann/lib", "/a")
    _, remedy = refused("--chdir", "~nobody-of-this-name/shop")
    assert "no home folder" in remedy


def test_words_in_any_case() -> None:
    settings, _ = parse("--log-level", "INFO", POOLSRV_PRELOAD="True")
    assert (settings.log_level, settings.preload) == ("info", True)


def test_variables_of_platforms_have_the_lowest_rank() -> None:
    write("threads = 2")
    platform = {"PORT": "5000", "WEB_CONCURRENCY": "3"}
    settings, reading = parse(**platform)
    assert settings.bind == (TcpAddress("0.0.0.0", 5000),)
    assert settings.processes == 3
    assert [reading.origin(name) for name in ("bind", "processes")] == ["PORT", "WEB_CONCURRENCY"]
    write('bind = "localhost:1"')
    settings, reading = parse(POOLSRV_PROCESSES="1", **platform)
    assert (settings.bind, settings.processes) == ((TcpAddress("localhost", 1),), 1)
    assert parse(PORT="", WEB_CONCURRENCY="")[1].origin("bind") == "poolsrv.toml: bind"


def test_an_empty_variable_is_not_set() -> None:
    assert parse(POOLSRV_THREADS="", POOLSRV_TREADS="")[0].threads == 4


INJECTED = """
SERVICE_HOST=10.0.0.7
SERVICE_PORT=8000
SERVICE_PORT_HTTP=8000
PORT=tcp://10.0.0.7:8000
PORT_8000_TCP=tcp://10.0.0.7:8000
PORT_8000_TCP_PROTO=tcp
PORT_8000_TCP_PORT=8000
PORT_8000_TCP_ADDR=10.0.0.7
PORT_53_UDP=udp://10.0.0.7:53
NAME=/shop/poolsrv
ENV_PATH=/usr/bin
"""


@pytest.mark.parametrize("service", ["POOLSRV_", "POOLSRV_WEB_", "POOLSRV_THREADS_"])
def test_variables_of_a_service_of_our_name_are_none_of_ours(service: str) -> None:
    variables = dict(line.split("=") for line in INJECTED.split())
    settings, _ = parse(**{service + name: value for name, value in variables.items()})
    assert settings == DEFAULTS


def test_a_typo_is_no_variable_of_a_service() -> None:
    assert refused(POOLSRV_PORT="8000")[1].startswith("poolsrv calls it POOLSRV_BIND")
    assert refused(POOLSRV_THREAD="8")[1] == "did you mean POOLSRV_THREADS?"
    assert not any(is_injected(name.upper(), "8") for name in ROWS)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("-b", "poolsrv calls it --bind"),
        ("-w", "poolsrv calls it --processes"),
        ("-c", "poolsrv calls it --config"),
        ("-t", "poolsrv calls it --request-timeout"),
        ("--workers", "poolsrv calls it --processes"),
        ("--worker-class", "all workers are of one kind"),
        ("--harakiri", "poolsrv calls it --request-timeout"),
        ("--blocking-threads", "poolsrv calls it --threads"),
        ("--timeout-keep-alive", "poolsrv calls it --keep-alive-timeout"),
        ("--outbuf-high-watermark", "poolsrv calls it --response-buffer"),
        ("--port", "poolsrv calls it --bind, host and port in one: --bind 127.0.0.1:8000"),
        ("--wsgi-file", "poolsrv takes it without a flag: poolsrv serve module:callable"),
        ("--no-access-log", "did you mean --access-log?"),
        ("--no-capture-output", "the log is on standard error"),
        ("--no-proxy-headers", "poolsrv calls it --trust-proxy"),
        ("--ssl-ciphers", "TLS is the work of a proxy in front"),
        ("--no-http2-adaptive-window", "HTTP/2 is the work of a proxy in front"),
    ],
)
def test_names_of_other_servers_lead_to_ours(name: str, remedy: str) -> None:
    fault, advice = refused(name, "4")
    assert fault == f"{name}: there is no such option"
    assert advice.startswith(remedy)


def test_names_of_other_servers_in_each_source() -> None:
    assert refused(POOLSRV_WORKERS="4")[1] == "poolsrv calls it POOLSRV_PROCESSES"
    write("workers = 4")
    assert refused()[1] == "poolsrv calls it processes"
    write("")
    with pytest.raises(ConfigError, match=r"host: there is no such option\n.* bind, host and port"):
        from_options(host="localhost")


def test_no_name_of_another_server_hides_an_option() -> None:
    """An option that has come to poolsrv needs no row among the habits any more."""
    ours = {key(name) for name in ROWS} - {"application"}
    assert not ours & (set(habits._CALLED) | set(habits._SAID))
    assert not set(habits._CALLED) & set(habits._SAID)
    assert not any(name.startswith(prefix) for name in ours for prefix, _ in habits._FAMILIES)
    names = {*habits._CALLED, *habits._SAID}
    assert all(len(name) > 2 or (len(name) == 2 and name != "--") for name in names)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        *[
            ("", ""),
            ("host", ""),
            ("off", ""),
            ("unix:", ""),
            ("fd://", "the descriptor is"),
            ("fd://x", "the descriptor is"),
        ],
        *[
            ("host:-1", "the port is no"),
            ("host:+1", "the port is no"),
            ("[host]:80", ""),
            ("a b:80", ""),
            ("host:\uff11", "the port is no"),
        ],
        *[("[]:80", ""), ("host:", "the port is missing: host:8000")],
        ("a.example", "the port is missing: a.example:8000"),
        ("host:65536", "the highest port is 65535"),
        ("99999", "the highest port is 65535"),
        ("[:]:80", ": is no IPv6 address"),
        ("::1:80", "write an IPv6 address in brackets: [::1]:80 or [::1:80]:8000"),
        ("::", "write an IPv6 address in brackets: [::]:8000"),
        ("http://host:80/", "leave http:// out: host:80"),
        ("https://host:80", "TLS is the work of a proxy in front: host:80"),
        ("unix:/" + "x" * 107, "its path has 108 bytes, and the kernel takes 107"),
        ("/" + "é" * 54, "its path has 109 bytes, and the kernel takes 107"),
    ],
)
def test_addresses_that_are_refused(text: str, remedy: str) -> None:
    assert refused("--bind", text)[1].startswith(remedy or "give an address: host:port")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8000", TcpAddress("127.0.0.1", 8000)),
        (":8000", TcpAddress("0.0.0.0", 8000)),
        ("*:8000", TcpAddress("0.0.0.0", 8000)),
        ("127.0.0.1", TcpAddress("127.0.0.1", 8000)),
        ("localhost", TcpAddress("localhost", 8000)),
        ("localhost:80", TcpAddress("localhost", 80)),
        ("[::]", TcpAddress("::", 8000)),
        ("[::]:80", TcpAddress("::", 80)),
        ("/tmp/x.sock", UnixAddress("/tmp/x.sock")),
        ("./x.sock", UnixAddress("./x.sock")),
        ("unix:x.sock", UnixAddress("x.sock")),
        ("unix:///tmp/x.sock", UnixAddress("/tmp/x.sock")),
    ],
)
def test_what_an_address_leaves_out(text: str, value: TcpAddress | UnixAddress) -> None:
    assert parse("--bind", text)[0].bind == (value,)


def test_the_admin_address_has_a_port_of_its_own() -> None:
    assert parse("--admin", "localhost")[0].admin == TcpAddress("localhost", 9464)


@pytest.mark.parametrize(
    "text", ["a.example:0", "[::1]:80", "[fe80::1%eth0]:80", "unix:/a", "fd://0"]
)
def test_an_address_is_shown_as_it_is_given(text: str) -> None:
    settings, _ = parse("--admin", text)
    assert str(settings.admin) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("30", 30), ("30s", 30), ("1.5m", 90), ("250ms", 0.25), ("2h", 7200), ("1d", 86400)],
)
def test_durations(text: str, value: float) -> None:
    assert parse("--graceful-timeout", text)[0].graceful_timeout == value


@pytest.mark.parametrize(
    "text", ["-1", "1e3", "nan", "inf", "1 s", "1M", "s", "", ".5", "1_0", "1y"]
)
def test_durations_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(f"--graceful-timeout={text}")


def test_a_limit_that_lets_nobody_through_is_refused() -> None:
    with pytest.raises(ConfigError, match="from 1ms to 365d"):
        parse("--header-timeout", "0")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8190", 8190),
        ("64KiB", 65536),
        ("1GiB", 2**30),
        ("10MB", 10**7),
        ("1.5KiB", 1536),
        ("5B", 5),
    ],
)
def test_sizes(text: str, value: int) -> None:
    assert parse("--limit-request-body", text)[0].limit_request_body == value


@pytest.mark.parametrize("text", ["-1", "1.5", "1K", "1kib", "1e3", "", "9999999TiB", "0x10"])
def test_sizes_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(f"--limit-request-body={text}")


@given(st.integers(0, 10**12))
def test_a_size_is_shown_as_it_can_be_given(value: int) -> None:
    kind = size(0, 10**12)
    assert kind.parse(kind.show(value)) == value


@given(st.integers(0, 10**9))
def test_a_duration_is_shown_as_it_can_be_given(milliseconds: int) -> None:
    kind = seconds(0, 10**6)
    assert kind.parse(kind.show(milliseconds / 1000)) == milliseconds / 1000


def test_the_report_shows_each_option_with_its_origin() -> None:
    write('bind = ["a:1", "unix:/s"]')
    lines = report(parse("--no-preload", "--admin", "off")[1]).splitlines()
    rows = {line.split("  ", 1)[0]: line.split() for line in lines}
    assert rows["bind"] == ["bind", "a:1", "unix:/s", "poolsrv.toml:", "bind"]
    assert rows["preload"] == ["preload", "false", "--no-preload"]
    assert rows["admin"] == ["admin", "off", "--admin"]
    assert rows["keep-alive-timeout"] == ["keep-alive-timeout", "75s", "default"]
    assert rows["chdir"] == ["chdir", "-", "default"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 4),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "300000 100000",
                "sys/fs/cgroup/a/cpu.max": "100000 100000",
            },
            1,
        ),
        ({"proc/self/cgroup": "0::/not/mounted\n", "sys/fs/cgroup/cpu.max": "20000 100000"}, 1),
        (
            {
                "proc/self/cgroup": "3:memory:/m\n2:cpu,cpuacct:/c\n",
                "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "2:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            4,
        ),
    ],
)
def test_cpus_by_cgroup(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cpus(tmp_path) == expected
