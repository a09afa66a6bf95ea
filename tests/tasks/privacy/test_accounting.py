"""Epsilon against published values, and what it must obey."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.privacy.accounting import (
    EVERYONE,
    Mechanism,
    Sampling,
    Skellam,
    calibrate,
    effective_noise,
    epsilon,
    epsilon_by_round,
    used_accountant,
)

DELTA = 1e-5


def poisson(rate: float) -> Sampling:
    return Sampling("poisson", rate)


@pytest.mark.parametrize(
    ("noise", "rate", "rounds", "rdp", "pld"),
    [
        (1.0, 1.0, 1, 4.7285, 4.3772),
        (1.0, 0.01, 1000, 2.1014, 1.8282),
        (4.0, 0.01, 10_000, 1.0355, 0.9470),
        (2.0, 0.1, 100, 2.5806, 2.3374),
        (1.1, 256 / 60_000, 14_062, 2.5966, 2.3817),
    ],
)
def test_reference_values(noise: float, rate: float, rounds: int, rdp: float, pld: float) -> None:
    mechanism = Mechanism(noise, poisson(rate))
    assert epsilon(mechanism, rounds, DELTA, "rdp") == pytest.approx(rdp, abs=5e-5)
    assert epsilon(mechanism, rounds, DELTA, "pld") == pytest.approx(pld, abs=5e-5)


def test_more_reference_values() -> None:
    assert epsilon(Mechanism(2.0, EVERYONE), 100, DELTA, "rdp") == pytest.approx(35.08, abs=5e-3)
    without = Mechanism(2.0, Sampling("without_replacement", population=500, drawn=50))
    assert epsilon(without, 100, DELTA) == pytest.approx(5.379, abs=5e-4)
    assert used_accountant(without, "pld") == "rdp"


def moments(noise: float, rate: float, order: int) -> float:
    """Rényi divergence of sampled Gaussian noise at a whole order, from the binomial sum of Mironov, Talwar, Zhang
    2019, "Rényi differential privacy of the sampled Gaussian mechanism"; written here apart from what is tested."""
    logs = [
        math.log(math.comb(order, k))
        + (order - k) * math.log1p(-rate)
        + k * math.log(rate)
        + k * (k - 1) / (2 * noise**2)
        for k in range(order + 1)
    ]
    return (max(logs) + math.log(sum(math.exp(each - max(logs)) for each in logs))) / (order - 1)


@pytest.mark.parametrize(
    ("noise", "rate", "rounds", "published"),
    [
        (4.0, 0.01, 10_000, "1.26"),  # Abadi et al. 2016, section 5: the moments accountant for q 0.01, sigma 4
        (1.12, 256 / 60_000, 60 * 60_000 // 256, "2.92"),  # TensorFlow Privacy's compute_dp_sgd_privacy, 60 epochs
    ],
)
def test_published_values(noise: float, rate: float, rounds: int, published: str) -> None:
    """With the conversion of their time the moments give what was published, with today's what is accounted here."""
    orders = range(2, 200)
    spent = {order: rounds * moments(noise, rate, order) for order in orders}
    then = min(cost - math.log(DELTA) / (order - 1) for order, cost in spent.items())
    assert f"{then:.2f}" == published
    now = min(c + math.log1p(-1 / a) - math.log(DELTA * a) / (a - 1) for a, c in spent.items())
    spent_rdp = epsilon(Mechanism(noise, poisson(rate)), rounds, DELTA, "rdp")
    assert now - 5e-3 < spent_rdp <= now + 1e-9  # it tries broken orders too
    assert epsilon(Mechanism(noise, poisson(rate)), rounds, DELTA, "pld") < now


@settings(max_examples=15)
@given(st.floats(0.5, 8), st.floats(0.001, 1), st.integers(1, 300))
def test_more_noise_costs_less_and_more_rounds_more(noise: float, rate: float, rounds: int) -> None:
    sampling = poisson(rate)
    spent = epsilon(Mechanism(noise, sampling), rounds, DELTA, "rdp")
    assert epsilon(Mechanism(noise * 1.5, sampling), rounds, DELTA, "rdp") <= spent
    assert epsilon(Mechanism(noise, sampling), rounds + 5, DELTA, "rdp") >= spent
    assert epsilon(Mechanism(noise, poisson(rate / 2)), rounds, DELTA, "rdp") <= spent + 1e-9
    assert epsilon(Mechanism(noise, sampling, 5), rounds, DELTA, "rdp") == pytest.approx(
        epsilon(Mechanism(noise, sampling), 5 * rounds, DELTA, "rdp")
    )


@settings(max_examples=8)
@given(st.floats(0.3, 10), st.floats(0.01, 1), st.integers(1, 100))
def test_the_calibrated_noise_keeps_the_target(target: float, rate: float, rounds: int) -> None:
    noise = calibrate(target, DELTA, rounds, poisson(rate), accountant="rdp")
    assert epsilon(Mechanism(noise, poisson(rate)), rounds, DELTA, "rdp") <= target
    assert epsilon(Mechanism(noise * 0.999, poisson(rate)), rounds, DELTA, "rdp") > target


def test_skellam_noise_approaches_gaussian_noise() -> None:
    gaussian = epsilon(Mechanism(1.0, EVERYONE), 5, DELTA, "rdp")
    costs = [epsilon(Skellam(variance=s**2, l2=s, l1=100 * s), 5, DELTA) for s in (200.0, 2e3, 2e5)]
    assert costs[0] > costs[1] > costs[2] > gaussian
    assert costs[2] == pytest.approx(gaussian, rel=0.01)


def test_epsilon_by_round_grows_and_ends_with_the_whole() -> None:
    mechanism = Mechanism(2.0, poisson(0.1))
    few = epsilon_by_round(mechanism, 20, DELTA, "rdp")
    assert [number for number, _ in few] == list(range(1, 21))
    assert [value for _, value in few] == sorted(value for _, value in few)
    many = epsilon_by_round(mechanism, 1000, DELTA, "rdp")
    assert len(many) == 51
    assert many[-1] == (1000, epsilon(mechanism, 1000, DELTA, "rdp"))


def test_the_count_of_clipped_clients_costs_noise() -> None:
    assert effective_noise(1.0, 10.0) == pytest.approx((1 - 1 / 400) ** -0.5)
    with pytest.raises(ConfigurationError, match="too little"):
        effective_noise(2.0, 0.9)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"noise": 0.0}, "noise multiplier must be positive"),
        ({"noise": math.nan}, "noise multiplier must be positive"),
        ({"noise": math.inf}, "noise multiplier must be positive"),
        ({"sampling": poisson(0.0)}, "sampling rate must be above 0"),
        ({"sampling": poisson(1.1)}, "sampling rate must be above 0"),
        ({"sampling": poisson(math.nan)}, "sampling rate must be above 0"),
        ({"sampling": Sampling("without_replacement", population=5, drawn=6)}, "6 of 5 cannot be drawn"),
        ({"delta": 0.0}, "delta must be between 0 and 1"),
        ({"delta": 1.0}, "delta must be between 0 and 1"),
        ({"delta": math.nan}, "delta must be between 0 and 1"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"steps": 0}, "at least 1 step"),
    ],
)
def test_arguments_that_make_no_sense(change: dict[str, Any], why: str) -> None:
    given_ = {"noise": 1.0, "sampling": EVERYONE, "delta": DELTA, "rounds": 1, "steps": 1, **change}
    with pytest.raises(ConfigurationError, match=why):
        epsilon(Mechanism(given_["noise"], given_["sampling"], given_["steps"]), given_["rounds"], given_["delta"])


def test_targets_that_cannot_be_kept() -> None:
    for target in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigurationError, match="epsilon must be positive"):
            calibrate(target, DELTA, 1)
    with pytest.raises(ConfigurationError, match="no noise multiplier"):
        calibrate(1e-9, DELTA, 10**6, accountant="rdp")


def test_accounting_leaves_the_logging_of_the_process_alone() -> None:
    # In a process of its own: pytest has handlers on the root logger.
    code = (
        "import logging; from fedloom.tasks.privacy.accounting import Mechanism, Sampling, epsilon;"
        "epsilon(Mechanism(0.5, Sampling('poisson', 0.5), 2), 1, 1e-5, 'rdp'); print(logging.getLogger().handlers)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
