"""Earlier rounds of a job, counted up by client."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.tasks.errors import StoreError
from fedloom.tasks.losses import LOST_SHARD
from fedloom.tasks.selection.periods import period_of

MEMORY = 0.5
"""Weight of a client's latest round in its running means."""
_COUNTS = ("asked", "gave", "in_period", "failures")
_FIGURES = ("contribution", "norm", "loss", "reduction")
_SIGNS = ("poisoning", "byzantine")


@dataclass(frozen=True)
class Tally:
    """What has happened so far; all arrays have shape [clients], in the order of client ids.

    Attributes:
        at: The moment that the period is taken from (ISO 8601, UTC).
        period: "week", "month", "quarter" or "year"; None where nothing is counted by period.
        counts: Integers: "asked", "gave" (updates), "in_period" (updates in the period of `at`), "failures" (rounds
            without an update since the last one).
        figures: Floats, NaN where unknown: "contribution" (running mean of weight · norm), "norm" (running mean of the
            update's L2 norm), "loss" (the latest), "reduction" (running mean of the share by which the loss fell).
        signs: Texts, "" for none: "poisoning" and "byzantine", the check that first found it and why.
    """

    at: str
    period: str | None
    counts: dict[str, NDArray[np.int64]]
    figures: dict[str, NDArray[np.float64]]
    signs: dict[str, list[str]]

    def dump(self, clients: tuple[str, ...]) -> bytes:
        """As JSON, in columns of the clients that have been asked or noted."""
        noted = np.array([bool(a or b) for a, b in zip(*self.signs.values(), strict=True)], dtype=bool)
        rows = np.flatnonzero((self.counts["asked"] > 0) | noted)
        columns: dict[str, list[Any]] = {"client": [clients[row] for row in rows]}
        columns |= {name: self.counts[name][rows].tolist() for name in _COUNTS}
        for name in _FIGURES:
            columns[name] = [None if value != value else value for value in self.figures[name][rows].tolist()]
        columns |= {name: [self.signs[name][row] for row in rows] for name in _SIGNS}
        made = {"at": self.at, "period": self.period, "columns": columns}
        return json.dumps(made, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    @staticmethod
    def load(data: bytes, clients: tuple[str, ...]) -> Tally:
        """From what `dump` made.

        Raises:
            StoreError: when it is damaged.
        """
        try:
            read = json.loads(data)
            columns = read["columns"]
            row_of = {client: row for row, client in enumerate(clients)}
            rows = np.array([row_of[client] for client in columns["client"]], dtype=np.intp)
            tally = empty_tally(len(clients), read["at"], read["period"])
            for name in _COUNTS:
                tally.counts[name][rows] = columns[name]
            for name in _FIGURES:
                tally.figures[name][rows] = np.array(columns[name], dtype=np.float64)
            for name in _SIGNS:
                for row, text in zip(rows, columns[name], strict=True):
                    tally.signs[name][row] = text
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"a tally of earlier rounds is damaged: {error}; delete it and run again") from error
        return tally


def empty_tally(clients: int, at: str, period: str | None) -> Tally:
    """The tally before anything has happened."""
    return Tally(
        at,
        period,
        {name: np.zeros(clients, dtype=np.int64) for name in _COUNTS},
        {name: np.full(clients, np.nan) for name in _FIGURES},
        {name: [""] * clients for name in _SIGNS},
    )


def rolled(tally: Tally, at: datetime) -> Tally:
    """The same at the beginning of another period, in which nothing has happened yet."""
    counts = {**tally.counts, "in_period": np.zeros_like(tally.counts["in_period"])}
    return replace(tally, at=at.isoformat(timespec="seconds"), counts=counts)


def fold(tally: Tally, records: list[dict[str, Any]], clients: tuple[str, ...]) -> Tally:
    """The tally after some more rounds, in their order; the one given is used up."""
    row_of = {client: row for row, client in enumerate(clients)}
    now = _period_at(tally.at, tally.period)
    for record in records:
        counted = now is not None and _period_at(record["at"], tally.period) == now
        gave = _rows(record["gave"], row_of)
        failed = [item["client"] for item in record["dropouts"] if not item["reason"].startswith(LOST_SHARD)]
        tally.counts["asked"][_rows(record["asked"], row_of)] += 1
        tally.counts["failures"][_rows(failed, row_of)] += 1
        tally.counts["gave"][gave] += 1
        tally.counts["failures"][gave] = 0
        if counted:
            tally.counts["in_period"][gave] += 1
        for client, figures in sorted((record["figures"] or {}).items()):
            if client in row_of:
                _take_figures(tally, row_of[client], figures)
        for found in (*record["excluded"], *record["flagged"]):
            sign = sign_of(str(found.get("check", "")))
            if sign is not None and found["client"] in row_of and not tally.signs[sign][row_of[found["client"]]]:
                place = f"round {record['round']} of {record['run_id']}"
                text = f"{found.get('check')}: {found.get('reason', '')} ({place})"
                tally.signs[sign][row_of[found["client"]]] = text
    return tally


def sign_of(check: str) -> str | None:
    """What the name of a quality check says about a client: poisoned data, Byzantine behaviour, or nothing."""
    if check == "data_poisoning_score":
        return "poisoning"
    return "byzantine" if check in ("gradient_norm", "parameter_distance") else None


def _take_figures(tally: Tally, row: int, figures: dict[str, float]) -> None:
    norm, loss = figures["norm"], figures["loss"]
    before = tally.figures["loss"][row]
    if before == before:
        fell = max(0.0, 1 - loss / before) if before > 0 else 0.0
        _remember(tally.figures["reduction"], row, fell)
    tally.figures["loss"][row] = loss
    _remember(tally.figures["norm"], row, norm)
    _remember(tally.figures["contribution"], row, figures["weight"] * norm)


def _remember(column: NDArray[np.float64], row: int, value: float) -> None:
    before = column[row]
    column[row] = value if before != before else (1 - MEMORY) * before + MEMORY * value


def _rows(clients: list[str], row_of: dict[str, int]) -> NDArray[np.intp]:
    """Rows of those clients that the fleet still has."""
    return np.array([row_of[client] for client in clients if client in row_of], dtype=np.intp)


def _period_at(at: str, period: str | None) -> str | None:
    return None if period is None else period_of(datetime.fromisoformat(at), period)
