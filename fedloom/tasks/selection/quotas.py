"""How the places of a cohort are split among groups: strata by largest remainders, parity within a tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.specs.fleet import Fleet
from fedloom.tasks.selection.eligibility import Mask, Rows
from fedloom.tasks.selection.scores import Weights, coded

Counts = NDArray[np.int64]
_AGE, _BAND = "aircraft_age", 5
_MANY = 20
_SLACK = 1e-6


@dataclass(frozen=True)
class Groups:
    """Clients sorted into groups.

    Attributes:
        names: What each group has in common.
        of: The group of each client, shape [clients]; -1 where a value is unknown.
    """

    names: tuple[str, ...]
    of: Rows

    def count(self, mask: Mask) -> Counts:
        """Clients of each group in a mask, shape [groups]."""
        return np.bincount(self.of[mask & (self.of >= 0)], minlength=len(self.names)).astype(np.int64)


def groups_of(fleet: Fleet, columns: tuple[str, ...]) -> Groups:
    """Clients that agree in all of these columns; one group of all where there are none.

    The column aircraft_age is cut into bands of five years, any other column with more than 20 different numbers at
    the fleet's quartiles.
    """
    size = len(fleet.clients)
    if not columns:
        return Groups(("",), np.zeros(size, dtype=np.intp))
    parts = [_banded(fleet, column) for column in columns]
    known = np.logical_and.reduce([codes >= 0 for codes, _ in parts])
    names, joint = [""], np.zeros(int(known.sum()), dtype=np.intp)
    for column, (codes, values) in zip(columns, parts, strict=True):
        pairs, joint = np.unique(joint * len(values) + codes[known], return_inverse=True)
        split = (divmod(int(pair), len(values)) for pair in pairs)
        names = [f"{names[before]}{', ' if names[before] else ''}{column} {values[code]}" for before, code in split]
    of = np.full(size, -1, dtype=np.intp)
    of[known] = joint
    return Groups(tuple(names), of)


def largest_remainders(share: Weights, total: int, room: Counts) -> Counts:
    """Split places among groups in proportion to their shares, rounded by largest remainders (Hamilton's method).

    Args:
        share: What each group's part is in proportion to, shape [groups], non-negative.
        total: Places to be split.
        room: Most places of each group, shape [groups]; what a group has no room for goes to the others.

    Returns:
        Shape [groups], at most `room`, in all the smaller of `total` and all room.
    """
    quota: Counts = np.zeros(len(share), dtype=np.int64)
    for wanting in (share > 0, share <= 0):  # groups without a share come last
        part = np.where(share > 0, share, room)
        is_open, left = wanting & (room > 0), min(total - int(quota.sum()), int(room[wanting].sum()))
        while left > 0:
            own = np.where(is_open, part, 0.0)
            ideal = left * (own / own.sum())
            full = is_open & (ideal >= room)
            if not full.any():
                floor = np.floor(ideal + 1e-9).astype(np.int64)
                over = np.where(is_open, ideal - floor, -1.0)
                floor[np.argsort(-np.round(over, 9), kind="stable")[: left - int(floor.sum())]] += 1
                quota += floor
                break
            quota[full] = room[full]
            left -= int(room[full].sum())
            is_open &= ~full
    return quota


def parity_holds(parts: list[Groups], chosen: Mask, tolerance: float) -> bool:
    """Whether each group of each dimension has a share of the chosen within the tolerance of an equal one."""
    size = max(int(chosen.sum()), 1)
    return all((np.abs(part.count(chosen) / size - 1 / len(part.names)) <= tolerance + _SLACK).all() for part in parts)


def parity_quotas(
    cell: Rows, parts: list[Groups], drawn: Counts, room: Counts, tolerance: float, least: int, most: int
) -> Counts | None:
    """Places of each cell with which parity holds: as many as can be, and then as near as can be to a free draw.

    A cell is a set of clients that agree in every group. The largest cohort, if it is not all places, and the fewest
    changes to the free draw follow from integer programs (HiGHS).

    Args:
        cell: The cell of each client, shape [clients].
        parts: The groups of each dimension.
        drawn: What a free draw gave each cell, shape [cells].
        room: Eligible clients of each cell, shape [cells].
        tolerance: Largest deviation from equal shares.
        least: Smallest cohort.
        most: Largest cohort.

    Returns:
        Shape [cells]; None where no cohort of that size has parity.
    """
    from scipy.sparse import csr_array, vstack

    cells, known, members = len(room), cell >= 0, []
    for part in parts:
        pairs = np.unique(part.of[known] * cells + cell[known])
        members.append(csr_array((np.ones(len(pairs)), divmod(pairs, cells)), shape=(len(part.names), cells)))
    member, equal = vstack(members), np.concatenate([np.full(len(part.names), 1 / len(part.names)) for part in parts])
    if most < least:
        return None
    found = _fewest_changes(member, equal, drawn, room, tolerance, most)
    if found is not None:
        return found
    size = _largest(member, equal, room, tolerance, least, most)
    return None if size is None else _fewest_changes(member, equal, drawn, room, tolerance, size)


def _fewest_changes(
    member: Any, equal: Weights, drawn: Counts, room: Counts, tolerance: float, size: int
) -> Counts | None:
    """Places of a cohort of one size, with few added to the free draw and few taken away; None without parity."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, hstack, vstack

    matrix = vstack([csr_array(np.ones((1, len(room)))), member])
    low = np.r_[size, np.ceil((equal - tolerance) * size - _SLACK)] - matrix @ drawn
    high = np.r_[size, np.floor((equal + tolerance) * size + _SLACK)] - matrix @ drawn
    if (low > high).any():
        return None
    found = milp(
        np.ones(2 * len(room)),
        integrality=np.ones(2 * len(room)),
        bounds=Bounds(0, np.r_[room - drawn, drawn]),
        constraints=LinearConstraint(hstack([matrix, -matrix]), low, high),
    )
    if found.x is None:
        return None
    places: Counts = drawn + np.round(found.x[: len(room)] - found.x[len(room) :]).astype(np.int64)
    return places


def _largest(member: Any, equal: Weights, room: Counts, tolerance: float, least: int, most: int) -> int | None:
    """The size of the largest cohort that has parity: |n_g - n / G| ≤ tolerance · n is linear in all numbers."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, hstack, vstack

    cells, groups = len(room), len(equal)
    matrix = vstack(
        [
            hstack([csr_array(np.ones((1, cells))), csr_array([[-1.0]])]),
            hstack([member, csr_array((tolerance - equal)[:, None])]),
            hstack([member, csr_array((-tolerance - equal)[:, None])]),
        ]
    )
    found = milp(
        np.r_[np.zeros(cells), -1.0],
        integrality=np.ones(cells + 1),
        bounds=Bounds(np.r_[np.zeros(cells), float(least)], np.r_[room.astype(float), float(most)]),
        constraints=LinearConstraint(
            matrix,
            np.r_[0.0, np.full(groups, -_SLACK), np.full(groups, -np.inf)],
            np.r_[0.0, np.full(groups, np.inf), np.full(groups, _SLACK)],
        ),
    )
    return None if found.x is None else round(float(found.x[-1]))


def _banded(fleet: Fleet, column: str) -> tuple[Rows, list[str]]:
    """A column as numbers of its groups, -1 where unknown, and their names."""
    values = fleet.attributes[column]
    known = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if column == _AGE and known:
        edges = np.arange(_BAND, max(known) + _BAND, _BAND, dtype=np.float64)
    elif len(set(known)) > _MANY:
        edges = np.unique(np.quantile(np.array(known, dtype=np.float64), (0.25, 0.5, 0.75)))
    else:
        codes, found = coded(values)
        return codes, [str(value) for value in found]
    numbers = np.array(values, dtype=np.float64)
    codes = np.where(np.isnan(numbers), -1, np.searchsorted(edges, numbers, side="right")).astype(np.intp)
    ends = [f"{edge:g}" for edge in edges]
    return codes, [
        f"below {ends[0]}",
        *(f"{a} to {b}" for a, b in pairwise(ends)),
        f"from {ends[-1]}",
    ]
