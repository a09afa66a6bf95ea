"""Step "gate": decide whether the round's model is safe, and whether the job's last model becomes the champion.

Every check gives pass, fail, inconclusive or error with its numbers. The decision is the worst of them, and only a
pass releases a model. The evidence is written before the champion's pointer moves, and the step's result after it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import torch

from fedloom.specs.canonical import digest, plain
from fedloom.tasks import champion
from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.evaluate import measure, read_holdout
from fedloom.tasks.metrics import HIGHER_IS_BETTER
from fedloom.tasks.model_store import read_model
from fedloom.tasks.models import custom_source
from fedloom.tasks.recipe import Bound
from fedloom.tasks.rounds import Progress, progress, write_rounds
from fedloom.tasks.selection.history import record_round
from fedloom.tasks.step import Place, StepResult

Outcome = Literal["pass", "inconclusive", "fail", "error"]
_WORST: tuple[Outcome, ...] = ("pass", "inconclusive", "fail", "error")


@dataclass(frozen=True)
class Check:
    """One question about a model and its answer.

    Attributes:
        name: What was asked, e.g. "target auc".
        outcome: The answer.
        reason: Why, for a reader.
        numbers: What it was judged on.
    """

    name: str
    outcome: Outcome
    reason: str
    numbers: Mapping[str, float | int | str | None]


def step(place: Place) -> StepResult:
    """Judge the round; on the last round of the run, also the release.

    The loop ends when the model is not finite, when too few clients took part, when early stopping says so, or
    after the last round. Its last model is promoted to champion if every check passes.
    """
    run = place.run
    now = progress(place)
    safety = [finite(place), participation(place, now)]
    stop = _stop_reason(place, safety, now)
    checks = safety
    key = place.key("evidence.json")
    decision: Outcome | None = None
    if stop is None:
        run.store.write_json(key, _evidence(place, checks, None))
    else:
        with champion.decided_alone(run):
            checks, decision = _judge_release(place, safety, stop, key)
            if decision == "pass":
                champion.promote(run, place.round, place.result("evaluate")["outputs"])
    metrics = write_rounds(place, now)
    record_round(place, last=stop is not None)
    return StepResult(
        {
            "stop": stop is not None,
            "stop_reason": stop,
            "decision": decision,
            "promoted": decision == "pass",
            "checks": [{"name": c.name, "outcome": c.outcome, "reason": c.reason} for c in checks],
        },
        {"evidence": run.store.stat(key), "rounds": metrics},
    )


def _judge_release(place: Place, safety: list[Check], stop: str, key: str) -> tuple[list[Check], Outcome]:
    """Judge the release and write the evidence, unless that was done and the champion is still the same.

    A gate that is repeated after its pointer has moved must not compare the model with itself.
    """
    store, holder = place.run.store, champion.current(place.run)
    evidence = store.read_json(key) if store.exists(key) else {}
    judged = (
        evidence.get("decision") and evidence["model_digest"] == place.result("aggregate")["outputs"]["model_digest"]
    )
    if judged and (holder is None or holder["run_id"] in (place.run.run_id, evidence["champion"])):
        return [Check(**check) for check in evidence["checks"]], evidence["decision"]
    checks = [*safety, *bounds(place), no_regression(place, holder)]
    store.write_json(key, _evidence(place, checks, stop, holder["run_id"] if holder else None))
    return checks, worst(checks)


def worst(checks: list[Check]) -> Outcome:
    """The decision that follows from the checks; without any, nothing is known."""
    return max((check.outcome for check in checks), key=_WORST.index, default="inconclusive")


def finite(place: Place) -> Check:
    """Every parameter of the model, and every score that it gives on the held-out data, is a finite number."""
    state = read_model(place.run.store, place.result("aggregate")["outputs"]["model_digest"])
    bad = sum(int((~torch.isfinite(tensor)).sum()) for tensor in state.values())
    numbers = {"not_finite": bad, "parameters": sum(tensor.numel() for tensor in state.values())}
    if bad:
        return Check("finite", "fail", f"{bad} parameters are not finite", numbers)
    if not place.result("evaluate")["outputs"]["finite"]:
        return Check("finite", "fail", "scores or loss on the held-out data are not finite", numbers)
    return Check("finite", "pass", "all parameters and scores are finite", numbers)


def participation(place: Place, now: Progress) -> Check:
    """At least the quorum of clients gave an update in this round, or in an earlier one if this was skipped."""
    took = place.result("aggregate")["outputs"]
    numbers = {name: took[name] for name in ("participants", "cohort", "quorum")}
    skipped = place.result("select")["outputs"]["skipped"]
    if skipped is not None:
        untrained = now.stop_reason is not None and not any(line["quorum_met"] for line in now.lines)
        words = f"the round was skipped: {skipped}" + ("; no round has trained the model" if untrained else "")
        return Check("participation", "fail" if untrained else "pass", words, numbers)
    words = f"{took['participants']} of {took['cohort']} clients gave an update, the quorum is {took['quorum']}"
    if took["aborted"] is not None:
        words = f"secure aggregation gave no sum: {took['aborted']}"
    return Check("participation", "pass" if took["quorum_met"] else "fail", words, numbers)


def bounds(place: Place) -> list[Check]:
    """Targets and thresholds of the job, each in the right direction for its metric."""
    measured = place.result("evaluate")["outputs"]
    return [_bound(bound, measured) for bound in place.run.recipe.evaluation.bounds]


def no_regression(place: Place, holder: dict[str, Any] | None) -> Check:
    """On the same held-out data, the model is no worse than the champion in the job's first metric."""
    run, measured = place.run, place.result("evaluate")["outputs"]
    name = run.recipe.evaluation.metrics[0]
    if holder is None:
        return Check("no regression", "pass", "there is no champion yet", {})
    if holder["run_id"] == run.run_id:
        return Check("no regression", "pass", "the champion is this run's own model", {})
    if name not in measured["metrics"]:
        reason = measured["undefined"].get(name, "the job has no held-out data")
        return Check("no regression", "inconclusive", f"{name} is unknown: {reason}", {"metric": name})
    try:
        theirs = _champion_value(place, holder, name)
    except ConfigurationError as error:
        reason = f"champion {holder['run_id']} cannot be compared: {error}"
        return Check("no regression", "inconclusive", reason, {"metric": name, "champion": holder["run_id"]})
    except Exception as error:  # the check could not be carried out: that is an outcome, not a crash
        return Check("no regression", "error", str(error), {"metric": name, "champion": holder["run_id"]})
    ours = measured["metrics"][name]
    numbers = {"metric": name, "value": ours, "champion_value": theirs, "champion": holder["run_id"]}
    if theirs is None:
        return Check("no regression", "inconclusive", f"{name} of the champion is undefined here", numbers)
    better = ours >= theirs if HIGHER_IS_BETTER[name] else ours <= theirs
    words = f"{name} {ours:.4f}, champion {theirs:.4f}"
    return Check("no regression", "pass" if better else "fail", words, numbers)


def _champion_value(place: Place, holder: dict[str, Any], name: str) -> float | None:
    recipe = champion.own_recipe(place.run, holder)
    state = read_model(place.run.store, holder["model_digest"])
    return measure(recipe, state, read_holdout(place.run, recipe)).values.get(name)


def _bound(bound: Bound, measured: Mapping[str, Any]) -> Check:
    value = measured["metrics"].get(bound.metric)
    numbers = {"metric": bound.metric, "value": value, "minimum": bound.minimum, "maximum": bound.maximum}
    if value is None:
        reason = measured["undefined"].get(bound.metric, "the job has no held-out data")
        return Check(bound.name, "inconclusive", f"{bound.metric} is unknown: {reason}", numbers)
    low = bound.minimum is not None and value < bound.minimum
    high = bound.maximum is not None and value > bound.maximum
    limits = [f"at least {bound.minimum:g}"] if bound.minimum is not None else []
    limits += [f"at most {bound.maximum:g}"] if bound.maximum is not None else []
    words = f"{bound.metric} {value:.4f}, {' and '.join(limits)} wanted"
    return Check(bound.name, "fail" if low or high else "pass", words, numbers)


def _stop_reason(place: Place, safety: list[Check], now: Progress) -> str | None:
    """Why the run ends here; after an aborted session of secure aggregation, a later round is the next attempt."""
    if now.stop_reason is None and place.result("aggregate")["outputs"]["aborted"] is not None:
        return None
    failed = [check.reason for check in safety if check.outcome != "pass"]
    return failed[0] if failed else now.stop_reason


def _evidence(place: Place, checks: list[Check], stop: str | None, judged_against: str | None = None) -> dict[str, Any]:
    run = place.run
    return {
        "run_id": run.run_id,
        "plan_digest": run.plan_digest,
        "recipe_digest": digest(run.recipe),
        "fleet_digest": run.recipe.fleet_digest,
        "round": place.round,
        "secure_aggregation": place.result("aggregate")["outputs"]["session"],
        "decision_file": place.result("select")["files"]["decision"],
        "model_digest": place.result("aggregate")["outputs"]["model_digest"],
        "holdout_digest": place.result("evaluate")["outputs"]["holdout"],
        "metrics": place.result("evaluate")["outputs"]["metrics"],
        "undefined": place.result("evaluate")["outputs"]["undefined"],
        "windows": place.result("evaluate")["outputs"]["windows"],
        "custom_class": custom_source(run.recipe.model),
        "champion": judged_against,
        "stop": stop,
        "decision": None if stop is None else worst(checks),
        "checks": plain(checks),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("fedloom", "torch", "numpy", "scikit-learn")},
        },
    }
