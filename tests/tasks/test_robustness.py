import numpy as np
import pytest

from fedloom.tasks.robustness import FAULTS, faulty
from fedloom.tasks.window_spec import WindowSpec

SPEC = WindowSpec(("a", "b", "c"), 5, 5, mean=(1.0, 0.0, 4.0), std=(2.0, 1.0, 2.0))
X = np.random.default_rng(0).normal(size=(400, 5, 3)).astype(np.float32) * np.array([1, 2, 3], np.float32)


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_is_the_same_each_time_and_leaves_the_windows_alone(fault: str) -> None:
    before = X.copy()
    one, two = faulty(X, fault, 0.5, SPEC, 7), faulty(X, fault, 0.5, SPEC, 7)
    assert np.array_equal(one, two)
    assert np.array_equal(X, before)
    assert one.shape == X.shape
    assert one.dtype == np.float32
    assert not np.array_equal(one, faulty(X, fault, 0.5, SPEC, 8))


def test_noise_is_as_large_as_was_asked_for() -> None:
    added = faulty(X, "noise", 0.5, SPEC, 1) - X
    assert added.std(axis=(0, 1)) == pytest.approx([0.5, 1.0, 1.5], rel=0.1)
    assert added.mean(axis=(0, 1)) == pytest.approx([0, 0, 0], abs=0.1)


def test_a_bias_is_one_offset_a_window_and_axis() -> None:
    added = faulty(X, "bias", 2.0, SPEC, 1) - X
    assert np.ptp(added, axis=1).max() < 1e-5
    assert np.abs(added[:, 0]).mean(axis=0) == pytest.approx([2, 4, 6], rel=0.05)
    assert 0.4 < (added[:, 0] > 0).mean() < 0.6


def test_one_axis_drops_to_zero_in_the_datas_own_units() -> None:
    out = faulty(X, "dropped_axis", 0.5, SPEC, 1)
    changed = (out != X).all(axis=1)
    assert (changed.sum(axis=1) == 1).all()
    raw = out * np.array(SPEC.std) + np.array(SPEC.mean)
    assert np.abs(raw[np.broadcast_to(changed[:, None], out.shape)]).max() < 1e-6


def test_one_axis_keeps_its_first_value() -> None:
    out = faulty(X, "stuck_axis", 0.5, SPEC, 1)
    stuck = np.ptp(out, axis=1) == 0
    assert (stuck.sum(axis=1) == 1).all()
    assert np.array_equal(out[:, 0], X[:, 0])
