"""The participation history: written by every round, shared by a job's runs, and frozen where a decision reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedloom.flows.inline import simulate
from fedloom.flows.runs import open_run
from fedloom.flows.without_privacy import compile_baseline
from fedloom.specs.bundle import load_job
from fedloom.tasks.errors import RunError, StoreError
from fedloom.tasks.selection.evidence import rows
from fedloom.tasks.selection.tally import Tally, empty_tally, fold, sign_of
from fedloom.tasks.step import Run, run_step
from fedloom.tasks.store import RunStore
from tests.tasks.selection.recipes import selector_job, selector_run

OWED = {"fairness_policy": {"enabled": True, "min_participation_per_period": 1, "period": "quarter"}}
MOST_ONE = {"fairness_policy": {"enabled": True, "max_participation_per_period": 1, "period": "year"}}
CLIENTS = ("a", "b", "c")


def record(number: int, **changes: Any) -> dict[str, Any]:
    base = {
        "run_id": "r", "round": number, "at": "2026-11-24T12:00:00+00:00", "asked": ["a", "b", "gone"],
        "gave": ["a"], "dropouts": [{"client": "b", "reason": "late"}], "excluded": [], "flagged": [], "figures": None,
    }  # fmt: skip
    return base | changes


def cohort(run: Run, number: int) -> list[str]:
    found: list[str] = run.store.read_json(run.key(f"round-{number:05d}", "decision.json"))["cohort"]
    return found


def test_a_tally_counts_rounds_by_client() -> None:
    lost = [{"client": "c", "reason": "the shard was lost: evicted"}]
    figures = [{"a": {"samples": 5, "loss": loss, "norm": 2.0, "weight": 5.0}} for loss in (1.0, 0.5, 0.5)]
    found = fold(
        empty_tally(3, "2026-12-01T00:00:00+00:00", "quarter"),
        [
            record(1, figures=figures[0], at="2026-09-30T23:59:59+00:00"),
            record(2, figures=figures[1], asked=["a", "b", "c"], dropouts=[*record(2)["dropouts"], *lost]),
            record(3, figures=figures[2], flagged=[{"client": "c", "check": "gradient_norm", "reason": "far"}]),
        ],
        CLIENTS,
    )
    assert found.counts["asked"].tolist() == [3, 3, 1]
    assert found.counts["gave"].tolist() == [3, 0, 0]
    assert found.counts["in_period"].tolist() == [2, 0, 0]
    assert found.counts["failures"].tolist() == [0, 3, 0]  # a shard that an engine lost is not the client's failure
    assert found.figures["loss"][0] == 0.5
    assert found.figures["reduction"][0] == 0.25  # fell by half, then not at all
    assert found.figures["contribution"][0] == 10.0
    assert found.signs["byzantine"][2] == "gradient_norm: far (round 3 of r)"
    again = Tally.load(found.dump(CLIENTS), CLIENTS)
    assert again.dump(CLIENTS) == found.dump(CLIENTS)
    fold(again, [record(4, gave=["b"], dropouts=[])], CLIENTS)
    assert again.counts["failures"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("check", "sign"),
    [
        ("data_poisoning_score", "poisoning"),
        ("gradient_norm", "byzantine"),
        ("parameter_distance", "byzantine"),
        ("loss_improvement", None),
        ("staleness", None),
    ],
)
def test_what_checks_say_of_a_client(check: str, sign: str | None) -> None:
    assert sign_of(check) == sign


def test_every_round_leaves_its_record(tmp_path: Path) -> None:
    plan, run = selector_run(tmp_path / "job", tmp_path / "store", {}, num_rounds=2)
    simulate(plan, run)
    found = run.store.read_json(f"history/fl-tiny/{run.run_id}/round-00002.json")
    assert found["asked"] == found["gave"] == cohort(run, 2)
    assert found["figures"].keys() == set(found["asked"])
    assert found["figures"][found["asked"][0]].keys() == {"samples", "loss", "norm", "weight"}
    assert found["at"] == run.store.read_json(run.key("started.json"))["at"]
    whole = run.store.read_json(f"history/fl-tiny/{run.run_id}/rounds.json")
    assert [record["round"] for record in whole] == [1, 2]
    assert whole[1] == found


def test_an_untracked_job_leaves_none(tmp_path: Path) -> None:
    untracked = {"monitoring": {"track_participation_history": False}}
    plan, run = selector_run(tmp_path / "job", tmp_path / "store", untracked, num_rounds=1)
    simulate(plan, run)
    assert run.store.folders("history/fl-tiny") == []


def test_clients_that_are_owed_a_place_come_first_in_later_rounds_and_runs(tmp_path: Path) -> None:
    plan, first = selector_run(tmp_path / "job", tmp_path / "store", OWED, num_rounds=1, name="one")
    simulate(plan, first)
    plan, second = selector_run(tmp_path / "job", tmp_path / "store", OWED, num_rounds=1, name="two")
    simulate(plan, second)
    assert set(cohort(first, 1)) | set(cohort(second, 1)) == set(first.fleet.clients)
    plan, rounds = selector_run(tmp_path / "job", tmp_path / "other", OWED, num_rounds=2)
    simulate(plan, rounds)
    assert set(cohort(rounds, 1)) | set(cohort(rounds, 2)) == set(first.fleet.clients)


def test_what_a_decision_read_is_frozen(tmp_path: Path) -> None:
    _, run = selector_run(tmp_path / "job", tmp_path / "store", MOST_ONE, num_rounds=2)
    run_step(run, "select", 1)
    before = run.store.read(run.key("round-00001", "decision.json"))
    others = [{**record(1), "run_id": "fl-tiny-other", "gave": list(run.fleet.clients), "dropouts": []}]
    run.store.write_json("history/fl-tiny/fl-tiny-other/round-00001.json", others[0])
    for name in ("select.json", "decision.json"):  # as if the step had been killed before its end
        (tmp_path / "store" / run.key("round-00001", name)).unlink()
    run_step(run, "select", 1)
    assert run.store.read(run.key("round-00001", "decision.json")) == before
    decision = json.loads(before)
    assert decision["history"]["digest"] == run.store.stat(run.key("round-00001", "tally.json")).sha256


def test_a_continued_run_decides_the_same(tmp_path: Path) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    plan, run = selector_run(tmp_path / "job", whole, OWED, num_rounds=3)
    simulate(plan, run)
    plan, other = selector_run(tmp_path / "job", again, OWED, num_rounds=3)
    run_step(other, "validate")
    run_step(other, "initialise")
    for name in ("select", "distribute"):
        run_step(other, name, 1)
    simulate(plan, other)
    assert [cohort(run, number) for number in (1, 2, 3)] == [cohort(other, number) for number in (1, 2, 3)]


def test_failures_in_a_row_put_a_client_on_the_blacklist(tmp_path: Path) -> None:
    rules = {"blacklist": {"enabled": True, "auto_blacklist_criteria": {"consecutive_failures": 2}}}
    rules["selection_algorithm"] = {"algorithm": "random", "num_clients": 6}
    plan, run = selector_run(tmp_path / "job", tmp_path / "store", rules, num_rounds=3)
    (tmp_path / "job" / "data" / "c4.csv").unlink()
    simulate(plan, run)
    assert "c4" in cohort(run, 2)
    clients = rows(run.store.read_json(run.key("round-00003", "decision.json"))["clients"])
    assert clients[4] == {
        "client": "c4",
        "decision": "ineligible",
        "reason": "blacklisted: gave no update 2 times in a row",
    }


def test_masks_and_privacy_keep_figures_of_clients_out(tmp_path: Path) -> None:
    private = {"enabled": True, "mechanism": "DP-SGD", "noise_multiplier": 1.0, "delta": 1e-3, "max_grad_norm": 1.0}
    changes = {
        "differential_privacy": None,
        "secure_aggregation": None,
        "privacy_config": {"differential_privacy": private, "secure_aggregation": {"enabled": False}},
    }
    plan, run = selector_run(tmp_path / "job", tmp_path / "store", {}, num_rounds=1, **changes)
    simulate(plan, run)
    found = run.store.read_json(f"history/fl-tiny/{run.run_id}/round-00001.json")
    assert found["figures"] is None
    assert found["gave"]


def test_remarks_beyond_those_that_engines_show_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedloom.tasks.aggregation.record.SHOWN", 1)
    checks = [{"name": "gradient_norm", "threshold": 1e-6, "action": "flag"}]
    job = {"aggregation_config": {"quality_checks": {"checks": checks}}, "min_clients": 2, "num_rounds": 1}
    plan, run = selector_run(tmp_path / "job", tmp_path / "store", {}, **job)
    simulate(plan, run)
    found = run.store.read_json(f"history/fl-tiny/{run.run_id}/round-00001.json")
    assert [remark["client"] for remark in found["flagged"]] == found["gave"]
    assert len(found["gave"]) > 1


def test_a_baseline_leaves_no_history(tmp_path: Path) -> None:
    private = {"enabled": True, "mechanism": "DP-SGD", "noise_multiplier": 1.0, "delta": 1e-3, "max_grad_norm": 1.0}
    privacy = {"differential_privacy": private, "secure_aggregation": {"enabled": False}}
    job = {"differential_privacy": None, "secure_aggregation": None, "privacy_config": privacy, "num_rounds": 1}
    bundle = load_job(selector_job(tmp_path / "job", {}, **job))
    plan = compile_baseline(bundle)
    run = open_run(plan, bundle, str(tmp_path / "store"))
    simulate(plan, run)
    assert run.store.folders("history") == []


def test_two_runs_at_once_have_histories_of_their_own(tmp_path: Path) -> None:
    runs = [selector_run(tmp_path / "job", tmp_path / "store", OWED, num_rounds=2, name=name) for name in "ab"]
    steps = [step for plan, _ in runs[:1] for step in plan.loop.steps]
    for _, run in runs:
        run_step(run, "validate")
        run_step(run, "initialise")
    for number in (1, 2):
        for step in steps:
            for _, run in runs:
                for shard in run_step(run, "select", number)["shards"] if step.fan_out else [None]:
                    run_step(run, step.name, number, shard)
    store = RunStore(str(tmp_path / "store"))
    for _, run in runs:
        found = [store.read_json(f"history/fl-tiny/{run.run_id}/round-{number:05d}.json") for number in (1, 2)]
        assert [record["asked"] for record in found] == [cohort(run, 1), cohort(run, 2)]


def test_runs_that_have_ended_and_runs_that_have_not_count_alike(tmp_path: Path) -> None:
    plan, first = selector_run(tmp_path / "job", tmp_path / "store", MOST_ONE, num_rounds=2, name="one")
    simulate(plan, first)
    _, second = selector_run(tmp_path / "job", tmp_path / "store", MOST_ONE, num_rounds=2, name="two")
    with pytest.raises(RunError, match="0 of 6 clients are eligible"):
        run_step(second, "select", 1)
    tally = second.store.read(second.key("round-00001", "tally.json"))
    (tmp_path / "store" / "history" / "fl-tiny" / first.run_id / "rounds.json").unlink()
    _, third = selector_run(tmp_path / "job", tmp_path / "store", MOST_ONE, num_rounds=2, name="three")
    third.store.write(third.key("started.json"), second.store.read(second.key("started.json")))
    with pytest.raises(RunError, match="0 of 6 clients are eligible"):
        run_step(third, "select", 1)
    assert third.store.read(third.key("round-00001", "tally.json")) == tally


def test_a_damaged_history_says_what_to_do(tmp_path: Path) -> None:
    _, run = selector_run(tmp_path / "job", tmp_path / "store", OWED, num_rounds=2)
    run.store.write_json("history/fl-tiny/fl-tiny-other/round-00001.json", {"asked": []})
    with pytest.raises(StoreError, match=r"history/fl-tiny/fl-tiny-other/round-00001.json .* is damaged; restore it"):
        run_step(run, "select", 1)
