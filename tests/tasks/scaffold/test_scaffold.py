"""SCAFFOLD: the paper's formulas, and a client's state over dropouts and restarts."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedloom.flows.compile import compile_plan
from fedloom.flows.events import StepDone
from fedloom.flows.inline import simulate
from fedloom.flows.result import read_result
from fedloom.specs.bundle import load_job
from fedloom.tasks.client_data import read_windows
from fedloom.tasks.errors import StoreError
from fedloom.tasks.losses import record_loss
from fedloom.tasks.model_store import read_model
from fedloom.tasks.scaffold.shard import read_control
from fedloom.tasks.step import Place, Run, run_step

MakeRun = Callable[..., Run]
Vector = NDArray[np.float64]

LINEAR: dict[str, Any] = {
    "architecture": "Custom",
    "model_hyperparameters": None,
    "model_config": {"custom_class": "tests.tasks.networks:Linear"},
}
RATE, BATCH, EPOCHS = 0.2, 16, 2
PLAIN: dict[str, Any] = {
    "hyperparameters": {"learning_rate": RATE, "optimizer": "SGD"},
    "training_config": {"shuffle": False},
    "batch_size": BATCH,
    "local_epochs": EPOCHS,
}
SCAFFOLD: dict[str, Any] = {**PLAIN, "algorithm": "SCAFFOLD"}


def whole(run: Run, until: Callable[[StepDone], None] | None = None) -> str:
    simulate(compile_plan(load_job(run.folder)), run, until or (lambda _: None))
    return read_result(run).model_digest


def model_after(run: Run, round: int) -> dict[str, torch.Tensor]:
    return read_model(run.store, run_step(run, "aggregate", round)["model_digest"])


def flat(state: dict[str, torch.Tensor]) -> Vector:
    return np.concatenate([state[name].double().numpy().ravel() for name in sorted(state)])


def local_steps(w: Vector, x: Vector, y: Vector, shift: Vector) -> Vector:
    """Plain steps of logistic regression; w is the bias and the weights."""
    w = w.copy()
    for _ in range(EPOCHS):
        for rows in np.split(np.arange(len(x)), range(BATCH, len(x), BATCH)):
            inner = np.column_stack([np.ones(len(rows)), x[rows]])
            error = 1 / (1 + np.exp(-inner @ w)) - y[rows]
            w -= RATE * (error @ inner / len(rows) + shift)
    return w


def test_rounds_follow_the_papers_algorithm(make_run: MakeRun) -> None:
    """Algorithm 1 with option II, in numpy: x and c after three rounds in which half of the clients take part."""
    orchestration = {"shard_size": 2, "aggregation": {"min_quorum": 2, "weights": "uniform"}}
    run = make_run(**LINEAR, **SCAFFOLD, max_clients=3, orchestration_config=orchestration)
    whole(run)
    data = {
        c: read_windows(
            f"data/{c}.csv",
            run.folder,
            run.recipe.inputs,
        )
        for c in run.fleet.clients
    }
    start = read_model(run.store, run_step(run, "initialise")["model_digest"])
    x, c = flat(start), np.zeros(17)
    own = {client: np.zeros(17) for client in run.fleet.clients}
    taken = []
    for round in (1, 2, 3):
        shards = json.loads(Place(run, round).file("select", "decision"))["shards"]
        cohort = [client for shard in shards for client in shard]
        taken += cohort
        changes, variates = [], []
        for client in cohort:
            windows = data[client]
            assert windows.y is not None
            flat_x = windows.x.reshape(len(windows.x), -1).astype(float)
            y = local_steps(x, flat_x, windows.y.astype(float), c - own[client])
            steps = EPOCHS * -(-len(windows.x) // BATCH)
            new = own[client] - c + (x - y) / (steps * RATE)
            changes.append(y - x)
            variates.append(new - own[client])
            own[client] = new
        x = x + np.mean(changes, axis=0)
        c = c + len(cohort) / len(own) * np.mean(variates, axis=0)
        np.testing.assert_allclose(flat(model_after(run, round)), x, atol=2e-6)
    assert len(taken) > len(set(taken)), "no client took part twice"
    order = json.loads(Place(run, 3).file("distribute", "order"))
    assert order["control_digest"]


def test_the_servers_variate_is_the_weighted_mean_of_what_counts(make_run: MakeRun) -> None:
    run = make_run(**LINEAR, **SCAFFOLD, num_rounds=2)
    path = run.folder / "data" / "c1.csv"
    path.write_text("\n".join(path.read_text().split("\n")[:100]))
    whole(run)
    place = Place(run, 2)
    counted = json.loads(place.file("distribute", "controls"))
    size = {client: 12 if client == "c1" else 40 for client in run.fleet.clients}
    mean = sum(n * flat(read_control(run, c, counted[c])) for c, n in size.items()) / sum(size.values())
    order = json.loads(place.file("distribute", "order"))
    np.testing.assert_allclose(flat(read_control(run, None, order["control_digest"])), mean, atol=1e-6)


def test_where_all_clients_have_the_same_data_it_is_fedavg(make_run: MakeRun) -> None:
    models = []
    for name, changes in (("a", SCAFFOLD), ("b", PLAIN)):
        run = make_run(**changes, job_id=f"fl-{name}")
        for client in run.fleet.clients:
            (run.folder / "data" / f"{client}.csv").write_bytes((run.folder / "data" / "c0.csv").read_bytes())
        whole(run)
        models.append(flat(model_after(run, 3)))
    np.testing.assert_allclose(models[0], models[1], atol=1e-5)


def test_it_finds_the_optimum_that_fedavg_drifts_away_from(make_run: MakeRun) -> None:
    """Quadratics with unlike curvature a² and minimum s: after many local steps FedAvg is near the mean of the s."""
    scale, slope = [0.6, 0.7, 0.9, 1.0, 1.2, 1.4], [6.0, -2.0, 1.0, 0.0, 2.0, -1.0]
    best = sum(a**2 * s for a, s in zip(scale, slope, strict=True)) / sum(a**2 for a in scale)
    job = {
        "architecture": "Custom",
        "model_hyperparameters": None,
        "model_config": {"custom_class": "tests.tasks.networks:Slope"},
        "output_schema": {"type": "regression", "label_column": "b"},
        "input_schema": {"reference": "contract.yaml", "signals": ["a"]},
        "window_size": 1,
        "metrics": ["rmse"],
        "num_rounds": 15,
        "local_epochs": 3,
        "batch_size": 4,
        "orchestration_config": {"shard_size": 6, "aggregation": {"min_quorum": 2}},
    }
    found = {}
    for algorithm in ("FedAvg", "SCAFFOLD"):
        run = make_run(**{**PLAIN, **job, "algorithm": algorithm, "job_id": f"fl-{algorithm.lower()}"})
        for client, a, s in zip(run.fleet.clients, scale, slope, strict=True):
            rows = [f"{a * sign},{s * a * sign},0" for sign in (1, -1) * 4]
            (run.folder / "data" / f"{client}.csv").write_text("a,b,label\n" + "\n".join(rows) + "\n")
        whole(run)
        found[algorithm] = float(model_after(run, 15)["layer.weight"])
    assert abs(found["FedAvg"] - best) > 0.2
    assert found["SCAFFOLD"] == pytest.approx(best, abs=0.01)


def test_a_run_killed_anywhere_ends_with_the_same_model(make_run: MakeRun, tmp_path: Any) -> None:
    expected = whole(make_run(**SCAFFOLD, max_clients=4, store=str(tmp_path / "whole")))
    run = make_run(**SCAFFOLD, max_clients=4, store=str(tmp_path / "killed"))
    stops = 0
    while True:
        left = iter(range(3 * stops))

        def stop(event: StepDone, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        try:
            assert whole(run, stop) == expected
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 5


def until_train(run: Run, round: int) -> None:
    run_step(run, "initialise")
    for name in ("select", "distribute"):
        run_step(run, name, round)


def test_a_variate_of_a_lost_shard_does_not_count(make_run: MakeRun) -> None:
    run = make_run(**SCAFFOLD)
    known: list[dict[str, Any]] = []
    for round in (1, 2):
        until_train(run, round)
        for shard in (0, 1, 2):
            run_step(run, "train", round, shard)
        if round == 2:
            record_loss(run, "train", 2, 1, "the node went after its clients had trained")
        run_step(run, "aggregate", round)
        known.append(json.loads(Place(run, round).file("aggregate", "controls")))
    same = {client for client in run.fleet.clients if known[0][client] == known[1][client]}
    assert same == {"c2", "c3"}
    run_step(run, "select", 3)
    run_step(run, "distribute", 3)
    counted = json.loads(Place(run, 3).file("distribute", "controls"))
    assert counted == {client: entry["sha256"] for client, entry in known[1].items()}


def test_below_the_quorum_no_variate_counts(make_run: MakeRun) -> None:
    run = make_run(**SCAFFOLD, min_clients=4, orchestration_config={"shard_size": 2, "aggregation": {"min_quorum": 4}})
    until_train(run, 1)
    run_step(run, "train", 1, 1)
    for shard in (0, 2):
        record_loss(run, "train", 1, shard, "node gone")
    assert not run_step(run, "aggregate", 1)["quorum_met"]
    assert json.loads(Place(run, 1).file("aggregate", "controls")) == {}


def test_a_variate_that_is_gone_is_named(make_run: MakeRun) -> None:
    run = make_run(**SCAFFOLD)
    until_train(run, 1)
    for shard in (0, 1, 2):
        run_step(run, "train", 1, shard)
    run_step(run, "aggregate", 1)
    until_train(run, 2)
    digest = json.loads(Place(run, 2).file("distribute", "controls"))["c0"]
    next((run.store.local_folder or run.folder).rglob(f"{digest}.safetensors")).unlink()
    with pytest.raises(StoreError, match="scaffold/"):
        run_step(run, "train", 2, 0)


@pytest.mark.parametrize(
    "model",
    [
        {"architecture": "LSTM", "model_hyperparameters": {"hidden_dim": 4}},
        {"architecture": "GRU", "model_hyperparameters": {"hidden_dim": 4, "bidirectional": True}},
        {"architecture": "CNN", "model_hyperparameters": {"num_channels": [4]}},
        {"architecture": "ResNet", "model_hyperparameters": {"num_channels": [4, 8]}},
        {"architecture": "Transformer", "model_hyperparameters": {"hidden_dim": 4, "num_heads": 2}},
        {**LINEAR, "model_config": {"custom_class": "tests.tasks.networks:Buffered"}},
    ],
    ids=lambda m: m.get("architecture", ""),
)
def test_every_network_trains_with_it_and_only_parameters_have_variates(
    make_run: MakeRun, model: dict[str, Any]
) -> None:
    run = make_run(**{**SCAFFOLD, **model}, num_rounds=2)
    whole(run)
    state = model_after(run, 2)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
    counted = json.loads(Place(run, 2).file("distribute", "controls"))
    names = set(read_control(run, "c0", counted["c0"]))
    assert names == {name for name in state if not name.startswith(("frozen", "norm.running"))}
    down = run_step(run, "distribute", 2)
    assert down["bytes_down"] > run_step(run, "distribute", 1)["bytes_down"]
