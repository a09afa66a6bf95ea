"""What a run ended with, read from its store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedloom.flows.data import dataset_names
from fedloom.specs.bundle import JobBundle
from fedloom.tasks import datasets
from fedloom.tasks.report import BASELINE, last_round, summarise
from fedloom.tasks.step import Run


@dataclass(frozen=True)
class RunResult:
    """The end of a run.

    Attributes:
        run_id: The run.
        plan_digest: The recipe it followed.
        model_digest: SHA-256 of its last model.
        rounds: Rounds done.
        metrics: Held-out metrics of that model.
        undefined: Why the others have no value.
        gate: decision, reason to stop, whether it was promoted, and the checks.
        privacy: What the rounds cost in differential privacy, and for whom; None where the job asks for none.
        baseline: Whether the run left out the privacy that its job promises.
        participation: Clients asked and clients that gave an update, over all rounds.
        store: URL of the run store.
    """

    run_id: str
    plan_digest: str
    model_digest: str
    rounds: int
    metrics: dict[str, float]
    undefined: dict[str, str]
    gate: dict[str, Any]
    privacy: dict[str, Any] | None
    baseline: bool
    participation: dict[str, int]
    store: str


def read_result(run: Run) -> RunResult:
    """The result of a run that has ended.

    Raises:
        RunError: when it has not.
    """
    return RunResult(**summarise(last_round(run)), store=run.store.url)


_AGAIN = "this run has ended and is only shown again; mend the cause, then start another with --name"


def _why_none(result: RunResult) -> str:
    return "none: " + (next(iter(result.undefined.values())) if result.undefined else "no held-out data")


def as_text(result: RunResult, bundle: JobBundle) -> str:
    """The result for a person: metrics, every check of the gate, and what the data is."""
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in result.metrics.items()) or _why_none(result)
    gate = result.gate
    fate = "promoted to champion" if gate["promoted"] else "the model is not released"
    lines = [
        "",
        f"run      {result.run_id}",
        f"rounds   {result.rounds} ({gate['stop_reason']})",
        f"clients  {result.participation['updates']} updates of {result.participation['asked']} asked for",
        f"metrics  {metrics}",
        *([] if result.privacy is None else [f"privacy  {result.privacy['statement']}"]),
        *([f"privacy  none: {BASELINE}"] if result.baseline else []),
        f"gate     {gate['decision']}: {fate}",
        *(f"         {check['outcome']:<12} {check['name']}: {check['reason']}" for check in gate["checks"]),
        *([] if gate["promoted"] or result.baseline else [f"again    {_AGAIN}"]),
        f"model    {result.model_digest}",
        f"plan     {result.plan_digest}",
        f"store    {result.store}",
    ]
    lines += [f"data     {datasets.statement(name)}" for name in dataset_names(bundle)]
    return "\n".join(lines)
