"""The same job without the privacy that it promises: what a report holds the private run against."""

from __future__ import annotations

from dataclasses import replace

from fedloom.flows.budget import contract_limits
from fedloom.flows.compile import compile_plan
from fedloom.flows.plan import Plan
from fedloom.specs.bundle import JobBundle
from fedloom.specs.problems import SpecError


def compile_baseline(bundle: JobBundle, seed: int | None = None, rounds: int | None = None) -> Plan:
    """Compile a job without differential privacy and without masks; all else, seeds too, stays as it is.

    Args:
        bundle: The loaded specs.
        seed: Replaces the job's seed.
        rounds: Replaces the job's number of rounds.

    Raises:
        SpecError: when the data demand privacy, the job promises none, or it cannot be compiled at all.
    """
    compile_plan(bundle, seed, rounds)  # what is wrong with the job itself comes first
    promised = bundle.job.privacy
    at = ("privacy_config", "differential_privacy", "enabled")
    if limits := contract_limits(bundle):
        message = f"{limits[0].source} demands differential privacy: the job may not run without it"
        raise SpecError([bundle.problem("job", at, "error", message)])
    if not (promised.differential_privacy.enabled or promised.secure_aggregation.enabled):
        message = "the job promises no privacy: it is its own baseline"
        raise SpecError([bundle.problem("job", at, "error", message, "leave out --without-privacy")])
    plain = promised.model_copy(
        update={
            "differential_privacy": promised.differential_privacy.model_copy(update={"enabled": False}),
            "secure_aggregation": promised.secure_aggregation.model_copy(update={"enabled": False}),
        }
    )
    plan = compile_plan(replace(bundle, job=bundle.job.model_copy(update={"privacy": plain})), seed, rounds)
    return replace(plan, recipe=replace(plan.recipe, baseline=True))
