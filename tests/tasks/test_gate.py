"""The gate: outcomes of checks, the evidence, the champion."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.result import RunResult, read_result
from fedloom.specs.bundle import load_job
from fedloom.tasks import champion, evaluate
from fedloom.tasks.gate import Check, worst
from fedloom.tasks.model_store import model_key
from fedloom.tasks.recipe import EvaluationRecipe
from fedloom.tasks.rounds import early_stop
from fedloom.tasks.step import Run
from tests.conftest import write_signals

MakeRun = Callable[..., Run]


def finish(run: Run) -> RunResult:
    plan = compile_plan(load_job(run.folder))
    simulate(plan, run)
    return read_result(run)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["inconclusive", "fail"], "fail"),
        (["fail", "error"], "error"),
        ([], "inconclusive"),
    ],
)
def test_the_decision_is_the_worst_outcome(outcomes: list[Any], expected: str) -> None:
    assert worst([Check("c", outcome, "", {}) for outcome in outcomes]) == expected


@pytest.mark.parametrize(
    ("thresholds", "failed"),
    [
        ({"auc": 0.01}, []),
        ({"auc": 0.9999}, ["threshold auc"]),
        ({"false_negative_rate": 0.9999}, []),
        ({"false_negative_rate": 0.0}, ["threshold false_negative_rate"]),
        ({"loss": {"min": 0.0, "max": 9.0}, "val_auc": {"max": 0.1}}, ["threshold val_auc"]),
    ],
)
def test_thresholds_hold_in_the_right_direction(make_run: MakeRun, thresholds: Any, failed: list[str]) -> None:
    run = make_run(num_rounds=2, metrics=None, holdout=None, validation_config={
        "holdout_dataset": {"source": "holdout.csv"}, "metrics": [{"name": "auc"}], "thresholds": thresholds,
    })  # fmt: skip
    result = finish(run)
    assert [c["name"] for c in result.gate["checks"] if c["outcome"] == "fail"] == failed
    assert result.gate["decision"] == ("fail" if failed else "pass")
    assert result.gate["promoted"] is (not failed)


def test_the_evidence_has_the_numbers_and_the_digests(make_run: MakeRun) -> None:
    run = make_run()
    result = finish(run)
    evidence = run.store.read_json(result.gate["evidence"])
    check = next(c for c in evidence["checks"] if c["name"] == "target auc")
    low, high = check["numbers"].pop("low"), check["numbers"].pop("high")
    assert check["numbers"] == {
        "metric": "auc", "value": result.metrics["auc"], "minimum": 0.6, "maximum": None, "level": 0.95,
    }  # fmt: skip
    assert low < result.metrics["auc"] < high
    assert evidence["analysis"]["intervals"]["auc"] == {"low": low, "high": high, "level": 0.95}
    assert evidence["analysis"]["parameters"] == 145
    assert run.store.exists(evidence["fleet_file"])
    assert evidence["model_digest"] == result.model_digest
    assert evidence["plan_digest"] == result.plan_digest
    assert evidence["fleet_digest"] == run.fleet.digest
    assert {"python", "fedloom", "torch", "numpy", "scikit-learn", "scipy"} == set(evidence["versions"])


def test_only_a_pass_moves_the_champion(make_run: MakeRun) -> None:
    good = make_run()
    winner = finish(good)
    assert winner.gate["promoted"]
    assert champion.current(good)["model_digest"] == winner.model_digest  # type: ignore[index]
    bad = make_run(metrics={"auc": 0.9999})
    assert finish(bad).gate["decision"] == "fail"
    assert champion.current(bad)["model_digest"] == winner.model_digest  # type: ignore[index]


def test_a_model_worse_than_the_champion_is_not_released(make_run: MakeRun) -> None:
    winner = finish(make_run(num_rounds=6))
    loser = finish(
        make_run(num_rounds=1, metrics={"auc": 0.1}, hyperparameters={"learning_rate": 0.0001, "optimizer": "SGD"})
    )
    check = next(c for c in loser.gate["checks"] if c["name"] == "no regression")
    assert loser.metrics["auc"] < winner.metrics["auc"]
    assert check["outcome"] == "fail"
    assert loser.gate["decision"] == "fail"


def test_the_champion_is_measured_again_when_the_holdout_has_changed(make_run: MakeRun) -> None:
    finish(make_run())
    run = make_run(seed=8, num_rounds=1, holdout="other.csv")
    write_signals(run.folder / "other.csv", seed=101)
    result = finish(run)
    evidence = run.store.read_json(result.gate["evidence"])
    check = next(c for c in evidence["checks"] if c["name"] == "no regression")
    pointer = champion.current(make_run())
    assert check["numbers"]["champion_value"] != pointer["metrics"]["auc"]  # type: ignore[index]


def champion_check(run: Run, result: RunResult) -> Any:
    evidence = run.store.read_json(result.gate["evidence"])
    return next(check for check in evidence["checks"] if check["name"] == "no regression")


def test_a_champion_with_other_inputs_is_measured_as_it_was_trained(make_run: MakeRun) -> None:
    winner = finish(make_run(num_rounds=6))
    signals = {"reference": "contract.yaml", "signals": ["b", "a"]}
    run = make_run(input_schema=signals, model_hyperparameters={"hidden_dims": [4]}, num_rounds=1)
    check = champion_check(run, finish(run))
    assert check["numbers"]["champion_value"] == pytest.approx(winner.metrics["auc"])
    assert check["outcome"] == "fail"


def test_a_champion_that_predicts_something_else_blocks_the_release(make_run: MakeRun) -> None:
    finish(make_run())
    other = {"architecture": "Autoencoder", "output_schema": "reconstruction_error"}
    run = make_run(model_hyperparameters={"latent_dim": 2}, metrics={"auc": 0.1}, holdout="other.csv", **other)
    write_signals(run.folder / "other.csv", seed=101)
    result = finish(run)
    assert champion_check(run, result)["outcome"] == "inconclusive"
    assert not result.gate["promoted"]


def test_a_lost_champion_is_an_error_that_blocks_the_release(make_run: MakeRun) -> None:
    finish(make_run())
    run = make_run(seed=8, holdout="other.csv")
    write_signals(run.folder / "other.csv", seed=101)
    pointer = champion.current(run)
    run.store.write(model_key(pointer["model_digest"]), b"gone")  # type: ignore[index]
    result = finish(run)
    assert champion_check(run, result)["outcome"] == "error"
    assert not result.gate["promoted"]


def test_a_late_gate_is_judged_against_the_champion_of_now(make_run: MakeRun) -> None:
    late = make_run(num_rounds=1, hyperparameters={"learning_rate": 0.0001, "optimizer": "SGD"}, metrics={"auc": 0.1})
    assert finish(late).gate["promoted"]
    for key in (
        late.key("round-00001", "gate.json"),
        "champions/fl-tiny.json",
    ):  # as if killed before the pointer moved
        late.store._fs.rm_file(f"{late.store._root}/{key}")
    winner = make_run(num_rounds=6)
    assert finish(winner).gate["promoted"]
    late = make_run(num_rounds=1, hyperparameters={"learning_rate": 0.0001, "optimizer": "SGD"}, metrics={"auc": 0.1})
    assert finish(late).gate["decision"] == "fail"
    assert champion.current(late)["run_id"] == winner.run_id  # type: ignore[index]


def test_a_gate_killed_before_its_result_keeps_the_evidence_and_promotes(make_run: MakeRun) -> None:
    run = make_run()
    first = finish(run)
    for key in (run.key("round-00003", "gate.json"), "champions/fl-tiny.json"):
        run.store._fs.rm_file(f"{run.store._root}/{key}")
    evidence = run.store.read(first.gate["evidence"])
    again = finish(run)
    assert again == first
    assert run.store.read(first.gate["evidence"]) == evidence
    assert champion.current(run)["run_id"] == run.run_id  # type: ignore[index]


def settings(metric: str | None, value: float | None, patience: int | None) -> EvaluationRecipe:
    return EvaluationRecipe(None, None, False, (), (), 0.5, metric, value, patience)


@pytest.mark.parametrize(
    ("asked", "history", "stops"),
    [
        (settings(None, None, None), [0.9], False),
        (settings("auc", 0.8, None), [0.7, 0.8], True),
        (settings("auc", 0.8, None), [0.9, 0.7], False),
        (settings("loss", 0.2, None), [0.5, 0.1], True),
        (settings("auc", None, 2), [0.7, 0.6, 0.65], True),
        (settings("auc", None, 2), [0.7, 0.6, 0.71], False),
        (settings("loss", None, 1), [0.5, 0.5], True),
        (settings("auc", None, 1), [0.7, None], True),
        (settings("auc", 0.5, 3), [None], False),
    ],
)
def test_early_stopping(asked: EvaluationRecipe, history: list[float | None], stops: bool) -> None:
    name = asked.stop_metric or "auc"
    metrics = [{} if value is None else {name: value} for value in history]
    assert (early_stop(asked, metrics) is not None) is stops


def test_early_stopping_ends_the_run(make_run: MakeRun) -> None:
    training = {"global_training": {"num_rounds": 9, "early_stopping": {"metric": "val_auc", "threshold": 0.55}}}
    result = finish(make_run(num_rounds=None, training_config=training))
    assert result.rounds < 9
    assert result.gate["stop_reason"].startswith("early stopping: auc")


def test_a_model_whose_scores_are_no_numbers_is_not_released(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "_scores", lambda *_: (np.full(40, np.nan), 0.5))
    held_out = {"source": "holdout.csv"}
    run = make_run(metrics=None, holdout=None, validation_config={
        "holdout_dataset": held_out, "metrics": [{"name": "auc"}], "thresholds": {"latency_p95": 5.0},
        "confidence": {}, "robustness": {},
    })  # fmt: skip
    result = finish(run)
    checks = {c["name"]: (c["outcome"], c["reason"]) for c in result.gate["checks"]}
    assert checks["threshold latency_p95"] == ("inconclusive", "latency_p95 is unknown: scores are not finite")
    assert checks["robustness noise"] == ("inconclusive", "auc is unknown: the model's scores are not finite")
    assert {c["name"]: c["outcome"] for c in result.gate["checks"]}["finite"] == "fail"
    assert result.gate["decision"] == "fail"
    assert result.undefined == {"auc": "the model's scores are not finite"}


def test_a_champion_is_measured_by_the_rules_of_the_run(make_run: MakeRun) -> None:
    finish(make_run(metrics=["loss"]))
    weighted = {"learning_rate": 0.01, "optimizer": "Adam", "class_weights": [1.0, 10.0]}
    run = make_run(metrics=["loss"], hyperparameters=weighted)
    check = champion_check(run, finish(run))
    assert check["numbers"]["champion_value"] != champion.current(run)["metrics"]["loss"]  # type: ignore[index]


def test_evidence_that_is_damaged_is_made_anew(make_run: MakeRun) -> None:
    run = make_run()
    first = finish(run)
    run.store._fs.rm_file(f"{run.store._root}/{run.key('round-00003', 'gate.json')}")
    run.store.write(first.gate["evidence"], b"{}")
    assert finish(run).gate["decision"] == first.gate["decision"]
