"""Word on updates that did not count as they came: a short list for engines, the whole one for the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedloom.specs.canonical import plain
from fedloom.tasks.aggregation.combine import Combined
from fedloom.tasks.aggregation.quality import Remark
from fedloom.tasks.step import Place
from fedloom.tasks.store import Stored

SHOWN = 100
"""Remarks of a kind that pass through an engine; Argo keeps 256 KB of a step's outputs."""


def outputs_of(combined: Combined | None) -> dict[str, Any]:
    """What engines show of it; empty lists where the server does not see single updates."""
    made = Combined({}, 0.0, 0, 0, None) if combined is None else combined
    return {
        "excluded": _short(made.excluded),
        "flagged": _short(made.flagged),
        "clipped": _short(made.clipped),
        "remarks": {name: len(getattr(made, name)) for name in ("excluded", "flagged", "clipped")},
    }


def write_quality(place: Place, combined: Combined) -> Stored:
    """Write every remark, and the share of each client in the mean where no privacy is promised."""
    shown = {name: plain(getattr(combined, name)) for name in ("excluded", "flagged", "clipped", "withheld")}
    shares = plain(combined.weights) if place.run.recipe.privacy is None else None
    return place.run.store.write_json(place.key("quality.json"), {"round": place.round, **shown, "shares": shares})


def _short(remarks: Sequence[Remark]) -> list[dict[str, str]]:
    return [{"client": r.client, "check": r.check, "reason": r.reason} for r in remarks[:SHOWN]]
