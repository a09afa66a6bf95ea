from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.specs.criteria import Criterion
from fedloom.tasks.errors import RunError
from fedloom.tasks.select import split
from fedloom.tasks.selection.decide import decide
from fedloom.tasks.selection.draw import race
from fedloom.tasks.selection.eligibility import Mask, ineligibility
from fedloom.tasks.selection.evidence import rows
from fedloom.tasks.selection.scores import Weights
from fedloom.tasks.step import run_step
from tests.tasks.selection.recipes import fleet, recipe


@pytest.mark.parametrize(
    ("test", "value", "column", "reasons"),
    [
        ("at_least", 5, (5, 4.9, None), ["", "x 4.9 is below 5 (k)", "x is unknown (k)"]),
        ("at_most", 0, (0, 1, False), ["", "x 1 is above 0 (k)", ""]),
        ("at_least", 5, ("7", None), ["x 7 is below 5 (k)", "x is unknown (k)"]),
        ("equals", True, (True, False, 1), ["", "x False is not True (k)", "x 1 is not True (k)"]),
        ("one_of", ("EU", "US"), ("EU", "APAC", None), ["", "x APAC is none of ['EU', 'US'] (k)", "x is unknown (k)"]),
    ],
)
def test_every_client_that_fails_a_criterion_gets_the_reason(
    test: Any, value: Any, column: tuple[Any, ...], reasons: list[str]
) -> None:
    wanted = recipe(criteria=(Criterion("eligibility_criteria.k", "x", test, value),))
    assert ineligibility(fleet(x=column), wanted) == reasons


def test_all_reasons_are_given_and_the_blacklist_counts() -> None:
    wanted = recipe(
        criteria=(Criterion("eligibility_criteria.k", "x", "at_least", 5), Criterion("e.l", "y", "equals", "a")),
        blocked=(("c0", "sends noise"),),
    )
    assert ineligibility(fleet(x=(1,), y=("b",)), wanted) == [
        "x 1 is below 5 (k); y b is not a (e.l); blacklisted: sends noise"
    ]


def draw(weight: Weights, eligible: Mask, target: int, rng: np.random.Generator) -> Mask:
    """The first of the race, as a cohort gets them."""
    chosen: Mask = np.zeros(len(weight), dtype=bool)
    chosen[race(weight, rng.exponential(size=len(weight)), np.flatnonzero(eligible))[:target]] = True
    return chosen


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 10)), min_size=1, max_size=40),
    st.integers(1, 50),
    st.integers(0, 2**32),
)
def test_draw_takes_only_eligible_clients_and_as_many_as_there_are(
    clients: list[tuple[bool, float]], target: int, seed: int
) -> None:
    eligible = np.array([e for e, _ in clients])
    chosen = draw(np.array([w for _, w in clients]), eligible, target, np.random.default_rng(seed))
    assert chosen.sum() == min(target, eligible.sum())
    assert not (chosen & ~eligible).any()


def test_draw_follows_the_weights() -> None:
    weight, eligible = np.array([1.0, 2.0, 4.0, 0.0]), np.ones(4, dtype=bool)
    rng = np.random.default_rng(0)
    counts = sum(draw(weight, eligible, 1, rng).astype(int) for _ in range(20_000))
    assert counts / 20_000 == pytest.approx([1 / 7, 2 / 7, 4 / 7, 0], abs=0.015)


def test_a_clients_luck_does_not_depend_on_others_being_eligible() -> None:
    weight = np.ones(10)
    everyone = draw(weight, np.ones(10, dtype=bool), 5, np.random.default_rng(3))
    without = np.ones(10, dtype=bool)
    without[np.flatnonzero(~everyone)[0]] = False
    assert (draw(weight, without, 5, np.random.default_rng(3)) == everyone).all()


def test_grey_clients_are_drawn_with_a_lower_weight() -> None:
    wanted = recipe(grey=("c1",), grey_factor=0.25, score=(("quantity", 1.0),))
    decision = decide(fleet(data_samples=(4, 8, None)), wanted, None, np.random.default_rng(0))
    assert decision.weight.tolist() == [0.5, 0.25, 0.0]
    assert decision.reasons.text(2) == "data_samples is unknown (random)"


@given(st.lists(st.text("abc0", min_size=1, max_size=4), unique=True, max_size=30), st.integers(1, 7))
def test_split_keeps_every_client_once_in_sorted_order(cohort: list[str], size: int) -> None:
    shards = split(cohort, size)
    assert [client for shard in shards for client in shard] == sorted(cohort)
    assert all(0 < len(shard) <= size for shard in shards)


def test_the_decision_names_every_client_with_a_reason(make_run: Any) -> None:
    run = make_run(max_clients=3)
    outputs = run_step(run, "select", 1)
    decision = run.store.read_json(run.key("round-00001", "decision.json"))
    assert outputs["cohort"] == 3
    assert outputs["shards"] == [0, 1]
    clients = rows(decision["clients"])
    assert [row["client"] for row in clients] == list(run.fleet.clients)
    assert sorted(row["decision"] for row in clients) == ["not drawn"] * 3 + ["selected"] * 3
    assert all(row["reason"] for row in clients)
    assert decision["fleet"]["digest"] == run.fleet.digest


def test_too_few_eligible_clients_stop_the_run_and_leave_the_reasons(make_run: Any) -> None:
    job = {"algorithm": "random", "eligibility_criteria": {"min_data_samples": 319}}
    run = make_run(orchestration_config={"client_selection": job}, client_selection=None, min_clients=4)
    with pytest.raises(RunError, match=r"round 1 cannot start: 2 of 6 clients are eligible, 4 are needed"):
        run_step(run, "select", 1)
    decision = run.store.read_json(run.key("round-00001", "decision.json"))
    reasons = {row["client"]: row["reason"] for row in rows(decision["clients"]) if row["decision"] == "ineligible"}
    assert reasons["c5"] == "data_samples 315 is below 319 (min_data_samples)"
