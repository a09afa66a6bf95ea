"""The records that go with an exported model, as far as the run may know them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fedloom.tasks.gather import client_figures
from fedloom.tasks.rounds import progress
from fedloom.tasks.select import cohort_shards
from fedloom.tasks.step import Place


class MissingError(Exception):
    """A record that the run does not have; the message is the reason."""


def records(last: Place, names: tuple[str, ...]) -> dict[str, Any]:
    """The records by name, and under "missing" the others with the reason.

    Args:
        last: The run's last round.
        names: Keys of `RECORDS`.
    """
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            found[name] = RECORDS[name](last)
        except MissingError as reason:
            missing[name] = str(reason)
    return {**found, "missing": missing}


def _rounds(last: Place) -> list[Place]:
    return [Place(last.run, number) for number in range(1, last.round + 1)]


def _participation(last: Place) -> list[dict[str, Any]]:
    """Who was asked in each round, and who gave nothing."""
    privacy = last.run.recipe.privacy
    if privacy is not None and privacy.unit == "client":
        raise MissingError("privacy of clients is promised: nobody is to learn who took part")
    return [
        {
            "round": place.round,
            "cohort": sorted(client for shard in cohort_shards(place) for client in shard),
            "dropouts": place.result("aggregate")["outputs"]["dropouts"],
        }
        for place in _rounds(last)
    ]


def _weights(last: Place) -> list[dict[str, Any]]:
    """Share of each client in the mean of each round; null where there is none, or it was chosen by coordinates."""
    recipe = last.run.recipe
    if recipe.masking is not None or recipe.privacy is not None:
        raise MissingError("figures of single clients are not seen where masks or privacy are promised")
    if recipe.measuring is not None:
        raise MissingError("an evaluation aggregates no updates")
    return [{"round": place.round, "shares": _shares(place)} for place in _rounds(last)]


def _shares(place: Place) -> dict[str, float] | None:
    quality = _quality(place)
    if quality is not None:
        return quality["shares"] or None
    figures = client_figures(place)
    total = sum(own["weight"] for _, own in sorted(figures.items()))
    if not place.result("aggregate")["outputs"]["quorum_met"] or not total > 0:
        return None
    by = total if place.run.recipe.aggregation.normalize else 1.0
    return {client: own["weight"] / by for client, own in sorted(figures.items())}


def _quality(place: Place) -> dict[str, Any] | None:
    """What the round's aggregation noted of single updates; None where it saw none."""
    if "quality" not in place.result("aggregate")["files"]:
        return None
    found: dict[str, Any] = json.loads(place.file("aggregate", "quality"))
    return found


def _checks(last: Place) -> list[dict[str, Any]]:
    """What the checks of updates found in each round."""
    return _noted(last, ("excluded", "flagged", "clipped"))


def _exclusions(last: Place) -> list[dict[str, Any]]:
    """Updates that did not count, whom the rule chose, and why it gave no mean, in each round."""
    return _noted(last, ("excluded", "shares", "withheld"))


def _noted(last: Place, names: tuple[str, ...]) -> list[dict[str, Any]]:
    noted = [_quality(place) for place in _rounds(last)]
    if all(quality is None for quality in noted):
        raise MissingError("the job looks at no update by itself")
    return [{"round": q["round"], **{name: q[name] for name in names}} for q in noted if q is not None]


def _convergence(last: Place) -> list[dict[str, Any]]:
    names = ("round", "train_loss", "update_norm", "metrics", "undefined")
    return [{name: line[name] for name in names} for line in progress(last).lines]


RECORDS: dict[str, Callable[[Place], Any]] = {
    "client_participation": _participation,
    "aggregation_weights": _weights,
    "quality_check_results": _checks,
    "byzantine_exclusions": _exclusions,
    "convergence_metrics": _convergence,
}
"""What each record is made by."""
