"""The compiler: same specs, same digest; what is not built is refused by name."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedloom import FedJob
from fedloom.flows.compile import compile_plan
from fedloom.flows.estimate import estimate
from fedloom.flows.plan import Plan, plan_digest
from fedloom.specs.bundle import example_names, load_job, resolve_job
from fedloom.specs.problems import SpecError
from fedloom.tasks.step import STEPS
from tests.conftest import CONTRACT, JOB, write_job
from tests.specs.jobs import SHORT_A, SHORT_B


def compiled(folder: Path, **options: int) -> Plan:
    return compile_plan(load_job(folder), **options)


def test_the_digest_depends_on_what_the_specs_say_and_not_on_how(tmp_path: Path) -> None:
    first = write_job(tmp_path / "a")
    other = write_job(tmp_path / "b")
    text = (other / "job.yaml").read_text()
    job = yaml.safe_load(text)
    (other / "job.yaml").write_text("# a comment\n" + yaml.safe_dump(dict(reversed(job.items())), sort_keys=False))
    rows = (other / "fleet.csv").read_text().splitlines()
    (other / "fleet.csv").write_text("\n".join([rows[0], *reversed(rows[1:])]) + "\n")
    assert plan_digest(compiled(first)) == plan_digest(compiled(other))


def test_long_and_short_form_give_the_same_digest(tmp_path: Path) -> None:
    short = write_job(tmp_path / "short")
    long = write_job(tmp_path / "long")
    normal = load_job(short).documents["job"].data
    (long / "job.yaml").write_text(yaml.safe_dump(normal))
    assert plan_digest(compiled(short)) == plan_digest(compiled(long))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 8},
        {"num_rounds": 4},
        {"local_epochs": 3},
        {"hyperparameters": {"learning_rate": 0.02, "optimizer": "Adam"}},
        {"model_hyperparameters": {"hidden_dims": [9]}},
        {"window_size": 4},
        {"min_clients": 3},
        {"metrics": {"auc": 0.7}},
        {"holdout": "other.csv"},
        {"orchestration_config": {"shard_size": 3, "aggregation": {"min_quorum": 2}}},
    ],
    ids=lambda c: next(iter(c)),
)
def test_the_digest_changes_with_whatever_changes_the_outcome(tmp_path: Path, changes: dict[str, Any]) -> None:
    before = plan_digest(compiled(write_job(tmp_path / "a")))
    assert plan_digest(compiled(write_job(tmp_path / "b", **changes))) != before


def test_names_and_schedules_do_not_change_the_digest(tmp_path: Path) -> None:
    before = plan_digest(compiled(write_job(tmp_path / "a")))
    after = write_job(tmp_path / "b", description="Another text", schedule="weekly", tags=["x"])
    assert plan_digest(compiled(after)) == before


def test_heads_must_divide_the_width(tmp_path: Path) -> None:
    settings = {"hidden_dim": 30, "num_heads": 4}
    folder = write_job(tmp_path / "job", architecture="Transformer", model_hyperparameters=settings)
    with pytest.raises(SpecError, match=r"hidden_dim \(30\) is no multiple of num_heads \(4\)"):
        compiled(folder)


def test_seed_and_rounds_can_be_replaced(tiny_job: Path) -> None:
    plan = compiled(tiny_job, seed=99, rounds=2)
    assert (plan.recipe.seed, plan.recipe.rounds, plan.loop.rounds) == (99, 2, 2)
    assert plan_digest(plan) != plan_digest(compiled(tiny_job))


@pytest.mark.parametrize("name", example_names())
def test_every_example_compiles_to_known_steps_in_a_possible_order(name: str) -> None:
    plan = compile_plan(load_job(resolve_job(name)))
    for steps in (plan.setup, plan.loop.steps):
        seen: set[str] = set()
        for step in steps:
            assert step.name in STEPS
            assert set(step.needs) <= seen
            seen.add(step.name)
    assert plan.loop.until.step in {step.name for step in plan.loop.steps}


def test_compiling_needs_neither_torch_nor_numpy_nor_prefect() -> None:
    code = (
        "import sys; from fedloom import compile_plan, load_job; from fedloom.specs.bundle import resolve_job;"
        "compile_plan(load_job(resolve_job('predictive_maintenance')));"
        "print(sorted({'torch','numpy','prefect','sklearn','pyarrow','fsspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


REFUSED = [
    ({"framework": "JAX"}, "framework", "fedloom trains with PyTorch"),
    (
        {"hyperparameters": {"learning_rate": 0.01, "optimizer": "Adam", "loss_function": "CrossEntropyLoss"}},
        "hyperparameters.loss_function",
        "write BCEWithLogitsLoss",
    ),
    ({"output": {"report_format": "pdf"}}, "output.report_format", "as pdf is not built"),
    ({"output": {"format": "onnx"}}, "output.format", "onnx is not built"),
    (
        {
            "architecture": "Custom",
            "model_hyperparameters": None,
            "model_config": {"custom_class": "tests.tasks.networks:Linear"},
            "hyperparameters": {"learning_rate": 0.01, "optimizer": "Adam", "loss_function": "BCELoss"},
        },
        "hyperparameters.loss_function",
        "without a last sigmoid",
    ),
    (
        {"orchestration_config": {"timing": {"trigger": "scheduled"}}},
        "orchestration_config.timing.trigger",
        "schedule.yaml launches whole runs",
    ),
    (
        {"orchestration_config": {"timing": {"trigger": "manual"}}},
        "orchestration_config.timing.trigger",
        "fedloom run starts a run by hand",
    ),
    ({"metrics": ["kappa"]}, "metrics[0]", "metric kappa"),
    (
        {"validation_config": {"drift_detection": {"enabled": True, "method": "concept_drift"}}},
        "validation_config.drift_detection.method",
        "concept_drift",
    ),
]


@pytest.mark.parametrize(("changes", "place", "word"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_not_built_is_refused_by_name_and_place(
    tmp_path: Path, changes: dict[str, Any], place: str, word: str
) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(write_job(tmp_path / "job", **changes))
    problem = next(p for p in caught.value.problems if p.severity == "not built")
    assert problem.path == place
    assert word in problem.message
    assert problem.file.endswith("job.yaml")
    assert problem.line > 0


def _asks(**validation: Any) -> dict[str, Any]:
    return {"holdout": None, "validation_config": {"holdout_dataset": {"source": "holdout.csv"}, **validation}}


WRONG = [
    (
        {
            "hyperparameters": {
                "learning_rate": 0.1,
                "optimizer": "SGD",
                "optimizer_kwargs": {"nesterov": True},
            }
        },
        "nesterov needs momentum",
    ),
    ({"algorithm": "SCAFFOLD"}, "follow from steps of SGD, not of Adam"),
    (
        {
            "algorithm": "SCAFFOLD",
            "hyperparameters": {"learning_rate": 0.1, "optimizer": "SGD", "optimizer_kwargs": {"momentum": 0.9}},
        },
        "plain steps, without momentum",
    ),
    ({"algorithm": "SCAFFOLD", "secure_aggregation": True}, "each client's gradient in the clear"),
    (
        {
            "hyperparameters": {
                "learning_rate": 0.1,
                "optimizer": "SGD",
                "lr_schedule": {"type": "warmup_cosine", "warmup_rounds": 3},
            }
        },
        "3 of 3 rounds leave none",
    ),
    ({"architecture": "Autoencoder", "model_hyperparameters": None}, "an Autoencoder gives no binary_classification"),
    ({"output_schema": "multi_class"}, "the number of classes is unknown"),
    ({"model_hyperparameters": {"num_classes": 5}}, "5 classes do not go with binary_classification"),
    ({"holdout": "data/c0.csv"}, "the holdout is a client's data"),
    ({"holdout": "./data/c0.csv"}, "the holdout is a client's data"),
    ({"holdout": None, "validation_config": {"holdout_dataset": {"size": 5}}}, "the holdout has no source"),
    ({"holdout": None, "training_config": {"global_training": {"early_stopping": {"patience": 2}}}}, "early stopping"),
    ({"metrics": ["latency_p95", "auc"]}, "latency_p95 comes first"),
    ({"metrics": ["auc", "drift_psi"]}, "drift_psi needs a baseline"),
    (
        {"training_config": {"global_training": {"early_stopping": {"metric": "latency_p95", "threshold": 5.0}}}},
        "latency_p95 is measured at the end of a run only",
    ),
    (_asks(disaggregate_by=["label"]), "the label: within a group it says nothing"),
    (_asks(bias_fairness={"enabled": True, "fairness_threshold": 0.1}), "no columns form the groups"),
    (_asks(bias_fairness={"enabled": True, "disaggregate_by": ["site"]}), "fairness_threshold is missing"),
    (_asks(drift_detection={"enabled": True, "alert_threshold": 0.2}), "there is nothing to drift from"),
    (_asks(drift_detection={"enabled": True, "baseline_distribution": "b.json"}), "alert_threshold is missing"),
    ({"holdout": None, "validation_config": {"champion_margin": 0.1}}, "is about held-out data, and the job has none"),
    (
        {"client_selection": {"algorithm": "random", "eligibility_criteria": {"no_active_alerts": True}}},
        "the fleet has no column 'active_alerts'",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_what_does_not_go_together_is_an_error_before_anything_runs(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(write_job(tmp_path / "job", **changes))
    assert any(message in problem.message for problem in caught.value.problems), caught.value


def test_all_refusals_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(write_job(tmp_path / "job", output={"format": "onnx"}, framework="JAX"))
    assert len(caught.value.problems) == 2


def test_settings_of_another_architecture_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="latent_dim is no setting of MLP"):
        compiled(write_job(tmp_path / "job", model_hyperparameters={"latent_dim": 3}))


def test_a_job_without_a_fleet_cannot_run(tiny_job: Path) -> None:
    (tiny_job / "fleet.csv").unlink()
    with pytest.raises(SpecError, match="no fleet"):
        compiled(tiny_job)


def test_a_job_in_python_is_the_same_as_one_in_yaml(tiny_job: Path) -> None:
    clients = [
        {"client_id": client, "data": data, "data_samples": int(samples)}
        for client, data, samples in (row.split(",") for row in (tiny_job / "fleet.csv").read_text().split()[1:])
    ]
    fleet = {"fleet_metadata": {"fleet_id": "tiny", "version": "1.0.0"}, "clients": clients}
    job = FedJob(JOB, folder=tiny_job, contract=CONTRACT, fleet=fleet)
    assert plan_digest(job.plan()) == plan_digest(compiled(tiny_job))
    assert job.simulate(str(tiny_job / "store"), rounds=1).rounds == 1


def test_estimates_follow_from_the_recipe(tiny_job: Path) -> None:
    cost = estimate(compiled(tiny_job).recipe)
    assert cost.parameters == (16 + 1) * 8 + (8 + 1) * 1
    assert cost.bytes_per_client_and_round == 2 * 4 * 145
    assert cost.bytes_total == 2 * 4 * 145 * 6 * 3
    assert cost.shards == 3


@pytest.mark.parametrize("selector", [None, {"algorithm": "random", "target_clients": 3}])
def test_the_jobs_own_selection_counts_when_there_is_no_selector(
    tmp_path: Path, selector: dict[str, Any] | None
) -> None:
    changes: dict[str, Any] = {} if selector is None else {"client_selection": selector}
    recipe = compiled(write_job(tmp_path / "job", **changes)).recipe
    assert recipe.selection.target == (6 if selector is None else 3)
    assert recipe.selection.criteria == ()


def test_importance_sampling_needs_a_column_to_draw_by(copy_example: Callable[[str], Path]) -> None:
    folder = copy_example("aircraft_accel_v1")
    assert compiled(folder).recipe.selection.score == (("quantity", 1.0),)
    text = (folder / "fleet.csv").read_text().replace("data_samples", "rows")
    (folder / "fleet.csv").write_text(text)
    (folder / "fleet.yaml").write_text((folder / "fleet.yaml").read_text().replace("  data_samples:", "  rows:"))
    with pytest.raises(SpecError, match="data_samples"):
        compiled(folder)


@pytest.mark.parametrize(
    ("job", "window"),
    [(SHORT_A, 64), (SHORT_B, 64), (SHORT_A + "window_size: 32\n", 32)],
    ids=["A", "B", "A, window given"],
)
def test_short_jobs_compile_as_they_stand_but_for_what_is_not_built(tmp_path: Path, job: str, window: int) -> None:
    folder = write_job(tmp_path / "job")
    asked = yaml.safe_load(job.replace("1e-5", "0.00001"))
    unbuilt = {"differential_privacy": False, "secure_aggregation": False}
    here = {"input_schema": "contract.yaml#imu", "min_clients": 2, "max_clients": 6}
    (folder / "job.yaml").write_text(yaml.safe_dump({**asked, **unbuilt, **here}))
    plan = compiled(folder)
    assert plan.recipe.inputs.window_size == window
    assert plan.recipe.training.local_epochs == asked["local_epochs"]
