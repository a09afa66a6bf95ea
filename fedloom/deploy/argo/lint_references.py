"""Rules for `{{…}}`: each names something that is there when it is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedloom.deploy.argo.expressions import ExpressionError, names, parse
from fedloom.deploy.argo.findings import Data, Findings, parameter_names
from fedloom.specs.trails import Trail

_REFERENCE = re.compile(r"\{\{(=?)(.*?)\}\}", re.DOTALL)
_WORKFLOW = re.compile(
    r"workflow\.(name|namespace|uid|mainEntrypoint|serviceAccountName|scheduledTime|priority|duration|status|failures"
    r"|creationTimestamp(\..+)?|(labels|annotations)(\..+)?|parameters|outputs\.(parameters|artifacts)\..+)"
)
_OF_NODES = re.compile(
    r"(tasks|steps)\.([-\w]+)\.(id|ip|status|exitCode|startedAt|finishedAt|hostNodeName|outputs\.(result|exitCode)"
    r"|outputs\.artifacts\.[-\w]+|outputs\.parameters(?:\.([-\w]+))?)"
)
_IN_POD = ("pod.name", "node.name", "retries", "lastRetry.exitCode", "lastRetry.status", "lastRetry.duration")
_IN_METRICS = re.compile(r"status|duration|exitCode|resourcesDuration\.[-\w./]+|outputs\.result|retries")
_SKIPPED = {"inline", "templateRef"}


@dataclass(frozen=True)
class Scope:
    """What can be read at a place.

    Attributes:
        inputs: Input parameters of the template.
        artifacts: Input artifacts of the template.
        workflow: Parameters of the workflow; None where a run may add to them.
        nodes: "tasks" or "steps", inside a dag or steps template.
        before: Nodes that have ended by then, with their templates (None: not known).
        items: Whether `{{item}}` has a meaning.
        own: Output parameters of the template itself.
        kind: "call", "pod" or "metrics".
    """

    inputs: frozenset[str] = frozenset()
    artifacts: frozenset[str] = frozenset()
    workflow: frozenset[str] | None = None
    nodes: str = ""
    before: Mapping[str, Data | None] = field(default_factory=dict)
    items: bool = False
    own: frozenset[str] = frozenset()
    kind: str = "call"

    @classmethod
    def of_workflow(cls, spec: Data) -> Scope:
        """What metrics of the whole workflow can read."""
        return cls(workflow=frozenset(parameter_names(spec, "arguments")), kind="metrics")

    @classmethod
    def of_template(cls, template: Data, spec: Data) -> Scope:
        """What all places in a template can read."""
        artifacts = {str(a.get("name")) for a in (template.get("inputs") or {}).get("artifacts") or ()}
        return cls(
            inputs=frozenset(parameter_names(template, "inputs")),
            artifacts=frozenset(artifacts),
            workflow=frozenset(parameter_names(spec, "arguments")),
        )

    def after(self, nodes: str, before: Mapping[str, Data | None], call: Data) -> Scope:
        """What a task or step can read, and what its loop adds."""
        looped = bool({"withItems", "withParam", "withSequence"} & call.keys())
        return replace(self, nodes=nodes, before=before, items=looped)

    def in_pod(self, template: Data) -> Scope:
        """What a leaf template can read."""
        return replace(self, kind="pod", own=frozenset(parameter_names(template, "outputs")))

    def in_metrics(self, template: Data) -> Scope:
        """What metrics of a template can read: how it ended too."""
        return replace(self, kind="metrics", own=frozenset(parameter_names(template, "outputs")))

    def trouble(self, name: str) -> str | None:
        """Why a name cannot be read here; None if it can."""
        head, _, rest = name.partition(".")
        if head == "workflow":
            return self._workflow(name)
        if head == "item":
            return None if self.items else "has a meaning in a loop only"
        if head == "inputs":
            return self._inputs(rest)
        if head in ("tasks", "steps"):
            return self._node(name)
        if head == "outputs" and self.kind != "call":
            part, _, own = rest.partition(".")
            return None if part != "parameters" or own in self.own else "is no output of this template"
        if self.kind == "pod" and name in (*_IN_POD, "lastRetry.message"):
            return None
        if self.kind == "metrics" and _IN_METRICS.fullmatch(name):
            return None
        return "is not known here"

    def _workflow(self, name: str) -> str | None:
        parameter = name.removeprefix("workflow.parameters.")
        if parameter != name and parameter != "json":
            known = self.workflow is None or parameter in self.workflow
            return None if known else "is no parameter of the workflow (arguments.parameters)"
        return None if parameter == "json" or _WORKFLOW.fullmatch(name) else "is not known"

    def _inputs(self, rest: str) -> str | None:
        part, _, name = rest.partition(".")
        known = {"parameters": self.inputs, "artifacts": self.artifacts}.get(part)
        if known is None:
            return "is not known"
        name = name if part == "parameters" else name.partition(".")[0]
        return None if not name or name in known else f"is no input of this template; it has {_listed(known)}"

    def _node(self, name: str) -> str | None:
        match = _OF_NODES.fullmatch(name)
        if match is None or match[1] != self.nodes:
            return "is not known here"
        if match[2] not in self.before:
            return f"is read, and {match[2]} need not have ended by then"
        template = self.before[match[2]]
        if match[5] is None or template is None:
            return None
        declared = parameter_names(template, "outputs")
        return None if match[5] in declared else f"is no output of template {template.get('name')}"


def references(found: Findings, trail: Trail, data: Any, scope: Scope) -> None:
    """Check every `{{…}}` below a value."""
    for at, text in _texts(trail, data):
        for expression, inside in _REFERENCE.findall(text):
            if expression:
                _expression(found, at, inside, scope)
            elif trouble := scope.trouble(inside.strip()):
                found.error(at, f"{{{{{inside}}}}} {trouble}")


def _expression(found: Findings, at: Trail, text: str, scope: Scope) -> None:
    try:
        read = names(parse(text))
    except ExpressionError as error:
        found.warning(at, f"the expression is not understood by this check: it {error}")
        return
    for name in sorted(read):
        if not name.startswith("sprig") and (trouble := scope.trouble(name)):
            found.error(at, f"{name} {trouble}")


def _texts(trail: Trail, data: Any) -> Iterator[tuple[Trail, str]]:
    if isinstance(data, str):
        if "{{" in data:
            yield trail, data
    elif isinstance(data, dict):
        for key, value in data.items():
            if key not in _SKIPPED:
                yield from _texts((*trail, key), value)
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from _texts((*trail, i), value)


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"
