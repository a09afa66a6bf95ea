"""Two runs beside each other: metrics, what their plans differ in, and whether their digests are the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fedloom.tasks.metrics import HIGHER_IS_BETTER
from fedloom.tasks.reporting.data import RunRecord

PRIVACY = ("privacy", "masking", "baseline")
"""Parts of a recipe in which a run and its baseline without privacy differ."""


@dataclass(frozen=True)
class Difference:
    """A value of the recipe in which two runs differ, by its dotted path; None where a run does not have it."""

    path: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Comparison:
    """Two runs.

    Attributes:
        metrics: Name, both values and the difference of the second from the first (None where one is missing).
        recipe: In which their recipes differ.
        digests: Name, both digests, and whether they are equal.
    """

    metrics: tuple[tuple[str, float | None, float | None, float | None], ...]
    recipe: tuple[Difference, ...]
    digests: tuple[tuple[str, str | None, str | None, bool], ...]


def compare(first: RunRecord, second: RunRecord) -> Comparison:
    """Compare two runs by their last rounds."""
    a, b = first.metrics, second.metrics
    names = [name for name in (*HIGHER_IS_BETTER, *a, *b) if name in a or name in b]
    pairs = [(name, a.get(name), b.get(name)) for name in dict.fromkeys(names)]
    return Comparison(
        tuple((name, x, y, None if x is None or y is None else y - x) for name, x, y in pairs),
        tuple(differences(first.recipe, second.recipe)),
        tuple((name, x, y, x is not None and x == y) for name, x, y in _digests(first, second)),
    )


def differences(first: Any, second: Any, path: str = "") -> Iterator[Difference]:
    """Values in which two JSON values differ, by dotted path; lists are compared whole, unless equally long."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys()):
            yield from differences(first.get(key), second.get(key), f"{path}.{key}" if path else key)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second) and _nested(first, second):
        for index, pair in enumerate(zip(first, second, strict=True)):
            yield from differences(*pair, f"{path}[{index}]")
    elif first != second:
        yield Difference(path, first, second)


def _nested(*values: list[Any]) -> bool:
    return any(isinstance(item, dict | list) for value in values for item in value)


def _digests(first: RunRecord, second: RunRecord) -> Iterator[tuple[str, str | None, str | None]]:
    yield "plan", first.plan_digest, second.plan_digest
    for name, key in (("fleet", "fleet_digest"), ("holdout", "holdout_digest"), ("model", "model_digest")):
        yield name, first.evidence.get(key), second.evidence.get(key)


def unlike(run: RunRecord, baseline: RunRecord) -> list[str]:
    """Why the difference between a run and its baseline is not the cost of privacy alone; nothing when it is."""
    found = [
        f"{each.path} is {each.first!r} here and {each.second!r} in the baseline"
        for each in differences(run.recipe, baseline.recipe)
        if each.path.partition(".")[0] not in PRIVACY
    ]
    a, b = run.evidence.get("holdout_digest"), baseline.evidence.get("holdout_digest")
    if a != b:
        found.append("they were not measured on the same held-out data")
    if len(run.rounds) != len(baseline.rounds):
        found.append(f"this run has {len(run.rounds)} rounds and the baseline {len(baseline.rounds)}")
    return found
