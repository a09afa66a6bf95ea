"""Decisions: the right number of eligible clients, the same every time, in the shape that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.specs.criteria import Criterion
from fedloom.tasks.recipe import AutoBlockRecipe, ColumnWeight, FairnessRecipe, SelectionRecipe
from fedloom.tasks.selection import evidence
from fedloom.tasks.selection.decide import Decision, decide
from fedloom.tasks.selection.quotas import groups_of, parity_holds
from fedloom.tasks.selection.tally import Tally, empty_tally
from tests.tasks.selection.recipes import fleet, recipe

AT = "2026-11-24T12:00:00+00:00"
NONE = FairnessRecipe("quarter", 0, None, 0.0, (), 0.0)


def fair(**changes: Any) -> FairnessRecipe:
    return FairnessRecipe(**({name: getattr(NONE, name) for name in NONE.__dataclass_fields__} | changes))


def tally(*in_period: int) -> Tally:
    made = empty_tally(len(in_period), AT, "quarter")
    for name in ("asked", "gave", "in_period"):
        made.counts[name][:] = in_period
    return made


def luck(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cohort(decision: Decision) -> list[int]:
    return [int(row) for row in np.flatnonzero(decision.chosen)]


CLIENTS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-2, 20)),
        st.one_of(st.none(), st.floats(0, 1)),
        st.sampled_from(["north", "south", "east", None]),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=30,
)
WAYS: list[dict[str, Any]] = [
    {},
    {"algorithm": "importance_sampling", "score": (("quantity", 0.5), ("quality", 0.5)), "exploration": 0.3},
    {"algorithm": "importance_sampling", "score": (("diversity", 1.0),), "rarity": ("operator",)},
    {"algorithm": "active_learning", "score": (("loss_reduction", 1.0),), "exploration": 0.2},
    {"algorithm": "weighted_random", "sampling_weights": (ColumnWeight("data_samples", 1.0, ()),)},
    {"stratify_by": ("operator",)},
    {"fairness": fair(at_least=1, at_most=3, tail_rate=0.25)},
    {"fairness": fair(parity=("operator",), tolerance=0.2, tail_rate=0.5), "stratify_by": ("operator",)},
    {"criteria": (Criterion("eligibility_criteria.min_data_samples", "data_samples", "at_least", 3),)},
    {"grey": ("c1", "c2"), "grey_factor": 0.0},
]


@settings(max_examples=120)
@given(CLIENTS, st.sampled_from(WAYS), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32))
def test_a_cohort_is_as_large_as_can_be_eligible_and_repeatable(
    clients: list[Any], way: dict[str, Any], target: int, minimum: int, seed: int
) -> None:
    roster = fleet(
        data_samples=tuple(c[0] for c in clients),
        data_quality=tuple(c[1] for c in clients),
        operator=tuple(c[2] for c in clients),
    )
    wanted = recipe(target=max(target, minimum), minimum=minimum, **way)
    before = tally(*(c[3] for c in clients)) if wanted.reads_history else None
    decision = decide(roster, wanted, before, luck(seed))
    again = decide(roster, wanted, before, luck(seed))
    assert (decision.turn == again.turn).all()
    assert not (decision.chosen & ~decision.eligible).any()
    assert (decision.eligible == np.array([not decision.reasons.text(row) for row in range(len(clients))])).all()
    count, places = int(decision.chosen.sum()), min(wanted.target, int(decision.eligible.sum()))
    if decision.shortfall is not None:
        assert count == 0
        assert decision.eligible.sum() < minimum or "no cohort" in decision.shortfall
    elif wanted.fairness is not None and wanted.fairness.parity:
        assert minimum <= count <= places
        assert parity_holds([groups_of(roster, ("operator",))], decision.chosen, wanted.fairness.tolerance)
        assert count == places or decision.remarks
    else:
        assert count == places
    columns = evidence.columns(roster, decision, wanted)
    rows = evidence.rows(columns)
    assert [row["client"] for row in rows] == list(roster.clients)
    assert all(row["reason"] for row in rows)
    assert sum(row["decision"] == "selected" for row in rows) == count
    evidence.encode(columns)  # is JSON, without NaN


@settings(max_examples=50)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), st.integers(1, 20), st.integers(0, 99))
def test_strata_get_their_part_of_the_places(operators: list[str], target: int, seed: int) -> None:
    roster = fleet(operator=tuple(operators))
    decision = decide(roster, recipe(target=target, stratify_by=("operator",)), None, luck(seed))
    (split,) = decision.splits
    assert (split.drawn == split.places).all()
    ideal = min(target, len(operators)) * split.eligible / len(operators)
    assert (np.abs(split.drawn - ideal) < 1 + 1e-9).all()


def test_more_strata_than_places_is_remarked() -> None:
    decision = decide(fleet(operator=tuple("abcde")), recipe(target=2, stratify_by=("operator",)), None, luck())
    assert decision.remarks == ("stratify_by: 5 strata and 2 places, so 3 have none",)
    assert decision.chosen.sum() == 2


def test_strata_of_weighted_draws_get_places_by_their_weight() -> None:
    weights = (ColumnWeight("kind", None, (("A", 0.8), ("B", 0.2))),)
    wanted = recipe(algorithm="weighted_random", target=10, sampling_weights=weights, stratify_by=("kind",))
    decision = decide(fleet(kind=("A", "B") * 10), wanted, None, luck())
    assert decision.splits[0].drawn.tolist() == [8, 2]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ({"minimum": 2, "target": 2}, "1 of 1 clients are eligible, 2 are needed (the fleet is too small)"),
        (
            {"fairness": fair(parity=("operator",), tolerance=0.2), "target": 3, "minimum": 1},
            None,  # one group alone is represented equally
        ),
    ],
)
def test_one_client(way: dict[str, Any], message: str | None) -> None:
    before = tally(0) if "fairness" in way else None
    decision = decide(fleet(operator=("north",)), recipe(**way), before, luck())
    assert decision.shortfall == message
    assert cohort(decision) == ([] if message else [0])


def test_parity_that_cannot_be_met_says_which_groups_there_are() -> None:
    wanted = recipe(
        target=4,
        minimum=2,
        fairness=fair(parity=("operator",), tolerance=0.1),
        criteria=(Criterion("eligibility_criteria.k", "ok", "equals", True),),
    )
    roster = fleet(operator=("a", "a", "a", "b"), ok=(True, True, True, False))
    decision = decide(roster, wanted, None, luck())
    assert decision.shortfall == (
        "no cohort of 2 to 4 clients has group parity within 0.1 "
        "(eligible clients by group: operator a: 3, operator b: 0)"
    )
    assert cohort(decision) == []


def test_parity_takes_fewer_clients_where_more_would_break_it() -> None:
    wanted = recipe(target=6, minimum=2, fairness=fair(parity=("operator",), tolerance=0.0))
    decision = decide(fleet(operator=("a", "a", "a", "a", "b", "b")), wanted, None, luck())
    assert decision.splits[0].drawn.tolist() == [2, 2]
    assert decision.remarks == ("group_parity: 4 of 6 places, more would break it",)


def test_who_took_part_too_often_waits_and_who_is_owed_comes_first() -> None:
    wanted = recipe(target=2, fairness=fair(at_least=1, at_most=3))
    for seed in range(20):
        decision = decide(fleet(x=(1,) * 5), wanted, tally(3, 1, 0, 2, 0), luck(seed))
        assert cohort(decision) == [2, 4]
    assert decision.reasons.text(0) == "took part 3 times this quarter, 3 are allowed"
    rows = evidence.rows(evidence.columns(fleet(x=(1,) * 5), decision, wanted))
    assert rows[2]["reason"] == "owed a place in this period"


def test_places_are_kept_for_clients_that_seldom_take_part() -> None:
    weights = (ColumnWeight("data_samples", 1.0, ()),)
    wanted = recipe(
        algorithm="weighted_random", target=4, sampling_weights=weights, fairness=fair(tail_rate=0.25, period=None)
    )
    roster = fleet(data_samples=(1000, 1000, 1000, 1000, 1000, 1))
    decision = decide(roster, wanted, tally(5, 5, 5, 5, 5, 0), luck())
    assert 5 in cohort(decision)
    assert decision.turns[decision.turn[5]] == "kept for clients that seldom take part"
    assert decision.chosen.sum() == 4


def test_places_that_no_seldom_client_takes_go_to_those_that_are_owed_one() -> None:
    wanted = recipe(target=2, fairness=fair(at_least=2, tail_rate=0.5))
    before = tally(1, 2, 2, 2)
    before.counts["in_period"][:] = [1, 1, 2, 2]  # the first two are owed a place, and below the average
    assert cohort(decide(fleet(x=(1,) * 4), wanted, before, luck())) == [0, 1]
    before.counts["in_period"][:] = [1, 1, 1, 1]  # nobody is below the average
    decision = decide(fleet(x=(1,) * 4), wanted, before, luck())
    assert {decision.turns[turn] for turn in decision.turn if turn >= 0} == {"owed a place in this period"}


def test_exploration_is_a_share_of_the_places() -> None:
    wanted = recipe(algorithm="importance_sampling", score=(("quantity", 1.0),), target=5, exploration=0.3)
    roster = fleet(data_samples=(1,) * 50)
    explored = [int((decide(roster, wanted, None, luck(seed)).turn == 0).sum()) for seed in range(200)]
    assert set(explored) == {1, 2}
    assert np.mean(explored) == pytest.approx(1.5, abs=0.15)


def test_active_learning_takes_the_best_predictions_and_tries_the_unknown_first() -> None:
    before = empty_tally(5, AT, None)
    before.figures["loss"][:] = [1.0, 2.0, 1.0, np.nan, 0.5]
    before.figures["reduction"][:] = [0.5, 0.1, 0.0, np.nan, 0.6]
    wanted = recipe(algorithm="active_learning", score=(("loss_reduction", 1.0),), target=2)
    decision = decide(fleet(x=(1,) * 5), wanted, before, luck())
    assert cohort(decision) == [0, 3]  # predicted 0.5 and the largest; the others 0.2, 0 and 0.3
    assert decision.weight.tolist() == pytest.approx([1.0, 0.4, 0.0, 1.0, 0.6])


def test_the_automatic_blacklist_names_what_it_found() -> None:
    before = empty_tally(4, AT, None)
    before.counts["failures"][:] = [2, 3, 0, 0]
    before.signs["poisoning"][2] = "data_poisoning_score: 0.9 (round 1 of r)"
    before.signs["byzantine"][3] = "krum: far from the others (round 2 of r)"
    wanted = recipe(auto_block=AutoBlockRecipe(3, True, False))
    decision = decide(fleet(x=(1,) * 4), wanted, before, luck())
    assert cohort(decision) == [0, 3]
    assert decision.reasons.text(1) == "blacklisted: gave no update 3 times in a row"
    assert decision.reasons.text(2).startswith("blacklisted: data_poisoning_score: 0.9 (round 1 of r)")


def test_poisson_draws_each_client_on_its_own() -> None:
    roster, wanted = fleet(x=(1,) * 100), recipe(algorithm="poisson", target=20)
    sizes = [int(decide(roster, wanted, None, luck(seed)).chosen.sum()) for seed in range(300)]
    assert np.mean(sizes) == pytest.approx(20, abs=0.8)
    assert np.var(sizes) == pytest.approx(16, rel=0.35)


@pytest.mark.parametrize(
    ("wanted", "uniform", "reads"),
    [
        (recipe(), True, False),
        (recipe(algorithm="poisson"), True, False),
        (recipe(stratify_by=("x",)), False, False),
        (recipe(fairness=fair(at_most=3)), False, True),
        (recipe(fairness=fair(period=None, parity=("x",))), False, False),
        (recipe(auto_block=AutoBlockRecipe(1, False, False)), False, True),
        (recipe(algorithm="importance_sampling", score=(("quantity", 1.0),)), False, False),
        (recipe(algorithm="active_learning", score=(("loss_reduction", 1.0),)), False, True),
        (recipe(grey=("c0",), grey_factor=0.5), False, False),
        (recipe(grey=("c0",), grey_factor=1.0), True, False),
    ],
)
def test_what_counts_as_uniform_and_what_reads_the_history(wanted: SelectionRecipe, uniform: bool, reads: bool) -> None:
    assert (wanted.uniform, wanted.reads_history) == (uniform, reads)
