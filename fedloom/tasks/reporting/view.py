"""What a page shows of a run: its charts and its tables, as values that templates only have to set."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fedloom.tasks.metrics import HIGHER_IS_BETTER, higher_is_better
from fedloom.tasks.reporting import charts
from fedloom.tasks.reporting.charts import Chart, Level, Series
from fedloom.tasks.reporting.compare import unlike
from fedloom.tasks.reporting.data import Participation, RunRecord, entries_of
from fedloom.tasks.reporting.metrics_text import round_seconds
from fedloom.tasks.reporting.records import first_metric
from fedloom.tasks.reporting.words import number

MOST_CLIENTS = 40
"""Clients in the table of participation; of more, those that were asked most often are listed."""
MOST_GROUPS = 12
_UNITS = (("GB", 1e9), ("MB", 1e6), ("KB", 1e3), ("bytes", 1.0))
_STAGES = (
    "advertise_keys", "share_keys", "mask_update", "confirm_survivors", "reveal_shares", "unmask",
    "split_update", "check_first", "check_second", "first_half", "second_half",
)  # fmt: skip
"""Steps of secure aggregation, with one server and with two."""
Json = dict[str, Any]


def rounds_of(record: RunRecord) -> list[float]:
    """Numbers of the rounds."""
    return [line["round"] for line in record.rounds]


def column(record: RunRecord, name: str) -> list[Any]:
    """A value of every round; None where a round does not have it."""
    return [line.get(name) for line in record.rounds]


def metric_series(record: RunRecord, metric: str, name: str) -> Series:
    """A metric over the rounds."""
    return Series(name, rounds_of(record), [line["metrics"].get(metric) for line in record.rounds])


def metric_charts(record: RunRecord, baseline: RunRecord | None) -> list[Chart]:
    """One chart for each metric, with its bounds, and the baseline where there is one."""
    names = list(dict.fromkeys(name for line in record.rounds for name in line["metrics"]))
    wanted = [name for name in record.recipe.get("evaluation", {}).get("metrics", []) if name in names]
    made = []
    for name in dict.fromkeys([*wanted, *names]):
        series = [metric_series(record, name, "this run")]
        if baseline is not None and name in baseline.metrics:
            series.append(metric_series(baseline, name, "without privacy" if _bare(baseline) else "baseline"))
        levels = [Level(f"{way} {limit:g}", limit) for way, limit in bounds_of(record, name)]
        ends = f"from {number(series[0].y[0])} to {number(series[0].y[-1])}" if series[0].y else "without a value"
        made.append(charts.lines(f"{name} over rounds, {ends}", series, "round", levels))
    return made


def bounds_of(record: RunRecord, metric: str) -> list[tuple[str, float]]:
    """What the job wants of a metric: "at least" or "at most", and the number."""
    found = []
    for bound in record.recipe.get("evaluation", {}).get("bounds", []):
        if bound["metric"] == metric:
            found += [("at least", bound["minimum"])] if bound.get("minimum") is not None else []
            found += [("at most", bound["maximum"])] if bound.get("maximum") is not None else []
    return list(dict.fromkeys(found))


def metric_rows(record: RunRecord, baseline: RunRecord | None) -> list[Json]:
    """The metrics of the last round, with intervals, the direction that is better, bounds, and the baseline."""
    last = record.rounds[-1] if record.rounds else {"metrics": {}, "undefined": {}}
    intervals, undefined = record.analysis.get("intervals") or {}, last.get("undefined") or {}
    names = dict.fromkeys([*record.recipe.get("evaluation", {}).get("metrics", []), *last["metrics"], *undefined])
    return [
        {
            "name": name,
            "value": last["metrics"].get(name),
            "interval": intervals.get(name),
            "better": {True: "higher", False: "lower", None: None}[higher_is_better(name)],
            "bounds": ", ".join(f"{way} {limit:g}" for way, limit in bounds_of(record, name)),
            "why": undefined.get(name, ""),
            "baseline": None if baseline is None else baseline.metrics.get(name),
        }
        for name in names
    ]


def training_charts(record: RunRecord) -> list[Chart]:
    """Loss, and what changes over the rounds: length of the update, learning rate, clipping norm."""
    made, x = [], rounds_of(record)
    for key, title, label, always in (
        ("train_loss", "Training loss over rounds", "training loss", True),
        ("update_norm", "Length of the mean update over rounds", "norm of the update", True),
        ("learning_rate", "Learning rate over rounds", "learning rate", False),
        ("clip", "Clipping norm over rounds", "clipping norm", False),
    ):
        values = column(record, key)
        known = [value for value in values if value is not None]
        if known and (always or len(set(known)) > 1):
            made.append(charts.lines(title, [Series(label, x, values)], "round", from_zero=key != "train_loss"))
    return made


def _evaluates(record: RunRecord) -> bool:
    return bool(record.recipe.get("kind") == "evaluate")


def cohort_chart(record: RunRecord) -> Chart:
    """Clients that gave an update (in an evaluation, that measured the model) and clients that were lost, by round."""
    gave = [float(line["participants"]) for line in record.rounds]
    lost = [float(line["cohort"] - line["participants"]) for line in record.rounds]
    did, what = ("measured the model", "measurements") if _evaluates(record) else ("gave an update", "updates")
    parts = [Series(did, rounds_of(record), gave), Series("lost", rounds_of(record), lost)]
    total = f"{sum(gave):.0f} {what} of {sum(gave) + sum(lost):.0f} asked for"
    quorum = record.recipe.get("aggregation", {}).get("quorum")
    levels = [] if quorum is None else [Level(f"quorum {quorum}", quorum)]
    return charts.stacks(f"Clients by round: {total}", rounds_of(record), parts, "round", levels)


def client_rows(told: Participation) -> list[Json]:
    """Clients, how often they were asked, and how often they gave an update."""
    order = sorted(told.asked, key=lambda client: (-told.asked[client], client))[:MOST_CLIENTS]
    most = max(told.asked.values(), default=0) or 1
    return [
        {"client": c, "asked": told.asked[c], "gave": told.gave[c], "width": round(100 * told.asked[c] / most)}
        for c in sorted(order)
    ]


def client_chart(told: Participation) -> Chart | None:
    """How many clients were asked how often, where the table cannot list all."""
    if len(told.asked) <= MOST_CLIENTS:
        return None
    title = f"How often {len(told.asked):,} clients were asked"
    return charts.histogram(title, list(told.asked.values()), "rounds in which a client was asked")


def group_tables(told: Participation) -> list[Json]:
    """For each column of the roster with few values: how the groups took part."""
    tables = []
    for name, values in told.columns.items():
        kinds = {value for value in values.values() if value is not None}
        if not 2 <= len(kinds) <= MOST_GROUPS or any(isinstance(kind, float) for kind in kinds):
            continue
        groups: dict[Any, list[str]] = defaultdict(list)
        for client, value in values.items():
            groups[value].append(client)
        tables.append({"column": name, "rows": [_group(told, *group) for group in sorted(groups.items(), key=_word)]})
    return tables


def _word(group: tuple[Any, list[str]]) -> str:
    return str(group[0])


def _group(told: Participation, value: Any, clients: list[str]) -> Json:
    asked, gave = sum(told.asked[c] for c in clients), sum(told.gave[c] for c in clients)
    return {
        "value": "unknown" if value is None else value,
        "clients": len(clients),
        "fleet": (len(clients), len(told.asked)),
        "asked": asked,
        "gave": gave,
        "updates": (gave, sum(told.gave.values())),
    }


def reason_rows(record: RunRecord, names: tuple[str, ...]) -> list[Json]:
    """Why clients were lost, or by which check set apart: the commonest first, with count, rounds and clients.

    Args:
        record: The run.
        names: Keys of a round's line that list clients with reasons.
    """
    found: dict[tuple[str, str], Json] = {}
    for line in record.rounds:
        for kind, entry in ((name, entry) for name in names for entry in entries_of(line.get(name))):
            key = (
                str(entry.get("stage") or ("train" if kind == "dropouts" else kind)),
                str(entry.get("check") or entry.get("reason", "")),
            )
            row = found.setdefault(key, {"stage": key[0], "reason": key[1], "count": 0, "rounds": {}, "clients": {}})
            row["count"] += 1
            row["rounds"][line["round"]] = None
            row["clients"][entry.get("client", "–")] = None
    rows = [{**row, "rounds": list(row["rounds"]), "clients": list(row["clients"])} for row in found.values()]
    return sorted(rows, key=lambda row: (-row["count"], row["reason"]))


def rounds_without_effect(record: RunRecord) -> list[int]:
    """Rounds in which the model stayed as it was: too few updates, an aborted session, or a round that was skipped."""
    if _evaluates(record):  # there the model never changes
        return []
    return [line["round"] for line in record.rounds if line.get("quorum_met") is False]


def cost_charts(record: RunRecord) -> list[Chart]:
    """Bytes and seconds of each round."""
    x = rounds_of(record)
    if not x:
        return []
    ways = [("down to clients", "bytes_down"), ("up to the server", "bytes_up")]
    most = max((line.get(key) or 0 for line in record.rounds for _, key in ways), default=0)
    unit, size = next((each for each in _UNITS if most >= each[1]), _UNITS[-1])
    parts = [Series(name, x, [(value or 0) / size for value in column(record, key)]) for name, key in ways]
    made = [charts.stacks(f"Data sent in each round in {unit}", x, parts, "round")]
    if any(round_seconds(record, line["round"]) for line in record.rounds):
        made.append(charts.stacks("Seconds of each round by step", x, _times(record), "round"))
    return made


def _times(record: RunRecord) -> list[Series]:
    kinds = {"train": ("train",), "secure aggregation": _STAGES, "evaluate, gate": ("evaluate", "gate")}
    named = {step for steps in kinds.values() for step in steps}
    x = rounds_of(record)
    per_round = [record.seconds.get(int(round), {}) for round in x]
    parts = [
        Series(name, x, [sum(s.get(step, 0.0) for step in steps) for s in per_round]) for name, steps in kinds.items()
    ]
    rest = Series("other", x, [sum(v for step, v in s.items() if step not in named) for s in per_round])
    return [part for part in (*parts, rest) if any(part.y)]


def step_rows(record: RunRecord) -> list[Json]:
    """Seconds of each step over the run, the longest first."""
    total: dict[str, float] = defaultdict(float)
    for steps in record.seconds.values():
        for step, seconds in steps.items():
            total[step] += seconds
    whole = sum(total.values()) or 1.0
    rows = sorted(total.items(), key=lambda item: -item[1])
    return [{"step": s, "seconds": v, "share": v / whole, "width": round(100 * v / whole)} for s, v in rows]


def privacy_view(record: RunRecord, baseline: RunRecord | None) -> Json | None:
    """Epsilon over rounds with the budget, and what privacy cost against a baseline."""
    privacy = record.recipe.get("privacy")
    if privacy is None:
        return None
    spent = column(record, "epsilon")
    levels = [Level(f"all rounds of the plan: {privacy['epsilon']:.3g}", privacy["epsilon"])]
    if privacy.get("budget_epsilon") is not None:
        levels.append(Level(f"budget of all jobs: {privacy['budget_epsilon']:g}", privacy["budget_epsilon"]))
    title = f"Epsilon spent over rounds, {number(spent[-1] if spent else None)} after the last"
    chart = charts.lines(title, [Series("spent", rounds_of(record), spent)], "round", levels, from_zero=True)
    return {"recipe": privacy, "spent": spent[-1] if spent else None, "chart": chart if spent else None}


def cost_of_privacy(record: RunRecord, baseline: RunRecord | None) -> Json | None:
    """The job's first metric with and without privacy; None without a baseline or a metric that both have."""
    if baseline is None:
        return None
    shared = {name: value for name, value in record.metrics.items() if name in baseline.metrics}
    metric = "auc" if "auc" in shared else first_metric(record.recipe, shared)[0]
    if metric is None:
        return None
    here, there = record.metrics[metric], baseline.metrics[metric]
    names = ("with privacy", "without") if _bare(baseline) else ("this run", "baseline")
    series = [metric_series(record, metric, names[0]), metric_series(baseline, metric, names[1])]
    title = f"{metric} over rounds: {number(here)} {names[0]}, {number(there)} {names[1]}"
    return {
        "metric": metric,
        "here": here,
        "there": there,
        "cost": there - here if HIGHER_IS_BETTER.get(metric, True) else here - there,
        "chart": charts.lines(title, series, "round"),
        "unlike": unlike(record, baseline),
        "bare": _bare(baseline),
        "run": baseline.run_id,
    }


def _bare(record: RunRecord) -> bool:
    return record.recipe.get("privacy") is None


def quality(record: RunRecord) -> Json:
    """The analysis of the last model: its charts and tables; what it does not have is None or empty."""
    found, asked = record.analysis, record.about.get("report", {}).get("sections")
    wanted = {"confusion_matrix", "roc_curve", "calibration_plot"} if asked is None else set(asked)
    curve, bins = found.get("roc"), found.get("calibration")
    area = record.metrics.get("auc")
    title = "ROC curve" + (f", area {number(area)}" if area is not None else "")
    return {
        "roc": charts.roc(title, curve["fpr"], curve["tpr"]) if curve and "roc_curve" in wanted else None,
        "calibration": charts.calibration("Calibration of the scores", bins)
        if bins and "calibration_plot" in wanted
        else None,
        "confusion": confusion_rows(found["confusion"])
        if found.get("confusion") and "confusion_matrix" in wanted
        else None,
        "groups": [_groups(column, rows) for column, rows in (found.get("groups") or {}).items()],
        "gaps": found.get("gaps") or {},
        "drift": found.get("drift") or {},
        "robustness": found.get("robustness") or {},
        "latency": found.get("latency_ms_p95"),
        "bytes": found.get("model_bytes"),
    }


def confusion_rows(matrix: Any) -> list[Json]:
    """Rows of true classes over predicted ones, from a list of lists or from tn, fp, fn, tp."""
    if isinstance(matrix, dict) and {"tn", "fp", "fn", "tp"} <= matrix.keys():
        matrix = [[matrix["tn"], matrix["fp"]], [matrix["fn"], matrix["tp"]]]
    elif isinstance(matrix, dict):
        matrix = matrix.get("matrix") or matrix.get("counts") or []
    rows = []
    for label, counts in enumerate(matrix):
        whole = sum(counts) or 1
        rows.append({"label": label, "cells": [{"count": c, "share": c / whole} for c in counts]})
    return rows


def _groups(name: str, values: Json) -> Json:
    metrics = list(dict.fromkeys(metric for group in values.values() for metric in group.get("metrics", {})))
    return {"column": name, "metrics": metrics, "rows": sorted(values.items(), key=lambda item: str(item[0]))}
