"""Updates as ring elements, and sums of them back as updates.

An update Δ with weight w becomes z = clip(Δ·w/w_max, ±C), then a whole number of -L to L, L = 2^(b-1) - 1, by
stochastic rounding, whose expected value is z·L/C; negative numbers wrap. Two more elements follow:
round(w/w_max·(2^b - 1)) and a constant 1, so that weights and the number of clients come out of the same sum. The
step is h = C/L, and the sum over n clients of what was not clipped is wrong by less than n·h in each coordinate
(without bias, standard deviation at most √n·h/2). The sum of weights, in units of w_max, is wrong by at most
n/(2^b - 1). Sums do not wrap while n·(2^b - 1) < 2^ring.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.tasks.secure_aggregation.masks import Ring

EXTRA = 2
"""Elements after the update: its weight and the count."""
Vector = NDArray[np.float32] | NDArray[np.float64]


class QuantisationError(ValueError):
    """Values that cannot be a client's update."""


@dataclass(frozen=True)
class Quantiser:
    """How updates are written.

    Attributes:
        clip: Largest absolute value of a coordinate after weighting (C).
        bits: Bits of an element (b).
        ring_bits: 32 or 64.
        weight_max: The largest weight (w_max); a client with more counts with this much.
    """

    clip: float
    bits: int
    ring_bits: int
    weight_max: float

    @property
    def levels(self) -> int:
        """The largest element of one client (L)."""
        return (1 << (self.bits - 1)) - 1

    @property
    def step(self) -> float:
        """Difference of two neighbouring values, in units of the update (h)."""
        return self.clip / self.levels

    def encode(self, update: Vector, weight: float, rng: np.random.Generator) -> Ring:
        """An update as ring elements.

        Args:
            update: Shape [D].
            weight: The client's weight, above 0.
            rng: Draws the rounding.

        Returns:
            Shape [D + 2], uint32 or uint64.

        Raises:
            QuantisationError: when the update or its weight is not finite.
        """
        if not (np.isfinite(weight) and weight > 0):
            raise QuantisationError(f"a weight must be positive and finite, not {weight}")
        if not np.isfinite(update).all():
            raise QuantisationError("the update is not finite")
        share = min(weight / self.weight_max, 1.0)
        scaled = update.astype(np.float64) * share
        np.clip(scaled, -self.clip, self.clip, out=scaled)
        scaled /= self.step
        scaled += rng.random(len(update))
        np.floor(scaled, out=scaled)
        np.clip(scaled, -self.levels, self.levels, out=scaled)  # the quotient may exceed L by a rounding error
        encoded: Ring = np.empty(len(update) + EXTRA, ring_type(self.ring_bits))
        encoded[:-EXTRA] = scaled.astype(np.int64).astype(encoded.dtype)
        encoded[-EXTRA:] = (max(round(share * ((1 << self.bits) - 1)), 1), 1)
        return encoded

    def decode(self, total: Ring) -> tuple[NDArray[np.float64], float, int]:
        """What a sum of encoded updates says.

        Args:
            total: Shape [D + 2].

        Returns:
            Sum of w/w_max·Δ (shape [D], float64), sum of w/w_max, and number of clients.
        """
        signed = total[:-EXTRA].view(np.int32 if self.ring_bits == 32 else np.int64)
        return signed.astype(np.float64) * self.step, float(total[-EXTRA]) / ((1 << self.bits) - 1), int(total[-1])


def ring_type(bits: int) -> type[np.uint32] | type[np.uint64]:
    """The numpy type of a ring's elements."""
    return np.uint32 if bits == 32 else np.uint64
