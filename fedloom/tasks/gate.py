"""Step "gate": decide whether the round's model is safe, and whether the job's last model becomes the champion.

Every check gives pass, fail, inconclusive or error with its numbers. The decision is the worst of them, and only a
pass releases a model. The evidence is written before the champion's pointer moves, and the step's result after it.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch

from fedloom.specs.canonical import digest, plain
from fedloom.tasks import champion
from fedloom.tasks.analysis import analyse, as_json
from fedloom.tasks.checks import Check, Outcome, evidence_of, release_checks
from fedloom.tasks.metrics import held_out
from fedloom.tasks.model_store import read_model
from fedloom.tasks.models import custom_source
from fedloom.tasks.rounds import Progress, progress, write_rounds
from fedloom.tasks.selection.history import record_round
from fedloom.tasks.step import Place, StepResult

_WORST: tuple[Outcome, ...] = ("pass", "inconclusive", "fail", "error")


def step(place: Place) -> StepResult:
    """Judge the round; on the last round of the run, also the release.

    The loop ends when the model is not finite, when too few clients took part, when early stopping says so, or
    after the last round. Its last model is promoted to champion if every check passes. An evaluation has no model of
    its own: it moves no champion, and a pass says that the model keeps the limits.
    """
    run = place.run
    now = progress(place)
    safety = [finite(place), participation(place, now)]
    stop = _stop_reason(place, safety, now)
    checks = safety
    key = place.key("evidence.json")
    decision: Outcome | None = None
    released: str | None = None
    if stop is None:
        run.store.write_json(key, _evidence(place, checks, None))
    else:
        with champion.decided_alone(run):
            checks, decision = _judge_release(place, safety, stop, key)
            if decision == "pass" and run.recipe.kind != "evaluate":
                measured = place.result("evaluate")["outputs"]
                released = champion.promote(run, place.round, measured, champion.current(run))
    files = {"evidence": run.store.stat(key), "rounds": write_rounds(place, now)}
    if stop is not None:
        files["analysis"] = run.store.stat(place.key("analysis.json"))
    record_round(place, last=stop is not None)
    return StepResult(
        {
            "stop": stop is not None,
            "stop_reason": stop,
            "decision": decision,
            "promoted": released is not None,
            "model_version": released,
            "checks": [{"name": c.name, "outcome": c.outcome, "reason": c.reason} for c in checks],
        },
        files,
    )


def _judge_release(place: Place, safety: list[Check], stop: str, key: str) -> tuple[list[Check], Outcome]:
    """Judge the release and write analysis and evidence, unless that was done and the champion is still the same.

    A gate that is repeated after its pointer has moved must not compare the model with itself.
    """
    store, holder = place.run.store, champion.current(place.run)
    evidence = store.read_json(key) if store.exists(key) else {}
    judged = (
        evidence.get("decision") and evidence["model_digest"] == place.result("aggregate")["outputs"]["model_digest"]
    )
    judged = judged and store.exists(place.key("analysis.json"))
    if judged and (holder is None or holder["run_id"] in (place.run.run_id, evidence["champion"])):
        return [Check(**check) for check in evidence["checks"]], evidence["decision"]
    analysis = analyse(place)
    checks = [*safety, *promises(place), *release_checks(place, analysis, holder)]
    store.write_json(place.key("analysis.json"), _named(place, as_json(analysis, place.run.recipe.evaluation.metrics)))
    found = _evidence(place, checks, stop, holder["run_id"] if holder else None)
    store.write_json(key, found | {"analysis": evidence_of(analysis), "baseline": _baseline(place)})
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
    skipped, evaluates = place.result("select")["outputs"]["skipped"], place.run.recipe.kind == "evaluate"
    if skipped is not None:
        nothing = now.stop_reason is not None and not any(line["quorum_met"] for line in now.lines)
        did = "measured" if evaluates else "trained"
        words = f"the round was skipped: {skipped}" + (f"; no round has {did} the model" if nothing else "")
        return Check("participation", "fail" if nothing else "pass", words, numbers)
    gave = "measured the model" if evaluates else "gave an update"
    if excluded := took["remarks"]["excluded"]:
        gave += f" that counts, {excluded} were excluded"
    words = f"{took['participants']} of {took['cohort']} clients {gave}, the quorum is {took['quorum']}"
    if took["withheld"] is not None:
        words = f"the updates gave no mean: {took['withheld']}"
    if took["aborted"] is not None:
        words = f"secure aggregation gave no sum: {took['aborted']}"
    return Check("participation", "pass" if took["quorum_met"] else "fail", words, numbers)


def promises(place: Place) -> list[Check]:
    """A run without the privacy that its job promises is for comparison, and its model is not released."""
    if not place.run.recipe.baseline:
        return []
    return [Check("privacy", "fail", "the run leaves out the privacy that the job promises: it is a baseline", {})]


def _stop_reason(place: Place, safety: list[Check], now: Progress) -> str | None:
    """Why the run ends here; after an aborted session of secure aggregation, a later round is the next attempt."""
    if now.stop_reason is None and place.result("aggregate")["outputs"]["aborted"] is not None:
        return None
    failed = [check.reason for check in safety if check.outcome != "pass"]
    return failed[0] if failed else now.stop_reason


def _named(place: Place, analysis: dict[str, Any]) -> dict[str, Any]:
    """An analysis with its intervals under the names that the held-out metrics have in this kind of job."""
    if place.run.recipe.kind != "evaluate" or "intervals" not in analysis:
        return analysis
    return analysis | {"intervals": {held_out(name): found for name, found in analysis["intervals"].items()}}


def _baseline(place: Place) -> str | None:
    """SHA-256 of the baseline distribution's file."""
    if place.run.recipe.evaluation.drift is None:
        return None
    found: str | None = Place(place.run, 0).result("validate")["outputs"]["baseline"]
    return found


def _evidence(place: Place, checks: list[Check], stop: str | None, judged_against: str | None = None) -> dict[str, Any]:
    run = place.run
    return {
        "kind": run.recipe.kind,
        "run_id": run.run_id,
        "plan_digest": run.plan_digest,
        "recipe_digest": digest(run.recipe),
        "fleet_digest": run.recipe.fleet_digest,
        "fleet_file": f"fleets/{run.recipe.fleet_digest}.json",
        "round": place.round,
        "secure_aggregation": place.result("aggregate")["outputs"]["session"],
        "quality_file": place.result("aggregate")["files"].get("quality"),
        "decision_file": place.result("select")["files"]["decision"],
        "model_digest": place.result("aggregate")["outputs"]["model_digest"],
        "given_by_clients": place.result("aggregate")["files"],
        "model_source": run.recipe.model_source,
        "model_source_digest": place.result("initialise", round=0)["outputs"]["source_digest"],
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
            **{name: version(name) for name in ("fedloom", "torch", "numpy", "scikit-learn", "scipy")},
        },
    }
