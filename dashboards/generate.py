"""Prints poolsrv.json, the Grafana dashboard, from the table in panels.py.

What Grafana wants to know and is the same for all panels stands here. The
form is the classic one: Grafana's file provisioning refuses the newer schema.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from panels import ROWS, Panel

from poolsrv.exporter.metrics import METRICS

# What @ stands for in a query: of a metric of the whole server, and of one that may be a
# group's. Where there are no groups, that label is missing, and `.*` matches that, too.
SELECTOR = 'job=~"$job", instance=~"$instance"'
OF_GROUP = f'{SELECTOR}, group=~"$group"'
COMMON = {metric.name for metric in METRICS if metric.common}

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# Grafana's grid.
COLUMNS = 24


def dashboard() -> dict[str, Any]:
    return {
        "id": None,
        "uid": "poolsrv",
        "title": "poolsrv",
        "description": "A WSGI application server: is it full, what is slow, what went wrong.",
        "tags": ["poolsrv", "wsgi", "python"],
        "schemaVersion": 42,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [reloads(), deaths()]},
        "templating": {"list": variables()},
        "panels": list(panels()),
    }


def expression(query: str) -> str:
    def selected(found: re.Match[str]) -> str:
        name = re.sub("_(bucket|sum|count)$", "", found[1])
        return f"{found[1]}{{{SELECTOR if {found[1], name} & COMMON else OF_GROUP}"

    return re.sub(r"(\w+)\{@", selected, query)


def variables() -> list[dict[str, Any]]:
    datasource = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    # Any metric of ours would do; this one has one series a server.
    job = label_values("job", "Job", "label_values(poolsrv_build_info, job)")
    instance = label_values(
        "instance", "Instance", 'label_values(poolsrv_build_info{job=~"$job"}, instance)'
    )
    group = label_values(
        "group",
        "Group of processes",
        'label_values(poolsrv_workers_configured{job=~"$job", instance=~"$instance"}, group)',
    )
    return [datasource, job, instance, {**group, "allValue": ".*"}]


def label_values(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def reloads() -> dict[str, Any]:
    return {
        "name": "Reloads",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": expression("changes(poolsrv_generation{@}[$__rate_interval]) > 0"),
        "titleFormat": "Reload",
        "textFormat": "{{instance}}",
    }


def deaths() -> dict[str, Any]:
    return {
        "name": "Deaths of workers",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": expression(
            "sum by (instance, reason)"
            ' (increase(poolsrv_worker_restarts_total{@, reason!="recycle"}[$__rate_interval])) > 0'
        ),
        "titleFormat": "Worker died",
        "textFormat": "{{instance}}: {{reason}}",
    }


def panels() -> Iterator[dict[str, Any]]:
    top = 0
    number = 1
    for title, height, row in ROWS:
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        top += 1
        width = COLUMNS // len(row)
        for place, panel in enumerate(row):
            position = {"x": place * width, "y": top, "w": width, "h": height}
            yield {"id": number + 1 + place, "gridPos": position, **grafana(panel)}
        top += height
        number += 1 + len(row)


def grafana(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": list(targets(panel)),
        "fieldConfig": {"defaults": defaults(panel), "overrides": []},
        "options": options(panel),
    }


def options(panel: Panel) -> dict[str, Any]:
    if panel.names:
        return OPTIONS[panel.kind] | {"textMode": "name", "graphMode": "none"}
    return OPTIONS[panel.kind]


OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "value",
        "graphMode": "area",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "heatmap": {
        "calculate": False,
        "yAxis": {"unit": "s"},
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "tooltip": {"mode": "single", "yHistogram": True},
    },
    "state-timeline": {
        "mergeValues": True,
        "showValue": "never",
        "legend": {"displayMode": "list", "placement": "bottom"},
    },
}


def targets(panel: Panel) -> Iterator[dict[str, Any]]:
    for letter, (legend, query) in zip("ABCDEFGH", panel.queries, strict=False):
        # Buckets of a heat map are cumulative in Prometheus; so Grafana subtracts them.
        form = {"format": "heatmap"} if panel.kind == "heatmap" else {}
        yield form | {
            "refId": letter,
            "datasource": DATASOURCE,
            "expr": expression(query),
            "legendFormat": legend or "__auto",
        }


def defaults(panel: Panel) -> dict[str, Any]:
    result: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.top is not None:
        result["max"] = panel.top
    if panel.kind == "timeseries":
        result["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
    if panel.kind == "stat":
        steps = [("green", None), ("yellow", panel.warn), ("red", panel.alarm)]
        result["thresholds"] = {
            "mode": "absolute",
            "steps": [
                {"color": color, "value": value}
                for color, value in steps
                if color == "green" or value is not None
            ],
        }
    if panel.kind == "state-timeline":
        result["color"] = {"mode": "thresholds"}
        result["thresholds"] = {
            "mode": "absolute",
            "steps": [{"color": "red", "value": None}, {"color": "green", "value": 1}],
        }
    return result


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=2))
