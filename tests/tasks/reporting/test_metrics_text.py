"""Metrics for programs: a CSV that readers of CSV read, and text that Prometheus takes."""

import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from fedloom.tasks.reporting.data import RunRecord, read_run
from fedloom.tasks.reporting.metrics_text import METRICS, metrics_csv, metrics_prom
from fedloom.tasks.step import Run

EVIL = 'a"b\\c\n# HELP x{y="z"} 1'


def record_of(run: Run) -> RunRecord:
    return read_run(run.store, run.run_id)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_csv_has_a_row_a_round_and_the_numbers_of_the_run(ended: Callable[..., Run]) -> None:
    record = record_of(ended())
    text = metrics_csv(record)
    assert text.count("\r\n") == text.count("\n") == 4
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert [int(row["round"]) for row in rows] == [1, 2, 3]
    for row, line in zip(rows, record.rounds, strict=True):
        assert float(row["metric_auc"]) == line["metrics"]["auc"]
        assert float(row["train_loss"]) == line["train_loss"]
        assert int(row["participants"]) == line["participants"]
        assert row["model_digest"] == line["model_digest"]
        assert row["quorum_met"] == "true"
        assert row["epsilon"] == row["clip"] == ""
        assert float(row["learning_rate"]) == 0.01
        assert float(row["seconds"]) > 0


def test_a_row_may_have_more_than_the_others(ended: Callable[..., Run]) -> None:
    record = record_of(ended(num_rounds=2))
    first, second = record.rounds
    lines = (first, {**second, "metrics": {**second["metrics"], "recall": 0.5}, "epsilon": 0.125})
    rows = list(csv.DictReader(io.StringIO(metrics_csv(replace(record, rounds=lines)), newline="")))
    assert [row["metric_recall"] for row in rows] == ["", "0.5"]
    assert [row["epsilon"] for row in rows] == ["", "0.125"]


def test_prometheus_reads_the_text_and_finds_the_numbers(ended: Callable[..., Run]) -> None:
    record = record_of(ended())
    found = samples(metrics_prom(record))
    job = ("job", "fl-tiny")
    assert found["fedloom_rounds", (job,)] == 3
    assert found["fedloom_champion", (job,)] == 1
    assert found["fedloom_gate_decisions_total", (("decision", "pass"), job)] == 1
    assert found["fedloom_metric", (job, ("metric", "auc"))] == record.metrics["auc"]
    assert found["fedloom_sent_bytes_total", (("direction", "up"), job)] == sum(x["bytes_up"] for x in record.rounds)
    seconds = sum(sum(steps.values()) for steps in record.seconds.values())
    assert math.isclose(found["fedloom_run_seconds", (job, ("status", "Succeeded"))], seconds)
    assert not [name for name, _ in found if name.startswith("fedloom_epsilon")]


def test_every_metric_has_help_and_a_name_that_says_its_unit(ended: Callable[..., Run]) -> None:
    text = metrics_prom(record_of(ended(num_rounds=1)))
    names = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len(names) >= 12
    for name, kind in names:
        assert re.search(rf"^# HELP {name} \S+", text, re.MULTILINE)
        assert name.startswith("fedloom_")
        assert name.endswith("_total") == (kind == "counter")
    for name in METRICS:
        assert not re.search(r"_(ms|mb|kb|minutes|percent)$", name)


def test_no_client_is_named_and_no_label_breaks_the_text(ended: Callable[..., Run]) -> None:
    record = record_of(ended(num_rounds=1))
    line = {**record.rounds[0], "dropouts": [{"client": "c3", "reason": "c3 is gone"}], "metrics": {EVIL: 0.5}}
    hostile = replace(record, rounds=(line,))
    text = metrics_prom(hostile)
    assert samples(text)["fedloom_metric", (("job", "fl-tiny"), ("metric", EVIL))] == 0.5
    assert samples(text)["fedloom_dropouts_total", (("job", "fl-tiny"),)] == 1
    for shown in (text, metrics_csv(hostile)):
        assert not re.search(r"\bc[0-5]\b", shown)


def test_a_run_without_a_round_has_metrics_too(make_run: Callable[..., Run]) -> None:
    record = record_of(make_run())
    assert metrics_csv(record).count("\n") == 1
    found = samples(metrics_prom(record))
    assert found["fedloom_rounds", (("job", "fl-tiny"),)] == 0
    assert ("fedloom_run_seconds", (("job", "fl-tiny"), ("status", "Running"))) in found
