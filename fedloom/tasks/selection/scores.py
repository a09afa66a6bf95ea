"""What clients are drawn in proportion to, from columns of the fleet and from what they gave in earlier rounds."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedloom.specs.fleet import Fleet
from fedloom.tasks.recipe import ColumnWeight, SelectionRecipe
from fedloom.tasks.recipe.selection import word_of
from fedloom.tasks.selection.eligibility import Mask, Reasons, numbers
from fedloom.tasks.selection.tally import Tally

Weights = NDArray[np.float64]
_DIVERSITY = "data_diversity"


def score_reasons(fleet: Fleet, wanted: SelectionRecipe, reasons: Reasons) -> None:
    """Note the clients whose score cannot be computed: they cannot be drawn by it."""
    parts = {name for name, _ in wanted.score}
    if "quantity" in parts:
        _check(fleet, "data_samples", np.inf, wanted.algorithm, reasons)
    if "quality" in parts:
        _check(fleet, "data_quality", 1.0, wanted.algorithm, reasons)
    if "diversity" in parts and not wanted.rarity:
        _check(fleet, _DIVERSITY, 1.0, wanted.algorithm, reasons)
    for weight in wanted.sampling_weights:
        if weight.factor is not None:
            _check(fleet, weight.column, np.inf, "sampling_weights", reasons)
            continue
        for row, factor in enumerate(_factors(fleet, weight)):
            if not factor > 0:
                value = fleet.attributes[weight.column][row]
                text = "is unknown" if value is None else f"{value} has no weight above 0"
                reasons.add(row, "sampling_weights", f"{weight.column} {text} (sampling_weights)")


def scores(fleet: Fleet, wanted: SelectionRecipe, eligible: Mask, tally: Tally | None) -> Weights:
    """What each client's chance is in proportion to, before the greylist; 0 where it is not eligible.

    Args:
        fleet: The roster.
        wanted: How clients are drawn.
        eligible: Shape [clients]; components are normalised over these.
        tally: Earlier rounds, for components that are computed from them.

    Returns:
        Shape [clients], between 0 and 1 for scores.
    """
    size = len(fleet.clients)
    total = np.zeros(size) if wanted.score else np.ones(size)
    for name, weight in wanted.score:
        total += weight * _component(name, fleet, wanted, eligible, tally)
    plain = [weight for weight in wanted.sampling_weights if weight.factor is not None]
    if plain:
        total = np.zeros(size)
        for column in plain:
            total += (column.factor or 0.0) * _of_largest(numbers(fleet, column.column), eligible)
    for column in wanted.sampling_weights:
        if column.factor is None:
            total = total * _factors(fleet, column)
    return np.where(eligible, total, 0.0)


def _component(name: str, fleet: Fleet, wanted: SelectionRecipe, eligible: Mask, tally: Tally | None) -> Weights:
    if name == "quantity":
        return _of_largest(numbers(fleet, "data_samples"), eligible)
    if name == "quality":
        return numbers(fleet, "data_quality")
    if name == "diversity":
        return _diversity(fleet, wanted.rarity, eligible)
    assert tally is not None, "a recipe with such a score reads the history"
    if name == "loss_reduction":
        return loss_reduction(tally, eligible)
    known = tally.figures["contribution" if name == "contribution" else "norm"]
    return _of_largest(_filled(known, eligible, "mean"), eligible)


def loss_reduction(tally: Tally, eligible: Mask) -> Weights:
    """By how much a client's loss is predicted to fall when it takes part: its last loss · the share that it fell by.

    A client of whom fewer than two losses are known gets the largest prediction of all: it is tried before it is
    judged.
    """
    return _of_largest(_filled(tally.figures["loss"] * tally.figures["reduction"], eligible, "largest"), eligible)


def _diversity(fleet: Fleet, rarity: tuple[str, ...], eligible: Mask) -> Weights:
    """The column data_diversity, or how rare a client's values are: the mean of 1 - the share that has the same."""
    if not rarity:
        return numbers(fleet, _DIVERSITY)
    total = np.zeros(len(fleet.clients))
    for name in rarity:
        codes, _ = coded(fleet.attributes[name])
        counts = np.bincount(codes[eligible & (codes >= 0)], minlength=int(codes.max(initial=0)) + 1)
        rare = 1 - counts[codes] / max(int(eligible.sum()), 1)
        total += np.where(codes >= 0, rare, 0.0)  # an unknown value is not rare
    return _of_largest(total, eligible)


def coded(column: tuple[object, ...]) -> tuple[NDArray[np.intp], list[object]]:
    """A column as numbers from 0, -1 where unknown, and the value of each number, in the order of their texts."""
    values = sorted({value for value in column if value is not None}, key=lambda value: (str(value), repr(value)))
    code: dict[object, int] = {value: i for i, value in enumerate(values)}
    code[None] = -1
    return np.array([code[value] for value in column], dtype=np.intp), values


def _of_largest(values: Weights, eligible: Mask) -> Weights:
    """Values over the largest eligible one; equal where that is zero."""
    largest = values[eligible].max(initial=0.0)
    return values / largest if largest > 0 else np.ones(len(values))


def _filled(values: Weights, eligible: Mask, by: Literal["mean", "largest"]) -> Weights:
    """Values with the unknown ones replaced by a figure of the known; all alike where none is known."""
    known = values[eligible & ~np.isnan(values)]
    if not len(known):
        return np.ones(len(values))
    fill = known.max() if by == "largest" else known.mean()
    return np.where(np.isnan(values), fill, values)


def _factors(fleet: Fleet, weight: ColumnWeight) -> Weights:
    """The weight of each client's value; NaN for values without one."""
    table = dict(weight.values)
    column = fleet.attributes[weight.column]
    factor = {value: np.nan if value is None else table.get(word_of(value), np.nan) for value in set(column)}
    return np.array([factor[value] for value in column], dtype=np.float64)


def _check(fleet: Fleet, column: str, most: float, by: str, reasons: Reasons) -> None:
    values = numbers(fleet, column)
    reasons.add_all(np.flatnonzero(np.isnan(values)), by, f"{column} is unknown ({by})")
    for row in np.flatnonzero((values < 0) | (values > most)):
        word = "negative" if values[row] < 0 else "above 1"
        reasons.add(int(row), by, f"{column} {fleet.attributes[column][row]} is {word} ({by})")
