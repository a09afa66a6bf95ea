"""Steps as pods: each runs one `fedloom step` in the same image, and says what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from hera.workflows import models as m

from fedloom.deploy.argo.schedule import Limits
from fedloom.deploy.argo.specs_map import MOUNT
from fedloom.deploy.argo.values import Values
from fedloom.flows.plan import Measure, Resources, Step
from fedloom.specs.job_orchestration import Resources as Asked
from fedloom.tasks.client_home import CLIENTS_VARIABLE, SECOND_SERVER_VARIABLE, SERVER_VARIABLE

STORE_MOUNT = "/store"
SCRATCH = "/tmp"
OUTPUTS = f"{SCRATCH}/outputs"
RUN_NAME = "{{workflow.uid}}"
PLAN_DIGEST = "plan-digest"
"""Parameter of the workflow: the plan that a pod must compile from its specs."""
USER = 10001
_PROCESS_BYTES = 1 << 30
"""Python, PyTorch and one client's windows; the plan knows the tensors alone."""
_RETRY_AFTER_S = 10


@dataclass(frozen=True)
class Pods:
    """What all pods of a job share.

    Attributes:
        job: Where the specs lie in a pod.
        job_id: The job.
        image: The image.
        values: The cluster.
        asked: Resources that the job asks for, for every pod.
        gpu: Whether pods that train ask for a GPU.
        limits: What the schedule says of failures.
        templates: Template name of each step.
    """

    job: str
    job_id: str
    image: str
    values: Values
    asked: Asked | None
    gpu: bool
    limits: Limits
    templates: dict[str, str]

    @property
    def store_url(self) -> str:
        """The run store as pods see it."""
        return self.values.store.url or STORE_MOUNT

    def step(self, step: Step, in_loop: bool, outputs: list[str], settled: bool) -> m.Template:
        """The template of a step.

        Args:
            step: The step.
            in_loop: Whether it runs once a round.
            outputs: Outputs that others read.
            settled: Whether a step before it may have lost shards.
        """
        inputs = (["round"] if in_loop else []) + (["shard"] if step.fan_out else [])
        arguments = ["--plan-digest", f"{{{{workflow.parameters.{PLAN_DIGEST}}}}}"]
        if outputs:
            arguments += ["--outputs", OUTPUTS]
        if settled:
            arguments += ["--settled"]
        for name in inputs:
            arguments += [f"--{name}", f"{{{{inputs.parameters.{name}}}}}"]
        template = m.Template(
            name=self.templates[step.name],
            retry_strategy=self._retries(step.retries, lossy=step.may_be_lost),
            container=self.container(["step", step.name, self.job], arguments, step.resources),
        )
        if step.at_clients:
            _open(template, "clients", self.values.clients_claim, CLIENTS_VARIABLE)
        if step.at_server:
            _open(template, "server", self.values.server_claim, SERVER_VARIABLE)
        if step.at_second_server:
            _open(template, "second-server", self.values.second_server_claim, SECOND_SERVER_VARIABLE)
        if inputs:
            template.inputs = m.Inputs(parameters=[m.Parameter(name=name) for name in inputs])
        if outputs:
            template.outputs = m.Outputs(
                parameters=[m.Parameter(name=o, value_from=m.ValueFrom(path=f"{OUTPUTS}/{o}")) for o in outputs]
            )
        if limit := self._time_limit(step):
            template.active_deadline_seconds = m.IntOrString(limit)
        if step.measures:
            template.metrics = m.Metrics(prometheus=[self._measured(step, measure) for measure in step.measures])
        return template

    def command(self, name: str, command: str, arguments: list[str]) -> m.Template:
        """The template of another command of fedloom on the job, such as notify."""
        small = Resources(cpus=1, memory_bytes=None)
        container = self.container([command, self.job], arguments, small)
        secret = m.EnvFromSource(secret_ref=m.SecretEnvSource(name=self.values.notify_secret, optional=True))
        container.env_from = [*(container.env_from or []), secret]
        return m.Template(name=name, retry_strategy=self._retries(1, lossy=True), container=container)

    def container(self, command: list[str], arguments: list[str], needs: Resources) -> m.Container:
        """One process of fedloom with the specs, the store and a scratch folder, and no rights."""
        values = self.values
        mounts = [m.VolumeMount(name="job", mount_path=MOUNT, read_only=True)]
        if values.store.claim:
            mounts.append(m.VolumeMount(name="store", mount_path=STORE_MOUNT))
        mounts.append(m.VolumeMount(name="scratch", mount_path=SCRATCH))
        container = m.Container(
            image=self.image,
            command=["fedloom"],
            args=[*command, "--store", self.store_url, "--name", RUN_NAME, *arguments],
            env=[m.EnvVar(name=name, value=value) for name, value in {"HOME": SCRATCH, **values.env}.items()],
            resources=self._resources(needs, needs.accelerator and self.gpu),
            security_context=m.SecurityContext(
                allow_privilege_escalation=False,
                read_only_root_filesystem=True,
                capabilities=m.Capabilities(drop=["ALL"]),
            ),
            volume_mounts=mounts,
        )
        if values.store.secret:
            container.env_from = [m.EnvFromSource(secret_ref=m.SecretEnvSource(name=values.store.secret))]
        return container

    def amounts(self, needs: Resources) -> tuple[float, int]:
        """CPU cores and bytes of memory of a pod: what the job asks for, else what the plan knows."""
        cores = self.asked.cpu_cores if self.asked else None
        gigabytes = self.asked.memory_gb if self.asked else None
        memory = _PROCESS_BYTES + (needs.memory_bytes or 0) if gigabytes is None else round(gigabytes * 1e9)
        return float(needs.cpus if cores is None else cores), memory

    def _resources(self, needs: Resources, gpu: bool) -> m.ResourceRequirements:
        cores, memory = self.amounts(needs)
        wanted = {"cpu": m.Quantity(cpu_quantity(cores)), "memory": m.Quantity(memory_quantity(memory))}
        limits = wanted | ({self.values.gpu_resource: m.Quantity("1")} if gpu else {})
        return m.ResourceRequirements(requests=wanted, limits=limits)

    def _retries(self, retries: int, lossy: bool) -> m.RetryStrategy:
        """Retries of a pod.

        Finished steps are not done again, so to try an execution again is to try the step again that failed: the
        schedule's policy holds for each. A shard that may be lost is not waited for so long.
        """
        delay, factor = _RETRY_AFTER_S, 2
        if not lossy and self.limits.retries is not None:
            retries = max(retries, self.limits.retries)
            delay = _RETRY_AFTER_S if self.limits.retry_delay_s is None else self.limits.retry_delay_s
            factor = int(self.limits.backoff_factor or 1)
        return m.RetryStrategy(
            limit=m.IntOrString(retries),
            retry_policy="Always",
            expression="asInt(lastRetry.exitCode) != 2",
            backoff=m.Backoff(duration=f"{delay}s", factor=m.IntOrString(factor)),
        )

    def _time_limit(self, step: Step) -> int | None:
        asked = 60 * self.asked.timeout if self.asked and self.asked.timeout else None
        known = [limit for limit in (step.timeout_s, asked) if limit is not None]
        return ceil(min(known)) if known else None

    def _measured(self, step: Step, measure: Measure) -> m.Prometheus:
        value = f"{{{{outputs.parameters.{measure.output}}}}}"
        labels = [m.MetricLabel(key="job", value=self.job_id)]
        name = f"fedloom_{step.name}_{measure.output}"
        if measure.kind == "number":
            gauge = m.Gauge(realtime=False, value=value)
            return m.Prometheus(name=name, help=measure.meaning, labels=labels, gauge=gauge)
        return m.Prometheus(
            name=f"{name}s_total",
            help=measure.meaning,
            labels=[*labels, m.MetricLabel(key=measure.output, value=value)],
            when=f"'{value}' != ''",
            counter=m.Counter(value="1"),
        )


def _open(template: m.Template, name: str, claim: str, variable: str) -> None:
    """Give a pod a folder that is the clients' or a server's own; no other pod sees it."""
    container = template.container
    assert isinstance(container, m.Container)
    mount = m.VolumeMount(name=name, mount_path=f"/{name}")
    container.volume_mounts = [*(container.volume_mounts or []), mount]
    container.env = [*(container.env or []), m.EnvVar(name=variable, value=f"/{name}")]
    source = m.PersistentVolumeClaimVolumeSource(claim_name=claim)
    template.volumes = [*(template.volumes or []), m.Volume(name=name, persistent_volume_claim=source)]


def cpu_quantity(cores: float) -> str:
    """CPU cores as Kubernetes writes them."""
    return str(int(cores)) if cores == int(cores) else f"{ceil(cores * 1000)}m"


def memory_quantity(size: int) -> str:
    """Bytes as Kubernetes writes them: in GB or MB where they are whole, else in MiB."""
    for unit, letter in ((10**9, "G"), (10**6, "M")):
        if size % unit == 0:
            return f"{size // unit}{letter}"
    return f"{ceil(size / (1 << 20))}Mi"
