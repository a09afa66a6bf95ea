"""What the files of a job claim, checked against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fedloom.specs.checks_job import JOB_CHECKS
from fedloom.specs.checks_time import TIME_CHECKS
from fedloom.specs.problems import Problem
from fedloom.specs.short_forms import canonical_job_id
from fedloom.specs.trails import Trail

if TYPE_CHECKING:
    from fedloom.specs.bundle import JobBundle

Check = Callable[["JobBundle"], Iterator[Problem]]


def check_bundle(bundle: JobBundle) -> list[Problem]:
    """All findings of all checks, in the order of the checks."""
    return [problem for check in CHECKS for problem in check(bundle)]


def job_refs(bundle: JobBundle) -> Iterator[Problem]:
    """Rollout and schedule belong to the job, and the rollout to its model version."""
    job_id = bundle.job.job_id
    rollout = bundle.rollout.rollout_metadata if bundle.rollout else None
    schedule = bundle.schedule.schedule_metadata if bundle.schedule else None
    for kind, metadata in (("rollout", rollout), ("schedule", schedule)):
        if metadata is not None and metadata.job_ref is not None and canonical_job_id(metadata.job_ref) != job_id:
            yield bundle.problem(
                kind,
                (f"{kind}_metadata", "job_ref"),
                "error",
                f"names the job '{metadata.job_ref}', but the job of this folder is '{job_id}'",
                f"write job_ref: {job_id}",
            )
    version = bundle.job.model.version
    if rollout is not None and rollout.model_version not in (None, version, "latest"):
        yield bundle.problem(
            "rollout",
            ("rollout_metadata", "model_version"),
            "warning",
            f"is {rollout.model_version}, but the job trains version {version}",
        )


def client_counts(bundle: JobBundle) -> Iterator[Problem]:
    """min <= target <= max clients, quorum <= min clients."""
    orchestration = bundle.job.orchestration
    low, high = orchestration.min_clients, orchestration.max_clients
    at: Trail = ("orchestration_config",)
    target = orchestration.client_selection.target_clients
    if target is not None and not low <= target <= high:
        yield bundle.problem(
            "job",
            (*at, "client_selection", "target_clients"),
            "error",
            f"{target} is not between min_clients ({low}) and max_clients ({high})",
        )
    quorum = orchestration.aggregation.min_quorum
    if quorum is not None and quorum > low:
        yield bundle.problem(
            "job",
            (*at, "aggregation", "min_quorum"),
            "error",
            f"{quorum} is above min_clients ({low}): a round with {low} clients could never count",
            f"lower it to at most {low}",
        )
    wait = orchestration.timing.min_clients if orchestration.timing else None
    if wait is not None and low < orchestration.quorum == wait <= high:
        yield bundle.problem(
            "job",
            (*at, "timing", "min_clients"),
            "error",
            f"{wait} is above min_clients ({low}): a round with {low} clients could never count",
            f"lower it to at most {low}, or write wait_for_min_clients: false",
        )
    if wait is not None and wait > high:
        yield bundle.problem("job", (*at, "timing", "min_clients"), "error", f"{wait} is above max_clients ({high})")
    secure = bundle.job.privacy.secure_aggregation
    if secure.enabled and secure.threshold is not None and secure.threshold > low:
        yield bundle.problem(
            "job",
            ("privacy_config", "secure_aggregation", "threshold"),
            "error",
            f"{secure.threshold} is above min_clients ({low}): the sum of a small round could not be opened",
        )


def selector_agrees(bundle: JobBundle) -> Iterator[Problem]:
    """The selector draws by the job's algorithm and within its counts."""
    if bundle.selector is None:
        return
    drawn = bundle.selector.selection_algorithm
    orchestration = bundle.job.orchestration
    low, high = orchestration.min_clients, orchestration.max_clients
    wanted = orchestration.client_selection.algorithm
    if drawn.algorithm != wanted:
        yield bundle.problem(
            "selector",
            ("selection_algorithm", "algorithm"),
            "error",
            f"is {drawn.algorithm}, but the job's client_selection is {wanted}",
            "make the two agree",
        )
    for key, count in (
        ("num_clients", drawn.num_clients),
        ("min_clients", drawn.min_clients),
        ("max_clients", drawn.max_clients),
    ):
        if count is not None and not low <= count <= high:
            yield bundle.problem(
                "selector",
                ("selection_algorithm", key),
                "error",
                f"{count} is outside the job's min_clients ({low}) to max_clients ({high})",
            )


def contract_signals(bundle: JobBundle) -> Iterator[Problem]:
    """The contract has what the model reads."""
    schema = bundle.job.model.input_schema
    at: Trail = ("model_config", "input_schema")
    if schema.signals is not None and schema.signal_group is not None:
        yield bundle.problem("job", (*at, "signals"), "error", "give signals or signal_group, not both")
    twice = sorted({name for name in schema.signals or () if (schema.signals or ()).count(name) > 1})
    if twice:
        yield bundle.problem("job", (*at, "signals"), "error", f"names {', '.join(twice)} twice")
    if bundle.contract is None:
        return
    from fedloom.specs.contract import signal_catalog

    catalog = signal_catalog(bundle.contract)
    if not catalog.names:
        yield bundle.problem(
            "contract",
            ("schema",),
            "warning",
            "lists no signals, so the job's signals cannot be checked against it",
            "list them under schema.signals",
        )
        return
    from fedloom.specs.explain import closest

    for index, name in enumerate(schema.signals or ()):
        if name not in catalog.names:
            best = closest(name, catalog.names)
            hint = f"did you mean '{best}'?" if best else f"it has {', '.join(catalog.names[:12])}"
            yield bundle.problem("job", (*at, "signals", index), "error", f"the contract has no signal '{name}'", hint)
    group = schema.signal_group
    if group is not None and group not in catalog.groups:
        best = closest(group, list(catalog.groups))
        hint = f"did you mean '{best}'?" if best else f"its groups: {', '.join(catalog.groups) or 'none'}"
        yield bundle.problem("job", (*at, "signal_group"), "error", f"the contract has no signal group '{group}'", hint)
    label = bundle.job.model.output_schema.label_column
    if catalog.label_column is not None and label != catalog.label_column:
        yield bundle.problem(
            "job",
            ("model_config", "output_schema", "label_column"),
            "error",
            f"is '{label}', but the contract's label column is '{catalog.label_column}'",
            f"write label_column: {catalog.label_column}",
        )


def fleet_fits(bundle: JobBundle) -> Iterator[Problem]:
    """The fleet is large enough and has the columns that the selector reads."""
    fleet = bundle.fleet
    if fleet is None:
        return
    low = bundle.job.orchestration.min_clients
    if len(fleet) < low:
        yield bundle.problem(
            "job",
            ("orchestration_config", "min_clients"),
            "error",
            f"is {low}, but the fleet has only {len(fleet)} clients",
        )
    if bundle.selector is None:
        return
    from fedloom.specs.criteria import needed_columns
    from fedloom.specs.explain import closest

    known = list(fleet.attributes)
    for path, column in needed_columns(bundle.selector).items():
        if column in fleet.attributes:
            continue
        steps = tuple(int(step) if step.isdecimal() else step for step in path.split("."))
        best = closest(column, known)
        hint = f"did you mean '{best}'?" if best else f"its columns: {', '.join(known) or 'none'}"
        yield bundle.problem("selector", steps, "error", f"the fleet has no column '{column}'", hint)


def where_compiles(bundle: JobBundle) -> Iterator[Problem]:
    """The expressions that clients must meet are CEL, over the fleet's columns and their types."""
    own = bundle.job.orchestration.client_selection.eligibility_criteria
    selector = bundle.selector
    asked: list[tuple[str, Trail, str | None]] = [
        (
            "job",
            ("orchestration_config", "client_selection", "eligibility_criteria", "where"),
            own.where if own else None,
        ),
        ("selector", ("eligibility_criteria", "where"), selector.eligibility_criteria.where if selector else None),
    ]
    for kind, trail, text in asked:
        if text is not None:
            from fedloom.specs.where import WhereError, check_syntax, compile_where

            try:
                compile_where(text, bundle.fleet) if bundle.fleet is not None else check_syntax(text)
            except WhereError as error:
                yield bundle.problem(kind, trail, "error", str(error), error.hint)


def named_clients(bundle: JobBundle) -> Iterator[Problem]:
    """Clients that are named one by one are in the fleet."""
    if bundle.fleet is None:
        return
    clients = set(bundle.fleet.clients)
    named: list[tuple[str, Trail, tuple[str, ...]]] = []
    if bundle.job.deployment is not None:
        named.append(("job", ("deployment_config", "canary_clients"), bundle.job.deployment.canary_clients))
    if bundle.selector is not None:
        for key in ("blacklist", "greylist"):
            listed = getattr(bundle.selector, key)
            if listed is not None:
                named.append(("selector", (key, "client_ids"), listed.client_ids))
    if bundle.rollout is not None:
        named += [
            ("rollout", ("phases", index, "specific_clients"), phase.specific_clients)
            for index, phase in enumerate(bundle.rollout.phases)
        ]
    for kind, trail, ids in named:
        for index, client in enumerate(ids):
            if client not in clients:
                yield bundle.problem(kind, (*trail, index), "warning", f"'{client}' is not in the fleet")


CHECKS: tuple[Check, ...] = (
    job_refs,
    client_counts,
    selector_agrees,
    contract_signals,
    fleet_fits,
    where_compiles,
    named_clients,
    *JOB_CHECKS,
    *TIME_CHECKS,
)
