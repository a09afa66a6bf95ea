"""What the steps read of what a run leaves outside its own records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OutputRecipe:
    """Files for others. A destination is a URL, or a path below ``exports/`` in the run store ("" for that itself).

    Attributes:
        model: Format of the model: "safetensors" or "pytorch"; None where it is not exported.
        model_to: Where the model and its records go.
        records: Names of the records beside the model; None where there are none.
        report: Format of the report: "json" or "markdown"; None where it is not exported.
        report_to: Where it goes.
    """

    model: str | None
    model_to: str
    records: tuple[str, ...] | None
    report: str | None
    report_to: str
