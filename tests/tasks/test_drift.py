"""Drift: PSI and KS against hand and scipy, and baseline files that cannot be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from fedloom.tasks.client_data import Windows
from fedloom.tasks.drift import (
    Baseline,
    Reference,
    baseline_file,
    ks,
    measure_drift,
    psi,
    read_baseline,
    reference,
    samples_of,
)
from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.window_spec import WindowSpec

SPEC = WindowSpec(("a", "b"), 4, 2, mean=(10.0, 0.0), std=(2.0, 1.0))


def held_out(count: int = 200, shift: float = 0.0, seed: int = 0) -> Windows:
    x = np.random.default_rng(seed).normal(size=(count, 4, 2)).astype(np.float32)
    x[:, :, 0] += shift
    return Windows(x, None)


def test_psi_worked_out_by_hand() -> None:
    then = Reference((0.0,), (0.5, 0.5), tuple(np.linspace(-1, 1, 10)))
    now = np.array([-1.0, 1.0, 1.0, 1.0])
    assert psi(then, now) == pytest.approx((0.25 - 0.5) * np.log(0.5) + (0.75 - 0.5) * np.log(1.5))


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.floats(-3, 3), st.floats(0.2, 5))
def test_ks_is_that_of_scipy_on_the_whole_reference(seed: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    before, now = rng.normal(size=1500).round(1), (rng.normal(size=700) * scale + shift).round(1)
    assert ks(reference(before), now) == pytest.approx(ks_2samp(before, now).statistic, abs=0.5 / 200 + 1e-9)


@given(st.integers(0, 2**32))
def test_psi_of_the_same_data_is_nothing_and_otherwise_above(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = rng.normal(size=2000)
    assert psi(reference(before), before) == pytest.approx(0, abs=1e-9)
    assert 0 < psi(reference(before), rng.normal(size=2000)) < 0.05
    assert psi(reference(before), before + 1) > 0.5


def test_a_signal_that_stands_still_has_a_bin_of_its_own() -> None:
    still = np.concatenate([np.zeros(800), np.random.default_rng(0).normal(size=200)])
    assert psi(reference(still), still + 1e-7) == pytest.approx(0, abs=1e-9)
    assert psi(reference(np.full(100, 3.0)), np.full(50, 3.1)) > 1
    assert psi(reference(np.full(100, 3.0)), np.full(50, 2.9)) > 1


def test_samples_count_once_and_in_the_datas_own_units() -> None:
    windows = held_out(3)
    samples = samples_of(windows, SPEC)
    assert samples["a"] == pytest.approx((windows.x[:, :2, 0] * 2.0 + 10.0).ravel(), rel=1e-6)
    assert len(samples["b"]) == 6


def test_a_file_gives_back_what_was_measured(tmp_path: Path) -> None:
    (tmp_path / "baseline.json").write_bytes(baseline_file([held_out()], SPEC, ["old.csv"]))
    baseline = read_baseline("baseline.json", tmp_path)
    unmoved = measure_drift(baseline, held_out(), SPEC)
    assert all(one["psi"] < 1e-9 and one["ks"] <= 0.5 / 200 + 1e-9 for one in unmoved.values())
    moved = measure_drift(baseline, held_out(seed=1, shift=1.0), SPEC)
    assert moved["a"]["psi"] > 0.5
    assert moved["a"]["ks"] > 0.3
    assert moved["b"]["psi"] < 0.2


def test_drift_does_not_hang_on_the_nominal_values_of_the_contract() -> None:
    data = json.loads(baseline_file([held_out()], SPEC, ["old.csv"]))
    signals = {name: Reference(**{k: tuple(v) for k, v in one.items()}) for name, one in data["signals"].items()}
    raw = held_out().x * np.array([2.0, 1.0], np.float32) + np.array([10.0, 0.0], np.float32)
    plain = WindowSpec(("a", "b"), 4, 2)
    found = measure_drift(Baseline(signals, ""), Windows(raw, None), plain)
    assert all(one["psi"] < 1e-3 for one in found.values())


def test_a_sensor_at_rest_is_at_rest_under_other_nominal_values() -> None:
    rng = np.random.default_rng(0)
    raw = np.where(rng.random((300, 4, 1)) < 0.8, 0.0, rng.normal(size=(300, 4, 1)))

    def standardised(mean: float, std: float) -> tuple[Windows, WindowSpec]:
        return Windows(((raw - mean) / std).astype(np.float32), None), WindowSpec(
            ("a",), 4, 4, mean=(mean,), std=(std,)
        )

    then, now = standardised(0.1, 0.7), standardised(0.37, 1.3)
    data = json.loads(baseline_file([then[0]], then[1], ["old.csv"]))["signals"]["a"]
    baseline = Baseline({"a": Reference(**{key: tuple(value) for key, value in data.items()})}, "")
    found = measure_drift(baseline, *now)["a"]
    assert found["psi"] < 1e-3
    assert found["ks"] < 0.01


def broken(**changes: Any) -> bytes:
    good: dict[str, Any] = {"edges": [0.0], "shares": [0.5, 0.5], "quantiles": list(range(10))}
    return json.dumps({"format": "fedloom-baseline-1", "signals": {"a": {**good, **changes}}}).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "cannot be used"),
        (b"\xff\xfe", "cannot be used"),
        (b"[]", "has not the format"),
        (b'{"format": "fedloom-baseline-1"}', "has no signals"),
        (broken(edges=[1.0, 0.0], shares=[0.5, 0.25, 0.25]), "ascending edges"),
        (broken(shares=[0.5, 0.6]), "sum to 1"),
        (broken(shares=[1.5, -0.5]), "sum to 1"),
        (broken(quantiles=[3.0] * 3), "at least 10 ascending quantiles"),
        (broken(edges=["x"]), "needs lists of numbers"),
        (broken(edges=[float("nan")]), "no finite numbers"),
        (broken(edges=3), "no finite numbers"),
        (broken(shares=None), "no finite numbers"),
    ],
)
def test_a_damaged_baseline_is_named(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "b.json").write_bytes(data)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        read_baseline("b.json", tmp_path)
    assert "b.json" in str(caught.value)


@pytest.mark.parametrize("place", ["none.json", "../b.json", "/etc/passwd", "file:///etc/passwd"])
def test_a_baseline_that_is_not_there_or_elsewhere_is_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigurationError, match="baseline distribution"):
        read_baseline(place, tmp_path)


def test_a_baseline_of_other_signals_is_named() -> None:
    with pytest.raises(ConfigurationError, match="has no signal 'b'; it has a, c"):
        measure_drift(Baseline(dict.fromkeys("ac", reference(np.arange(20.0))), ""), held_out(), SPEC)
