"""How runs stand, and what a name of a run means."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.reporting.compare import Difference, differences
from fedloom.tasks.reporting.records import find_run, judge, overviews, result_name, result_place
from fedloom.tasks.store import Entry, RunStore

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PLAN = {"loop": {"steps": [{"name": "select", "timeout_s": None}, {"name": "train", "timeout_s": 3600.0}]}}
FAILED = {"step": "train", "round": 2, "shard": 1, "reason": "no room"}

CASES: list[tuple[dict[str, int], dict[str, Any], str]] = [
    ({"plan.json": 1}, {}, "running"),
    ({"plan.json": 59}, {}, "running"),
    ({"plan.json": 61}, {}, "unknown"),
    ({"plan.json": 600, "round-00001/select.json": 5}, {}, "running"),
    ({"plan.json": 600, "report.json": 500}, {}, "ended"),
    ({"plan.json": 5, "summary.json": 5}, {}, "ended"),
    ({"plan.json": 5}, FAILED, "failed"),
    ({"plan.json": 600}, FAILED, "failed"),
    ({"plan.json": 5, "round-00002/train/shard-00001.json": 5}, FAILED, "running"),
    ({"plan.json": 5, "round-00002/train/shard-00000.json": 5}, FAILED, "failed"),
    ({"plan.json": 5, "report.json": 5}, FAILED, "ended"),
    ({"plan.json": 5}, {"reason": "damaged"}, "running"),
]


@pytest.mark.parametrize(("minutes", "failure", "state"), CASES)
def test_the_state_follows_from_what_is_there_and_when_it_was_written(
    minutes: dict[str, int], failure: dict[str, Any], state: str
) -> None:
    files = [Entry(f"runs/r/{name}", 1, NOW - timedelta(minutes=ago)) for name, ago in minutes.items()]
    found, reason = judge("r", PLAN, files, failure, NOW)
    assert found == state
    assert bool(reason) == (state in ("failed", "unknown"))
    if state == "failed":
        assert reason == "step train of round 2, shard 1: no room"


@pytest.mark.parametrize(
    "note", [FAILED, {"step": "validate", "round": 0, "shard": None}, {"step": "gate", "round": 7}]
)
def test_a_result_is_named_by_its_place(note: dict[str, Any]) -> None:
    assert result_place(result_name(note)) == (note["round"], note["step"], note.get("shard"))


def test_other_objects_are_no_results() -> None:
    for name in ("round.jsonl", "round-00001/session/terms.json", "round-00001/train/shard-00000.clients.json"):
        assert result_place(name) is None


def test_a_name_means_one_run(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path))
    for run in ("fl-a-111", "fl-a-112", "fl-a-112-night", "fl-b-9"):
        store.write_json(f"runs/{run}/plan.json", {"job_id": run[:4], "recipe": {"rounds": 3}})
    assert find_run(store, "fl-b") == "fl-b-9"
    assert find_run(store, "fl-a-112") == "fl-a-112"  # an id itself, though another begins with it
    for name, words in (("fl-a", "means 3 runs: fl-a-111, fl-a-112, fl-a-112-night"), ("fl-x", "there are fl-")):
        with pytest.raises(ConfigurationError, match=words):
            find_run(store, name)
    store.write_json("runs/not-begun/about.json", {})
    assert {run.run_id: run.state for run in overviews(store)} == dict.fromkeys(
        ("fl-a-111", "fl-a-112", "fl-a-112-night", "fl-b-9"), "running"
    )


def test_differences_are_named_by_dotted_paths() -> None:
    first = {"a": 1, "b": {"c": [1, 2], "d": [{"e": 1}, {"e": 2}]}, "g": None}
    second = {"a": 1, "b": {"c": [1, 3], "d": [{"e": 1}, {"e": 5}]}, "h": {"x": 1}}
    assert list(differences(first, second)) == [
        Difference("b.c", [1, 2], [1, 3]),
        Difference("b.d[1].e", 2, 5),
        Difference("h", None, {"x": 1}),
    ]
