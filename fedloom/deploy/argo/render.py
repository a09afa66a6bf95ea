"""A job folder in, its manifests out: text by file name, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fedloom.deploy.argo import companions
from fedloom.deploy.argo.names import dns_name, label_value
from fedloom.deploy.argo.schedule import CronSpec, cron_spec, limits, notes, priority
from fedloom.deploy.argo.specs_map import SpecsMap, specs_map
from fedloom.deploy.argo.values import Values
from fedloom.deploy.notify import EVENTS, messages
from fedloom.flows.compile import compile_plan
from fedloom.flows.estimate import estimate
from fedloom.flows.plan import Plan, plan_digest
from fedloom.specs.bundle import JobBundle, load_job
from fedloom.specs.dump import dump_yaml
from fedloom.specs.locations import parse_location
from fedloom.specs.problems import Problem, SpecError

if TYPE_CHECKING:
    from fedloom.deploy.argo.workflow import Job

T = TypeVar("T")
_MOST_BYTES = 1_000_000
"""Kubernetes refuses objects of more than 1.5 MB; Argo writes its progress into the same object."""
_MANY_NODES = 5_000
"""Above this the status of a run comes near the limit, also when Argo compresses it."""
TEMPLATE, WORKFLOW, KUSTOMIZATION = "workflow-template.yaml", "workflow.yaml", "kustomization.yaml"
FILES = {
    TEMPLATE: "every run of the job",
    "cron-workflow.yaml": "when the job is launched",
    WORKFLOW: "one run by hand: kubectl create -f workflow.yaml",
    "service-account.yaml": "who its pods are",
    "role.yaml": "what they may do",
    "role-binding.yaml": "that they may do it",
    "config-map.yaml": "the specs that its pods compile",
    KUSTOMIZATION: "all but the run by hand: kubectl apply -k .",
}
"""The documents of a job and what each says, in the order of reading."""


@dataclass(frozen=True)
class Rendered:
    """The manifests of a job.

    Attributes:
        name: Name of its objects, and of its folder.
        files: Text by file name, a key of `FILES`.
        documents: The same as plain data.
        notes: What the specs say and the manifests do not act upon, or a cluster must be ready for.
    """

    name: str
    files: dict[str, str]
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def render_job(path: Path, values: Values) -> Rendered:
    """Render the manifests of a job.

    Args:
        path: A job folder, or a job file.
        values: The cluster.

    Raises:
        SpecError: when the job cannot run, or Argo cannot carry what it asks for; with every reason.
    """
    bundle = load_job(path)
    problems = list(_not_carried(bundle))
    plan, cron = _or_problems(compile_plan, bundle, problems), _or_problems(cron_spec, bundle, problems)
    if problems or plan is None:
        raise SpecError(problems)
    job = _job(bundle, plan, specs_map(bundle, path), values)
    documents = dict(_documents(job, bundle, cron))
    files = {name: _text(job, name, data) for name, data in documents.items()}
    rendered = Rendered(job.name, files, documents, (*notes(bundle), *_cluster_notes(job)))
    for name, text in rendered.files.items():
        if len(text.encode()) > _MOST_BYTES:
            message = f"{name} would have {len(text.encode()):,} bytes, which Kubernetes does not store"
            raise SpecError([Problem("error", message, str(path), hint="fewer rounds, or smaller specs")])
    return rendered


def _or_problems(make: Callable[[JobBundle], T], bundle: JobBundle, problems: list[Problem]) -> T | None:
    try:
        return make(bundle)
    except SpecError as error:
        problems += error.problems
        return None


@cache
def _version() -> str:
    return version("fedloom")


def _job(bundle: JobBundle, plan: Plan, specs: SpecsMap, values: Values) -> Job:
    from fedloom.deploy.argo.workflow import Job

    name = dns_name(plan.job_id)
    allocated = bundle.schedule.resource_allocation if bundle.schedule else None
    compute, storage = (allocated.compute, allocated.storage) if allocated else (None, None)
    asked = bundle.job.orchestration.resources
    job = Job(
        name=name,
        plan=plan,
        plan_digest=plan_digest(plan),
        specs=specs,
        specs_name=f"{name}-specs-{specs.digest[:10]}",
        values=values,
        image=values.image or f"fedloom:{_version()}",
        limits=limits(bundle),
        asked=asked,
        gpu=bool((asked and asked.gpu) or (compute and compute.gpu)),
        parallelism=values.parallelism,
        scratch_gb=storage.workspace_gb if storage else None,
        priority=priority(bundle),
        events=frozenset(event for event in EVENTS if messages(bundle, event, {})),
    )
    return _within(job, bundle)


def _within(job: Job, bundle: JobBundle) -> Job:
    """The job with as many pods at a time as fit into what its schedule allocates.

    Raises:
        SpecError: when not even one fits.
    """
    allocated = bundle.schedule.resource_allocation if bundle.schedule else None
    if allocated is None or allocated.compute is None:
        return job
    fitting = [job.parallelism] if job.parallelism else []
    for step in job.plan.steps:
        cores, memory = job.pods.amounts(step.resources)
        if allocated.compute.cpu_cores is not None:
            fitting.append(int(allocated.compute.cpu_cores // cores))
        if allocated.compute.memory_gb is not None:
            fitting.append(int(allocated.compute.memory_gb * 1e9 // memory))
    if fitting and min(fitting) < 1:
        message = "no pod of the job fits into what is allocated to it"
        at = ("resource_allocation", "compute")
        raise SpecError([bundle.problem("schedule", at, "error", message, "a pod needs 1 core and 1.1 GB, or more")])
    return replace(job, parallelism=min(fitting)) if fitting else job


def _documents(job: Job, bundle: JobBundle, cron: CronSpec | None) -> Iterator[tuple[str, dict[str, Any]]]:
    from fedloom.deploy.argo import workflow

    metadata = _metadata(job, bundle)
    specs = metadata | {"name": job.specs_name}
    digest = {"fedloom/plan-digest": job.plan_digest, "fedloom/model-version": job.plan.recipe.model_version}
    planned = metadata | {"annotations": metadata["annotations"] | digest}
    yield TEMPLATE, _plain(workflow.workflow_template(job, planned))
    if cron is not None:
        yield "cron-workflow.yaml", _plain(workflow.cron_workflow(job, cron, metadata))
    yield WORKFLOW, _plain(workflow.workflow(job, metadata))
    yield "service-account.yaml", companions.service_account(metadata)
    yield "role.yaml", companions.role(metadata)
    yield "role-binding.yaml", companions.role_binding(metadata)
    yield "config-map.yaml", companions.config_map(specs, job.specs)
    listed = [name for name in FILES if name not in (WORKFLOW, KUSTOMIZATION)]
    yield KUSTOMIZATION, companions.kustomization([name for name in listed if cron or "cron" not in name])


def _metadata(job: Job, bundle: JobBundle) -> dict[str, Any]:
    metadata = bundle.job.metadata
    said = {
        "workflows.argoproj.io/title": metadata.name,
        "workflows.argoproj.io/description": metadata.description.strip(),
        "fedloom/owner": metadata.owner,
    }
    return {
        "name": job.name,
        "namespace": job.values.namespace,
        "labels": {
            "app.kubernetes.io/name": "fedloom",
            "app.kubernetes.io/instance": job.name,
            "app.kubernetes.io/version": label_value(_version()),
            "app.kubernetes.io/managed-by": "fedloom",
            "fedloom/job-id": label_value(job.plan.job_id),
        },
        "annotations": said,
    }


def _not_carried(bundle: JobBundle) -> Iterator[Problem]:
    """What pods of a cluster cannot have: files beside the specs, and memory of this process."""
    hint = "put the data behind a URL such as s3://…, or into a prepared data set"
    fleet = bundle.fleet
    if fleet is not None:
        for client, place in zip(fleet.clients, fleet.data, strict=True):
            if trouble := _out_of_reach(place):
                yield bundle.problem("fleet", (), "error", f"the data of client {client} {trouble}", hint)
                break  # the others are like it
    holdout = bundle.job.validation.holdout_dataset
    if holdout is not None and holdout.source is not None and (trouble := _out_of_reach(holdout.source)):
        trail = ("validation_config", "holdout_dataset", "source")
        yield bundle.problem("job", trail, "error", f"the held-out data {trouble}", hint)
    drift = bundle.job.validation.drift_detection
    baseline = drift.baseline_distribution if drift is not None and drift.enabled else None
    if baseline is not None and (trouble := _out_of_reach(baseline)):
        trail = ("validation_config", "drift_detection", "baseline_distribution")
        yield bundle.problem("job", trail, "error", f"the baseline distribution {trouble}", hint)
    factor = limits(bundle).backoff_factor
    if factor is not None and factor != int(factor):
        at = ("execution_constraints", "retry_policy", "backoff_multiplier")
        yield bundle.problem("schedule", at, "error", f"is {factor:g}; Argo's backoff grows by whole factors")


def _cluster_notes(job: Job) -> Iterator[str]:
    estimated = estimate(job.plan.recipe)
    per_round = 2 * (len(job.plan.loop.steps) + estimated.shards)  # each pod has a node, and one for its retries
    if job.plan.loop.rounds * per_round > _MANY_NODES:
        nodes = job.plan.loop.rounds * per_round
        yield f"a run has about {nodes:,} nodes: let Argo keep their status in a database (nodeStatusOffLoad)"
    if job.gpu:
        yield "pods that train ask for a GPU; this version trains on the CPU"


def _out_of_reach(place: str) -> str | None:
    if parse_location(place).kind == "file":
        return f"({place}) lies in the job folder, which pods do not have"
    return f"({place}) lies in the memory of one process" if place.startswith("memory:") else None


_FIRST = """
    apiVersion kind metadata name generateName namespace labels annotations help
    schedules timezone template depends when withParam key entrypoint onExit inputs arguments
    dag steps container image command args outputs limit retryPolicy expression requests
"""
_LAST = "volumes podGC ttlStrategy metrics templates"
_ORDER = {key: i for i, key in enumerate(_FIRST.split())} | {key: 1000 + i for i, key in enumerate(_LAST.split())}


def _plain(model: Any) -> dict[str, Any]:
    """A model of Hera's as plain data, in the order in which one reads it."""
    ordered: dict[str, Any] = _reading_order(model.model_dump(by_alias=True, exclude_unset=True))
    return ordered


def _reading_order(value: Any) -> Any:
    if isinstance(value, list):
        return [_reading_order(each) for each in value]
    if not isinstance(value, dict):
        return value
    keys = sorted(value, key=lambda key: _ORDER.get(key, 500)) if _ORDER.keys() & value.keys() else value
    return {key: _reading_order(value[key]) for key in keys}


def _text(job: Job, name: str, document: dict[str, Any]) -> str:
    head = f"# {job.plan.job_id}: {FILES[name]}. Rendered by fedloom {_version()} from the job's specs;\n"
    return head + "# change those and render again.\n" + dump_yaml(document)
