"""What is rendered: the whole plan, valid, the same each time; and what is refused, with nothing written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hera.workflows import models
from hypothesis import given
from hypothesis import strategies as st

from fedloom.deploy.argo import dags
from fedloom.deploy.argo.folder import drift, find_jobs, render_jobs, write
from fedloom.deploy.argo.names import dns_name, label_value, template_names
from fedloom.deploy.argo.pods import cpu_quantity, memory_quantity
from fedloom.deploy.argo.render import FILES, Rendered, render_job
from fedloom.deploy.argo.specs_map import specs_map
from fedloom.deploy.argo.values import Values, check_dns_label, check_image, load_values
from fedloom.flows.compile import compile_plan
from fedloom.flows.plan import Measure, OutputRef, Plan, Resources, Step, plan_digest
from fedloom.specs.bundle import EXAMPLES, load_job
from fedloom.specs.problems import SpecError

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "deploy" / "argo" / "examples"
NAMES = ("aircraft_accel_v1", "predictive_maintenance", "sensor_drift_autoencoder")


def rendered(path: Path, **values: Any) -> dict[str, dict[str, Any]]:
    """The documents of a job by file name, read back."""
    files = render_job(path, Values.model_validate(values)).files
    return {name: yaml.safe_load(text) for name, text in files.items()}


def templates(documents: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {template["name"]: template for template in documents["workflow-template.yaml"]["spec"]["templates"]}


def edit(job: Path, *replacements: tuple[str, str], file: str = "job.yaml") -> Path:
    text = (job / file).read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    (job / file).write_text(text)
    return job


@pytest.fixture
def example(copy_example: Callable[[str], Path]) -> Path:
    return copy_example("aircraft_accel_v1")


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_in_the_repository_are_what_is_rendered(name: str) -> None:
    (job,) = render_jobs(find_jobs([name]), Values())
    there = {path.name: yaml.safe_load(path.read_text()) for path in (MANIFESTS / job.name).iterdir()}
    assert there == {file: yaml.safe_load(text) for file, text in job.files.items()}
    assert drift([job], MANIFESTS) == ""


@pytest.mark.parametrize("name", NAMES)
def test_heras_models_read_every_document_back_as_it_is(name: str) -> None:
    documents = rendered(EXAMPLES / name)
    for document in documents.values():
        if document["apiVersion"].startswith("argoproj.io"):
            model = getattr(models, document["kind"]).model_validate(document)
            assert model.model_dump(by_alias=True, exclude_unset=True) == document


def test_a_job_has_all_its_documents_each_with_a_name_and_a_namespace(example: Path) -> None:
    documents = rendered(example, namespace="night")
    assert list(documents) == list(FILES)
    for name, document in documents.items():
        if name != "kustomization.yaml":
            assert document["metadata"]["namespace"] == "night"
            assert document["metadata"]["annotations"]["fedloom/owner"] == "fedloom examples"
    listed = set(documents["kustomization.yaml"]["resources"])
    assert listed == set(FILES) - {"workflow.yaml", "kustomization.yaml"}
    assert documents["workflow.yaml"]["metadata"]["generateName"] == "fl-aircraft-accel-v1-"
    assert "name" not in documents["workflow.yaml"]["metadata"]


def test_the_dag_is_the_plan(example: Path) -> None:
    made = templates(rendered(example))
    main = {task["name"]: task.get("depends") for task in made["main"]["dag"]["tasks"]}
    assert main == {
        "validate": None,
        "initialise": "validate.Succeeded",
        "reserve-privacy": "initialise.Succeeded",
        "rounds": "reserve-privacy.Succeeded",
        "commit-privacy": "rounds.Succeeded",
        "report": "commit-privacy.Succeeded",
        "notify": "report.Succeeded",
    }
    inside = {task["name"]: task for task in made["round"]["dag"]["tasks"]}
    assert inside["train"]["withParam"] == "{{tasks.select.outputs.parameters.shards}}"
    assert inside["advertise-keys"]["depends"] == "train.Succeeded || train.Failed || train.Errored"
    assert inside["unmask"]["withParam"] == "{{tasks.distribute.outputs.parameters.chunks}}"
    assert inside["aggregate"]["depends"] == "unmask.Succeeded"
    assert made["round"]["dag"]["failFast"] is False
    assert "--settled" in made["unmask"]["container"]["args"]
    with_clients = {name for name, leaf in made.items() if "clients" in str(leaf.get("volumes"))}
    stages = {"advertise-keys", "share-keys", "mask-update", "confirm-survivors", "reveal-shares"}
    assert with_clients == {"validate", "train", *stages}
    assert {name for name, leaf in made.items() if "server" in str(leaf.get("volumes"))} == {
        "reserve-privacy",
        "commit-privacy",
    }
    assert "--settled" not in made["evaluate"]["container"]["args"]
    spec = rendered(example)["workflow-template.yaml"]["spec"]
    digest = plan_digest(compile_plan(load_job(example)))
    assert spec["arguments"]["parameters"] == [{"name": "plan-digest", "value": digest}]
    checked = "{{workflow.parameters.plan-digest}}"
    leaves = [template for template in made.values() if "container" in template]
    for leaf in leaves:
        assert leaf["container"]["command"] == ["fedloom"]
        assert leaf["retryStrategy"]["expression"] == "asInt(lastRetry.exitCode) != 2"
        assert leaf["container"]["securityContext"]["readOnlyRootFilesystem"]
    assert all(checked in leaf["container"]["args"] for leaf in leaves if leaf["container"]["args"][0] == "step")


def test_who_is_told_of_nothing_has_no_pods_that_tell(example: Path) -> None:
    (example / "schedule.yaml").unlink()
    documents = rendered(example)
    assert not {"notify", "notify-failure", "exit"} & set(templates(documents))
    assert "onExit" not in documents["workflow-template.yaml"]["spec"]


@pytest.mark.parametrize(("rounds", "blocks"), [(1, 0), (200, 0), (201, 3), (1000, 10)])
def test_rounds_stay_within_the_limits_of_argo(example: Path, rounds: int, blocks: int) -> None:
    edit(example, ("num_rounds: 60", f"num_rounds: {rounds}"), ("epsilon: 8.0", "noise_multiplier: 2"))
    documents = rendered(example)
    made = templates(documents)
    assert len(made) < 200
    assert all(len(t["dag"]["tasks"]) <= 200 for t in made.values() if "dag" in t)
    assert sum(name.startswith("rounds-") for name in made) == blocks
    calls = [
        int(task["arguments"]["parameters"][0]["value"])
        for name, template in made.items()
        if name.startswith("rounds")
        for task in template["dag"]["tasks"]
        if task["template"] == "round"
    ]
    assert calls == list(range(1, rounds + 1))
    assert len(render_job(example, Values()).files["workflow-template.yaml"]) < 400_000


def test_a_block_that_ended_early_ends_those_after_it(example: Path) -> None:
    edit(example, ("num_rounds: 60", "num_rounds: 250"), ("epsilon: 8.0", "noise_multiplier: 2"))
    made = templates(rendered(example))
    assert made["rounds-001"]["outputs"]["parameters"] == [
        {"name": "stop", "valueFrom": {"parameter": "{{tasks.round-100.outputs.parameters.stop}}", "default": "true"}}
    ]
    assert made["rounds"]["dag"]["tasks"][1]["when"] == "'{{tasks.rounds-001.outputs.parameters.stop}}' != 'true'"


def test_steps_that_nobody_knew_are_rendered_like_the_others(example: Path) -> None:
    plan = compile_plan(load_job(example))
    loop = plan.loop
    few = Resources(1, None)
    masks = Step("mask_keys", ("train",), few, fan_out=OutputRef("select", "shards"), may_be_lost=True)
    opened = Step("un_mask", ("mask_keys", "distribute"), few, measures=(Measure("survivors", "number", "Left."),))
    later = replace(plan, loop=replace(loop, steps=(*loop.steps[:3], masks, opened, *loop.steps[3:])))
    names = template_names([step.name for step in later.steps], ("main", "rounds", "round"))
    tasks = {t.name: t for t in dags.round_dag(later, names, "j").dag.tasks}  # type: ignore[union-attr]
    assert (
        tasks["un-mask"].depends
        == "distribute.Succeeded && (mask-keys.Succeeded || mask-keys.Failed || mask-keys.Errored)"
    )
    assert tasks["mask-keys"].depends == "train.Succeeded || train.Failed || train.Errored"
    assert tasks["mask-keys"].with_param == "{{tasks.select.outputs.parameters.shards}}"
    assert dags.loses_shards(later, opened)
    assert dags.read_outputs(later, opened) == ["survivors"]
    assert dags.read_outputs(later, later.loop.steps[0]) == ["shards"]


def test_needs_and_places_of_pods(example: Path) -> None:
    edit(
        example,
        ("  shard_size: 4", "  resources: {cpu_cores: 1, memory_gb: 1.5, gpu: true, timeout: 30}\n  shard_size: 4"),
    )
    documents = rendered(
        example,
        image="registry.example.org:5000/team/fedloom:1.2@sha256:" + "0" * 64,
        image_pull_secrets=["pull"],
        store={"url": "s3://bucket/runs", "secret": "s3"},
        env={"AWS_ENDPOINT_URL": "http://minio:9000"},
        node_selector={"pool": "fl"},
        tolerations=[{"key": "fl", "operator": "Exists"}],
        priority_class="night",
        gpu_resource="amd.com/gpu",
    )
    spec, made = documents["workflow-template.yaml"]["spec"], templates(documents)
    assert spec["nodeSelector"] == {"pool": "fl"}
    assert spec["tolerations"] == [{"key": "fl", "operator": "Exists"}]
    assert (spec["podPriorityClassName"], spec["imagePullSecrets"]) == ("night", [{"name": "pull"}])
    assert (spec["parallelism"], spec["activeDeadlineSeconds"]) == (2, 7200)
    train, select = made["train"]["container"], made["select"]["container"]
    assert train["resources"]["limits"] == {"cpu": "1", "memory": "1500M", "amd.com/gpu": "1"}
    assert select["resources"]["limits"] == {"cpu": "1", "memory": "1500M"}
    assert made["train"]["activeDeadlineSeconds"] == 1800
    assert train["args"][train["args"].index("--store") + 1] == "s3://bucket/runs"
    assert {"secretRef": {"name": "s3"}} in train["envFrom"]
    assert [volume["name"] for volume in spec["volumes"]] == ["job", "scratch"]


def test_metrics_tell_of_rounds_participation_and_the_gate(example: Path) -> None:
    documents = rendered(example)
    named = [t["metrics"]["prometheus"] for t in templates(documents).values() if "metrics" in t]
    assert [metric["name"] for metrics in named for metric in metrics] == [
        "fedloom_round_seconds", "fedloom_aggregate_cohort", "fedloom_aggregate_participants",
        "fedloom_gate_decisions_total",
    ]  # fmt: skip


def test_the_specs_travel_whole_wherever_they_lie(example: Path, tmp_path: Path) -> None:
    contracts = tmp_path / "contracts" / "imu-watch" / "1.0.0"
    contracts.mkdir(parents=True)
    (example / "contract.yaml").rename(contracts / "data_contract.yaml")
    edit(example, ('reference: "contract.yaml"', 'reference: "imu-watch:1.0.0"'))
    (example / "fleet.csv").rename(example / "flotte é.csv")
    edit(example, ("clients_file: fleet.csv", "clients_file: flotte é.csv"), file="fleet.yaml")
    bundle = load_job(example)
    made = specs_map(bundle, example)
    assert made.job == "/job/aircraft_accel_v1"
    pod = tmp_path / "pod"
    for key, text in made.data.items():
        path = pod / made.paths.get(key, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    again = load_job(pod / "aircraft_accel_v1")
    assert plan_digest(compile_plan(again)) == plan_digest(compile_plan(bundle))


def test_two_servers_have_a_volume_each_and_no_pod_has_two(example: Path) -> None:
    edit(example, ('protocol: "pairwise"', 'protocol: "two_server"'))
    made = templates(rendered(example))
    claims = {
        name: [v["persistentVolumeClaim"]["claimName"] for v in leaf.get("volumes", ()) if "persistentVolumeClaim" in v]
        for name, leaf in made.items()
    }
    assert {name for name, found in claims.items() if found == ["fedloom-clients"]} == {
        "validate", "train", "split-update",
    }  # fmt: skip
    of_second = {name for name, found in claims.items() if found == ["fedloom-second-server"]}
    assert of_second == {"second-key", "check-second", "second-half"}
    of_first = {name for name, found in claims.items() if found == ["fedloom-server"]}
    assert of_first == {"first-key", "check-first", "first-half", "reserve-privacy", "commit-privacy"}
    assert all(len(found) <= 1 for found in claims.values())
    main = {task["name"]: task.get("depends") for task in made["main"]["dag"]["tasks"]}
    assert main["validate"] == "first-key.Succeeded && second-key.Succeeded"
    inside = {task["name"]: task.get("depends") for task in made["round"]["dag"]["tasks"]}
    lost = "split-update.Succeeded || split-update.Failed || split-update.Errored"
    assert inside["check-first"] == inside["check-second"] == lost
    assert inside["first-half"] == inside["second-half"] == "check-first.Succeeded && check-second.Succeeded"
    assert inside["aggregate"] == "first-half.Succeeded && second-half.Succeeded"
    for name in ("check-first", "check-second"):
        assert "--settled" in made[name]["container"]["args"]


def test_specs_name_changes_with_their_content(example: Path) -> None:
    before = rendered(example)["config-map.yaml"]["metadata"]["name"]
    edit(example, ("# Run it:", "# Run it now:"))
    documents = rendered(example)
    after = documents["config-map.yaml"]["metadata"]["name"]
    assert before != after
    assert documents["workflow-template.yaml"]["spec"]["volumes"][0]["configMap"]["name"] == after


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("job.yaml", "dataset:imu-watch/holdout.parquet", "holdout.parquet", "held-out data .* lies in the job folder"),
        (
            "job.yaml",
            "  thresholds:\n",
            "  drift_detection: {enabled: true, alert_threshold: 0.2, baseline_distribution: b.json}\n  thresholds:\n",
            "the baseline distribution .* lies in the job folder",
        ),
        ("fleet.csv", "dataset:imu-watch/s01-left.parquet", "data.parquet", "the data of client .* lies in the job"),
        ("job.yaml", "num_rounds: 60", "num_rounds: 15001", "15,001 rounds are more than one workflow can hold"),
        ("schedule.yaml", "backoff_multiplier: 2", "backoff_multiplier: 1.5", "Argo's backoff grows by whole factors"),
        ("schedule.yaml", "{cpu_cores: 2, memory_gb: 4, gpu", "{cpu_cores: 0.5, gpu", "no pod of the job fits"),
        ("job.yaml", "learning_rate: 1.0", "learning_rate: -1", "learning_rate"),
    ],
)  # fmt: skip
def test_what_argo_cannot_carry_is_refused(example: Path, file: str, old: str, new: str, message: str) -> None:
    edit(example, (old, new), file=file)
    with pytest.raises(SpecError, match=message):
        render_job(example, Values())


def test_everything_that_is_wrong_is_said_at_once(example: Path) -> None:
    edit(example, ('framework: "PyTorch"', 'framework: "JAX"'))
    edit(example, ("dataset:imu-watch/holdout.parquet", "holdout.parquet"))
    edit(example, ("backoff_multiplier: 2", "backoff_multiplier: 1.5"), file="schedule.yaml")
    with pytest.raises(SpecError) as caught:
        render_job(example, Values())
    assert len(caught.value.problems) == 3


def test_specs_too_large_for_a_config_map_are_refused(example: Path) -> None:
    with (example / "fleet.csv").open("a") as table:
        row = (example / "fleet.csv").read_text().splitlines()[1]
        table.writelines(row.replace(row.split(",")[0], f"c{i:06d}", 1) + "\n" for i in range(15_000))
    with pytest.raises(SpecError, match="bytes; a ConfigMap holds less than"):
        render_job(example, Values())


def test_all_jobs_of_a_folder_and_all_their_problems(example: Path, copy_example: Callable[[str], Path]) -> None:
    other = copy_example("predictive_maintenance")
    jobs = render_jobs(find_jobs([str(example.parent)]), Values())
    assert [job.name for job in jobs] == ["fl-aircraft-accel-v1", "fl-pm-engine-bearing-v1"]
    edit(example, ("batch_size: 128", "batch_size: 0"))
    edit(other, ("architecture:", "architectur:"))
    with pytest.raises(SpecError) as caught:
        render_jobs(find_jobs([str(example.parent)]), Values())
    assert {Path(problem.file).parent.name for problem in caught.value.problems} == {example.name, other.name}


def test_two_jobs_of_one_name_are_refused(example: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="another job is called fl-aircraft-accel-v1 too"):
        render_jobs([example, EXAMPLES / "aircraft_accel_v1"], Values())


def test_written_compared_and_taken_away(example: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    jobs = render_jobs([example], Values())
    write(jobs, folder)
    assert drift(jobs, folder) == ""
    (folder / jobs[0].name / "role.yaml").unlink()
    assert drift(jobs, folder) == f"{folder / jobs[0].name / 'role.yaml'} is missing\n"
    write(jobs, folder)
    assert sorted(path.name for path in (folder / jobs[0].name).iterdir()) == sorted(FILES)
    (example / "schedule.yaml").unlink()
    edit(
        example,
        ('type: "weekly"', 'type: "on_demand"'),
        ('    launch_day: "Sunday"\n', ""),
        ('    launch_time: "02:00 UTC"\n', ""),
    )
    (now,) = render_jobs([example], Values())
    assert "cron-workflow.yaml is rendered no more" in drift([now], folder)
    write([now], folder)
    assert drift([now], folder) == ""
    assert not (folder / now.name / "cron-workflow.yaml").exists()


def test_manifests_of_a_job_that_is_gone_are_drift(example: Path, tmp_path: Path) -> None:
    (job,) = render_jobs([example], Values())
    gone = Rendered("fl-gone", job.files)
    write([job, gone], tmp_path / "out")
    assert drift([job], tmp_path / "out") == ""  # one job of several was asked for
    assert drift([job], tmp_path / "out", all_jobs=True) == f"{tmp_path / 'out' / 'fl-gone'} belongs to no job\n"


def test_a_folder_that_cannot_be_written_is_left_as_it_was(example: Path, tmp_path: Path) -> None:
    jobs = [*render_jobs([example], Values()), Rendered("b", {"workflow.yaml": "x"})]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b").write_text("a file, where a folder should be")
    with pytest.raises(OSError, match="b"):
        write(jobs, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [tmp_path / "out" / "b"]


def test_the_same_text_every_time(example: Path) -> None:
    first = render_job(example, Values())
    assert first == render_job(example, Values())
    for text in first.files.values():
        assert "&id" not in text
        assert str(example.parent) not in text


@given(st.text(min_size=1, max_size=200), st.integers(20, 63))
def test_names_are_valid_and_stay(text: str, limit: int) -> None:
    name = dns_name(text, limit)
    assert check_dns_label(name) == name
    assert len(name) <= limit
    assert dns_name(name, limit) == name
    assert len(label_value(text)) <= 63


@given(st.lists(st.text("ab_-", min_size=1, max_size=4), unique=True, min_size=2, max_size=8))
def test_names_never_clash(texts: list[str]) -> None:
    assert len({dns_name(text) for text in texts}) == len(texts)
    assert len(set(template_names(texts, ["a", "b"]).values()) | {"a", "b"}) == len(texts) + 2


@pytest.mark.parametrize(
    ("image", "good"),
    [
        ("fedloom:0.1.0", True),
        ("ghcr.io/team/fedloom@sha256:" + "a" * 64, True),
        ("localhost:5000/fedloom", True),
        ("Fedloom:1", False),
        ("fedloom:", False),
        ("fedloom latest", False),
        ("", False),
    ],
)
def test_images(image: str, good: bool) -> None:
    if good:
        assert check_image(image) == image
    else:
        with pytest.raises(ValueError, match="no image reference"):
            check_image(image)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("store: {}", "give either url or claim"),
        ("store: {url: s3://b, claim: c}", "give either url or claim"),
        ("store: {url: 's3://key:secret@b/runs'}", "has no credentials"),
        ("store: {url: /local/folder}", "no store that pods share"),
        ("env: {AWS_SECRET_ACCESS_KEY: x}", "looks like a secret"),
        ("namespace: Night_Runs", "no Kubernetes name"),
        ("imag: x", "image"),
        ("[]", "mapping"),
    ],
)
def test_values_are_checked(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "values.yaml").write_text(text)
    with pytest.raises(SpecError, match=message):
        load_values(tmp_path / "values.yaml")


def test_options_count_instead_of_values(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("{namespace: a, image: x}")
    values = load_values(tmp_path / "values.yaml", namespace="b", image=None)
    assert (values.namespace, values.image) == ("b", "x")


@pytest.mark.parametrize(("cores", "shown"), [(1, "1"), (0.5, "500m"), (2.0, "2"), (0.0001, "1m")])
def test_cores(cores: float, shown: str) -> None:
    assert cpu_quantity(cores) == shown


@pytest.mark.parametrize(("size", "shown"), [(4 * 10**9, "4G"), (1 << 30, "1024Mi"), (1, "1Mi")])
def test_memory(size: int, shown: str) -> None:
    assert memory_quantity(size) == shown


def test_plan_steps_are_all_there(example: Path) -> None:
    plan: Plan = compile_plan(load_job(example))
    assert {step.name.replace("_", "-") for step in plan.steps} < set(templates(rendered(example)))


def test_the_values_in_the_docs_are_values(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "argo.md").read_text()
    (tmp_path / "values.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    assert load_values(tmp_path / "values.yaml").parallelism == 8
