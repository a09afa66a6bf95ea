"""A linter of manifests: what Argo would refuse, and what would break a run, before a cluster sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedloom.deploy.argo.findings import Findings, section
from fedloom.deploy.argo.lint_cron import cron_workflow
from fedloom.deploy.argo.lint_objects import config_map, kustomization, metadata, structure
from fedloom.deploy.argo.lint_workflow import workflow_spec
from fedloom.deploy.argo.manifests import parse_manifests, read_manifests, yaml_files
from fedloom.deploy.argo.render import Rendered
from fedloom.specs.documents import Document
from fedloom.specs.problems import Problem, SpecError

_ARGO = ("WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow", "Workflow")


def lint_files(paths: Sequence[Path], version: str) -> list[Problem]:
    """Check files, and all YAML below folders; references between them are followed.

    Args:
        paths: Files and folders.
        version: Argo that reads them, "3.7" or "4".

    Returns:
        All problems, by file and place.
    """
    documents: list[Document] = []
    problems: list[Problem] = []
    for path in yaml_files(paths):
        if path.is_dir():
            problems.append(Problem("error", "there is no YAML in this folder", str(path)))
            continue
        try:
            documents += read_manifests(path)
        except SpecError as error:
            problems += error.problems
    return [*problems, *lint_documents(documents, version)]


def lint_rendered(job: Rendered, version: str) -> list[Problem]:
    """Check what was rendered; where something is wrong, its place in the text is looked up."""
    if not lint_documents([Document(f"{job.name}/{name}", data) for name, data in job.documents.items()], version):
        return []
    texts = {f"{job.name}/{name}": text for name, text in job.files.items()}
    return lint_documents([doc for name, text in texts.items() for doc in parse_manifests(text, name)], version)


def lint_documents(documents: Sequence[Document], version: str) -> list[Problem]:
    """Check manifests; references between them are followed."""
    documents = [replace(document, data=_without_nulls(document.data)) for document in documents]
    known = {
        (str(doc.data.get("kind")), str(section(doc.data, "metadata").get("name"))): doc.data
        for doc in documents
        if isinstance(doc.data, dict)
    }
    problems: list[Problem] = []
    for document in documents:
        found = Findings(document, version)
        _lint(found, known, {other.file for other in documents})
        problems += sorted(found.problems, key=lambda problem: (problem.line, problem.column))
    return problems


def _without_nulls(value: Any) -> Any:
    """A field that is null is a field that is not there."""
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return value


def _lint(found: Findings, known: dict[tuple[str, Any], dict[str, Any]], files: set[str]) -> None:
    data = found.document.data
    said = [data.get(key) for key in ("kind", "apiVersion")] if isinstance(data, dict) else [None]
    if not all(isinstance(each, str) for each in said):
        found.error((), "is no manifest: apiVersion and kind are missing")
        return
    kind = data["kind"]
    if kind == "Kustomization":
        kustomization(found, files)
        return
    metadata(found)
    if kind == "ConfigMap":
        config_map(found)
    argo = data["apiVersion"].startswith("argoproj.io/")
    if argo and kind not in _ARGO:
        found.warning(("kind",), f"{kind} is no workflow; its fields are not checked")
    if not argo or kind not in _ARGO or not structure(found):
        return
    if data["apiVersion"] != "argoproj.io/v1alpha1":
        found.error(("apiVersion",), f"{data['apiVersion']} is not known", "write argoproj.io/v1alpha1")
    if kind == "CronWorkflow":
        cron_workflow(found)
        workflow_spec(found, ("spec", "workflowSpec"), known)
    else:
        workflow_spec(found, ("spec",), known)
