"""Commands on what runs left: reports, lists, comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


@click.group()
def runs() -> None:
    """Look at the runs of a store."""


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@runs.command("list")
@store_option
@_json
def list_(store: str, as_json: bool) -> None:
    """List the runs, the last written first.

    A run is running, ended, failed (a step failed and was not repeated), or unknown (it was stopped, or waits).
    """
    from fedloom.cli.run_tables import console, is_wide, listed
    from fedloom.tasks.reporting.records import overviews

    found = overviews(open_store(store))
    if as_json:
        click.echo(_as_json([vars(run) for run in found]))
        return
    terminal = console()
    terminal.print(listed(found, is_wide(terminal)) if found else f"no runs in {store_url(store)}")


@runs.command()
@click.argument("run")
@store_option
@_json
def show(run: str, store: str, as_json: bool) -> None:
    """Show one RUN: how it stands, its metrics, checks and digests."""
    from fedloom.cli.run_tables import console, shown
    from fedloom.tasks.reporting.data import read_run
    from fedloom.tasks.reporting.records import find_run, overview

    opened = open_store(store)
    run_id = find_run(opened, run)
    record, stands = read_run(opened, run_id), overview(opened, run_id)
    if stands is None:
        raise click.UsageError(f"run {run_id} has been removed")
    if as_json:
        click.echo(_as_json({**vars(stands), "summary": record.summary, "evidence": record.evidence}))
        return
    console().print(shown(stands, record.summary, record.evidence, record.metrics))


@runs.command()
@click.argument("first")
@click.argument("second")
@store_option
@_json
def compare(first: str, second: str, store: str, as_json: bool) -> None:
    """Compare the runs FIRST and SECOND: their metrics, what their plans differ in, and their digests."""
    from fedloom.cli.run_tables import compared, console
    from fedloom.specs.canonical import plain
    from fedloom.tasks.reporting.compare import compare as compare_runs
    from fedloom.tasks.reporting.data import read_run
    from fedloom.tasks.reporting.records import find_run

    opened = open_store(store)
    one, other = find_run(opened, first), find_run(opened, second)
    found = compare_runs(read_run(opened, one), read_run(opened, other))
    if as_json:
        metrics = [dict(zip(("metric", "first", "second", "change"), row, strict=True)) for row in found.metrics]
        digests = [dict(zip(("digest", "first", "second", "equal"), row, strict=True)) for row in found.digests]
        click.echo(
            _as_json({"runs": [one, other], "metrics": metrics, "digests": digests, "plan": plain(found.recipe)})
        )
        return
    console().print(compared(one, other, found))


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=lambda moment: moment.isoformat())
