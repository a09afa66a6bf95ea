"""The command line.

Exit codes: 0 done (validate: valid), 1 failed (validate: invalid), 2 wrong command or specs, 3 the gate withheld the
model, 130 interrupted.
"""

from __future__ import annotations

import gc
import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fedloom.cli import argo
from fedloom.cli.archive import archive
from fedloom.cli.common import FAILED, WITHHELD, compile_job, fail, plain_errors, say, store_url
from fedloom.cli.data import baseline
from fedloom.cli.fleet import fleet
from fedloom.cli.privacy import privacy
from fedloom.cli.runs import report, runs

if TYPE_CHECKING:
    from fedloom.flows.result import RunResult
    from fedloom.specs.bundle import JobBundle
    from fedloom.specs.problems import Format

Command = TypeVar("Command", bound=Callable[..., Any])


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal without these letters still gets the rest
        gc.disable()  # quick commands make classes and end: collecting them costs a fifth of the time
        with plain_errors():
            return super().invoke(ctx)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fedloom", message="%(prog)s %(version)s")
def main() -> None:
    """Turn federated-learning job specs into DAG workflows, and run them."""


def _run_options(command: Command) -> Command:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("--name", default="", help="Sets runs of one plan apart, e.g. the date of a nightly run."),
        click.option("--rounds", type=click.IntRange(1), help="Number of rounds, instead of the job's."),
        click.option("--seed", type=click.IntRange(0), help="Seed, instead of the job's."),
        click.option(
            "--store",
            default="fedloom-runs",
            envvar="FEDLOOM_STORE",
            show_default=True,
            help="Where runs are kept: a folder or an fsspec URL such as s3://bucket/runs.",
        ),
        click.argument("job"),
    ):
        command = option(command)
    return command


@main.command()
@_run_options
@click.option(
    "--without-privacy", is_flag=True, help="Leave out noise and masks, as a baseline for reports; never released."
)
def simulate(
    job: str, store: str, seed: int | None, rounds: int | None, name: str, as_json: bool, without_privacy: bool
) -> None:
    """Run JOB in this process.

    JOB is a job folder or the name of a packaged example. A run that was stopped is continued by the same command.
    """
    from fedloom.flows.inline import simulate as engine
    from fedloom.flows.progress import ProgressDisplay
    from fedloom.flows.result import read_result
    from fedloom.flows.runs import open_run

    bundle, plan = compile_job(job, seed, rounds, without_privacy)
    _tell_notes(bundle)
    _prepare(bundle)
    opened = open_run(plan, bundle, store_url(store), name)
    with ProgressDisplay(plan, sys.stderr) as display, redirect_stdout(sys.stderr):
        engine(plan, opened, display)
    _finish(read_result(opened), bundle, as_json)


@main.command()
@_run_options
def run(job: str, store: str, seed: int | None, rounds: int | None, name: str, as_json: bool) -> None:
    """Run JOB as a Prefect flow.

    PREFECT_API_URL is respected; without it a private server is started for the run.
    """
    from fedloom.flows.prefect_engine import run_on_prefect
    from fedloom.flows.progress import ProgressDisplay

    bundle, plan = compile_job(job, seed, rounds)
    _tell_notes(bundle)
    _prepare(bundle)
    with ProgressDisplay(plan, sys.stderr) as display, redirect_stdout(sys.stderr):
        result = run_on_prefect(display, say=say, job=job, store=store_url(store), seed=seed, rounds=rounds, name=name)
    _finish(result, bundle, as_json)


@main.command()
@click.argument("step")
@_run_options
@click.option("--round", "round_", type=click.IntRange(0), default=0, help="Round, from 1; 0 for set-up steps.")
@click.option("--shard", type=click.IntRange(0), help="Shard, for steps that fan out.")
@click.option("--lost", metavar="REASON", help="Record that this shard was lost for good, instead of running it.")
@click.option("--settled", is_flag=True, help="Take shards of earlier steps that left no result as lost for good.")
@click.option("--plan-digest", help="Refuse to run unless the specs compile to this plan.")
@click.option("--outputs", type=click.Path(path_type=Path), help="Also write each output to a file in this folder.")
def step(
    step: str, job: str, store: str, seed: int | None, rounds: int | None, name: str, as_json: bool,
    round_: int, shard: int | None, lost: str | None, settled: bool, plan_digest: str | None, outputs: Path | None,
) -> None:  # fmt: skip
    """Run one STEP of JOB in this process and print its outputs as JSON: what a container does."""
    from fedloom.flows.runs import open_run
    from fedloom.flows.single import find_step, run_instance, take_as_lost, write_outputs
    from fedloom.tasks.errors import ConfigurationError

    bundle, plan = compile_job(job, seed, rounds)
    opened = open_run(plan, bundle, store_url(store), name)
    if plan_digest is not None and plan_digest != opened.plan_digest:
        raise ConfigurationError(
            f"the specs compile to plan {opened.plan_digest[:12]}…, {plan_digest[:12]}… was asked for"
        )
    find_step(plan, step, round_, shard)
    _prepare(bundle)
    with redirect_stdout(sys.stderr):  # what a custom class prints is none of the step's outputs
        if lost is not None:
            found = take_as_lost(opened, plan, step, round_, shard, lost)
        else:
            found = run_instance(opened, plan, step, round_, shard, settled)
    if outputs is not None:
        write_outputs(found, outputs)
    click.echo(json.dumps(found, indent=None if as_json else 2, sort_keys=True))


@main.command()
@click.argument("job")
@click.option("--format", "form", type=click.Choice(["tree", "json", "mermaid", "dot"]), default="tree")
@click.option("--seed", type=click.IntRange(0), help="Seed, instead of the job's.")
@click.option("--rounds", type=click.IntRange(1), help="Number of rounds, instead of the job's.")
def plan(job: str, form: str, seed: int | None, rounds: int | None) -> None:
    """Print the DAG of JOB, its digest and what it will cost."""
    from fedloom.flows import show

    bundle, compiled = compile_job(job, seed, rounds)
    if form == "json":
        click.echo(show.as_json(compiled, bundle))
    else:
        drawn = {"tree": show.as_tree, "mermaid": show.as_mermaid, "dot": show.as_dot}
        click.echo(drawn[form](compiled))
    if form == "tree":
        for note in show.notes(bundle):
            click.echo(f"note: {note}")


@main.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--validate-all", "everything", is_flag=True, help="Every spec below the folders PATHS.")
@click.option("--schema", help="Read the files as this kind of spec.")
@click.option("--show", is_flag=True, help="Print the normal form of what is valid.")
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text")
def validate(paths: tuple[Path, ...], everything: bool, schema: str | None, show: bool, form: Format) -> None:
    """Check specs: files, job folders, or names of packaged examples."""
    from fedloom.flows.validation import as_text, check, normal_forms

    if not paths and not everything:
        raise click.UsageError("name at least one file or folder, or use --validate-all")
    report = check(paths or (Path(),), everything, _kind(schema) if schema else None)
    beside = show and form != "json"  # then standard output is for the YAML alone
    if beside:
        click.echo(normal_forms(report), nl=False)
    if text := as_text(report, form, show):
        click.echo(text, err=beside)
    sys.exit(0 if report.valid else FAILED)


@main.command()
@click.argument("name")
def schema(name: str) -> None:
    """Print the JSON Schema of a kind of spec (job, selector, rollout, schedule, contract, fleet, registry …)."""
    from fedloom.specs.schema import json_schema

    click.echo(json.dumps(json_schema(_kind(name)), indent=2, ensure_ascii=False))


@main.command()
@click.argument("name")
@click.option("--template", type=click.Choice(["train", "eval", "aggregate"]), default="train", show_default=True)
@click.option("--into", type=click.Path(path_type=Path), default=Path(), help="Folder to write it in.")
def init(name: str, template: str, into: Path) -> None:
    """Write a new job folder NAME from a template."""
    from fedloom.specs.scaffold import init_job

    for path in init_job(name, template, into):
        click.echo(path)


@main.group()
def registry() -> None:
    """Look into a registry of jobs."""


_index = click.option(
    "--index", type=click.Path(path_type=Path), help="The registry's index.yaml; the packaged one by default."
)


@registry.command("list")
@_index
@click.option("--state", type=click.Choice(["active", "draft", "completed", "failed"]), help="Only these.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def registry_list(index: Path | None, state: str | None, as_json: bool) -> None:
    """List the jobs."""
    from fedloom.specs.registry_view import list_jobs

    click.echo(list_jobs(index, state, as_json))


@registry.command("show")
@click.argument("job_id")
@_index
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def registry_show(job_id: str, index: Path | None, as_json: bool) -> None:
    """Show one job."""
    from fedloom.specs.registry_view import show_job

    click.echo(show_job(job_id, index, as_json))


for _command in (argo.render, argo.lint, argo.notify, fleet, privacy, report, runs, archive):
    main.add_command(_command)


@main.group()
def data() -> None:
    """Prepare data sets."""


@data.command()
@click.argument("name")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder to keep it in, instead of the user's cache.")
def prepare(name: str, cache: Path | None) -> None:
    """Fetch and convert the data set NAME once."""
    from fedloom.tasks.datasets import DatasetError
    from fedloom.tasks.datasets import prepare as prepare_dataset

    try:
        click.echo(prepare_dataset(name, cache, say))
    except DatasetError as error:
        fail(f"error: {error}", FAILED)


data.add_command(baseline)


def _kind(name: str) -> str:
    from fedloom.specs.kinds import KINDS

    if name not in KINDS:
        raise click.UsageError(f"there is no schema {name!r}; there are {', '.join(KINDS)}")
    return name


def _prepare(bundle: JobBundle) -> None:
    from fedloom.flows.data import prepare_data

    gc.enable()
    prepare_data(bundle, say)


def _tell_notes(bundle: JobBundle) -> None:
    from fedloom.flows.show import notes

    if count := len(notes(bundle)):
        say(f"note: a run does not act upon everything that the specs say ({count} notes, see fedloom plan)")


def _finish(result: RunResult, bundle: JobBundle, as_json: bool) -> None:
    from fedloom.flows.result import as_text
    from fedloom.specs.canonical import plain

    click.echo(json.dumps(plain(result), indent=2) if as_json else as_text(result, bundle))
    sys.exit(0 if result.gate["decision"] == "pass" else WITHHELD)
