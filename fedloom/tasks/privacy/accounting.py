"""What noise costs: epsilon of a job's rounds, by Google's dp-accounting.

Gaussian noise is accounted with the sampling that really takes place: Poisson sampling, a cohort of fixed size drawn
without replacement, or everyone every time. Whatever draws clients in another way (by importance, by learning
history) is everyone every time: amplification by sampling would not hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from fedloom.tasks.errors import ConfigurationError

Accountant = Literal["rdp", "pld"]
Kind = Literal["poisson", "without_replacement", "all"]
_MANY_ROUNDS = 50


@dataclass(frozen=True)
class Sampling:
    """How the units (records or clients) of one noisy sum are drawn.

    Attributes:
        kind: By Poisson sampling, in a fixed number without replacement, or all of them.
        rate: Probability of a unit, above 0 to 1 (poisson).
        population: Units to draw from (without_replacement).
        drawn: Units drawn (without_replacement).
    """

    kind: Kind
    rate: float = 1.0
    population: int = 0
    drawn: int = 0


EVERYONE = Sampling("all")


@dataclass(frozen=True)
class Mechanism:
    """Noise on clipped sums.

    Attributes:
        noise_multiplier: Standard deviation of the noise over the clipping norm, above 0.
        sampling: Who is in a sum.
        steps_per_round: Sums in a round.
    """

    noise_multiplier: float
    sampling: Sampling
    steps_per_round: int = 1


@dataclass(frozen=True)
class Skellam:
    """Skellam noise on a sum of integers, one sum a round, of everyone.

    Amplification by sampling is not claimed: dp-accounting has no bound for the subsampled mechanism.

    Attributes:
        variance: Of the noise on each coordinate of the sum.
        l2: Bound on one client's vector.
        l1: Likewise, in the L1 norm.
    """

    variance: float
    l2: float
    l1: float


def epsilon(mechanism: Mechanism | Skellam, rounds: int, delta: float, accountant: Accountant = "pld") -> float:
    """The epsilon of (epsilon, delta)-differential privacy after some rounds: an upper bound.

    Add-or-remove-one neighbours, but for sampling without replacement, which is replace-one and is accounted by RDP
    whatever the accountant (dp-accounting's PLD does not know it), as is Skellam noise.

    Raises:
        ConfigurationError: when an argument makes no sense.
    """
    _check_delta(delta)
    if rounds < 1:
        raise ConfigurationError(f"rounds must be at least 1, not {rounds}")
    if isinstance(mechanism, Skellam):
        return _skellam_epsilon(mechanism, rounds, delta)
    _check(mechanism)
    with _quiet():
        made = _accountant(mechanism.sampling, accountant)
        made.compose(_event(mechanism), rounds * mechanism.steps_per_round)
        return float(made.get_epsilon(delta))


def used_accountant(mechanism: Mechanism | Skellam, accountant: Accountant) -> Accountant:
    """The accountant that counts for a mechanism."""
    rdp_only = isinstance(mechanism, Skellam) or mechanism.sampling.kind == "without_replacement"
    return "rdp" if rdp_only else accountant


def epsilon_by_round(
    mechanism: Mechanism | Skellam, rounds: int, delta: float, accountant: Accountant = "pld"
) -> tuple[tuple[int, float], ...]:
    """Epsilon after the rounds 1 to `rounds`: of each, or of 50 evenly spaced ones where there are more."""
    at = range(1, rounds + 1)
    if rounds > _MANY_ROUNDS:
        at = sorted({max(1, round(i * rounds / _MANY_ROUNDS)) for i in range(_MANY_ROUNDS + 1)})  # type: ignore[assignment]
    return tuple((number, epsilon(mechanism, number, delta, accountant)) for number in at)


def calibrate(
    target: float,
    delta: float,
    rounds: int,
    sampling: Sampling = EVERYONE,
    steps_per_round: int = 1,
    accountant: Accountant = "pld",
) -> float:
    """The smallest noise multiplier whose epsilon is at most a target, to five digits, rounded up.

    Raises:
        ConfigurationError: when an argument makes no sense.
    """
    if not (math.isfinite(target) and target > 0):
        raise ConfigurationError(f"epsilon must be positive and finite, not {target}")

    return least_noise(
        lambda noise: epsilon(Mechanism(noise, sampling, steps_per_round), rounds, delta, accountant), target
    )


def least_noise(spent: Callable[[float], float], target: float) -> float:
    """The smallest noise multiplier that keeps an epsilon, to five digits and never below it.

    Args:
        spent: Epsilon of a noise multiplier; it falls as the noise grows.
        target: The epsilon to keep, positive.

    Raises:
        ConfigurationError: when no noise keeps it.
    """
    from scipy.optimize import brentq

    known: dict[float, float] = {}

    def excess(log_noise: float) -> float:
        # Epsilon falls almost as a power of the noise: in logarithms the root is found in a few steps.
        if log_noise not in known:
            known[log_noise] = math.log(min(spent(math.exp(log_noise)), 1e300) / target)
        return known[log_noise]

    low, high = math.log(0.5), 0.0
    while excess(high) > 0:
        low, high = high, high + math.log(2)
        if high > math.log(1e6):
            raise ConfigurationError(f"no noise multiplier keeps an epsilon of {target:g}")
    while excess(low) <= 0:
        low, high = low - math.log(2), low
        if low < math.log(1e-3):
            return math.exp(high)
    root = brentq(excess, low, high, xtol=2e-6)
    while excess(root) > 0:
        root += 2e-6
    return math.exp(root)


def effective_noise(noise: float, count_noise: float) -> float:
    """Noise for the update when adaptive clipping also releases a noisy count of clipped clients.

    Andrew et al. 2021, "Differentially private learning with adaptive clipping": both releases together cost what
    the mechanism with `noise` costs, when the update gets (noise^-2 - (2·count_noise)^-2)^(-1/2).

    Args:
        noise: Noise multiplier that is accounted.
        count_noise: Standard deviation of the noise on the count.

    Raises:
        ConfigurationError: when the count alone costs more.
    """
    left = noise**-2 - (2 * count_noise) ** -2
    if left <= 0:
        raise ConfigurationError(
            f"noise of {count_noise:g} on the count of clipped clients is too little for {noise:g}"
        )
    return float(left**-0.5)


def _skellam_epsilon(mechanism: Skellam, rounds: int, delta: float) -> float:
    """Agarwal, Kairouz, Liu 2021, "The Skellam mechanism for differentially private federated learning", th. 3.5."""
    if not (mechanism.variance > 0 and mechanism.l2 > 0 and mechanism.l1 > 0):
        raise ConfigurationError("variance and sensitivities of Skellam noise must be positive")
    with _quiet():
        from dp_accounting.rdp import compute_epsilon

        orders = [float(order) for order in range(2, 257)]
        mu, l2, l1 = mechanism.variance, mechanism.l2**2, mechanism.l1
        each = [a * l2 / (2 * mu) + min(((2 * a - 1) * l2 + 6 * l1) / (4 * mu**2), 3 * l1 / (2 * mu)) for a in orders]
        found, _ = compute_epsilon(orders, [rounds * cost for cost in each], delta)
    return float(found)


def _event(mechanism: Mechanism) -> Any:
    import dp_accounting as dp

    noisy, sampling = dp.GaussianDpEvent(mechanism.noise_multiplier), mechanism.sampling
    if sampling.kind == "without_replacement" and sampling.drawn < sampling.population:
        return dp.SampledWithoutReplacementDpEvent(sampling.population, sampling.drawn, noisy)
    if sampling.kind == "poisson" and sampling.rate < 1:
        return dp.PoissonSampledDpEvent(sampling.rate, noisy)
    return noisy


def _accountant(sampling: Sampling, kind: Accountant) -> Any:
    from dp_accounting import NeighboringRelation, pld, rdp

    if sampling.kind == "without_replacement":
        return rdp.RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE)
    return rdp.RdpAccountant() if kind == "rdp" else pld.PLDAccountant()


def _check(mechanism: Mechanism) -> None:
    noise, sampling = mechanism.noise_multiplier, mechanism.sampling
    if not (math.isfinite(noise) and noise > 0):
        raise ConfigurationError(f"the noise multiplier must be positive and finite, not {noise}")
    if not 0 < sampling.rate <= 1:
        raise ConfigurationError(f"the sampling rate must be above 0 and at most 1, not {sampling.rate}")
    if sampling.kind == "without_replacement" and not 0 < sampling.drawn <= sampling.population:
        raise ConfigurationError(f"{sampling.drawn} of {sampling.population} cannot be drawn")
    if mechanism.steps_per_round < 1:
        raise ConfigurationError(f"a round has at least 1 step, not {mechanism.steps_per_round}")


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ConfigurationError(f"delta must be between 0 and 1, not {delta}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep dp-accounting's remarks on the orders that it tried off the terminal.

    Without any handler absl would set up the root logger, and from then on all libraries of the process would print.
    """
    import logging
    import warnings

    logger, handler = logging.getLogger("absl"), logging.NullHandler()
    before = logger.level
    logger.setLevel(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().removeHandler(handler)
        logger.setLevel(before)
