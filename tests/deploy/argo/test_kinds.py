"""Jobs that train nothing, as `fedloom init` makes them: rendered, linted, and carried out as Argo would."""

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from fedloom.deploy.argo.lint import lint_rendered
from fedloom.deploy.argo.render import render_job
from fedloom.deploy.argo.values import Values
from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.result import read_result
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import load_job
from fedloom.specs.scaffold import init_job
from fedloom.tasks.datasets import cache_root, prepare
from tests.deploy.argo.harness import Cluster, Fault

TEMPLATES = {"eval": "measure", "aggregate": "collect"}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_job_renders_clean_and_carries_its_files(tmp_path: Path, template: str) -> None:
    init_job("pumps", template, tmp_path)
    rendered = render_job(tmp_path / "pumps", Values())
    for version in ("3.7", "4"):
        assert lint_rendered(rendered, version) == []
    documents = {name: yaml.safe_load(text) for name, text in rendered.files.items()}
    names = [each["name"] for each in documents["workflow-template.yaml"]["spec"]["templates"]]
    assert TEMPLATES[template] in names
    assert "train" not in names
    carried = documents["config-map.yaml"]["binaryData"]
    model = (tmp_path / "pumps" / "model.safetensors").read_bytes()
    assert base64.b64decode(carried["model.safetensors"]) == model
    volume = documents["workflow-template.yaml"]["spec"]["volumes"][0]["configMap"]
    paths = {item["path"] for item in volume.get("items", [])}
    assert ("updates/index.json" in paths) is (template == "aggregate")


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_with_pods_killed_it_ends_as_in_process(tmp_path: Path, template: str) -> None:
    prepare("imu-watch")
    init_job("pumps", template, tmp_path)
    bundle = load_job(tmp_path / "pumps")
    plan = compile_plan(bundle)
    run = open_run(plan, bundle, str(tmp_path / "store"))
    simulate(plan, run)
    result = read_result(run)
    for name, text in render_job(tmp_path / "pumps", Values()).files.items():
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text(text)
    environment = {"PATH": os.environ["PATH"], "FEDLOOM_CACHE": str(cache_root())}
    faults = {(TEMPLATES[template], "1", "0"): Fault("kill"), ("aggregate", "1", None): Fault("kill", after_writes=1)}

    def chaos(name: str, inputs: Mapping[str, str], attempt: int) -> Fault | None:
        return None if attempt else faults.get((name, inputs.get("round", ""), inputs.get("shard")))

    cluster = Cluster(tmp_path / "out", tmp_path / "volumes", environment, {}, chaos)
    assert cluster.submit().phase == "Succeeded"
    (folder,) = (cluster.volumes / "fedloom-runs" / "runs").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["model_digest"] == result.model_digest
    assert summary["metrics"] == result.metrics
    assert summary["gate"]["decision"] == result.gate["decision"] == "pass"
