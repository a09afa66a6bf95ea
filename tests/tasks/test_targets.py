"""What a window is to be predicted as: classes named in the job, and numbers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.result import read_result
from fedloom.specs.bundle import load_job
from fedloom.specs.problems import SpecError
from fedloom.tasks.client_data import ClientDataError, read_windows
from fedloom.tasks.errors import RunError
from fedloom.tasks.model_store import read_model
from fedloom.tasks.step import Run, run_step
from fedloom.tasks.window_spec import WindowSpec
from tests.conftest import write_job

MakeRun = Callable[..., Run]
SPEC = WindowSpec(("a",), window_size=2, stride=2, label_column="label")
VALUES: list[tuple[tuple[int | str, ...], Any, list[int]]] = [
    ((1, 0), [1, 1, 0, 0], [0, 1]),
    ((10, 20, 5), [5, 5, 10, 10], [2, 0]),
    (("ok", "drift"), ["drift", "drift", "ok", "ok"], [1, 0]),
    (("ok", "drift"), pa.array(["drift", "drift", "ok", "ok"]).dictionary_encode(), [1, 0]),
    (("ok", "drift"), pa.array(["drift", "drift", "ok", "ok"], pa.large_string()), [1, 0]),
    (("1", "0"), [1, 1, 0, 0], [0, 1]),
    ((1, 0), ["1", "1", "0", "0"], [0, 1]),
    ((1, 0), [True, True, False, False], [0, 1]),
    (("a", "b", "c"), ["a", "c", "c", "b"], [2, 2]),  # on a tie the class with the larger number
]


def table(folder: Path, values: Any) -> str:
    pq.write_table(pa.table({"a": [0.0, 1.0, 2.0, 3.0], "label": values}), folder / "c.parquet")
    return "c.parquet"


@pytest.mark.parametrize(("labels", "values", "expected"), VALUES)
def test_labels_are_numbered_in_the_order_of_the_job(
    tmp_path: Path, labels: tuple[int | str, ...], values: Any, expected: list[int]
) -> None:
    windows = read_windows(table(tmp_path, values), tmp_path, replace(SPEC, labels=labels))
    assert windows.y is not None
    assert windows.y.tolist() == expected
    assert windows.y.dtype == np.int64


UNKNOWN: list[tuple[Any, str]] = [
    (["ok", "ok", "secret", "secret"], "label column 'label' is none of ok, drift in row 2 (2 such rows)"),
    (["ok", None, "ok", "ok"], "label column 'label' has 1 missing values"),
    ([0.5, 1.0, 2.0, 3.0], "label column 'label' has type double, expected text or whole numbers"),
    ([1, 1, 1, 1], "label column 'label' is none of ok, drift in row 0 (4 such rows)"),
]


@pytest.mark.parametrize(("values", "message"), UNKNOWN)
def test_a_label_that_the_job_does_not_know_is_named_by_its_row_alone(
    tmp_path: Path, values: Any, message: str
) -> None:
    with pytest.raises(ClientDataError) as caught:
        read_windows(table(tmp_path, values), tmp_path, replace(SPEC, labels=("ok", "drift")))
    assert str(caught.value) == message


def test_a_window_of_numbers_has_their_mean(tmp_path: Path) -> None:
    spec = replace(SPEC, numeric=True)
    windows = read_windows(table(tmp_path, [1, 2, 30, 50]), tmp_path, spec)
    assert windows.y is not None
    assert (windows.y.tolist(), windows.y.dtype) == ([1.5, 40.0], np.float32)
    with pytest.raises(ClientDataError, match="label column 'label' is missing or NaN in row 1"):
        read_windows(table(tmp_path, [1.0, float("nan"), 1.0, 1.0]), tmp_path, spec)
    with pytest.raises(ClientDataError, match="label column 'label' has type string"):
        read_windows(table(tmp_path, ["a", "b", "c", "d"]), tmp_path, spec)


def relabel(folder: Path, zero: str, one: str) -> None:
    for path in [*(folder / "data").iterdir(), folder / "holdout.csv"]:
        rows = [line.rpartition(",") for line in path.read_text().splitlines()]
        path.write_text("\n".join(f"{a},{ {'0': zero, '1': one}.get(label, label) }" for a, _, label in rows) + "\n")


def outcome(run: Run, labels: list[int | str], zero: str, one: str) -> Any:
    relabel(run.folder, zero, one)
    simulate(compile_plan(load_job(run.folder)), run)
    return read_result(run)


def test_words_for_classes_give_the_model_that_numbers_give(make_run: MakeRun) -> None:
    numbers = outcome(make_run(), [0, 1], "0", "1")
    labels = {"type": "binary_classification", "labels": ["ok", "drift"]}
    words = outcome(make_run(output_schema=labels), ["ok", "drift"], "ok", "drift")
    assert (words.model_digest, words.metrics) == (numbers.model_digest, numbers.metrics)
    assert words.plan_digest != numbers.plan_digest


def test_an_unknown_label_makes_a_dropout_and_in_the_holdout_ends_the_run(make_run: MakeRun) -> None:
    run = make_run(output_schema={"type": "binary_classification", "labels": ["ok", "drift"]})
    relabel(run.folder, "ok", "drift")
    path = run.folder / "data" / "c0.csv"
    path.write_text(path.read_text().replace("drift", "odd", 1))
    run_step(run, "initialise")
    for name in ("select", "distribute"):
        run_step(run, name, 1)
    lost = run_step(run, "train", 1, 0)["dropouts"]
    assert [(d["client"], "is none of ok, drift" in d["reason"]) for d in lost] == [("c0", True)]
    (run.folder / "holdout.csv").write_text(path.read_text())
    with pytest.raises(RunError, match=r"holdout\.csv cannot be read: label column 'label' is none of ok, drift"):
        run_step(run, "validate")


REGRESSION: dict[str, Any] = {
    "output_schema": {"type": "regression", "label_column": "b"},
    "input_schema": {"reference": "contract.yaml", "signals": ["a"]},
    "metrics": ["rmse", "mae", "r2"],
}


def numbers(folder: Path) -> None:
    """Column b becomes a number that follows from a."""
    for path in [*(folder / "data").iterdir(), folder / "holdout.csv"]:
        rows = [line.split(",") for line in path.read_text().splitlines()]
        lines = [f"{a},{3 * float(a) - 1:.5f},{label}" for a, _, label in rows[1:]]
        path.write_text("a,b,label\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize("loss", ["MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"])
def test_regression_learns_and_is_measured(make_run: MakeRun, loss: str) -> None:
    settings = {"learning_rate": 0.05, "optimizer": "Adam", "loss_function": loss}
    run = make_run(**REGRESSION, hyperparameters=settings, num_rounds=4)
    numbers(run.folder)
    simulate(compile_plan(load_job(run.folder)), run)
    result = read_result(run)
    assert result.metrics["r2"] > 0.8
    assert result.metrics["mae"] <= result.metrics["rmse"]
    assert read_model(run.store, result.model_digest)["layers.2.weight"].shape == (1, 8)


def test_regression_has_no_classes(tmp_path: Path) -> None:
    labels = {**REGRESSION, "output_schema": {"type": "regression", "label_column": "b", "labels": [0, 1]}}
    with pytest.raises(SpecError, match="regression has no classes"):
        load_job(write_job(tmp_path / "a", **labels))
    stratified = {"holdout_dataset": {"source": "holdout.csv", "size": 5, "stratified": True}}
    folder = write_job(tmp_path / "b", **REGRESSION, holdout=None, validation_config=stratified)
    with pytest.raises(SpecError, match="no classes whose shares"):
        compile_plan(load_job(folder))
