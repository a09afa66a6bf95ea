"""The proof: what is rendered, carried out as Argo would, ends with the model that `fedloom simulate` makes.

The harness has nothing but the YAML files; every pod is a process of the command line.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedloom.specs.bundle import EXAMPLES
from fedloom.tasks.datasets import cache_root, prepare
from tests.deploy.argo.harness import Chaos, Cluster, Fault, Workflow

pytestmark = pytest.mark.slow

LAUNCH = datetime(2026, 11, 29, 2, 0, tzinfo=UTC)  # a Sunday
ROUNDS = 2
SECURE = ("num_rounds: 2", "num_rounds: 1")
"""Asks for the example as it is, with privacy and masks, for one round."""
TWO_SERVERS = (
    ('protocol: "pairwise"', "protocol: two_server"),
    ("    threshold: 7                 # of the 11 others of a full cohort\n", ""),
    ("    dropout_tolerance: 4         # a whole shard may be lost\n", ""),
)
Play = Callable[..., tuple[Cluster, Workflow]]


OPEN = (('mechanism: "DP-SGD"', "mechanism: DP-SGD"), ("enabled: true\n    mechanism", "enabled: false\n    mechanism"))
OPEN += (("enabled: true\n    protocol", "enabled: false\n    protocol"),)
"""Without privacy and masks, which have a test of their own."""


def edited(folder: Path, *replacements: tuple[str, str]) -> Path:
    """The example, shortened so that a test of a hundred processes stays short."""
    shutil.copytree(EXAMPLES / "aircraft_accel_v1", folder)
    job = folder / "job.yaml"
    text = job.read_text()
    for old, new in (
        ("num_rounds: 60", f"num_rounds: {ROUNDS}"),
        *(() if SECURE in replacements else OPEN),
        *replacements,
    ):
        assert old in text, old
        text = text.replace(old, new)
    job.write_text(text)
    return folder


def fedloom(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fedloom", *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `fedloom simulate` makes of the job."""
    folder = tmp_path_factory.mktemp("simulated")
    done = fedloom("simulate", str(edited(folder / "job")), "--store", str(folder / "store"), "--json")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def play(tmp_path: Path, webhook: tuple[str, list[dict[str, Any]]]) -> Play:
    """Render the job, and let the harness launch it."""

    def launch(chaos: Chaos, *replacements: tuple[str, str]) -> tuple[Cluster, Workflow]:
        prepare("imu-watch")
        done = fedloom("render", "argo", str(edited(tmp_path / "job", *replacements)), "-o", str(tmp_path / "out"))
        assert done.returncode == 0, done.stderr
        environment = {"PATH": os.environ["PATH"], "FEDLOOM_CACHE": str(cache_root())}
        mail = {"fedloom-notify": {"FEDLOOM_NOTIFY_EMAIL": webhook[0]}}
        cluster = Cluster(tmp_path / "out", tmp_path / "volumes", environment, mail, chaos)
        workflow = cluster.launch(LAUNCH)
        assert workflow is not None
        return cluster, workflow

    return launch


def run_folder(cluster: Cluster) -> Path:
    (folder,) = (cluster.volumes / "fedloom-runs" / "runs").iterdir()
    return folder


def report(cluster: Cluster) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run_folder(cluster) / "summary.json").read_text())
    return summary


def aggregate(cluster: Cluster, round: int) -> dict[str, Any]:
    result = json.loads((run_folder(cluster) / f"round-{round:05d}" / "aggregate.json").read_text())
    outputs: dict[str, Any] = result["outputs"]
    return outputs


def test_with_pods_killed_and_evicted_it_ends_with_the_same_model(
    play: Play, simulated: dict[str, Any], webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    faults = {
        ("train", "1", "0"): Fault("kill", after_writes=1),
        ("train", "1", "1"): Fault("kill"),
        ("aggregate", "1", None): Fault("kill", after_writes=1),
        ("gate", "2", None): Fault("evict", after_writes=1),
        ("initialise", None, None): Fault("never"),
    }

    def chaos(template: str, inputs: dict[str, str], attempt: int) -> Fault | None:
        return None if attempt else faults.get((template, inputs.get("round"), inputs.get("shard")))

    cluster, workflow = play(chaos)
    tree = str(workflow.root)
    assert workflow.phase == "Succeeded", tree
    assert {node.phase for node in workflow.root.all()} == {"Succeeded"}, tree
    assert workflow.root.find("round-1.aggregate").exit_codes == ["137", "0"], tree
    assert workflow.root.find("round-2.gate").exit_codes == ["-1", "0"], tree
    assert workflow.root.find("main.initialise").exit_codes == ["-1", "0"], tree
    assert workflow.root.find("main.initialise").waits == [900.0], tree  # as the schedule's retry policy says
    ended = report(cluster)
    for key in ("model_digest", "metrics", "plan_digest", "participation"):
        assert ended[key] == simulated[key]
    assert ended["gate"]["checks"] == simulated["gate"]["checks"]
    assert ended["run_id"].endswith(workflow.uid)
    (told,) = webhook[1]
    assert told["message"] == "fl-aircraft-accel-v1 ended after 2 rounds."
    measured = {name: (value, labels) for name, value, labels in workflow.metrics}
    assert measured["fedloom_aggregate_participants"][0] == "12"
    assert measured["fedloom_gate_decisions_total"][1]["decision"] == ended["gate"]["decision"]
    assert measured["fedloom_runs_total"][1] == {"job": "fl-aircraft-accel-v1", "status": "Succeeded"}
    assert [name for name, _, _ in workflow.metrics].count("fedloom_round_seconds") == ROUNDS


def test_a_shard_lost_for_good_is_a_dropout_and_early_stopping_skips_what_is_left(play: Play) -> None:
    def chaos(template: str, inputs: dict[str, str], _attempt: int) -> Fault | None:
        return Fault("kill") if template == "train" and inputs["shard"] == "2" else None

    stopping = "num_rounds: 3\n    early_stopping: {enabled: true, metric: auc, threshold: 0.01}"
    cluster, workflow = play(chaos, (f"num_rounds: {ROUNDS}", stopping))
    tree = str(workflow.root)
    assert workflow.phase == "Succeeded", tree
    assert workflow.root.find("round-1.train").phase == "Failed", tree
    assert workflow.root.find("round-1.train(2)").exit_codes == ["137", "137"], tree
    assert [workflow.root.find(f"rounds.round-{n}").phase for n in (1, 2, 3)] == ["Succeeded", "Skipped", "Omitted"]
    took = aggregate(cluster, 1)
    assert (took["participants"], took["quorum_met"], len(took["dropouts"])) == (8, True, 4)
    assert {d["reason"] for d in took["dropouts"]} == {
        "the shard was lost: it ended without a result or a word: killed, evicted or out of time"
    }
    assert report(cluster)["gate"]["stop_reason"].startswith("early stopping: auc")


def test_below_the_quorum_the_loop_ends_and_the_report_says_so(play: Play) -> None:
    cluster, workflow = play(lambda template, *_: Fault("never") if template == "train" else None)
    tree = str(workflow.root)
    assert workflow.phase == "Succeeded", tree  # the run did what it should: it withheld the model
    assert [workflow.root.find(f"rounds.round-{n}").phase for n in (1, 2)] == ["Succeeded", "Skipped"], tree
    ended = report(cluster)
    assert (ended["rounds"], ended["gate"]["decision"], ended["gate"]["promoted"]) == (1, "fail", False)
    assert "0 of 12 clients gave an update, the quorum is 6" in ended["gate"]["stop_reason"]


def test_masks_and_privacy_with_pods_lost_at_two_stages(play: Play) -> None:
    def chaos(template: str, inputs: dict[str, str], attempt: int) -> Fault | None:
        if template == "share-keys" and inputs["shard"] == "0" and not attempt:
            return Fault("kill", after_writes=1)  # tried again: the clients give the same bytes
        return Fault("evict") if template == "mask-update" and inputs["shard"] == "2" else None

    cluster, workflow = play(chaos, SECURE)
    tree = str(workflow.root)
    assert workflow.phase == "Succeeded", tree
    took = aggregate(cluster, 1)
    assert (took["participants"], took["aborted"]) == (8, None), took
    assert {drop["stage"] for drop in took["dropouts"]} == {"mask_update"}
    assert took["session"]["threshold"] == 7
    ended = report(cluster)
    assert ended["privacy"]["unit"] == "record"
    folder = cluster.volumes / "fedloom-runs" / "ledger"
    assert sorted(path.name for path in folder.rglob("*.json")) == ["00000001.json", "00000002.json"]
    assert list((cluster.volumes / "fedloom-clients").rglob("identity.pem"))
    assert not [path for path in run_folder(cluster).rglob("*") if path.suffix in (".pem", ".key")]


def test_two_servers_with_a_pod_killed_at_each(play: Play) -> None:
    faults = {
        ("split-update", "0"): Fault("kill", after_writes=1),  # tried again: the clients give the same bytes
        ("check-second", None): Fault("kill"),
        ("first-half", None): Fault("evict"),
        ("second-half", None): Fault("kill", after_writes=1),
    }

    def chaos(template: str, inputs: dict[str, str], attempt: int) -> Fault | None:
        return None if attempt else faults.get((template, inputs.get("shard")))

    cluster, workflow = play(chaos, SECURE, *TWO_SERVERS)
    tree = str(workflow.root)
    assert workflow.phase == "Succeeded", tree
    for name in ("round-1.split-update(0)", "round-1.check-second", "round-1.first-half", "round-1.second-half"):
        assert len(workflow.root.find(name).exit_codes) == 2, tree
    took = aggregate(cluster, 1)
    assert (took["participants"], took["dropouts"], took["aborted"]) == (12, [], None), took
    assert took["session"]["servers"] == 2
    for claim in ("fedloom-server", "fedloom-second-server"):
        assert (cluster.volumes / claim / "exchange.key").exists()
    assert not list(run_folder(cluster).rglob("*.key"))


def test_outside_its_window_it_is_not_launched_and_other_specs_stop_it(
    play: Play, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    cluster, _ = play(lambda *_: Fault("never"))
    assert cluster.launch(LAUNCH.replace(hour=9)) is None
    assert cluster.launch(LAUNCH.replace(month=12, day=27)) is None

    specs = cluster.of_kind("ConfigMap")["data"]
    specs["job.yaml"] = specs["job.yaml"].replace("batch_size: 128", "batch_size: 16")
    cluster.chaos = lambda *_: None
    workflow = cluster.submit()
    validate = workflow.root.find("main.validate")
    assert (workflow.phase, validate.exit_codes, validate.waits) == ("Failed", ["2"], [900.0])
    assert "the specs compile to plan" in validate.log
    assert workflow.root.find("main.rounds").phase == "Omitted"
    (told,) = webhook[1]
    assert told["message"] == "fl-aircraft-accel-v1 failed: main: Failed; validate: exit code 2"
