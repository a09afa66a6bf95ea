"""Claims of privacy against the noise that is to keep them, and against what the data demands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fedloom.flows.compile import compile_plan
from fedloom.flows.plan import Plan
from fedloom.flows.show import as_tree, epsilons
from fedloom.specs.bundle import load_job
from fedloom.specs.problems import SpecError
from fedloom.tasks.privacy.accounting import EVERYONE, Mechanism, Sampling, epsilon
from tests.conftest import CONTRACT, write_job

RECORDS = {"mechanism": "DP-SGD", "delta": 1e-5, "max_grad_norm": 1.0}
CLIENTS = {"mechanism": "DP-FedAvg", "delta": 1e-3, "max_grad_norm": 1.0}
UNIFORM = {"shard_size": 2, "aggregation": {"min_quorum": 3, "weights": "uniform"}}


def job(folder: Path, secure: dict[str, Any] | None = None, **changes: Any) -> Path:
    private = {"enabled": True, **{key: changes.pop(key) for key in list(changes) if key in PRIVATE}}
    spec = {"differential_privacy": private, "secure_aggregation": secure or {"enabled": False}}
    changes = {"differential_privacy": None, "secure_aggregation": None, "privacy_config": spec, **changes}
    return write_job(folder, **changes)


PRIVATE = {
    *("mechanism", "delta", "max_grad_norm", "epsilon", "noise_multiplier", "sampling_rate", "sensitivity"),
    "adaptive_clip",
}


def compiled(folder: Path) -> Plan:
    return compile_plan(load_job(folder))


def test_noise_is_calibrated_to_the_claim(tmp_path: Path) -> None:
    plan = compiled(job(tmp_path / "job", **RECORDS, epsilon=3.0))
    found = plan.recipe.privacy
    assert found is not None
    windows = (315 - 8) // 8 + 1  # of the smallest client
    assert (found.unit, found.sampling, found.rate) == ("record", "poisson", 16 / windows)
    assert found.steps_per_round == 2 * 3  # epochs, and batches that make one epoch on average
    mechanism = Mechanism(found.noise_multiplier, Sampling("poisson", found.rate), found.steps_per_round)
    assert epsilon(mechanism, 3, 1e-5, "rdp") == found.epsilon
    assert 2.95 < found.epsilon <= 3.0
    costs = epsilons(plan.recipe)
    assert [number for number, _ in costs] == [1, 2, 3]
    assert costs[-1][1] == found.epsilon
    assert "one window of a client's data" in as_tree(plan)
    assert f"{found.epsilon:.3g} after round 3" in as_tree(plan)


def test_a_claim_that_does_not_follow_is_refused_with_the_noise_it_takes(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(job(tmp_path / "job", **RECORDS, epsilon=1.0, noise_multiplier=0.8))
    (problem,) = caught.value.problems
    assert problem.path == "privacy_config.differential_privacy.epsilon"
    assert "1 does not follow from the noise" in problem.message
    assert problem.hint is not None
    needed = float(problem.hint.rpartition(" ")[2])
    plan = compiled(job(tmp_path / "job", **RECORDS, epsilon=1.0, noise_multiplier=needed * 1.001))
    assert plan.recipe.privacy is not None
    assert plan.recipe.privacy.epsilon <= 1.0


@pytest.mark.parametrize(
    ("selection", "target", "sampling"),
    [
        ("poisson", 4, Sampling("poisson", 4 / 6)),
        ("random", 4, Sampling("without_replacement", population=6, drawn=4)),
        ("random", 6, EVERYONE),
        ("importance_sampling", 4, EVERYONE),
    ],
)
def test_clients_are_accounted_as_they_are_drawn(
    tmp_path: Path, selection: str, target: int, sampling: Sampling
) -> None:
    changes: dict[str, Any] = {"client_selection": selection, "max_clients": target, "orchestration_config": UNIFORM}
    plan = compiled(job(tmp_path / "job", **CLIENTS, noise_multiplier=3.0, min_clients=3, **changes))
    noise = 1.5 if sampling.kind == "without_replacement" else 3.0  # one takes another's place: twice the clip
    assert plan.recipe.privacy is not None
    assert plan.recipe.privacy.unit == "client"
    assert plan.recipe.privacy.epsilon == pytest.approx(epsilon(Mechanism(noise, sampling), 3, 1e-3, "rdp"))


def test_noise_under_masks_costs_little_more_than_noise_of_the_server(tmp_path: Path) -> None:
    secure = {"enabled": True, "threshold": 3, "dropout_tolerance": 2}
    changes: dict[str, Any] = {"min_clients": 4, "orchestration_config": UNIFORM}
    masked = compiled(job(tmp_path / "job", secure, **CLIENTS, noise_multiplier=3.0, **changes)).recipe.privacy
    assert masked is not None
    gaussian = epsilon(Mechanism(3.0, EVERYONE), 3, 1e-3, "rdp")
    assert gaussian < masked.epsilon < 1.01 * gaussian


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({**RECORDS, "epsilon": 1.0, "mechanism": None}, "mechanism", "is missing"),
        ({**RECORDS, "epsilon": 1.0, "delta": None}, "delta", "is missing"),
        ({**RECORDS, "epsilon": 1.0, "max_grad_norm": None}, "max_grad_norm", "is missing"),
        ({**RECORDS, "epsilon": 8.0, "sensitivity": 0.5}, "sensitivity", "clips to 1: they are the same bound"),
        ({**CLIENTS, "noise_multiplier": 1.0}, None, "every client counts alike"),
        ({**CLIENTS, "epsilon": 0.01, "noise_multiplier": 0.1, "orchestration_config": UNIFORM, "min_clients": 3},
         "epsilon", "does not follow"),
    ],
)  # fmt: skip
def test_what_lacks_or_contradicts(tmp_path: Path, changes: dict[str, Any], place: str | None, words: str) -> None:
    changes = {key: value for key, value in changes.items() if value is not None}
    with pytest.raises(SpecError) as caught:
        compiled(job(tmp_path / "job", **changes))
    assert any(words in problem.message for problem in caught.value.problems), caught.value
    if place is not None:
        assert caught.value.problems[0].path == f"privacy_config.differential_privacy.{place}"


def test_noise_beyond_the_rings_room_must_be_written_down(tmp_path: Path) -> None:
    """Calibrated after the ring is chosen, it could make the sum wrap: the number in the spec is what the ring fits."""
    secure = {"enabled": True, "threshold": 3, "dropout_tolerance": 2}
    changes: dict[str, Any] = {**CLIENTS, "min_clients": 4, "orchestration_config": UNIFORM, "epsilon": 0.1}
    with pytest.raises(SpecError, match="more noise than the masks' ring is fitted to") as caught:
        compiled(job(tmp_path / "left", secure, **changes))
    hint = caught.value.problems[0].hint
    assert hint is not None
    needed = float(hint.split()[1])
    recipe = compiled(job(tmp_path / "told", secure, **changes, noise_multiplier=needed * 1.01)).recipe
    assert recipe.masking is not None
    assert recipe.privacy is not None
    assert recipe.privacy.epsilon <= 0.1
    levels = (1 << (recipe.masking.bits - 1)) - 1
    assert recipe.privacy.noise_multiplier * levels * 2**0.5 <= 2**20


ADAPTIVE = {**CLIENTS, "noise_multiplier": 3.0, "orchestration_config": UNIFORM, "min_clients": 3}


def test_a_norm_that_follows_is_paid_with_noise_and_not_with_epsilon(tmp_path: Path) -> None:
    fixed = compiled(job(tmp_path / "fixed", **ADAPTIVE)).recipe.privacy
    moving = compiled(job(tmp_path / "moving", **ADAPTIVE, adaptive_clip={"count_noise": 3.0})).recipe.privacy
    assert fixed is not None
    assert moving is not None
    assert moving.adaptive is not None
    assert moving.epsilon == fixed.epsilon
    assert moving.adaptive.update_noise == pytest.approx(3.0 / (1 - 1 / 4) ** 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**ADAPTIVE, "adaptive_clip": {"count_noise": 1.0}}, "too little"),
        ({**RECORDS, "epsilon": 8.0, "adaptive_clip": {}}, "is for DP-FedAvg"),
        ({**ADAPTIVE, "min_clients": 4, "adaptive_clip": {},
          "secure": {"enabled": True, "threshold": 3, "dropout_tolerance": 2}}, "does not go with masks"),
    ],
)  # fmt: skip
def test_where_a_norm_cannot_follow(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        compiled(job(tmp_path / "job", **changes))
    assert caught.value.problems[0].path.startswith("privacy_config.differential_privacy.adaptive_clip")


POLICY = {
    "dp_metadata": {"version": "1.0.0", "mechanism": "DP-SGD"},
    "privacy_budget": {"epsilon": 4.0, "delta": 1e-4},
    "dp_sgd": {
        "enabled": True,
        "gradient_clipping": {"max_norm": 1.0},
        "noise_addition": {"mechanism": "Gaussian", "noise_multiplier": 0.5},
    },
}


@pytest.mark.parametrize(
    ("demand", "change", "words"),
    [
        ({"epsilon": 2.0}, {}, "the rounds cost 3, the data contract allows 2"),
        ({"delta": 1e-6}, {}, "is 1e-05, the data contract allows 1e-06"),
        ({"mechanism": "DP-FedAvg"}, {}, "is DP-SGD, the data contract demands DP-FedAvg"),
        ({"mechanism": "DP-SGD", "epsilon": 4.0, "delta": 1e-5}, {}, None),
    ],
)
def test_the_contract_sets_limits(
    tmp_path: Path, demand: dict[str, Any], change: dict[str, Any], words: str | None
) -> None:
    folder = job(tmp_path / "job", **RECORDS, epsilon=3.0, **change)
    privacy = {"differential_privacy": {"enabled": True, **demand}}
    (folder / "contract.yaml").write_text(yaml.safe_dump(CONTRACT | {"privacy": privacy}))
    if words is None:
        assert compiled(folder).recipe.privacy is not None
        return
    with pytest.raises(SpecError, match=words):
        compiled(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"privacy_budget": {"epsilon": 1.0, "delta": 1e-4}}, "policy dp_policy.yaml allows 1"),
        (
            {
                "privacy_budget": {
                    "epsilon": 9.0,
                    "delta": 1e-4,
                    "budget_allocation": {"total_budget": 0.5, "total_rounds": 5},
                }
            },
            "policy dp_policy.yaml allows 0.5",
        ),
        ({"dp_sgd": {"enabled": True, "gradient_clipping": {"max_norm": 0.5}}}, "is 1, the policy .* allows 0.5"),
        (
            {"dp_sgd": {"enabled": True, "noise_addition": {"mechanism": "Gaussian", "noise_multiplier": 50.0}}},
            "demands at least 50",
        ),
        ({}, None),
    ],
)
def test_the_policy_sets_limits(tmp_path: Path, change: dict[str, Any], words: str | None) -> None:
    folder = job(tmp_path / "job", **RECORDS, epsilon=3.0)
    (folder / "contract.yaml").write_text(yaml.safe_dump(CONTRACT | {"privacy": {"dp_policy_file": "dp_policy.yaml"}}))
    (folder / "dp_policy.yaml").write_text(yaml.safe_dump(POLICY | change))
    if words is None:
        assert compiled(folder).recipe.privacy is not None
        return
    with pytest.raises(SpecError, match=words):
        compiled(folder)


@pytest.mark.parametrize("name", ["../dp_policy.yaml", "missing.yaml"])
def test_a_policy_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    folder = job(tmp_path / "job", **RECORDS, epsilon=3.0)
    (tmp_path / "dp_policy.yaml").write_text(yaml.safe_dump(POLICY))
    (folder / "contract.yaml").write_text(yaml.safe_dump(CONTRACT | {"privacy": {"dp_policy_file": name}}))
    with pytest.raises(SpecError, match=r"outside the contract's folder|missing\.yaml"):
        compiled(folder)


@pytest.mark.parametrize("privacy", [{"differential_privacy": {"enabled": True, "epsilon": 1.0}}])
def test_data_that_demands_privacy_is_not_used_without_it(tiny_job: Path, privacy: dict[str, Any]) -> None:
    (tiny_job / "contract.yaml").write_text(yaml.safe_dump(CONTRACT | {"privacy": privacy}))
    with pytest.raises(SpecError, match=r"the data contract demands differential privacy"):
        compiled(tiny_job)
