"""What kind of job it is, checked against what the job says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedloom.specs.locations import parse_location
from fedloom.specs.problems import Problem
from fedloom.specs.trails import Trail

if TYPE_CHECKING:
    from fedloom.specs.bundle import JobBundle

_KIND: Trail = ("job_metadata", "kind")
_UPDATES: Trail = ("aggregation_config", "updates")


def kind(bundle: JobBundle) -> Iterator[Problem]:
    """A job is of one kind, and has what its kind needs."""
    job = bundle.job
    updates = job.aggregation.updates if job.aggregation is not None else None
    if job.validation.evaluation_mode and job.kind != "evaluate":
        message = f"a job of kind {job.kind} cannot have evaluation_mode: true"
        yield bundle.problem("job", _KIND, "error", message, "write kind: evaluate, or leave evaluation_mode out")
    if updates is not None and job.kind != "aggregate":
        message = f"a job of kind {job.kind} makes its own updates, and aggregation_config.updates gives some"
        yield bundle.problem("job", _KIND, "error", message, "write kind: aggregate, or leave updates out")
    if job.kind == "aggregate" and updates is None:
        hint = "write where they lie, for example updates: updates"
        yield bundle.problem("job", _UPDATES, "error", "is missing: an aggregate job combines given updates", hint)
    if updates is not None:
        try:
            parse_location(updates)
        except ValueError as error:
            yield bundle.problem("job", _UPDATES, "error", str(error))
