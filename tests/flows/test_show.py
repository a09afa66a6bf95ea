import itertools
import json
from pathlib import Path

from fedloom.flows import show
from fedloom.flows.compile import compile_plan
from fedloom.flows.plan import plan_digest
from fedloom.specs.bundle import load_job
from tests.conftest import write_job

STEPS = ["select", "distribute", "train", "aggregate", "evaluate", "gate"]


def test_the_tree_names_every_step_the_digest_and_the_costs(tiny_job: Path) -> None:
    plan = compile_plan(load_job(tiny_job))
    tree = show.as_tree(plan)
    assert [line.split("─ ")[1].split()[0] for line in tree.splitlines() if "─ " in line] == [
        "validate", "initialise", "rounds", *STEPS, "report",
    ]  # fmt: skip
    assert plan_digest(plan) in tree
    assert "145" in tree


def test_two_servers_are_shown_with_whom_to_trust(tmp_path: Path) -> None:
    secure = {"enabled": True, "protocol": "two_server", "threshold": 3}
    privacy = {"differential_privacy": {"enabled": False}, "secure_aggregation": secure}
    job = {"differential_privacy": None, "secure_aggregation": None, "privacy_config": privacy, "min_clients": 4}
    bundle = load_job(write_job(tmp_path / "two", **job))
    plan = compile_plan(bundle)
    assert "half of every update to each of two servers; at least 3 clients in a sum; 22 bits" in show.as_tree(plan)
    for edge in ("first_key --> validate", "check_second --> first_half", "second_half --> aggregate"):
        assert edge in show.as_mermaid(plan)
    assert show.notes(bundle) == [
        "two servers keep updates apart only while they do not work together: let two operators run them",
        "with two servers nobody shares secrets: what the job says of threshold does not count",
    ]


def test_json_is_the_plan_that_the_digest_covers(tiny_job: Path) -> None:
    bundle = load_job(tiny_job)
    plan = compile_plan(bundle)
    shown = json.loads(show.as_json(plan, bundle))
    assert shown["notes"] == []
    from fedloom.specs.canonical import digest

    assert shown["digest"] == digest(shown["plan"]) == plan_digest(plan)


def test_mermaid_and_dot_draw_every_edge(tiny_job: Path) -> None:
    plan = compile_plan(load_job(tiny_job))
    for a, b in itertools.pairwise(["validate", "initialise", *STEPS, "report"]):
        assert f"{a} --> {b}" in show.as_mermaid(plan)
        assert f'"{a}" -> "{b}";' in show.as_dot(plan)
    assert show.as_dot(plan).count("{") == show.as_dot(plan).count("}")


def test_the_tree_says_where_training_starts_and_how_its_rate_changes(tmp_path: Path) -> None:
    settings = {"learning_rate": 0.1, "optimizer": "SGD", "lr_schedule": {"type": "exponential", "gamma": 0.5}}
    plan = compile_plan(load_job(write_job(tmp_path, hyperparameters=settings, model_source="champion")))
    lines = [line.split(maxsplit=2)[2] for line in show.as_tree(plan).splitlines() if "starts from" in line]
    assert lines == ["champion"]
    assert "0.1 in round 1, 0.05 in round 2, 0.025 in round 3" in show.as_tree(plan)
