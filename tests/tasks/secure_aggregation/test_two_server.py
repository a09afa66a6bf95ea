"""Two servers: each half says nothing, both give the sum, and neither gives two."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.tasks.secure_aggregation.keys import public_of
from fedloom.tasks.secure_aggregation.messages import MessageError
from fedloom.tasks.secure_aggregation.server import AbortError
from fedloom.tasks.secure_aggregation.state import MemoryState
from fedloom.tasks.secure_aggregation.two_server import FIRST, SECOND, HalfServer, split_vector
from tests.tasks.secure_aggregation.party import Party

Sent = dict[str, dict[str, bytes]]


def pair(party: Party) -> tuple[HalfServer, HalfServer, Sent]:
    private = {FIRST: os.urandom(32), SECOND: os.urandom(32)}
    public = {which: public_of(key) for which, key in private.items()}
    sent: Sent = {FIRST: {}, SECOND: {}}
    for name, identity in party.identities.items():
        for which, message in split_vector(
            party.terms, name, identity, party.registry, public, party.vector(name)
        ).items():
            sent[which][name] = message
    first, second = (
        HalfServer(which, party.terms, party.registry, private[which], MemoryState()) for which in (FIRST, SECOND)
    )
    return first, second, sent


@settings(max_examples=20)
@given(st.integers(3, 9), st.sampled_from([32, 64]), st.data())
def test_the_halves_add_up(size: int, ring_bits: int, data: st.DataObject) -> None:
    party = Party(size, ring_bits=ring_bits)
    first, second, sent = pair(party)
    lost = data.draw(st.lists(st.sampled_from(sorted(party.identities)), max_size=size - 3, unique=True))
    for name in lost:
        del sent[SECOND][name]
    both = sorted(set(first.check(sent[FIRST])) & set(second.check(sent[SECOND])))
    total = first.add(sent[FIRST], both) + second.add(sent[SECOND], both)
    assert (total == party.plain_sum(both)).all()


def test_a_half_says_nothing_and_is_given_once() -> None:
    party = Party(5, length=3000)
    first, second, sent = pair(party)
    names = sorted(party.identities)
    half = second.add(sent[SECOND], names)
    assert (half == second.add(sent[SECOND], names)).all()
    assert abs((half - party.plain_sum(names)).astype(np.float64).mean() / 2**31 - 1) < 0.1
    with pytest.raises(AbortError, match="two sums would tell one client from the rest"):
        second.add(sent[SECOND], names[:4])
    with pytest.raises(AbortError, match="only 2 clients are left"):
        first.add(sent[FIRST], names[:2])


def test_tampering_and_strangers_are_refused() -> None:
    party = Party(4)
    first, second, sent = pair(party)
    message = sent[FIRST]["c000"]
    for bit in range(0, 8 * len(message), 7):
        changed = bytearray(message)
        changed[bit // 8] ^= 1 << bit % 8
        assert first.check({"c000": bytes(changed)}) == []
    assert first.check({"c001": message, "c002": sent[SECOND]["c002"], "mallory": message, "c003": b""}) == []
    assert set(first.refused) == {"c000", "c001", "c002", "c003", "mallory"}
    assert second.check(sent[SECOND]) == sorted(party.identities)


def test_terms_and_vectors_that_do_not_fit() -> None:
    party = Party(4)
    name, public = "c000", {FIRST: public_of(os.urandom(32)), SECOND: public_of(os.urandom(32))}
    identity, vector = party.identities[name], party.vector(name)
    changed = party.terms.model_copy(update={"survivors": 4})
    with pytest.raises(MessageError, match="does not follow"):
        split_vector(changed, name, identity, party.registry, public, vector)
    with pytest.raises(MessageError, match="different keys"):
        split_vector(party.terms, name, identity, party.registry, {**public, SECOND: public[FIRST]}, vector)
    with pytest.raises(MessageError, match="is not the session's"):
        split_vector(party.terms, name, identity, party.registry, public, vector[:-1])
