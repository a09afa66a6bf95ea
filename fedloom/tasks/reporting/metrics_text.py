"""A run's numbers for other programs: one CSV row a round, and Prometheus' text format. Neither names a client."""

from __future__ import annotations

import csv
import io
from typing import Any

from fedloom.tasks.reporting.data import RunRecord

_COLUMNS = (
    "round", "eligible", "cohort", "participants", "dropouts", "quorum_met", "samples", "train_loss", "update_norm",
    "learning_rate", "clip", "epsilon", "bytes_down", "bytes_up", "seconds", "model_digest",
)  # fmt: skip


def metrics_csv(record: RunRecord) -> str:
    """One row a round (RFC 4180): what happened, and one column ``metric_NAME`` for each metric.

    An empty cell is a number that the round does not have, or that nobody may see.
    """
    names = sorted({name for line in record.rounds for name in line["metrics"]})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([*_COLUMNS, *(f"metric_{name}" for name in names)])
    for line in record.rounds:
        own = {**line, "dropouts": len(line["dropouts"]), "seconds": round_seconds(record, line["round"])}
        row = [_cell(own.get(column)) for column in _COLUMNS]
        writer.writerow([*row, *(_cell(line["metrics"].get(name)) for name in names)])
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def round_seconds(record: RunRecord, round: int) -> float | None:
    """Seconds that the steps of a round took, added up; None where no result says."""
    steps = record.seconds.get(round)
    return sum(steps.values()) if steps else None


METRICS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "fedloom_aggregate_cohort": ("gauge", "Clients asked for an update in a round.", ()),
    "fedloom_aggregate_participants": ("gauge", "Clients that gave an update in a round.", ()),
    "fedloom_gate_decisions": ("counter", "What the gate decided on a run's last model.", ("decision",)),
    "fedloom_run_seconds": ("gauge", "Seconds that the steps of a run took.", ("status",)),
    "fedloom_round_seconds": ("gauge", "Seconds that the steps of the last round took.", ()),
    "fedloom_step_seconds": ("gauge", "Seconds that a step took, over all rounds and shards.", ("step",)),
    "fedloom_rounds": ("gauge", "Rounds that a run has done.", ()),
    "fedloom_rounds_planned": ("gauge", "Rounds that the plan of a run has at most.", ()),
    "fedloom_metric": ("gauge", "A metric of the last model on held-out data (a ratio, or the loss).", ("metric",)),
    "fedloom_train_loss": ("gauge", "Mean training loss of the last round; absent where nobody may see it.", ()),
    "fedloom_dropouts": ("counter", "Clients that were asked and gave no update, over all rounds.", ()),
    "fedloom_sent_bytes": ("counter", "Bytes between server and clients, over all rounds.", ("direction",)),
    "fedloom_epsilon": ("gauge", "Epsilon that the rounds cost; absent without differential privacy.", ("unit",)),
    "fedloom_epsilon_planned": (
        "gauge",
        "Epsilon that all rounds of the plan cost.",
        ("unit",),
    ),
    "fedloom_champion": ("gauge", "1 when the gate made the run's model the champion, else 0.", ()),
    "fedloom_written_timestamp_seconds": ("gauge", "When the run last wrote, in seconds since 1970.", ()),
}
"""Every metric of the text: its kind, what it says, and its labels besides ``job`` (a counter's name gets _total)."""


def metrics_prom(record: RunRecord) -> str:
    """The run in Prometheus' text format, for a node exporter's text file collector or a push gateway."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

    made = [
        (GaugeMetricFamily if kind == "gauge" else CounterMetricFamily)(name, meaning, labels=["job", *labels])
        for name, (kind, meaning, labels) in METRICS.items()
    ]
    families = {family.name: family for family in made}
    for name, labels, value in _samples(record):
        families[name].add_metric([_label(record.plan.get("job_id", "")), *map(_label, labels)], float(value))

    class _Once(Collector):
        def collect(self) -> Any:
            return [family for family in families.values() if family.samples]

    registry = CollectorRegistry()
    registry.register(_Once())
    return generate_latest(registry).decode()


def _label(value: Any) -> str:
    return str(value)


def _samples(record: RunRecord) -> list[tuple[str, tuple[str, ...], float]]:
    """Name, labels and value of each sample."""
    found: list[tuple[str, tuple[str, ...], float | None]] = []
    rounds, last = record.rounds, record.rounds[-1] if record.rounds else {}
    per_step: dict[str, float] = {}
    for steps in record.seconds.values():
        for step, seconds in steps.items():
            per_step[step] = per_step.get(step, 0.0) + seconds
    found += [
        ("fedloom_rounds", (), len(rounds)),
        ("fedloom_rounds_planned", (), record.recipe.get("rounds")),
        ("fedloom_aggregate_cohort", (), last.get("cohort")),
        ("fedloom_aggregate_participants", (), last.get("participants")),
        ("fedloom_train_loss", (), last.get("train_loss")),
        ("fedloom_dropouts", (), sum(len(line["dropouts"]) for line in rounds)),
        ("fedloom_run_seconds", (_STATUS[record.state],), sum(per_step.values())),
        ("fedloom_written_timestamp_seconds", (), record.written.timestamp()),
    ]
    found += [("fedloom_round_seconds", (), round_seconds(record, last["round"]))] if last else []
    found += [("fedloom_step_seconds", (step,), seconds) for step, seconds in sorted(per_step.items())]
    found += [("fedloom_metric", (name,), value) for name, value in sorted(record.metrics.items())]
    for way in ("down", "up"):
        found.append(("fedloom_sent_bytes", (way,), sum(line.get(f"bytes_{way}") or 0 for line in rounds)))
    if privacy := record.recipe.get("privacy"):
        found.append(("fedloom_epsilon", (privacy["unit"],), last.get("epsilon")))
        found.append(("fedloom_epsilon_planned", (privacy["unit"],), privacy["epsilon"]))
    if gate := record.summary.get("gate"):
        found.append(("fedloom_gate_decisions", (gate["decision"],), 1))
        found.append(("fedloom_champion", (), float(gate["promoted"])))
    return [(name, labels, float(value)) for name, labels, value in found if value is not None]


_STATUS = {"ended": "Succeeded", "failed": "Failed", "running": "Running", "unknown": "Unknown"}
"""States in the words of Argo, whose manifests publish fedloom_run_seconds too."""
