"""The compiler: specs in, Plan out. Pure: no network, no torch, no clock."""

from __future__ import annotations

from fedloom.flows.estimate import aggregate_memory, collect_memory, measure_memory, shard_memory
from fedloom.flows.plan import Loop, Measure, OutputRef, Plan, Resources, Step
from fedloom.flows.pseudonyms import pseudonym_findings
from fedloom.flows.recipe import job_recipe
from fedloom.flows.runnable import not_runnable
from fedloom.flows.support import not_built
from fedloom.flows.training_checks import memory_findings
from fedloom.flows.two_servers import halves, names, server_keys
from fedloom.specs.bundle import JobBundle
from fedloom.specs.problems import SpecError
from fedloom.tasks.architectures import parameter_count
from fedloom.tasks.recipe import Recipe

PLAN_FORMAT = 5
CLIENT_STAGES = ("advertise_keys", "share_keys", "mask_update", "confirm_survivors", "reveal_shares")
"""Steps of secure aggregation at the clients, S0 to S4 of `fedloom.tasks.secure_aggregation`."""
_MAX_PARAMETERS = 10**10
_PARTICIPATION = (
    Measure("cohort", "number", "Clients asked for an update in a round."),
    Measure("participants", "number", "Clients that gave an update in a round."),
)
_DECISION = (Measure("decision", "word", "What the gate decided on a run's last model."),)


def compile_plan(bundle: JobBundle, seed: int | None = None, rounds: int | None = None) -> Plan:
    """Compile the specs of a job.

    Args:
        bundle: The loaded specs.
        seed: Replaces the job's seed.
        rounds: Replaces the job's number of rounds.

    Raises:
        SpecError: when the specs ask for what this version cannot do, or lack what a run needs.
    """
    pseudonyms = [bundle.problem("job", *finding) for finding in pseudonym_findings(bundle)]
    problems = [*not_built(bundle), *not_runnable(bundle), *pseudonyms]
    if problems:
        raise SpecError(problems)
    recipe = job_recipe(bundle, seed, rounds)
    parameters = parameter_count(recipe.model) or 0
    if parameters > _MAX_PARAMETERS:
        message = f"the model would have {parameters:,} parameters, more than {_MAX_PARAMETERS:,}"
        raise SpecError([bundle.problem("job", ("model_config", "model_hyperparameters"), "error", message)])
    if found := [bundle.problem("job", *finding) for finding in memory_findings(bundle, recipe)]:
        raise SpecError(found)
    one = Resources(cpus=recipe.threads, memory_bytes=None)
    combine = Resources(cpus=recipe.threads, memory_bytes=aggregate_memory(recipe))
    given = _KINDS[recipe.kind](recipe, one)
    ends = tuple(step.name for step in given if not any(step.name in other.needs for other in given))
    # Who is drawn, and the noise on a sum, follow from the server's secret where clients are protected as a whole.
    secret = recipe.privacy is not None and recipe.privacy.unit == "client"
    return Plan(
        format=PLAN_FORMAT,
        job_id=recipe.job_id,
        setup=(
            *server_keys(recipe, one),
            Step("validate", names(server_keys(recipe, one)), one, retries=1, at_clients=recipe.masking is not None),
            Step("initialise", ("validate",), one, retries=1),
            *([Step("reserve_privacy", ("initialise",), one, retries=1, at_server=True)] if recipe.privacy else []),
        ),
        loop=Loop(
            rounds=recipe.rounds,
            steps=(
                Step("select", (), one, retries=1, at_server=secret),
                *given,
                Step("aggregate", ends, combine, retries=1, at_server=secret, measures=_PARTICIPATION),
                Step("evaluate", ("aggregate",), one, retries=1),
                Step("gate", ("evaluate",), one, retries=1, measures=_DECISION),
            ),
            until=OutputRef("gate", "stop"),
        ),
        finish=_finish(recipe, one),
        recipe=recipe,
    )


def _trained(recipe: Recipe, needs: Resources) -> tuple[Step, ...]:
    """What clients give is an update, in the open or under masks."""
    return (Step("distribute", ("select",), needs, retries=1), _train(recipe), *_masked(recipe, needs))


def _measured(recipe: Recipe, needs: Resources) -> tuple[Step, ...]:
    """What clients give is how the model does on their data."""
    return (
        Step("distribute", ("select",), needs, retries=1),
        Step(
            "measure",
            ("distribute",),
            Resources(cpus=recipe.threads, memory_bytes=measure_memory(recipe)),
            retries=1,
            timeout_s=2 * recipe.training.client_timeout_s * recipe.selection.shard_size,
            fan_out=OutputRef("select", "shards"),
            may_be_lost=True,
        ),
    )


def _collected(recipe: Recipe, needs: Resources) -> tuple[Step, ...]:
    """What clients gave lies ready."""
    resources = Resources(cpus=needs.cpus, memory_bytes=collect_memory(recipe))
    shards = OutputRef("select", "shards")
    return (Step("collect", ("select",), resources, retries=1, fan_out=shards, may_be_lost=True),)


_KINDS = {"train": _trained, "evaluate": _measured, "aggregate": _collected}
"""By kind of job, the steps of a round between the choice of clients and what becomes of what they give."""


def _finish(recipe: Recipe, needs: Resources) -> tuple[Step, ...]:
    export = () if recipe.output is None else (Step("export", ("report",), needs, retries=1),)
    if recipe.privacy is None:
        return (Step("report", (), needs, retries=1), *export)
    return (
        Step("commit_privacy", (), needs, retries=1, at_server=True),
        Step("report", ("commit_privacy",), needs, retries=1),
        *export,
    )


def _train(recipe: Recipe) -> Step:
    # The clients of a shard follow each other, and reading and training may each take a client's whole time.
    limit = 2 * recipe.training.client_timeout_s * recipe.selection.shard_size
    deadline = recipe.training.shard_deadline_s
    if deadline is not None:  # and the last client's reading, which cannot be cut off in the middle
        limit = min(limit, deadline + 2 * recipe.training.client_timeout_s)
    return Step(
        "train",
        ("distribute",),
        Resources(cpus=recipe.threads, memory_bytes=shard_memory(recipe), accelerator=True),
        retries=1,
        timeout_s=limit,
        fan_out=OutputRef("select", "shards"),
        may_be_lost=True,
        at_clients=recipe.masking is not None or recipe.privacy is not None,
    )


def _masked(recipe: Recipe, needs: Resources) -> tuple[Step, ...]:
    if recipe.masking is None:
        return ()
    return _pairwise(needs) if recipe.masking.protocol == "pairwise" else halves(needs)


def _pairwise(needs: Resources) -> tuple[Step, ...]:
    """The stages of secure aggregation, each over the shards of clients; at last the sum is opened in pieces."""
    stages: list[Step] = []
    for name in CLIENT_STAGES:
        before = stages[-1].name if stages else "train"
        stages.append(
            Step(
                name,
                (before,),
                needs,
                retries=1,
                fan_out=OutputRef("select", "shards"),
                may_be_lost=True,
                at_clients=True,
            )
        )
    pieces = OutputRef("distribute", "chunks")
    return (*stages, Step("unmask", (stages[-1].name,), needs, retries=1, fan_out=pieces))
