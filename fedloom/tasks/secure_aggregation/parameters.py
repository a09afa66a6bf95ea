"""How many neighbours a client has, how many of them open its secrets, and how many bits a sum has room for.

The search follows Bell et al. 2020, "Secure single-server aggregation with (poly)logarithmic overhead": clients stand
on a ring in a random order, each joined to the k/2 on both sides, and hold t-of-k shares of their neighbours' secrets.
With N clients of which at most a share γ is corrupt and δ drops out, and hypergeometric tails over the random order:

- no client is cut off from the honest ones:              N·(γ+δ)^(k/2)            ≤ 2^-σ
- the corrupt neighbours of no client can open a secret:  N·P[corrupt ≥ t]          ≤ 2^-σ
- every secret can be opened in spite of dropouts:        N·P[dropped ≥ k - t + 1]  ≤ 2^-η
- a server that shows two views gets no secret in both:   2t > k + c, with N·P[corrupt > c] ≤ 2^-σ
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import comb, floor, log2

COMPLETE_UP_TO = 64
"""Cohorts in which everyone is everyone's neighbour."""
MIN_CLIENTS = 3
"""With two, each would learn the other's update from the sum."""
SIGMA, ETA = 40, 30
"""Bits of statistical security, and of certainty that a round does not fail."""


RINGS = (32, 64)
"""Bits of the rings that sums are taken in."""
_MOST_BITS = {32: 22, 64: 32}
_LEAST_BITS, _LEAST_BITS_IN_NOISE = 16, 8
_MOST_NOISE = 2.0**20
"""Largest standard deviation of integer noise, in steps: from variances of 2^47 on numpy's Poisson is too wide."""


class ParameterError(ValueError):
    """No parameters meet the assumptions; the message says which cannot be met."""


@dataclass(frozen=True)
class Assumptions:
    """What a fleet is trusted to be.

    Attributes:
        corrupt: Share of the clients that work with the server, 0 to below 1.
        dropout: Share of the clients that vanish in the middle of a round, 0 to below 1.
        split_views: Whether the server may tell different clients different things.
    """

    corrupt: float = 0.05
    dropout: float = 0.05
    split_views: bool = True


DEFAULT = Assumptions()


@dataclass(frozen=True)
class Degrees:
    """The numbers of a session.

    Attributes:
        neighbours: Clients that each client shares its secrets with (k).
        threshold: Shares that open a secret (t).
        lowest_threshold: The smallest t that keeps what the assumptions promise.
    """

    neighbours: int
    threshold: int
    lowest_threshold: int


def choose(clients: int, assumptions: Assumptions, threshold: int | None = None) -> Degrees:
    """Search the fewest neighbours and a threshold for a cohort.

    Args:
        clients: Size of the cohort (N).
        assumptions: What the fleet is trusted to be.
        threshold: A threshold that a spec asks for; by default two thirds of a neighbourhood and one more, where
            dropouts leave room for it, and never less than the search needs.

    Raises:
        ParameterError: when no threshold keeps secrets and survives the dropouts at once.
    """
    if clients < MIN_CLIENTS:
        raise ParameterError(f"secure aggregation needs at least {MIN_CLIENTS} clients, not {clients}")
    corrupt, dropped = (floor(share * clients + 1e-9) for share in (assumptions.corrupt, assumptions.dropout))
    degree, lowest = _search(clients, corrupt, dropped, assumptions)
    if threshold is None:
        wanted = max(lowest, 2 * (degree + 1) // 3 + 1)
        threshold = max(lowest, min(wanted, degree))
        while threshold > lowest and _fails(clients, dropped, degree, threshold):
            threshold -= 1
    elif lowest <= threshold <= degree and _fails(clients, dropped, degree, threshold):
        raise ParameterError(
            f"a threshold of {threshold} for {clients} clients leaves no room to lose {dropped} of them"
        )
    if not lowest <= threshold <= degree:
        raise ParameterError(
            f"a threshold of {threshold} for {clients} clients with {degree} neighbours each is "
            + (f"below {lowest}, which keeps secrets" if threshold < lowest else "more than there are neighbours")
        )
    return Degrees(degree, threshold, lowest)


@cache
def _search(clients: int, corrupt: int, dropped: int, assumptions: Assumptions) -> tuple[int, int]:
    if clients <= COMPLETE_UP_TO:
        degree = clients - 1
        lowest = _lowest(clients, corrupt, degree, assumptions.split_views)
        if lowest <= degree - min(dropped, degree):
            return degree, lowest
        raise ParameterError(
            f"{clients} clients cannot lose {dropped} and keep secrets from {corrupt} corrupt ones: "
            f"a secret needs {lowest} shares, and {degree - dropped} would be left"
        )
    for degree in range(2, clients, 2):
        if clients * (assumptions.corrupt + assumptions.dropout) ** (degree / 2) > 2.0**-SIGMA:
            continue
        lowest = _lowest(clients, corrupt, degree, assumptions.split_views)
        if lowest <= degree and not _fails(clients, dropped, degree, lowest):
            return degree, lowest
    raise ParameterError(
        f"no graph over {clients} clients keeps secrets from {corrupt} corrupt ones and survives {dropped} dropouts"
    )


def _lowest(clients: int, corrupt: int, degree: int, split_views: bool) -> int:
    """The smallest threshold that corrupt neighbours, and with split views the server, cannot reach."""
    most = 0  # corrupt neighbours of any client, but for a chance of 2^-σ
    while clients * tail(clients - 1, corrupt, degree, most + 1) > 2.0**-SIGMA:
        most += 1
    return (degree + most) // 2 + 1 if split_views else max(most + 1, 2)


def _fails(clients: int, dropped: int, degree: int, threshold: int) -> bool:
    return clients * tail(clients - 1, dropped, degree, degree - threshold + 1) > 2.0**-ETA


@cache
def tail(population: int, marked: int, draws: int, at_least: int) -> float:
    """P[X ≥ at_least] for X marked ones among draws without replacement (hypergeometric)."""
    marked = min(marked, population)
    top = min(marked, draws)
    ways = sum(comb(marked, i) * comb(population - marked, draws - i) for i in range(max(at_least, 0), top + 1))
    return ways / comb(population, draws)


def fit_ring(clients: int, noise: float = 0.0) -> tuple[int, int]:
    """The smaller ring that holds a sum, and the most bits of an element in it.

    Args:
        clients: Most clients in a sum.
        noise: Standard deviation of noise on the sum, as a multiple of one client's largest element.

    Returns:
        Bits of the ring (32 or 64), and of an element.

    Raises:
        ParameterError: when even 64 bits cannot hold it.
    """
    room = clients + 2 * 12 * noise  # noise leaves twelve standard deviations with a chance below 1e-32
    fine = floor(log2(_MOST_NOISE / noise)) + 1 if noise else max(_MOST_BITS.values())
    for ring in RINGS:
        bits = min(_MOST_BITS[ring], fine, floor(log2((1 << ring) / room + 1) - 1e-9))
        if bits >= (_LEAST_BITS_IN_NOISE if noise else _LEAST_BITS):
            return ring, bits
    what = f"the sum of {clients} clients" + (" and its noise" if noise else "")
    raise ParameterError(f"a ring of {RINGS[-1]} bits does not hold {what}")
