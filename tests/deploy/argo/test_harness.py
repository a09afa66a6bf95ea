"""The harness itself: it does with small manifests what Argo's documentation says."""

import json
import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedloom.deploy.argo.render import render_job
from fedloom.deploy.argo.values import Values
from fedloom.specs.bundle import EXAMPLES
from tests.deploy.argo.harness import Cluster, Fault, Workflow


def leaf(name: str, script: str, outputs: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """A template that runs a line of Python; /tmp is its scratch folder."""
    template: dict[str, Any] = {
        "name": name,
        "container": {
            "image": "x",
            "command": [sys.executable, "-c", script],
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "disk", "mountPath": "/disk"}],
            "args": ["/tmp", "/disk", *more.pop("args", [])],
        },
        **more,
    }
    if outputs:
        template["outputs"] = {"parameters": [{"name": o, "valueFrom": {"path": f"/tmp/{o}"}} for o in outputs]}
    return template


OK, BAD = leaf("ok", ""), leaf("bad", "raise SystemExit(1)")
SAY = leaf(
    "say",
    "import sys; open(sys.argv[1] + '/said', 'w').write(sys.argv[3])",
    ["said"],
    args=["{{inputs.parameters.word}}"],
)
SAY["inputs"] = {"parameters": [{"name": "word", "default": "hello"}]}


def run(tmp_path: Path, main: dict[str, Any], *others: dict[str, Any], chaos: Any = None, **spec: Any) -> Workflow:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    volumes.append({"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}})
    templates = [{"name": "main", **main}, OK, BAD, SAY, *others]
    whole = {"entrypoint": "main", "volumes": volumes, "templates": templates, **spec}
    workflow = {"kind": "Workflow", "metadata": {"name": "w"}, "spec": whole}
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "w.yaml").write_text(yaml.safe_dump(workflow))
    cluster = Cluster(tmp_path / "m", tmp_path / "volumes", {})
    if chaos is not None:
        cluster.chaos = chaos
    return cluster.submit()


def dag(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"dag": {"tasks": list(tasks), **more}}


def phases(workflow: Workflow) -> dict[str, str]:
    return {node.name.removeprefix("main."): node.phase for node in workflow.root.all() if node is not workflow.root}


@pytest.mark.parametrize(
    ("depends", "phase"),
    [
        ("good", "Succeeded"),
        ("good.Succeeded && !ill.Succeeded", "Succeeded"),
        ("ill", "Omitted"),
        ("ill.Failed", "Succeeded"),
        ("ill.Succeeded || good.Succeeded", "Succeeded"),
        ("left", "Succeeded"),
        ("left.Succeeded", "Omitted"),
        ("left.Skipped && ill.Failed", "Succeeded"),
        ("loop.AnySucceeded && !loop.AllFailed", "Succeeded"),
        ("loop.Succeeded", "Omitted"),
    ],
)
def test_depends(tmp_path: Path, depends: str, phase: str) -> None:
    mixed = leaf("mixed", "import sys; sys.exit(int(sys.argv[3]))", args=["{{inputs.parameters.code}}"])
    mixed["inputs"] = {"parameters": [{"name": "code"}]}
    code = {"parameters": [{"name": "code", "value": "{{item}}"}]}
    tasks = [
        {"name": "good", "template": "ok"},
        {"name": "ill", "template": "bad"},
        {"name": "left", "template": "ok", "when": "1 == 2"},
        {"name": "loop", "template": "mixed", "withItems": [0, 1], "arguments": code},
        {"name": "last", "template": "ok", "depends": depends},
    ]
    assert phases(run(tmp_path, dag(*tasks, failFast=False), mixed))["last"] == phase


def test_a_failure_that_was_foreseen_does_not_fail_the_dag(tmp_path: Path) -> None:
    tasks = [{"name": "ill", "template": "bad"}, {"name": "mend", "template": "ok", "depends": "ill.Failed"}]
    assert run(tmp_path, dag(*tasks)).phase == "Succeeded"


def test_what_follows_a_failure_is_omitted_and_the_dag_has_failed(tmp_path: Path) -> None:
    tasks = [{"name": "ill", "template": "bad"}, {"name": "next", "template": "ok", "depends": "ill.Succeeded"}]
    workflow = run(tmp_path, dag(*tasks))
    assert (workflow.phase, phases(workflow)) == ("Failed", {"ill": "Failed", "next": "Omitted"})


def test_all_failed_counts_no_pod_that_was_evicted(tmp_path: Path) -> None:
    tasks = [
        {"name": "loop", "template": "ok", "withItems": [0, 1]},
        {"name": "failed", "template": "ok", "depends": "loop.AllFailed"},
        {"name": "ended", "template": "ok", "depends": "loop.Succeeded || loop.Failed || loop.Errored"},
    ]
    lost = iter([Fault("kill"), Fault("evict"), None])
    workflow = run(tmp_path, dag(*tasks, failFast=False), chaos=lambda *_: next(lost), parallelism=1)
    assert (phases(workflow)["failed"], phases(workflow)["ended"]) == ("Omitted", "Succeeded")


@pytest.mark.parametrize(("fail_fast", "last"), [(True, None), (False, "Succeeded")])
def test_fail_fast_starts_nothing_more(tmp_path: Path, fail_fast: bool, last: str | None) -> None:
    slow = leaf("slow", "import time; time.sleep(0.5)")
    tasks = [
        {"name": "ill", "template": "bad"},
        {"name": "slow", "template": "slow"},
        {"name": "last", "template": "ok", "depends": "slow.Succeeded"},
    ]
    workflow = run(tmp_path, dag(*tasks, failFast=fail_fast), slow)
    assert (workflow.phase, phases(workflow).get("last")) == ("Failed", last)


def test_a_chain_ends_where_its_condition_is_false(tmp_path: Path) -> None:
    stop = "'{{tasks.%s.outputs.parameters.said}}' != 'stop'"
    words = {"parameters": [{"name": "word", "value": "stop"}]}
    tasks = [
        {"name": "a", "template": "say"},
        {"name": "b", "template": "say", "depends": "a.Succeeded", "when": stop % "a", "arguments": words},
        {"name": "c", "template": "say", "depends": "b.Succeeded", "when": stop % "b"},
        {"name": "d", "template": "say", "depends": "c.Succeeded", "when": stop % "c"},
    ]
    workflow = run(tmp_path, dag(*tasks))
    assert workflow.phase == "Succeeded"
    assert phases(workflow) == {"a": "Succeeded", "b": "Succeeded", "c": "Skipped", "d": "Omitted"}


def test_an_output_of_what_was_skipped_ends_the_workflow(tmp_path: Path) -> None:
    tasks = [
        {"name": "a", "template": "say", "when": "false"},
        {"name": "b", "template": "say", "depends": "a", "when": "'{{tasks.a.outputs.parameters.said}}' == ''"},
    ]
    assert run(tmp_path, dag(*tasks)).phase == "Error"


def test_outputs_become_arguments_and_loops(tmp_path: Path) -> None:
    lists = leaf("lists", "import sys; open(sys.argv[1] + '/list', 'w').write('[3, 4]')", ["list"])
    word = {"parameters": [{"name": "word", "value": "n{{item}}"}]}
    param = "{{tasks.lists.outputs.parameters.list}}"
    tasks = [
        {"name": "lists", "template": "lists"},
        {"name": "each", "template": "say", "depends": "lists", "withParam": param, "arguments": word},
    ]
    workflow = run(tmp_path, dag(*tasks), lists)
    assert [child.outputs["said"] for child in workflow.root.find("each").children] == ["n3", "n4"]


@pytest.mark.parametrize(
    ("codes", "strategy", "phase", "seen"),
    [
        ([1, 0], {"limit": 2}, "Succeeded", ["1", "0"]),
        ([1, 1, 1], {"limit": 1}, "Failed", ["1", "1"]),
        ([2, 0], {"limit": 2, "expression": "asInt(lastRetry.exitCode) != 2"}, "Failed", ["2"]),
        ([1, 2, 0], {"limit": 3, "expression": "asInt(lastRetry.exitCode) != 2"}, "Failed", ["1", "2"]),
        ([1, 0], {"limit": 2, "retryPolicy": "OnError"}, "Failed", ["1"]),
    ],
)
def test_retries(tmp_path: Path, codes: list[int], strategy: dict[str, Any], phase: str, seen: list[str]) -> None:
    script = f"import os, sys; sys.exit({codes}[int(os.environ['POD_ATTEMPT'])])"
    backoff = {"duration": "10s", "factor": 3}
    work = leaf("work", script, retryStrategy={**strategy, "backoff": backoff})
    node = run(tmp_path, dag({"name": "work", "template": "work"}), work).root.find("work")
    assert (node.phase, node.exit_codes) == (phase, seen)
    assert node.waits == [10.0, 30.0][: min(len(seen) - (phase == "Succeeded"), strategy["limit"])]


@pytest.mark.parametrize(
    ("fault", "policy", "codes"),
    [
        (Fault("kill"), "Always", ["137", "0"]),
        (Fault("evict"), "Always", ["-1", "0"]),
        (Fault("never"), "OnError", ["-1", "0"]),
        (Fault("evict"), "OnFailure", ["-1"]),
    ],
)
def test_faults(tmp_path: Path, fault: Fault, policy: str, codes: list[str]) -> None:
    work = leaf("work", "import time; time.sleep(0.3)", retryStrategy={"limit": 3, "retryPolicy": policy})
    workflow = run(
        tmp_path,
        dag({"name": "work", "template": "work"}),
        work,
        chaos=lambda _template, _inputs, attempt: fault if attempt == 0 else None,
    )
    assert workflow.root.find("work").exit_codes == codes


def test_time_is_up(tmp_path: Path) -> None:
    work = leaf("work", "import time; time.sleep(60)", activeDeadlineSeconds=1)
    assert run(tmp_path, dag({"name": "work", "template": "work"}), work).root.find("work").exit_codes == ["137"]


def test_the_exit_handler_knows_how_it_ended(tmp_path: Path) -> None:
    failed = {"name": "told", "template": "say", "when": "'{{workflow.status}}' != 'Succeeded'"}
    failed["arguments"] = {"parameters": [{"name": "word", "value": "{{workflow.failures}}"}]}
    bye = {"name": "bye", "steps": [[failed]]}
    workflow = run(tmp_path, dag({"name": "ill", "template": "bad"}), bye, onExit="bye")
    assert workflow.exit is not None
    failures = json.loads(json.loads(workflow.exit.find("told").outputs["said"]))
    assert [(each["displayName"], each["message"]) for each in failures] == [("main", ""), ("ill", "exit code 1")]


def test_the_workflows_time_is_up_but_its_exit_handler_runs(tmp_path: Path) -> None:
    slow = leaf("slow", "import time; time.sleep(60)", retryStrategy={"limit": 3})
    tasks = [{"name": "slow", "template": "slow"}, {"name": "next", "template": "ok", "depends": "slow"}]
    workflow = run(tmp_path, dag(*tasks), slow, activeDeadlineSeconds=1, onExit="ok")
    assert (workflow.phase, phases(workflow)) == ("Failed", {"slow": "Failed", "next": "Omitted"})
    assert workflow.root.find("slow").exit_codes == ["137"]
    assert workflow.exit is not None
    assert workflow.exit.phase == "Succeeded"


def test_parallelism(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; d = sys.argv[2]; open(f'{d}/{os.getpid()}', 'w'); time.sleep(0.2);"
        "n = len(os.listdir(d)); os.unlink(f'{d}/{os.getpid()}'); sys.exit(n > 1)"
    )
    tasks = [{"name": f"t{i}", "template": "alone"} for i in range(3)]
    assert run(tmp_path, dag(*tasks), leaf("alone", script), parallelism=1).phase == "Succeeded"


def test_metrics(tmp_path: Path) -> None:
    metric = {"name": "m", "help": "h", "when": "'{{outputs.parameters.said}}' != ''"}
    metric |= {"labels": [{"key": "k", "value": "{{status}}"}], "gauge": {"value": "{{outputs.parameters.said}}"}}
    said = {**SAY, "name": "measured", "metrics": {"prometheus": [metric]}}
    assert run(tmp_path, dag({"name": "a", "template": "measured"}), said).metrics == [
        ("m", "hello", {"k": "Succeeded"})
    ]


@pytest.mark.parametrize(
    ("now", "last", "launched"),
    [("2026-01-01", None, True), ("2026-01-01", "2026-01-01", False), ("2027-01-01", None, False)],
)
def test_cron(tmp_path: Path, now: str, last: str | None, launched: bool) -> None:
    def at(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    spec = {"entrypoint": "ok", "templates": [leaf("ok", "")], "volumes": [{"name": "disk", "emptyDir": {}}]}
    cron = {
        "when": "{{= cronworkflow.lastScheduledTime == nil || (now() - cronworkflow.lastScheduledTime).Hours() > 1 }}",
        "stopStrategy": {"expression": "now() > date('2026-06-01T00:00:00Z')"},
        "workflowSpec": {"workflowTemplateRef": {"name": "t"}},
    }
    documents = [
        {"kind": "WorkflowTemplate", "metadata": {"name": "t"}, "spec": spec},
        {"kind": "CronWorkflow", "metadata": {"name": "c"}, "spec": cron},
    ]
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "all.yaml").write_text(yaml.safe_dump_all(documents))
    cluster = Cluster(tmp_path / "m", tmp_path / "volumes", {})
    assert (cluster.launch(at(now), at(last) if last else None) is not None) is launched


STAND_IN = """
import pathlib, sys
words = sys.argv[1:]
if "--outputs" in words:
    folder = pathlib.Path(words[words.index("--outputs") + 1])
    folder.mkdir(parents=True)
    last = "--round" in words and words[words.index("--round") + 1] == "3"
    said = {"shards": "[0, 1]", "stop": str(last).lower(), "decision": "", "cohort": "2", "participants": "2"}
    for name, text in said.items():
        (folder / name).write_text(text)
"""


def test_a_loop_that_ends_in_its_first_block_skips_the_others(tmp_path: Path) -> None:
    """Rendered rounds beyond 200, with pods that only say when to stop."""
    job = tmp_path / "job"
    shutil.copytree(EXAMPLES / "predictive_maintenance", job)
    text = (job / "job.yaml").read_text()
    (job / "job.yaml").write_text(re.sub(r"num_rounds: \d+", "num_rounds: 250", text))
    documents = render_job(job, Values()).documents
    for template in documents["workflow-template.yaml"]["spec"]["templates"]:
        if "container" in template:
            template["container"]["command"] = [sys.executable, "-c", STAND_IN]
    (tmp_path / "m").mkdir()
    for name, document in documents.items():
        (tmp_path / "m" / name).write_text(yaml.safe_dump(document))
    workflow = Cluster(tmp_path / "m", tmp_path / "volumes", {}).submit()
    tree = str(workflow.root)
    assert workflow.phase == "Succeeded", tree
    blocks = {name: workflow.root.find(f"rounds.{name}") for name in ("rounds-001", "rounds-101", "rounds-201")}
    assert [block.phase for block in blocks.values()] == ["Succeeded", "Skipped", "Omitted"]
    assert blocks["rounds-001"].outputs == {"stop": "true"}
    phases = [child.phase for child in blocks["rounds-001"].children]
    assert phases == ["Succeeded"] * 3 + ["Skipped"] + ["Omitted"] * 96
    assert workflow.root.find("main.report").phase == "Succeeded"
