"""From the scoreboard to what Prometheus gets."""

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as parse_text

from poolsrv import _core
from poolsrv.between.lifecycle import State
from poolsrv.between.scoreboard import (
    BOUNDS,
    FIELDS,
    LAYOUTS,
    THREAD,
    UPPERS,
    Kind,
    Reader,
    Row,
    total,
)
from poolsrv.exporter.collector import OPENMETRICS, TEXT, PoolCollector, encode
from poolsrv.exporter.metrics import METRICS, Histogram, Metric, Value
from poolsrv.exporter.processes import CpuTime, Usage, usage
from poolsrv.exporter.reading import Reading
from tests.board import SECOND, Board, label_values, place_of

pytestmark = pytest.mark.once

# prometheus_client gives it no types.
parse_openmetrics: Callable[[str], Iterable[Family]] = (
    openmetrics_parser.text_string_to_metric_families
)


@pytest.fixture
def board() -> Iterator[Board]:
    fd = _core.scoreboard_create(3, 4)
    yield Board(fd)
    os.close(fd)


def metric(name: str) -> Metric:
    return next(metric for metric in METRICS if metric.name == name)


def samples(name: str, reading: Reading) -> dict[tuple[str, ...], Value]:
    return dict(metric(name).samples(reading))


# The table


def test_the_fields_of_a_row_lie_side_by_side() -> None:
    for layout in LAYOUTS.values():
        end = 0
        for field in layout.fields.values():
            assert field.index == end
            end += field.words
        assert layout.words == end


def test_a_label_has_a_value_for_each_word() -> None:
    for field in FIELDS:
        assert len(field.values) == (field.words if field.label else 0)


def test_a_histogram_has_a_word_for_each_bucket_one_beyond_and_the_sum() -> None:
    for field in FIELDS:
        if field.kind is Kind.HISTOGRAM:
            assert field.words == len(UPPERS) + 2


def test_a_descriptor_that_is_no_scoreboard_is_refused() -> None:
    fd = os.memfd_create("other")
    with pytest.raises(OSError, match="Invalid argument"):
        Reader(fd)
    os.close(fd)


# Readings


@given(st.lists(st.integers(0, 2**62), min_size=1))
def test_a_counter_never_steps_back_whatever_is_read(values: list[int]) -> None:
    fd = _core.scoreboard_create(1, 1)
    board = Board(fd)
    board.spawn(0)
    exported = []
    for value in values:
        board.core.set(place_of("thread", "busy_time"), 0, value)
        seconds = samples("poolsrv_thread_busy_seconds_total", board.read())["0",]
        assert isinstance(seconds, float)
        exported.append(seconds)
    os.close(fd)
    assert exported == sorted(exported)


def test_a_gauge_may_fall(board: Board) -> None:
    board.supervisor("queue_length", 3)
    assert samples("poolsrv_queue_length", board.read()) == {(): 3}
    board.supervisor("queue_length", 1)
    assert samples("poolsrv_queue_length", board.read()) == {(): 1}


def test_the_shares_of_a_gauge_may_be_negative(board: Board) -> None:
    board.spawn(0)
    board.count(0, "connections", 5, "idle", thread=0)
    board.count(0, "connections", -3, "idle", thread=1)
    assert samples("poolsrv_connections", board.read())["idle",] == 2


def test_counters_outlive_the_process_in_the_slot(board: Board) -> None:
    board.spawn(0, pid=10)
    board.count(0, "requests", 7, "2xx")
    board.core.bury(0)
    board.core.set(place_of("slot", "state"), 0, State.EMPTY)
    board.core.set(place_of("slot", "pid"), 0, 0)
    assert samples("poolsrv_requests_total", board.read())["2xx",] == 7
    assert samples("poolsrv_worker_up", board.read()) == {("0",): 0}
    board.spawn(0, pid=11)
    board.count(0, "requests", 1, "2xx")
    assert samples("poolsrv_requests_total", board.read())["2xx",] == 8


def test_requests_are_added_up_over_workers_and_threads(board: Board) -> None:
    for slot in range(2):
        board.spawn(slot)
        for thread in range(4):
            board.count(slot, "requests", 10, "5xx", thread=thread)
    assert samples("poolsrv_requests_total", board.read()) == {
        ("1xx",): 0,
        ("2xx",): 0,
        ("3xx",): 0,
        ("4xx",): 0,
        ("5xx",): 80,
    }


def test_a_slot_that_was_never_used_has_no_series(board: Board) -> None:
    board.spawn(0)
    board.spawn(1, State.STARTING)
    assert samples("poolsrv_worker_up", board.read()) == {("0",): 1, ("1",): 0}


def test_buckets_are_cumulative_and_times_are_seconds(board: Board) -> None:
    board.spawn(0)
    for time, count in ((0, 1), (100_000, 1), (1_000_000, 1), (BOUNDS[-1] + 1, 3), (10**18, 1)):
        word = bisect_left(UPPERS, time)
        board.core.add(place_of("thread", "duration"), 0, count, word=word)
    board.core.add(place_of("thread", "duration"), 0, 300_000_000, word=len(UPPERS) + 1)
    histogram = samples("poolsrv_request_duration_seconds", board.read())[()]
    assert histogram == Histogram((2, 2, 2) + (3,) * (len(BOUNDS) - 3) + (7,), 0.3)


def test_totals_of_no_rows_are_nought() -> None:
    assert total(THREAD, []) == Row(THREAD, (0,) * THREAD.words)


# What is worked out


def test_utilization_is_over_the_time_since_an_earlier_reading(board: Board) -> None:
    board.spawn(0)  # 4 threads
    board.count(0, "busy_time", 20 * SECOND)
    # 20 of the 40 thread-seconds since the start.
    assert board.read(10).utilization == 0.5
    board.count(0, "busy_time", 20 * SECOND)
    assert board.read(20).utilization == 0.5
    # A reading just before does not shorten the window: it still begins at 10.
    assert board.read(21).utilization == pytest.approx(20 / 44)
    assert board.read(30).utilization == 0.0


def test_what_nobody_has_looked_at_for_long_is_no_window(board: Board) -> None:
    board.spawn(0)
    board.read(10)
    board.count(0, "busy_time", 100 * SECOND)
    assert not board.read(1000).is_recent
    board.count(0, "busy_time", 2 * SECOND)
    assert not board.read(1000.5).is_recent
    reading = board.read(1001)
    assert (reading.is_recent, reading.utilization) == (True, 0.5)
    assert board.read(1009).elapsed == 9
    assert board.read(1015).elapsed == 14


def test_fields_of_one_metric_are_added_up(board: Board) -> None:
    board.spawn(0)
    board.spawn(1)
    for slot in (0, 1):
        board.count(slot, "refused", 2, "503")
    board.count(1, "refused", 3, "400")
    refused = label_values("supervisor", "refused")
    board.core.add(place_of("supervisor", "refused"), 0, 5, word=refused.index("503"))
    numbers = samples("poolsrv_requests_refused_total", board.read())
    assert {labels: number for labels, number in numbers.items() if number} == {
        ("400",): 3,
        ("503",): 9,
    }


def test_utilization_is_never_more_than_one(board: Board) -> None:
    board.spawn(0)
    board.count(0, "busy_time", 100 * SECOND)
    assert board.read(10).utilization == 1.0


def test_utilization_without_threads_is_nought(board: Board) -> None:
    assert board.read(10).utilization == 0.0
    assert board.read(0).utilization == 0.0


def test_the_queue_has_an_age_only_while_somebody_waits(board: Board) -> None:
    assert board.read(10).queue_age == 0.0
    board.supervisor("queue_since", board.started_at + 8 * SECOND)
    assert board.read(10).queue_age == 2.0


def test_cpu_time_goes_on_counting_in_the_next_process() -> None:
    cpu = CpuTime()
    seen = []
    for pid, seconds in ((1, 2.0), (1, 3.0), (2, 0.5), (2, 0.25), (2, 1.0)):
        cpu.advance(pid, seconds)
        seen.append(cpu.seconds)
    assert seen == [2.0, 3.0, 3.5, 3.5, 4.0]


def test_this_process_has_memory_and_cpu_time() -> None:
    own = usage(os.getpid())
    assert own is not None
    assert own.resident > 2**20
    assert own.cpu > 0


def test_a_process_that_is_gone_uses_nothing(tmp_path: Path) -> None:
    assert usage(1, proc=tmp_path) is None


def test_the_name_of_a_process_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    from_field_4 = " ".join(map(str, range(4, 53)))
    (tmp_path / "7" / "stat").write_text(f"7 (a) S 1) (b) S {from_field_4}\n")
    page, tick = os.sysconf("SC_PAGESIZE"), os.sysconf("SC_CLK_TCK")
    # proc_pid_stat(5): utime is field 14, stime 15, rss 24.
    assert usage(7, proc=tmp_path) == Usage(24 * page, (14 + 15) / tick)


# Names and forms


def test_names_say_type_and_unit() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for one in METRICS:
        assert re.fullmatch(r"poolsrv_[a-z]+(_[a-z]+)*", one.name)
        assert one.name.endswith("_total") == (one.kind is Kind.COUNTER)
        assert one.name.removesuffix("_total").endswith(f"_{one.unit}" if one.unit else "")
        assert one.help
        assert not one.help.endswith(".")


def test_histograms_have_no_labels() -> None:
    assert all(not one.labels for one in METRICS if one.kind is Kind.HISTOGRAM)


@pytest.fixture
def registry(board: Board) -> CollectorRegistry:
    board.spawn(0, pid=os.getpid())
    board.spawn(1, State.DRAINING)
    board.count(0, "requests", 12, "2xx")
    board.count(1, "duration", 3)
    registry = CollectorRegistry()
    registry.register(PoolCollector(lambda: board.read(10)))
    return registry


def content(families: Iterable[Family]) -> set[tuple[object, ...]]:
    """Every sample, but for what a process uses: that differs from scrape to scrape."""
    return {
        (sample.name, *sorted(sample.labels.items()), sample.value)
        for family in families
        for sample in family.samples
        if not re.search("_cpu_|_resident_", sample.name)
    }


def test_both_forms_say_the_same(registry: CollectorRegistry) -> None:
    text, _ = encode(registry, "")
    openmetrics, _ = encode(registry, "application/openmetrics-text")
    plain = content(parse_text(text.decode()))
    assert plain == content(parse_openmetrics(openmetrics.decode()))
    assert ("poolsrv_requests_total", ("status_class", "2xx"), 12) in plain
    assert ("poolsrv_request_duration_seconds_bucket", ("le", "0.0001"), 3) in plain


def test_every_metric_is_there(registry: CollectorRegistry) -> None:
    text, _ = encode(registry, "")
    found = {family.name for family in parse_text(text.decode())}
    assert found == {metric.name.removesuffix("_total") for metric in METRICS}


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5", OPENMETRICS),
        ("text/html, application/openmetrics-text;version=1.0.0;q=0.5", OPENMETRICS),
        ("application/openmetrics-text;version=nonsense", TEXT),
        ("application/openmetrics-text;version=99.0.0", TEXT),
        ("application/openmetrics-text;version=", TEXT),
        ("application/openmetrics-text;version=1.0.0;version=2.0.0", TEXT),
        (",;,=;version", TEXT),
    ],
)
def test_the_form_is_what_the_client_accepts(
    registry: CollectorRegistry, accept: str, content_type: str
) -> None:
    assert encode(registry, accept)[1] == content_type


def test_naming_the_metrics_takes_no_reading() -> None:
    def unread() -> Reading:
        raise AssertionError("a reading was taken")

    CollectorRegistry(auto_describe=True).register(PoolCollector(unread))
