"""Too few clients: the run ends, the round is skipped, or it waits until clients may take part again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedloom.flows.inline import simulate
from fedloom.tasks.errors import RunError
from fedloom.tasks.rounds import read_rounds
from fedloom.tasks.selection.periods import next_period, period_of
from fedloom.tasks.selection.shortfall import new_period
from fedloom.tasks.selection.tally import empty_tally, rolled
from fedloom.tasks.step import Run, run_step
from tests.tasks.selection.recipes import selector_run

ONCE = {"enabled": True, "max_participation_per_period": 1, "period": "year"}


def how(policy: str, **changes: int) -> dict[str, object]:
    return {"algorithm": "random", "num_clients": 3, "on_shortfall": policy, **changes}


def lines(run: Run) -> list[dict[str, object]]:
    return read_rounds(run.store.read(run.key("round.jsonl")))


def test_a_skipped_round_leaves_the_model_and_does_not_end_the_run(tmp_path: Path) -> None:
    # Six clients that may take part once a year: two rounds of three, and then nobody is left.
    selector = {"selection_algorithm": how("skip_round"), "fairness_policy": ONCE}
    plan, run = selector_run(tmp_path / "job", tmp_path / "store", selector, num_rounds=4)
    simulate(plan, run)
    found = lines(run)
    assert [line["participants"] for line in found] == [3, 3, 0, 0]
    assert found[1]["model_digest"] == found[2]["model_digest"] == found[3]["model_digest"]
    skipped = "0 of 6 clients are eligible, 2 are needed (max_participation_per_period: 6)"
    assert [line["skipped"] for line in found] == [None, None, skipped, skipped]
    decision = run.store.read_json(run.key("round-00003", "decision.json"))
    assert (decision["skipped"], decision["shortfall"], decision["cohort"]) == (True, skipped, [])
    checks = {check["name"]: check for check in run_step(run, "gate", 4)["checks"]}
    assert checks["participation"]["outcome"] == "pass"
    assert checks["participation"]["reason"] == f"the round was skipped: {skipped}"


def test_skipped_rounds_do_not_count_for_early_stopping(tmp_path: Path) -> None:
    selector = {"selection_algorithm": how("skip_round"), "fairness_policy": ONCE}
    stopping = {"enabled": True, "metric": "auc", "patience": 2}
    changes = {"num_rounds": 5, "training_config": {"global_training": {"early_stopping": stopping}}}
    plan, run = selector_run(tmp_path / "job", tmp_path / "store", selector, **changes)
    simulate(plan, run)
    assert run_step(run, "gate", 5)["stop_reason"] == "the last round is done"


def test_a_run_of_skipped_rounds_alone_releases_nothing(tmp_path: Path) -> None:
    selector = {"selection_algorithm": how("skip_round"), "eligibility_criteria": {"min_data_samples": 320}}
    plan, run = selector_run(tmp_path / "job", tmp_path / "store", selector, num_rounds=2, metrics={"auc": 0.0})
    simulate(plan, run)
    gate = run_step(run, "gate", 2)
    assert (gate["decision"], gate["promoted"]) == ("fail", False)
    assert "no round has trained the model" in gate["checks"][1]["reason"]


@pytest.mark.parametrize("masks", [{"enabled": True, "dropout_tolerance": 0}])
def test_masks_bear_a_skipped_round(tmp_path: Path, masks: dict[str, object]) -> None:
    selector = {"selection_algorithm": how("skip_round", min_clients=3), "fairness_policy": ONCE}
    privacy = {"differential_privacy": {"enabled": False}, "secure_aggregation": masks}
    changes = {"differential_privacy": None, "secure_aggregation": None, "privacy_config": privacy}
    plan, run = selector_run(tmp_path / "job", tmp_path / "store", selector, num_rounds=3, min_clients=3, **changes)
    simulate(plan, run)
    assert [line["participants"] for line in lines(run)] == [3, 3, 0]
    assert "skipped" in run_step(run, "gate", 3)["checks"][1]["reason"]


def test_parity_that_cannot_be_met_is_a_shortfall(tmp_path: Path) -> None:
    parity = {"enabled": True, "dimensions": ["side"], "tolerance": 0.1}
    selector = {
        "fairness_policy": {"enabled": True, "group_parity": parity},
        "eligibility_criteria": {"min_data_samples": 1, "where": 'side == "left"'},
    }
    columns = {"side": ["left", "right"] * 3}
    _, run = selector_run(tmp_path / "job", tmp_path / "store", selector, columns)
    with pytest.raises(RunError, match=r"no cohort of 2 to 3 clients has group parity within 0.1 .*side right: 0"):
        run_step(run, "select", 1)


def test_a_run_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    selector = {"selection_algorithm": how("wait", max_wait=1), "fairness_policy": ONCE | {"period": "year"}}
    plan, run = selector_run(tmp_path / "job", tmp_path / "store", selector, num_rounds=3)
    begins = next_period(datetime.now(UTC), "year")
    if begins - datetime.now(UTC) < timedelta(minutes=5):
        pytest.skip("the year is about to end")
    with pytest.raises(RunError, match=r"0 of 6 clients are eligible.*no year begins within max_wait \(1 minutes\)"):
        simulate(plan, run)


def test_a_period_that_has_begun_since_lets_clients_take_part_again(tmp_path: Path) -> None:
    selector = {"selection_algorithm": how("wait", max_wait=1), "fairness_policy": ONCE}
    plan, run = selector_run(tmp_path / "job", tmp_path / "store", selector, num_rounds=3)
    run.store.write_json(run.key("started.json"), {"at": "2025-12-31T23:59:00+00:00"})
    simulate(plan, run)
    decision = run.store.read_json(run.key("round-00003", "decision.json"))
    assert decision["history"]["at"] == "2026-01-01T00:00:00+00:00"
    assert len(decision["cohort"]) == 3


MOMENT = datetime(2026, 11, 24, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "period", "name", "begins"),
    [
        (MOMENT, "week", "2026-W48", datetime(2026, 11, 30, tzinfo=UTC)),
        (MOMENT, "month", "2026-11", datetime(2026, 12, 1, tzinfo=UTC)),
        (MOMENT, "quarter", "2026-Q4", datetime(2027, 1, 1, tzinfo=UTC)),
        (MOMENT, "year", "2026", datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2026, 5, 31, tzinfo=UTC), "quarter", "2026-Q2", datetime(2026, 7, 1, tzinfo=UTC)),
        (datetime(2026, 12, 31, tzinfo=UTC), "month", "2026-12", datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2027, 1, 1, tzinfo=UTC), "week", "2026-W53", datetime(2027, 1, 4, tzinfo=UTC)),
    ],
)
def test_periods_are_those_of_the_calendar(moment: datetime, period: str, name: str, begins: datetime) -> None:
    assert period_of(moment, period) == name
    assert next_period(moment, period) == begins
    assert period_of(begins, period) != name


@pytest.mark.parametrize(
    ("now", "minutes", "waits"),
    [
        ("2026-11-30T23:00:00+00:00", 60, True),
        ("2026-11-30T22:59:00+00:00", 60, False),
        ("2026-12-05T00:00:00+00:00", 1, True),
    ],
)
def test_a_new_period_is_waited_for_when_it_comes_soon(now: str, minutes: int, waits: bool) -> None:
    tally = empty_tally(2, MOMENT.isoformat(), "month")
    tally.counts["in_period"][:] = 3
    begins = new_period(tally, datetime.fromisoformat(now), minutes)
    assert (begins is not None) == waits
    if begins is not None:
        later = rolled(tally, begins)
        assert later.at == "2026-12-01T00:00:00+00:00"
        assert later.counts["in_period"].tolist() == [0, 0]


def test_a_draw_below_the_quorum_by_bad_luck_skips_the_round(tmp_path: Path) -> None:
    how_poisson = {"algorithm": "poisson", "num_clients": 2, "on_shortfall": "skip_round"}
    selector = {"selection_algorithm": how_poisson}
    orchestration = {"shard_size": 2, "aggregation": {"min_quorum": 2}}
    changes = {"num_rounds": 8, "client_selection": "poisson", "orchestration_config": orchestration}
    plan, run = selector_run(tmp_path / "job", tmp_path / "store", selector, **changes)
    simulate(plan, run)
    found = lines(run)
    assert len(found) == 8
    few = [line for line in found if line["skipped"]]
    assert few  # one of eight draws of two on average, with this seed
    assert all(str(line["skipped"]).endswith("clients were drawn, the quorum is 2") for line in few)
    assert all(line["cohort"] == 0 for line in few)
    assert all(int(str(line["participants"])) >= 2 for line in found if not line["skipped"])
