"""Numbers and verdicts in words, for people."""

from __future__ import annotations

from typing import Any

from fedloom.tasks.amounts import amount
from fedloom.tasks.report import BASELINE, sets_limits
from fedloom.tasks.reporting.data import RunRecord

__all__ = ["BASELINE", "amount", "check_bound", "check_value", "clock", "number", "share", "unit_words", "verdict"]

_JUDGED = ("gap", "with_fault", "value", "participants", "not_finite")
"""Numbers of checks by what a check judges; of a gap and under a fault, its value is another number."""


def number(value: Any) -> str:
    """A number with four digits after the point or, small or large, four that count; a dash where there is none."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if value and not 0.001 <= abs(value) < 10_000:
        return f"{value:.4g}"
    return f"{value:.4f}"


def share(part: float, whole: float) -> str:
    """A share in percent."""
    return "–" if not whole else f"{100 * part / whole:.0f} %"


def clock(seconds: float | None) -> str:
    """A duration."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def unit_words(unit: str) -> str:
    """Whom differential privacy protects."""
    return "one window of a client's data" if unit == "record" else "all data of one client"


def verdict(record: RunRecord) -> dict[str, str]:
    """What became of a run: a mark, one word, a sentence, and a tone (good, bad, open) for its colour."""
    gate, done, wanted = record.summary.get("gate", {}), len(record.rounds), record.recipe.get("rounds", "?")
    if record.state == "failed":
        return _say("✕", "Failed", f"The run could not go on after {done} of {wanted} rounds. {record.reason}", "bad")
    if record.state == "running":
        return _say(
            "…", "Running", f"The run has done {done} of at most {wanted} rounds. Nothing is decided yet.", "open"
        )
    if record.state == "unknown":
        return _say("?", "Not ended", f"{done} of at most {wanted} rounds are done: {record.reason}.", "open")
    decision, why = gate.get("decision", "unknown"), f"after round {done}: {gate.get('stop_reason', 'the run ended')}"
    if record.recipe.get("kind") == "evaluate":
        return _evaluated(record, decision, why)
    if decision == "pass":
        return _say("✓", "Pass", f"The gate let the model pass, and it became the champion, {why}.", "good")
    reasons = {
        "fail": ("✕", "Withheld", "The gate found that the model must not be released", "bad"),
        "inconclusive": ("?", "Withheld: inconclusive", "The gate could not answer a question about the model", "open"),
        "error": ("!", "Withheld: error", "A check of the gate could not be carried out", "bad"),
    }
    mark, word, sentence, tone = reasons.get(decision, ("?", decision, "The decision is unknown", "open"))
    missed = ", ".join(check["name"] for check in gate.get("checks", []) if check["outcome"] != "pass")
    return _say(mark, word, f"{sentence}, {why}." + (f" Not passed: {missed}." if missed else ""), tone)


def _evaluated(record: RunRecord, decision: str, why: str) -> dict[str, str]:
    """What an evaluation found: it makes no model, and moves no champion."""
    if decision == "pass":
        limits = sets_limits(record.evidence.get("checks", []))
        words = "keeps its limits on the data of the clients" if limits else "was measured; the job sets no limits"
        return _say("✓", "Pass", f"The model {words}, {why}.", "good")
    missed = ", ".join(check["name"] for check in record.evidence.get("checks", []) if check["outcome"] != "pass")
    if decision == "fail":
        return _say("✕", "Fail", f"The model does not keep its limits, {why}. Not passed: {missed}.", "bad")
    return _say("?", decision.capitalize(), f"Whether the model keeps its limits is open, {why}: {missed}.", "open")


def _say(mark: str, word: str, sentence: str, tone: str) -> dict[str, str]:
    return {"mark": mark, "word": word, "sentence": sentence, "tone": tone}


def check_value(check: dict[str, Any]) -> str:
    """The number that a check judged, with its interval where there is one."""
    numbers = check.get("numbers", {})
    text = number(next((numbers[name] for name in _JUDGED if name in numbers), None))
    low, high = numbers.get("low"), numbers.get("high")
    if low is None or high is None:
        return text
    if "difference" in numbers:  # of two models, and the interval is its
        return f"{text}, better by {number(low)} to {number(high)}"
    return f"{text} ({number(low)} to {number(high)})"


def check_bound(check: dict[str, Any]) -> str:
    """What that number was held against."""
    numbers = check.get("numbers", {})
    limits = [
        (numbers.get("minimum"), "at least"),
        (numbers.get("maximum"), "at most"),
        (numbers.get("threshold"), "at most"),
        (numbers.get("quorum"), "at least"),
        (numbers.get("champion_value"), "champion"),
        (0 if "not_finite" in numbers else None, "exactly"),
    ]
    found = [f"{words} {limit:g}" for limit, words in limits if limit is not None]
    if "max_drop" in numbers:
        found.append(f"at most {numbers['max_drop']:g} worse than {number(numbers.get('value'))}")
    return ", ".join(found) or "–"
