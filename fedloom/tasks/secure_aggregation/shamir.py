"""Shamir's secret sharing (1979) of 32-byte secrets, over the prime field of order 2^256 + 297."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
"""A field element may need one bit more than a secret."""


class ShareError(ValueError):
    """Shares that cannot be of one secret."""


def split(secret: bytes, threshold: int, points: Sequence[int]) -> dict[int, bytes]:
    """Share a secret so that any `threshold` shares open it and fewer say nothing about it.

    Args:
        secret: 32 bytes.
        threshold: From 1 to the number of points.
        points: Distinct positive integers below the prime, one for each share.

    Returns:
        A share of 33 bytes for each point.

    Raises:
        ShareError: when the arguments allow no such sharing.
    """
    if len(secret) != SECRET_BYTES:
        raise ShareError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
    if not 1 <= threshold <= len(points):
        raise ShareError(f"a threshold of {threshold} does not fit {len(points)} shares")
    if len(set(points)) < len(points) or not all(0 < point < PRIME for point in points):
        raise ShareError("the points of shares must be distinct, positive and below the prime")
    coefficients = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    constant = int.from_bytes(secret, "big")
    shares = {}
    for point in points:
        value = 0
        for coefficient in coefficients:
            value = (value * point + coefficient) % PRIME
        shares[point] = ((value * point + constant) % PRIME).to_bytes(SHARE_BYTES, "big")
    return shares


def weights_at_zero(points: Sequence[int]) -> list[int]:
    """Lagrange's coefficients: the secret is the sum of the shares times these; the same for all secrets of a set."""
    weights = []
    for point in points:
        above, below = 1, 1
        for other in points:
            if other != point:
                above = above * other % PRIME
                below = below * (other - point) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return weights


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Open a secret from the first `threshold` shares.

    Raises:
        ShareError: when there are too few, or they are no shares of one 32-byte secret.
    """
    if len(shares) < threshold:
        raise ShareError(f"{len(shares)} shares do not open a secret that needs {threshold}")
    points = sorted(shares)[:threshold]
    values = [int.from_bytes(shares[point], "big") for point in points]
    if any(len(shares[point]) != SHARE_BYTES for point in points) or any(value >= PRIME for value in values):
        raise ShareError("a share is no element of the field")
    weights = weights_at_zero(points)
    secret = sum(value * weight for value, weight in zip(values, weights, strict=True)) % PRIME
    if secret >= 2**256:
        raise ShareError("the shares are not of one secret")
    return secret.to_bytes(SECRET_BYTES, "big")
