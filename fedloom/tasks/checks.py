"""The questions that the gate asks before a release: limits, fairness, drift, robustness, and the champion.

One rule holds for all that are judged on an interval: the value must pass, and so must the end of its interval. A
value that fails is a fail; a value that passes with an end that does not is inconclusive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fedloom.specs.canonical import plain
from fedloom.tasks.analysis import Analysis, level_of, sample_of
from fedloom.tasks.bootstrap import Interval, clusters_of, difference
from fedloom.tasks.champion import own_recipe
from fedloom.tasks.errors import ConfigurationError, one_line
from fedloom.tasks.evaluate import measure_predictions, predict, read_holdout
from fedloom.tasks.metrics import BESIDE, HIGHER_IS_BETTER, HOLDOUT, LATENCY
from fedloom.tasks.model_store import read_model
from fedloom.tasks.recipe import Bound, Recipe
from fedloom.tasks.resampled import Sample
from fedloom.tasks.seeds import torch_seed
from fedloom.tasks.step import Place

Outcome = Literal["pass", "inconclusive", "fail", "error"]
NO_HOLDOUT = "the job has no held-out data"


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
    numbers: Mapping[str, Any]


def release_checks(place: Place, analysis: Analysis, holder: dict[str, Any] | None) -> list[Check]:
    """Every check of a release, in the order of the evidence.

    Args:
        place: The run's last round.
        analysis: The model on the held-out data.
        holder: The champion's pointer, if there is one.
    """
    measured, evaluation = place.result("evaluate")["outputs"], place.run.recipe.evaluation
    return [
        *(bound_check(bound, place.run.recipe, measured, analysis) for bound in evaluation.bounds),
        *fairness_checks(place.run.recipe, analysis),
        *drift_checks(place.run.recipe, analysis),
        *robustness_checks(place.run.recipe, measured, analysis),
        *([] if place.run.recipe.kind == "evaluate" else [no_regression(place, analysis, holder)]),
    ]


def bound_check(bound: Bound, recipe: Recipe, measured: Mapping[str, Any], analysis: Analysis) -> Check:
    """A target or threshold, in the right direction for its metric."""
    name = bound.metric
    value = {**measured["metrics"], **analysis.latency}.get(name)
    of_clients = recipe.kind == "evaluate" and not name.startswith(HOLDOUT)
    held_out = name.removeprefix(HOLDOUT)
    interval = None if of_clients else analysis.intervals.found.get(held_out)
    numbers = {"metric": name, "value": value, "minimum": bound.minimum, "maximum": bound.maximum, **_ends(interval)}
    if value is None:
        reason = measured["undefined"].get(name, NO_HOLDOUT if measured["finite"] else "scores are not finite")
        return Check(bound.name, "inconclusive", f"{name} is unknown: {reason}", numbers)
    limits = [f"at least {bound.minimum:g}"] if bound.minimum is not None else []
    limits += [f"at most {bound.maximum:g}"] if bound.maximum is not None else []
    # Reasons are the same on every machine, and times are not: they stand in the evidence alone.
    shown = f"{name} (ms, in the evidence)" if name in LATENCY else f"{name} {value:.4f}"
    words = f"{shown}, {' and '.join(limits)} wanted"
    if _outside(bound, value, value):
        return Check(bound.name, "fail", words, numbers)
    rule = recipe.evaluation.confidence
    if rule is None or analysis.windows >= rule.below or of_clients or held_out in BESIDE:
        return Check(bound.name, "pass", words, numbers)
    few = f"with {analysis.windows} windows, fewer than {rule.below}, its interval must be within, and "
    if interval is None:
        reason = f"there is none: {analysis.intervals.missing.get(held_out, NO_HOLDOUT)}"
        return Check(bound.name, "inconclusive", f"{words}; {few}{reason}", numbers)
    ends = f"it is {interval.low:.4f} to {interval.high:.4f} (level {interval.level:g})"
    outcome: Outcome = "inconclusive" if _outside(bound, interval.low, interval.high) else "pass"
    return Check(bound.name, outcome, f"{words}; {few}{ends}", numbers)


def _outside(bound: Bound, low: float, high: float) -> bool:
    below = bound.minimum is not None and low < bound.minimum
    return below or (bound.maximum is not None and high > bound.maximum)


def _ends(interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {"low": None, "high": None, "level": None}
    return {"low": interval.low, "high": interval.high, "level": interval.level}


def fairness_checks(recipe: Recipe, analysis: Analysis) -> list[Check]:
    """For each column, the gap between its groups in the job's first metric."""
    rule, name = recipe.evaluation.fairness, recipe.evaluation.metrics[0]
    if rule is None:
        return []
    return [_fairness(column, name, rule.threshold, analysis) for column in rule.columns]


def _fairness(column: str, name: str, threshold: float, analysis: Analysis) -> Check:
    title, groups = f"fairness {column}", analysis.groups.get(column, {})
    gap = analysis.gaps.get(column, {}).get(name)
    numbers = {"metric": name, "threshold": threshold, "gap": None, "worst": None, "value": None}
    words = f"{name} is known for fewer than two groups"
    if gap is not None:
        numbers |= {"gap": gap.gap, "worst": gap.worst, "value": gap.value}
        words = f"gap {gap.gap:.4f} in {name}, at most {threshold:g} wanted; worst is {gap.worst!r}"
        if gap.gap > threshold:
            return Check(title, "fail", words, numbers)
    unknown = [value for value, group in groups.items() if name not in group.metrics]
    if unknown:
        first = groups[unknown[0]].undefined.get(name, NO_HOLDOUT)
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        return Check(title, "inconclusive", f"{words}; unknown for {unknown[0]!r}{more}: {first}", numbers)
    return Check(title, "inconclusive" if gap is None else "pass", words, numbers)


def drift_checks(recipe: Recipe, analysis: Analysis) -> list[Check]:
    """The signal of the held-out data that has moved most from the baseline."""
    rule = recipe.evaluation.drift
    if rule is None:
        return []
    key = rule.method.lower()
    if not analysis.drift:
        return [Check("drift", "inconclusive", "drift is unknown: the model's scores are not finite", {})]
    worst = max(analysis.drift, key=lambda signal: analysis.drift[signal][key])
    value = analysis.drift[worst][key]
    numbers = {"method": rule.method, "signal": worst, "value": value, "threshold": rule.threshold}
    words = f"{rule.method} {value:.4f} of signal {worst!r}, at most {rule.threshold:g} wanted"
    return [Check("drift", "fail" if value > rule.threshold else "pass", words, numbers)]


def robustness_checks(recipe: Recipe, measured: Mapping[str, Any], analysis: Analysis) -> list[Check]:
    """How much worse each fault makes the job's first metric."""
    rule, name = recipe.evaluation.robustness, recipe.evaluation.metrics[0]
    held_out = HOLDOUT + name if recipe.kind == "evaluate" else name
    checks = []
    for fault in rule.faults if rule is not None else ():
        whole, hurt = measured["metrics"].get(held_out), analysis.robustness.get(fault)
        value = hurt.values.get(name) if hurt is not None else None
        numbers = {"metric": name, "value": whole, "with_fault": value, "max_drop": rule.max_drop if rule else None}
        if whole is None or value is None:
            why = measured["undefined"].get(held_out) or (hurt.undefined.get(name) if hurt is not None else None)
            reason = f"{name} is unknown: {why or NO_HOLDOUT}"
            checks.append(Check(f"robustness {fault}", "inconclusive", reason, numbers))
            continue
        drop = whole - value if HIGHER_IS_BETTER[name] else value - whole
        most = rule.max_drop if rule is not None else 0.0
        words = f"{name} {value:.4f} instead of {whole:.4f}, a drop of at most {most:g} wanted"
        checks.append(Check(f"robustness {fault}", "fail" if drop > most else "pass", words, numbers))
    return checks


def no_regression(place: Place, analysis: Analysis, holder: dict[str, Any] | None) -> Check:
    """On the same held-out data, the model is no worse than the champion in the job's first metric."""
    run, measured = place.run, place.result("evaluate")["outputs"]
    name, title = run.recipe.evaluation.metrics[0], "no regression"
    if holder is None:
        return Check(title, "pass", "there is no champion yet", {})
    if holder["run_id"] == run.run_id:
        return Check(title, "pass", "the champion is this run's own model", {})
    numbers = {"metric": name, "champion": holder["run_id"]}
    if name not in measured["metrics"] or analysis.sample is None:
        reason = measured["undefined"].get(name, NO_HOLDOUT)
        return Check(title, "inconclusive", f"{name} is unknown: {reason}", numbers)
    try:
        theirs, apart = _against(place, holder, analysis.sample)
    except ConfigurationError as error:
        reason = f"champion {holder['run_id']} cannot be compared: {error}"
        return Check(title, "inconclusive", reason, numbers)
    except Exception as error:  # the check could not be carried out: that is an outcome, not a crash
        return Check(title, "error", one_line(error), numbers)
    ours, margin = measured["metrics"][name], run.recipe.evaluation.champion_margin
    numbers |= {"value": ours, "champion_value": theirs, "margin": margin}
    if theirs is None or apart is None:
        return Check(title, "inconclusive", f"{name} of the champion is undefined here", numbers)
    interval = apart if isinstance(apart, Interval) else None
    words = f"{name} {ours:.4f}, champion {theirs:.4f}"
    worse = theirs - ours if HIGHER_IS_BETTER[name] else ours - theirs
    numbers |= {"difference": -worse, **_ends(interval)}
    if worse > (margin or 0.0):
        return Check(title, "fail", words, numbers)
    if margin is None:
        return Check(title, "pass", words, numbers)
    if interval is None:
        return Check(title, "inconclusive", f"{words}; the difference has no interval: {apart}", numbers)
    shown = f"{words}; it is better by {interval.low:+.4f} to {interval.high:+.4f}, {-margin:+g} or more wanted"
    return Check(title, "pass" if interval.low >= -margin else "inconclusive", shown, numbers)


def _against(place: Place, holder: dict[str, Any], ours: Sample) -> tuple[float | None, Interval | str | None]:
    """The champion's value, measured as it was trained, and an interval of how much better the model is."""
    run, name = place.run, place.run.recipe.evaluation.metrics[0]
    recipe = own_recipe(run, holder)
    windows, state = read_holdout(run, recipe), read_model(run.store, holder["model_digest"])
    predictions = predict(recipe, state, windows)
    value = measure_predictions(recipe, windows, predictions).values.get(name)
    if value is None:
        return None, None
    clusters, _ = clusters_of(windows, recipe.inputs.window_size, recipe.inputs.stride)
    theirs = sample_of(recipe, state, windows, predictions, clusters)
    own = run.recipe.inputs
    paired = (own.window_size, own.stride) == (recipe.inputs.window_size, recipe.inputs.stride)
    seed = torch_seed(run.recipe.seed, "champion")
    return value, difference(name, ours, theirs, paired, level_of(run.recipe), seed)


def evidence_of(analysis: Analysis) -> dict[str, Any]:
    """What an analysis adds to the evidence: all of it but measurements of time, which no two runs share."""
    return {
        "model_bytes": analysis.model_bytes,
        "parameters": analysis.parameters,
        "drawn_by": analysis.drawn_by,
        "intervals": plain(dict(analysis.intervals.found)),
        "intervals_missing": dict(analysis.intervals.missing),
        "groups": plain({column: dict(groups) for column, groups in analysis.groups.items()}),
        "gaps": plain({column: dict(found) for column, found in analysis.gaps.items()}),
        "robustness": {fault: dict(found.values) for fault, found in analysis.robustness.items()},
        "drift": {signal: dict(found) for signal, found in analysis.drift.items()},
    }
