"""From a recipe to the mechanism that is accounted."""

from __future__ import annotations

import math
from typing import cast

from fedloom.tasks.privacy.accounting import Kind, Mechanism, Sampling, Skellam, epsilon
from fedloom.tasks.recipe import MaskingRecipe, PrivacyRecipe


def mechanism_of(privacy: PrivacyRecipe, masking: MaskingRecipe | None) -> Mechanism | Skellam:
    """What a job's noise is, for the accountant.

    Under masks the clients add the noise of client-level privacy, as integers: Skellam. A client's quantised update is
    at most C/h + √D long (each coordinate is rounded by less than one), and √D times that in the L1 norm.
    """
    if privacy.unit == "client" and masking is not None:
        levels, root = (1 << (masking.bits - 1)) - 1, math.sqrt(masking.parameters)
        longest = levels + root
        return Skellam((privacy.noise_multiplier * levels) ** 2, longest, longest * root)
    sampling = Sampling(cast(Kind, privacy.sampling), privacy.rate, privacy.population, privacy.drawn)
    # With a cohort of fixed size one client takes another's place, which moves the sum by up to twice the clip.
    moved = 2 if privacy.sampling == "without_replacement" else 1
    return Mechanism(privacy.noise_multiplier / moved, sampling, privacy.steps_per_round)


def own_variance(privacy: PrivacyRecipe, masking: MaskingRecipe) -> float:
    """Variance of the noise that each client adds under masks: the fewest honest survivors together add enough."""
    levels = (1 << (masking.bits - 1)) - 1
    honest = masking.survivors - math.floor(masking.corrupt * masking.survivors + 1e-9)
    return (privacy.noise_multiplier * levels) ** 2 / honest


def spent(privacy: PrivacyRecipe, masking: MaskingRecipe | None, rounds: int) -> float:
    """Epsilon after some rounds, by RDP: an upper bound that takes no time to speak of."""
    return epsilon(mechanism_of(privacy, masking), rounds, privacy.delta, "rdp")
