"""Commands on data."""

from __future__ import annotations

from pathlib import Path

import click

from fedloom.cli.common import say


@click.command()
@click.argument("job")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write.")
@click.option(
    "--source",
    multiple=True,
    help="The data: a file in JOB's folder, dataset:NAME/FILE or a URL; may be repeated. JOB's holdout if not given.",
)
def baseline(job: str, output: Path, source: tuple[str, ...]) -> None:
    """Write the distribution of JOB's signals, for drift_detection.baseline_distribution.

    Make it once, of the data that later data are to be compared with. It holds bins, shares and quantiles of each
    signal: no recording, yet some of its values.
    """
    from fedloom.flows.baseline import make_baseline
    from fedloom.flows.data import prepare_data
    from fedloom.specs.bundle import load_job, resolve_job

    bundle = load_job(resolve_job(job))
    prepare_data(bundle, say)
    data = make_baseline(bundle, source)
    output.write_bytes(data)
    click.echo(output)
