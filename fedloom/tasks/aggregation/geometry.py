"""Lengths, angles and distances of updates, in float64.

All updates of a call have one layout. They are compared in blocks of coordinates, so that beside the updates
themselves (float32) only a block of each is in memory twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedloom.tasks.aggregation.updates import Update
from fedloom.tasks.models import State

Matrix = NDArray[np.float64]
_BLOCK = 1 << 14


def by_coordinate(updates: Sequence[Update], rule: Callable[[Matrix], Matrix]) -> State:
    """Apply a rule to every coordinate.

    Args:
        updates: At least one.
        rule: From values [updates, coordinates] to [coordinates]; no coordinate may depend on another, as they come in
            blocks.

    Returns:
        A state of float64 tensors.
    """
    made: State = {}
    for name, like in sorted(updates[0].delta.items()):
        out = np.empty(like.numel())
        for at, block in _blocks(updates, name):
            out[at] = rule(block)
        made[name] = torch.from_numpy(out).reshape(like.shape)
    return made


def median(updates: Sequence[Update]) -> State:
    """The median of every coordinate; of an even number, the mean of the middle two."""
    return by_coordinate(updates, lambda block: np.median(block, axis=0))


def lengths(updates: Sequence[Update], centre: State | None = None, metric: str = "l2") -> Matrix:
    """Norm of each update's difference from a centre (from zero if not given), shape [updates].

    Args:
        updates: At least one.
        centre: Float64 tensors.
        metric: "l2", "l1" or "linf".
    """
    found = np.zeros(len(updates))
    for _, block in _differences(updates, centre):
        if metric == "linf":
            found = np.maximum(found, np.abs(block).max(axis=1, initial=0.0))
        elif metric == "l1":
            found += np.abs(block).sum(axis=1)
        else:
            found += np.square(block).sum(axis=1)
    return np.asarray(np.sqrt(found)) if metric == "l2" else found


def cosines(updates: Sequence[Update], direction: State) -> Matrix:
    """Cosine of the angle between each update and a direction, shape [updates]; 0 where one of them has no length."""
    products, squares, own = np.zeros(len(updates)), np.zeros(len(updates)), 0.0
    for centre, block in _differences(updates, None, direction):
        products += (block * centre).sum(axis=1)
        squares += np.square(block).sum(axis=1)
        own += float(np.square(centre).sum())
    long = np.sqrt(squares) * np.sqrt(own)
    cosine: Matrix = np.clip(np.divide(products, long, out=np.zeros_like(long), where=long > 0), -1.0, 1.0)
    return cosine


def squared_distances(updates: Sequence[Update]) -> Matrix:
    """Squared Euclidean distances between all pairs, shape [updates, updates].

    From the differences themselves: products of long updates would lose short distances between them.
    """
    from scipy.spatial.distance import pdist, squareform

    if len(updates) < 2:
        return np.zeros((len(updates), len(updates)))
    pairs = np.zeros(len(updates) * (len(updates) - 1) // 2)
    for name in sorted(updates[0].delta):
        for _, block in _blocks(updates, name):
            pairs += pdist(block, "sqeuclidean")
    found: Matrix = squareform(pairs)
    return found


def _differences(
    updates: Sequence[Update], centre: State | None, beside: State | None = None
) -> Iterator[tuple[Matrix, Matrix]]:
    """Blocks of a direction (empty if not given) and of the updates less a centre."""
    for name in sorted(updates[0].delta):
        own = None if centre is None else centre[name].flatten().numpy()
        other = np.empty(0) if beside is None else beside[name].flatten().numpy()
        for at, block in _blocks(updates, name):
            yield other[at], block if own is None else block - own[at]


def _blocks(updates: Sequence[Update], name: str) -> Iterator[tuple[slice, Matrix]]:
    flat = [update.delta[name].flatten() for update in updates]
    for start in range(0, flat[0].numel(), _BLOCK):
        block = torch.stack([values[start : start + _BLOCK] for values in flat]).to(torch.float64).numpy()
        yield slice(start, start + block.shape[1]), block
