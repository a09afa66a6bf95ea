import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedloom.specs.canonical import canonical_json, restore
from fedloom.tasks.client import DropoutError, Order, fit, make_order, receive
from fedloom.tasks.client_data import Windows, read_windows
from fedloom.tasks.determinism import repeatable
from fedloom.tasks.model_store import tensors_to_bytes
from fedloom.tasks.models import State, build_model, float_state
from fedloom.tasks.seeds import torch_seed
from fedloom.tasks.step import Run

Case = tuple[Order, State, Windows, nn.Module]


@pytest.fixture
def case(make_run: Any) -> Case:
    run: Run = make_run()
    model = build_model(run.recipe.model)
    start = float_state(model)
    windows = read_windows("data/c0.csv", run.folder, run.recipe.inputs)
    return make_order(run.recipe, run.plan_digest, 1, "0" * 64, 1), start, windows, model


def test_the_model_is_checked_on_receipt(case: Case) -> None:
    order, start, _, _ = case
    data = tensors_to_bytes(start)
    with pytest.raises(DropoutError, match="received a model with SHA-256"):
        receive(order, data)


def test_the_update_is_that_of_a_plain_training_loop(case: Case) -> None:
    order, start, windows, model = case
    order = replace(order, training=replace(order.training, optimizer="SGD", learning_rate=0.1, local_epochs=2))
    update = fit(order, "c0", start, windows, model)

    reference = build_model(order.model)
    reference.load_state_dict(start)
    x, y = torch.from_numpy(windows.x), torch.from_numpy(windows.y).float()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    with repeatable(1, torch_seed(order.seed, "train", 1, "c0")):
        for _ in range(2):
            for rows in torch.randperm(len(x)).split(order.training.batch_size):
                optimizer.zero_grad()
                nn.functional.binary_cross_entropy_with_logits(reference(x[rows]).squeeze(1), y[rows]).backward()
                optimizer.step()
    after = float_state(reference)
    for name, delta in update.delta.items():
        torch.testing.assert_close(start[name] + delta, after[name])
    assert update.samples == len(x)


def test_the_same_client_and_round_give_the_same_bits(case: Case) -> None:
    order, start, windows, model = case
    first, again = fit(order, "c0", start, windows, model), fit(order, "c0", start, windows, model)
    other = fit(order, "c1", start, windows, model)
    assert tensors_to_bytes(first.delta) == tensors_to_bytes(again.delta)
    assert tensors_to_bytes(first.delta) != tensors_to_bytes(other.delta)


def test_the_proximal_term_is_the_gradient_of_half_mu_times_the_squared_distance(case: Case) -> None:
    order, start, windows, model = case
    plain = replace(order.training, optimizer="SGD", learning_rate=0.05, local_epochs=3)
    order = replace(order, training=replace(plain, algorithm="FedProx", proximal=0.7))
    update = fit(order, "c0", start, windows, model)

    reference = build_model(order.model)
    reference.load_state_dict(start)
    x, y = torch.from_numpy(windows.x), torch.from_numpy(windows.y).float()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05)
    with repeatable(1, torch_seed(order.seed, "train", 1, "c0")):
        for _ in range(3):
            for rows in torch.randperm(len(x)).split(order.training.batch_size):
                optimizer.zero_grad()
                loss = nn.functional.binary_cross_entropy_with_logits(reference(x[rows]).squeeze(1), y[rows])
                distance = sum((p - start[n]).square().sum() for n, p in reference.named_parameters())
                (loss + 0.35 * distance).backward()
                optimizer.step()
    for name, value in float_state(reference).items():
        torch.testing.assert_close(start[name] + update.delta[name], value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"client_timeout_s": -1.0}, "late: training took more than"),
        ({"optimizer": "SGD", "learning_rate": 1e30}, "training diverged"),
    ],
)
def test_a_late_or_diverged_client_is_a_dropout(case: Case, change: dict[str, Any], reason: str) -> None:
    order, start, windows, model = case
    order = replace(order, training=replace(order.training, **change))
    with pytest.raises(DropoutError, match=reason):
        fit(order, "c0", start, windows, model)


def test_labels_outside_the_classes_and_missing_labels_are_dropouts(case: Case) -> None:
    order, start, windows, model = case
    with pytest.raises(DropoutError, match="labels range from 0 to 5, expected 0 to 1"):
        fit(order, "c0", start, Windows(windows.x, np.where(windows.y == 1, 5, 0)), model)
    with pytest.raises(DropoutError, match="has no labels"):
        fit(order, "c0", start, Windows(windows.x, None), model)


def test_waiting_for_another_client_of_the_process_is_not_being_late(case: Case) -> None:
    order, start, windows, model = case
    order = replace(order, training=replace(order.training, client_timeout_s=1.5))
    with ThreadPoolExecutor(1) as pool, repeatable(1, 0):
        waiting = pool.submit(fit, order, "c0", start, windows, model)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=2.0)
    assert waiting.result().samples == len(windows.x)


def test_an_order_survives_its_way_through_the_store(case: Case) -> None:
    order = case[0]
    assert restore(Order, json.loads(canonical_json(order))) == order
