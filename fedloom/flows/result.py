"""What a run ended with, read from its store."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fedloom.flows.data import dataset_names
from fedloom.specs.bundle import JobBundle
from fedloom.tasks import datasets
from fedloom.tasks.export import exports_of
from fedloom.tasks.report import BASELINE, fate, last_round, summarise
from fedloom.tasks.step import Run


@dataclass(frozen=True)
class RunResult:
    """The end of a run.

    Attributes:
        kind: What it did: "train", "evaluate" or "aggregate".
        run_id: The run.
        plan_digest: The recipe it followed.
        model_digest: SHA-256 of its last model.
        model_version: The version with which it was released; None where it was not.
        rounds: Rounds done.
        metrics: Held-out metrics of that model; in an evaluation those of its clients, and the holdout's with a prefix.
        undefined: Why the others have no value.
        gate: decision, reason to stop, whether it was promoted, and the checks.
        measured: In an evaluation, the clients' pooled metrics and those of groups.
        privacy: What the rounds cost in differential privacy, and for whom; None where the job asks for none.
        baseline: Whether the run left out the privacy that its job promises.
        participation: Clients asked and clients that gave an update, over all rounds.
        exported: Where its files for others lie, by what they are.
        store: URL of the run store.
    """

    kind: str
    run_id: str
    plan_digest: str
    model_digest: str
    model_version: str | None
    rounds: int
    metrics: dict[str, float]
    undefined: dict[str, str]
    gate: dict[str, Any]
    measured: dict[str, Any] | None
    privacy: dict[str, Any] | None
    baseline: bool
    participation: dict[str, int]
    exported: dict[str, str]
    store: str


def read_result(run: Run) -> RunResult:
    """The result of a run that has ended.

    Raises:
        RunError: when it has not.
    """
    return RunResult(**summarise(last_round(run)), exported=exports_of(run), store=run.store.url)


_AGAIN = "this run has ended and is only shown again; mend the cause, then start another with --name"


def _why_none(result: RunResult) -> str:
    return "none: " + (next(iter(result.undefined.values())) if result.undefined else "no held-out data")


def _measured(result: RunResult) -> list[str]:
    if result.measured is None:
        return []
    pooled = result.measured["pooled"]["metrics"]
    groups = [
        f"         {group['column']} {group['value']}: {group['clients']} client{'s' * (group['clients'] > 1)}  "
        + "  ".join(f"{name} {value:.4f}" for name, value in list(group["metrics"].items())[:3])
        for group in result.measured["groups"]
    ]
    return ["pooled   " + ("  ".join(f"{name} {value:.4f}" for name, value in pooled.items()) or "nothing"), *groups]


def as_text(result: RunResult, bundle: JobBundle) -> str:
    """The result for a person: metrics, every check of the gate, and what the data is."""
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in result.metrics.items()) or _why_none(result)
    gate = result.gate
    given = "measurements" if result.kind == "evaluate" else "updates"
    lines = [
        "",
        f"run      {result.run_id}",
        f"rounds   {result.rounds} ({gate['stop_reason']})",
        f"clients  {result.participation['updates']} {given} of {result.participation['asked']} asked for",
        f"metrics  {metrics}",
        *_measured(result),
        *([] if result.privacy is None else [f"privacy  {result.privacy['statement']}"]),
        *([f"privacy  none: {BASELINE}"] if result.baseline else []),
        f"gate     {gate['decision']}: {fate(asdict(result))}",
        *(f"         {check['outcome']:<12} {check['name']}: {check['reason']}" for check in gate["checks"]),
        *([] if gate["decision"] == "pass" or result.baseline else [f"again    {_AGAIN}"]),
        *(f"export   {role}: {place}" for role, place in result.exported.items()),
        f"model    {result.model_digest}",
        f"plan     {result.plan_digest}",
        f"store    {result.store}",
    ]
    lines += [f"data     {datasets.statement(name)}" for name in dataset_names(bundle)]
    return "\n".join(lines)
