"""What the exporter says of a server whose processes are in groups."""

import dataclasses
import json
import os
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from poolsrv import _core
from poolsrv.between.lifecycle import State
from poolsrv.between.scoreboard import Reader
from poolsrv.exporter.collector import PoolCollector, encode
from poolsrv.exporter.page import page
from poolsrv.exporter.reading import Reading, Source
from poolsrv.exporter.status import Verdict, deployable, ready, status
from tests.board import ABOUT, SECOND, Board

pytestmark = pytest.mark.once


@dataclasses.dataclass
class Server:
    """Two groups: `default`, with two workers, and `api`, with none yet."""

    default: Board
    api: Board
    source: Source

    def read(self, after: float = 0) -> Reading:
        return self.source.read(self.default.started_at + round(after * SECOND))


@pytest.fixture
def server() -> Iterator[Server]:
    fds = [_core.scoreboard_create(4, 3), _core.scoreboard_create(2, 5)]
    default, api = map(Board, fds)
    api.supervisor("started_at", default.started_at)
    readers = [Reader(fds[0], "default"), Reader(fds[1], "api")]
    default.spawn(0)
    default.spawn(1)
    yield Server(default, api, Source(readers, ABOUT))
    for fd in fds:
        os.close(fd)


def lines(reading: Reading, name: str) -> list[str]:
    registry = CollectorRegistry()
    registry.register(PoolCollector(lambda: reading))
    text, _ = encode(registry, "")
    return [line for line in text.decode().splitlines() if line.startswith(name)]


def test_metrics_have_a_series_for_each_group(server: Server) -> None:
    server.default.count(1, "requests", 7, "2xx")
    server.api.spawn(0)
    server.api.count(0, "requests", 5, "2xx")
    server.api.supervisor("queue_length", 3)
    reading = server.read()
    assert lines(reading, 'poolsrv_requests_total{group="default",status_class="2xx"}') == [
        'poolsrv_requests_total{group="default",status_class="2xx"} 7.0'
    ]
    assert 'poolsrv_requests_total{group="api",status_class="2xx"} 5.0' in lines(reading, "poolsrv")
    assert lines(reading, "poolsrv_queue_length{") == [
        'poolsrv_queue_length{group="default"} 0.0',
        'poolsrv_queue_length{group="api"} 3.0',
    ]
    assert lines(reading, "poolsrv_worker_up{") == [
        'poolsrv_worker_up{group="default",worker="0"} 1.0',
        'poolsrv_worker_up{group="default",worker="1"} 1.0',
        'poolsrv_worker_up{group="api",worker="0"} 1.0',
    ]


def test_what_is_the_process_s_has_one_series(server: Server) -> None:
    server.default.supervisor("accepted", 9)
    server.default.supervisor("faults", 2)
    server.default.supervisor("maintenance", 1)
    reading = server.read()
    assert lines(reading, "poolsrv_connections_accepted_total") == [
        "poolsrv_connections_accepted_total 9.0"
    ]
    assert lines(reading, "poolsrv_supervisor_faults_total") == [
        "poolsrv_supervisor_faults_total 2.0"
    ]
    assert lines(reading, "poolsrv_maintenance ") == ["poolsrv_maintenance 1.0"]
    assert len(lines(reading, "poolsrv_build_info{")) == 1


def test_a_server_with_one_group_has_no_label_for_it(server: Server) -> None:
    reading = server.default.read()
    assert not reading.groups
    assert not any("group=" in line for line in lines(reading, "poolsrv"))


def test_the_server_is_the_sum_of_its_groups(server: Server) -> None:
    server.read()
    server.api.spawn(1)
    server.api.count(1, "requests", 20, "2xx")
    server.default.count(0, "requests", 30, "5xx")
    server.default.supervisor("queue_length", 2)
    server.default.supervisor("queue_since", server.default.started_at + 9 * SECOND)
    server.api.supervisor("queue_length", 1)
    server.api.supervisor("queue_since", server.default.started_at + 6 * SECOND)
    found = status(server.read(10))
    assert (found.requests.total, found.requests.errors) == (50, 30)
    assert found.requests.per_second == 5
    assert (found.queue.length, found.queue.oldest_seconds) == (3, 4)
    assert found.threads.total == 3 + 3 + 5
    by_name = {group.name: group for group in found.groups}
    assert by_name["api"].requests.per_second == 2
    assert by_name["default"].queue.length == 2
    assert by_name["api"].threads.total == 5
    assert [(worker.group, worker.slot) for worker in found.workers] == [
        ("default", 0),
        ("default", 1),
        ("api", 1),
    ]


def test_a_server_is_ready_when_all_groups_are(server: Server) -> None:
    assert ready(server.read()) == Verdict(False, "api: no worker is ready (none has started)")
    server.api.spawn(0)
    server.api.spawn(1, State.STARTING)
    assert ready(server.read()) == Verdict(
        True, "default: 2 of 2 workers are ready; api: 1 of 2 workers are ready"
    )
    assert deployable(server.read()) == Verdict(False, "api: workers: 1 starting")


def test_a_group_that_waits_for_its_first_request_is_ready(server: Server) -> None:
    server.api.supervisor("wanted", 0)
    assert ready(server.read()).yes


def test_the_page_names_groups_and_their_slots(server: Server) -> None:
    server.api.spawn(1)
    found = status(server.read())
    text = page(found).decode()
    assert "<h2>Groups</h2>" in text
    assert ">api/1<" in text
    json.dumps(dataclasses.asdict(found))
    assert "<h2>Groups</h2>" not in page(status(server.default.read())).decode()
