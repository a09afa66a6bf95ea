"""Runs as tables on a terminal; in a pipe the same without colour, and no line is cut."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from fedloom.cli.common import printable
from fedloom.tasks.metrics import higher_is_better
from fedloom.tasks.reporting.compare import Comparison
from fedloom.tasks.reporting.records import Overview

_WIDE = 110
_COLOURS = {
    "pass": "green", "ended": "", "running": "cyan", "failed": "red", "fail": "red", "error": "red",
    "unknown": "yellow", "inconclusive": "yellow", "better": "green", "worse": "red",
}  # fmt: skip


def console() -> Console:
    """Standard output; a pipe takes lines of any length."""
    made = Console(highlight=False, markup=False, emoji=False)
    return made if made.is_terminal else Console(highlight=False, markup=False, emoji=False, width=4000)


def cell(value: Any) -> Text:
    """A value as a cell: words that mean something are coloured, and letters that cannot be shown are not."""
    text = "–" if value is None or value == "" else str(value)
    shown = printable(text).replace("\n", " ")
    return Text(shown, style=_COLOURS.get(shown, ""), overflow="fold")


def number(value: float | None) -> str:
    """A metric with four digits."""
    return "–" if value is None else f"{value:.4f}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> Table:
    """Rows under a head, without lines around them."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in head:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(cell, row))
    return made


def listed(runs: Sequence[Overview], wide: bool) -> Table:
    """One run a line; on a narrow terminal without what the run's id says anyway."""
    head = ["run", *(["job"] if wide else []), "state", "rounds", "decision", "metric", "written"]
    rows = [
        [
            run.run_id,
            *([run.job] if wide else []),
            run.state,
            f"{run.rounds}/{run.wanted or '?'}",
            decision(run),
            "–" if run.metric is None else f"{run.metric} {number(run.value)}",
            run.written.strftime("%Y-%m-%d %H:%M" if wide else "%m-%d %H:%M"),
        ]
        for run in runs
    ]
    return table(head, rows, right=("rounds",))


def decision(run: Overview) -> str:
    """The gate's decision in one word; a baseline is no candidate."""
    return "baseline" if run.baseline else (run.decision or "–")


def shown(run: Overview, summary: dict[str, Any], evidence: dict[str, Any], metrics: dict[str, float]) -> Group:
    """One run: how it stands, its metrics, its checks and its digests."""
    facts = [
        ("run", run.run_id),
        ("state", f"{run.state}: {run.reason}" if run.reason else run.state),
        ("rounds", f"{run.rounds} of at most {run.wanted or '?'}"),
        ("decision", decision(run)),
        *([("stopped", summary["gate"]["stop_reason"])] if summary.get("gate") else []),
        *([("privacy", summary["privacy"]["statement"])] if summary.get("privacy") else []),
        *((name, evidence.get(f"{name}_digest")) for name in ("model", "plan", "fleet", "holdout")),
        ("written", f"{run.written:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    parts: list[Any] = [table(("", ""), facts)]
    parts[0].show_header = False
    if metrics:
        rows = [(name, number(value)) for name, value in metrics.items()]
        parts += ["", table(("metric", "value"), rows, right=("value",))]
    if checks := evidence.get("checks"):
        parts += ["", table(("check", "outcome", "reason"), [(c["name"], c["outcome"], c["reason"]) for c in checks])]
    return Group(*parts)


def compared(first: str, second: str, found: Comparison) -> Group:
    """Two runs beside each other."""
    rows = [(name, number(a), number(b), *_change(name, change)) for name, a, b, change in found.metrics]
    digests = [
        (name, a and a[:16], b and b[:16], "equal" if same else "different") for name, a, b, same in found.digests
    ]
    parts: list[Any] = [
        table(("", ""), [("first", first), ("second", second)]),
        "",
        table(("metric", "first", "second", "change", ""), rows, right=("first", "second", "change")),
        "",
        table(("digest", "first", "second", ""), digests),
        "",
    ]
    parts[0].show_header = False
    if found.recipe:
        differing = [(each.path, _value(each.first), _value(each.second)) for each in found.recipe]
        parts.append(table(("the plans differ in", "first", "second"), differing))
    else:
        parts.append("the plans say the same")
    return Group(*parts)


def _change(metric: str, change: float | None) -> tuple[str, str]:
    if change is None:
        return "–", ""
    higher = higher_is_better(metric)
    if not change or higher is None:
        return f"{change:+.4f}", ""
    return f"{change:+.4f}", "better" if (change > 0) == higher else "worse"


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def is_wide(terminal: Console) -> bool:
    """Whether there is room for all columns."""
    return terminal.width >= _WIDE
