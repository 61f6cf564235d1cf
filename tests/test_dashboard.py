"""The dashboard and the alerts: current, well-formed, and true of a real server."""

import json
import math
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from promql_parser import parse

from poolsrv.between.scoreboard import Kind
from poolsrv.exporter.metrics import METRICS
from tests.client import Client
from tests.server import Server
from tests.waiting import wait_until

pytestmark = pytest.mark.once

FOLDER = Path(__file__).parent.parent / "dashboards"
DASHBOARD = FOLDER / "poolsrv.json"

needs_prometheus = pytest.mark.skipif(
    not shutil.which("prometheus"), reason="needs the package prometheus"
)


def panels() -> list[dict[str, Any]]:
    """The panels that show something."""
    loaded = json.loads(DASHBOARD.read_text())
    return [panel for panel in loaded["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Every query of the dashboard as Grafana would send it, by its panel and letter."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$__rate_interval", "5s")
        .replace("$job", "poolsrv")
        .replace("$instance", ".*")
        .replace("$group", ".*")
        for panel in panels()
        for target in panel["targets"]
    }


# What can be seen without a server


def test_the_committed_dashboard_is_current() -> None:
    generated = subprocess.run(
        [sys.executable, FOLDER / "generate.py"], capture_output=True, text=True, check=True
    )
    assert DASHBOARD.read_text() == generated.stdout, "run `make docs`"


def test_grafana_can_provision_it() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["id"] is None
    assert dashboard["uid"] == "poolsrv"
    assert dashboard["schemaVersion"] == 42
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert names == ["datasource", "job", "instance", "group"]
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above
    assert all(place["x"] + place["w"] <= 24 for place in places)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


@pytest.mark.parametrize("query", queries().values(), ids=queries().keys())
def test_a_query_is_promql(query: str) -> None:
    parse(query)


def test_queries_and_alerts_ask_for_what_is_exported() -> None:
    exported = set()
    for metric in METRICS:
        suffixes = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        exported |= {metric.name + suffix for suffix in suffixes}
    text = DASHBOARD.read_text() + (FOLDER / "alerts.yml").read_text()
    asked = set(re.findall(r"\bpoolsrv_\w+", text))
    assert asked <= exported
    assert len(asked) > 20


@needs_prometheus
def test_alerts_fire_when_they_should() -> None:
    subprocess.run(["promtool", "check", "config", "prometheus.yml"], cwd=FOLDER, check=True)
    subprocess.run(["promtool", "test", "rules", "alerts_test.yml"], cwd=FOLDER, check=True)


# With a server and Prometheus


class Prometheus:
    """A Prometheus that scrapes one server. Made by `scraping`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, query: str) -> list[float]:
        """The values of the answer's series now, those that are none left out."""
        arguments = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{arguments}", timeout=10) as response:
            answer = json.load(response)
        values = [float(series["value"][1]) for series in answer["data"]["result"]]
        return [value for value in values if not math.isnan(value)]


def listening(log: str) -> re.Match[str] | None:
    """Where Prometheus listens, once it is ready: until then it answers 503."""
    ready = 'msg="Server is ready' in log
    return re.search(r'msg="Listening on" address=(\S+)', log) if ready else None


@contextmanager
def scraping(target: str, folder: Path) -> Iterator[Prometheus]:
    """Scrape `target` (host:port) four times a second for the time of the block."""
    configuration = (FOLDER / "prometheus.yml").read_text()
    configuration = configuration.replace("15s", "250ms").replace("127.0.0.1:9464", target)
    (folder / "prometheus.yml").write_text(configuration)
    shutil.copy(FOLDER / "alerts.yml", folder)
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        match = wait_until(lambda: listening(log.read_text()), 20, message=log.read_text)
        yield Prometheus(f"http://{match[1]}")
    finally:
        process.terminate()
        process.wait()


@needs_prometheus
def test_every_panel_has_data(server: Callable[..., Server], tmp_path: Path) -> None:
    running = server("tests.apps.hello:app", processes=2, threads=4)
    missing = queries()
    with scraping(running.admin_url.removeprefix("http://"), tmp_path) as prometheus:

        def all_have_data() -> bool:
            # Rates need something that goes on happening: requests for the
            # workers, connections for the supervisor.
            with Client(running.address) as client:
                for _ in range(20):
                    assert client.get("/").status == 200
            for name, query in list(missing.items()):
                if prometheus.query(query):
                    del missing[name]
            return not missing

        wait_until(all_have_data, deadline=30, message=lambda: f"no data for {missing}")
        assert prometheus.query('up{job="poolsrv"}') == [1]
