"""Step "report": what a run ended with, in one object for programs and one page for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.recipe import Recipe
from fedloom.tasks.rounds import progress
from fedloom.tasks.step import Place, Run, StepResult

BASELINE = "Run without the privacy that the job promises: a baseline for comparison, never released."


def step(place: Place) -> StepResult:
    """Write ``summary.json`` and ``summary.md``.

    Raises:
        ConfigurationError: when the rounds have not ended.
    """
    last = last_round(place.run)
    summary = summarise(last)
    store = place.run.store
    files = {
        "summary": store.write_json(place.key("summary.json"), summary),
        "page": store.write(place.key("summary.md"), as_markdown(last, summary).encode()),
    }
    if wants_page(place):
        from fedloom.tasks.reporting.files import store_page

        files["report"] = store_page(place)
    gate = summary["gate"]
    return StepResult(
        {
            "rounds": summary["rounds"],
            "model_digest": summary["model_digest"],
            "metrics": summary["metrics"],
            "decision": gate["decision"],
            "promoted": gate["promoted"],
            "stop_reason": gate["stop_reason"],
        },
        files,
    )


def wants_page(place: Place) -> bool:
    """Whether the job asks for the HTML page among the run's objects."""
    store, key = place.run.store, place.run.key("about.json")
    return store.exists(key) and store.read_json(key).get("report", {}).get("format") == "html"


def last_round(run: Run) -> Place:
    """The round with which the run ended.

    Raises:
        ConfigurationError: when it has not ended.
    """
    for number in range(1, run.recipe.rounds + 1):
        place = Place(run, number)
        gate = place.find("gate")
        if gate is None:
            break
        if gate["outputs"]["stop"]:
            return place
    raise ConfigurationError(f"run {run.run_id} has not ended yet; run it again to continue it")


def summarise(last: Place) -> dict[str, Any]:
    """The end of a run, from the results of its steps."""
    lines = progress(last).lines
    end, gate = lines[-1], last.result("gate")
    outputs = gate["outputs"]
    return {
        "kind": last.run.recipe.kind,
        "run_id": last.run.run_id,
        "plan_digest": last.run.plan_digest,
        "model_digest": end["model_digest"],
        "model_version": outputs["model_version"],
        "rounds": end["round"],
        "metrics": end["metrics"],
        "undefined": end["undefined"],
        "gate": {
            "decision": outputs["decision"],
            "promoted": outputs["promoted"],
            "stop_reason": outputs["stop_reason"],
            "checks": outputs["checks"],
            "evidence": gate["files"]["evidence"]["key"],
        },
        "measured": measured_by_clients(last),
        "privacy": _privacy(last.run.recipe, end),
        "baseline": last.run.recipe.baseline,
        "participation": {
            "asked": sum(line["cohort"] for line in lines),
            "updates": sum(line["participants"] for line in lines),
        },
    }


def fate(summary: Mapping[str, Any]) -> str:
    """What the gate's decision means for the model."""
    if summary["kind"] == "evaluate":
        kept, limits = summary["gate"]["decision"] == "pass", sets_limits(summary["gate"]["checks"])
        found = f"{'keeps' if kept else 'does not keep'} the limits" if limits or not kept else "was measured"
        return f"the model {found}; the champion is as it was"
    version = summary["model_version"]
    return f"promoted to champion, version {version}" if version is not None else "the model is not released"


def sets_limits(checks: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a job wants more of a model than that it was measured."""
    return any(check["name"] not in ("finite", "participation") for check in checks)


def measured_by_clients(last: Place) -> dict[str, Any] | None:
    """What the clients' figures give besides the metrics; None where they measured nothing.

    Returns:
        clients: How many gave figures. combined: By metric, how, and of how many clients that have a value. pooled:
        Metrics over all windows. groups: Metrics of groups of clients.
    """
    rules = last.run.recipe.measuring
    if rules is None:
        return None
    pooled, groups = (json.loads(last.file("aggregate", role)) for role in ("pooled", "groups"))
    outputs = last.result("aggregate")["outputs"]
    by = outputs["measured_by"]
    combined = {name: {"how": how, "clients": by[name]} for name, how in rules.combine}
    return {"clients": outputs["participants"], "combined": combined, "pooled": pooled, "groups": groups}


def _measured(summary: Mapping[str, Any]) -> list[str]:
    """The clients' metrics, how they were combined, and those of groups, as tables."""
    measured, metrics = summary["measured"], summary["metrics"]
    if measured is None:
        return []
    pooled, combined = measured["pooled"]["metrics"], measured["combined"]
    rows = [
        [name, rule["how"], f"{rule['clients']} of {measured['clients']}", _shown(metrics, name), _shown(pooled, name)]
        for name, rule in combined.items()
    ]
    lines = ["", "Measured by the clients; pooled is over all their windows, where counts give that exactly:", ""]
    lines += _table(["metric", "combined by", "clients", "value", "pooled"], rows)
    if not measured["groups"]:
        return lines
    rows = [
        [group["column"], group["value"], str(group["clients"]), str(group["windows"])]
        + [_shown(group["metrics"], name) for name in combined]
        for group in measured["groups"]
    ]
    return [*lines, "", "Clients by group:", "", *_table(["column", "value", "clients", "windows", *combined], rows)]


def _shown(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else "–"


def _privacy(recipe: Recipe, end: dict[str, Any]) -> dict[str, Any] | None:
    """What the rounds cost, and for whom."""
    privacy = recipe.privacy
    if privacy is None:
        return None
    unit = "one window of a client's data" if privacy.unit == "record" else "all data of one client"
    return {
        "unit": privacy.unit,
        "epsilon": end["epsilon"],
        "delta": privacy.delta,
        "noise_multiplier": privacy.noise_multiplier,
        "clip": privacy.clip,
        "statement": f"(ε, δ) = ({end['epsilon']:.3g}, {privacy.delta:g}) for {unit}, after {end['round']} rounds.",
    }


def as_markdown(last: Place, summary: dict[str, Any]) -> str:
    """The end of a run and its rounds as a page."""
    gate, names, privacy = summary["gate"], list(summary["metrics"]), summary["privacy"]
    lines = [
        f"# Run {summary['run_id']}",
        "",
        f"Gate: **{gate['decision']}**, {fate(summary)}. Ended after round {summary['rounds']}: {gate['stop_reason']}.",
        "",
        *_table(["check", "outcome", "reason"], [[c["name"], c["outcome"], c["reason"]] for c in gate["checks"]]),
        "",
        *_table(["round", "clients", "loss", "epsilon", *names], [_row(line, names) for line in progress(last).lines]),
        *_measured(summary),
        *([] if privacy is None else ["", privacy["statement"]]),
        *(["", f"**{BASELINE}**"] if summary["baseline"] else []),
        "",
        f"- model `{summary['model_digest']}`",
        f"- plan `{summary['plan_digest']}`",
        f"- evidence `{gate['evidence']}`",
    ]
    return "\n".join(lines) + "\n"


def _row(line: dict[str, Any], names: list[str]) -> list[str]:
    numbers = [line["train_loss"], line["epsilon"], *(line["metrics"].get(name) for name in names)]
    shown = ["–" if number is None else f"{number:.4f}" for number in numbers]
    return [str(line["round"]), f"{line['participants']}/{line['cohort']}", *shown]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    safe = [[cell.replace("|", "\\|") for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return ["| " + " | ".join(row) + " |" for row in safe]
