"""Rounds with secure aggregation, on the run store: the same model, dropouts at every stage, and no secret in sight."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization

from fedloom.flows.compile import CLIENT_STAGES, compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.progress import ProgressDisplay
from fedloom.flows.result import read_result
from fedloom.specs.bundle import load_job
from fedloom.tasks.client_home import client_folder, fleet_folder, make_keys
from fedloom.tasks.losses import record_loss
from fedloom.tasks.masked import session
from fedloom.tasks.model_store import read_model
from fedloom.tasks.reporting.data import read_run
from fedloom.tasks.secure_aggregation.client import RefusedError
from fedloom.tasks.secure_aggregation.messages import make_terms
from fedloom.tasks.step import Place, Run, run_step

MakeRun = Callable[..., Run]
SECURE: dict[str, Any] = {"secure_aggregation": {"enabled": True, "threshold": 3, "dropout_tolerance": 2}}
PRIVACY = {"privacy_config": {"differential_privacy": {"enabled": False}, **SECURE}}
PRIVACY |= {"differential_privacy": None, "secure_aggregation": None}


def masked(make_run: MakeRun, **changes: Any) -> Run:
    orchestration = {"shard_size": 2, "aggregation": {"min_quorum": 3}}
    return make_run(**{**PRIVACY, "min_clients": 4, "orchestration_config": orchestration, "num_rounds": 2, **changes})


def play(run: Run, before: Callable[[str], None] = lambda stage: None, number: int = 1) -> dict[str, Any]:
    """Run a round up to its aggregate; `before` is called before each stage of the clients."""
    if number == 1:
        run_step(run, "validate")
        run_step(run, "initialise")
    shards = run_step(run, "select", number)["shards"]
    chunks = run_step(run, "distribute", number)["chunks"]
    for stage in session.STAGES:
        before(stage)
        for shard in shards:
            if Place(run, number).find(stage, shard) is None:
                run_step(run, stage, number, shard)
    before("unmask")
    for chunk in chunks:
        run_step(run, "unmask", number, chunk)
    return run_step(run, "aggregate", number)


def vanish(run: Run, client: str) -> None:
    """All that a client has is gone, as if its machine were."""
    shutil.rmtree(client_folder(run.fleet.fleet_id, client))


def flat(run: Run, digest: str) -> np.ndarray:
    return np.concatenate([tensor.numpy().ravel() for tensor in read_model(run.store, digest).values()])


@pytest.mark.parametrize("weights", ["uniform", "num_samples"])
def test_masks_change_the_model_by_no_more_than_quantisation(make_run: MakeRun, weights: str) -> None:
    orchestration = {"shard_size": 2, "aggregation": {"min_quorum": 3, "weights": weights}}
    run = masked(make_run, orchestration_config=orchestration)
    took = play(run)
    assert (took["participants"], took["dropouts"], took["aborted"]) == (6, [], None)
    assert took["session"] == {
        "clients": 6, "neighbours": 5, "threshold": 3, "survivors": 3, "ring_bits": 32, "bits": 22,
    }  # fmt: skip
    plain = make_run(orchestration_config=orchestration, min_clients=4, num_rounds=2)
    for name in ("validate", "initialise"):
        run_step(plain, name)
    for shard in run_step(plain, "select", 1)["shards"]:
        run_step(plain, "distribute", 1)
        run_step(plain, "train", 1, shard)
    digest = run_step(plain, "aggregate", 1)["model_digest"]
    rules = run.recipe.masking
    assert rules is not None
    step = rules.clip / (2 ** (rules.bits - 1) - 1)
    share = 1.0 if weights == "uniform" else 0.5  # of the largest weight: every client has at least half of it
    difference = np.abs(flat(run, took["model_digest"]) - flat(plain, digest)).max()
    assert 0 < difference < step / share + 1e-6  # and float32 of the model


@pytest.mark.parametrize("stage", [*session.STAGES[1:], "unmask"])
def test_a_client_that_vanishes_before_a_stage(make_run: MakeRun, stage: str) -> None:
    run = masked(make_run)

    def before(now: str) -> None:
        if now == stage:
            vanish(run, "c3")

    took = play(run, before)
    in_sum = stage in ("confirm_survivors", "reveal_shares", "unmask")  # its vector had arrived
    assert took["participants"] == (6 if in_sum else 5)
    assert took["aborted"] is None
    lost = {"client": "c3", "stage": stage}
    shown = [{key: drop[key] for key in ("client", "stage")} for drop in took["dropouts"]]
    assert shown == ([] if stage == "unmask" else [lost])


@pytest.mark.parametrize(("stage", "counts"), [("mask_update", False), ("reveal_shares", True)])
def test_who_is_lost_after_its_update_is_in_the_sum_has_given_it(make_run: MakeRun, stage: str, counts: bool) -> None:
    run = masked(make_run, num_rounds=1)
    took = play(run, lambda now: vanish(run, "c3") if now == stage else None)
    assert took["participants"] == 5 + counts
    for name in ("evaluate", "gate"):
        run_step(run, name, 1)
    assert ("c3" in run.store.read_json(f"history/fl-tiny/{run.run_id}/round-00001.json")["gave"]) is counts
    told = read_run(run.store, run.run_id).participation
    assert told is not None
    assert told.gave["c3"] == counts


@pytest.mark.parametrize("stage", session.STAGES)
def test_a_shard_that_is_lost_at_a_stage(make_run: MakeRun, stage: str) -> None:
    run = masked(make_run)

    def before(now: str) -> None:
        if now == stage:
            record_loss(run, stage, 1, 1, "evicted")

    took = play(run, before)
    assert took["aborted"] is None
    assert took["participants"] == (6 if stage in ("confirm_survivors", "reveal_shares") else 4)
    assert [(d["client"], d["stage"], d["reason"]) for d in took["dropouts"]] == [
        (client, stage, "the shard was lost: evicted") for client in ("c2", "c3")
    ]


@pytest.mark.parametrize("stage", [*session.STAGES[1:]])
def test_a_session_with_too_few_left_ends_and_the_next_round_is_a_new_one(make_run: MakeRun, stage: str) -> None:
    run = masked(make_run)
    gone = ["c1", "c2", "c4", "c5"]

    def before(now: str) -> None:
        if now == stage:
            for client in gone:
                shutil.move(client_folder(run.fleet.fleet_id, client), fleet_folder(run.fleet.fleet_id) / client)

    took = play(run, before)
    assert took["aborted"] is not None
    assert not took["quorum_met"]
    assert took["model_digest"] == run_step(run, "distribute", 1)["model_digest"]
    run_step(run, "evaluate", 1)
    gate = run_step(run, "gate", 1)
    assert gate["stop"] is False
    assert any("secure aggregation gave no sum" in check["reason"] for check in gate["checks"])
    for client in gone:
        shutil.move(fleet_folder(run.fleet.fleet_id) / client, client_folder(run.fleet.fleet_id, client))
    again = play(run, number=2)
    assert (again["aborted"], again["participants"]) == (None, 6)


def test_what_a_late_process_writes_is_not_part_of_the_session(make_run: MakeRun) -> None:
    run = masked(make_run)
    late: dict[str, Any] = {}

    def before(stage: str) -> None:
        if stage == "mask_update":
            record_loss(run, stage, 1, 0, "no word")
        if stage == "confirm_survivors":
            session.server_before(Place(run, 1), stage)  # the first instance of the next stage freezes this one
            key = Place(run, 1).result_key("mask_update", 0)
            (Path(run.store.url) / key).unlink()
            late.update(run_step(run, "mask_update", 1, 0))

    took = play(run, before)
    assert late["clients"] == 2
    assert (took["participants"], took["aborted"]) == (4, None)


def test_a_stage_that_is_repeated_gives_the_same_bytes(make_run: MakeRun) -> None:
    run = masked(make_run)
    seen: dict[str, Any] = {}

    def before(stage: str) -> None:
        index = [*session.STAGES, "unmask"].index(stage)
        if index > 1:  # the result is lost after the clients have answered, as by a kill before it was written
            last = session.STAGES[index - 1]
            key = Place(run, 1).result_key(last, 0)
            seen[last] = run.store.read_json(key)["files"]
            (Path(run.store.url) / key).unlink()
            run_step(run, last, 1, 0)
            assert run.store.read_json(key)["files"] == seen[last]

    assert play(run, before)["participants"] == 6
    assert seen.keys() == set(CLIENT_STAGES)


def test_a_rotated_key_is_a_dropout_until_the_next_run(make_run: MakeRun) -> None:
    run = masked(make_run)

    def before(stage: str) -> None:
        if stage == "share_keys":
            make_keys(run.fleet, frozenset({"c1"}))

    took = play(run, before)
    assert took["aborted"] is not None or "c1" in {drop["client"] for drop in took["dropouts"]}


def test_nothing_secret_leaves_the_clients(make_run: MakeRun, own_clients: Path, capfd: Any) -> None:
    """Searches all that a run leaves for the identity keys, the session secrets and the updates of every client."""
    run = masked(make_run, num_rounds=1)
    secrets: dict[str, bytes] = {}

    def before(stage: str) -> None:
        for path in own_clients.rglob("*"):
            if path.name == "identity.pem":
                key = serialization.load_pem_private_key(path.read_bytes(), None)
                secrets[str(path)] = key.private_bytes_raw()  # type: ignore[union-attr]
            if path.name == "secrets":
                # The seed of a survivor's own mask is opened by the protocol; its channel and mask keys never are.
                secrets[f"{path} channel"], secrets[f"{path} mask"] = path.read_bytes()[:32], path.read_bytes()[32:64]
            if path.name == session.UPDATE:
                secrets[str(path)] = path.read_bytes()[:64]

    took = play(run, before)
    assert took["participants"] == 6
    assert len(secrets) == 6 * 4
    shown = "".join(capfd.readouterr()).encode()
    everything = [shown, *(path.read_bytes() for path in Path(run.store.url).rglob("*") if path.is_file())]
    from base64 import b64encode

    for where, secret in secrets.items():
        for form in (secret, secret.hex().encode(), b64encode(secret), b64encode(secret).rstrip(b"=")):
            assert not any(form in data for data in everything), where
    assert not list(own_clients.rglob("secrets"))  # closed sessions keep none
    assert not list(own_clients.rglob(session.UPDATE))


def test_the_whole_run_in_process_and_again(make_run: MakeRun, tmp_path: Path) -> None:
    run = masked(make_run)
    plan = compile_plan(load_job(run.folder))
    simulate(plan, run)
    first = read_result(run)
    assert first.participation == {"asked": 12, "updates": 12}
    other = masked(make_run, store=str(tmp_path / "other"))
    simulate(plan, other)  # the same clients, another store: another session, the same sum
    assert read_result(other).model_digest == first.model_digest
    assert "secure aggregation" not in str(first.gate["checks"])


def test_an_update_goes_into_one_session_alone(make_run: MakeRun) -> None:
    """A server that holds two sessions in a round, one without c0, could take their sums apart."""
    run = masked(make_run)
    place = Place(run, 1)
    terms = Path(run.store.url) / place.key("session/terms.json")

    def before(stage: str) -> None:
        if stage == "confirm_survivors":
            kept = {path: path.read_bytes() for path in terms.parent.rglob("*.frozen.json")} | {
                terms: terms.read_bytes()
            }
            terms.unlink()
            for path in kept:
                if path.name not in ("train.frozen.json", "terms.json"):
                    path.unlink()
            for again in session.STAGES[1:4]:
                for shard in (0, 1, 2):
                    (Path(run.store.url) / place.result_key(again, shard)).rename(terms.parent / f"{again}-{shard}")
                    outputs = run_step(run, again, 1, shard)
                    assert outputs["clients"] == (0 if again == "mask_update" else 2)
            assert "went into another session" in outputs["dropouts"][0]["reason"]
            for path, data in kept.items():
                path.write_bytes(data)
            for again in session.STAGES[1:4]:
                for shard in (0, 1, 2):
                    (terms.parent / f"{again}-{shard}").rename(Path(run.store.url) / place.result_key(again, shard))

    assert play(run, before)["participants"] == 6


def test_an_aborted_session_is_closed_in_the_next_round(make_run: MakeRun, own_clients: Path) -> None:
    run = masked(make_run)
    place = Place(run, 1)
    old: dict[str, Path] = {}

    def before(stage: str) -> None:
        if stage == "mask_update":
            for shard in (0, 1):
                record_loss(run, stage, 1, shard, "evicted")
        if stage == "confirm_survivors":
            old.update({path.parent.parent.parent.name: path.parent for path in own_clients.rglob("secrets")})

    assert play(run, before)["aborted"] is not None
    assert len(old) == 6
    assert all((folder / "secrets").exists() for folder in old.values())
    terms = session.session_terms(place)
    assert play(run, number=2)["participants"] == 6
    for name, folder in old.items():
        assert [path.name for path in folder.iterdir()] == ["closed"], name
        with pytest.raises(RefusedError, match="the session is closed"):
            session.open_client(place, terms, name).advertise(terms.encode())
        with pytest.raises(RefusedError, match="went into another session"):
            session.take_update(place, terms, name)  # not even what is trained for that round again


def test_clients_do_not_take_part_in_sums_of_fewer_than_the_plan_says(make_run: MakeRun) -> None:
    """The noise of privacy is shared among the survivors that the plan promises."""
    run = masked(make_run, orchestration_config={"shard_size": 2, "aggregation": {"min_quorum": 4}})

    def before(stage: str) -> None:
        if stage == "advertise_keys":
            place = Place(run, 1)
            session.session_terms(place)
            rules = session.masking(place)
            lowered = make_terms(
                session.server_registry(place), "lowered", tuple(run.fleet.clients), 5, 3, 3, 32, rules.parameters + 2
            )
            (Path(run.store.url) / place.key("session/terms.json")).write_bytes(lowered.encode())

    took = play(run, before)
    assert took["aborted"] is not None
    assert {drop["reason"] for drop in took["dropouts"]} == {
        f"{client}: a sum of 3 of 6 clients is not safe" for client in run.fleet.clients
    }


def test_a_round_without_a_sum_says_so_while_the_run_goes_on(make_run: MakeRun) -> None:
    run = masked(make_run)
    for client in ("c0", "c1", "c2", "c3"):
        (run.folder / "data" / f"{client}.csv").write_text("")
    plan, shown = compile_plan(load_job(run.folder)), io.StringIO()
    with ProgressDisplay(plan, shown) as display:
        simulate(plan, run, display)
    assert "round 1: no new model: secure aggregation gave no sum: only 2 clients" in " ".join(shown.getvalue().split())
