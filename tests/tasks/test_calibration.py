import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from fedloom.tasks.calibration import brier_score, calibration_table, expected_calibration_error

Y = np.array([0, 1, 1, 0])
SCORES = np.array([0.05, 0.95, 0.55, 0.52])


def test_ece_worked_out_by_hand() -> None:
    # bins: [0, 0.1): gap 0.05 of 1 window; [0.5, 0.6): mean 0.535, rate 0.5, of 2; [0.9, 1]: gap 0.05 of 1
    assert expected_calibration_error(Y, SCORES) == pytest.approx((0.05 + 2 * 0.035 + 0.05) / 4)


def test_the_table_has_the_bins_that_have_windows() -> None:
    table = calibration_table(Y, SCORES)
    assert [(row["low"], row["high"], row["count"]) for row in table] == [(0.0, 0.1, 1), (0.5, 0.6, 2), (0.9, 1.0, 1)]
    assert table[1]["mean_score"] == pytest.approx(0.535)
    assert table[1]["rate"] == 0.5


def test_several_classes_count_what_the_likeliest_claims() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    y = np.array([0, 1])
    assert brier_score(y, scores) == pytest.approx((0.09 + 0.04 + 0.01 + 0.01 + 0.49 + 0.36) / 2)
    assert expected_calibration_error(y, scores) == pytest.approx((0.3 + 0.6) / 2)


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60))
def test_bounds_and_scikit_learn(rows: list[tuple[int, float]]) -> None:
    y, scores = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    assert brier_score(y, scores) == pytest.approx(brier_score_loss(y, scores))
    assert 0 <= expected_calibration_error(y, scores) <= 1
    table = calibration_table(y, scores)
    assert sum(row["count"] for row in table) == len(y)
    gaps = sum(row["count"] * abs(row["mean_score"] - row["rate"]) for row in table) / len(y)
    assert expected_calibration_error(y, scores) == pytest.approx(gaps)
    assert all(row["low"] <= row["mean_score"] <= row["high"] + 1e-12 for row in table)
