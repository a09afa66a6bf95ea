"""The choice of clients, compiled: what it becomes, what it lacks, and what of it keeps amplification by sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedloom.flows.compile import compile_plan
from fedloom.flows.plan import Plan
from fedloom.flows.show import as_tree, notes
from fedloom.specs.bundle import load_job
from fedloom.specs.problems import SpecError
from fedloom.tasks.recipe import AutoBlockRecipe, ColumnWeight, FairnessRecipe
from fedloom.tasks.step import run_step
from tests.conftest import write_job
from tests.tasks.selection.recipes import selector_job, selector_run

OPERATORS = {"operator": ["north", "south", "south"] * 2, "data_quality": [0.5] * 6}
FAIR: dict[str, Any] = {"enabled": True, "period": "quarter"}
EVALUATION: dict[str, Any] = {
    "validation_config": {"evaluation_mode": True, "metrics": ["auc"]},
    "metrics": None,
    "holdout": None,
}
CLIENTS = {"enabled": True, "mechanism": "DP-FedAvg", "delta": 1e-3, "max_grad_norm": 1.0, "noise_multiplier": 3.0}
PRIVATE: dict[str, Any] = {
    "differential_privacy": None,
    "secure_aggregation": None,
    "privacy_config": {"differential_privacy": CLIENTS, "secure_aggregation": {"enabled": False}},
    "orchestration_config": {"shard_size": 2, "aggregation": {"min_quorum": 2, "weights": "uniform"}},
}


def algorithm(name: str, **changes: Any) -> dict[str, Any]:
    return {"algorithm": name, "num_clients": 3, **changes}


def compiled(folder: Path, selector: dict[str, Any], columns: dict[str, Any] | None = None, **job: Any) -> Plan:
    return compile_plan(load_job(selector_job(folder, selector, columns, **job)))


def test_everything_that_a_selector_says_is_in_the_recipe(tmp_path: Path) -> None:
    parity = {"enabled": True, "dimensions": ["operator"], "tolerance": 0.2}
    plan = compiled(
        tmp_path / "job",
        {
            "eligibility_criteria": {"min_data_samples": 1, "where": 'data_samples > 3 && operator != "west"'},
            "selection_algorithm": algorithm(
                "weighted_random",
                stratify_by=["operator"],
                sampling_weights={"operator": {"north": 2.0, "south": 1.0}, "data_samples": 1.0},
                exploration_rate=0.1,
                on_shortfall="wait",
                max_wait=30,
            ),
            "fairness_policy": FAIR
            | {
                "min_participation_per_period": 1,
                "max_participation_per_period": 9,
                "ensure_tail_participation": True,
                "tail_participation_rate": 0.2,
                "group_parity": parity,
            },
            "blacklist": {
                "enabled": True,
                "auto_blacklist_criteria": {"consecutive_failures": 5, "data_poisoning_detected": True},
            },
        },
        OPERATORS,
    )
    made = plan.recipe.selection
    assert made.sampling_weights == (
        ColumnWeight("data_samples", 1.0, ()),
        ColumnWeight("operator", None, (("north", 2.0), ("south", 1.0))),
    )
    assert made.fairness == FairnessRecipe("quarter", 1, 9, 0.2, ("operator",), 0.2)
    assert made.auto_block == AutoBlockRecipe(5, True, False)
    assert (made.stratify_by, made.exploration) == (("operator",), 0.1)
    assert (made.on_shortfall, made.max_wait) == ("wait", 30)
    shown = as_tree(plan)
    for words in (
        "weighted_random by data_samples, operator",
        "places spread over operator",
        "10% of the places at random",
        "each client at least 1, at most 9 times a quarter",
        "groups of operator within 0.2 of equal shares",
        'only where data_samples > 3 && operator != "west"',
        "with too few: wait up to 30 min",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("metric", "columns", "score"),
    [
        ("data_volume", None, {"quantity": 1.0}),
        ("data_diversity", OPERATORS, {"diversity": 1.0}),
        ("model_contribution", None, {"contribution": 1.0}),
        ("loss_gradient", None, {"loss_gradient": 1.0}),
        (None, OPERATORS, {"quantity": 0.4, "quality": 0.3, "diversity": 0.3}),
        (None, None, {"quantity": 1.0}),
    ],
)
def test_importance_is_what_the_metric_says(
    tmp_path: Path, metric: str | None, columns: dict[str, Any] | None, score: dict[str, float]
) -> None:
    how = algorithm("importance_sampling") | ({} if metric is None else {"importance_metric": metric})
    folder = selector_job(tmp_path / "job", {"selection_algorithm": how}, columns)
    assert dict(compile_plan(load_job(folder)).recipe.selection.score) == score
    said = any("the score is made of them" in note for note in notes(load_job(folder)))
    assert said == (metric is None and columns is None)


def test_a_job_without_a_selector_has_fairness_of_its_own(tmp_path: Path) -> None:
    fairness = {"stratify_by": ["data_samples"], "min_participation_per_quarter": 2}
    folder = write_job(tmp_path / "job", client_selection={"algorithm": "random", "fairness_policy": fairness})
    made = compile_plan(load_job(folder)).recipe.selection
    assert made.stratify_by == ("data_samples",)
    assert made.fairness == FairnessRecipe("quarter", 2, None, 0.0, (), 0.0)


PARITY = {"enabled": True, "dimensions": ["operator"]}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"eligibility_criteria": {"where": "operatr == 'x'"}}, "eligibility_criteria.where", "undeclared reference"),
    (
        {"selection_algorithm": algorithm("weighted_random", sampling_weights={"wings": 1.0})},
        "selection_algorithm.sampling_weights.wings",
        "the fleet has no column 'wings'",
    ),
    ({"selection_algorithm": algorithm("weighted_random")}, "selection_algorithm", "has no sampling_weights"),
    (
        {"selection_algorithm": algorithm("weighted_random", sampling_weights={"operator": 1.0})},
        "selection_algorithm.sampling_weights.operator",
        "no column of numbers",
    ),
    (
        {"selection_algorithm": algorithm("weighted_random", sampling_weights={"operator": {"west": 1.0}})},
        "selection_algorithm.sampling_weights.operator.west",
        "no client of the fleet has operator 'west'",
    ),
    (
        {"selection_algorithm": algorithm("random", stratify_by=["flight_phase"])},
        "selection_algorithm.stratify_by[0]",
        "the fleet has no column 'flight_phase'",
    ),
    (
        {"fairness_policy": FAIR | {"group_parity": PARITY | {"dimensions": ["wings"], "tolerance": 0.1}}},
        "fairness_policy.group_parity.dimensions[0]",
        "the fleet has no column 'wings'",
    ),
    ({"fairness_policy": FAIR | {"group_parity": PARITY}}, "fairness_policy.group_parity", "tolerance is missing"),
    (
        {"fairness_policy": {"enabled": True, "max_participation_per_period": 3}},
        "fairness_policy",
        "period is missing",
    ),
    (
        {"fairness_policy": FAIR | {"ensure_tail_participation": True}},
        "fairness_policy.ensure_tail_participation",
        "tail_participation_rate is missing",
    ),
    (
        {"selection_algorithm": algorithm("random", on_shortfall="wait", max_wait=5)},
        "selection_algorithm.on_shortfall",
        "nothing that eligibility depends on changes while a run waits",
    ),
    (
        {"selection_algorithm": algorithm("poisson", stratify_by=["operator"])},
        "selection_algorithm.stratify_by",
        "does not go with poisson",
    ),
    (
        {"selection_algorithm": algorithm("poisson"), "fairness_policy": FAIR | {"max_participation_per_period": 3}},
        "fairness_policy",
        "does not go with poisson",
    ),
    (
        {
            "selection_algorithm": algorithm("active_learning"),
            "monitoring": {"track_participation_history": False},
        },
        "monitoring.track_participation_history",
        "needs the participation history",
    ),
]


@pytest.mark.parametrize(("selector", "place", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_what_cannot_be_carried_out_is_an_error_with_its_line(
    tmp_path: Path, selector: dict[str, Any], place: str, message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(tmp_path / "job", selector, OPERATORS)
    (problem,) = caught.value.problems
    assert problem.path == place
    assert message in problem.message
    assert problem.file.endswith("selector.yaml")
    assert problem.line > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client_selection": "weighted_random"}, "weighted_random has no weights"),
        (
            {"client_selection": {"algorithm": "random", "fairness_policy": {"stratify_by": ["wings"]}}},
            "the fleet has no column 'wings', which stratify_by reads",
        ),
        (
            {"client_selection": {"algorithm": "random", "eligibility_criteria": {"where": "wings > 1"}}},
            "undeclared reference to 'wings'",
        ),
        (
            {
                "client_selection": {
                    "algorithm": "poisson",
                    "fairness_policy": {"min_participation_per_quarter": 1},
                }
            },
            "does not go with poisson",
        ),
    ],
)
def test_a_jobs_own_selection_is_checked_too(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        compile_plan(load_job(write_job(tmp_path / "job", **changes)))
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.line > 0


@pytest.mark.parametrize("promise", ["masks", "a promise of privacy"])
def test_scores_from_single_clients_do_not_go_with_secrets(tmp_path: Path, promise: str) -> None:
    secure = {"differential_privacy": {"enabled": False}, "secure_aggregation": {"enabled": True}}
    changes = PRIVATE if promise != "masks" else PRIVATE | {"privacy_config": secure}
    with pytest.raises(SpecError, match=f"loss_reduction is computed from .* single clients, which {promise} keeps"):
        compiled(tmp_path / "job", {"selection_algorithm": algorithm("active_learning")}, **changes)


@pytest.mark.parametrize(
    ("selector", "sampling"),
    [
        ({"selection_algorithm": algorithm("poisson")}, "poisson"),
        ({}, "without_replacement"),
        ({"eligibility_criteria": {"min_data_samples": 1, "where": "data_samples > 3"}}, "without_replacement"),
        ({"selection_algorithm": algorithm("random", stratify_by=["operator"])}, "all"),
        ({"fairness_policy": FAIR | {"max_participation_per_period": 3}}, "all"),
        ({"fairness_policy": FAIR | {"group_parity": PARITY | {"tolerance": 0.5}}}, "all"),
        ({"blacklist": {"enabled": True, "auto_blacklist_criteria": {"consecutive_failures": 1}}}, "all"),
        (
            {
                "selection_algorithm": algorithm("poisson"),
                "blacklist": {"enabled": True, "auto_blacklist_criteria": {"consecutive_failures": 1}},
            },
            "all",
        ),
        ({"selection_algorithm": algorithm("importance_sampling", exploration_rate=0.5)}, "all"),
        ({"selection_algorithm": algorithm("weighted_random", sampling_weights={"data_samples": 1.0})}, "all"),
        ({"greylist": {"enabled": True, "client_ids": ["c1"], "deprioritization_factor": 0.5}}, "all"),
    ],
)
def test_amplification_is_claimed_for_uniform_draws_alone(
    tmp_path: Path, selector: dict[str, Any], sampling: str
) -> None:
    privacy = compiled(tmp_path / "job", selector, OPERATORS, **PRIVATE).recipe.privacy
    assert privacy is not None
    assert privacy.sampling == sampling
    assert (privacy.rate == 1.0) == (sampling != "poisson")


@pytest.mark.parametrize(("mechanism", "secret"), [("DP-FedAvg", True), ("DP-SGD", False)])
def test_draws_are_secret_where_whole_clients_are_promised_privacy(
    tmp_path: Path, mechanism: str, secret: bool
) -> None:
    promise = {"differential_privacy": CLIENTS | {"mechanism": mechanism}, "secure_aggregation": {"enabled": False}}
    how = {"selection_algorithm": algorithm("importance_sampling")}
    _, run = selector_run(
        tmp_path / "job", tmp_path / "store", how, OPERATORS, **(PRIVATE | {"privacy_config": promise})
    )
    run_step(run, "select", 1)
    assert (tmp_path / "server" / "noise.key").exists() == secret


def test_what_a_run_never_reads_of_earlier_rounds_is_noted(tmp_path: Path) -> None:
    rules = {"data_poisoning_detected": True, "byzantine_behavior_detected": True}
    selector = {"blacklist": {"enabled": True, "auto_blacklist_criteria": rules}}
    checks = [{"name": "gradient_norm", "threshold": 10.0, "action": "flag"}]
    job = {"aggregation_config": {"quality_checks": {"checks": checks}}}
    found = notes(load_job(selector_job(tmp_path / "job", selector, **job)))
    assert found == ["data_poisoning_detected shuts nobody out: the job has no check data_poisoning_score"]
    evaluation = load_job(selector_job(tmp_path / "eval", selector, **EVALUATION))
    words = "a job of kind evaluate keeps no participation history: what the selector reads of it does not count"
    assert words in notes(evaluation)
