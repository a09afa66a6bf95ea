"""The command that keeps retention."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedloom.cli.common import printable
from fedloom.cli.runs import open_store, store_option

if TYPE_CHECKING:
    from fedloom.tasks.archive import Clearance, Fate


@click.command()
@click.option("--dry-run/--apply", "dry", default=True, help="Only say what would be removed (the default), or do it.")
@store_option
@click.option(
    "--index", type=click.Path(path_type=Path), help="The registry's index.yaml; without it, runs that ended are kept."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def archive(dry: bool, store: str, index: Path | None, as_json: bool) -> None:
    """Remove runs whose time is over; their records stay in the store's archive folder.

    Runs of active jobs are kept, of completed ones for 2 years, of drafts and unlisted jobs and baselines for 1 year,
    and runs that failed for 6 months. Champions, and what refers to them or to running runs, are always kept.
    """
    from fedloom.specs.registry import entries, load_registry
    from fedloom.tasks.archive import carry_out, survey

    listed = () if index is None else entries(load_registry(index))
    # An index may name jobs without the prefix that their ids have.
    sections = None if index is None else {f"fl-{e.job_id.removeprefix('fl-')}": e.state for e in listed}
    opened = open_store(store)
    found = survey(opened, sections, datetime.now(UTC))
    if as_json:
        click.echo(json.dumps({"applied": not dry, **_summary(found)}, indent=2, ensure_ascii=False))
    else:
        _tell(found, dry)
    if not dry:
        carry_out(opened, found, lambda line: click.echo(line, err=True))


def _tell(found: Clearance, dry: bool) -> None:
    from fedloom.tasks.reporting.words import amount

    for fate in found.runs:
        size = f"{len(fate.objects)} objects, {amount(fate.bytes)}"
        if fate.kept is not None:
            until = fate.term.until if fate.term is not None else None
            ends = f", until {until:%Y-%m-%d}" if until else ""
            click.echo(printable(f"keep    {fate.run_id}  {fate.kept}{ends}"))
        else:
            last = f"last written {fate.written:%Y-%m-%d}"
            click.echo(printable(f"remove  {fate.run_id}  {_why(fate)}, {last}  ({size})"))
        for key in fate.others if fate.kept is None else ():
            click.echo(printable(f"leave   {key}  it is not fedloom's"))
    shared = sum(entry.bytes for entry in found.shared)
    click.echo(
        f"{len(found.going)} of {len(found.runs)} runs and {len(found.shared)} models and rosters "
        f"({amount(shared)}) {'would go' if dry else 'go'}, {amount(found.bytes)} in all"
    )
    if dry and found.going:
        click.echo("nothing was changed; --apply removes them")


def _why(fate: Fate) -> str:
    return "what is left of a removed run" if fate.term is None else f"{fate.term.kind}: {fate.term.reason}"


def _summary(found: Clearance) -> dict[str, object]:
    return {
        "bytes": found.bytes,
        "runs": [
            {
                "run_id": fate.run_id,
                "job": fate.job,
                "kind": None if fate.term is None else fate.term.kind,
                "until": None if fate.term is None or fate.term.until is None else fate.term.until.isoformat(),
                "written": fate.written.isoformat(),
                "removed": fate.kept is None,
                "reason": fate.kept or _why(fate),
                "objects": len(fate.objects),
                "bytes": fate.bytes,
                "left_alone": list(fate.others),
            }
            for fate in found.runs
        ],
        "shared": [entry.key for entry in found.shared],
    }
