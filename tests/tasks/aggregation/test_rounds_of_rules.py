"""Rounds of the tiny job with rules that compare single updates, and with an optimiser at the server."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.progress import ProgressDisplay
from fedloom.flows.result import read_result
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import load_job
from fedloom.tasks import train
from fedloom.tasks.aggregation.updates import read_updates
from fedloom.tasks.client import ClientUpdate, fit
from fedloom.tasks.model_store import bytes_to_tensors, read_model
from fedloom.tasks.step import Place, Run, run_step
from tests.conftest import write_job

MakeRun = Callable[..., Run]
BOUNDS = {"weighting": {"clip_weights": {"max_weight": 0.99}}}


def one_round(run: Run, number: int = 1) -> dict[str, Any]:
    """A round up to its aggregate."""
    if number == 1:
        run_step(run, "validate")
        run_step(run, "initialise")
    shards = run_step(run, "select", number)["shards"]
    run_step(run, "distribute", number)
    for shard in shards:
        run_step(run, "train", number, shard)
    return run_step(run, "aggregate", number)


def hostile(monkeypatch: pytest.MonkeyPatch, clients: tuple[str, ...], change: Callable[[Any], Any]) -> None:
    """Let some clients change the updates that they send."""

    def fits(order: Any, client: str, *rest: Any) -> ClientUpdate:
        update = fit(order, client, *rest)
        if client not in clients:
            return update
        return dataclasses.replace(update, delta={name: change(tensor) for name, tensor in update.delta.items()})

    monkeypatch.setattr(train, "fit", fits)


def test_single_updates_give_the_mean_that_sums_give(make_run: MakeRun) -> None:
    """Float64 sums in another order; in the float32 model that is one unit in the last place at most."""
    sums, single = make_run(), make_run(aggregation_config=BOUNDS)
    by_sum, by_one = one_round(sums), one_round(single)
    assert (by_one["samples"], by_one["participants"]) == (by_sum["samples"], by_sum["participants"])
    assert by_one["train_loss"] == pytest.approx(by_sum["train_loss"], rel=1e-12)
    a, b = (read_model(run.store, took["model_digest"]) for run, took in ((sums, by_sum), (single, by_one)))
    for name in a:
        ulp = torch.finfo(torch.float32).eps * a[name].abs()
        assert bool(((a[name] - b[name]).abs() <= ulp).all())


@pytest.mark.parametrize("method", ["median", "trimmed_mean", "krum", "multi_krum"])
def test_a_whole_run_with_a_robust_rule_withstands_an_update_of_noise(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    hostile(monkeypatch, ("c0",), lambda tensor: torch.full_like(tensor, 1e30))
    run = make_run(aggregation_config={"byzantine_robust": {"enabled": True, "method": method,
        "krum_config": {"exclude_furthest": 1}, "trimmed_mean_config": {"trim_ratio": 0.2}}},
        orchestration_config={"shard_size": 2, "aggregation": {"min_quorum": 5}}, min_clients=5)  # fmt: skip
    simulate(compile_plan(load_job(run.folder)), run)
    result = read_result(run)
    assert result.gate["decision"] == "pass"
    assert result.metrics["auc"] > 0.6


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda tensor: tensor * 1e6, "gradient_norm"),
        (lambda tensor: -tensor, "data_poisoning_score"),
        (torch.zeros_like, "data_poisoning_score"),
    ],
    ids=["scaled", "flipped", "constant"],
)
def test_what_is_wrong_with_an_update_is_named(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], check: str
) -> None:
    hostile(monkeypatch, ("c2",), change)
    checks = [
        {"name": "gradient_norm", "threshold": 100.0, "action": "exclude"},
        {"name": "data_poisoning_score", "threshold": 0.5, "action": "exclude"},
    ]
    run = make_run(aggregation_config={"quality_checks": {"checks": checks}})
    took = one_round(run)
    assert [(r["client"], r["check"]) for r in took["excluded"]] == [("c2", check)]
    assert (took["participants"], took["quorum_met"]) == (5, True)
    quality = json.loads(Place(run, 1).file("aggregate", "quality"))
    assert [r["client"] for r in quality["excluded"]] == ["c2"]
    assert sum(quality["shares"].values()) == pytest.approx(1.0)
    run_step(run, "evaluate", 1)
    run_step(run, "gate", 1)
    line = json.loads(run.store.read(run.key("round.jsonl")))
    assert (line["excluded"], line["flagged"], line["clipped"]) == (1, 0, 0)


@pytest.mark.parametrize("single", [True, False])
def test_an_update_that_is_not_finite_is_a_dropout(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, single: bool
) -> None:
    hostile(monkeypatch, ("c2",), lambda tensor: tensor * float("nan"))
    took = one_round(make_run(aggregation_config=BOUNDS if single else None))
    assert took["dropouts"] == [{"client": "c2", "reason": "the update is not finite"}]
    assert (took["participants"], took["quorum_met"]) == (5, True)


def test_where_every_update_is_excluded_the_model_stays_and_the_gate_says_why(make_run: MakeRun) -> None:
    checks = [{"name": "gradient_norm", "threshold": 1e-9, "action": "exclude"}]
    run = make_run(aggregation_config={"quality_checks": {"checks": checks}})
    simulate(compile_plan(load_job(run.folder)), run)
    result = read_result(run)
    assert result.model_digest == run_step(run, "initialise")["model_digest"]
    assert result.rounds == 1
    reason = "the updates gave no mean: all 6 updates were excluded, most by the check gradient_norm"
    assert result.gate["stop_reason"] == reason
    assert result.gate["decision"] == "fail"


def test_too_few_updates_for_a_rule_are_a_named_outcome(make_run: MakeRun) -> None:
    robust = {"enabled": True, "method": "krum", "krum_config": {"exclude_furthest": 1}}
    run = make_run(
        aggregation_config={"byzantine_robust": robust},
        orchestration_config={"shard_size": 2, "aggregation": {"min_quorum": 5}}, min_clients=5,
    )  # fmt: skip
    for client in ("c0", "c1"):
        (run.folder / "data" / f"{client}.csv").unlink()
    took = one_round(run)
    assert took["withheld"] == "krum with 1 hostile updates needs at least 5, there are 4"
    assert (took["quorum_met"], took["participants"]) == (False, 4)


def test_losses_before_training_are_measured_where_a_check_asks(make_run: MakeRun) -> None:
    checks = [{"name": "loss_improvement", "min_improvement": 10.0, "action": "flag"}]
    took = one_round(make_run(aggregation_config={"quality_checks": {"checks": checks}}))
    assert [r["client"] for r in took["flagged"]] == [f"c{i}" for i in range(6)]
    assert took["participants"] == 6
    assert took["flagged"][0]["reason"].startswith("loss_improvement is 0.")


def test_a_forward_pass_before_training_does_not_change_what_is_trained(make_run: MakeRun) -> None:
    checks = [{"name": "loss_improvement", "min_improvement": -10.0, "action": "flag"}]
    plain, asked = make_run(aggregation_config=BOUNDS), make_run(
        aggregation_config={**BOUNDS, "quality_checks": {"checks": checks}}
    )  # fmt: skip
    assert one_round(plain)["model_digest"] == one_round(asked)["model_digest"]


def test_momentum_at_the_server_remembers_the_round_before(make_run: MakeRun) -> None:
    settings = {"learning_rate": 0.01, "optimizer": "Adam", "server_optimizer": {"name": "SGD", "momentum": 0.5}}
    run = make_run(algorithm="FedOpt", hyperparameters=settings)
    start = read_model(run.store, one_round_start(run))
    first = one_round(run)
    after_first = read_model(run.store, first["model_digest"])
    plain = make_run(store=run.store.url, name="plain")
    assert one_round(plain)["model_digest"] == first["model_digest"]  # the first step of momentum is the mean itself
    run_rest_of_round(run)
    second = one_round(run, 2)
    state = server_state(run, 2)
    model = read_model(run.store, second["model_digest"])
    for name, tensor in model.items():
        torch.testing.assert_close(tensor, (after_first[name].double() + state[f"m/{name}"]).float(), rtol=0, atol=0)
        before = server_state(run, 1)[f"m/{name}"]
        torch.testing.assert_close(before.float(), after_first[name] - start[name], rtol=0, atol=1e-6)


def one_round_start(run: Run) -> str:
    run_step(run, "validate")
    return str(run_step(run, "initialise")["model_digest"])


def run_rest_of_round(run: Run) -> None:
    run_step(run, "evaluate", 1)
    run_step(run, "gate", 1)


def server_state(run: Run, number: int) -> dict[str, torch.Tensor]:
    stored = Place(run, number).result("aggregate")["files"]["server_state"]
    return bytes_to_tensors(run.store.read(stored["key"], expect=stored["sha256"]), "state")


@pytest.mark.parametrize("algorithm", ["FedAdam", "FedYogi"])
def test_a_run_with_a_server_optimizer_that_was_cut_off_ends_with_the_same_model(
    make_run: MakeRun, algorithm: str
) -> None:
    whole = make_run(algorithm=algorithm)
    plan = compile_plan(load_job(whole.folder))
    simulate(plan, whole)
    cut = make_run(algorithm=algorithm, store=whole.store.url, name="cut")
    one_round(cut)
    run_rest_of_round(cut)
    one_round(cut, 2)
    simulate(plan, cut)
    assert read_result(cut).model_digest == read_result(whole).model_digest


def test_custom_weights_are_a_column_of_the_fleet(make_run: MakeRun) -> None:
    custom = {"shard_size": 2, "aggregation": {"min_quorum": 2, "weights": "custom", "weight_column": "data_samples"}}
    run = make_run(orchestration_config=custom)
    assert one_round(run)["quorum_met"]
    (weight,) = {Place(run, 1).result("train", 0)["outputs"]["weight"]}
    assert weight == 320 + 319


def test_clients_of_no_weight_are_a_named_outcome(make_run: MakeRun) -> None:
    folder = make_run().folder
    rows = (folder / "fleet.csv").read_text().splitlines()
    shares = ["share", *["0"] * 5, "1"]
    fleet = "\n".join(f"{row},{share}" for row, share in zip(rows, shares, strict=True)) + "\n"
    custom = {"shard_size": 2, "aggregation": {"min_quorum": 2, "weights": "custom", "weight_column": "share"}}
    write_job(folder, orchestration_config=custom)
    (folder / "fleet.csv").write_text(fleet)
    (folder / "data" / "c5.csv").unlink()
    bundle = load_job(folder)
    run = open_run(compile_plan(bundle), bundle, str(folder / "store"))
    took = one_round(run)
    assert (took["participants"], took["quorum_met"]) == (5, False)
    assert took["withheld"] == "no client that gave an update has a weight"


@pytest.mark.parametrize("rule", [None, "median", "trimmed_mean", "multi_krum"])
def test_a_fifth_of_the_clients_turns_the_mean_around_and_not_the_robust_rules(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, rule: str | None
) -> None:
    hostile(monkeypatch, ("c3",), lambda tensor: -8 * tensor)  # one of six here
    settings = {"krum_config": {"exclude_furthest": 1}, "trimmed_mean_config": {"trim_ratio": 0.2}}
    robust = {"byzantine_robust": {"enabled": True, "method": rule, **settings}}
    run = make_run(
        aggregation_config=None if rule is None else robust,
        orchestration_config={"shard_size": 3, "aggregation": {"min_quorum": 5}},
        min_clients=5,
        num_rounds=4,
    )
    simulate(compile_plan(load_job(run.folder)), run)
    auc = read_result(run).metrics["auc"]
    assert auc < 0.5 if rule is None else auc > 0.65


def test_an_optimizer_of_the_server_goes_with_masks(make_run: MakeRun) -> None:
    """It sees the sum that the masks show, which is that of the open updates but for quantisation."""
    changes: dict[str, Any] = {"algorithm": "FedAdam", "min_clients": 4, "num_rounds": 2}
    masks = {"enabled": True, "threshold": 3, "dropout_tolerance": 2}
    models = []
    for secure in (False, masks):
        run = make_run(secure_aggregation=secure, **changes)
        simulate(compile_plan(load_job(run.folder)), run)
        models.append(read_model(run.store, read_result(run).model_digest))
        assert set(server_state(run, 2)) == {f"{kind}/{name}" for kind in "mv" for name in models[0]}
    for name in models[0]:
        torch.testing.assert_close(models[0][name], models[1][name], rtol=0, atol=1e-4)


def test_where_records_are_private_the_server_sees_noisy_updates_and_no_losses(make_run: MakeRun) -> None:
    noise = {"enabled": True, "mechanism": "DP-SGD", "noise_multiplier": 1.0, "max_grad_norm": 1.0, "delta": 1e-5}
    run = make_run(differential_privacy=noise, num_rounds=1, aggregation_config={"byzantine_robust": "median"})
    simulate(compile_plan(load_job(run.folder)), run)
    place = Place(run, 1)
    given = [u for shard in range(3) for u in read_updates(place.file("train", "updates", shard), "updates")]
    assert [update.client for update in given] == [f"c{i}" for i in range(6)]
    assert all(update.loss is None and update.loss_before is None for update in given)
    assert json.loads(place.file("aggregate", "quality"))["shares"] is None
    assert place.result("aggregate")["outputs"]["train_loss"] is None


def test_custom_weights_go_with_masks(make_run: MakeRun) -> None:
    custom = {"shard_size": 2, "aggregation": {"min_quorum": 4, "weights": "custom", "weight_column": "data_samples"}}
    masks = {"enabled": True, "threshold": 3, "dropout_tolerance": 2}
    models = []
    for secure in (False, masks):
        run = make_run(secure_aggregation=secure, orchestration_config=custom, min_clients=4, num_rounds=1)
        simulate(compile_plan(load_job(run.folder)), run)
        models.append(read_model(run.store, read_result(run).model_digest))
    for name in models[0]:
        torch.testing.assert_close(models[0][name], models[1][name], rtol=0, atol=2e-6)


def test_a_round_that_does_not_count_leaves_the_servers_optimizer_as_it_was(make_run: MakeRun) -> None:
    checks = [{"name": "gradient_norm", "threshold": 1e-9, "action": "exclude"}]
    run = make_run(algorithm="FedYogi", aggregation_config={"quality_checks": {"checks": checks}})
    assert not one_round(run)["quorum_met"]
    assert all(float(tensor.abs().max()) == 0 for name, tensor in server_state(run, 1).items() if name[0] == "m")


def test_what_became_of_updates_is_shown_while_a_run_goes_on(make_run: MakeRun) -> None:
    checks = [
        {"name": "gradient_norm", "threshold": 1e-9, "action": "flag"},
        {"name": "data_poisoning_score", "threshold": 0.999, "action": "exclude"},
    ]
    run = make_run(aggregation_config={"quality_checks": {"checks": checks}}, num_rounds=1)
    plan = compile_plan(load_job(run.folder))
    shown = io.StringIO()
    with ProgressDisplay(plan, shown) as display:
        simulate(plan, run, display)
    assert "round 1: flagged c0 and 5 more: gradient_norm is 0." in shown.getvalue()


def test_clients_after_the_deadline_of_their_shard_are_dropouts(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def takes_an_hour(order: Any, client: str, *rest: Any) -> ClientUpdate:
        nonlocal now
        given = fit(order, client, *rest)
        now += 3600.0
        return given

    monkeypatch.setattr(train, "fit", takes_an_hour)
    monkeypatch.setattr(train.time, "monotonic", lambda: now)
    orchestration = {"shard_size": 3, "aggregation": {"min_quorum": 2}, "timing": {"max_wait_time": 90}}
    took = one_round(make_run(orchestration_config=orchestration))
    late = "late: the shard's deadline of 5400 s has passed"
    assert took["dropouts"] == [{"client": client, "reason": late} for client in ("c2", "c5")]
    assert (took["participants"], took["quorum_met"]) == (4, True)
