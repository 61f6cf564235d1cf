"""Every option from every source: precedence, units, refusals, origins, reference."""

import os
from pathlib import Path

import pytest
from cyclopts import App
from hypothesis import given
from hypothesis import strategies as st

from poolsrv.errors import ConfigError
from poolsrv.settings.kinds import Sources, seconds, size
from poolsrv.settings.rows import (
    DEFAULTS,
    FdAddress,
    Given,
    Settings,
    TcpAddress,
    UnixAddress,
    available_cpus,
    from_options,
    reference,
    report,
)

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No option from the environment or the folder that the tests run in."""
    for name in [name for name in os.environ if name.startswith("POOLSRV_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def parse(*arguments: str, **environ: str) -> tuple[Settings, Sources]:
    def command(settings: Given = DEFAULTS) -> Settings:
        return settings

    sources = Sources(environ)
    _, bound, _ = App(default_command=command, config=[sources]).parse_args(
        arguments, exit_on_error=False, print_error=False
    )
    return command(*bound.args, **bound.kwargs), sources


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
    settings, _ = parse(
        "app:app", "--bind", "localhost:1", "--bind", "unix:/s", POOLSRV_PYTHONPATH="/a b:/c"
    )
    assert settings.application == "app:app"
    assert settings.bind == (TcpAddress("localhost", 1), UnixAddress("/s"))
    assert settings.pythonpath == ("/a b", "/c")


def test_variables_of_the_build_are_no_options() -> None:
    parse(POOLSRV_BUILD="strict")


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (["--threads", "0"], {}, "--threads: '0' is not a whole number from 1 to 1024"),
        (["--threads", "1_0"], {}, "--threads: '1_0' is not a whole number from 1 to 1024"),
        (["--threads=-1"], {}, "--threads: '-1' is not a whole number from 1 to 1024"),
        (["--chdir", ""], {}, "--chdir: '' is not the path of a folder"),
        (["--bind", "a:1", "--bind", "a:1"], {}, "--bind: 'a:1' is given twice"),
        (
            [],
            {"POOLSRV_LOG_LEVEL": "loud"},
            "POOLSRV_LOG_LEVEL: 'loud' is not one of debug, info, warning, error",
        ),
        ([], {"POOLSRV_PRELOAD": "maybe"}, "POOLSRV_PRELOAD: 'maybe' is not true or false"),
        (
            [],
            {"POOLSRV_TREADS": "4"},
            "POOLSRV_TREADS: there is no such option; did you mean POOLSRV_THREADS?",
        ),
        (["--config", "no.toml"], {}, "no.toml: cannot be read: No such file or directory"),
    ],
)
def test_refusals_name_source_value_and_what_is_allowed(
    arguments: list[str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(*arguments, **environ)
    assert str(caught.value) == message
    assert caught.value.status == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("treads = 1", "poolsrv.toml: treads: there is no such option; did you mean threads?"),
        ("keep_alive_timeout = 1", "did you mean keep-alive-timeout?"),
        ("[serve]\nthreads = 1", "poolsrv.toml: serve: there is no such option"),
        ("threads = [1]", "poolsrv.toml: threads: [1] is not a whole number"),
        ("threads = true", "poolsrv.toml: threads: 'true' is not a whole number"),
        ("threads.x = 1", "poolsrv.toml: threads: {'x': 1} is not a whole number"),
        ("bind = []", "poolsrv.toml: bind: [] is not an address"),
        ("header-timeout = inf", "poolsrv.toml: header-timeout: 'inf' is not a duration"),
        ('config = "x"', "poolsrv.toml: config: there is no such option"),
        ("threads =", "poolsrv.toml: not a TOML file: "),
    ],
)
def test_refusals_in_a_file(text: str, message: str) -> None:
    write(text)
    with pytest.raises(ConfigError) as caught:
        parse()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *["", "8000", ":8000", "host", "host:", "host:65536", "host:-1", "host:+1", "::1:80"],
        *["[::1]", "[]:80", "[host]:80", "a b:80", "http://host:80", "unix:", "fd://", "fd://x"],
        *["unix:" + "x" * 108, "host:\uff11", "off"],
    ],
)
def test_addresses_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse("--bind", text)


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
    lines = report(*parse("--no-preload", "--admin", "off")).splitlines()
    rows = {line.split("  ", 1)[0]: line.split() for line in lines}
    assert rows["bind"] == ["bind", "a:1", "unix:/s", "poolsrv.toml:", "bind"]
    assert rows["preload"] == ["preload", "false", "--no-preload"]
    assert rows["admin"] == ["admin", "off", "--admin"]
    assert rows["keep-alive-timeout"] == ["keep-alive-timeout", "75s", "default"]
    assert rows["chdir"] == ["chdir", "-", "default"]


def test_the_reference_is_current() -> None:
    assert (ROOT / "SETTINGS.md").read_text() == reference(), "run `make docs`"


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
