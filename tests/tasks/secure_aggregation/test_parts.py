"""Shares, masks, numbers and quantisation, each on its own."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedloom.tasks.secure_aggregation.keys import ring_neighbours
from fedloom.tasks.secure_aggregation.masks import Mask, apply
from fedloom.tasks.secure_aggregation.parameters import Assumptions, ParameterError, choose, fit_ring
from fedloom.tasks.secure_aggregation.quantise import QuantisationError, Quantiser
from fedloom.tasks.secure_aggregation.shamir import PRIME, ShareError, combine, split


@given(st.binary(min_size=32, max_size=32), st.integers(1, 6), st.integers(0, 4))
def test_any_threshold_of_shares_opens_a_secret(secret: bytes, threshold: int, more: int) -> None:
    shares = split(secret, threshold, range(1, threshold + more + 1))
    for chosen in itertools.combinations(shares, threshold):
        assert combine({point: shares[point] for point in chosen}, threshold) == secret
    with pytest.raises(ShareError, match="do not open"):
        combine({point: shares[point] for point in list(shares)[: threshold - 1]}, threshold)


def test_fewer_shares_say_nothing() -> None:
    """With one share less than needed, every secret fits: there is a polynomial for each."""
    shares = split(bytes(32), 2, [1, 2])
    value = int.from_bytes(shares[1], "big")
    for secret in (0, 1, 2**255):
        line = (value - secret) % PRIME  # secret + line·1 = value
        assert (secret + line) % PRIME == value


@pytest.mark.parametrize(
    ("secret", "threshold", "points", "why"),
    [
        (b"short", 1, [1], "32 bytes, not 5"),
        (bytes(32), 3, [1, 2], "threshold of 3 does not fit 2 shares"),
        (bytes(32), 0, [1, 2], "threshold of 0"),
        (bytes(32), 1, [1, 1], "distinct"),
        (bytes(32), 1, [0], "distinct, positive"),
    ],
)
def test_sharings_that_do_not_exist(secret: bytes, threshold: int, points: list[int], why: str) -> None:
    with pytest.raises(ShareError, match=why):
        split(secret, threshold, points)


def test_a_tampered_share_opens_something_else() -> None:
    secret = bytes(range(32))
    shares = split(secret, 3, [1, 2, 3])
    for bit in range(33 * 8):
        changed = bytearray(shares[2])
        changed[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(ShareError):
            assert combine({**shares, 2: bytes(changed)}, 3) != secret


@pytest.mark.parametrize("kind", [np.uint32, np.uint64])
@pytest.mark.parametrize("size", [1, 3, 1000, 65_536, 200_001])
def test_a_mask_is_the_stream_of_aes_in_counter_mode(kind: type, size: int) -> None:
    key = bytes(range(16))
    values = np.arange(size).astype(kind)
    apply(values, [Mask(key), Mask(bytes(16)), Mask(bytes(16), negative=True)])
    stream = Cipher(algorithms.AES128(key), modes.CTR(bytes(16))).encryptor().update(bytes(values.nbytes))
    assert (values == np.arange(size).astype(kind) + np.frombuffer(stream, kind)).all()


@given(st.integers(0, 50_000), st.integers(1, 90_000))
def test_a_stream_can_start_anywhere(quarter: int, size: int) -> None:
    start, whole = 4 * quarter, np.zeros(4 * quarter + size, np.uint32)
    apply(whole, [Mask(bytes(16))])
    part = np.zeros(size, np.uint32)
    apply(part, [Mask(bytes(16))], start)
    assert (part == whole[start:]).all()


def test_masks_fit_their_vectors() -> None:
    with pytest.raises(ValueError, match="does not begin a block"):
        apply(np.zeros(8, np.uint32), [], 3)
    with pytest.raises(ValueError, match="contiguous"):
        apply(np.zeros(8, np.uint32)[::2], [])
    assert "\\x" not in repr(Mask(bytes(16)))


@pytest.mark.parametrize(
    ("clients", "rate", "split_views", "degree", "threshold"),
    [
        (100, 0.05, False, 30, 6),
        (1_000, 0.05, False, 34, 18),
        (10_000, 0.05, False, 38, 21),
        (100, 0.10, False, 42, 11),
        (1_000, 0.10, False, 52, 28),
        (10_000, 0.10, False, 60, 32),
        (100, 0.05, True, 30, 18),
        (1_000, 0.05, True, 60, 41),
        (10_000, 0.05, True, 74, 51),
        (100, 0.10, True, 42, 27),
        (1_000, 0.10, True, 114, 78),
        (10_000, 0.10, True, 144, 98),
    ],
)
def test_the_search(clients: int, rate: float, split_views: bool, degree: int, threshold: int) -> None:
    found = choose(clients, Assumptions(rate, rate, split_views))
    assert (found.neighbours, found.lowest_threshold) == (degree, threshold)
    assert threshold <= found.threshold <= degree


@pytest.mark.parametrize(("clients", "degree"), [(3, 2), (12, 11), (64, 63), (65, 28)])
def test_small_cohorts_have_the_complete_graph(clients: int, degree: int) -> None:
    assert choose(clients, Assumptions(0.05, 0.05)).neighbours == degree


@pytest.mark.parametrize(
    ("clients", "assumptions", "threshold", "why"),
    [
        (2, Assumptions(), None, "at least 3 clients, not 2"),
        (12, Assumptions(), 12, "12 for 12 clients with 11 neighbours each is more than there are neighbours"),
        (12, Assumptions(), 3, "is below 6, which keeps secrets"),
        (10, Assumptions(0.4, 0.4), None, "10 clients cannot lose 4 and keep secrets from 4 corrupt ones"),
        (200, Assumptions(0.4, 0.4), None, "no graph over 200 clients"),
    ],
)
def test_assumptions_that_cannot_be_met(
    clients: int, assumptions: Assumptions, threshold: int | None, why: str
) -> None:
    with pytest.raises(ParameterError, match=why):
        choose(clients, assumptions, threshold)


@given(st.integers(2, 40), st.integers(1, 9), st.binary(min_size=32, max_size=32))
def test_the_ring_is_regular_and_mutual(size: int, half: int, session: bytes) -> None:
    names = [f"c{i}" for i in range(size)]
    degree = min(2 * half, (size - 1) // 2 * 2) or size - 1
    near = ring_neighbours(names, degree, session)
    assert all(len(set(others)) == degree and name not in others for name, others in near.items())
    assert all(name in near[other] for name, others in near.items() for other in others)


VALUES = hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1.5, 1.5, width=32))


@given(VALUES, st.integers(1, 40), st.sampled_from([(22, 32), (16, 32), (32, 64)]), st.integers(0, 2**32))
def test_a_sum_of_quantised_updates_is_within_the_bound(
    update: np.ndarray, clients: int, bits: tuple[int, int], seed: int
) -> None:
    quantiser = Quantiser(1.0, *bits, weight_max=7.0)
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.01, 9.0, clients)
    total = np.zeros(len(update) + 2, np.uint32 if bits[1] == 32 else np.uint64)
    for weight in weights:
        total += quantiser.encode(update, weight, rng)
    values, share, count = quantiser.decode(total)
    shares = np.minimum(weights / 7.0, 1.0)
    wanted = sum(np.clip(update.astype(np.float64) * s, -1, 1) for s in shares)
    assert np.abs(values - wanted).max() <= clients * quantiser.step * (1 + 1e-9)
    assert abs(share - shares.sum()) <= clients / (2 ** bits[0] - 1)
    assert count == clients


def test_rounding_has_no_bias() -> None:
    quantiser = Quantiser(1.0, 16, 32, 1.0)
    rng = np.random.default_rng(5)
    value = 0.3 * quantiser.step
    drawn = quantiser.encode(np.full(200_000, value), 1.0, rng)[:-2].view(np.int32)
    assert abs(drawn.mean() - 0.3) < 0.01
    assert set(np.unique(drawn)) == {0, 1}


@pytest.mark.parametrize(
    ("update", "weight", "why"),
    [
        ([np.nan], 1.0, "not finite"),
        ([np.inf], 1.0, "not finite"),
        ([0.0], 0.0, "positive"),
        ([0.0], np.nan, "positive"),
        ([0.0], -1.0, "positive"),
    ],
)
def test_what_cannot_be_an_update(update: list[float], weight: float, why: str) -> None:
    with pytest.raises(QuantisationError, match=why):
        Quantiser(1.0, 22, 32, 1.0).encode(np.array(update), weight, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("clients", "expected"),
    [(3, (32, 22)), (1_024, (32, 22)), (1_025, (32, 21)), (4_096, (32, 20)), (16_384, (32, 18)), (65_537, (64, 32))],
)
def test_the_ring_holds_the_sum(clients: int, expected: tuple[int, int]) -> None:
    ring, bits = fit_ring(clients)
    assert (ring, bits) == expected
    assert clients * ((1 << bits) - 1) < 1 << ring


@pytest.mark.parametrize("noise", [0.5, 1.0, 10.0, 141.0, 4_000.0])
def test_noise_stays_where_it_is_drawn_exactly(noise: float) -> None:
    ring, bits = fit_ring(12, noise)
    levels = (1 << (bits - 1)) - 1
    assert noise * levels <= 2**20
    assert (12 + 24 * noise) * 2 * levels < 1 << ring


def test_too_many_clients_for_any_ring() -> None:
    with pytest.raises(ParameterError, match="a ring of 64 bits does not hold"):
        fit_ring(2**50)
    with pytest.raises(ParameterError, match="and its noise"):
        fit_ring(12, 1e6)
