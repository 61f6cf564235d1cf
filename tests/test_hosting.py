"""A machine of many small sites: groups that start when somebody visits, and end later."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.client import Client, head
from tests.server import Server

pytestmark = pytest.mark.once

VISITED = 20

SITE = """
def application(environ, start_response):
    body = {name!r}.encode() + b" at " + environ["PATH_INFO"].encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@contextmanager
def hosting(directory: Path, count: int, more: str = "") -> Iterator[Server]:
    """So many sites, each in a group of its own."""
    directory.mkdir()
    sections = []
    for i in range(count):
        (directory / f"site{i}.wsgi").write_text(SITE.format(name=f"site{i}"))
        sections.append(f"""
[group.site{i}]
processes = "0..1"
[[mount]]
host = "site{i}.example.org"
group = "site{i}"
application = "{directory}/site{i}.wsgi"
""")
    file = directory / "poolsrv.toml"
    file.write_text(f"threads = 2\n{more}\n{''.join(sections)}")
    made = Server("", directory, {}, {"config": file})
    try:
        made.wait_until_serving()
        yield made
        assert made.stop(60) == 0, made.log()
        made.wait_until(lambda: not made.living(), 20)
    finally:
        made.end()


def visit(server: Server, number: int) -> None:
    with Client(server.address, timeout=60) as client:
        client.send(f"GET /x HTTP/1.1\r\nHost: site{number}.example.org\r\n\r\n".encode())
        assert client.receive().body == f"site{number} at /x".encode()


def memory(server: Server) -> int:
    """KiB of all processes; what several share counts once."""
    total = 0
    for process in server.living():
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        (share,) = re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)
        total += int(share)
    return total


def used(directory: Path, count: int) -> tuple[int, int, int]:
    """(processes, memory, memory of the supervisor alone) when some of the sites were visited."""
    with hosting(directory, count) as server:
        for number in range(VISITED):
            visit(server, number * (count // VISITED))
        own = Path(f"/proc/{server.pid}/smaps_rollup").read_text()
        (share,) = re.findall(r"^Pss: +(\d+) kB", own, re.MULTILINE)
        return len(server.living()), memory(server), int(share)


def test_sites_that_nobody_visits_take_next_to_nothing(tmp_path: Path) -> None:
    """Each of them less than a tenth of one that is visited."""
    few = used(tmp_path / "few", VISITED)
    many = used(tmp_path / "many", 10 * VISITED)
    print(f"20 sites, all visited: {few}; 200 sites, 20 visited: {many}")
    assert many[0] == few[0]
    # One that sleeps has its settings in the supervisor and its figures in the exporter: some
    # 120 KiB. And what the supervisor writes to between two forks the processes of each site
    # that is awake keep as it was, together: that is most of it.
    asleep = (many[1] - few[1]) / (9 * VISITED)
    assert asleep < few[1] / VISITED / 10, (few, many)


def test_a_site_sleeps_again_and_wakes_again(tmp_path: Path) -> None:
    with hosting(tmp_path / "sites", 3, 'idle-timeout = "1s"') as server:
        alone = len(server.living())
        for _ in range(2):
            for number in range(3):
                visit(server, number)
            server.wait_until(lambda: len(server.living()) == alone, 30)


def test_strangers_wake_no_site_but_the_first(tmp_path: Path) -> None:
    """A worker has to say what is nobody's: of all groups the first one has it."""
    with hosting(tmp_path / "sites", 3) as server:
        for host in ("nobody.example.org", "", "site0.example.org.evil"):
            with Client(server.address) as client:
                client.send(f"GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert client.receive().status == 421
        with Client(server.address) as client:
            client.send(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
            assert client.receive().status == 400
        with Client(server.address) as client:
            client.send(head("GET", "/x", "Host: site2.example.org"))  # twice
            assert client.receive().status == 400
        assert {row["group"] for row in server.status()["workers"]} == {"site0"}
