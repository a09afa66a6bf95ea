"""Charts as SVG that stands in a page: colours and letters are the page's own, so they follow its light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import Any
from zlib import crc32

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colours that stand for the page's variables; the real ones are in style.css, for light and for dark.
_INK, _MUTED, _GRID, _PAPER = "#010101", "#020202", "#030303", "#040404"
_SERIES = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04")
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "grid", _PAPER: "paper"} | {
    colour: f"c{number}" for number, colour in enumerate(_SERIES, 1)
}
_LINES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D")
_SIZE = (4.9, 2.75)
_RC: Any = {
    "svg.fonttype": "none",  # letters stay letters: they are read aloud, searched and set in the page's font
    "svg.hashsalt": "fedloom",  # the same run gives the same page
    "text.parse_math": False,  # names of groups are not ours
    "font.size": 9.5,
    "font.family": "sans-serif",
}


@dataclass(frozen=True)
class Series:
    """A line of a chart: x and y of equal length; gaps are None."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Level:
    """A horizontal line, such as a target or a budget."""

    name: str
    y: float


@dataclass(frozen=True)
class Chart:
    """A drawn chart: what it shows in a sentence for those who do not see it, a caption, its SVG, and its form."""

    title: str
    caption: str
    svg: str
    square: bool


def lines(title: str, series: Sequence[Series], x: str, levels: Sequence[Level] = (), from_zero: bool = False) -> Chart:
    """Lines over rounds; a series of colour, dash and marker of its own, so that colour is never the only signal."""
    figure, axes = _axes(x)
    for one, colour, dash, marker in zip(series, cycle(_SERIES), cycle(_LINES), cycle(_MARKERS), strict=False):
        shown = [float("nan") if value is None else value for value in one.y]
        axes.plot(
            one.x, shown, dash, color=colour, marker=marker if len(shown) <= 25 else "", markersize=3.6,
            linewidth=1.6, label=one.name,
        )  # fmt: skip
    _draw_levels(axes, levels)
    if from_zero:
        axes.set_ylim(0, 1.04 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if len(series) > 1:
        _legend(figure)
    else:
        axes.set_position((0.115, 0.17, 0.87, 0.8))
    return _chart(figure, title)


def stacks(title: str, x: Sequence[float], parts: Sequence[Series], xlabel: str, levels: Sequence[Level] = ()) -> Chart:
    """Bars of parts on each other, one bar a round; the parts are told apart by hatching too."""
    figure, axes = _axes(xlabel)
    base = [0.0] * len(x)
    for part, colour, hatch in zip(parts, cycle(_SERIES), cycle(("", "////", "----", "\\\\\\\\")), strict=False):
        heights = [value or 0.0 for value in part.y]
        axes.bar(
            x, heights, bottom=base, width=0.8, color=colour, edgecolor=_PAPER, linewidth=0.3, hatch=hatch,
            label=part.name,
        )  # fmt: skip
        base = [low + high for low, high in zip(base, heights, strict=True)]
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    _draw_levels(axes, levels)
    if len(parts) > 1:
        _legend(figure)
    return _chart(figure, title)


def roc(title: str, fpr: Sequence[float], tpr: Sequence[float]) -> Chart:
    """A ROC curve, and the diagonal of a model that guesses."""
    figure, axes = _axes("false positive rate", "true positive rate", square=True)
    axes.plot([0, 1], [0, 1], ":", color=_MUTED, linewidth=1, label="guessing")
    axes.plot(fpr, tpr, "-", color=_SERIES[0], linewidth=1.8, label="model")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    _legend(figure)
    return _chart(figure, title)


def calibration(title: str, bins: Sequence[dict[str, Any]]) -> Chart:
    """Share of positives over the mean score of each bin; the larger a dot, the more windows."""
    figure, axes = _axes("mean score", "share of positives", square=True)
    most = max((entry["count"] for entry in bins), default=1) or 1
    axes.plot([0, 1], [0, 1], ":", color=_MUTED, linewidth=1, label="perfectly calibrated")
    known = [e for e in bins if e["count"] and e.get("mean_score") is not None and e.get("rate") is not None]
    scores, rates = [e["mean_score"] for e in known], [e["rate"] for e in known]
    axes.plot(scores, rates, "-", color=_SERIES[0], linewidth=1.2)
    sizes = [12 + 80 * e["count"] / most for e in known]
    axes.scatter(scores, rates, s=sizes, color=_SERIES[0], label="model", zorder=3)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _legend(figure)
    return _chart(figure, title)


def histogram(title: str, values: Sequence[int], x: str) -> Chart:
    """How often each whole number occurs."""
    figure, axes = _axes(x)
    counts = [values.count(number) for number in range(max(values, default=0) + 1)]
    axes.bar(range(len(counts)), counts, width=0.8, color=_SERIES[0], edgecolor=_PAPER, linewidth=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    return _chart(figure, title)


def _axes(x: str, y: str = "", square: bool = False) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(3.6, 3.3) if square else _SIZE)
        # Fixed margins: to fit them to the letters takes as long again as drawing.
        axes = figure.add_axes((0.17, 0.14, 0.8, 0.74) if square else (0.115, 0.17, 0.87, 0.7))
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_MUTED)
        axes.spines[side].set_linewidth(0.7)
    axes.grid(True, axis="both" if square else "y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, width=0.7, length=3)
    axes.set_xlabel(x, color=_MUTED)
    axes.set_ylabel(y, color=_MUTED)
    return figure, axes


def _draw_levels(axes: Axes, levels: Sequence[Level]) -> None:
    for level in levels:
        axes.axhline(level.y, color=_INK, linewidth=1, linestyle=(0, (1, 2)))
        axes.annotate(
            level.name, (1, level.y), xycoords=("axes fraction", "data"), xytext=(-2, 2), textcoords="offset points",
            ha="right", color=_INK, fontsize=8.5, bbox={"facecolor": _PAPER, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip


def _legend(figure: Figure) -> None:
    figure.legend(
        frameon=False, labelcolor=_INK, loc="upper left", bbox_to_anchor=(0.01, 1.0), ncols=4, fontsize=8.5,
        columnspacing=1.1, handlelength=2.2, handletextpad=0.5, borderaxespad=0.1,
    )  # fmt: skip


_PROLOG = re.compile(r"^.*?(?=<svg )", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>|\s*<style .*?</style>", re.DOTALL)
_SIZES = re.compile(r' (?:width|height)="[0-9.]+pt"| xmlns:xlink="[^"]*"')
_FONT = re.compile(r"font-family: [^;\"]*; ")


def _chart(figure: Figure, title: str) -> Chart:
    width, height = figure.get_size_inches()
    return Chart(title, re.split("[:,] ", title)[0], _svg(figure, title), width < 1.3 * height)


def _svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element: it names what it shows, and takes colours and letters from the page."""
    made = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    with matplotlib.rc_context(_RC):
        canvas.print_svg(made, metadata={"Date": None})
    text = _METADATA.sub("", _PROLOG.sub("", made.getvalue()))
    head, mark, body = text.partition(">")
    body = _FONT.sub("", re.sub(r'<g id="[^"]*">', "<g>", body)).replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    own = f"g{crc32((title + body).encode()):08x}-"  # ids are of one chart: several of them stand in one page
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}", body)
    name = escape(title, quote=True)
    head = _SIZES.sub("", head).replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
    return f"{head}{mark}\n<title>{name}</title>{body}"
