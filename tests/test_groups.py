"""Groups of processes: their sections of the file, and what each comes to."""

from pathlib import Path

import pytest

from poolsrv.errors import ConfigError
from poolsrv.estate import Routes, reloaded
from poolsrv.settings.groups import Group, groups_of
from poolsrv.settings.mounts import Mount
from poolsrv.settings.rows import Settings
from poolsrv.settings.sources import Reading, read
from poolsrv.worker.applications import core_mounts, core_routes


def _read(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Reading:
    file = tmp_path / "poolsrv.toml"
    file.write_text(text)
    return read({**(environ or {}), "POOLSRV_CONFIG": str(file)})


def _groups(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> dict[str, Group]:
    reading = _read(tmp_path, text, environ)
    assert not reading.faults
    return {group.name: group for group in groups_of(reading.settings)}


def _mounted(group: Group) -> list[str]:
    return [str(mount) for mount in group.settings.all_mounts()]


def test_a_server_without_sections_is_one_group() -> None:
    settings = Settings("m:app", mount=(Mount("/api", application="m:api"),))
    assert groups_of(settings) == (Group(0, "default", settings),)


def test_a_group_has_what_its_section_says_and_the_rest_of_the_top(tmp_path: Path) -> None:
    found = _groups(
        tmp_path,
        """
        application = "m:app"
        threads = 3
        queue-size = 7
        [[mount]]
        path = "/api"
        application = "m:api"
        group = "api"
        [group.api]
        threads = 9
        processes = 5
        pythonpath = ["/srv/api"]
        environment = { MODE = "prod", "B.C" = "a=b" }
        """,
        {"POOLSRV_PROCESSES": "2"},
    )
    default, api = found["default"], found["api"]
    assert (default.number, default.settings.threads, default.settings.processes) == (0, 3, 2)
    assert (api.number, api.settings.threads, api.settings.processes) == (1, 9, 5)
    assert default.settings.queue_size == api.settings.queue_size == 7
    assert [str(variable) for variable in api.settings.environment] == ["MODE=prod", "B.C=a=b"]
    assert default.settings.environment == default.settings.pythonpath == ()
    assert not api.on_demand


def test_groups_that_share_listeners_know_all_mounts_and_load_their_own(tmp_path: Path) -> None:
    found = _groups(
        tmp_path,
        """
        application = "m:app"
        [[mount]]
        path = "/api"
        application = "m:api"
        group = "api"
        [[mount]]
        path = "/static"
        folder = "/srv/static"
        [group.api]
        """,
    )
    everything = ["/=m:app", "/api=m:api", "/static=/srv/static"]
    assert _mounted(found["default"]) == _mounted(found["api"]) == everything
    assert list(map(str, found["api"].settings.own_mounts())) == everything[1:]
    api = found["api"].settings
    numbers = [
        (mount[1], mount[4], mount[6])  # path, application, group
        for mount in core_mounts(api.all_mounts(), api.group_name, api.group_names)
    ]
    assert numbers == [(b"", -1, 0), (b"/api", 0, 1), (b"/static", -1, 1)]
    routes = core_routes(api.all_mounts(), api.group_names)
    assert routes == ((b"", b"", 0), (b"", b"/api", 1), (b"", b"/static", -1))


def test_groups_have_one_table_of_what_they_agree_about(tmp_path: Path) -> None:
    """Also when each has been reloaded: there may be hundreds, with as many mounts."""
    text = """
        application = "m:app"
        [group.api]
        [[mount]]
        path = "/api"
        application = "m:api"
        group = "api"
    """
    first, again = _groups(tmp_path, text), _groups(tmp_path, text)
    routes = Routes()
    tables = set()
    for group in first.values():
        given = reloaded(group, tuple(again.values()), shares=True)
        assert given.mount is first["default"].settings.mount
        assert given.group_names is first["default"].settings.group_names
        for settings in (group.settings, given):
            tables.add(routes.of(settings.all_mounts(), settings.group_names))
    assert len(tables) == 1
    files = '[[mount]]\npath = "/s"\nfolder = "/srv/s"\n'
    other = reloaded(first["api"], tuple(_groups(tmp_path, text + files).values()), shares=True)
    assert routes.of(other.all_mounts(), other.group_names) not in tables


def test_a_group_that_says_where_to_listen_is_reached_there_alone(tmp_path: Path) -> None:
    found = _groups(
        tmp_path,
        """
        application = "m:app"
        [group.admin]
        application = "m:admin"
        bind = "127.0.0.1:9000"
        """,
    )
    assert found["admin"].owns_bind
    assert not found["default"].owns_bind
    assert list(map(str, found["admin"].settings.bind)) == ["127.0.0.1:9000"]
    assert _mounted(found["admin"]) == ["/=m:admin"]
    assert _mounted(found["default"]) == ["/=m:app"]


def test_the_default_group_is_there_if_anything_is_in_it(tmp_path: Path) -> None:
    sections = '[group.a]\napplication = "m:a"\nbind = "127.0.0.1:9000"\n'
    assert list(_groups(tmp_path, sections)) == ["a"]
    folder = f'[[mount]]\npath = "/s"\nfolder = "/s"\n{sections}'
    assert list(_groups(tmp_path, folder)) == ["default", "a"]
    reading = _read(tmp_path, sections)
    assert [group.name for group in groups_of(reading.settings, called=True)] == ["default", "a"]


def test_the_default_group_may_have_a_section(tmp_path: Path) -> None:
    found = _groups(
        tmp_path,
        """
        application = "m:app"
        threads = 3
        [group.default]
        threads = 6
        [group.a]
        bind = "127.0.0.1:9000"
        application = "m:a"
        """,
    )
    assert (found["default"].number, found["default"].settings.threads) == (0, 6)
    assert found["a"].settings.threads == 3


def test_processes_from_none_on(tmp_path: Path) -> None:
    found = _groups(tmp_path, '[group.a]\napplication = "m:a"\nprocesses = "0..3"\n')
    assert found["a"].on_demand
    assert found["a"].settings.processes == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[group.a]\nprocesses = 0", '"0..1" is one, and only while it is asked'),
        ('[group.a]\nprocesses = "1..3"', "give a whole number"),
        ('[group.a]\nadmin = "off"', "write it at the top of the file"),
        ("[[group.a.mount]]\npath = '/'", '[[mount]] with group = "a"'),
        ("[group.a]\nthread = 3", "did you mean threads?"),
        ('[group.A]\napplication = "m:a"', "up to 32 small letters"),
        ("[group]\na = 5", "write a section [group.a]"),
        ("[group.a]", "nothing is served by this group"),
        ('[group.a]\napplication = "m:a"\n[[mount]]\npath="/x"\napplication = "m:x"\ngroup = "b"',
         "write a section [group.b], or name one of default, a"),
        ('application = "m:b"\n[group.a]\napplication = "m:a"', "there are two applications at /"),
        ('processes = 0\n[group.a]\nprocesses = 1\napplication = "m:a"', "leave one of them out"),
        ('[group.a]\napplication = "m:a"\nenvironment = { N = 5 }', "as text, in quotes"),
        ('[group.a]\napplication = "m:a"\nproxy-protocol = "on"', "top of the file"),
    ],
)  # fmt: skip
def test_sections_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (fault,) = _read(tmp_path, text).faults
    assert isinstance(fault, ConfigError)
    assert words in str(fault)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("PYTHONPATH=/a", "given with pythonpath"),
        ("PYTHONOPTIMIZE=2", "where poolsrv is started"),
        ("PYTHONUTF8=1", "where poolsrv is started"),
        ("=a", "give NAME=VALUE"),
        ("A", "give NAME=VALUE"),
    ],
)
def test_variables_that_are_refused(text: str, words: str) -> None:
    (fault,) = read({"POOLSRV_ENVIRONMENT": text}).faults
    assert words in str(fault)
