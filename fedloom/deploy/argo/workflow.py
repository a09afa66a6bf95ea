"""The Argo documents of a job: the template of its runs, what launches it by the clock, what launches it by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hera.workflows import models as m

from fedloom.deploy.argo.dags import MAIN, ROUND, ROUNDS, loses_shards, main_dag, read_outputs, round_dag, rounds_dags
from fedloom.deploy.argo.names import template_names
from fedloom.deploy.argo.pods import PLAN_DIGEST, USER, Pods
from fedloom.deploy.argo.schedule import CronSpec, Limits
from fedloom.deploy.argo.specs_map import SpecsMap
from fedloom.deploy.argo.values import Values
from fedloom.flows.plan import Plan
from fedloom.specs.job_orchestration import Resources as Asked

API = "argoproj.io/v1alpha1"
_NOTIFY, _NOTIFY_FAILURE, _EXIT = "notify", "notify-failure", "exit"
_KEEP_SUCCEEDED_S, _KEEP_FAILED_S = 7 * 86_400, 30 * 86_400


@dataclass(frozen=True)
class Job:
    """What the documents of a job are made from.

    Attributes:
        name: Name of its objects.
        plan: The plan.
        plan_digest: Its digest.
        specs: The specs as pods see them.
        specs_name: Name of their ConfigMap.
        values: The cluster.
        image: The image.
        limits: Duration and retries.
        asked: Resources of every pod, where the job says.
        gpu: Whether pods that train ask for a GPU.
        parallelism: Most pods at a time.
        scratch_gb: Size of the scratch folder, where the job says.
        priority: Of its workflows among others.
        events: Events that people are told of.
    """

    name: str
    plan: Plan
    plan_digest: str
    specs: SpecsMap
    specs_name: str
    values: Values
    image: str
    limits: Limits
    asked: Asked | None
    gpu: bool
    parallelism: int | None
    scratch_gb: float | None
    priority: int
    events: frozenset[str]

    @property
    def pods(self) -> Pods:
        """How its steps become pods."""
        names = template_names(
            [step.name for step in self.plan.steps], (MAIN, ROUNDS, ROUND, _EXIT, _NOTIFY, _NOTIFY_FAILURE)
        )
        return Pods(
            job=self.specs.job,
            job_id=self.plan.job_id,
            image=self.image,
            values=self.values,
            asked=self.asked,
            gpu=self.gpu,
            limits=self.limits,
            templates=names,
        )


def workflow_template(job: Job, metadata: dict[str, Any]) -> m.WorkflowTemplate:
    """The template that every run of the job follows."""
    spec = m.WorkflowSpec(
        entrypoint=MAIN,
        arguments=m.Arguments(parameters=[m.Parameter(name=PLAN_DIGEST, value=job.plan_digest)]),
        service_account_name=job.name,
        pod_metadata=m.Metadata(labels=metadata["labels"]),
        priority=job.priority,
        # Runs of one job share its champion: they follow each other.
        synchronization=m.Synchronization(mutexes=[m.Mutex(name=job.name)]),
        security_context=m.PodSecurityContext(
            run_as_non_root=True,
            run_as_user=USER,
            run_as_group=USER,
            fs_group=USER,
            seccomp_profile=m.SeccompProfile(type="RuntimeDefault"),
        ),
        pod_gc=m.PodGC(strategy="OnPodSuccess", delete_delay_duration="10m"),
        ttl_strategy=m.TTLStrategy(seconds_after_success=_KEEP_SUCCEEDED_S, seconds_after_failure=_KEEP_FAILED_S),
        volumes=_volumes(job),
        metrics=_run_metrics(job.plan.job_id),
        templates=_templates(job),
    )
    if job.limits.max_duration_s is not None:
        spec.active_deadline_seconds = job.limits.max_duration_s
    if job.parallelism is not None:
        spec.parallelism = job.parallelism
    if "failure" in job.events:
        spec.on_exit = _EXIT
    _place(spec, job.values)
    return m.WorkflowTemplate(api_version=API, kind="WorkflowTemplate", metadata=m.ObjectMeta(**metadata), spec=spec)


def cron_workflow(job: Job, cron: CronSpec, metadata: dict[str, Any]) -> m.CronWorkflow:
    """What launches the job by the clock."""
    spec = m.CronWorkflowSpec(
        schedules=list(cron.schedules),
        timezone=cron.timezone,
        suspend=cron.suspend,
        concurrency_policy="Forbid",
        starting_deadline_seconds=cron.starting_deadline_s,
        successful_jobs_history_limit=3,
        failed_jobs_history_limit=3,
        workflow_metadata=m.ObjectMeta(labels=metadata["labels"]),
        workflow_spec=m.WorkflowSpec(workflow_template_ref=m.WorkflowTemplateRef(name=job.name)),
    )
    if cron.when is not None:
        spec.when = cron.when
    if cron.stop is not None:
        spec.stop_strategy = m.StopStrategy(expression=cron.stop)
    return m.CronWorkflow(api_version=API, kind="CronWorkflow", metadata=m.ObjectMeta(**metadata), spec=spec)


def workflow(job: Job, metadata: dict[str, Any]) -> m.Workflow:
    """One run, started by hand."""
    given = {name: value for name, value in metadata.items() if name != "name"}
    return m.Workflow(
        api_version=API,
        kind="Workflow",
        metadata=m.ObjectMeta(generate_name=f"{job.name}-", **given),
        spec=m.WorkflowSpec(workflow_template_ref=m.WorkflowTemplateRef(name=job.name)),
    )


def _templates(job: Job) -> list[m.Template]:
    """The DAGs from the outside in, then the steps in their order, then what tells people."""
    plan, pods = job.plan, job.pods
    templates = [main_dag(plan, pods.templates, _NOTIFY if "completion" in job.events else None)]
    templates += rounds_dags(plan)
    templates.append(round_dag(plan, pods.templates, plan.job_id))
    for step in plan.steps:
        outputs, settled = read_outputs(plan, step), loses_shards(plan, step)
        templates.append(pods.step(step, step in plan.loop.steps, outputs, settled))
    if "completion" in job.events:
        templates.append(pods.command(_NOTIFY, "notify", ["--event", "completion"]))
    if "failure" in job.events:
        failed = m.WorkflowStep(
            name=_NOTIFY_FAILURE, template=_NOTIFY_FAILURE, when="'{{workflow.status}}' != 'Succeeded'"
        )
        told = ["--event", "failure", "--failures", "{{workflow.failures}}"]
        templates.append(m.Template(name=_EXIT, steps=[m.ParallelSteps([failed])]))
        templates.append(pods.command(_NOTIFY_FAILURE, "notify", told))
    return templates


def _volumes(job: Job) -> list[m.Volume]:
    specs = m.ConfigMapVolumeSource(name=job.specs_name)
    if job.specs.paths:
        keys = [*job.specs.data, *job.specs.binary]
        specs.items = [m.KeyToPath(key=key, path=job.specs.paths.get(key, key)) for key in keys]
    volumes = [m.Volume(name="job", config_map=specs)]
    if job.values.store.claim:
        claim = m.PersistentVolumeClaimVolumeSource(claim_name=job.values.store.claim)
        volumes.append(m.Volume(name="store", persistent_volume_claim=claim))
    scratch = m.EmptyDirVolumeSource()
    if job.scratch_gb is not None:
        scratch.size_limit = m.Quantity(f"{round(job.scratch_gb * 1000)}M")
    return [*volumes, m.Volume(name="scratch", empty_dir=scratch)]


def _run_metrics(job_id: str) -> m.Metrics:
    label = m.MetricLabel(key="job", value=job_id)
    status = m.MetricLabel(key="status", value="{{workflow.status}}")
    seconds = m.Gauge(realtime=False, value="{{workflow.duration}}")
    return m.Metrics(
        prometheus=[
            m.Prometheus(
                name="fedloom_run_seconds", help="How long a run took.", labels=[label, status], gauge=seconds
            ),
            m.Prometheus(
                name="fedloom_runs_total",
                help="Runs by their end.",
                labels=[label, status],
                counter=m.Counter(value="1"),
            ),
        ]
    )


def _place(spec: m.WorkflowSpec, values: Values) -> None:
    """Which nodes may run the pods, and with what right to them."""
    if values.image_pull_secrets:
        spec.image_pull_secrets = [m.LocalObjectReference(name=name) for name in values.image_pull_secrets]
    if values.node_selector:
        spec.node_selector = values.node_selector
    if values.tolerations:
        spec.tolerations = [m.Toleration(**t.model_dump(exclude_none=True)) for t in values.tolerations]
    if values.priority_class:
        spec.pod_priority_class_name = values.priority_class
