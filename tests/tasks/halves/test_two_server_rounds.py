"""Rounds with two servers, on the run store: the model of pairwise masks, dropouts, what nobody may see or replace."""

from __future__ import annotations

import json
import os
import shutil
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.result import read_result
from fedloom.specs.bundle import load_job
from fedloom.specs.canonical import canonical_json
from fedloom.tasks.client_home import client_folder, fleet_folder
from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.halves import session as halves
from fedloom.tasks.halves.split_update import split
from fedloom.tasks.losses import record_loss
from fedloom.tasks.masked.session import UPDATE, session_terms
from fedloom.tasks.secure_aggregation.client import RefusedError
from fedloom.tasks.secure_aggregation.messages import Terms, decode
from fedloom.tasks.secure_aggregation.two_server import FIRST, SECOND
from fedloom.tasks.server_keys import private_key, public_key, trust, trusted_keys
from fedloom.tasks.step import Place, Run, run_step

MakeRun = Callable[..., Run]
LOOP = ("select", "distribute", "train", "split_update", "check_first", "check_second", "first_half", "second_half")
FANNED = ("train", "split_update")
SENT = [f"c{i}" for i in range(6)]


def two_servers(make_run: MakeRun, protocol: str = "two_server", **changes: Any) -> Run:
    secure = {"enabled": True, "protocol": protocol}
    privacy = {"differential_privacy": {"enabled": False}, "secure_aggregation": secure, **changes.pop("privacy", {})}
    orchestration = {"shard_size": 2, "aggregation": {"min_quorum": 3}}
    job = {"differential_privacy": None, "secure_aggregation": None, "privacy_config": privacy, "min_clients": 4}
    return make_run(**{**job, "orchestration_config": orchestration, "num_rounds": 2, **changes})


def play(run: Run, before: Callable[[str], None] = lambda step: None, number: int = 1) -> dict[str, Any]:
    """Run a round up to its aggregate; `before` is called before each step."""
    if number == 1:
        for name in ("first_key", "second_key", "validate", "initialise"):
            run_step(run, name)
    shards: list[int] = []
    for name in LOOP:
        before(name)
        for shard in shards if name in FANNED else [None]:
            if Place(run, number).find(name, shard) is None:
                outputs = run_step(run, name, number, shard)
                shards = outputs["shards"] if name == "select" else shards
    before("aggregate")
    return run_step(run, "aggregate", number)


def on_disk(run: Run, key: str) -> Path:
    return Path(run.store.url) / key


def sealed(run: Run, client: str, shard: int) -> Path:
    """A client's message to the second server."""
    return on_disk(run, Place(run, 1).result("split_update", shard)["files"][halves.sealed_role(client)]["key"])


@pytest.mark.parametrize("weights", ["uniform", "num_samples"])
def test_the_model_is_that_of_pairwise_masks(make_run: MakeRun, tmp_path: Path, weights: str) -> None:
    orchestration = {"shard_size": 2, "aggregation": {"min_quorum": 3, "weights": weights}}
    run = two_servers(make_run, orchestration_config=orchestration)
    simulate(compile_plan(load_job(run.folder)), run)
    took = run_step(run, "aggregate", 1)
    assert (took["participants"], took["dropouts"], took["aborted"]) == (6, [], None)
    assert took["session"] == {"clients": 6, "servers": 2, "survivors": 3, "ring_bits": 32, "bits": 22}
    pairwise = two_servers(make_run, "pairwise", orchestration_config=orchestration, store=str(tmp_path / "pairwise"))
    simulate(compile_plan(load_job(pairwise.folder)), pairwise)
    assert read_result(run).model_digest == read_result(pairwise).model_digest


def test_a_ring_of_64_bits(make_run: MakeRun, tmp_path: Path) -> None:
    digests = set()
    for protocol in ("two_server", "pairwise"):
        run = two_servers(make_run, protocol, store=str(tmp_path / protocol))
        assert run.recipe.masking is not None
        wide = replace(run, recipe=replace(run.recipe, masking=replace(run.recipe.masking, ring_bits=64, bits=32)))
        simulate(compile_plan(load_job(run.folder)), wide)
        result = run_step(wide, "aggregate", 2)
        assert (result["participants"], result["session"]["ring_bits"]) == (6, 64)
        digests.add(result["model_digest"])
    assert len(digests) == 1


def test_noise_of_clients_is_that_under_masks(make_run: MakeRun, tmp_path: Path) -> None:
    noise = {"enabled": True, "mechanism": "DP-FedAvg", "delta": 1e-3, "max_grad_norm": 0.5, "noise_multiplier": 2.0}
    orchestration = {"shard_size": 2, "aggregation": {"min_quorum": 3, "weights": "uniform"}}
    changes: dict[str, Any] = {"privacy": {"differential_privacy": noise}, "orchestration_config": orchestration}
    costs = []
    for protocol in ("two_server", "pairwise"):
        run = two_servers(make_run, protocol, store=str(tmp_path / protocol), **changes)
        simulate(compile_plan(load_job(run.folder)), run)
        result = read_result(run)
        assert result.privacy is not None
        assert result.participation == {"asked": 12, "updates": 12}
        costs.append(result.privacy["epsilon"])
    assert costs[0] == costs[1] > 0


@pytest.mark.parametrize("step", ["split_update", "check_first", "first_half"])
def test_a_client_that_vanishes_before_a_step(make_run: MakeRun, step: str) -> None:
    run = two_servers(make_run)

    def before(now: str) -> None:
        if now == step:
            shutil.rmtree(client_folder(run.fleet.fleet_id, "c3"))

    took = play(run, before)
    sent = step != "split_update"  # then nothing waits for it
    assert took["participants"] == (6 if sent else 5)
    shown = [(drop["client"], drop["stage"]) for drop in took["dropouts"]]
    assert shown == ([] if sent else [("c3", "split_update")])


@pytest.mark.parametrize("step", FANNED)
def test_a_shard_that_is_lost(make_run: MakeRun, step: str) -> None:
    run = two_servers(make_run)
    took = play(run, lambda now: record_loss(run, step, 1, 1, "evicted") if now == step else None)
    assert (took["participants"], took["aborted"]) == (4, None)
    assert [(d["client"], d["stage"], d["reason"]) for d in took["dropouts"]] == [
        (client, step, "the shard was lost: evicted") for client in ("c2", "c3")
    ]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("at", [0, 64, 96, -1], ids=["signature", "key", "vector", "tag"])
def test_a_message_that_was_tampered_with_is_a_dropout(make_run: MakeRun, at: int) -> None:
    run = two_servers(make_run)
    took = play(run, lambda now: flip(sealed(run, "c1", 0), at) if now == "check_first" else None)
    assert (took["participants"], took["aborted"]) == (5, None)
    (lost,) = took["dropouts"]
    assert (lost["client"], lost["stage"]) == ("c1", "check_second")
    assert "signature" in lost["reason"]


def test_a_message_that_changes_after_both_named_it_ends_the_session(make_run: MakeRun) -> None:
    run = two_servers(make_run)
    took = play(run, lambda now: flip(sealed(run, "c1", 0), -1) if now == "first_half" else None)
    assert "the message of 'c1' does not hold" in took["aborted"]
    assert took["model_digest"] == run_step(run, "distribute", 1)["model_digest"]


def test_with_too_few_left_the_round_ends_and_the_next_is_a_new_session(make_run: MakeRun) -> None:
    run = two_servers(make_run)

    def before(now: str) -> None:
        if now == "check_first":
            for client in ("c0", "c1", "c2", "c3"):
                flip(sealed(run, client, int(client[1]) // 2), -1)

    took = play(run, before)
    assert took["aborted"] == "only 2 clients are left, 3 are needed"
    run_step(run, "evaluate", 1)
    gate = run_step(run, "gate", 1)
    assert any("secure aggregation gave no sum" in check["reason"] for check in gate["checks"])
    assert gate["stop"] is False
    again = play(run, number=2)
    assert (again["aborted"], again["participants"]) == (None, 6)


def test_too_few_ready_clients_make_no_session(make_run: MakeRun) -> None:
    run = two_servers(make_run)

    def before(now: str) -> None:
        if now == "train":
            record_loss(run, "train", 1, 0, "evicted")
            record_loss(run, "train", 1, 1, "evicted")

    assert play(run, before)["aborted"] == "only 2 clients are ready, 3 are needed"


def test_a_repeated_split_gives_the_same_bytes_and_another_session_gets_nothing(make_run: MakeRun) -> None:
    run = two_servers(make_run)
    place = Place(run, 1)

    def before(now: str) -> None:
        if now != "check_first":
            return
        key = place.result_key("split_update", 0)
        seen = run.store.read_json(key)["files"]
        on_disk(run, key).unlink()  # as by a kill after the clients had answered
        run_step(run, "split_update", 1, 0)
        assert run.store.read_json(key)["files"] == seen
        # A server that begins the round anew, with another cohort, could take two sums apart.
        terms = on_disk(run, place.key("session/terms.json"))
        kept = terms.read_bytes()
        terms.unlink()
        other = session_terms(place)
        assert other.session != decode(Terms, kept, None).session
        with pytest.raises(RefusedError, match="c0: its update of this round went into another session"):
            split(place, other, "c0")
        terms.write_bytes(kept)

    assert play(run, before)["participants"] == 6


def test_terms_that_the_plan_does_not_allow_are_refused_by_clients_and_servers(make_run: MakeRun) -> None:
    run = two_servers(make_run, orchestration_config={"shard_size": 2, "aggregation": {"min_quorum": 4}})
    for name in ("first_key", "second_key", "validate", "initialise"):
        run_step(run, name)
    for name in LOOP[:3]:
        for shard in (0, 1, 2) if name in FANNED else [None]:
            run_step(run, name, 1, shard)
    place = Place(run, 1)
    terms = session_terms(place)
    lowered = terms.model_copy(update={"survivors": 3})
    with pytest.raises(RefusedError, match="a sum of 3 clients, 4 were agreed on"):
        split(place, lowered, "c0")
    for change in ({"ring_bits": 64}, {"length": 5}):
        with pytest.raises(RefusedError, match="not about vectors of 145 coordinates"):
            split(place, terms.model_copy(update=change), "c0")
    on_disk(run, place.key("session/terms.json")).write_bytes(lowered.encode())
    assert run_step(run, "split_update", 1, 0)["clients"] == 0
    run_step(run, "split_update", 1, 1), run_step(run, "split_update", 1, 2)
    assert run_step(run, "check_first", 1)["aborted"] == "the terms of the session are not those of the plan"
    # With the plan's numbers, and the id of another session that clients did agree to:
    forged = terms.model_copy(update={"context": "another"})
    on_disk(run, place.key("session/terms.json")).write_bytes(forged.encode())
    assert "does not follow from its terms" in run_step(run, "check_second", 1)["aborted"]


def test_a_server_gives_one_sum_in_a_session(make_run: MakeRun) -> None:
    run = two_servers(make_run)
    place = Place(run, 1)

    def before(now: str) -> None:
        if now == "aggregate":  # what the first server holds is changed afterwards, and the halves are asked for again
            result = place.result("check_first")
            stored = run.store.write_json(result["files"]["held"]["key"], SENT[:5])
            changed = {**result, "files": {"held": vars(stored)}}
            run.store.write(place.result_key("check_first"), canonical_json(changed))
            for name in ("first_half", "second_half"):
                on_disk(run, place.result_key(name)).unlink()
                assert "two sums would tell one client from the rest" in run_step(run, name, 1)["aborted"]

    assert play(run, before)["participants"] == 0


def test_each_server_needs_its_own_folder_alone(make_run: MakeRun, tmp_path: Path) -> None:
    run = two_servers(make_run)
    homes = {FIRST: tmp_path / "server", SECOND: tmp_path / "second-server"}
    away = tmp_path / "away"
    of = {"check_first": FIRST, "first_half": FIRST, "check_second": SECOND, "second_half": SECOND}

    def before(now: str) -> None:
        if away.exists():
            shutil.move(away, homes[FIRST] if not homes[FIRST].exists() else homes[SECOND])
        if now in of:
            shutil.move(homes[SECOND if of[now] == FIRST else FIRST], away)

    assert play(run, before)["participants"] == 6
    steps = {step.name: step for step in compile_plan(load_job(run.folder)).steps}
    for name, step in steps.items():
        assert step.at_clients + step.at_server + step.at_second_server <= 1, name
    assert all(steps[name].at_server for name in of if of[name] == FIRST)
    assert all(steps[name].at_second_server for name in of if of[name] == SECOND)


def test_a_server_whose_key_was_replaced_is_refused(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = two_servers(make_run)

    def before(now: str) -> None:
        if now == "check_second":
            (Path(os.environ["FEDLOOM_SECOND_SERVER"]) / "exchange.key").unlink()

    with pytest.raises(
        ConfigurationError, match=r"the key of the second server in .* is not the one that this run began with"
    ):
        play(run, before)
    later = two_servers(make_run, num_rounds=3)
    with pytest.raises(ConfigurationError, match=r"the second server has key .* clients of fleet \S+ trust"):
        play(later)
    trust(run.fleet.fleet_id, {which: public_key(which) for which in (FIRST, SECOND)}, replace=True)
    assert play(later)["participants"] == 6
    monkeypatch.setenv("FEDLOOM_SECOND_SERVER", os.environ["FEDLOOM_SERVER"])
    with pytest.raises(ConfigurationError, match="the two servers have the same key"):
        play(two_servers(make_run, num_rounds=4))


def test_what_clients_trust_is_checked(make_run: MakeRun) -> None:
    fleet = two_servers(make_run).fleet.fleet_id
    with pytest.raises(ConfigurationError, match="the clients trust no server yet; say which"):
        trusted_keys(fleet)
    with pytest.raises(ConfigurationError, match="'xyz' is no key of the first server"):
        trust(fleet, {FIRST: "xyz", SECOND: "00" * 32})
    path = fleet_folder(fleet) / "servers.json"
    path.parent.mkdir(parents=True)
    for broken in (b"{}", b"[]", b"\xff", json.dumps({FIRST: "00", SECOND: "00" * 32}).encode()):
        path.write_bytes(broken)
        with pytest.raises(ConfigurationError, match=r"servers.json is damaged"):
            trusted_keys(fleet)


def test_nothing_secret_leaves_clients_and_servers(make_run: MakeRun, own_clients: Path, capfd: Any) -> None:
    """Searches all that a run leaves for every key, stream of a half and update; and each server's folder likewise."""
    run = two_servers(make_run, num_rounds=1)
    secrets: dict[str, bytes] = {}

    def before(now: str) -> None:
        for path in own_clients.rglob("*"):
            if path.name == "identity.pem":
                key = serialization.load_pem_private_key(path.read_bytes(), None)
                secrets[str(path)] = key.private_bytes_raw()  # type: ignore[union-attr]
            if path.name == UPDATE:
                secrets[str(path)] = path.read_bytes()[:64]
        if now == "aggregate":
            secrets["first key"], secrets["second key"] = private_key(FIRST), private_key(SECOND)
            for which in (FIRST, SECOND):
                server = halves.half_server(Place(run, 1), which)
                for client, message in halves.posted(Place(run, 1), which).items():
                    secrets[f"{client} to {which}"] = server._open(client, message)[-16:]

    assert play(run, before)["participants"] == 6
    assert len(secrets) == 6 * 4 + 2
    homes = [Path(os.environ[name]) for name in ("FEDLOOM_SERVER", "FEDLOOM_SECOND_SERVER")]
    own = {"first key": homes[0] / "exchange.key", "second key": homes[1] / "exchange.key"}
    places = [Path(run.store.url), *homes, own_clients]
    everything = {path: path.read_bytes() for place in places for path in place.rglob("*") if path.is_file()}
    everything[Path("output")] = "".join(capfd.readouterr()).encode()
    for where, secret in secrets.items():
        for form in (secret, secret.hex().encode(), b64encode(secret), b64encode(secret).rstrip(b"=")):
            found = {path for path, data in everything.items() if form in data}
            assert found <= {own.get(where)}, where
    assert not list(own_clients.rglob(UPDATE))
    assert all((home / "exchange.key").stat().st_mode & 0o077 == 0 for home in homes)
