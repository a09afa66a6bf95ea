"""Everything that a report of a run consists of, as files beside each other."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.reporting.card import model_card
from fedloom.tasks.reporting.data import RunRecord, read_run
from fedloom.tasks.reporting.metrics_text import metrics_csv, metrics_prom
from fedloom.tasks.step import Place
from fedloom.tasks.store import Stored


def report_files(record: RunRecord, baseline: RunRecord | None = None) -> dict[str, str]:
    """The files of a report by name.

    Raises:
        ConfigurationError: when the run has left nothing to report on.
    """
    from fedloom.tasks.reporting.page import report_page

    if not record.plan:
        raise ConfigurationError(f"run {record.run_id} has no plan that could be read: there is nothing to report on")
    return {
        "report.html": report_page(record, baseline),
        "model_card.md": model_card(record),
        "metrics.csv": metrics_csv(record),
        "metrics.prom": metrics_prom(record),
    }


def write_files(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write the files, each in one piece: a collector may read them at any moment."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in files.items():
        temporary = folder / f".{name}.{uuid.uuid4().hex}.tmp"
        try:
            temporary.write_bytes(text.encode())
            os.replace(temporary, folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        written.append(folder / name)
    return written


def store_page(place: Place) -> Stored:
    """Write the page of a run into its folder of the store."""
    from fedloom.tasks.reporting.page import report_page

    run = place.run
    return run.store.write(run.key("report.html"), report_page(read_run(run.store, run.run_id)).encode())
