"""Argo's part, played on this machine: rendered manifests carried out literally, each pod a local process.

It reads YAML files and nothing else. What Argo does with them (order of a DAG, `depends`, `when`, loops, parameters
and outputs in files, retries, exit handlers, fail-fast, parallelism) it does too; mounts become folders.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from fedloom.deploy.argo.expressions import evaluate, names, parse, parse_depends

_REFERENCE = re.compile(r"\{\{(=?)(.*?)\}\}", re.DOTALL)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
Data = dict[str, Any]
Values = dict[str, str]


class UnresolvedError(Exception):
    """A `{{…}}` that names nothing that is there."""


@dataclass
class Node:
    """What became of a template that was called.

    Attributes:
        name: Where: names of the calls, joined by dots.
        template: The template.
        phase: Succeeded, Failed, Error, Skipped or Omitted.
        outputs: Output parameters.
        exit_codes: Of each attempt of a pod.
        waits: Seconds before each retry.
        message: Why it is as it is.
        children: What it called.
        log: What its last process printed.
    """

    name: str
    template: str = ""
    phase: str = "Succeeded"
    outputs: Values = field(default_factory=dict)
    exit_codes: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    message: str = ""
    children: list[Node] = field(default_factory=list)
    log: str = ""

    def all(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.all()

    def find(self, end: str) -> Node:
        return next(node for node in self.all() if node.name.endswith(end))

    def __str__(self) -> str:
        lines = []
        for node in self.all():
            codes = f" exit codes {', '.join(node.exit_codes)}" if node.exit_codes else ""
            lines.append(
                f"{'  ' * node.name.count('.')}{node.name.rpartition('.')[2]}: {node.phase}{codes} {node.message}"
            )
            if node.phase in ("Failed", "Error") and node.log:
                lines.append(node.log[-1500:])
        return "\n".join(lines)


@dataclass(frozen=True)
class Fault:
    """What happens to an attempt of a pod: it is killed, evicted (its exit code is not known), or never starts."""

    kind: str
    after_writes: int = 0


Chaos = Callable[[str, Values, int], Fault | None]


@dataclass
class Workflow:
    """A workflow that has ended."""

    uid: str
    phase: str
    root: Node
    exit: Node | None
    metrics: list[tuple[str, str, dict[str, str]]]


@dataclass
class Cluster:
    """A namespace: the manifests that were applied, its secrets, its volumes.

    Attributes:
        manifests: Folder of the manifests.
        volumes: Folder that holds volume claims.
        environment: What every process gets from its machine.
        secrets: Environment variables of each secret.
        chaos: Says what happens to an attempt of a pod.
        pods: Most processes at a time.
        patience: What a second of waiting takes, in seconds.
    """

    manifests: Path
    volumes: Path
    environment: Mapping[str, str]
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    chaos: Chaos = lambda _template, _inputs, _attempt: None
    pods: int = 2
    patience: float = 0.0

    def __post_init__(self) -> None:
        self.objects: dict[tuple[str, str], Data] = {}
        for path in sorted(self.manifests.rglob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                said = document.get("metadata", {})
                self.objects[document["kind"], said.get("name") or said.get("generateName", "")] = document

    def of_kind(self, kind: str) -> Data:
        return next(document for (of, _), document in self.objects.items() if of == kind)

    def launch(self, now: datetime, last: datetime | None = None) -> Workflow | None:
        """What the CronWorkflow does at a time that its schedule names."""
        cron = self.of_kind("CronWorkflow")["spec"]
        values = {"cronworkflow.lastScheduledTime": last, "cronworkflow.failed": 0, "cronworkflow.succeeded": 0}
        stop = cron.get("stopStrategy", {}).get("expression")
        if cron.get("suspend") or (stop and evaluate(parse(stop), values, now)):
            return None
        if "when" in cron and not _condition(_substitute(cron["when"], values, now)):
            return None
        return self.run(cron["workflowSpec"])

    def submit(self) -> Workflow:
        """A run by hand."""
        return self.run(self.of_kind("Workflow")["spec"])

    def run(self, spec: Data) -> Workflow:
        if "workflowTemplateRef" in spec:
            spec = self.objects["WorkflowTemplate", spec["workflowTemplateRef"]["name"]]["spec"] | {
                key: value for key, value in spec.items() if key != "workflowTemplateRef"
            }
        run = _Run(self, spec)
        root = run.call(spec["entrypoint"], {}, "main")
        failed = [node for node in root.all() if node.phase in ("Failed", "Error")]
        failures = [{"displayName": n.name.rpartition(".")[2], "phase": n.phase, "message": n.message} for n in failed]
        run.globals |= {
            "workflow.status": root.phase,
            "workflow.duration": "1.0",
            "workflow.failures": json.dumps(json.dumps(failures or None)),  # Argo quotes its list, and has none as null
        }
        run.deadline = math.inf  # exit handlers are exempt
        end = run.call(spec["onExit"], {}, "exit") if "onExit" in spec else None
        run.measure(spec, {})
        phase = end.phase if end is not None and root.phase == "Succeeded" else root.phase
        return Workflow(run.globals["workflow.uid"], phase, root, end, run.metrics)


class _Run:
    def __init__(self, cluster: Cluster, spec: Data) -> None:
        self.cluster, self.spec = cluster, spec
        self.templates = {template["name"]: template for template in spec["templates"]}
        self.metrics: list[tuple[str, str, dict[str, str]]] = []
        self.slots = threading.Semaphore(min(cluster.pods, spec.get("parallelism", cluster.pods)))
        self.deadline = time.monotonic() + float(spec.get("activeDeadlineSeconds", math.inf))
        self.globals: Values = {"workflow.uid": str(uuid.uuid4()), "workflow.name": "w", "workflow.namespace": "n"}
        for parameter in spec.get("arguments", {}).get("parameters", ()):
            self.globals[f"workflow.parameters.{parameter['name']}"] = parameter["value"]

    def call(self, template_name: str, arguments: Values, path: str) -> Node:
        """Call a template."""
        template = self.templates[template_name]
        values = dict(self.globals)
        for parameter in template.get("inputs", {}).get("parameters", ()):
            value = arguments.get(parameter["name"], parameter.get("value", parameter.get("default")))
            if value is None:
                return Node(path, template_name, "Error", message=f"no argument {parameter['name']}")
            values[f"inputs.parameters.{parameter['name']}"] = value
        try:
            if "dag" in template:
                node = self._dag(template, values, path)
            elif "steps" in template:
                node = self._steps(template, values, path)
            else:
                node = self._retried(template, values, arguments, path)
        except UnresolvedError as error:
            return Node(path, template_name, "Error", message=str(error))
        node.template = template_name
        if node.phase == "Succeeded":
            own = {f"outputs.parameters.{name}": value for name, value in node.outputs.items()}
            self.measure(template, values | own | {"status": node.phase, "duration": "1.0"})
        return node

    def measure(self, said: Data, values: Values) -> None:
        for metric in said.get("metrics", {}).get("prometheus", ()):
            values = values | self.globals
            if not _condition(_substitute(metric.get("when", "true"), values)):
                continue
            kind = next(metric[kind] for kind in ("gauge", "counter", "histogram") if kind in metric)
            labels = {label["key"]: _substitute(label["value"], values) for label in metric.get("labels", ())}
            self.metrics.append((metric["name"], _substitute(kind["value"], values), labels))

    # DAGs

    def _dag(self, template: Data, values: Values, path: str) -> Node:
        tasks = {task["name"]: task for task in template["dag"]["tasks"]}
        needs = {name: _needs(task, tasks) for name, task in tasks.items()}
        targets = set(tasks) - {need for wanted in needs.values() for need in wanted}
        done: dict[str, Node] = {}
        running: dict[Future[Node], str] = {}
        with ThreadPoolExecutor(max_workers=template.get("parallelism", len(tasks))) as pool:
            while True:
                failed = any(_branch(name, needs, done) in ("Failed", "Error") for name in targets if name in done)
                stop = failed and template["dag"].get("failFast", True)
                for name, task in tasks.items():
                    waits = name in done or name in running.values() or not needs[name] <= done.keys()
                    if not waits and not stop:
                        running[pool.submit(self._task, task, values, done, f"{path}.{name}")] = name
                if not running:
                    break
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    done[running.pop(future)] = future.result()
        node = Node(path, children=[done[name] for name in tasks if name in done])
        phases = [_branch(name, needs, done) for name in targets if name in done]
        node.phase = next((phase for phase in ("Error", "Failed") if phase in phases), "Succeeded")
        if node.phase == "Succeeded":
            known = values | _of_nodes("tasks", done)
            node.outputs = {o["name"]: _output(o["valueFrom"], known) for o in _parameters(template, "outputs")}
        return node

    def _task(self, task: Data, values: Values, done: dict[str, Node], path: str) -> Node:
        if "depends" in task:
            node = parse_depends(task["depends"])
            if not evaluate(node, {name: _result(name, done) for name in names(node)}):
                return Node(path, phase="Omitted", message="depends is false")
        return self._looped(task, values | _of_nodes("tasks", done), path)

    def _steps(self, template: Data, values: Values, path: str) -> Node:
        node, done = Node(path), dict[str, Node]()
        for group in template["steps"]:
            known = values | _of_nodes("steps", done)
            with ThreadPoolExecutor(max_workers=len(group)) as pool:
                calls = [pool.submit(self._looped, step, known, f"{path}.{step['name']}") for step in group]
                ended = [call.result() for call in calls]
            node.children += ended
            done |= {step["name"]: each for step, each in zip(group, ended, strict=True)}
            if bad := [each for each in ended if each.phase in ("Failed", "Error")]:
                node.phase = bad[0].phase
                return node
        known = values | _of_nodes("steps", done)
        node.outputs = {o["name"]: _output(o["valueFrom"], known) for o in _parameters(template, "outputs")}
        return node

    def _looped(self, call: Data, values: Values, path: str) -> Node:
        try:
            if "withParam" in call:
                items = json.loads(_substitute(call["withParam"], values))
            elif "withItems" in call:
                items = call["withItems"]
            else:
                return self._single(call, values, path)
        except UnresolvedError as error:
            return Node(path, phase="Error", message=str(error))
        with ThreadPoolExecutor(max_workers=max(1, len(items))) as pool:
            made = [pool.submit(self._single, call, values | _item(x), f"{path}({i})") for i, x in enumerate(items)]
            children = [each.result() for each in made]
        failed = [child.phase for child in children if child.phase in ("Failed", "Error")]
        phase = failed[-1] if failed else "Succeeded" if children else "Skipped"
        return Node(path, call.get("template", ""), phase, children=children)

    def _single(self, call: Data, values: Values, path: str) -> Node:
        try:
            if not _condition(_substitute(call.get("when", "true"), values)):
                return Node(path, phase="Skipped", message=f"when is false: {call['when']}")
            given = {p["name"]: _substitute(p["value"], values) for p in _parameters(call, "arguments")}
        except UnresolvedError as error:
            return Node(path, phase="Error", message=str(error))
        return self.call(call["template"], given, path)

    # Pods

    def _retried(self, template: Data, values: Values, inputs: Values, path: str) -> Node:
        strategy = template.get("retryStrategy")
        node = Node(path)
        while True:
            attempt = len(node.exit_codes)
            with self.slots:
                phase, code, node.log = self._pod(template, values, inputs, attempt, node)
            node.phase = phase
            node.exit_codes.append(code)
            if phase == "Succeeded" or strategy is None or time.monotonic() > self.deadline:
                return node
            left = attempt < int(strategy.get("limit", 10**6))
            if left and "backoff" in strategy:  # as in Argo, the wait comes before the question whether to try again
                backoff = strategy["backoff"]
                pause = _seconds(backoff["duration"]) * float(backoff.get("factor", 1)) ** attempt
                node.waits.append(pause)
                time.sleep(pause * self.cluster.patience)
            if not left or not _try_again(strategy, phase, code):
                return node

    def _pod(self, template: Data, values: Values, inputs: Values, attempt: int, node: Node) -> tuple[str, str, str]:
        if time.monotonic() > self.deadline:
            node.message = "the workflow's time is up"
            return "Failed", "-1", ""
        fault = self.cluster.chaos(template["name"], inputs, attempt)
        if fault is not None and fault.kind == "never":
            return "Error", "-1", "the pod could not be scheduled"
        container = template["container"]
        own = template.get("volumes", ())
        mounts = {m["mountPath"]: self._volume(m["name"], own=own) for m in container.get("volumeMounts", ())}
        words = [_local(_substitute(word, values), mounts) for word in container.get("args", ())]
        command = [_substitute(word, values) for word in container["command"]]
        command = [*([sys.executable, "-m", "fedloom"] if command == ["fedloom"] else command), *words]
        environment = {"POD_ATTEMPT": str(attempt)} | dict(self.cluster.environment)
        for source in container.get("envFrom", ()):
            name, optional = source["secretRef"]["name"], source["secretRef"].get("optional", False)
            if name not in self.cluster.secrets and not optional:
                return "Error", "-1", f"there is no secret {name}"
            environment |= self.cluster.secrets.get(name, {})
        environment |= {e["name"]: _local(_substitute(e["value"], values), mounts) for e in container.get("env", ())}
        log = self._volume("log", fresh=True) / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, cwd=log.parent)
            code = self._watched(process, fault, float(template.get("activeDeadlineSeconds", 3600)))
        text = log.read_text(errors="replace")
        if fault is not None and fault.kind == "evict":
            return "Error", "-1", text
        if code != 0:
            node.message = f"exit code {code}"
            return "Failed", str(code), text
        for output in _parameters(template, "outputs"):
            path = Path(_local(output["valueFrom"]["path"], mounts))
            if not path.exists() and "default" not in output["valueFrom"]:
                return "Error", "0", f"{text}\nthere is no {output['valueFrom']['path']}"
            node.outputs[output["name"]] = path.read_text() if path.exists() else output["valueFrom"]["default"]
        return "Succeeded", "0", text

    def _watched(self, process: subprocess.Popen[bytes], fault: Fault | None, seconds: float) -> int:
        """Wait for the process; kill it after its time, or when the fault says so."""
        before, end = self._writes(), min(time.monotonic() + seconds, self.deadline)
        while process.poll() is None:
            due = fault is not None and self._writes() >= before + fault.after_writes
            if due or time.monotonic() > end:
                process.kill()
            time.sleep(0.01)
        return process.returncode if process.returncode >= 0 else 128 - process.returncode

    def _writes(self) -> int:
        return sum(1 for path in self.cluster.volumes.rglob("*.*") if path.suffix != ".tmp")

    def _volume(self, name: str, fresh: bool = False, own: Sequence[Data] = ()) -> Path:
        known = [*own, *self.spec.get("volumes", ())]
        said = next((volume for volume in known if volume["name"] == name), {"emptyDir": {}})
        if "persistentVolumeClaim" in said and not fresh:
            folder = self.cluster.volumes / said["persistentVolumeClaim"]["claimName"]
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        folder = self.cluster.volumes.with_name("pods") / uuid.uuid4().hex
        folder.mkdir(parents=True)
        if "configMap" in said:
            _unpack(self.cluster.objects["ConfigMap", said["configMap"]["name"]], said["configMap"], folder)
        return folder


def _unpack(document: Data, volume: Data, folder: Path) -> None:
    files = {key: text.encode() for key, text in document.get("data", {}).items()}
    files |= {key: base64.b64decode(text) for key, text in document.get("binaryData", {}).items()}
    paths = {item["key"]: item["path"] for item in volume.get("items", ())} or {key: key for key in files}
    for key, path in paths.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(files[key])
        os.chmod(folder / path, 0o444)


def _substitute(text: str, values: Mapping[str, Any], now: datetime | None = None) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[2].strip()
        if match[1]:
            found = evaluate(parse(name), values, now)
            return str(found).lower() if isinstance(found, bool) else str(found)
        if name not in values:
            raise UnresolvedError(f"{match[0]} is not there")
        return str(values[name])

    return _REFERENCE.sub(value, text)


def _condition(text: str) -> bool:
    node = parse(text)
    return bool(evaluate(node, {name: name for name in names(node)}))


def _try_again(strategy: Data, phase: str, code: str) -> bool:
    wanted = {"Always": ("Failed", "Error"), "OnFailure": ("Failed",), "OnError": ("Error",)}
    expression = strategy.get("expression")
    if phase not in wanted[strategy.get("retryPolicy", "Always" if expression else "OnFailure")]:
        return False
    last = {"exitCode": code, "status": phase, "message": "", "duration": "1"}
    return expression is None or bool(
        evaluate(parse(expression), {f"lastRetry.{name}": value for name, value in last.items()})
    )


def _needs(task: Data, tasks: Mapping[str, Data]) -> set[str]:
    if "depends" not in task:
        return set()
    return {name.partition(".")[0] for name in names(parse_depends(task["depends"]))}


def _result(name: str, done: Mapping[str, Node]) -> bool:
    task, _, result = name.partition(".")
    node = done[task]
    if result == "AnySucceeded":
        return any(child.phase == "Succeeded" for child in node.children)
    if result == "AllFailed":
        return bool(node.children) and all(child.phase == "Failed" for child in node.children)
    return node.phase == {"Errored": "Error"}.get(result, result) if result else node.phase in ("Succeeded", "Skipped")


def _branch(name: str, needs: Mapping[str, set[str]], done: Mapping[str, Node]) -> str:
    """The phase that a branch of a DAG has at a task: its own, or that of what was before it."""
    if name not in done:
        return ""
    phase = done[name].phase
    if phase in ("Succeeded", "Failed", "Error"):
        return phase
    before = {_branch(need, needs, done) for need in needs[name]}
    return next((each for each in ("Error", "Failed") if each in before), "Succeeded")


def _of_nodes(kind: str, done: Mapping[str, Node]) -> Values:
    known: Values = {}
    for name, node in list(done.items()):
        known[f"{kind}.{name}.status"] = node.phase
        known |= {f"{kind}.{name}.outputs.parameters.{output}": value for output, value in node.outputs.items()}
    return known


def _output(source: Data, values: Values) -> str:
    try:
        return _substitute(source["parameter"], values)
    except UnresolvedError:
        if "default" not in source:
            raise
        return str(source["default"])


def _parameters(data: Data, part: str) -> list[Data]:
    found: list[Data] = data.get(part, {}).get("parameters", [])
    return found


def _item(item: Any) -> Values:
    if isinstance(item, dict):
        return {f"item.{key}": str(value) for key, value in item.items()}
    return {"item": item if isinstance(item, str) else json.dumps(item)}


def _local(word: str, mounts: Mapping[str, Path]) -> str:
    for mount, folder in mounts.items():
        if word == mount or word.startswith(f"{mount}/"):
            return str(folder) + word[len(mount) :]
    return word


def _seconds(text: str) -> float:
    return float(text[:-1]) * _SECONDS[text[-1]] if text[-1] in _SECONDS else float(text)
