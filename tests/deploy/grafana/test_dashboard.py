"""The Grafana dashboard asks for metrics that exist, with labels that they have."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from fedloom.deploy.argo.render import render_job
from fedloom.deploy.argo.values import Values
from fedloom.specs.bundle import EXAMPLES
from fedloom.tasks.reporting.metrics_text import METRICS

FILE = Path(__file__).parents[3] / "deploy" / "grafana" / "fedloom.json"
ARGO = "argo_workflows_"  # the controller puts it before the names of a workflow's own metrics
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def selectors(query: str) -> Iterator[promql_parser.VectorSelector]:
    """Every selector of a PromQL expression; Grafana's variables stand for durations and words."""
    found = []

    def look(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        parts = (getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param", "vector_selector"))
        for part in (*parts, *(getattr(node, "args", None) or ())):
            if part is not None and not isinstance(part, str | float | int):
                look(part)

    look(promql_parser.parse(query.replace("$__rate_interval", "5m")))
    return iter(found)


def published() -> dict[str, set[str]]:
    """The metrics that `fedloom report` and the rendered manifests publish, each with its labels."""
    known = {
        name + ("_total" if kind == "counter" else ""): {"job", *labels} for name, (kind, _, labels) in METRICS.items()
    }
    return known | {ARGO + name: labels for name, labels in rendered().items()}


@cache
def rendered() -> dict[str, set[str]]:
    """The metrics of the manifests of the main example, with their labels."""
    found: dict[str, set[str]] = {}

    def look(value: Any) -> None:
        if isinstance(value, dict):
            for metric in (value.get("metrics") or {}).get("prometheus", []) if "metrics" in value else []:
                found[metric["name"]] = {label["key"] for label in metric.get("labels", [])}
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    for text in render_job(EXAMPLES / "aircraft_accel_v1", Values()).files.values():
        look(yaml.safe_load(text))
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_names_metrics_and_labels_that_exist(query: str) -> None:
    known = published()
    named = list(selectors(query))
    assert named
    for selector in named:
        assert selector.name in known
        assert {matcher.name for matcher in selector.matchers.matchers} <= known[selector.name]
    assert 'job=~"$job"' in query


def test_no_metric_of_a_report_is_left_out() -> None:
    asked = {selector.name for query in QUERIES for selector in selectors(query)}
    own = {name + ("_total" if kind == "counter" else "") for name, (kind, _, _) in METRICS.items()}
    assert own - asked == set()


def test_what_both_publish_means_the_same() -> None:
    both = {name: labels for name, labels in rendered().items() if name.removesuffix("_total") in METRICS}
    assert {"fedloom_run_seconds", "fedloom_round_seconds", "fedloom_gate_decisions_total"} <= both.keys()
    for name, labels in both.items():
        assert labels == {"job", *METRICS[name.removesuffix("_total")][2]}


def test_the_dashboard_is_one_that_grafana_loads() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert {"title", "uid", "panels", "templating", "time"} <= DASHBOARD.keys()
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert "job" in variables
    name = re.search(r"fedloom_[a-z_]+", variables["job"]["query"]["query"])
    assert name is not None
    assert name[0] in METRICS
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["title"]
            assert panel["description"]
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
