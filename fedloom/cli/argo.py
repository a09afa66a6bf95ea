"""Commands about Argo Workflows: render, lint, and what a workflow calls to tell people."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedloom.cli.common import FAILED, compile_job, fail, say, store_url

if TYPE_CHECKING:
    from fedloom.deploy.notify import Event
    from fedloom.specs.problems import Format


@click.group()
def render() -> None:
    """Turn jobs into manifests of a workflow engine, without touching a cluster."""


def _kubernetes(check: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    def callback(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
        from fedloom.deploy.argo import values

        try:
            return value if value is None else getattr(values, check)(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


_argo_version = click.option(
    "--argo-version", type=click.Choice(["3.7", "4"]), default="4", show_default=True, help="Argo that will read them."
)


@render.command("argo")
@click.argument("jobs", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write; each job gets one of its name.")
@click.option("--stdout", "to_stdout", is_flag=True, help="Print the documents instead, all but the lists of files.")
@click.option("--check", type=click.Path(path_type=Path), help="Compare with this folder instead; 1 if it differs.")
@click.option("--values", type=click.Path(path_type=Path), help="What the cluster adds: store, secrets, nodes …")
@click.option("--namespace", callback=_kubernetes("check_dns_label"), help="Namespace, instead of that of the values.")
@click.option("--image", callback=_kubernetes("check_image"), help="Image, instead of that of the values.")
@_argo_version
def render_argo(
    jobs: tuple[str, ...], output: Path | None, to_stdout: bool, check: Path | None, values: Path | None,
    namespace: str | None, image: str | None, argo_version: str,
) -> None:  # fmt: skip
    """Render JOBS as Argo Workflows: job folders, folders of them, or packaged examples."""
    from fedloom.deploy.argo import folder
    from fedloom.deploy.argo.lint import lint_rendered
    from fedloom.deploy.argo.values import load_values
    from fedloom.specs.problems import errors
    from fedloom.specs.problems import render as shown

    if (output is not None) + to_stdout + (check is not None) != 1:
        raise click.UsageError("say where to: -o FOLDER, --stdout or --check FOLDER")
    rendered = folder.render_jobs(folder.find_jobs(jobs), load_values(values, namespace=namespace, image=image))
    problems = [problem for job in rendered for problem in lint_rendered(job, argo_version)]
    if problems:
        click.echo(shown(problems, "text"), err=True)
    if errors(problems):
        sys.exit(FAILED)
    if check is not None:
        all_jobs = any(folder.is_collection(Path(job)) for job in jobs)
        if differences := folder.drift(rendered, check, all_jobs):
            click.echo(differences, nl=False)
            fail(f"{check} is not what the specs say; render again with: fedloom render argo … -o {check}", FAILED)
        click.echo(f"no drift: {len(rendered)} job{'s' * (len(rendered) != 1)}")
        return
    for each in rendered:
        for note in each.notes:
            say(f"note: {each.name}: {note}")
    if output is None:
        click.echo(folder.as_stream(rendered), nl=False)
    for path in folder.write(rendered, output) if output is not None else ():
        click.echo(path)


@click.group()
def lint() -> None:
    """Check manifests of a workflow engine."""


@lint.command("argo")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@_argo_version
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text")
def lint_argo(files: tuple[Path, ...], argo_version: str, form: Format) -> None:
    """Check FILES, and all YAML in folders, against the rules of Argo Workflows."""
    from fedloom.deploy.argo.lint import lint_files
    from fedloom.deploy.argo.manifests import yaml_files
    from fedloom.specs.problems import errors
    from fedloom.specs.problems import render as shown

    problems = lint_files(files, argo_version)
    if problems or form == "json":
        click.echo(shown(problems, form))
    elif form == "text":
        click.echo(f"clean: {len(yaml_files(files))} files")
    sys.exit(FAILED if errors(problems) else 0)


@click.command()
@click.argument("job")
@click.option("--event", type=click.Choice(["completion", "failure"]), required=True, help="What happened to the run.")
@click.option("--store", default="fedloom-runs", envvar="FEDLOOM_STORE", show_default=True, help="Where runs are kept.")
@click.option("--name", default="", help="Name of the run.")
@click.option("--failures", default="", help="For a failure: what failed, as Argo's {{workflow.failures}} has it.")
def notify(job: str, event: Event, store: str, name: str, failures: str) -> None:
    """Tell people how a run of JOB ended, as its schedule says."""
    from fedloom.deploy.notify import completion_facts, failure_facts, messages, send
    from fedloom.flows.runs import open_run
    from fedloom.specs.bundle import load_job, resolve_job

    if event == "failure":
        bundle, facts = load_job(resolve_job(job)), failure_facts(failures)
    else:
        bundle, plan = compile_job(job, None, None)
        facts = completion_facts(open_run(plan, bundle, store_url(store), name))
    send(messages(bundle, event, facts), os.environ, say)
