"""The sum is exact whenever enough clients survive, and otherwise there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.tasks.secure_aggregation.client import Client, RefusedError
from fedloom.tasks.secure_aggregation.keys import ring_neighbours
from fedloom.tasks.secure_aggregation.messages import decode_vector
from fedloom.tasks.secure_aggregation.parameters import Assumptions, choose
from fedloom.tasks.secure_aggregation.server import AbortError
from fedloom.tasks.secure_aggregation.state import FolderState
from tests.tasks.secure_aggregation.party import Party


def enough_left(party: Party, shared: set[str], alive: set[str], confirmed: set[str], revealed: set[str]) -> bool:
    """Whether every secret that must be opened has shares enough: what the protocol promises."""
    near = ring_neighbours(party.terms.clients, party.terms.neighbours, party.terms.session)
    t = party.terms.threshold
    opened = [name for name in alive] + [n for n in shared - alive if set(near[n]) & alive]
    return all(len(set(near[name]) & revealed) >= t for name in opened)


@settings(max_examples=60)
@given(
    size=st.integers(3, 14),
    data=st.data(),
    ring_bits=st.sampled_from([32, 64]),
)
def test_the_sum_is_exact_or_there_is_none(size: int, data: st.DataObject, ring_bits: int) -> None:
    threshold = data.draw(st.integers(size // 2 + 1, size - 1) if size > 3 else st.just(2), label="threshold")
    party = Party(size, threshold=threshold, ring_bits=ring_bits, length=data.draw(st.integers(1, 9)))
    names = sorted(party.identities)
    gone = []
    for stage in range(5):
        lost = data.draw(st.lists(st.sampled_from(names), max_size=3, unique=True), label=f"lost before S{stage}")
        gone.append(lost)
    alive = [n for n in names if not any(n in lost for lost in gone[:3])]
    shared = {n for n in names if not any(n in lost for lost in gone[:2])}
    advertised = {n for n in names if n not in gone[0]}
    confirmed = {n for n in alive if n not in gone[3]}
    revealed = {n for n in confirmed if n not in gone[4]}
    holds = (
        len(advertised) - 1 >= threshold
        and len(shared) - 1 >= threshold
        and len(alive) - 1 >= threshold
        and len(alive) >= 3
        and len(confirmed) >= 3
        and len(confirmed) - 1 >= threshold
        and enough_left(party, shared, set(alive), confirmed, revealed)
    )
    if holds:
        assert (party.play(*gone) == party.plain_sum(alive)).all()
    else:
        with pytest.raises((AbortError, RefusedError)):
            party.play(*gone)


@settings(max_examples=3)
@given(st.integers(70, 90), st.integers(0, 2**32 - 1))
def test_the_sum_is_exact_on_a_sparse_graph(size: int, seed: int) -> None:
    degrees = choose(size, Assumptions(0.05, 0.05))
    party = Party(size, degrees.neighbours, degrees.threshold)
    assert party.terms.neighbours < size - 1
    names = np.random.default_rng(seed).permutation(sorted(party.identities))
    before_share, before_mask, before_confirm = list(names[:1]), list(names[1:3]), list(names[3:4])
    total = party.play((), before_share, before_mask, before_confirm)
    assert (total == party.plain_sum([n for n in names[3:]])).all()


def test_what_the_server_sees_of_one_client_says_nothing() -> None:
    party = Party(5, length=2000)
    party.advertise()
    party.share()
    name = "c001"
    masked = decode_vector(party.clients[name].mask(party.server.mask_request(name), party.vector(name)), party.terms)
    noise = masked - party.vector(name)
    assert abs(noise.astype(np.float64).mean() / 2**31 - 1) < 0.1
    assert len(np.unique(noise)) > 1990


def test_a_retry_gets_the_same_bytes_even_in_a_new_process(tmp_path) -> None:
    party = Party(4)
    folder = FolderState(tmp_path / "c000")

    def fresh() -> Client:  # as after a restart: everything it knows is in its folder
        return Client("c000", party.identities["c000"], party.registry, folder, party.clients["c001"].assumptions)

    first = fresh().advertise(party.terms.encode())
    assert fresh().advertise(party.terms.encode()) == first
    party.clients["c000"] = fresh()
    party.advertise()
    shares = fresh().share(party.server.share_request("c000"))
    assert fresh().share(party.server.share_request("c000")) == shares
    party.share()
    request = party.server.mask_request("c000")
    masked = fresh().mask(request, party.vector("c000"))
    assert fresh().mask(request, party.vector("c000") + 1) == masked  # another vector under the same masks would tell
    party.mask()
    party.confirm()
    party.reveal()
    assert (tmp_path / "c000").stat().st_mode & 0o077 == 0
    assert sorted(file.name for file in (tmp_path / "c000").iterdir()) == ["advertise", "confirm", "reveal", "share"]
    with pytest.raises(RefusedError, match="closed"):
        fresh().mask(request, party.vector("c000"))


def test_fewer_than_three_survivors_end_the_session() -> None:
    party = Party(4, threshold=2)
    party.clients = dict(party.clients)
    party.advertise()
    party.share()
    with pytest.raises(AbortError, match="only 2 clients gave a masked vector, 3 are needed"):
        party.mask(["c000", "c001"])


def test_a_late_vector_is_not_part_of_the_session() -> None:
    party = Party(6)
    party.advertise()
    party.share()
    total = party.mask(["c005"])
    party.clients["c005"].mask(party.server.mask_request("c005"), party.vector("c005"))  # after the stage was closed
    party.confirm()
    party.reveal()
    from fedloom.tasks.secure_aggregation.masks import apply

    apply(total, party.server.masks())
    assert (total == party.plain_sum([f"c00{i}" for i in range(5)])).all()


def test_any_range_of_coordinates_can_be_unmasked_alone() -> None:
    from fedloom.tasks.secure_aggregation.masks import apply

    party = Party(5, length=100_003)
    total = party.until_confirm()
    party.confirm()
    party.reveal()
    masks = party.server.masks()
    for start in range(0, 100_003, 40_000):
        apply(total[start : start + 40_000], masks, start)
    assert (total == party.plain_sum(party.identities)).all()
