"""Commands on what runs left: reports, lists, comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedloom.cli.common import store_url

if TYPE_CHECKING:
    from fedloom.tasks.store import RunStore

store_option = click.option(
    "--store", default="fedloom-runs", envvar="FEDLOOM_STORE", show_default=True, help="A folder or an fsspec URL."
)


def open_store(store: str) -> RunStore:
    """The store that a command names."""
    from fedloom.tasks.store import RunStore

    return RunStore(store_url(store))


@click.command()
@click.argument("run")
@store_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write it in; report-RUN if not given.")
@click.option("--baseline", metavar="RUN", help="A run to hold it against, such as one --without-privacy.")
def report(run: str, store: str, output: Path | None, baseline: str | None) -> None:
    """Write the report of RUN: one HTML page that loads nothing, the model card, and metrics as CSV and for Prometheus.

    RUN is the id of a run, or the beginning of one; fedloom runs list shows them.
    """
    from fedloom.tasks.reporting.data import read_run
    from fedloom.tasks.reporting.files import report_files, write_files
    from fedloom.tasks.reporting.records import find_run

    opened = open_store(store)
    run_id = find_run(opened, run)
    other = None if baseline is None else read_run(opened, find_run(opened, baseline))
    files = report_files(read_run(opened, run_id), other)
    for path in write_files(output or Path(f"report-{run_id}"), files):
        click.echo(path)
