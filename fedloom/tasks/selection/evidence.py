"""What is kept of a decision: every client's part in it and the reason, in columns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from fedloom.specs.fleet import Fleet
from fedloom.tasks.recipe import SelectionRecipe
from fedloom.tasks.selection.decide import Decision

DECISIONS = ("selected", "not drawn", "ineligible")


def columns(fleet: Fleet, decision: Decision, wanted: SelectionRecipe) -> dict[str, Any]:
    """Every client's part in a decision.

    Returns:
        "client", "decision" (a number in `DECISIONS`) and "reason" (a number in "reasons"), one entry a client each,
        and "weight" (what its chance was in proportion to, six digits) where chances differ.
    """
    count = int(decision.eligible.sum())
    places = f"{min(wanted.target, count)} of {count} eligible clients"
    texts = [f"{name}, {places}" if "drawn by" in name else name for name in decision.turns]
    missed = (
        "eligible, but the round has no cohort" if decision.shortfall else f"eligible, not drawn by {wanted.algorithm}"
    )
    number = {text: i for i, text in enumerate([*texts, missed])}
    reason = np.where(decision.turn >= 0, decision.turn, len(texts))
    for row in np.flatnonzero(~decision.eligible):
        reason[row] = number.setdefault(decision.reasons.text(int(row)), len(number))
    part = np.where(decision.turn >= 0, 0, np.where(decision.eligible, 1, 2))
    found: dict[str, Any] = {
        "client": list(fleet.clients),
        "decision": part.tolist(),
        "reason": reason.tolist(),
        "reasons": list(number),
    }
    if wanted.score or wanted.sampling_weights or wanted.grey:
        found["weight"] = [float(f"{weight:.6g}") for weight in decision.weight.tolist()]
    return found


def rows(clients: dict[str, Any]) -> list[dict[str, str]]:
    """The columns as one row a client, for people and tests."""
    return [
        {"client": client, "decision": DECISIONS[part], "reason": clients["reasons"][reason]}
        for client, part, reason in zip(clients["client"], clients["decision"], clients["reason"], strict=True)
    ]


def splits(decision: Decision) -> list[dict[str, Any]]:
    """How places were split over strata and groups, in columns."""
    return [
        {
            "columns": list(split.columns),
            "group": list(split.names),
            "eligible": split.eligible.tolist(),
            "places": split.places.tolist(),
            "drawn": split.drawn.tolist(),
        }
        for split in decision.splits
    ]


def encode(value: dict[str, Any]) -> bytes:
    """Canonical JSON of plain values; columns of a large fleet need not be walked through before."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
