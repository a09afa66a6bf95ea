"""Intervals: the resampled metrics are the metrics, and the intervals cover what they should."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.tasks.bootstrap import RESAMPLES, Interval, clusters_of, difference, intervals, resamples
from fedloom.tasks.client_data import Windows
from fedloom.tasks.metrics import OF_OUTPUT, compute
from fedloom.tasks.resampled import Sample, statistic


def ones(sample: Sample) -> Any:
    return np.ones((1, sample.count), np.float32)


def binary(y: Any, scores: Any, clusters: Any = None) -> Sample:
    return Sample(
        "binary_classification", np.asarray(y), np.asarray(scores, dtype=np.float64), 0.5,
        np.arange(len(y)) if clusters is None else np.asarray(clusters),
    )  # fmt: skip


def normal_scores(rng: np.random.Generator, count: int) -> tuple[Any, Any]:
    y = (np.arange(count) % 2).astype(np.int64)
    return y, 1 / (1 + np.exp(-(rng.normal(size=count) + y - 0.5)))


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.2, 0.5, 0.51, 0.9, 1.0])), min_size=2, max_size=40)
)
def test_with_equal_weights_the_values_are_those_of_the_metrics(rows: list[tuple[int, float]]) -> None:
    y, scores = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    names = tuple(sorted(OF_OUTPUT["binary_classification"] - {"loss"}))
    sample = binary(y, scores, np.arange(len(y)) // 2)
    expected = compute(names, "binary_classification", y, scores, 0.5, 0.0)
    for name in names:
        one = statistic(name, sample)
        assert one is not None
        value = one.values(ones(sample))[0]
        if name in expected.values:
            assert value == pytest.approx(expected.values[name], abs=1e-6)
        else:
            assert np.isnan(value)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.tuples(*[st.integers(1, 5)] * 3)), min_size=2, max_size=40))
def test_the_same_for_several_classes(rows: list[tuple[int, tuple[int, int, int]]]) -> None:
    y, raw = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], dtype=np.float64)
    scores = raw / raw.sum(axis=1, keepdims=True)
    names = tuple(sorted(OF_OUTPUT["multi_class"] - {"loss"}))
    sample = Sample("multi_class", y, scores, 0.5, np.arange(len(y)))
    expected = compute(names, "multi_class", y, scores, 0.5, 0.0)
    for name in names:
        one = statistic(name, sample)
        assert one is not None
        value = one.values(ones(sample))[0]
        if name in expected.values:
            assert value == pytest.approx(expected.values[name], abs=1e-6)
        else:
            assert np.isnan(value)


def test_a_resample_is_the_metric_of_the_windows_that_were_drawn() -> None:
    rng = np.random.default_rng(3)
    y, scores = normal_scores(rng, 60)
    clusters = np.arange(60) // 4
    sample = binary(y, scores.round(1), clusters)
    weights = next(resamples(sample, rng))[:5]
    for name in ("auc", "average_precision", "precision", "f1_score", "ece", "brier_score"):
        one = statistic(name, sample)
        assert one is not None
        got = one.values(weights)
        for drawn, value in zip(weights, got, strict=True):
            rows = np.repeat(np.arange(60), drawn[clusters].astype(int))
            wanted = compute((name,), sample.output, y[rows], sample.scores[rows], 0.5, 0.0)
            assert value == pytest.approx(wanted.values[name], abs=1e-6)


def test_draws_are_with_replacement_and_as_many_as_there_are_clusters() -> None:
    sample = binary([0, 1] * 10, [0.5] * 20, np.arange(20) // 2)
    drawn = np.concatenate(list(resamples(sample, np.random.default_rng(0))))
    assert drawn.shape == (RESAMPLES, 10)
    assert set(drawn.sum(axis=1)) == {10.0}
    assert drawn.mean(axis=0) == pytest.approx(np.ones(10), abs=0.15)


def test_intervals_of_a_rate_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(100):
        right = rng.random(80) < 0.8
        found = intervals(("accuracy",), binary(np.ones(80, int), np.where(right, 0.9, 0.1)), 0.9, rng)
        hits += found.found["accuracy"].low <= 0.8 <= found.found["accuracy"].high
    assert 78 <= hits <= 99


def test_an_interval_of_auc_is_as_wide_as_its_known_standard_error_says() -> None:
    y, scores = normal_scores(np.random.default_rng(4), 400)
    above = (scores[y == 1][:, None] > scores[y == 0]).astype(float)
    # DeLong, DeLong and Clarke-Pearson 1988: the variance of AUC from the placements of each window.
    error = np.sqrt(above.mean(axis=1).var(ddof=1) / 200 + above.mean(axis=0).var(ddof=1) / 200)
    found = intervals(("auc",), binary(y, scores), 0.95, np.random.default_rng(0)).found["auc"]
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.12)
    assert (found.high + found.low) / 2 == pytest.approx(above.mean(), abs=0.01)


def test_windows_of_one_recording_that_are_alike_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    y = np.tile([0, 1], 200)
    right = np.repeat(rng.random(40) < 0.8, 10)  # a whole recording is right or wrong
    scores = np.where(right, y, 1 - y).astype(np.float64)
    alone = intervals(("accuracy",), binary(y, scores), 0.95, rng).found["accuracy"]
    together = intervals(("accuracy",), binary(y, scores, np.arange(400) // 10), 0.95, rng).found["accuracy"]
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_a_perfect_score_is_no_certainty() -> None:
    sample = binary([1] * 20 + [0] * 5, [0.9] * 20 + [0.1] * 5)
    found = intervals(("recall", "false_positive_rate", "auc"), sample, 0.95, np.random.default_rng(0)).found
    assert found["recall"].high == 1.0
    assert found["recall"].low == pytest.approx(20 / (20 + 1.959964**2))  # Wilson, 20 of 20
    assert found["false_positive_rate"].low == 0.0
    assert found["false_positive_rate"].high == pytest.approx(1.959964**2 / (5 + 1.959964**2))
    assert found["auc"].low == pytest.approx(5 / (5 + 1.959964**2))


def test_an_error_of_zero_has_no_interval_of_a_share() -> None:
    y = np.arange(20, dtype=np.float32)
    sample = Sample("regression", y, y.astype(np.float64), 0.5, np.arange(20))
    found = intervals(("mae", "rmse", "r2"), sample, 0.95, np.random.default_rng(0)).found
    ends = {name: (one.low, one.high) for name, one in found.items()}
    assert ends == {"mae": (0.0, 0.0), "rmse": (0.0, 0.0), "r2": (1.0, 1.0)}


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (binary([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.2], [0, 0, 0, 0]), "all windows belong together"),
        (binary([0] * 9 + [1], np.arange(10) / 10), "too few windows of a class"),
    ],
)
def test_what_has_no_interval_says_why(sample: Sample, reason: str) -> None:
    found = intervals(("auc",), sample, 0.95, np.random.default_rng(0))
    assert found.found == {}
    assert reason in found.missing["auc"]


def test_a_model_compared_with_itself_differs_by_nothing() -> None:
    y, scores = normal_scores(np.random.default_rng(0), 50)
    assert difference("auc", binary(y, scores), binary(y, scores), True, 0.95, 1) == Interval(0.0, 0.0, 0.95)


def test_a_pair_shows_a_small_difference_that_two_samples_do_not() -> None:
    rng = np.random.default_rng(2)
    y, scores = normal_scores(rng, 400)
    worse = np.clip(scores + rng.normal(size=400) * 0.15, 0, 1)
    paired = difference("auc", binary(y, scores), binary(y, worse), True, 0.95, 1)
    apart = difference("auc", binary(y, scores), binary(y, worse), False, 0.95, 1)
    assert isinstance(paired, Interval)
    assert isinstance(apart, Interval)
    assert 0 < paired.low < paired.high
    assert apart.high - apart.low > 1.5 * (paired.high - paired.low)


def test_a_difference_is_positive_when_a_smaller_value_is_better() -> None:
    y = np.tile([0, 1], 50)
    good, bad = np.where(y == 1, 0.8, 0.2), np.full(100, 0.5)
    found = difference("brier_score", binary(y, good), binary(y, bad), True, 0.95, 1)
    assert isinstance(found, Interval)
    assert found.low == pytest.approx(0.25 - 0.04)


def windows(starts: list[int], recordings: list[int]) -> Windows:
    x = np.zeros((len(starts), 4, 1), np.float32)
    return Windows(x, None, np.array(starts), np.array(recordings))


@pytest.mark.parametrize(
    ("held_out", "stride", "codes", "unit"),
    [
        (windows([0, 4, 8], [0, 0, 0]), 4, [0, 1, 2], "window"),
        (windows([0, 2, 4, 6, 8], [0] * 5), 2, [0, 0, 1, 1, 2], "block of overlapping windows"),
        (windows([0, 2, 10, 12], [0, 0, 1, 1]), 2, [0, 0, 1, 2], "block of overlapping windows"),
        (windows(list(range(0, 80, 4)), [i // 2 for i in range(20)]), 4, [i // 2 for i in range(20)], "recording"),
    ],
)
def test_what_is_drawn_together(held_out: Windows, stride: int, codes: list[int], unit: str) -> None:
    found, shared = clusters_of(held_out, 4, stride)
    assert found.tolist() == codes
    assert shared == unit


@pytest.mark.parametrize("name", ["mae", "rmse", "r2"])
def test_regression_metrics_of_one_resample_are_those_of_the_data(name: str) -> None:
    rng = np.random.default_rng(5)
    y = (1e4 + rng.normal(size=60)).astype(np.float32)  # far from zero: squares must not drown the spread
    sample = Sample("regression", y, y + rng.normal(scale=0.3, size=60), 0.5, np.arange(60) // 3)
    known = statistic(name, sample)
    assert known is not None
    drawn = rng.integers(0, 3, size=20)
    rows = np.repeat(np.arange(60), drawn[sample.clusters])
    expected = compute((name,), "regression", y[rows], sample.scores[rows], 0.5, 0.0).values[name]
    assert known.values(drawn[None].astype(np.float32))[0] == pytest.approx(expected, rel=1e-6)
