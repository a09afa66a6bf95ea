"""Rounds with differential privacy: noise of the right size, the same after a repeat, and nothing said without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.result import as_text, read_result
from fedloom.specs.bundle import load_job
from fedloom.tasks.aggregate import mean_update
from fedloom.tasks.client import clipped
from fedloom.tasks.gather import Gathered
from fedloom.tasks.model_store import read_model
from fedloom.tasks.privacy.accounting import Skellam
from fedloom.tasks.privacy.mechanism import mechanism_of, own_variance
from fedloom.tasks.privacy.noise import noise_source, own_secret, skellam
from fedloom.tasks.recipe import MaskingRecipe, PrivacyRecipe
from fedloom.tasks.secure_aggregation.quantise import Quantiser
from fedloom.tasks.selection.draw import draw_each
from fedloom.tasks.step import Place, Run, run_step

MakeRun = Callable[..., Run]
RECORDS = {"mechanism": "DP-SGD", "delta": 1e-5, "max_grad_norm": 1.0, "epsilon": 8.0}
CLIENTS = {"mechanism": "DP-FedAvg", "delta": 1e-3, "max_grad_norm": 0.5, "noise_multiplier": 2.0}
SECURE = {"enabled": True, "threshold": 3, "dropout_tolerance": 2}


def private(make_run: MakeRun, promise: dict[str, Any], secure: bool = False, **changes: Any) -> Run:
    spec = {
        "differential_privacy": {"enabled": True, **promise},
        "secure_aggregation": SECURE if secure else {"enabled": False},
    }
    orchestration = {"shard_size": 2, "aggregation": {"min_quorum": 3, "weights": "uniform"}}
    fixed = {"differential_privacy": None, "secure_aggregation": None, "privacy_config": spec, "min_clients": 4}
    return make_run(**{**fixed, "orchestration_config": orchestration, **changes})


def whole(run: Run) -> str:
    simulate(compile_plan(load_job(run.folder)), run)
    return read_result(run).model_digest


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("promise", [RECORDS, CLIENTS], ids=["records", "clients"])
def test_a_run_ends_with_what_it_cost(make_run: MakeRun, tmp_path: Path, promise: dict[str, Any], secure: bool) -> None:
    run = private(make_run, promise, secure)
    digest = whole(run)
    result = read_result(run)
    assert result.privacy is not None
    assert run.recipe.privacy is not None
    assert result.privacy["epsilon"] == pytest.approx(run.recipe.privacy.epsilon)
    assert "(ε, δ) = (" in as_text(result, load_job(run.folder))
    page = run.store.read(run.key("summary.md")).decode()
    assert "epsilon" in page
    assert result.privacy["statement"] in page
    rounds = run.store.read(run.key("round.jsonl")).decode()
    assert '"train_loss":null' in rounds
    assert '"train_loss":0' not in rounds
    again = private(make_run, promise, secure, store=str(tmp_path / "again"))
    assert whole(again) == digest  # the same secrets, model and data give the same noise


def test_other_secrets_give_other_noise(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = whole(private(make_run, RECORDS, num_rounds=1))
    monkeypatch.setenv("FEDLOOM_CLIENTS", str(tmp_path / "elsewhere"))
    assert whole(private(make_run, RECORDS, num_rounds=1, store=str(tmp_path / "again"))) != first


@pytest.mark.parametrize("secure", [False, True])
def test_the_noise_on_a_sum_has_its_size(make_run: MakeRun, secure: bool) -> None:
    """Updates of at most 1e-3 drown in noise of 100 · 1e-3: what moves the model is the noise."""
    promise = {**CLIENTS, "max_grad_norm": 0.1, "noise_multiplier": 100.0}
    run = private(make_run, promise, secure, num_rounds=1, model_hyperparameters={"hidden_dims": [100, 100]})
    whole(run)
    before = read_model(run.store, run_step(run, "initialise")["model_digest"])
    after = read_model(run.store, run_step(run, "aggregate", 1)["model_digest"])
    moved = np.concatenate([(after[name] - before[name]).numpy().ravel() for name in before])
    # Under masks each of the 6 adds what 3 survivors need: the noise on the sum is √2 larger than accounted.
    expected = 100.0 * 0.1 / 6 * (np.sqrt(2) if secure else 1.0)
    assert len(moved) > 10_000
    assert abs(moved.std() / expected - 1) < 0.05
    assert abs(moved.mean()) < expected / 20


@pytest.mark.parametrize(("first", "falls"), [(0.1, False), (1_000.0, True)])
def test_the_norm_follows_the_updates(make_run: MakeRun, first: float, falls: bool) -> None:
    """From far below all updates it rises every round, from far above it falls; the factor is exp(±0.2/2) and noise."""
    adaptive = {"target_quantile": 0.5, "learning_rate": 0.2, "count_noise": 0.2}
    promise = {**CLIENTS, "max_grad_norm": first, "noise_multiplier": 0.2, "adaptive_clip": adaptive}
    run = private(make_run, promise, num_rounds=4)
    digest = whole(run)
    clips = [line["clip"] for line in map(json.loads, run.store.read(run.key("round.jsonl")).splitlines())]
    assert clips[0] == first
    steps = np.diff(np.log(clips))
    assert len(steps) == 3
    assert all(steps < 0) if falls else all(steps > 0)
    assert abs(abs(steps.mean()) - 0.1) < 0.03
    again = private(make_run, promise, num_rounds=4, store=str(run.folder.parent / "again"))
    assert whole(again) == digest


def test_updates_are_clipped_as_a_whole() -> None:
    import torch

    delta = {"a": torch.full((3,), 3.0), "b": torch.full((1,), 3.0)}
    short = clipped(delta, 1.5)
    assert float(sum(t.square().sum() for t in short.values()).sqrt()) == pytest.approx(1.5)
    assert clipped(delta, 7.0) is delta


def test_a_noise_source_depends_on_all_that_it_is_for(tmp_path: Path) -> None:
    secret = own_secret(tmp_path)
    assert own_secret(tmp_path) == secret
    assert (tmp_path / "noise.key").stat().st_mode & 0o077 == 0
    places = [("a", 1), ("a", 2), ("b", 1), ("a1",)]
    drawn = [noise_source(secret, *place).random() for place in places]
    assert len(set(drawn)) == 4
    assert noise_source(secret, "a", 1).random() == drawn[0]
    assert noise_source(bytes(32), "a", 1).random() != drawn[0]


@pytest.mark.parametrize("variance", [2.0**10, 2.0**30, 2.0**40])
def test_skellam_noise_is_right_up_to_the_largest(variance: float) -> None:
    drawn = skellam(variance, 200_000, np.random.default_rng(4)).astype(float)
    assert abs(drawn.mean()) < 0.01 * variance**0.5
    assert abs(drawn.var() / variance - 1) < 0.02
    assert abs((drawn**4).mean() / drawn.var() ** 2 - 3) < 0.06


def test_skellam_noise() -> None:
    drawn = skellam(50.0, 200_000, np.random.default_rng(4))
    assert abs(drawn.mean()) < 0.1
    assert abs(drawn.var() / 50 - 1) < 0.02
    kurtosis = (drawn.astype(float) ** 4).mean() / drawn.var() ** 2 - 3
    assert abs(kurtosis - 1 / 50) < 0.05
    halves = skellam(25.0, 200_000, np.random.default_rng(5)) + skellam(25.0, 200_000, np.random.default_rng(6))
    assert abs(halves.var() / 50 - 1) < 0.02


def test_poisson_sampling_draws_each_on_its_own() -> None:
    rng, eligible = np.random.default_rng(1), np.array([True] * 9 + [False])
    drawn = np.array([draw_each(np.ones(10), eligible, 3, rng) for _ in range(6000)])
    assert not drawn[:, 9].any()
    assert np.abs(drawn[:, :9].mean(0) - 1 / 3).max() < 0.03
    assert abs(drawn.sum(1).var() / (9 * 1 / 3 * 2 / 3) - 1) < 0.1
    assert (drawn.sum(1) == 0).any()


def test_a_cohort_of_nobody_is_a_round_without_a_sum(make_run: MakeRun) -> None:
    run = private(make_run, CLIENTS, client_selection="poisson", max_clients=4)
    from dataclasses import replace

    none = replace(run.recipe.selection, target=0)
    empty = replace(run, recipe=replace(run.recipe, selection=none))
    run_step(empty, "validate")
    run_step(empty, "initialise")
    assert run_step(empty, "select", 1)["shards"] == [0]
    run_step(empty, "distribute", 1)
    assert run_step(empty, "train", 1, 0)["clients"] == 0
    took = run_step(empty, "aggregate", 1)
    assert (took["participants"], took["quorum_met"]) == (0, False)


def test_the_mean_is_over_those_who_were_expected(make_run: MakeRun) -> None:
    """Over those who came, it would tell without noise whether one did."""
    import torch

    run = private(make_run, CLIENTS)
    gathered = Gathered({"w": torch.full((9,), 6.0, dtype=torch.float64)}, 4.0, 4, [], None, None, 0)
    mean = mean_update(Place(run, 1), gathered, clip=1e-9)  # and noise as small
    assert mean["w"].numpy() == pytest.approx(np.full(9, 6.0 / run.recipe.selection.target), abs=1e-6)
    assert run.recipe.selection.target == 6


def test_who_is_drawn_does_not_follow_from_the_seed(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amplification by sampling holds only where nobody knows who is drawn; the seed stands in the specs."""

    def drawn(server: str, promise: dict[str, Any]) -> list[list[str]]:
        monkeypatch.setenv("FEDLOOM_SERVER", str(tmp_path / server))
        run = private(make_run, promise, max_clients=4, num_rounds=8, store=str(tmp_path / f"{server}-store"))
        for number in range(1, 9):
            run_step(run, "select", number)
        return [run.store.read_json(run.key(f"round-{n:05d}", "decision.json"))["cohort"] for n in range(1, 9)]

    assert drawn("a", CLIENTS) != drawn("b", CLIENTS)
    assert drawn("a", RECORDS) == drawn("b", RECORDS)  # where every round counts for everyone, the seed draws


@given(hnp.arrays(np.float64, 60, elements=st.floats(-1, 1)), st.integers(0, 2**32))
def test_a_quantised_update_is_no_longer_than_is_accounted(update: np.ndarray, seed: int) -> None:
    masking = MASKING
    update = update * min(1.0, masking.clip / (np.linalg.norm(update) + 1e-12))
    quantiser = Quantiser(masking.clip, masking.bits, masking.ring_bits, masking.weight_max)
    encoded = quantiser.encode(update, 1.0, np.random.default_rng(seed))[:-2].view(np.int32).astype(np.float64)
    accounted = mechanism_of(PRIVACY, masking)
    assert isinstance(accounted, Skellam)
    assert np.linalg.norm(encoded) <= accounted.l2
    assert np.abs(encoded).sum() <= accounted.l1
    assert accounted.l2 == quantiser.levels + np.sqrt(60)  # each coordinate is rounded by less than one


def test_the_honest_of_the_fewest_survivors_add_noise_enough() -> None:
    levels = 2 ** (MASKING.bits - 1) - 1
    assert 6 * own_variance(PRIVACY, MASKING) == pytest.approx((2.0 * levels) ** 2)  # 10 survive, 4 may be corrupt


MASKING = MaskingRecipe(
    protocol="pairwise", threshold=None, corrupt=0.4, dropout=0.0, survivors=10, clip=0.5, weight_max=1.0, bits=8,
    ring_bits=32, parameters=60,
)  # fmt: skip
PRIVACY = PrivacyRecipe(
    unit="client", noise_multiplier=2.0, clip=0.5, adaptive=None, sampling="all", rate=1.0, population=0, drawn=0,
    steps_per_round=1, delta=1e-3, epsilon=1.0, ledger="x", budget_epsilon=None, budget_delta=None,
)  # fmt: skip
