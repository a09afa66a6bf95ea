"""Places among groups: quotas add up, keep to the room there is, and to parity where any cohort can."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.tasks.selection.quotas import groups_of, largest_remainders, parity_holds, parity_quotas
from tests.tasks.selection.recipes import fleet

GROUPS = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 8)), min_size=1, max_size=6)


@given(GROUPS, st.integers(0, 40))
def test_quotas_add_up_and_keep_to_the_room(groups: list[tuple[float, int]], total: int) -> None:
    share, room = np.array([s for s, _ in groups]), np.array([r for _, r in groups], dtype=np.int64)
    quota = largest_remainders(share, total, room)
    assert quota.sum() == min(total, room.sum())
    assert (quota <= room).all()
    assert (quota >= 0).all()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 60))
def test_with_room_for_all_a_quota_is_the_share_rounded_up_or_down(room: list[int], total: int) -> None:
    counts = np.array(room, dtype=np.int64)
    total = min(total, int(counts.sum()))
    quota = largest_remainders(counts.astype(float), total, counts)
    assert (np.abs(quota - total * counts / counts.sum()) < 1 + 1e-9).all()


@pytest.mark.parametrize(
    ("share", "total", "room", "quota"),
    [
        ([41.0, 33.0, 26.0], 10, [99, 99, 99], [4, 3, 3]),  # 4.1, 3.3, 2.6: the last has the largest remainder
        ([1.0, 1.0, 1.0], 2, [9, 9, 9], [1, 1, 0]),  # of equal remainders the first
        ([8.0, 1.0, 1.0], 10, [3, 9, 9], [3, 4, 3]),  # what has no room goes to the others
        ([1.0, 0.0], 5, [2, 9], [2, 3]),  # without a share only what is left
        ([0.0, 0.0], 3, [1, 1], [1, 1]),
    ],
)
def test_largest_remainders(share: list[float], total: int, room: list[int], quota: list[int]) -> None:
    assert largest_remainders(np.array(share), total, np.array(room)).tolist() == quota


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("xyz")), min_size=2, max_size=9),
    st.sampled_from([0.0, 0.1, 0.2, 0.34]),
    st.integers(1, 4),
)
def test_parity_is_found_where_any_cohort_has_it(clients: list[tuple[str, str]], tolerance: float, least: int) -> None:
    roster = fleet(kind=tuple(a for a, _ in clients), place=tuple(b for _, b in clients))
    parts = [groups_of(roster, (name,)) for name in ("kind", "place")]
    cells = groups_of(roster, ("kind", "place"))
    everybody = np.ones(len(clients), dtype=bool)
    most = min(6, len(clients))
    room = cells.count(everybody)
    found = parity_quotas(cells.of, parts, np.zeros_like(room), room, tolerance, least, most)

    def holds(members: tuple[int, ...]) -> bool:
        mask = np.zeros(len(clients), dtype=bool)
        mask[list(members)] = True
        return parity_holds(parts, mask, tolerance)

    sizes = [
        size
        for size in range(least, most + 1)
        if any(holds(members) for members in itertools.combinations(range(len(clients)), size))
    ]
    if not sizes:
        assert found is None
        return
    assert found is not None
    assert found.sum() == max(sizes)
    assert (found <= room).all()
    members = [row for cell, places in enumerate(found) for row in np.flatnonzero(cells.of == cell)[:places]]
    assert holds(tuple(int(row) for row in members))


def test_groups_are_values_bands_of_age_and_quartiles() -> None:
    roster = fleet(
        aircraft_age=(0.5, 4.9, 5.0, 12.0, None) * 5,
        operator=("b", "a", None, "a", "b") * 5,
        hours=tuple(float(i) for i in range(25)),
        healthy=(True, False, True, True, None) * 5,
    )
    ages = groups_of(roster, ("aircraft_age",))
    assert ages.names == ("aircraft_age below 5", "aircraft_age 5 to 10", "aircraft_age 10 to 15")
    assert ages.of[:5].tolist() == [0, 0, 1, 2, -1]
    both = groups_of(roster, ("operator", "healthy"))
    assert both.names == ("operator a, healthy False", "operator a, healthy True", "operator b, healthy True")
    assert both.of[:5].tolist() == [2, 0, -1, 1, -1]
    hours = groups_of(roster, ("hours",))
    assert hours.names == ("hours below 6", "hours 6 to 12", "hours 12 to 18", "hours from 18")
    assert hours.count(np.ones(25, dtype=bool)).tolist() == [6, 6, 6, 7]
    assert groups_of(roster, ()).count(np.ones(25, dtype=bool)).tolist() == [25]
