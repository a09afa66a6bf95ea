"""From aggregation_config to a recipe: what is refused, what is noted, and what a plan says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedloom.flows.compile import compile_plan
from fedloom.flows.plan import plan_digest
from fedloom.flows.show import as_tree, notes
from fedloom.specs.bundle import load_job
from fedloom.specs.problems import SpecError
from fedloom.tasks.recipe import CheckRecipe, Recipe, RobustRecipe, ServerOptimizerRecipe, StalenessRecipe
from tests.conftest import write_job

ADAM = {"learning_rate": 0.01, "optimizer": "Adam"}


def recipe_of(tmp_path: Path, **changes: Any) -> Recipe:
    return compile_plan(load_job(write_job(tmp_path / "job", **changes))).recipe


def test_a_whole_section_becomes_a_recipe(tmp_path: Path) -> None:
    own = {
        "algorithm": "FedAvg",
        "weighting": {"strategy": "num_samples", "clip_weights": {"min_weight": 0.01, "max_weight": 0.5}},
        "byzantine_robust": {
            "enabled": True,
            "method": "krum",
            "krum_config": {"num_closest": 10, "exclude_furthest": 1},
            "trimmed_mean_config": {"trim_ratio": 0.2},
        },
        "quality_checks": {
            "checks": [
                {"name": "gradient_norm", "threshold": 10.0, "action": "exclude"},
                {"name": "parameter_distance", "threshold": 5.0},
                {"name": "loss_improvement", "min_improvement": -1.0},
            ],
            "staleness": {"max_rounds_stale": 2},
        },
    }
    recipe = recipe_of(tmp_path, aggregation_config=own, min_clients=5, orchestration_config={"shard_size": 2})
    made = recipe.aggregation
    assert (made.weights, made.quorum, made.share_min, made.share_max) == ("num_samples", 5, 0.01, 0.5)
    assert made.robust == RobustRecipe("krum", 1, 10, 0.2)
    assert made.checks == (
        CheckRecipe("gradient_norm", "", 10.0, "exclude"),
        CheckRecipe("parameter_distance", "l2", 5.0, "flag"),
        CheckRecipe("loss_improvement", "", -1.0, "flag"),
    )
    assert made.staleness == StalenessRecipe(2, "exclude")
    assert made.single_updates
    assert recipe.training.loss_before
    assert made.server is None


SERVERS = [
    ({"algorithm": "FedAdam"}, ServerOptimizerRecipe("Adam", 0.1, 0.9, 0.99, 0.001)),
    ({"algorithm": "FedYogi"}, ServerOptimizerRecipe("Yogi", 0.1, 0.9, 0.99, 0.001)),
    (
        {"algorithm": "FedOpt", "hyperparameters": {**ADAM, "server_optimizer": {"name": "AdaGrad"}}},
        ServerOptimizerRecipe("AdaGrad", 0.1, 0.0, 0.99, 0.001),
    ),
    (
        {"algorithm": "FedOpt", "hyperparameters": {**ADAM, "server_optimizer": {"name": "SGD"}}},
        ServerOptimizerRecipe("SGD", 1.0, 0.9, 0.99, 0.001),
    ),
    (
        {
            "algorithm": "FedOpt",
            "hyperparameters": {**ADAM, "server_optimizer": {"name": "SGD", "momentum": 0.5, "learning_rate": 2.0}},
        },
        ServerOptimizerRecipe("SGD", 2.0, 0.5, 0.99, 0.001),
    ),
]


@pytest.mark.parametrize(("changes", "server"), SERVERS)
def test_the_server_has_the_defaults_of_the_paper(
    tmp_path: Path, changes: dict[str, Any], server: ServerOptimizerRecipe
) -> None:
    assert recipe_of(tmp_path, **changes).aggregation.server == server


def robust(method: str, **krum: int) -> dict[str, Any]:
    return {"aggregation_config": {"byzantine_robust": {"enabled": True, "method": method, "krum_config": krum}}}


CHECK = {"aggregation_config": {"quality_checks": {"checks": [{"name": "gradient_norm", "threshold": 1.0}]}}}
LOSS = {"name": "loss_improvement", "min_improvement": 0.0}
SECURE = {"secure_aggregation": True}
NOISE = {"enabled": True, "noise_multiplier": 1.0, "max_grad_norm": 1.0, "delta": 1e-5}
RECORDS = {"differential_privacy": {**NOISE, "mechanism": "DP-SGD"}}
CLIENTS = {
    "differential_privacy": {**NOISE, "mechanism": "DP-FedAvg"},
    "orchestration_config": {"aggregation": {"weights": "uniform"}},
}

REFUSED = [
    (robust("krum", exclude_furthest=1), "krum with 1 hostile updates needs at least 5, there are 2"),
    (robust("bulyan"), "bulyan with 0 hostile updates needs at least 3, there are 2"),
    ({"aggregation_config": {"algorithm": "Median"}, **SECURE}, "median needs the updates of single clients"),
    ({**CHECK, **SECURE}, "the check gradient_norm needs the updates of single clients"),
    ({"aggregation_config": {"weighting": "contribution"}, **SECURE}, "weights contribution needs the updates"),
    (
        {"aggregation_config": {"weighting": {"clip_weights": {"max_weight": 0.5}}}, **SECURE},
        "clip_weights needs the updates of single clients",
    ),
    ({**robust("median"), **CLIENTS}, "median lets one client's update move the result by more than the noise"),
    ({**CHECK, **CLIENTS}, "the check gradient_norm lets one client's update move the result"),
    ({"aggregation_config": {"weighting": "loss_based"}, **RECORDS}, "weights loss_based looks at losses of single"),
    ({"aggregation_config": {"quality_checks": {"checks": [LOSS]}}, **RECORDS}, "the check loss_improvement looks at"),
    (
        {"aggregation_config": {"weighting": {"clip_weights": {"max_weight": 0.4}}}},
        "2 clients (the quorum) with at most 0.4 each are less than the whole",
    ),
    (
        {"aggregation_config": {"weighting": {"clip_weights": {"min_weight": 0.2}}}},
        "6 clients (max_clients) with at least 0.2 each are more than the whole",
    ),
    ({"aggregation_config": {"weighting": {"normalize": False}}}, "weights num_samples cannot go without"),
    (
        {"orchestration_config": {"aggregation": {"weights": "custom", "weight_column": "share"}}},
        "the fleet has no column 'share'",
    ),
    (
        {
            "aggregation_config": {"differential_privacy": {"enabled": True, "sensitivity": 2.0}},
            **RECORDS,
        },
        "privacy_config.differential_privacy says nothing of it",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_what_cannot_be_kept_is_refused_by_name_and_place(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        recipe_of(tmp_path, **changes)
    found = [problem for problem in caught.value.problems if message in problem.message]
    assert found, caught.value
    assert found[0].line > 0
    assert found[0].file.endswith("job.yaml")


@pytest.mark.parametrize("value", ["-1", ""])
def test_custom_weights_are_numbers_of_every_client(tmp_path: Path, value: str) -> None:
    custom = {"aggregation": {"weights": "custom", "weight_column": "share"}}
    folder = write_job(tmp_path / "job", orchestration_config=custom)
    rows = (folder / "fleet.csv").read_text().splitlines()
    shares = ["share", value, "1", "1", "1", "1", "1"]
    (folder / "fleet.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(rows, shares, strict=True)) + "\n")
    with pytest.raises(SpecError, match="column 'share' has no weight"):
        compile_plan(load_job(folder))


ALONG = [
    ({**robust("median"), **RECORDS}, "a robust rule sees updates that have their noise already"),
    ({"algorithm": "FedAdam", **CLIENTS}, "an optimizer of the server sees nothing but the noisy mean"),
    ({"algorithm": "FedAdam", **SECURE}, "or the sum that the masks show"),
    (
        {"orchestration_config": {"aggregation": {"weights": "custom", "weight_column": "data_samples"}}, **SECURE},
        "custom weights are known beforehand",
    ),
]


@pytest.mark.parametrize(("changes", "why"), ALONG, ids=[why for _, why in ALONG])
def test_what_goes_with_privacy(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    recipe = recipe_of(tmp_path, **changes, min_clients=4)
    assert recipe.privacy is not None or recipe.masking is not None
    if recipe.masking is not None and recipe.aggregation.weights == "custom":
        assert recipe.masking.weight_max == 320.0


def test_over_provision_asks_more_clients_up_to_the_most_and_the_accountant_knows(tmp_path: Path) -> None:
    target = {"client_selection": {"algorithm": "poisson", "target_clients": 3}}
    more = {"orchestration_config": {"aggregation": {"weights": "uniform", "over_provision": 0.5}}}
    private = {"differential_privacy": CLIENTS["differential_privacy"]}
    plain = recipe_of(tmp_path, **target, **CLIENTS)
    extra = recipe_of(tmp_path, **target, **more, **private)
    assert (plain.selection.target, extra.selection.target) == (3, 5)
    assert plain.privacy is not None
    assert extra.privacy is not None
    assert (plain.privacy.rate, extra.privacy.rate) == (0.5, 5 / 6)
    assert extra.privacy.epsilon > plain.privacy.epsilon
    most = {"orchestration_config": {"aggregation": {"over_provision": 1.0}}}
    assert recipe_of(tmp_path, **most).selection.target == 6


NOTES = [
    ({"aggregation_config": {"algorithm": "TrimmedMean"}}, "cuts nothing off 2 updates"),
    (
        {"aggregation_config": {"algorithm": "Median", "weighting": "uniform"}},
        "weighting does not count: median takes all updates alike",
    ),
    ({**robust("median", num_closest=3)}, "krum_config does not count: the method is median"),
    ({**robust("krum", num_closest=9), "min_clients": 5, "orchestration_config": {}}, "num_closest counts as 2 in"),
    ({"orchestration_config": {"aggregation": {"over_provision": 0.5}}}, "over_provision asks for nobody more"),
    (
        {"aggregation_config": {"quality_checks": {"staleness": {"max_rounds_stale": 2}}}},
        "no update is ever stale",
    ),
]


@pytest.mark.parametrize(("changes", "words"), NOTES, ids=[words for _, words in NOTES])
def test_what_does_not_count_is_noted(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    bundle = load_job(write_job(tmp_path / "job", **changes))
    compile_plan(bundle)
    assert any(words in note for note in notes(bundle)), notes(bundle)


def test_a_plan_says_how_updates_become_a_model(tmp_path: Path) -> None:
    changes = {**robust("multi_krum", exclude_furthest=1), "algorithm": "FedAdam", "min_clients": 5}
    changes["aggregation_config"] |= CHECK["aggregation_config"]
    plan = compile_plan(load_job(write_job(tmp_path / "job", orchestration_config={}, **changes)))
    tree = as_tree(plan)
    assert "multi_krum, 1 of them may be hostile" in tree
    assert "gradient_norm 1: flag" in tree
    assert "Adam, learning rate 0.1, beta1 0.9, beta2 0.99, tau 0.001" in tree
    aggregate = next(step for step in plan.loop.steps if step.name == "aggregate")
    assert aggregate.resources.memory_bytes == 145 * (2 * 6 * 4 + 8 * 8)
    assert plan_digest(plan) != plan_digest(compile_plan(load_job(write_job(tmp_path / "plain"))))
