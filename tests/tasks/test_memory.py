"""Memory: what is free, what training takes, and who may train."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedloom.flows.compile import compile_plan
from fedloom.specs.bundle import load_job
from fedloom.specs.problems import SpecError
from fedloom.tasks import memory
from fedloom.tasks.memory import available_bytes, training_bytes
from fedloom.tasks.step import Run, run_step
from tests.conftest import write_job

MakeRun = Callable[..., Run]
V1 = "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"
V2 = "memory.max", "memory.current", "memory.stat"


def group(folder: Path, names: tuple[str, str, str], limit: str, use: str, stat: str = "") -> Path:
    for name, text in zip(names, (limit, use, stat), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("names", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize(
    ("limit", "use", "stat", "free"),
    [
        ("5000000\n", "2000000\n", "", 3_000_000),
        ("5000000\n", "4000000\n", "anon 100\ninactive_file 1500000\n", 2_500_000),
        ("5000000\n", "6000000\n", "", 0),
    ],
)
def test_a_control_group_limits_what_is_free(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, str, str],
    limit: str,
    use: str,
    stat: str,
    free: int,
) -> None:
    monkeypatch.setattr(memory, "CGROUP", group(tmp_path, names, limit, use, stat))
    assert available_bytes() == free


def test_without_a_limit_the_machine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CGROUP", group(tmp_path, V2, "max\n", "5\n"))
    assert 0 < available_bytes() <= psutil.virtual_memory().total


def lost(run: Run) -> list[str]:
    run_step(run, "initialise")
    for name in ("select", "distribute"):
        run_step(run, name, 1)
    return [dropout["reason"] for dropout in run_step(run, "train", 1, 0)["dropouts"]]


@pytest.mark.parametrize(
    "model",
    [
        {"model_hyperparameters": {"hidden_dims": [400]}},
        {
            "architecture": "Custom",
            "model_hyperparameters": {"width": 400},
            "model_config": {"custom_class": "tests.tasks.networks:Wide"},
        },
    ],
    ids=["MLP", "Custom"],
)
def test_a_client_without_the_memory_is_a_dropout_before_it_trains(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, Any]
) -> None:
    run = make_run(**model)
    monkeypatch.setattr(memory, "CGROUP", group(tmp_path / "group", V2, "150000", "50000"))
    reasons = lost(run)
    assert len(reasons) == 2
    assert all(reason.startswith("training needs 0.000") for reason in reasons)
    assert all(reason.endswith("GB of memory, 0.0001 GB are free") for reason in reasons)


def test_windows_that_do_not_fit_are_not_made(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    monkeypatch.setattr(memory, "CGROUP", group(tmp_path / "group", V2, "1000", "0"))
    assert lost(run) == ["40 windows: needs 2.56e-06 GB of memory, 1e-06 GB are free"] * 2


def test_training_takes_what_the_optimiser_and_the_batch_take(make_run: MakeRun) -> None:
    def need(**changes: Any) -> int:
        recipe = make_run(**changes).recipe
        return training_bytes(recipe.model, recipe.training) or 0

    def with_(optimizer: str, **kwargs: Any) -> int:
        return need(hyperparameters={"learning_rate": 0.1, "optimizer": optimizer, "optimizer_kwargs": kwargs})

    one = 145 * 4  # the parameters, in bytes
    assert with_("SGD", momentum=0.9) - with_("SGD") == one
    assert with_("Adam") - with_("SGD") == 2 * one
    assert with_("Adam", amsgrad=True) - with_("Adam") == one
    assert with_("RMSprop", momentum=0.5, centered=True) - with_("RMSprop") == 2 * one
    assert need(batch_size=32) > need(batch_size=16)


def test_a_limit_that_the_tensors_exceed_is_an_error_of_the_plan(tmp_path: Path) -> None:
    def orchestration(gigabytes: float) -> dict[str, Any]:
        return {"shard_size": 2, "aggregation": {"min_quorum": 2}, "resources": {"memory_gb": gigabytes}}

    settings = {"hidden_dims": [4000, 4000]}
    small = write_job(tmp_path / "a", model_hyperparameters=settings, orchestration_config=orchestration(0.5))
    with pytest.raises(SpecError) as caught:
        compile_plan(load_job(small))
    (problem,) = caught.value.problems
    assert problem.path == "orchestration_config.resources.memory_gb"
    assert "a training step takes 0.515 GB of tensors alone" in problem.message
    assert compile_plan(load_job(write_job(tmp_path / "b", orchestration_config=orchestration(0.5))))
