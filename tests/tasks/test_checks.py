"""What the gate makes of groups, small samples, drift, faults and the champion."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedloom.flows.baseline import make_baseline
from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.result import RunResult, read_result
from fedloom.specs.bundle import load_job
from fedloom.tasks.errors import RunError
from fedloom.tasks.groups import NO_WINDOWS, Group, by_group, gaps
from fedloom.tasks.metrics import Metrics
from fedloom.tasks.step import Run
from tests.conftest import write_signals

MakeRun = Callable[..., Run]
ALL = ("auc", "accuracy", "precision", "recall", "f1_score", "ece", "brier_score", "loss", "parameters", "model_bytes")


def write_holdout(path: Path, offset: float = 0.0, rows: int = 1280, seed: int = 100) -> None:
    """As the tests' holdout, in recordings of 64 rows; in region "south" the label says nothing of the signal."""
    write_signals(path, seed, rows)
    lines = path.read_text().split("\n")[1:-1]
    out = ["a,b,label,series,region,wear,odd"]
    for row, line in enumerate(lines):
        a, b, label = line.split(",")
        series = row // 64
        south = series % 4 == 3
        value = float(a) - 0.6 * int(label) * south + offset
        out.append(
            f"{value:.5f},{b},{label},{series},{'south' if south else 'north'},{series / 3},{'x' if row else 'y'}"
        )
    path.write_text("\n".join(out) + "\n")


def judged(make_run: MakeRun, offset: float = 0.0, baseline: bool = False, **asked: Any) -> tuple[RunResult, Any, Any]:
    """A run whose validation is as asked; its result, its checks by name, its analysis."""
    job: dict[str, Any] = {
        "metrics": None, "holdout": None, "num_rounds": 4, "name": asked.pop("name", ""),
        "validation_config": {
            "holdout_dataset": {"source": "big.csv"}, "metrics": [{"name": name} for name in ALL], **asked,
        },
    }  # fmt: skip
    run = make_run(**job)
    write_holdout(run.folder / "big.csv", offset)
    if baseline:
        write_holdout(run.folder / "old.csv", 0.0, seed=7)
        (run.folder / "baseline.json").write_bytes(make_baseline(load_job(run.folder), ["old.csv"]))
    simulate(compile_plan(load_job(run.folder)), run)
    result = read_result(run)
    evidence = run.store.read_json(result.gate["evidence"])
    gate = run.store.read_json(run.key(f"round-{result.rounds:05d}", "gate.json"))
    analysis = json.loads(run.store.read(gate["files"]["analysis"]["key"]))
    return result, {check["name"]: check for check in evidence["checks"]}, analysis


def test_groups_are_compared_in_the_first_metric(make_run: MakeRun) -> None:
    asked = {"disaggregate_by": ["wear"], "bias_fairness": {"enabled": True, "disaggregate_by": ["region"]}}
    asked["bias_fairness"]["fairness_threshold"] = 0.05  # type: ignore[index]
    result, checks, analysis = judged(make_run, **asked)
    assert checks["fairness region"]["outcome"] == "fail"
    assert checks["fairness region"]["numbers"]["worst"] == "south"
    assert result.gate["decision"] == "fail"
    assert list(analysis["groups"]) == ["region", "wear"]
    groups, gap = analysis["groups"]["region"], analysis["gaps"]["region"]["auc"]
    assert {value: group["windows"] for value, group in groups.items()} == {"north": 120, "south": 40}
    aucs = {value: group["metrics"]["auc"] for value, group in groups.items()}
    assert gap == {"worst": "south", "value": aucs["south"], "gap": aucs["north"] - aucs["south"]}
    assert len(analysis["groups"]["wear"]) == 4
    assert all(set(g["metrics"]) == set(ALL[:8]) for g in groups.values())


def test_a_group_without_windows_makes_fairness_inconclusive(make_run: MakeRun) -> None:
    fair = {"enabled": True, "disaggregate_by": ["odd"], "fairness_threshold": 0.5}
    result, checks, analysis = judged(make_run, bias_fairness=fair)
    assert checks["fairness odd"]["outcome"] == "inconclusive"
    assert NO_WINDOWS in checks["fairness odd"]["reason"]
    assert result.gate["decision"] == "inconclusive"
    assert analysis["groups"]["odd"]["y"]["windows"] == 0
    assert "odd" not in analysis.get("gaps", {})


def test_a_group_of_one_class_has_its_reason() -> None:
    from fedloom.tasks.client_data import Windows
    from fedloom.tasks.group_columns import Column

    windows = Windows(np.zeros((4, 1, 1), np.float32), None, columns={"g": Column(("p", "q"), np.array([0, 0, 1, 1]))})

    def measure(rows: Any) -> Metrics:
        return Metrics({"auc": 0.9}, {}) if 0 in rows else Metrics({}, {"auc": "the held-out data has one class only"})

    found = by_group(("g",), ("auc",), windows, measure)["g"]
    assert found["q"] == Group(2, {}, {"auc": "the held-out data has one class only"})
    assert gaps(found, ("auc",)) == {}


def test_the_worst_group_is_that_in_the_bad_direction() -> None:
    groups = {"p": Group(1, {"ece": 0.1, "auc": 0.9}, {}), "q": Group(1, {"ece": 0.4, "auc": 0.7}, {})}
    found = gaps(groups, ("ece", "auc"))
    assert (found["ece"].worst, found["ece"].gap) == ("q", pytest.approx(0.3))
    assert (found["auc"].worst, found["auc"].gap) == ("q", pytest.approx(0.2))


def test_the_analysis_has_what_reports_are_made_of(make_run: MakeRun) -> None:
    result, checks, analysis = judged(make_run)
    assert set(analysis) == {"confusion", "roc", "calibration", "intervals", "latency_ms_p95", "model_bytes"}
    (tn, fp), (fn, tp) = analysis["confusion"]
    assert tn + fp + fn + tp == 160
    assert (tn + tp) / 160 == pytest.approx(result.metrics["accuracy"])
    assert analysis["roc"]["fpr"][0] == analysis["roc"]["tpr"][0] == 0.0
    assert analysis["roc"]["fpr"][-1] == analysis["roc"]["tpr"][-1] == 1.0
    assert len(analysis["roc"]["fpr"]) == len(analysis["roc"]["tpr"]) <= 200
    assert np.trapezoid(analysis["roc"]["tpr"], analysis["roc"]["fpr"]) == pytest.approx(result.metrics["auc"])
    assert sum(row["count"] for row in analysis["calibration"]) == 160
    assert set(analysis["intervals"]) == set(ALL[:8])
    for name, interval in analysis["intervals"].items():
        assert interval["low"] <= result.metrics[name] <= interval["high"], name
        assert interval["level"] == 0.95
    assert result.metrics["parameters"] == 145
    assert result.metrics["model_bytes"] == analysis["model_bytes"]
    assert result.gate["decision"] == "pass"
    assert set(checks) == {"finite", "participation", "no regression"}


def test_a_limit_that_only_the_value_keeps_is_inconclusive(make_run: MakeRun) -> None:
    result, _, analysis = judged(make_run)
    low, high = analysis["intervals"]["auc"]["low"], analysis["intervals"]["auc"]["high"]
    value = result.metrics["auc"]
    for wanted, below, outcome in [
        ({"min": (low + value) / 2}, 161, "inconclusive"),
        ({"min": (low + value) / 2}, 160, "pass"),
        ({"min": low - 0.01}, 161, "pass"),
        ({"min": value + 0.001}, 161, "fail"),
        ({"max": (value + high) / 2}, 161, "inconclusive"),
        ({"max": high + 0.01}, 161, "pass"),
    ]:
        asked = {"thresholds": {"auc": wanted}, "confidence": {"below": below}}
        found, checks, _ = judged(make_run, **asked)
        assert checks["threshold auc"]["outcome"] == outcome, checks["threshold auc"]
        assert checks["threshold auc"]["numbers"]["low"] == low
        assert found.gate["promoted"] is (outcome == "pass")


def test_a_loss_has_an_interval_too(make_run: MakeRun) -> None:
    asked = {"thresholds": {"loss": 9.0}, "confidence": {"level": 0.9}}
    _, checks, _ = judged(make_run, **asked)
    numbers = checks["threshold loss"]["numbers"]
    assert checks["threshold loss"]["outcome"] == "pass"
    assert numbers["low"] < numbers["value"] < numbers["high"]


@pytest.mark.parametrize(
    ("method", "offset", "outcome"),
    [("PSI", 0.0, "pass"), ("PSI", 1.0, "fail"), ("KS", 0.0, "pass"), ("KS", 1.0, "fail")],
)
def test_data_that_have_moved_withhold_the_model(make_run: MakeRun, method: str, offset: float, outcome: str) -> None:
    watched = {"enabled": True, "method": method, "alert_threshold": 0.2, "baseline_distribution": "baseline.json"}
    names = ["auc", "drift_psi", "drift_ks", "latency_p95"]
    result, checks, analysis = judged(
        make_run, offset, baseline=True, drift_detection=watched,
        metrics=[{"name": name} for name in names], thresholds={"drift_psi": 99.0, "latency_p95": 1e9},
    )  # fmt: skip
    assert checks["drift"]["outcome"] == outcome
    assert set(analysis["drift"]) == {"a", "b"}
    assert result.metrics["drift_psi"] == max(one["psi"] for one in analysis["drift"].values())
    assert result.metrics["drift_ks"] == max(one["ks"] for one in analysis["drift"].values())
    if outcome == "fail":
        assert checks["drift"]["numbers"]["signal"] == "a"
    assert checks["threshold drift_psi"]["outcome"] == checks["threshold latency_p95"]["outcome"] == "pass"
    assert checks["threshold latency_p95"]["numbers"]["value"] > 0
    assert "latency_p95" not in result.metrics  # no two runs would agree on it
    assert checks["threshold latency_p95"]["reason"] == "latency_p95 (ms, in the evidence), at most 1e+09 wanted"


def test_a_run_with_a_damaged_baseline_ends_before_any_client_trains(make_run: MakeRun) -> None:
    watched = {"enabled": True, "alert_threshold": 0.2, "baseline_distribution": "baseline.json"}
    run = make_run(metrics=None, holdout=None, validation_config={
        "holdout_dataset": {"source": "holdout.csv"}, "metrics": [{"name": "auc"}], "drift_detection": watched,
    })  # fmt: skip
    (run.folder / "baseline.json").write_text("{}")
    with pytest.raises(RunError, match=r"baseline distribution 'baseline\.json' cannot be used"):
        simulate(compile_plan(load_job(run.folder)), run)
    assert not run.store.exists(run.key("initialise.json"))


def test_a_model_that_faults_confuse_is_not_released(make_run: MakeRun) -> None:
    every = ["noise", "bias", "dropped_axis", "stuck_axis"]
    result, checks, analysis = judged(make_run, robustness={"faults": every, "severity": 3.0, "max_drop": 0.02})
    assert set(analysis["robustness"]) == set(every)
    for fault in every:
        drop = result.metrics["auc"] - analysis["robustness"][fault]["auc"]
        assert checks[f"robustness {fault}"]["outcome"] == ("fail" if drop > 0.02 else "pass")
    assert checks["robustness noise"]["outcome"] == "fail"
    mild, checks, _ = judged(make_run, robustness={"faults": ["noise"], "severity": 0.01})
    assert checks["robustness noise"]["outcome"] == mild.gate["decision"] == "pass"


def test_the_champion_is_held_against_a_margin(make_run: MakeRun) -> None:
    first, _, _ = judged(make_run, disaggregate_by=["region"])
    assert first.gate["promoted"]
    # The same model again: another plan, no difference at all.
    again, checks, _ = judged(make_run, champion_margin=0.0)
    numbers = checks["no regression"]["numbers"]
    assert (checks["no regression"]["outcome"], numbers["difference"], numbers["low"]) == ("pass", 0.0, 0.0)
    assert again.model_digest == first.model_digest


@pytest.mark.parametrize(("margin", "outcome"), [(None, "fail"), (0.9, "pass"), ("between", "inconclusive")])
def test_a_worse_model_within_its_margin(make_run: MakeRun, margin: Any, outcome: str) -> None:
    judged(make_run)
    worse = {"learning_rate": 0.001, "optimizer": "SGD"}

    def once(margin: float | None) -> Any:
        run = make_run(
            metrics=None, holdout=None, num_rounds=1, hyperparameters=worse,
            validation_config={
                "holdout_dataset": {"source": "big.csv"}, "metrics": [{"name": "auc"}],
                **({} if margin is None else {"champion_margin": margin}),
            },
        )  # fmt: skip
        simulate(compile_plan(load_job(run.folder)), run)
        evidence = run.store.read_json(read_result(run).gate["evidence"])
        return next(check for check in evidence["checks"] if check["name"] == "no regression")

    numbers = once(None)["numbers"]
    assert numbers["low"] < numbers["difference"] < 0
    if margin == "between":
        margin = -(numbers["low"] + numbers["difference"]) / 2
    assert once(margin)["outcome"] == outcome


def test_a_holdout_keeps_the_shares_of_label_and_columns(make_run: MakeRun) -> None:
    held_out = {"source": "big.csv", "size": 32, "stratified": True, "stratify_by": ["region"]}
    _, _, analysis = judged(make_run, holdout_dataset=held_out, disaggregate_by=["region"])
    assert {value: g["windows"] for value, g in analysis["groups"]["region"].items()} == {"north": 24, "south": 8}
    (tn, fp), (fn, tp) = analysis["confusion"]
    assert tn + fp == fn + tp == 16


def test_a_holdout_of_one_class_has_no_silent_number(make_run: MakeRun) -> None:
    run = make_run(metrics={"auc": 0.5, "recall": 0.1})
    lines = (run.folder / "holdout.csv").read_text().split("\n")
    (run.folder / "holdout.csv").write_text("\n".join([lines[0], *(x[:-1] + "0" for x in lines[1:-1])]) + "\n")
    simulate(compile_plan(load_job(run.folder)), run)
    result = read_result(run)
    outcomes = {check["name"]: check["outcome"] for check in result.gate["checks"]}
    assert outcomes["target auc"] == outcomes["target recall"] == "inconclusive"
    assert result.undefined["auc"] == "the held-out data has one class only"
    assert not result.gate["promoted"]


OTHER_OUTPUTS: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"output_schema": {"type": "multi_class", "labels": [0, 1]}},
        ["accuracy", "auc", "f1_score", "precision", "recall", "false_positive_rate", "ece", "brier_score", "loss"],
    ),
    (
        {"architecture": "Autoencoder", "output_schema": "reconstruction_error",
         "model_hyperparameters": {"latent_dim": 2}},
        ["reconstruction_error", "auc", "average_precision", "loss"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "names"), OTHER_OUTPUTS, ids=["classes", "reconstruction"])
def test_every_output_is_analysed(make_run: MakeRun, changes: dict[str, Any], names: list[str]) -> None:
    asked = {
        "holdout_dataset": {"source": "big.csv"}, "metrics": [{"name": name} for name in names],
        "disaggregate_by": ["region"], "robustness": {"faults": ["bias"]}, "champion_margin": 0.1,
    }  # fmt: skip
    run = make_run(metrics=None, holdout=None, num_rounds=2, validation_config=asked, **changes)
    write_holdout(run.folder / "big.csv")
    simulate(compile_plan(load_job(run.folder)), run)
    result = read_result(run)
    place = run.key(f"round-{result.rounds:05d}", "analysis.json")
    analysis = run.store.read_json(place)
    assert set(analysis["intervals"]) == set(names)
    for name, interval in analysis["intervals"].items():
        assert interval["low"] <= result.metrics[name] <= interval["high"], name
    assert all(set(group["metrics"]) == set(names) for group in analysis["groups"]["region"].values())
    assert set(analysis["robustness"]["bias"]) == set(names)
    assert ("roc" in analysis) == ("confusion" not in analysis)


def test_a_champion_with_other_windows_is_compared_without_pairs(make_run: MakeRun) -> None:
    judged(make_run)
    run = make_run(
        metrics=None, holdout=None, num_rounds=4, window_size=4, seed=11, model_hyperparameters={"hidden_dims": [4]},
        validation_config={
            "holdout_dataset": {"source": "big.csv"}, "metrics": [{"name": "auc"}], "champion_margin": 0.5,
        },
    )  # fmt: skip
    simulate(compile_plan(load_job(run.folder)), run)
    evidence = run.store.read_json(read_result(run).gate["evidence"])
    check = next(check for check in evidence["checks"] if check["name"] == "no regression")
    assert check["numbers"]["low"] < check["numbers"]["difference"] < check["numbers"]["high"]
    assert evidence["windows"] == 320
    assert check["outcome"] == ("pass" if check["numbers"]["low"] >= -0.5 else "inconclusive")


def test_a_repeated_gate_keeps_its_analysis(make_run: MakeRun) -> None:
    run = make_run()
    simulate(compile_plan(load_job(run.folder)), run)
    place = run.key("round-00003", "analysis.json")
    before = run.store.read(place)
    run.store._fs.rm_file(f"{run.store._root}/{run.key('round-00003', 'gate.json')}")
    simulate(compile_plan(load_job(run.folder)), run)
    assert run.store.read(place) == before  # its latency would be another one


def test_an_anomaly_label_is_zero_or_one(make_run: MakeRun) -> None:
    changes, _ = OTHER_OUTPUTS[1]
    run = make_run(metrics=["auc"], **changes)
    lines = (run.folder / "holdout.csv").read_text().replace(",1\n", ",2\n")
    (run.folder / "holdout.csv").write_text(lines)
    with pytest.raises(RunError, match="the holdout has label 2; the model's classes are 0 to 1"):
        simulate(compile_plan(load_job(run.folder)), run)
