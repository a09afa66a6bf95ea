"""The report of a run as one HTML page that loads nothing: style and charts are in it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from fedloom.tasks.reporting import view, words
from fedloom.tasks.reporting.card import model_card
from fedloom.tasks.reporting.data import RunRecord


def report_page(record: RunRecord, baseline: RunRecord | None = None) -> str:
    """The page.

    Args:
        record: The run.
        baseline: A run to hold it against, such as the same job without privacy.
    """
    return _environment().get_template("page.html.j2").render(_context(record, baseline))


def _context(record: RunRecord, baseline: RunRecord | None) -> dict[str, Any]:
    told, rounds = record.participation, record.rounds
    return {
        "run": record,
        "about": record.about,
        "title": record.about.get("name") or record.plan.get("job_id") or record.run_id,
        "verdict": words.verdict(record),
        "baseline_words": words.BASELINE if record.recipe.get("baseline") else None,
        "last": rounds[-1] if rounds else None,
        "checks": record.evidence.get("checks", []),
        "metric_rows": view.metric_rows(record, baseline),
        "metric_charts": view.metric_charts(record, baseline),
        "training_charts": view.training_charts(record),
        "cohort_chart": view.cohort_chart(record) if rounds else None,
        "clients": view.client_rows(told) if told else [],
        "client_chart": view.client_chart(told) if told else None,
        "group_tables": view.group_tables(told) if told else [],
        "dropouts": view.reason_rows(record, ("dropouts",)),
        "set_apart": view.reason_rows(record, ("excluded", "flagged", "clipped")),
        "idle_rounds": view.rounds_without_effect(record),
        "cost_charts": view.cost_charts(record),
        "steps": view.step_rows(record),
        "sent": {way: sum(line.get(f"bytes_{way}") or 0 for line in rounds) for way in ("down", "up")},
        "quality": view.quality(record),
        "privacy": view.privacy_view(record, baseline),
        "cost": view.cost_of_privacy(record, baseline),
        "baseline": baseline,
        "card": Markup(_markdown().render(model_card(record))),
        "session": record.evidence.get("secure_aggregation"),
        "masking": record.recipe.get("masking"),
    }


@lru_cache(1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fedloom.tasks.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number,
        "amount": words.amount,
        "clock": words.clock,
        "check_value": words.check_value,
        "check_bound": words.check_bound,
        "unit_words": words.unit_words,
        "markup": Markup,
    }
    environment.globals["share"] = words.share
    return environment


@lru_cache(1)
def _markdown() -> MarkdownIt:
    """Markdown without what could load or run something: HTML, images and links stay letters."""
    return (
        MarkdownIt("commonmark", {"html": False})
        .enable("table")
        .disable(["image", "link", "autolink", "html_block", "html_inline", "reference"])
    )
