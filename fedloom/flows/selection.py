"""How a job's choice of clients becomes what the steps read."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from fedloom.specs.bundle import JobBundle
from fedloom.specs.criteria import Criterion, eligibility_tests
from fedloom.specs.fleet import Fleet
from fedloom.specs.job import Job
from fedloom.specs.selector import EligibilityCriteria, FairnessPolicy, Selector
from fedloom.tasks.recipe import AutoBlockRecipe, ColumnWeight, FairnessRecipe, SelectionRecipe

SAMPLES, QUALITY, DIVERSITY = "data_samples", "data_quality", "data_diversity"
_DIMENSIONS = ("aircraft_type", "flight_phase", "geographic_region", "operator")
"""Columns whose values say what a client's data is about, where the fleet has no column data_diversity."""
_SCORE = {"quantity": 0.4, "quality": 0.3, "diversity": 0.3}
_METRICS = {
    "data_volume": "quantity",
    "data_diversity": "diversity",
    "model_contribution": "contribution",
    "loss_gradient": "loss_gradient",
}
_EXPLORATION = 0.1
"""Share of active_learning's places that are drawn at random, where a job does not say."""


def selection_recipe(bundle: JobBundle) -> SelectionRecipe:
    """Who may take part, how many, and how they are drawn."""
    job, selector, fleet = bundle.job, bundle.selector, bundle.fleet
    assert fleet is not None, "a job without a fleet is refused before"
    orchestration = job.orchestration
    chosen = orchestration.client_selection
    how = selector.selection_algorithm if selector else None
    target = how.num_clients if how else chosen.target_clients or orchestration.max_clients
    target = ceil(target * (1 + (orchestration.aggregation.over_provision or 0.0)) - 1e-9)
    most = min(orchestration.max_clients, (how.max_clients if how else None) or orchestration.max_clients)
    black, grey, watch = (selector.blacklist, selector.greylist, selector.monitoring) if selector else (None,) * 3
    minimum = max((how.min_clients if how else None) or 1, orchestration.min_clients)
    watching = watch is not None and watch.alert_on_low_eligibility
    blocking = black if black is not None and black.enabled else None
    return SelectionRecipe(
        algorithm=how.algorithm if how else chosen.algorithm,
        target=min(target, most),
        minimum=minimum,
        criteria=eligibility_tests(selector.eligibility_criteria) if selector else own_criteria(job),
        where=asked_where(job, selector),
        blocked=tuple((c, blocking.reasons.get(c, "")) for c in sorted(blocking.client_ids)) if blocking else (),
        auto_block=_auto_block(selector),
        grey=tuple(sorted(grey.client_ids)) if grey and grey.enabled else (),
        grey_factor=_factor(selector),
        score=score_of(job, selector, fleet),
        rarity=rarity_columns(fleet),
        sampling_weights=_sampling_weights(selector),
        stratify_by=stratify_by(job, selector),
        exploration=_exploration(job, selector),
        fairness=_fairness(job, selector),
        on_shortfall=how.on_shortfall if how else "fail",
        max_wait=(how.max_wait or 0) if how else 0,
        keep_history=watch is None or watch.track_participation_history,
        alert_below=((watch.eligibility_threshold if watch else None) or minimum) if watching else 0,
        shard_size=orchestration.shard_size,
    )


def own_criteria(job: Job) -> tuple[Criterion, ...]:
    """The criteria inside the job, which count when there is no selector."""
    asked = job.orchestration.client_selection.eligibility_criteria
    given = asked.model_dump(exclude_none=True) if asked is not None else {}
    tests = eligibility_tests(EligibilityCriteria.model_validate({"min_data_samples": 1, **given}))
    return tuple(test for test in tests if test.path.split(".")[1] in given)


def asked_where(job: Job, selector: Selector | None) -> str | None:
    """The expression that clients must meet."""
    if selector is not None:
        return selector.eligibility_criteria.where
    own = job.orchestration.client_selection.eligibility_criteria
    return own.where if own is not None else None


def algorithm_of(job: Job, selector: Selector | None) -> str:
    """The algorithm that draws the clients."""
    return selector.selection_algorithm.algorithm if selector else job.orchestration.client_selection.algorithm


def score_of(job: Job, selector: Selector | None, fleet: Fleet) -> tuple[tuple[str, float], ...]:
    """The components of the score that clients are drawn by.

    The usual score has only the components whose columns the fleet has, with weights that add up to one.
    """
    algorithm = algorithm_of(job, selector)
    if algorithm == "active_learning":
        return (("loss_reduction", 1.0),)
    if algorithm != "importance_sampling":
        return ()
    metric = selector.selection_algorithm.importance_metric if selector else None
    if metric is not None:
        return ((_METRICS[metric], 1.0),)
    lacking = {"quality"} if QUALITY not in fleet.attributes else set()
    if DIVERSITY not in fleet.attributes and not rarity_columns(fleet):
        lacking.add("diversity")
    kept = {name: weight for name, weight in _SCORE.items() if name not in lacking}
    return tuple((name, weight / sum(kept.values())) for name, weight in kept.items())


def rarity_columns(fleet: Fleet) -> tuple[str, ...]:
    """The columns by which a client's data is found to be unlike others'."""
    if DIVERSITY in fleet.attributes:
        return ()
    return tuple(name for name in _DIMENSIONS if name in fleet.attributes)


def stratify_by(job: Job, selector: Selector | None) -> tuple[str, ...]:
    """The columns over whose values places are spread."""
    if selector is not None:
        return selector.selection_algorithm.stratify_by
    own = job.orchestration.client_selection.fairness_policy
    return own.stratify_by if own is not None else ()


def parity_of(policy: FairnessPolicy) -> tuple[str, ...]:
    """The columns whose groups shall be represented equally."""
    parity = policy.group_parity
    return parity.dimensions if parity is not None and parity.enabled else ()


def draws(recipe: SelectionRecipe) -> Iterator[str]:
    """How clients are drawn, in words for people: one line for each thing that a draw heeds."""
    parts = [f"{weight:.3g} {name}" if len(recipe.score) > 1 else name for name, weight in recipe.score]
    by = " + ".join(parts) or ", ".join(weight.column for weight in recipe.sampling_weights)
    yield recipe.algorithm + (f" by {by}" if by else "")
    if recipe.stratify_by:
        yield f"places spread over {', '.join(recipe.stratify_by)}"
    if recipe.exploration:
        yield f"{recipe.exploration:.0%} of the places at random"
    fairness = recipe.fairness
    if fairness is not None and fairness.period is not None:
        most = "" if fairness.at_most is None else f", at most {fairness.at_most}"
        yield f"each client at least {fairness.at_least}{most} times a {fairness.period}"
    if fairness is not None and fairness.tail_rate:
        yield f"{fairness.tail_rate:.0%} of the places for clients that seldom take part"
    if fairness is not None and fairness.parity:
        yield f"groups of {', '.join(fairness.parity)} within {fairness.tolerance:g} of equal shares"
    if recipe.auto_block is not None:
        yield "automatic blacklist"
    if recipe.where is not None:
        yield f"only where {' '.join(recipe.where.split())}"
    if recipe.on_shortfall != "fail":
        yield f"with too few: {recipe.on_shortfall}" + (f" up to {recipe.max_wait} min" if recipe.max_wait else "")


def _exploration(job: Job, selector: Selector | None) -> float:
    algorithm = algorithm_of(job, selector)
    if algorithm in ("random", "poisson"):
        return 0.0
    asked = selector.selection_algorithm.exploration_rate if selector else None
    return asked if asked is not None else _EXPLORATION if algorithm == "active_learning" else 0.0


def _sampling_weights(selector: Selector | None) -> tuple[ColumnWeight, ...]:
    if selector is None or selector.selection_algorithm.algorithm != "weighted_random":
        return ()
    return tuple(
        ColumnWeight(name, None, tuple(sorted(weight.items())))
        if isinstance(weight, dict)
        else ColumnWeight(name, weight, ())
        for name, weight in sorted((selector.selection_algorithm.sampling_weights or {}).items())
    )


def _fairness(job: Job, selector: Selector | None) -> FairnessRecipe | None:
    if selector is None:
        own = job.orchestration.client_selection.fairness_policy
        least = own.min_participation_per_quarter if own is not None else None
        return FairnessRecipe("quarter", least, None, 0.0, (), 0.0) if least else None
    policy = selector.fairness_policy
    if not policy.enabled:
        return None
    counted = bool(policy.min_participation_per_period) or policy.max_participation_per_period is not None
    rate = policy.tail_participation_rate if policy.ensure_tail_participation else None
    parity = parity_of(policy)
    if not (counted or rate or parity):
        return None
    return FairnessRecipe(
        period=policy.period if counted else None,
        at_least=policy.min_participation_per_period or 0,
        at_most=policy.max_participation_per_period,
        tail_rate=rate or 0.0,
        parity=parity,
        tolerance=(policy.group_parity.tolerance or 0.0) if policy.group_parity is not None and parity else 0.0,
    )


def _auto_block(selector: Selector | None) -> AutoBlockRecipe | None:
    black = selector.blacklist if selector else None
    asked = black.auto_blacklist_criteria if black is not None and black.enabled else None
    if asked is None:
        return None
    rules = AutoBlockRecipe(
        asked.consecutive_failures, asked.data_poisoning_detected, asked.byzantine_behavior_detected
    )
    return rules if rules != AutoBlockRecipe(None, False, False) else None


def _factor(selector: Selector | None) -> float:
    factor = selector.greylist.deprioritization_factor if selector and selector.greylist else None
    return 1.0 if factor is None else factor
