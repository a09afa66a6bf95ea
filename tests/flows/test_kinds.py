"""Jobs that train nothing: evaluations at the clients, and aggregations of given updates."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save, save_file

from fedloom.flows.compile import compile_plan
from fedloom.flows.events import StepDone
from fedloom.flows.inline import simulate
from fedloom.flows.result import RunResult, as_text, read_result
from fedloom.flows.runs import open_run
from fedloom.flows.show import as_tree, notes
from fedloom.flows.single import run_instance
from fedloom.specs.bundle import load_job
from fedloom.specs.problems import SpecError
from fedloom.tasks import measure
from fedloom.tasks.errors import ConfigurationError, RunError
from fedloom.tasks.reporting.data import read_run
from fedloom.tasks.reporting.page import report_page
from fedloom.tasks.step import Place, Run
from tests.conftest import CLIENTS, write_job
from tests.tasks.selection.recipes import SELECTOR

CUSTOM = {"aggregation": {"weights": "custom", "weight_column": "data_samples", "min_quorum": 2}}
WEIGHTS = "aggregation_weights"
SHORT = SELECTOR | {
    "selection_algorithm": {"algorithm": "random", "num_clients": 4, "min_clients": 4, "on_shortfall": "skip_round"},
    "blacklist": {"enabled": True, "client_ids": ["c0", "c1", "c2"]},
}
METRICS = [
    {"name": "auc", "aggregation": "weighted_average", "target": 0.3},
    {"name": "accuracy", "aggregation": "weighted_average"},
    {"name": "f1_score", "aggregation": "min"},
    {"name": "brier_score", "aggregation": "median"},
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the tiny job's network, in a file beside the store of its run."""
    folder = tmp_path_factory.mktemp("trained")
    result, _, run = run_job(write_job(folder / "job", num_rounds=1), folder / "store")
    path = folder / "model.safetensors"
    path.write_bytes(run.store.read(f"models/{result.model_digest}.safetensors"))
    return path


def eval_job(folder: Path, model: Path, **changes: Any) -> Path:
    validation = {"evaluation_mode": True, "metrics": METRICS, "holdout_dataset": {"source": "holdout.csv"}}
    validation |= changes.pop("validation_config", {})
    given = {"job_id": "fl-ev", "metrics": None, "holdout": None, "model_source": "model.safetensors"}
    made = write_job(folder, **{**given, "validation_config": validation, **changes})
    shutil.copyfile(model, made / "model.safetensors")
    return made


def agg_job(folder: Path, model: Path, **changes: Any) -> Path:
    """Six clients, each with an update of its own constant."""
    given: dict[str, Any] = {
        "job_id": "fl-agg",
        "model_source": "model.safetensors",
        "aggregation_config": {"updates": "updates"},
        "metrics": {"auc": 0.3},
    }
    made = write_job(folder, **{**given, **changes})
    shutil.copyfile(model, made / "model.safetensors")
    for i, client in enumerate(CLIENTS):
        write_update(made, client, {name: torch.full_like(t, 0.01 * i) for name, t in load_file(model).items()})
    return made


def write_update(folder: Path, client: str, delta: dict[str, torch.Tensor], **said: Any) -> None:
    updates = folder / "updates"
    updates.mkdir(exist_ok=True)
    data = save(delta)
    (updates / f"{client}.safetensors").write_bytes(data)
    index = updates / "index.json"
    told = json.loads(index.read_text()) if index.exists() else {"updates": []}
    entry = {"client": client, "file": f"{client}.safetensors", "sha256": hashlib.sha256(data).hexdigest()}
    told["updates"] = [e for e in told["updates"] if e.get("client") != client]
    told["updates"].append({**entry, "samples": 10, "loss": 0.5, "round": 3, **said})
    index.write_text(json.dumps(told))


def run_job(folder: Path, store: Path, name: str = "") -> tuple[RunResult, list[StepDone], Run]:
    bundle = load_job(folder)
    plan = compile_plan(bundle)
    run = open_run(plan, bundle, str(store), name)
    events: list[StepDone] = []
    simulate(plan, run, events.append)
    return read_result(run), events, run


def by_steps(folder: Path, store: Path) -> dict[str, Any]:
    """Each instance of a step on its own, as containers run them; returns the outputs of the report."""

    def step(name: str, round: int = 0, shard: int | None = None) -> dict[str, Any]:
        bundle = load_job(folder)
        plan = compile_plan(bundle)
        return run_instance(open_run(plan, bundle, str(store)), plan, name, round, shard, settled=True)

    plan = compile_plan(load_job(folder))
    for each in plan.setup:
        step(each.name)
    shards: list[int] = []
    for each in plan.loop.steps:
        if each.fan_out is None:
            shards = step(each.name, 1).get("shards", shards)
        else:
            for shard in reversed(shards):
                step(each.name, 1, shard)
    return {each.name: step(each.name) for each in plan.finish}["report"]


# Evaluations


def test_an_evaluation_has_a_plan_of_its_own(tmp_path: Path, trained: Path) -> None:
    bundle = load_job(eval_job(tmp_path / "ev", trained))
    plan = compile_plan(bundle)
    assert [step.name for step in plan.loop.steps] == [
        "select", "distribute", "measure", "aggregate", "evaluate", "gate",
    ]  # fmt: skip
    assert (plan.recipe.kind, plan.loop.rounds) == ("evaluate", 1)
    assert "kind evaluate" in as_tree(plan)
    assert any("trains nothing" in note for note in notes(bundle))
    assert bundle.documents["job"].data["job_metadata"]["kind"] == "evaluate"


def test_clients_measure_the_model_and_nobody_changes_it(tmp_path: Path, trained: Path) -> None:
    folder = eval_job(tmp_path / "ev", trained)
    result, _, run = run_job(folder, tmp_path / "store")
    place = Place(run, 1)
    assert result.model_digest == place.result("initialise", round=0)["outputs"]["model_digest"]
    assert not (tmp_path / "store" / "champions" / "fl-ev.json").exists()
    assert result.gate["decision"] == "pass"
    assert not result.gate["promoted"]
    figures = json.loads(place.file("aggregate", "clients"))
    assert sorted(figures) == CLIENTS
    windows = {client: own["windows"] for client, own in figures.items()}
    expected = sum(windows[c] * figures[c]["metrics"]["auc"] for c in CLIENTS) / sum(windows.values())
    assert result.metrics["auc"] == pytest.approx(expected, rel=1e-12)
    assert result.metrics["f1_score"] == min(own["metrics"]["f1_score"] for own in figures.values())
    ordered = sorted(own["metrics"]["brier_score"] for own in figures.values())
    assert result.metrics["brier_score"] == pytest.approx((ordered[2] + ordered[3]) / 2)
    assert {"target auc", "target auc on the holdout"} <= {check["name"] for check in result.gate["checks"]}
    assert "keeps the limits" in as_text(result, load_job(folder))


def test_pooled_metrics_are_those_of_all_windows_together(tmp_path: Path, trained: Path) -> None:
    """One client that has everybody's windows says the same as the pooled counts of all."""
    apart, _, _ = run_job(eval_job(tmp_path / "apart", trained), tmp_path / "store")
    folder = eval_job(tmp_path / "one", trained, min_clients=1, max_clients=1, orchestration_config=None)
    parts = [(folder / "data" / f"{client}.csv").read_text().splitlines() for client in CLIENTS]
    lines = [parts[0][0] + ",series", *(f"{line},{i}" for i, part in enumerate(parts) for line in part[1:])]
    (folder / "data" / "all.csv").write_text("\n".join(lines) + "\n")
    (folder / "fleet.csv").write_text("client_id,data,data_samples\nall,data/all.csv,1920\n")
    together, _, _ = run_job(folder, tmp_path / "store")
    assert apart.measured is not None
    assert apart.measured["pooled"]["metrics"].keys() == {"accuracy", "f1_score", "brier_score"}
    for name, value in apart.measured["pooled"]["metrics"].items():
        assert value == pytest.approx(together.metrics[name], rel=1e-6), name
    assert together.participation == {"asked": 1, "updates": 1}


def test_what_is_read_of_an_aggregation_is_there_in_an_evaluation_too(tmp_path: Path, trained: Path) -> None:
    _, _, run = run_job(eval_job(tmp_path / "ev", trained), tmp_path / "store")
    (trained_run,) = (trained.parent / "store" / "runs").iterdir()
    updates = json.loads((trained_run / "round-00001" / "aggregate.json").read_text())["outputs"]
    assert updates.keys() <= Place(run, 1).result("aggregate")["outputs"].keys()


def test_groups_of_clients_are_those_of_a_fleet_column(tmp_path: Path, trained: Path) -> None:
    folder = eval_job(tmp_path / "ev", trained, validation_config={"disaggregate_by": ["site"]})
    rows = (folder / "fleet.csv").read_text().splitlines()
    sites = ["site", "north", "north", "north", "south", "south", ""]
    (folder / "fleet.csv").write_text("\n".join(f"{row},{site}" for row, site in zip(rows, sites, strict=False)) + "\n")
    result, _, run = run_job(folder, tmp_path / "store")
    assert result.measured is not None
    groups = {group["value"]: group for group in result.measured["groups"]}
    assert {value: group["clients"] for value, group in groups.items()} == {"north": 3, "south": 2, "unknown": 1}
    figures = json.loads(Place(run, 1).file("aggregate", "clients"))
    assert groups["north"]["metrics"]["f1_score"] == min(figures[c]["metrics"]["f1_score"] for c in CLIENTS[:3])
    assert "site" in (tmp_path / "store" / run.key("summary.md")).read_text()


@pytest.mark.parametrize(("threshold", "outcome"), [(0.9, "pass"), (1e-6, "fail")])
def test_groups_of_clients_may_be_compared(tmp_path: Path, trained: Path, threshold: float, outcome: str) -> None:
    rule = {"enabled": True, "disaggregate_by": ["site"], "fairness_threshold": threshold}
    folder = eval_job(tmp_path / "ev", trained, validation_config={"bias_fairness": rule, "holdout_dataset": None})
    rows = (folder / "fleet.csv").read_text().splitlines()
    sites = ["site", *["north", "south"] * 3]
    (folder / "fleet.csv").write_text("\n".join(map(",".join, zip(rows, sites, strict=True))) + "\n")
    result, _, run = run_job(folder, tmp_path / "store")
    (check,) = [check for check in result.gate["checks"] if check["name"] == "fairness site"]
    assert check["outcome"] == outcome
    page = report_page(read_run(run.store, run.run_id))
    assert "Measured by the clients" in page
    assert "and it became the champion" not in page
    assert "The model keeps its limits" in page or outcome == "fail"


def test_without_limits_a_pass_says_no_more_than_that_the_model_was_measured(tmp_path: Path, trained: Path) -> None:
    folder = eval_job(tmp_path / "ev", trained, validation_config={"metrics": [{"name": "auc"}]})
    result, _, run = run_job(folder, tmp_path / "store")
    assert result.gate["decision"] == "pass"
    assert "gate     pass: the model was measured; the champion is as it was" in as_text(result, load_job(folder))
    assert "The model was measured; the job sets no limits" in report_page(read_run(run.store, run.run_id))


def test_a_target_that_the_clients_miss_fails_though_the_holdout_keeps_it(tmp_path: Path, trained: Path) -> None:
    metrics = [{"name": "f1_score", "aggregation": "min", "target": 0.99}]
    result, _, _ = run_job(eval_job(tmp_path / "ev", trained, validation_config={"metrics": metrics}), tmp_path / "s")
    assert result.gate["decision"] == "fail"
    assert "does not keep" in as_text(result, load_job(tmp_path / "ev"))


def test_a_client_without_data_is_a_dropout_and_all_of_them_a_named_outcome(tmp_path: Path, trained: Path) -> None:
    folder = eval_job(tmp_path / "ev", trained)
    (folder / "data" / "c0.csv").unlink()
    some, _, run = run_job(folder, tmp_path / "store")
    assert some.participation == {"asked": 6, "updates": 5}
    assert Place(run, 1).result("aggregate")["outputs"]["dropouts"][0]["client"] == "c0"
    for client in CLIENTS[1:]:
        (folder / "data" / f"{client}.csv").write_text("a,b,label\nx,y,z\n")
    none, _, _ = run_job(folder, tmp_path / "store", name="none")
    checks = {check["name"]: check for check in none.gate["checks"]}
    assert none.gate["decision"] == "fail"
    assert checks["participation"]["reason"] == "0 of 6 clients measured the model, the quorum is 2"
    assert checks["target auc"]["outcome"] == "inconclusive"
    assert none.undefined["auc"] == "no client measured it"


def test_a_shard_that_was_lost_is_judged_by_the_quorum(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure.step

    def breaks_on_the_first(place: Place) -> Any:
        if place.shard == 0:
            raise OSError("node gone")
        return whole(place)

    monkeypatch.setattr(measure, "step", breaks_on_the_first)
    result, events, _ = run_job(eval_job(tmp_path / "ev", trained), tmp_path / "store")
    assert [event.lost for event in events if event.lost] == ["OSError: node gone"]
    assert result.participation == {"asked": 6, "updates": 4}


@pytest.mark.parametrize("kind", ["evaluate", "aggregate"])
def test_the_same_outcome_in_process_and_step_by_step(tmp_path: Path, trained: Path, kind: str) -> None:
    make = eval_job if kind == "evaluate" else agg_job
    folder = make(tmp_path / "job", trained, orchestration_config={"shard_size": 3, "aggregation": {"min_quorum": 2}})
    inline, _, _ = run_job(folder, tmp_path / "inline")
    reported = by_steps(folder, tmp_path / "steps")
    assert reported["model_digest"] == inline.model_digest
    assert reported["metrics"] == inline.metrics
    assert reported["decision"] == inline.gate["decision"] == "pass"


@pytest.mark.parametrize("kind", ["evaluate", "aggregate"])
def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path, trained: Path, kind: str) -> None:
    folder = (eval_job if kind == "evaluate" else agg_job)(tmp_path / "job", trained)
    whole, events, _ = run_job(folder, tmp_path / "whole")
    for stop in range(len(events)):
        bundle = load_job(folder)
        plan = compile_plan(bundle)
        run = open_run(plan, bundle, str(tmp_path / "split"))
        seen: list[StepDone] = []

        def listener(event: StepDone, seen: list[StepDone] = seen, stop: int = stop) -> None:
            seen.append(event)
            if len(seen) > stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            simulate(plan, run, listener)
    again, _, _ = run_job(folder, tmp_path / "split")
    assert (again.model_digest, again.metrics, again.gate) == (whole.model_digest, whole.metrics, whole.gate)


# Aggregations


def test_given_updates_become_a_model_and_the_champion(tmp_path: Path, trained: Path) -> None:
    folder = agg_job(tmp_path / "agg", trained)
    result, _, run = run_job(folder, tmp_path / "store")
    plan = compile_plan(load_job(folder))
    assert [step.name for step in plan.loop.steps] == ["select", "collect", "aggregate", "evaluate", "gate"]
    before = load_file(trained)
    after = load_file(tmp_path / "store" / "models" / f"{result.model_digest}.safetensors")
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor + 0.025)  # the mean of 0, 0.01, …, 0.05
    assert result.gate["promoted"]
    assert (tmp_path / "store" / "champions" / "fl-agg.json").exists()
    evidence = json.loads(run.store.read(result.gate["evidence"]))
    assert evidence["kind"] == "aggregate"


def test_the_documented_lines_write_such_a_folder(tmp_path: Path, trained: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "kinds.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    space: dict[str, Any] = {}
    exec(code, space)
    folder = agg_job(tmp_path / "agg", trained)
    shutil.rmtree(folder / "updates")
    start = load_file(trained)
    models = {client: ({name: t + 0.01 for name, t in start.items()}, 10) for client in CLIENTS}
    space["write_updates"](folder / "updates", folder / "model.safetensors", models)
    result, _, _ = run_job(folder, tmp_path / "store")
    assert result.participation == {"asked": 6, "updates": 6}
    after = load_file(tmp_path / "store" / "models" / f"{result.model_digest}.safetensors")
    torch.testing.assert_close(after["layers.0.bias"], start["layers.0.bias"] + 0.01)


def test_samples_weigh_the_updates(tmp_path: Path, trained: Path) -> None:
    folder = agg_job(tmp_path / "agg", trained)
    start = load_file(trained)
    write_update(folder, "c5", {name: torch.full_like(t, 0.05) for name, t in start.items()}, samples=950)
    result, _, _ = run_job(folder, tmp_path / "store")
    after = load_file(tmp_path / "store" / "models" / f"{result.model_digest}.safetensors")
    expected = (10 * (0.0 + 0.01 + 0.02 + 0.03 + 0.04) + 950 * 0.05) / 1000
    torch.testing.assert_close(after["layers.0.bias"], start["layers.0.bias"] + expected)


def test_custom_weights_are_the_index_s_or_the_fleet_s(tmp_path: Path, trained: Path) -> None:
    folder = agg_job(tmp_path / "agg", trained, orchestration_config=CUSTOM)
    for client in CLIENTS[1:]:
        delta = load((folder / "updates" / f"{client}.safetensors").read_bytes())
        write_update(folder, client, delta, weight=0.0 if client != "c5" else 320.0)
    result, _, run = run_job(folder, tmp_path / "store")
    shares = json.loads(Place(run, 1).file("aggregate", "quality"))["shares"]
    assert (shares["c0"], shares["c5"], shares["c1"]) == (0.5, 0.5, 0.0)  # c0 has 320 samples in the fleet
    after = load_file(tmp_path / "store" / "models" / f"{result.model_digest}.safetensors")
    torch.testing.assert_close(after["layers.0.bias"], load_file(trained)["layers.0.bias"] + 0.025)


def other_bytes(folder: Path) -> None:
    (folder / "updates" / "c0.safetensors").write_bytes(b"tampered")


def missing(folder: Path) -> None:
    (folder / "updates" / "c0.safetensors").unlink()


def pickled(folder: Path) -> None:
    path = folder / "updates" / "c0.safetensors"
    torch.save(load(path.read_bytes()), path)
    said(folder, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    write_update(folder, "c0", change(load((folder / "updates" / "c0.safetensors").read_bytes())))


def said(folder: Path, **values: Any) -> None:
    index = folder / "updates" / "index.json"
    told = json.loads(index.read_text())
    for entry in told["updates"]:
        if entry["client"] == "c0":
            entry.update(values)
    index.write_text(json.dumps(told))


def no_file(folder: Path) -> None:
    missing(folder)
    os.mkfifo(folder / "updates" / "c0.safetensors")


def linked(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    (folder / "updates" / "c0.safetensors").rename(outside)
    (folder / "updates" / "c0.safetensors").symlink_to(outside)


BAD: list[tuple[str, Callable[[Path], None], str]] = [
    ("other bytes", other_bytes, "its SHA-256 is"),
    ("missing", missing, "it is not there"),
    ("pickle", pickled, "no safetensors"),
    ("names", lambda f: changed(f, lambda d: {"x": next(iter(d.values()))}), "its tensors are not those of the model"),
    ("shapes", lambda f: changed(f, lambda d: {n: t[:1].clone() for n, t in d.items()}), "has shape"),
    ("nan", lambda f: changed(f, lambda d: {n: t * torch.nan for n, t in d.items()}), "not finite"),
    ("integers", lambda f: changed(f, lambda d: {n: t.to(torch.int64) for n, t in d.items()}), "floating-point"),
    ("large", lambda f: changed(f, lambda d: {**d, "more": torch.zeros(1 << 20)}), "it is larger than"),
    ("pipe", no_file, "it is no file"),
    ("link", linked, "leads out of the folder"),
]


@pytest.mark.parametrize(("break_it", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_update_is_a_dropout_with_its_reason(
    tmp_path: Path, trained: Path, break_it: Callable[[Path], None], reason: str
) -> None:
    folder = agg_job(tmp_path / "agg", trained)
    break_it(folder)
    result, _, run = run_job(folder, tmp_path / "store")
    (dropout,) = Place(run, 1).result("aggregate")["outputs"]["dropouts"]
    assert dropout["client"] == "c0"
    assert reason in dropout["reason"]
    assert result.participation == {"asked": 6, "updates": 5}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("unknown client", {"client": "stranger"}, "it is no client of the fleet"),
    ("no samples", {"samples": 0}, "samples"),
    ("path", {"file": "../model.safetensors"}, ""),
    ("no digest", {"sha256": "abc"}, "sha256"),
    ("unknown key", {"colour": "red"}, "colour"),
    ("letters", {"client": "\x1b[31m"}, "cannot be printed"),
    ("escape", {"\x1b[2J": 1}, "?[2J"),
]


@pytest.mark.parametrize(("values", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_wrong_entry_is_refused_and_the_others_count(
    tmp_path: Path, trained: Path, values: dict[str, Any], reason: str
) -> None:
    folder = agg_job(tmp_path / "agg", trained)
    said(folder, **values)
    result, events, run = run_job(folder, tmp_path / "store")
    assert result.participation["updates"] == 5
    told = json.loads(Place(run, 1).file("select", "decision"))["clients"]["reasons"]
    told += [d["reason"] for d in Place(run, 1).result("aggregate")["outputs"]["dropouts"]]
    assert any(reason in word for word in told), told
    if values.keys() != {"file"}:
        selected = next(event for event in events if event.step == "select")
        assert "1 given updates do not count" in (selected.outputs or {})["warning"]


def test_late_updates_are_left_out(tmp_path: Path, trained: Path) -> None:
    config = {"updates": "updates", "quality_checks": {"staleness": {"max_rounds_stale": 1, "action": "exclude"}}}
    folder = agg_job(tmp_path / "agg", trained, aggregation_config=config)
    said(folder, round=1)
    result, _, run = run_job(folder, tmp_path / "store")
    excluded = json.loads(Place(run, 1).file("aggregate", "quality"))["excluded"]
    assert [(word["client"], word["check"]) for word in excluded] == [("c0", "staleness")]
    assert result.participation["updates"] == 5


def test_all_bad_updates_are_a_named_outcome_and_too_few_an_error(tmp_path: Path, trained: Path) -> None:
    folder = agg_job(tmp_path / "agg", trained)
    for path in (folder / "updates").glob("*.safetensors"):
        path.write_bytes(b"gone")
    result, _, run = run_job(folder, tmp_path / "store")
    assert result.gate["decision"] == "fail"
    assert result.model_digest == Place(run, 1).result("initialise", round=0)["outputs"]["model_digest"]
    index = json.loads((folder / "updates" / "index.json").read_text())
    (folder / "updates" / "index.json").write_text(json.dumps({"updates": index["updates"][:1]}))
    with pytest.raises(RunError, match="1 given updates may count, 2 are needed"):
        run_job(folder, tmp_path / "store", name="few")


def test_the_servers_optimizer_counts_in_an_aggregation(tmp_path: Path, trained: Path) -> None:
    plain, momentum = agg_job(tmp_path / "plain", trained), agg_job(tmp_path / "yogi", trained, algorithm="FedYogi")
    assert any("begins anew in each run" in note for note in notes(load_job(momentum)))
    assert not any("optimizer" in note for note in notes(load_job(plain)))
    first, second = (run_job(folder, tmp_path / "store")[0] for folder in (plain, momentum))
    assert first.model_digest != second.model_digest


@pytest.mark.parametrize("order", [(3, 3, 5), (5, 3, 3), (3, 5, 3)])
def test_two_updates_for_an_earlier_round_do_no_harm_in_any_order(
    tmp_path: Path, trained: Path, order: tuple[int, ...]
) -> None:
    folder = agg_job(tmp_path / "job", trained)
    index = folder / "updates" / "index.json"
    told = json.loads(index.read_text())
    first = told["updates"].pop(0)
    told["updates"] += [{**first, "round": number} for number in order]
    index.write_text(json.dumps(told))
    _, events, run = run_job(folder, tmp_path / "store")
    assert json.loads(Place(run, 1).file("select", "entries"))[first["client"]]["round"] == 5
    assert events[-1].step == "report"


def test_no_round_that_measured_is_no_round_that_trained(tmp_path: Path, trained: Path) -> None:
    folder = eval_job(tmp_path / "job", trained, min_clients=4)
    (folder / "selector.yaml").write_text(json.dumps(SHORT))
    result, _, run = run_job(folder, tmp_path / "store")
    assert "no round has measured the model" in result.gate["stop_reason"]
    page = report_page(read_run(run.store, run.run_id))
    assert "the server saw every client&#39;s metrics, and no update" in page
    assert "Measured the model" in page
    for wrong in ("Gave an update", "saw the updates", "stayed as it was"):
        assert wrong not in page


def test_shares_of_a_round_without_a_mean_are_none(tmp_path: Path) -> None:
    fields = {"orchestration_config": CUSTOM, "output": {"save_metadata": True, "metadata_includes": [WEIGHTS]}}
    folder = write_job(tmp_path / "job", num_rounds=1, **fields)
    rows = (folder / "fleet.csv").read_text().splitlines()
    nothing = [f"{row.rsplit(',', 1)[0]},{int(row.startswith('c5,'))}" for row in rows[1:]]
    (folder / "fleet.csv").write_text("\n".join([rows[0], *nothing]) + "\n")
    (folder / "data" / "c5.csv").unlink()
    _, _, run = run_job(folder, tmp_path / "store")
    exported = Place(run, 0).result("export")["files"]["metadata"]["key"]
    assert run.store.read_json(exported)[WEIGHTS] == [{"round": 1, "shares": None}]


def test_one_client_alone_may_be_aggregated(tmp_path: Path, trained: Path) -> None:
    orchestration = {"aggregation": {"min_quorum": 1}}
    folder = agg_job(tmp_path / "agg", trained, min_clients=1, orchestration_config=orchestration)
    index = json.loads((folder / "updates" / "index.json").read_text())
    (folder / "updates" / "index.json").write_text(json.dumps({"updates": index["updates"][1:2]}))
    result, _, _ = run_job(folder, tmp_path / "store")
    assert result.participation == {"asked": 1, "updates": 1}


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "index.json: it is not there"),
        ("[]", "is no index of updates"),
        ("{", "is no JSON"),
        ('{"updates": [], "extra": 1}', "extra"),
        (json.dumps({"updates": [], "base_model": "0" * 64}), "changes of the model 000000000000…"),
    ],
)
def test_an_index_that_is_none_ends_the_run(tmp_path: Path, trained: Path, index: str | None, message: str) -> None:
    folder = agg_job(tmp_path / "agg", trained)
    path = folder / "updates" / "index.json"
    if index is None:
        path.unlink()
    else:
        path.write_text(index)
    with pytest.raises(ConfigurationError, match=message):
        run_job(folder, tmp_path / "store")


def test_updates_may_lie_behind_a_url(tmp_path: Path, trained: Path) -> None:
    import fsspec

    local = agg_job(tmp_path / "local", trained)
    here, _, _ = run_job(local, tmp_path / "store")
    memory = fsspec.filesystem("memory")
    for path in (local / "updates").iterdir():
        memory.pipe_file(f"/updates/{path.name}", path.read_bytes())
    config = {"updates": "memory://updates"}
    there, _, _ = run_job(agg_job(tmp_path / "url", trained, aggregation_config=config), tmp_path / "store", "url")
    assert there.model_digest == here.model_digest


# What does not go together


WRONG: list[tuple[str, Callable[..., Path], dict[str, Any], str]] = [
    ("no model", eval_job, {"model_source": None}, "a job of kind evaluate measures a trained model"),
    ("no champion", eval_job, {"model_source": "champion"}, "an evaluation has no champion of its own"),
    ("no base", agg_job, {"model_source": None}, "a job of kind aggregate adds the updates to a model"),
    ("masks", eval_job, {"secure_aggregation": True}, "an evaluation under masks is not built"),
    ("given masks", agg_job, {"secure_aggregation": True}, "masks around given updates are not built"),
    ("column", eval_job, {"validation_config": {"disaggregate_by": ["colour"]}}, "the fleet has no column 'colour'"),
    ("aggregation", eval_job, {"aggregation_config": {"algorithm": "FedAvg"}}, "no updates to aggregate"),
    ("controls", agg_job, {"algorithm": "SCAFFOLD"}, "given updates have no control variates"),
    ("weights", eval_job, {"orchestration_config": CUSTOM}, "weighs clients by num_samples or uniform"),
    ("two kinds", eval_job, {"kind": "train"}, "a job of kind train cannot have evaluation_mode"),
    ("own updates", agg_job, {"kind": "train"}, "makes its own updates"),
    ("nowhere", agg_job, {"kind": "aggregate", "aggregation_config": None}, "combines given updates"),
    ("outside", agg_job, {"aggregation_config": {"updates": "../up"}}, "leads out of its folder"),
]


@pytest.mark.parametrize(("make", "changes", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_does_not_go_together_is_refused_by_name(
    tmp_path: Path, trained: Path, make: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        compile_plan(load_job(make(tmp_path / "job", trained, **changes)))
    assert any(message in problem.message for problem in caught.value.problems), caught.value
    assert all(problem.line for problem in caught.value.problems)


def test_a_run_of_given_updates_may_be_started_by_hand(tmp_path: Path, trained: Path) -> None:
    timing = {"trigger": "manual", "wait_for_min_clients": True, "min_clients": 4}
    orchestration = {"timing": timing, "aggregation": {"min_quorum": 2}}
    bundle = load_job(agg_job(tmp_path / "agg", trained, min_clients=4, orchestration_config=orchestration))
    plan = compile_plan(bundle)
    assert plan.recipe.aggregation.quorum == 4
    assert any("whatever timing says" in note for note in notes(bundle))
    assert "all that gave an update, at least 4, quorum 4" in as_tree(plan)
    assert "drawn by" not in as_tree(plan)


def test_a_training_job_measures_on_its_holdout_alone(tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", metrics=[{"name": "auc", "aggregation": "min"}])
    with pytest.raises(SpecError, match="write an evaluate job"):
        compile_plan(load_job(folder))


def test_what_trains_nothing_has_one_round(tmp_path: Path, trained: Path) -> None:
    bundle = load_job(eval_job(tmp_path / "ev", trained))
    assert compile_plan(bundle, rounds=1).loop.rounds == 1
    with pytest.raises(SpecError, match="has one round, not 3"):
        compile_plan(bundle, rounds=3)


def test_a_model_of_another_network_ends_the_run(tmp_path: Path, trained: Path) -> None:
    folder = eval_job(tmp_path / "ev", trained)
    save_file({"other": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(ConfigurationError, match="not of this architecture"):
        run_job(folder, tmp_path / "store")
