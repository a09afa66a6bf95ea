"""How long a round waits, and for how many."""

from pathlib import Path
from typing import Any

import pytest

from fedloom.flows.compile import compile_plan
from fedloom.flows.show import notes
from fedloom.specs.bundle import load_job
from fedloom.specs.problems import SpecError
from tests.conftest import write_job

CASES: list[tuple[dict[str, Any], int, float | None]] = [
    ({"trigger": "after_client_updates"}, 2, None),
    ({"min_clients": 4}, 4, None),
    ({"min_clients": 1}, 2, None),
    ({"min_clients": 4, "wait_for_min_clients": False}, 2, None),
    ({"max_wait_time": 5}, 2, 300.0),
]


def job(folder: Path, timing: dict[str, Any], **changes: Any) -> Path:
    orchestration = {"shard_size": 2, "aggregation": {"min_quorum": 2, "timeout": 10}, "timing": timing}
    return write_job(folder, orchestration_config=orchestration, min_clients=5, **changes)


@pytest.mark.parametrize(("timing", "quorum", "seconds"), CASES)
def test_timing_bounds_the_quorum_from_below_and_a_shards_time_from_above(
    tmp_path: Path, timing: dict[str, Any], quorum: int, seconds: float | None
) -> None:
    recipe = compile_plan(load_job(job(tmp_path, timing))).recipe
    assert (recipe.aggregation.quorum, recipe.training.shard_deadline_s) == (quorum, seconds)
    assert recipe.training.client_timeout_s == 600.0


def test_a_wait_for_more_clients_than_a_round_may_have_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"6 is above min_clients \(5\): a round with 5 clients could never count"):
        load_job(job(tmp_path, {"min_clients": 6}))


def test_what_does_not_count_is_noted(tmp_path: Path) -> None:
    folder = job(tmp_path, {"min_clients": 4, "wait_for_min_clients": False})
    assert "timing.min_clients does not count, as wait_for_min_clients is false" in notes(load_job(folder))
