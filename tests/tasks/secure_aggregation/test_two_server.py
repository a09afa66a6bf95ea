"""Two servers: each half says nothing, both give the sum, and neither gives two."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.tasks.secure_aggregation import keys, two_server
from fedloom.tasks.secure_aggregation.client import CLOSED, RefusedError
from fedloom.tasks.secure_aggregation.keys import public_of
from fedloom.tasks.secure_aggregation.messages import MessageError, make_terms
from fedloom.tasks.secure_aggregation.server import AbortError
from fedloom.tasks.secure_aggregation.state import MemoryState
from fedloom.tasks.secure_aggregation.two_server import FIRST, SECOND, HalfServer, split_once, split_vector
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
    for clients in (("c000", "c001"), ("c001", "c002", "c003")):
        unsafe = make_terms(party.registry, "unsafe", clients, 1, 2, 3, 32, 5)
        with pytest.raises(MessageError, match="must have 'c000' and at least 3 clients"):
            split_vector(unsafe, name, identity, party.registry, public, vector)
    changed = party.terms.model_copy(update={"survivors": 4})
    with pytest.raises(MessageError, match="does not follow"):
        split_vector(changed, name, identity, party.registry, public, vector)
    with pytest.raises(MessageError, match="different keys"):
        split_vector(party.terms, name, identity, party.registry, {**public, SECOND: public[FIRST]}, vector)
    with pytest.raises(MessageError, match="is not the session's"):
        split_vector(party.terms, name, identity, party.registry, public, vector[:-1])


def test_a_client_of_the_fleet_that_is_not_in_the_session_is_refused() -> None:
    party, private = Party(4), os.urandom(32)
    terms = make_terms(party.registry, "three of four", ("c000", "c001", "c002"), 2, 2, 3, 32, 5)
    mine = os.urandom(32)
    shared = keys.exchange(mine, public_of(private))
    sealed = public_of(mine) + keys.seal(shared, terms.session, "c003", FIRST, bytes(16))
    message = party.identities["c003"].sign(two_server._signed(terms, "c003", FIRST, sealed)) + sealed
    server = HalfServer(FIRST, terms, party.registry, private, MemoryState())
    assert server.check({"c003": message}) == []
    assert private.hex() not in repr(server)
    assert repr(private)[2:-1] not in repr(server)
    assert server.refused == {"c003": "'c003' is not part of the session"}


def test_what_a_client_seals_has_the_size_of_a_half() -> None:
    party = Party(4)
    first, second, _ = pair(party)
    for server, plain, why in ((first, bytes(15), "no key of a stream"), (second, bytes(20), "another session")):
        mine = os.urandom(32)
        shared = keys.exchange(mine, public_of(server.private))
        sealed = public_of(mine) + keys.seal(shared, party.terms.session, "c000", server.which, plain)
        signed = two_server._signed(party.terms, "c000", server.which, sealed)
        assert server.check({"c000": party.identities["c000"].sign(signed) + sealed}) == []
        assert why in server.refused["c000"]


def test_a_server_that_is_shown_other_terms_gives_nothing() -> None:
    party = Party(5, survivors=4)
    first, _, sent = pair(party)
    first.terms = party.terms.model_copy(update={"survivors": 3})
    for ask in (lambda: first.check(sent[FIRST]), lambda: first.add(sent[FIRST], ["c000", "c001", "c002"])):
        with pytest.raises(AbortError, match="does not follow from its terms"):
            ask()


def test_a_session_that_asks_again_gets_the_same_halves() -> None:
    party, state = Party(4), MemoryState()
    name, public = "c000", {FIRST: public_of(os.urandom(32)), SECOND: public_of(os.urandom(32))}
    identity, vector = party.identities[name], party.vector(name).tobytes()
    with pytest.raises(RefusedError, match="c000: its update is gone"):
        split_once(party.terms, name, identity, party.registry, public, state, None)
    made = split_once(party.terms, name, identity, party.registry, public, state, vector)
    assert split_once(party.terms, name, identity, party.registry, public, state, None) == made
    assert split_once(party.terms, name, identity, party.registry, public, state, bytes(20)) == made
    state.save(CLOSED, b"")
    with pytest.raises(RefusedError, match="c000: the session is closed"):
        split_once(party.terms, name, identity, party.registry, public, state, vector)
