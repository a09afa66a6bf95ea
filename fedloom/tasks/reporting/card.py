"""The model card of a run, in Markdown: what the model is for, what it saw, what it can do and what it cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fedloom.tasks.reporting.data import RunRecord
from fedloom.tasks.reporting.words import BASELINE, check_bound, check_value, number, unit_words, verdict

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&])|^([#+-]|\d+(?=[.)]))")


def escaped(text: Any) -> str:
    """Any text as Markdown that shows just that text, in one line."""
    return _SPECIAL.sub(_escape, " ".join(str(text).split()))


def _escape(found: re.Match[str]) -> str:
    """A backslash before what means something; a number at the beginning would start a list, its point must not."""
    return found[0] + "\\" if found[0].isdigit() else "\\" + found[0]


def model_card(record: RunRecord) -> str:
    """The model card (after Mitchell et al. 2019, "Model cards for model reporting"), without a client's name."""
    about, recipe = record.about, record.recipe
    title = about.get("name") or record.plan.get("job_id") or record.run_id
    lines = [f"# Model card: {escaped(title)}", ""]
    if recipe.get("baseline"):
        lines += [f"**{BASELINE}**", ""]
    said = verdict(record)
    lines += [f"{said['word']}. {escaped(said['sentence'])}", ""]
    for heading, found in (
        ("The model", _model(record)),
        ("Intended use", _use(about)),
        ("Training data", _data(record)),
        ("Metrics", _metrics(record)),
        ("Limits", _limits(record)),
        ("Privacy", _privacy(record)),
        ("Digests", _digests(record)),
    ):
        lines += [f"## {heading}", "", *found, ""]
    return "\n".join(lines)


def _model(record: RunRecord) -> Iterator[str]:
    model, training = record.recipe.get("model", {}), record.recipe.get("training", {})
    released = record.summary.get("model_version")  # versions may grow by themselves
    yield f"- version {escaped(released or record.recipe.get('model_version', 'unknown'))}"
    output = escaped(model.get("output", "unknown"))
    yield f"- architecture {escaped(model.get('architecture', 'unknown'))}, output {output}"
    yield f"- input: windows of {number(model.get('window_size'))} samples of {number(model.get('channels'))} signals"
    done, wanted = len(record.rounds), number(record.recipe.get("rounds"))
    if record.recipe.get("kind", "train") != "train":
        yield f"- it was trained elsewhere: {escaped(record.recipe.get('model_source') or 'unknown')}"
        if record.recipe["kind"] == "aggregate":
            yield "- changed by updates that clients gave"
        return
    yield f"- trained by {escaped(training.get('algorithm', 'unknown'))} in {done} of at most {wanted} rounds"


def _use(about: dict[str, Any]) -> Iterator[str]:
    yield escaped(about.get("description") or "The run's store does not say what the model is for.")
    if about.get("owner"):
        contact = f" ({escaped(about['contact'])})" if about.get("contact") else ""
        yield ""
        yield f"Owner: {escaped(about['owner'])}{contact}"


def _data(record: RunRecord) -> Iterator[str]:
    about = record.about
    for statement in about.get("data") or []:
        yield f"- {escaped(statement)}"
    if contract := about.get("contract"):
        words = f": {escaped(contract['description'])}" if contract.get("description") else ""
        yield f"- data contract {escaped(contract['id'])} {escaped(contract['version'])}{words}"
    if fleet := about.get("fleet"):
        yield f"- fleet {escaped(fleet['id'])} {escaped(fleet['version'])} with {number(fleet['clients'])} clients"
    windows = record.evidence.get("windows")
    holdout = about.get("holdout")
    yield (
        f"- judged on {number(windows)} held-out windows of {escaped(holdout)}" if windows and holdout
        else "- judged on no held-out data"
    )  # fmt: skip


def _metrics(record: RunRecord) -> Iterator[str]:
    if not record.metrics:
        yield "No metric has a value."
        return
    intervals = record.analysis.get("intervals") or {}
    yield "| metric | value | interval |"
    yield "| --- | ---: | ---: |"
    for name, value in record.metrics.items():
        own = intervals.get(name)
        words = f"{number(own['low'])} to {number(own['high'])} ({own.get('level', 0.95):.0%})" if own else "–"
        yield f"| {escaped(name)} | {number(value)} | {words} |"
    for name, reason in (record.rounds[-1].get("undefined") or {}).items():
        yield f"| {escaped(name)} | – | {escaped(reason)} |"


def _limits(record: RunRecord) -> Iterator[str]:
    checks = [check for check in record.evidence.get("checks", []) if check["outcome"] != "pass"]
    for check in checks:
        words = f"{check_value(check)}, wanted: {check_bound(check)}"
        yield f"- {escaped(check['name'])}: {check['outcome']} ({escaped(words)})"
    for column, gaps in (record.analysis.get("gaps") or {}).items():
        for metric, gap in gaps.items():
            worst = f"{escaped(gap.get('worst'))} has the worst {escaped(metric)}, {number(gap.get('value'))}"
            yield f"- by {escaped(column)}: {worst}; the gap is {number(gap.get('gap'))}"
    measured = record.summary.get("measured")
    if not record.analysis.get("groups") and not (measured and measured["groups"]):
        yield "- nobody measured how well the model serves single groups of clients"
    if not record.analysis.get("robustness"):
        yield "- nobody measured how the model bears faulty inputs"
    where = "the held-out data alone" if measured is None else f"the data of {measured['clients']} clients"
    yield f"- it was measured on {where}, and says nothing of data that are unlike them"


def _privacy(record: RunRecord) -> Iterator[str]:
    privacy, masking = record.recipe.get("privacy"), record.recipe.get("masking")
    spent = record.rounds[-1].get("epsilon") if record.rounds else None
    if privacy is None:
        yield "- no differential privacy: the model may tell of the data that it was trained on"
    else:
        yield f"- (ε, δ) = ({number(spent)}, {privacy['delta']:g}) for {unit_words(privacy['unit'])}"
        yield f"- noise multiplier {privacy['noise_multiplier']:g}, clipping norm {privacy['clip']:g}"
    if record.recipe.get("kind") == "evaluate":
        yield "- the server saw every client's metrics, and no update"
        return
    yield "- secure aggregation: the server saw sums of updates alone" if masking else "- the server saw single updates"


def _digests(record: RunRecord) -> Iterator[str]:
    evidence = record.evidence
    yield f"- run `{record.run_id}`"
    yield f"- plan `{record.plan_digest}`"
    for name in ("model", "recipe", "fleet", "holdout"):
        if evidence.get(f"{name}_digest"):
            yield f"- {name} `{evidence[f'{name}_digest']}`"
