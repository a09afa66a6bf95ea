"""How a job's choice of clients becomes what the steps read."""

from __future__ import annotations

from math import ceil

from fedloom.flows.runnable import own_criteria
from fedloom.specs.criteria import eligibility_tests
from fedloom.specs.job import Job
from fedloom.specs.selector import Selector
from fedloom.tasks.recipe import SelectionRecipe


def selection_recipe(job: Job, selector: Selector | None) -> SelectionRecipe:
    """Who may take part, how many, and how they are drawn."""
    orchestration = job.orchestration
    chosen = orchestration.client_selection
    how = selector.selection_algorithm if selector else None
    algorithm = how.algorithm if how else chosen.algorithm
    target = how.num_clients if how else chosen.target_clients or orchestration.max_clients
    target = ceil(target * (1 + (orchestration.aggregation.over_provision or 0.0)) - 1e-9)
    most = min(orchestration.max_clients, (how.max_clients if how else None) or orchestration.max_clients)
    black, grey, watch = (selector.blacklist, selector.greylist, selector.monitoring) if selector else (None,) * 3
    minimum = max((how.min_clients if how else None) or 1, orchestration.min_clients)
    watching = watch is not None and watch.alert_on_low_eligibility
    return SelectionRecipe(
        algorithm=algorithm,
        target=min(target, most),
        minimum=minimum,
        criteria=eligibility_tests(selector.eligibility_criteria) if selector else own_criteria(job),
        blocked=tuple((c, black.reasons.get(c, "")) for c in sorted(black.client_ids))
        if black and black.enabled
        else (),
        grey=tuple(sorted(grey.client_ids)) if grey and grey.enabled else (),
        grey_factor=_factor(selector),
        weight_column="data_samples" if algorithm == "importance_sampling" else None,
        alert_below=((watch.eligibility_threshold if watch else None) or minimum) if watching else 0,
        shard_size=orchestration.shard_size,
    )


def _factor(selector: Selector | None) -> float:
    factor = selector.greylist.deprioritization_factor if selector and selector.greylist else None
    return 1.0 if factor is None else factor
