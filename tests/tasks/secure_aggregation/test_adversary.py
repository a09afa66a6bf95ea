"""A server that cheats, and messages that were tampered with: every honest client refuses."""

from __future__ import annotations

import dataclasses

import pytest

from fedloom.tasks.secure_aggregation import keys
from fedloom.tasks.secure_aggregation.client import Client, RefusedError
from fedloom.tasks.secure_aggregation.identity import Identity, IdentityKey
from fedloom.tasks.secure_aggregation.messages import (
    Advert,
    MaskRequest,
    Reveal,
    RevealRequest,
    ShareRequest,
    Shares,
    SurvivorsRequest,
    Terms,
    decode,
    make_terms,
)
from fedloom.tasks.secure_aggregation.parameters import Assumptions
from fedloom.tasks.secure_aggregation.server import AbortError, Server
from fedloom.tasks.secure_aggregation.state import MemoryState
from tests.tasks.secure_aggregation.party import SINCE, Party


def survivors(party: Party, alive: list[str], dropped: list[str]) -> SurvivorsRequest:
    return SurvivorsRequest(session=party.terms.session, alive=tuple(alive), dropped=tuple(dropped))


@pytest.mark.parametrize(
    ("alive", "dropped", "why"),
    [
        (["c000", "c001", "c002", "c003", "c004", "c005"], ["c005"], "'c005' is named alive and dropped"),
        (["c000", "c001", "c002", "c003", "c003", "c004"], ["c005"], "named twice"),
        (["c000", "c001", "c002", "c003", "c004"], [], "nothing is said of 'c005'"),
        (["c001", "c002", "c003", "c004", "c005"], ["c000"], "not named alive"),
        (["c000", "c001"], ["c002", "c003", "c004", "c005"], "2 survivors are fewer than 3"),
        (["c000", "c001", "c002"], ["c003", "c004", "c005"], "2 neighbours survive, 4 are needed"),
        (["c000", "c001", "c002", "c003", "c004", "c005", "mallory"], [], "outside the cohort"),
    ],
)
def test_survivors_that_say_too_much(alive: list[str], dropped: list[str], why: str) -> None:
    party = Party(6, threshold=4)
    party.until_confirm()
    with pytest.raises(RefusedError, match=why):
        party.clients["c000"].confirm(survivors(party, alive, dropped).encode())


def test_different_survivors_for_different_clients() -> None:
    party = Party(6, threshold=4)
    party.until_confirm()
    names = sorted(party.identities)
    views = {n: survivors(party, names, []) for n in names[:3]}
    views |= {n: survivors(party, [m for m in names if m != "c000"], ["c000"]) for n in names[3:]}
    signed = {n: party.clients[n].confirm(views[n].encode()) for n in names}
    party.server.take_confirmations({n: signed[n] for n in names[:3]})
    request = decode(RevealRequest, party.server.reveal_request("c000"), None)
    with pytest.raises(RefusedError, match="2 neighbours agree on the survivors, 4 are needed"):
        party.clients["c000"].reveal(request.encode())
    from fedloom.tasks.secure_aggregation.messages import Confirmation

    forged = {n: decode(Confirmation, signed[n], None).signature for n in names[1:]}
    with pytest.raises(RefusedError, match="does not fit its identity key"):
        party.clients["c000"].reveal(RevealRequest(session=party.terms.session, signatures=forged).encode())


def test_a_neighbour_whose_shares_never_came_is_not_named() -> None:
    party = Party(6, threshold=3)
    party.advertise()
    party.share()
    request = decode(MaskRequest, party.server.mask_request("c000"), None)
    without = {name: sealed for name, sealed in request.sealed.items() if name != "c005"}
    client, names = party.clients["c000"], sorted(party.identities)
    client.mask(request.model_copy(update={"sealed": without}).encode(), party.vector("c000"))
    for alive, dropped in ((names, []), (names[:5], ["c005"])):
        with pytest.raises(RefusedError, match="'c005' is named, and its shares never came"):
            client.confirm(survivors(party, alive, dropped).encode())


def test_only_surviving_neighbours_confirm() -> None:
    """One that dropped out and works with the server signs too: it does not make up for an honest one."""
    party = Party(6, threshold=4)
    party.advertise()
    party.share()
    party.mask(["c005"])
    party.confirm(["c004"])
    request = decode(RevealRequest, party.server.reveal_request("c000"), None)
    assert len(request.signatures) == 3
    named = survivors(party, sorted(party.identities)[:5], ["c005"])
    more = {**request.signatures, "c005": party.identities["c005"].sign(named.signed())}
    with pytest.raises(RefusedError, match="confirmations of clients that are no surviving neighbours"):
        party.clients["c000"].reveal(RevealRequest(session=party.terms.session, signatures=more).encode())
    own = {**request.signatures, "c000": party.identities["c000"].sign(named.signed())}
    with pytest.raises(RefusedError, match="no surviving neighbours"):
        party.clients["c000"].reveal(RevealRequest(session=party.terms.session, signatures=own).encode())


def test_of_each_neighbour_one_kind_of_share_is_revealed() -> None:
    """Both would open its vector."""
    party = Party(8, threshold=4)
    party.advertise(["c005"])
    party.share(["c006"])
    party.mask(["c007"])
    party.confirm()
    party.reveal()
    for name, reveal in party.server.reveals.items():
        assert set(reveal.self_mask) == {"c000", "c001", "c002", "c003", "c004"} - {name}
        assert set(reveal.mask_key) == {"c007"}  # and of those who never shared, nothing


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "confirm", "reveal"])
def test_asking_twice_with_another_question(stage: str) -> None:
    party = Party(6, threshold=4)
    total = party.until_confirm()
    party.confirm()
    asked = {
        "advertise": party.terms.model_copy(update={"context": "other"}).encode(),
        "share": ShareRequest(session=party.terms.session, adverts=()).encode(),
        "mask": MaskRequest(session=party.terms.session, sealed={}).encode(),
        "confirm": survivors(party, sorted(party.identities)[:5], ["c005"]).encode(),
        "reveal": RevealRequest(session=party.terms.session, signatures={}).encode(),
    }
    client = party.clients["c000"]
    if stage == "reveal":
        client.reveal(party.server.reveal_request("c000"))
    with pytest.raises(RefusedError, match=r"asked twice|closed"):
        client.mask(asked[stage], total) if stage == "mask" else getattr(client, stage)(asked[stage])


def test_a_replayed_session_gets_no_second_answer() -> None:
    party = Party(5)
    party.play()
    client = party.clients["c000"]
    assert client.advertise(party.terms.encode())  # the same bytes as before: public anyway
    request = party.server.share_request("c000")
    assert client.share(request) == client.share(request)
    with pytest.raises(RefusedError, match="closed"):
        client.mask(party.server.mask_request("c000"), party.vector("c000"))


def test_messages_of_two_sessions_do_not_mix() -> None:
    party = Party(5)
    other = dataclasses.replace(party)
    other.identities, other.registry = party.identities, party.registry
    other.terms = make_terms(party.registry, "another attempt", tuple(party.identities), 4, 3, 3, 32, 5)
    other.clients = {name: other.client(name) for name in other.identities}
    other.server = Server(other.terms, other.registry)
    party.advertise()
    other.advertise()
    client = party.clients["c000"]
    with pytest.raises(RefusedError, match="another session"):
        client.share(other.server.share_request("c000"))
    stolen = tuple(other.server.adverts[f"c00{i}"] for i in range(1, 5))
    with pytest.raises(RefusedError, match="another session"):
        client.share(ShareRequest(session=party.terms.session, adverts=stolen).encode())
    moved = tuple(advert.model_copy(update={"session": party.terms.session}) for advert in stolen)
    with pytest.raises(RefusedError, match="does not fit its identity key"):
        client.share(ShareRequest(session=party.terms.session, adverts=moved).encode())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"threshold": 2}, "a threshold of 2 is below"),
        ({"neighbours": 4}, "4 neighbours are fewer than 11"),
        ({"survivors": 13}, "13 of 12 clients is not safe"),
        ({"threshold": 12}, "above the number of neighbours"),
        ({"context": "other"}, "the session's id does not follow"),
        ({"session": bytes(32)}, "the session's id does not follow"),
        ({"ring_bits": 64}, "the session's id does not follow"),
        ({"clients": ("c000", "c001")}, "not safe|fewer|at least 3"),
        ({"clients": ("c001", "c002", "c003")}, "this one among them"),
        ({"clients": ("c000", "c001", "c002", "stranger")}, "11 of 4|fewer|neighbours|follow|no identity"),
    ],
)
def test_terms_that_a_client_does_not_accept(change: dict[str, object], why: str) -> None:
    party = Party(12, threshold=8)
    terms = party.terms.model_copy(update=change)
    honest = Client("c000", party.identities["c000"], party.registry, MemoryState(), Assumptions())
    with pytest.raises(RefusedError, match=why):
        honest.advertise(terms.encode())
    assert honest.state.load("secrets") is None


def test_a_degree_that_no_ring_has() -> None:
    party = Party(70, neighbours=28, threshold=20)
    terms = party.terms.model_copy(update={"neighbours": 29})
    with pytest.raises(RefusedError, match="no ring gives each client 29 neighbours"):
        party.client("c000").advertise(terms.encode())


def test_adverts_that_nobody_asked_for() -> None:
    party = Party(70, neighbours=28, threshold=20)
    party.advertise()
    near = decode(ShareRequest, party.server.share_request("c000"), None).adverts
    known = {"c000", *(advert.client for advert in near)}
    stranger = next(advert for name, advert in party.server.adverts.items() if name not in known)
    for adverts in ((*near, stranger), (*near, near[0])):
        with pytest.raises(RefusedError, match="adverts of clients that are no neighbours, or twice"):
            party.clients["c000"].share(ShareRequest(session=party.terms.session, adverts=adverts).encode())


def test_a_client_takes_keys_from_its_registry_alone() -> None:
    party = Party(5)
    mallory = Identity.generate()
    believed = party.registry.rotated("c001", IdentityKey(mallory.public, SINCE))
    terms = make_terms(believed, party.context, tuple(party.identities), 4, 3, 3, 32, 5)
    with pytest.raises(RefusedError, match="does not follow"):
        party.client("c000").advertise(terms.encode())
    party.advertise()
    advert = party.server.adverts["c001"]
    forged = advert.model_copy(update={"signature": mallory.sign(advert.signed())})
    others = tuple(party.server.adverts[f"c00{i}"] for i in (2, 3, 4))
    request = ShareRequest(session=party.terms.session, adverts=(forged, *others))
    with pytest.raises(RefusedError, match="'c001' does not fit its identity key"):
        party.clients["c000"].share(request.encode())


def test_expired_and_rotated_keys() -> None:
    party = Party(5)
    old, new = party.identities["c001"], Identity.generate()
    registry = party.registry.rotated("c001", IdentityKey(new.public, SINCE))
    terms = make_terms(registry, party.context, tuple(party.identities), 4, 3, 3, 32, 5)
    with pytest.raises(RefusedError, match="rotated or replaced"):
        Client("c001", old, registry, MemoryState(), Assumptions(0, 0)).advertise(terms.encode())
    honest = Client("c001", new, registry, MemoryState(), Assumptions(0, 0)).advertise(terms.encode())
    advert = decode(Advert, honest, None)
    server = Server(terms, registry)
    signed_by_old = advert.model_copy(update={"signature": old.sign(advert.signed())}).encode()
    with pytest.raises(AbortError):
        server.take_adverts({"c001": signed_by_old})
    assert server.refused == {"c001": "'c001' signed with a key that was rotated"}
    expired = registry.rotated("c002", IdentityKey(new.public, SINCE, expires="2026-02-01T00:00:00+00:00"))
    from fedloom.tasks.secure_aggregation.identity import IdentityError

    with pytest.raises(IdentityError, match="'c002' expired at 2026-02-01"):
        make_terms(expired, party.context, tuple(party.identities), 4, 3, 3, 32, 5)


def test_the_same_key_twice() -> None:
    party = Party(5)
    party.advertise()
    copied = party.server.adverts["c002"]
    advert = party.server.adverts["c001"].model_copy(update={"mask": copied.mask})
    twin = advert.model_copy(update={"signature": party.identities["c001"].sign(advert.signed())})
    adverts = (twin, *(party.server.adverts[f"c00{i}"] for i in (2, 3, 4)))
    with pytest.raises(RefusedError, match="advertise the same key"):
        party.clients["c000"].share(ShareRequest(session=party.terms.session, adverts=adverts).encode())


def test_every_bit_of_a_sealed_share_counts() -> None:
    party = Party(4)
    party.advertise()
    party.share()
    request = decode(MaskRequest, party.server.mask_request("c000"), None)
    sealed = request.sealed["c001"]
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        tampered = request.model_copy(update={"sealed": {**request.sealed, "c001": bytes(changed)}})
        with pytest.raises(RefusedError, match="was changed or is for another"):
            party.clients["c000"].mask(tampered.encode(), party.vector("c000"))
    swapped = request.model_copy(update={"sealed": {"c001": request.sealed["c002"], "c002": sealed}})
    with pytest.raises(RefusedError, match="was changed or is for another"):
        party.clients["c000"].mask(swapped.encode(), party.vector("c000"))


def test_sealed_shares_that_are_none_or_too_few() -> None:
    party = Party(6, threshold=4)
    party.advertise()
    party.share()
    client, vector = party.clients["c000"], party.vector("c000")
    request = decode(MaskRequest, party.server.mask_request("c000"), None)
    few = request.model_copy(update={"sealed": {n: request.sealed[n] for n in ("c001", "c002", "c003")}})
    with pytest.raises(RefusedError, match="3 neighbours shared their secrets, 4 are needed"):
        client.mask(few.encode(), vector)
    stranger = request.model_copy(update={"sealed": {**request.sealed, "mallory": request.sealed["c001"]}})
    with pytest.raises(RefusedError, match=r"shares of clients that are no neighbours: \['mallory'\]"):
        client.mask(stranger.encode(), vector)
    private = party.clients["c001"].state.load("secrets")
    assert private is not None
    shared = keys.exchange(private[:32], party.server.adverts["c000"].channel)
    short = keys.seal(shared, party.terms.session, "c001", "c000", b"no shares")
    with pytest.raises(RefusedError, match="something that is no pair of shares"):
        client.mask(request.model_copy(update={"sealed": {**request.sealed, "c001": short}}).encode(), vector)
    for wrong in (vector[:-1], vector.astype("uint64"), vector.reshape(1, -1)):
        with pytest.raises(RefusedError, match="expected 5 elements of 32 bits"):
            client.mask(request.encode(), wrong)
    assert client.mask(request.encode(), vector)


@pytest.mark.parametrize("field", ["channel", "mask", "signature", "session"])
def test_every_bit_of_an_advert_counts(field: str) -> None:
    party = Party(4)
    party.advertise()
    advert = party.server.adverts["c001"]
    value = getattr(advert, field)
    others = (party.server.adverts["c002"], party.server.adverts["c003"])
    for bit in range(8 * len(value)):
        changed = bytearray(value)
        changed[bit // 8] ^= 1 << bit % 8
        tampered = advert.model_copy(update={field: bytes(changed)})
        with pytest.raises(RefusedError, match=r"does not fit its identity key|another session"):
            party.clients["c000"].share(ShareRequest(session=party.terms.session, adverts=(tampered, *others)).encode())


def test_tampered_reveals_end_the_session_without_a_sum() -> None:
    party = Party(5)
    party.advertise()
    party.share()
    party.mask(["c004"])
    party.confirm()
    party.reveal()
    for kind, owner in (("self_mask", "c001"), ("mask_key", "c004")):
        kept = dict(party.server.reveals)
        shares = dict(getattr(kept["c000"], kind))
        flipped = bytearray(shares[owner])
        flipped[-1] ^= 1
        party.server.reveals["c000"] = kept["c000"].model_copy(update={kind: {**shares, owner: bytes(flipped)}})
        with pytest.raises(AbortError, match=f"'{owner}' do(es)? not fit|'{owner}' cannot be opened"):
            party.server.masks()
        party.server.reveals = kept
    assert party.server.masks()


@pytest.mark.parametrize("garbage", [b"", b"{}", b"\x00" * 100, b'{"session": "AAAA"}', b"\xfc", b"[" * 9999])
def test_garbage_is_refused_on_both_sides(garbage: bytes) -> None:
    party = Party(4)
    with pytest.raises(RefusedError):
        party.client("c000").advertise(garbage)
    party.advertise()
    with pytest.raises(RefusedError):
        party.clients["c000"].share(garbage)
    with pytest.raises(AbortError):
        party.server.take_shares({name: garbage for name in party.identities})
    assert party.server.refused.keys() == party.identities.keys()


def test_a_client_that_answers_something_else_is_a_dropout() -> None:
    party = Party(8, threshold=4)
    advert = decode(Advert, party.clients["c000"].advertise(party.terms.encode()), None)
    posing = advert.model_copy(update={"client": "c001"})
    signed = posing.model_copy(update={"signature": party.identities["c000"].sign(posing.signed())})
    with pytest.raises(AbortError):
        party.server.take_adverts({"c000": signed.encode()})
    assert party.server.refused.pop("c000") == "an advert of 'c001'"
    party.advertise()
    shares = {n: c.share(party.server.share_request(n)) for n, c in party.clients.items()}
    first = decode(Shares, shares["c000"], None)
    some = {name: sealed for name, sealed in first.sealed.items() if name != "c001"}
    shares["c000"] = first.model_copy(update={"sealed": some}).encode()
    shares["c001"] = shares["c002"]
    party.server.take_shares(shares)
    assert party.server.refused == dict.fromkeys(("c000", "c001"), "shares that are not for its neighbours")
    party.mask()
    party.confirm()
    reveals = {n: party.clients[n].reveal(party.server.reveal_request(n)) for n in party.server.confirmations}
    reveals["c002"] = reveals["c003"]
    more = decode(Reveal, reveals["c004"], None)
    of_stranger = {**more.self_mask, "c000": more.self_mask["c005"]}
    reveals["c004"] = more.model_copy(update={"self_mask": of_stranger}).encode()
    party.server.take_reveals(reveals)
    assert {n: party.server.refused[n] for n in ("c002", "c004")} == dict.fromkeys(
        ("c002", "c004"), "shares that nobody asked for"
    )


def test_an_unknown_client_is_not_part_of_it() -> None:
    party = Party(4)
    messages = {n: c.advertise(party.terms.encode()) for n, c in party.clients.items()}
    party.server.take_adverts({**messages, "mallory": messages["c000"]})
    assert party.server.refused == {"mallory": "'mallory' is not part of this stage"}
    with pytest.raises(RefusedError, match="this one among them"):
        Client("mallory", Identity.generate(), party.registry, MemoryState(), Assumptions(0, 0)).advertise(
            party.terms.encode()
        )


def test_stages_in_the_wrong_order() -> None:
    party = Party(4)
    party.advertise()
    with pytest.raises(RefusedError, match="stage 'share' must come before"):
        party.clients["c000"].mask(MaskRequest(session=party.terms.session, sealed={}).encode(), party.vector("c000"))
    with pytest.raises(RefusedError, match="stage 'mask' must come before"):
        party.clients["c000"].confirm(survivors(party, sorted(party.identities), []).encode())
    with pytest.raises(RefusedError, match="stage 'confirm' must come before"):
        party.clients["c000"].reveal(RevealRequest(session=party.terms.session, signatures={}).encode())


def test_nothing_secret_shows(capsys: pytest.CaptureFixture[str]) -> None:
    party = Party(4)
    party.play()
    shown = repr(party.clients["c000"]) + repr(party.server.reveals) + str(party.server.masks()) + repr(Terms)
    for reveal in party.server.reveals.values():
        for share in (*reveal.self_mask.values(), *reveal.mask_key.values()):
            assert share.hex() not in shown
            assert repr(share)[2:-1] not in shown
