"""The decision of a round: who is eligible, who is drawn, and why; a function of roster, recipe, tally and luck."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.specs.fleet import Fleet
from fedloom.tasks.recipe import SelectionRecipe
from fedloom.tasks.selection.draw import Turn, best, draw_each, fill, race
from fedloom.tasks.selection.eligibility import Mask, Reasons, fixed_reasons
from fedloom.tasks.selection.quotas import Counts, Groups, groups_of, largest_remainders, parity_holds, parity_quotas
from fedloom.tasks.selection.scores import Weights, score_reasons, scores
from fedloom.tasks.selection.tally import Tally

_TAIL, _OWED, _EXPLORED = "kept for clients that seldom take part", "owed a place in this period", "drawn at random"


@dataclass(frozen=True)
class Split:
    """How the places were split among groups: places, eligible and drawn clients of each, shape [groups]."""

    columns: tuple[str, ...]
    names: tuple[str, ...]
    places: Counts
    eligible: Counts
    drawn: Counts


@dataclass(frozen=True)
class Decision:
    """Who takes part in a round.

    Attributes:
        reasons: Why the others may not take part.
        eligible: Shape [clients].
        weight: What chances were in proportion to, shape [clients].
        turn: The turn in which each client was drawn, -1 for none, shape [clients].
        turns: What the turns were about.
        splits: How places were split over strata and groups.
        remarks: What could not be had as asked, in words.
        shortfall: Why the round cannot have a cohort; None when it has one.
    """

    reasons: Reasons
    eligible: Mask
    weight: Weights
    turn: NDArray[np.int64]
    turns: tuple[str, ...]
    splits: tuple[Split, ...] = ()
    remarks: tuple[str, ...] = ()
    shortfall: str | None = None

    @property
    def chosen(self) -> Mask:
        """Clients of the cohort, shape [clients]."""
        return self.turn >= 0


def decide(fleet: Fleet, wanted: SelectionRecipe, tally: Tally | None, rng: np.random.Generator) -> Decision:
    """Choose the clients of a round.

    Args:
        fleet: The roster.
        wanted: Who may take part and how clients are drawn.
        tally: Earlier rounds; needed by recipes that read the history.
        rng: Where luck comes from. It is drawn for every client of the fleet, eligible or not.
    """
    reasons = find_reasons(fleet, wanted, tally)
    eligible = reasons.eligible
    count, size = int(eligible.sum()), len(fleet.clients)
    weight = scores(fleet, wanted, eligible, tally)
    grey = _grey(fleet, wanted)
    weight = weight * grey
    nobody = np.full(size, -1, dtype=np.int64)
    if count < wanted.minimum:
        short = f"{count} of {size} clients are eligible, {wanted.minimum} are needed ({reasons.summary()})"
        return Decision(reasons, eligible, weight, nobody, (), shortfall=short)
    if wanted.algorithm == "poisson":
        chosen = draw_each(grey, eligible, wanted.target, rng)
        return Decision(reasons, eligible, weight, np.where(chosen, 0, -1), ("drawn by poisson",))
    turns = _turns(wanted, tally, eligible, weight, grey, rng)
    return _split_places(fleet, wanted, Decision(reasons, eligible, weight, nobody, ()), turns)


def find_reasons(fleet: Fleet, wanted: SelectionRecipe, tally: Tally | None) -> Reasons:
    """Why clients may not take part, by roster, recipe and earlier rounds."""
    reasons = fixed_reasons(fleet, wanted)
    score_reasons(fleet, wanted, reasons)
    for columns, reader in ((wanted.stratify_by, "stratify_by"), (_parity(wanted), "group_parity")):
        for column in columns:
            unknown = [row for row, value in enumerate(fleet.attributes[column]) if value is None]
            reasons.add_all(unknown, reader, f"{column} is unknown ({reader})")
    if tally is not None:
        _by_history(wanted, tally, reasons)
    return reasons


def _by_history(wanted: SelectionRecipe, tally: Tally, reasons: Reasons) -> None:
    fairness, rules = wanted.fairness, wanted.auto_block
    if fairness is not None and fairness.period is not None and fairness.at_most is not None:
        for row in np.flatnonzero(tally.counts["in_period"] >= fairness.at_most).tolist():
            count = int(tally.counts["in_period"][row])
            text = f"took part {count} times this {fairness.period}, {fairness.at_most} are allowed"
            reasons.add(row, "max_participation_per_period", text)
    if rules is not None and rules.failures is not None:
        for row in np.flatnonzero(tally.counts["failures"] >= rules.failures).tolist():
            text = f"blacklisted: gave no update {int(tally.counts['failures'][row])} times in a row"
            reasons.add(row, "consecutive_failures", text)
    watched = [("poisoning", "data_poisoning_detected")] if rules is not None and rules.poisoning else []
    watched += [("byzantine", "byzantine_behavior_detected")] if rules is not None and rules.byzantine else []
    for sign, cause in watched:
        for row, text in enumerate(tally.signs[sign]):
            if text:
                reasons.add(row, cause, f"blacklisted: {text} ({cause})")


def _turns(
    wanted: SelectionRecipe,
    tally: Tally | None,
    eligible: Mask,
    weight: Weights,
    grey: Weights,
    rng: np.random.Generator,
) -> list[Turn]:
    """The turns in which places are given away; the last has all that are left."""
    luck = rng.exponential(size=len(weight))
    candidates, fairness = np.flatnonzero(eligible), wanted.fairness
    order = best if wanted.algorithm == "active_learning" else race
    places = min(wanted.target, len(candidates))
    turns = []
    if fairness is not None and fairness.tail_rate and tally is not None:
        counts = tally.counts["gave" if fairness.period is None else "in_period"]
        tail = candidates[counts[candidates] < np.mean(counts[candidates])]
        own = race(grey, rng.exponential(size=len(weight)), tail)
        own = own[np.argsort(counts[own], kind="stable")]
        turns.append(Turn(_TAIL, min(math.ceil(fairness.tail_rate * places - 1e-9), len(own)), own))
    exploring = 0
    if wanted.exploration:
        share = wanted.exploration * places
        exploring = min(math.floor(share) + int(rng.random() < share % 1), places)
        random = race(grey, rng.exponential(size=len(weight)), candidates)
    if fairness is not None and fairness.at_least and tally is not None:
        owed = candidates[tally.counts["in_period"][candidates] < fairness.at_least]
        kept = sum(turn.places for turn in turns) + exploring
        turns.append(Turn(_OWED, places - kept, order(weight, luck, owed)))
    if exploring:
        turns.append(Turn(_EXPLORED, exploring, random))
    return [*turns, Turn(f"drawn by {wanted.algorithm}", places, order(weight, luck, candidates))]


def _split_places(fleet: Fleet, wanted: SelectionRecipe, before: Decision, turns: list[Turn]) -> Decision:
    """Give the places away within the quotas of strata, and again where the groups then have no parity."""
    eligible, remarks = before.eligible, []
    strata = groups_of(fleet, wanted.stratify_by)
    room, places = strata.count(eligible), min(wanted.target, int(eligible.sum()))
    share: Weights = room.astype(np.float64)
    if (wanted.score and wanted.algorithm != "active_learning") or wanted.sampling_weights:
        share = np.zeros(len(room))
        np.add.at(share, strata.of[eligible], before.weight[eligible])
    quota = largest_remainders(share, places, room)
    served, present = int((quota > 0).sum()), int((room > 0).sum())
    if present > places:
        remarks.append(f"stratify_by: {present} strata and {places} places, so {present - served} have none")
    got = fill(turns, np.maximum(strata.of, 0), quota)
    parts = [groups_of(fleet, (column,)) for column in _parity(wanted)]
    shortfall = None
    if wanted.fairness is not None and not parity_holds(parts, got >= 0, wanted.fairness.tolerance):
        cells = groups_of(fleet, tuple(dict.fromkeys((*wanted.stratify_by, *_parity(wanted)))))
        limits = (wanted.fairness.tolerance, wanted.minimum, places)
        found = parity_quotas(cells.of, parts, cells.count(got >= 0), cells.count(eligible), *limits)
        if found is None:
            got, shortfall = before.turn, _no_parity(wanted, parts, eligible)
        else:
            got = fill(turns, np.maximum(cells.of, 0), found)
            if int(found.sum()) < places:
                remarks.append(f"group_parity: {int(found.sum())} of {places} places, more would break it")
    splits = [_seen(strata, wanted.stratify_by, quota, eligible, got)] if wanted.stratify_by else []
    splits += [
        _seen(part, (column,), part.count(got >= 0), eligible, got)
        for part, column in zip(parts, _parity(wanted), strict=True)
    ]
    return Decision(
        before.reasons,
        eligible,
        before.weight,
        got,
        tuple(turn.name for turn in turns),
        tuple(splits),
        tuple(remarks),
        shortfall,
    )


def _no_parity(wanted: SelectionRecipe, parts: list[Groups], eligible: Mask) -> str:
    """In words, why no cohort has parity."""
    least, counts = wanted.minimum, []
    for part in parts:
        counts += [f"{name}: {count}" for name, count in zip(part.names, part.count(eligible), strict=True)]
    shown = ", ".join(counts[:12]) + (", …" if len(counts) > 12 else "")
    tolerance = wanted.fairness.tolerance if wanted.fairness is not None else 0.0
    return (
        f"no cohort of {least} to {wanted.target} clients has group parity within {tolerance:g} "
        f"(eligible clients by group: {shown})"
    )


def _seen(groups: Groups, columns: tuple[str, ...], places: Counts, eligible: Mask, got: NDArray[np.int64]) -> Split:
    return Split(columns, groups.names, places, groups.count(eligible), groups.count(got >= 0))


def _parity(wanted: SelectionRecipe) -> tuple[str, ...]:
    return wanted.fairness.parity if wanted.fairness is not None else ()


def _grey(fleet: Fleet, wanted: SelectionRecipe) -> Weights:
    """What the greylist multiplies weights by, shape [clients]."""
    listed = set(wanted.grey)
    return np.array([wanted.grey_factor if client in listed else 1.0 for client in fleet.clients])
