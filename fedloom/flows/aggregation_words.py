"""A job's aggregation in words: what a run does, and what of the specs it does not act upon."""

from __future__ import annotations

from fedloom.flows.aggregation import quorum_of, robust_recipe
from fedloom.specs.bundle import JobBundle
from fedloom.tasks.aggregation.bounds import assumed_hostile, cut
from fedloom.tasks.recipe import AggregationRecipe, RobustRecipe, ServerOptimizerRecipe


def aggregation_lines(recipe: AggregationRecipe) -> list[str]:
    """Lines of the plan's tree; none for a plain weighted mean."""
    lines = []
    if recipe.robust is not None:
        lines.append(f"rule                 {_rule(recipe.robust, recipe.quorum)}")
    elif recipe.weights not in ("num_samples", "uniform") or recipe.single_updates:
        column = f" (column {recipe.weight_column})" if recipe.weight_column else ""
        bounds = f", shares of {recipe.share_min:g} to {recipe.share_max:g}" if recipe.single_updates else ""
        lines.append(f"weights              {recipe.weights}{column}{bounds}")
    if recipe.checks:
        checks = [f"{check.name} {check.limit:g}: {check.action}" for check in recipe.checks]
        lines.append(f"checks of updates    {', '.join(checks)}")
    if recipe.server is not None:
        lines.append(f"server optimizer     {_server(recipe.server)}")
    return lines


def _rule(rule: RobustRecipe, quorum: int) -> str:
    if rule.method == "median":
        return "median of every coordinate"
    if rule.method == "trimmed_mean":
        ends = cut(rule.trim_ratio, quorum)
        return f"trimmed mean, {rule.trim_ratio:g} cut off at each end ({ends} of {quorum} updates, the quorum)"
    assumed = "of them" if rule.hostile is not None else f"of {quorum}, and more of more,"
    return f"{rule.method}, {assumed_hostile(rule, quorum)} {assumed} may be hostile"


def _server(rule: ServerOptimizerRecipe) -> str:
    if rule.name == "SGD":
        return f"SGD, learning rate {rule.learning_rate:g}, momentum {rule.beta1:g}"
    second = f", beta2 {rule.beta2:g}" if rule.name != "AdaGrad" else ""
    return f"{rule.name}, learning rate {rule.learning_rate:g}, beta1 {rule.beta1:g}{second}, tau {rule.tau:g}"


def aggregation_notes(bundle: JobBundle) -> list[str]:
    """What the specs say of aggregation and a run does not act upon, or not as one might think."""
    job, found = bundle.job, []
    asked, own = job.orchestration.aggregation, job.aggregation
    checks = own.quality_checks if own is not None else None
    late = checks is not None and checks.enabled and checks.staleness is not None
    if job.kind == "train" and (asked.staleness_threshold is not None or late):
        found.append("rounds are synchronous: no update is ever stale")
    if asked.over_provision:
        most, how = job.orchestration.max_clients, bundle.selector.selection_algorithm if bundle.selector else None
        target = how.num_clients if how else job.orchestration.client_selection.target_clients or most
        if target >= min(most, (how.max_clients if how else None) or most):
            found.append("over_provision asks for nobody more: the target is max_clients already")
    rule = robust_recipe(job)
    if own is None or rule is None:
        return found
    if own.weighting is not None:
        found.append(f"weighting does not count: {rule.method} takes all updates alike")
    settings, quorum = own.byzantine_robust, quorum_of(job)
    if settings is not None and settings.krum_config is not None and rule.method in ("median", "trimmed_mean"):
        found.append(f"krum_config does not count: the method is {rule.method}")
    if settings is not None and settings.trimmed_mean_config is not None and rule.method != "trimmed_mean":
        found.append(f"trimmed_mean_config does not count: the method is {rule.method}")
    if rule.method == "trimmed_mean" and not cut(rule.trim_ratio, quorum):
        found.append(f"a trim_ratio of {rule.trim_ratio:g} cuts nothing off {quorum} updates, the quorum")
    if rule.closest is not None and rule.method not in ("median", "trimmed_mean"):
        most = max(1, quorum - assumed_hostile(rule, quorum) - 2)
        if rule.closest > most:
            found.append(f"num_closest counts as {most} in a round that just has its quorum: n - f - 2")
    return found
