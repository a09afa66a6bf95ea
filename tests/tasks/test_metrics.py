import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from fedloom.tasks.metrics import BESIDE, HIGHER_IS_BETTER, OF_OUTPUT, canonical_metric, compute

Y = np.array([0, 0, 1, 1, 1])
SCORES = np.array([0.1, 0.7, 0.4, 0.8, 0.9])


def value(name: str, output: str = "binary_classification", y: object = Y, scores: object = SCORES) -> float | None:
    return compute((name,), output, y, scores, 0.5, 0.25).values.get(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auc", 5 / 6), ("accuracy", 3 / 5), ("error_rate", 2 / 5), ("precision", 2 / 3), ("recall", 2 / 3),
        ("false_negative_rate", 1 / 3), ("false_positive_rate", 1 / 2), ("f1_score", 2 / 3), ("loss", 0.25),
    ],
)  # fmt: skip
def test_values_worked_out_by_hand(name: str, expected: float) -> None:
    assert value(name) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=2, max_size=50))
def test_rates_agree_with_scikit_learn_wherever_they_are_defined(rows: list[tuple[int, float]]) -> None:
    y, scores = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    got = compute(tuple(sorted(OF_OUTPUT["binary_classification"])), "binary_classification", y, scores, 0.5, 0.0)
    predicted = scores >= 0.5
    for name in ("precision", "recall", "f1_score"):
        if name in got.values:
            function = getattr(reference, name.removesuffix("_score") + "_score")
            assert got.values[name] == pytest.approx(function(y, predicted))
    assert got.values["accuracy"] == pytest.approx(reference.accuracy_score(y, predicted))
    assert set(got.values) | set(got.undefined) == OF_OUTPUT["binary_classification"]
    assert all(np.isfinite(v) for v in got.values.values())


@pytest.mark.parametrize(
    ("name", "y", "scores", "reason"),
    [
        ("auc", [1, 1], [0.2, 0.9], "one class only"),
        ("precision", [0, 1], [0.1, 0.2], "no window was predicted positive"),
        ("recall", [0, 0], [0.1, 0.9], "no window is positive"),
        ("false_positive_rate", [1, 1], [0.1, 0.9], "no window is negative"),
    ],
)
def test_a_metric_without_a_value_gives_the_reason(name: str, y: list[int], scores: list[float], reason: str) -> None:
    got = compute((name,), "binary_classification", np.array(y), np.array(scores), 0.5, 0.0)
    assert name not in got.values
    assert reason in got.undefined[name]


def test_holdout_without_labels_leaves_only_what_needs_none() -> None:
    got = compute(("reconstruction_error", "auc"), "reconstruction_error", None, np.array([1.0, 3.0]), 0.5, 2.0)
    assert got.values == {"loss": 2.0, "reconstruction_error": 2.0}
    assert got.undefined == {"auc": "the held-out data has no labels"}


def test_multi_class() -> None:
    scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3]])
    got = compute(("accuracy", "f1_score", "auc"), "multi_class", np.array([0, 1, 2]), scores, 0.5, 0.0)
    assert got.values["accuracy"] == pytest.approx(2 / 3)
    assert got.values["f1_score"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_two_classes_may_be_a_multi_class_problem() -> None:
    scores = np.stack([1 - SCORES, SCORES], axis=1)
    got = compute(("auc", "accuracy"), "multi_class", Y, scores, 0.5, 0.0)
    assert got.values["auc"] == pytest.approx(5 / 6)
    assert got.values["accuracy"] == pytest.approx(3 / 5)


def test_regression_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y, predicted = rng.normal(size=50).astype(np.float32), rng.normal(size=50)
    got = compute(("rmse", "mae", "r2", "loss"), "regression", y, predicted, 0.5, 0.25)
    assert got.values == pytest.approx(
        {
            "rmse": reference.root_mean_squared_error(y, predicted),
            "mae": reference.mean_absolute_error(y, predicted),
            "r2": reference.r2_score(y, predicted),
            "loss": 0.25,
        }
    )
    flat = compute(("mae", "r2"), "regression", np.ones(3, dtype=np.float32), np.zeros(3), 0.5, 1.0)
    assert dict(flat.values) == {"loss": 1.0, "mae": 1.0}
    assert flat.undefined == {"r2": "all true values are equal"}


def test_every_metric_of_every_output_has_a_direction() -> None:
    assert BESIDE.union(*OF_OUTPUT.values()) == set(HIGHER_IS_BETTER)
    assert canonical_metric("val_auc") == "auc"
