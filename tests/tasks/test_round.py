"""The steps of a round, one by one, on the run store."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.result import read_result
from fedloom.specs.bundle import load_job
from fedloom.tasks import train
from fedloom.tasks.client import fit, make_order
from fedloom.tasks.client_data import ClientDataError, read_windows
from fedloom.tasks.errors import ConfigurationError, RunError, ShardLostError, StoreError
from fedloom.tasks.evaluate import _sample
from fedloom.tasks.gather import client_figures
from fedloom.tasks.losses import record_loss
from fedloom.tasks.model_store import model_key, read_model
from fedloom.tasks.models import build_model
from fedloom.tasks.step import Place, Run, load_step, run_step

MakeRun = Callable[..., Run]


def until(run: Run, last: str, shards: list[int] | None = None) -> dict[str, Any]:
    """Run the first round up to a step; `shards` restricts the training."""
    run_step(run, "initialise")
    outputs: dict[str, Any] = {}
    for name in ("select", "distribute", "train", "aggregate", "evaluate", "gate"):
        if name == "train":
            for shard in run_step(run, "select", 1)["shards"] if shards is None else shards:
                run_step(run, "train", 1, shard)
        else:
            outputs = run_step(run, name, 1)
        if name == last:
            return outputs
    raise AssertionError(last)


def test_the_initial_model_follows_from_the_seed(make_run: MakeRun) -> None:
    digests = [run_step(make_run(seed=seed), "initialise")["model_digest"] for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_bytes_are_counted_and_a_damaged_model_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    outputs = until(run, "distribute")
    size = len(run.store.read(model_key(outputs["model_digest"])))
    assert (outputs["model_bytes"], outputs["bytes_down"]) == (size, 6 * size)
    order = run.store.read_json(run.key("round-00001", "order.json"))
    assert order["model_digest"] == outputs["model_digest"]
    assert order["training"]["local_epochs"] == 2
    run.store.write(model_key(outputs["model_digest"]), b"damaged")
    with pytest.raises(StoreError, match="is damaged"):
        load_step("distribute")(Place(run, 1))


@pytest.mark.parametrize("weights", ["num_samples", "uniform"])
def test_the_new_model_is_the_weighted_mean_of_the_clients_updates(make_run: MakeRun, weights: str) -> None:
    orchestration = {"shard_size": 4, "aggregation": {"min_quorum": 2, "weights": weights}}
    run = make_run(orchestration_config=orchestration)
    (run.folder / "data" / "c1.csv").write_text(
        "\n".join((run.folder / "data" / "c1.csv").read_text().split("\n")[:100])
    )
    digest = until(run, "aggregate")["model_digest"]

    start = read_model(run.store, run_step(run, "initialise")["model_digest"])
    order = make_order(run.recipe, run.plan_digest, 1, "", 0)
    total = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in start.items()}
    weight = 0.0
    for client in run.fleet.clients:
        windows = read_windows(f"data/{client}.csv", run.folder, run.recipe.inputs)
        update = fit(order, client, start, windows, build_model(run.recipe.model))
        own = len(windows.x) if weights == "num_samples" else 1
        weight += own
        for name, delta in update.delta.items():
            total[name] += own * delta.double()
    for name, tensor in read_model(run.store, digest).items():
        expected = (start[name].double() + total[name] / weight).float()
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-7)


BAD_DATA = {
    "missing": (lambda p: p.unlink(), "not"),
    "empty": (lambda p: p.write_text(""), "Empty"),
    "wrong columns": (lambda p: p.write_text("a,label\n1,0\n"), "b"),
    "too short": (lambda p: p.write_text("a,b,label\n1,2,0\n"), "window"),
    "not a number": (lambda p: p.write_text("a,b,label\n" + "nan,1,0\n" * 20), "a"),
    "text": (lambda p: p.write_text("a,b,label\n" + "x,1,0\n" * 20), "a"),
    "binary": (lambda p: p.write_bytes(bytes(range(256)) * 9), "cannot be read"),
}


@pytest.mark.parametrize("what", BAD_DATA)
def test_a_client_with_bad_data_is_a_dropout_with_its_reason(make_run: MakeRun, what: str) -> None:
    run = make_run()
    damage, word = BAD_DATA[what]
    damage(run.folder / "data" / "c0.csv")
    outputs = until(run, "aggregate")
    assert outputs["participants"] == 5
    assert [d["client"] for d in outputs["dropouts"]] == ["c0"]
    assert word in outputs["dropouts"][0]["reason"]


def test_a_lost_shard_is_judged_by_the_quorum(make_run: MakeRun) -> None:
    run = make_run(orchestration_config={"shard_size": 2, "aggregation": {"min_quorum": 4}}, min_clients=4)
    record_loss(run, "train", 1, 1, "node gone")
    outputs = until(run, "aggregate", shards=[0, 2])
    assert (outputs["participants"], outputs["quorum_met"]) == (4, True)
    assert [d["reason"] for d in outputs["dropouts"]] == ["the shard was lost: node gone"] * 2
    with pytest.raises(ShardLostError, match="node gone"):
        run_step(run, "train", 1, 1)


def test_a_shard_that_has_not_run_is_not_taken_as_lost(make_run: MakeRun) -> None:
    with pytest.raises(ConfigurationError, match="step 'train' of round 1, shard 1, must run first"):
        until(make_run(), "aggregate", shards=[0, 2])


def test_below_the_quorum_the_model_stays_and_the_gate_ends_the_run(make_run: MakeRun) -> None:
    run = make_run(orchestration_config={"shard_size": 2, "aggregation": {"min_quorum": 4}}, min_clients=4)
    for shard in (0, 2):
        record_loss(run, "train", 1, shard, "node gone")
    gate = until(run, "gate", shards=[1])
    assert run_step(run, "aggregate", 1)["model_digest"] == run_step(run, "initialise")["model_digest"]
    assert (gate["stop"], gate["decision"], gate["promoted"]) == (True, "fail", False)
    assert gate["stop_reason"] == "2 of 6 clients gave an update, the quorum is 4"
    assert not run.store.exists("champions/fl-tiny.json")


def test_a_step_that_has_finished_is_not_run_again(make_run: MakeRun) -> None:
    run = make_run()
    first = until(run, "aggregate")
    for client in run.fleet.clients:
        (run.folder / "data" / f"{client}.csv").unlink()
    assert until(run, "aggregate") == first


def test_a_step_whose_file_is_gone_is_run_again(make_run: MakeRun) -> None:
    run = make_run()
    digest = until(run, "aggregate")["model_digest"]
    (Path(run.store.url) / model_key(digest)).unlink()
    assert run_step(run, "aggregate", 1)["model_digest"] == digest
    assert run.store.exists(model_key(digest))


def test_a_step_out_of_turn_and_an_unknown_step_are_refused(make_run: MakeRun) -> None:
    run = make_run()
    with pytest.raises(ConfigurationError, match="step 'aggregate' of round 1 must run first"):
        run_step(run, "evaluate", 1)
    with pytest.raises(ConfigurationError, match="did you mean 'aggregate'"):
        run_step(run, "agregate", 1)


def test_metrics_come_from_the_holdout_and_a_sample_of_it_is_stratified(make_run: MakeRun) -> None:
    holdout = {"source": "holdout.csv", "size": 20, "stratified": True}
    run = make_run(holdout=None, validation_config={"holdout_dataset": holdout})
    outputs = until(run, "evaluate")
    assert outputs["windows"] == 20
    assert 0.0 <= outputs["metrics"]["auc"] <= 1.0


def test_a_holdout_that_cannot_be_read_stops_the_run(make_run: MakeRun) -> None:
    with pytest.raises(RunError, match=r"the holdout nowhere\.csv cannot be read"):
        until(make_run(holdout="nowhere.csv"), "evaluate")


def test_a_job_without_holdout_ends_inconclusive(make_run: MakeRun) -> None:
    run = make_run(holdout=None, num_rounds=1)
    gate = until(run, "gate")
    assert gate["decision"] == "inconclusive"
    assert {c["name"]: c["outcome"] for c in gate["checks"]}["target auc"] == "inconclusive"


def test_one_class_holdout_is_inconclusive_not_a_crash(make_run: MakeRun) -> None:
    run = make_run(num_rounds=1)
    (run.folder / "holdout.csv").write_text("a,b,label\n" + "0.5,0.1,0\n" * 64)
    gate = until(run, "gate")
    checks = {c["name"]: c for c in gate["checks"]}
    assert gate["decision"] == "inconclusive"
    assert "one class only" in checks["target auc"]["reason"]


def test_every_round_stands_once_in_round_jsonl(tiny_job: Path, make_run: MakeRun) -> None:
    run = make_run()
    plan = compile_plan(load_job(run.folder))
    simulate(plan, run)
    simulate(plan, run)
    lines = run.store.read(run.key("round.jsonl")).splitlines()
    assert len(lines) == read_result(run).rounds == 3


def test_a_client_that_fails_in_any_way_does_not_take_its_shard_along(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_at_c2(order: Any, client: str, *rest: Any) -> Any:
        if client == "c2":
            raise ZeroDivisionError("a bug in a custom network")
        return fit(order, client, *rest)

    monkeypatch.setattr(train, "fit", fails_at_c2)
    outputs = until(make_run(), "aggregate")
    assert outputs["participants"] == 5
    assert outputs["dropouts"] == [{"client": "c2", "reason": "ZeroDivisionError: a bug in a custom network"}]


def test_data_that_never_arrives_makes_a_late_client(make_run: MakeRun) -> None:
    run = make_run()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/c0.csv"
        with pytest.raises(ClientDataError, match="late: reading the data took more than"):
            run.windows.read(url, run.folder, run.recipe.inputs, timeout_s=0.5)


def test_an_autoencoder_needs_no_labels(make_run: MakeRun) -> None:
    model = {"architecture": "Autoencoder", "output_schema": "reconstruction_error"}
    run = make_run(model_hyperparameters={"latent_dim": 2}, metrics=["reconstruction_error", "auc"], **model)
    for path in [*(run.folder / "data").iterdir(), run.folder / "holdout.csv"]:
        rows = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
        path.write_text("\n".join(rows) + "\n")
    outputs = until(run, "evaluate")
    assert run_step(run, "aggregate", 1)["participants"] == 6
    assert outputs["metrics"]["reconstruction_error"] > 0
    assert outputs["undefined"] == {"auc": "the held-out data has no labels"}


def test_a_holdout_label_that_is_no_class_stops_the_run(make_run: MakeRun) -> None:
    run = make_run()
    path = run.folder / "holdout.csv"
    path.write_text(path.read_text().replace(",1\n", ",4\n"))
    with pytest.raises(RunError, match="the holdout has label 4; the model's classes are 0 to 1"):
        until(run, "evaluate")


@pytest.mark.parametrize("result", [b"{}", b"[]", b'{"outputs": {}}'])
def test_a_damaged_result_is_named(make_run: MakeRun, result: bytes) -> None:
    run = make_run()
    until(run, "select")
    run.store.write(run.key("round-00001", "select.json"), result)
    with pytest.raises(StoreError, match=r"select\.json .* is damaged; delete it and run again"):
        run_step(run, "distribute", 1)


def test_a_sample_of_the_holdout_has_the_size_asked_for() -> None:
    y = np.repeat([0, 1, 2], 30)
    rows = _sample([y], 90, 20, np.random.default_rng(0))
    assert len(rows) == 20
    assert np.bincount(y[rows]).tolist() == [7, 7, 6]


def test_lines_of_rounds_are_made_anew_when_the_file_lacks_them(make_run: MakeRun) -> None:
    run = make_run()
    plan = compile_plan(load_job(run.folder))
    simulate(plan, run)
    whole = read_result(run)
    lines = run.store.read(run.key("round.jsonl"))
    run.store.write(run.key("round.jsonl"), lines.splitlines(keepends=True)[1])
    assert read_result(run) == whole


def test_figures_of_single_clients_are_kept_where_no_privacy_is_promised(make_run: MakeRun) -> None:
    run = make_run(num_rounds=1)
    until(run, "aggregate")
    figures = client_figures(Place(run, 1))
    assert sorted(figures) == sorted(run.fleet.clients)
    assert all(each["samples"] == 40 and each["norm"] > 0 and each["weight"] == 40 for each in figures.values())


def test_a_shard_that_finishes_after_it_was_given_up_stays_lost(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(num_rounds=1)
    until(run, "distribute")
    honest = train.fit

    def given_up_meanwhile(order: Any, client: str, *rest: Any) -> Any:
        record_loss(run, "train", 1, 0, "node gone")
        return honest(order, client, *rest)

    monkeypatch.setattr(train, "fit", given_up_meanwhile)
    with pytest.raises(ShardLostError, match="node gone"):
        run_step(run, "train", 1, 0)
    found = Place(run, 1).find("train", 0)
    assert found is not None
    assert found["lost"] == "node gone"
