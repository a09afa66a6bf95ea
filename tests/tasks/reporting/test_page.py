"""The report: everything in one page, nothing loaded, nothing of hostile input taken for HTML."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.runs import open_run
from fedloom.flows.without_privacy import compile_baseline
from fedloom.specs.bundle import load_job
from fedloom.tasks.errors import RunError
from fedloom.tasks.reporting.card import escaped, model_card
from fedloom.tasks.reporting.data import Participation, RunRecord, read_run
from fedloom.tasks.reporting.files import report_files
from fedloom.tasks.reporting.metrics_text import metrics_csv, metrics_prom
from fedloom.tasks.reporting.page import report_page
from fedloom.tasks.reporting.words import check_bound, check_value, number
from fedloom.tasks.step import Run
from fedloom.tasks.store import RunStore

EVIL = "<script>alert('x')</script>&\"`[a](http://evil.example)![b](http://evil.example/b.png)"
ANALYSIS: dict[str, Any] = {
    "confusion": [[50, 10], [5, 35]],
    "roc": {"fpr": [0.0, 0.1, 1.0], "tpr": [0.0, 0.8, 1.0]},
    "calibration": [
        {"low": 0.0, "high": 0.5, "count": 60, "mean_score": 0.2, "rate": 0.1},
        {"low": 0.5, "high": 1.0, "count": 0, "mean_score": None, "rate": None},
    ],
    "groups": {"site": {EVIL: {"windows": 40, "metrics": {"auc": 0.71}, "undefined": {}}}},
    "gaps": {"site": {"auc": {"worst": EVIL, "value": 0.71, "gap": 0.1234}}},
    "drift": {"accel_x": {"psi": 0.3217, "ks": 0.0456}},
    "intervals": {"auc": {"low": 0.6123, "high": 0.8234, "level": 0.95}},
    "robustness": {"stuck axis": {"auc": 0.5432}},
    "latency_ms_p95": 1.25,
    "model_bytes": 2_500_000,
}


class Page(HTMLParser):
    """What a browser would see: elements with attributes, the text outside style, and whether tags are closed."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def loads_nothing(page: Page, text: str) -> None:
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "link", "base", "form", "audio", "video", "image"}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    for url in re.findall(r"url\(([^)]*)\)", text):
        assert url.startswith("#")
    assert "@import" not in text
    (policy,) = (a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")


def charts(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg .*?</svg>", text, re.DOTALL)]


def record_of(run: Run) -> RunRecord:
    return read_run(run.store, run.run_id)


def test_the_page_shows_the_run_and_loads_nothing(ended: Callable[..., Run]) -> None:
    record = record_of(ended())
    text = report_page(record)
    assert report_page(record) == text
    page = Page(text)
    loads_nothing(page, text)
    assert "Pass The gate let the model pass, and it became the champion, after round 3" in page.text
    for shown in (record.run_id, record.plan_digest, record.evidence["model_digest"], record.evidence["fleet_digest"]):
        assert shown in page.text
    assert f"{record.metrics['auc']:.4f}" in page.text
    assert "target auc ✓ pass" in page.text
    assert "c3 " in page.text  # a client, among those who took part
    drawn = charts(text)
    assert len(drawn) >= 5
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    for chart in drawn:
        assert chart.get("role") == "img"
        assert chart.get("aria-label")
    targets = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', text)
    assert {one or other for one, other in targets} <= set(ids)
    headings = [tag for tag, _ in page.elements if tag in ("h1", "h2")]
    assert headings[0] == "h1"


def test_the_analysis_is_shown_where_there_is_one(ended: Callable[..., Run]) -> None:
    record = replace(record_of(ended()), analysis=ANALYSIS)
    text = report_page(record)
    page = Page(text)
    loads_nothing(page, text)
    for shown in (
        "0.6123 to 0.8234",
        "accel_x 0.3217 0.0456",
        "stuck axis auc 0.5432",
        "50 83 %",
        "0.1234",
        "2.5 MB",
        "1.2500 ms",
    ):
        assert shown in page.text, shown
    assert EVIL in page.text
    names = [chart.get("aria-label") or "" for chart in charts(text)]
    assert "Calibration of the scores" in names
    assert any(name.startswith("ROC curve, area 0.") for name in names)
    about = record.about | {"report": {"format": "html", "sections": ["confusion_matrix"]}}
    fewer = [chart.get("aria-label") or "" for chart in charts(report_page(replace(record, about=about)))]
    assert not any(name.startswith(("ROC", "Calibration")) for name in fewer)


def test_any_part_of_the_analysis_may_be_missing(ended: Callable[..., Run]) -> None:
    record = replace(record_of(ended(num_rounds=1)), rounds=())  # pages without the charts of rounds
    record = replace(record, evidence={})
    for key in ANALYSIS:
        Page(report_page(replace(record, analysis={key: ANALYSIS[key]})))


def test_hostile_words_stay_words(ended: Callable[..., Run]) -> None:
    run = ended(job_metadata={"name": EVIL, "owner": EVIL}, description=f"# Heading\n1. {EVIL}", num_rounds=1)
    record = record_of(run)
    line = record.rounds[0]
    dropouts = [{"client": EVIL, "reason": EVIL}]
    record = replace(record, rounds=({**line, "dropouts": dropouts, "undefined": {"recall": EVIL}},))
    text = report_page(record)
    page = Page(text)
    loads_nothing(page, text)
    assert "<script" not in text
    assert page.text.count("alert('x')") >= 5
    assert ("h1", {}) in page.elements
    assert sum(tag == "h1" for tag, _ in page.elements) == 2  # the page's and the card's
    card = model_card(record)
    assert "\\[a\\](http://evil.example)" in card


def test_of_many_clients_those_asked_most_are_listed_and_all_are_drawn(ended: Callable[..., Run]) -> None:
    record = record_of(ended(num_rounds=1))
    asked = {f"n{i:04d}": i % 7 for i in range(2000)} | {"often": 9}
    told = Participation(asked, dict(asked), {"site": {c: f"s{len(c)}" for c in asked}, "id": {c: c for c in asked}})
    text = report_page(replace(record, participation=told))
    page = Page(text)
    assert "How often 2,001 clients were asked" in page.text
    assert "40 of 2001 clients, those that were asked most often" in page.text
    assert "often 9 9" in page.text
    assert len(set(re.findall(r"\bn\d{4}\b", page.text))) == 39
    assert "s5 2001 100 %" not in page.text  # a column in which all are alike tells nothing
    assert len(text) < 400_000


@pytest.mark.parametrize(
    ("text", "shown"),
    [("# a", "\\# a"), ("1. a", "1\\. a"), ("- a", "\\- a"), ("a - b. 1. c", "a - b. 1. c"), ("a|b\nc", "a\\|b c")],
)
def test_words_in_markdown_are_escaped_where_they_would_mean_something(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_a_run_that_has_not_ended_says_so(make_run: Callable[..., Run]) -> None:
    run = make_run()
    assert "Running The run has done 0 of at most 3 rounds" in Page(report_page(record_of(run))).text
    simulate(compile_plan(load_job(run.folder)), run)
    for name in ("report.json", "summary.json", "summary.md"):
        run.store.delete(run.key(name))
    record = record_of(run)
    assert record.state == "running"
    late = record.written.replace(year=record.written.year + 1)
    stopped = read_run(run.store, run.run_id, late)
    assert stopped.state == "unknown"
    assert "Not ended 3 of at most 3 rounds are done" in Page(report_page(stopped)).text


def test_a_run_killed_after_any_write_can_be_reported_on(ended: Callable[..., Run], tmp_path: Path) -> None:
    run = ended(num_rounds=2)
    folder, cut = run.store.local_folder, RunStore(str(tmp_path / "cut"))
    assert folder is not None
    written = sorted((path for path in folder.rglob("*.*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    states = []
    for turn, path in enumerate(written):
        cut.write(path.relative_to(folder).as_posix(), path.read_bytes())
        if not cut.exists(run.key("plan.json")):
            continue
        record = read_run(cut, run.run_id)
        states.append(record.state)
        assert record.run_id in model_card(record)
        assert metrics_csv(record).count("\n") == len(record.rounds) + 1
        metrics_prom(record)
        if turn % 9 == 0:
            Page(report_page(record))
    assert states[0] == "running"
    assert states[-1] == "ended"
    assert len(states) > 20


def test_a_run_that_failed_says_why_until_it_goes_on(make_run: Callable[..., Run]) -> None:
    run = make_run()
    holdout = run.folder / "holdout.csv"
    kept = holdout.read_bytes()
    holdout.unlink()
    plan = compile_plan(load_job(run.folder))
    with pytest.raises(RunError):
        simulate(plan, run)
    record = record_of(run)
    assert record.state == "failed"
    assert "Failed The run could not go on after 0 of 3 rounds. step " in Page(report_page(record)).text
    holdout.write_bytes(kept)
    simulate(plan, run)
    assert record_of(run).state == "ended"


def test_a_baseline_is_marked_never_released_and_shows_what_privacy_costs(make_run: Callable[..., Run]) -> None:
    private = {"enabled": True, "mechanism": "DP-SGD", "epsilon": 8.0, "delta": 1e-4, "max_grad_norm": 1.0}
    run = make_run(differential_privacy=private, metrics={"auc": 0.0}, num_rounds=2)
    bundle = load_job(run.folder)
    simulate(compile_plan(bundle), run)
    plan = compile_baseline(bundle)
    other = open_run(plan, bundle, run.store.url)
    assert other.run_id != run.run_id
    simulate(plan, other)
    record, baseline = record_of(run), record_of(other)
    assert baseline.summary["baseline"] is True
    assert baseline.summary["gate"]["decision"] == "fail"
    assert run.store.read_json("champions/fl-tiny.json")["run_id"] == run.run_id
    assert "never released" in Page(report_page(baseline)).text
    assert b"never released" in run.store.read(other.key("summary.md"))
    text = Page(report_page(record, baseline)).text
    here, there = record.metrics["auc"], baseline.metrics["auc"]
    assert f"At the end auc is {here:.4f} with ε" in text
    assert f"and {there:.4f} without privacy: privacy costs {number(there - here)}" in text
    assert "differ in more than privacy" not in text
    assert "training losses are not seen" in text


def test_who_was_lost_or_set_apart_is_counted_with_the_reasons(ended: Callable[..., Run]) -> None:
    record = record_of(ended(num_rounds=2))
    first, second = record.rounds
    lost = [{"client": "c1", "reason": "it is late"}, {"client": "c2", "reason": "it is late"}]
    lines = (
        {**first, "dropouts": lost, "excluded": [{"client": "c4", "reason": "far from the others"}]},
        {**second, "dropouts": lost[:1], "flagged": ["c5"], "quorum_met": False, "learning_rate": 0.5},
    )
    text = Page(report_page(replace(record, rounds=lines))).text
    assert "it is late train 3 1, 2 c1, c2" in text
    assert "far from the others excluded 1 1 c4" in text
    assert "– flagged 1 2 c5" in text
    assert "The model stayed as it was in round 2:" in text


def test_updates_that_a_check_set_apart_are_shown(ended: Callable[..., Run]) -> None:
    checks = [
        {"name": "gradient_norm", "threshold": 1e-6, "action": "flag"},
        {"name": "parameter_distance", "metric": "l1", "threshold": 1e-6, "action": "clip"},
    ]
    record = record_of(ended(num_rounds=2, aggregation_config={"quality_checks": {"checks": checks}}))
    assert [len(line["flagged"]) for line in record.rounds] == [6, 6]
    text = Page(report_page(record)).text
    assert "gradient_norm flagged 12 1, 2 c0, c1, c2, c3, c4, c5" in text
    assert "parameter_distance clipped 12 1, 2 c0" in text


def test_a_run_with_two_servers_has_a_page(ended: Callable[..., Run]) -> None:
    run = ended(
        differential_privacy=None,
        secure_aggregation=None,
        privacy_config={
            "differential_privacy": {"enabled": False},
            "secure_aggregation": {"enabled": True, "protocol": "two_server"},
        },
        orchestration_config={"shard_size": 2, "aggregation": {"min_quorum": 3}},
        min_clients=4,
        num_rounds=1,
        output={"report_format": "html"},
    )
    text = Page(run.store.read(run.key("report.html")).decode()).text
    assert "6 clients gave a half of their update to each of two servers, and no sum of fewer than 3" in text
    assert "while the two servers do not work together" in text
    record = record_of(run)
    (times,) = (chart for chart in charts(report_page(record)) if "Seconds" in (chart.get("aria-label") or ""))
    assert "secure aggregation" in "".join(times.itertext())


JUDGED = [
    ({"metric": "auc", "value": 0.7, "minimum": 0.6, "maximum": None, "low": 0.61, "high": 0.8, "level": 0.95},
     "0.7000 (0.6100 to 0.8000)", "at least 0.6"),
    ({"metric": "auc", "threshold": 0.1, "gap": 0.25, "worst": "north", "value": 0.5}, "0.2500", "at most 0.1"),
    ({"metric": "auc", "threshold": 0.1, "gap": None, "worst": None, "value": None}, "–", "at most 0.1"),
    ({"method": "PSI", "signal": "a", "value": 0.3, "threshold": 0.2}, "0.3000", "at most 0.2"),
    ({"metric": "auc", "value": 0.8, "with_fault": 0.6, "max_drop": 0.1}, "0.6000", "at most 0.1 worse than 0.8000"),
    ({"metric": "auc", "value": 0.8, "champion_value": 0.79, "margin": 0.1, "difference": 0.01, "low": -0.02,
      "high": 0.04, "level": 0.95}, "0.8000, better by -0.0200 to 0.0400", "champion 0.79"),
    ({"participants": 5, "cohort": 6, "quorum": 2}, "5", "at least 2"),
    ({"not_finite": 0, "parameters": 9}, "0", "exactly 0"),
    ({}, "–", "–"),
]  # fmt: skip


@pytest.mark.parametrize(("numbers", "value", "bound"), JUDGED)
def test_a_check_is_shown_with_the_number_that_it_judged_and_its_limit(
    numbers: dict[str, Any], value: str, bound: str
) -> None:
    assert check_value({"numbers": numbers}) == value
    assert check_bound({"numbers": numbers}) == bound


def test_who_was_drawn_is_not_told_where_privacy_counts_on_it(ended: Callable[..., Run]) -> None:
    private = {
        "enabled": True, "mechanism": "DP-FedAvg", "noise_multiplier": 1.0, "delta": 1e-3, "max_grad_norm": 1.0,
    }  # fmt: skip
    run = ended(
        differential_privacy=private,
        client_selection="poisson",
        orchestration_config={"shard_size": 2, "aggregation": {"weights": "uniform", "min_quorum": 1}},
        max_clients=4,
    )
    record = record_of(run)
    assert record.participation is None
    text = report_page(replace(record, rounds=({**record.rounds[0], "dropouts": [{"client": "c1", "reason": "c1"}]},)))
    assert "is not told" in text
    assert not re.search(r"\bc[0-5]\b", Page(text).text)


def test_the_step_writes_the_page_where_a_job_asks_for_it(ended: Callable[..., Run]) -> None:
    run = ended(output={"report_format": "html"}, num_rounds=1)
    stored = run.store.read_json(run.key("report.json"))["files"]["report"]
    text = run.store.read(stored["key"], stored["sha256"]).decode()
    assert "it became the champion" in Page(text).text
    assert not run.store.exists(ended(num_rounds=1, seed=8).key("report.html"))


def test_every_file_of_a_report_is_there(ended: Callable[..., Run]) -> None:
    files = report_files(record_of(ended(num_rounds=1)))
    assert sorted(files) == ["metrics.csv", "metrics.prom", "model_card.md", "report.html"]
