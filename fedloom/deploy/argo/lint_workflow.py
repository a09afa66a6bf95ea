"""Rules for the spec of a workflow: its templates, and how they call each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fedloom.deploy.argo.expressions import ExpressionError, parse
from fedloom.deploy.argo.findings import Data, Findings, items, parameter_names, section
from fedloom.deploy.argo.lint_dag import dag
from fedloom.deploy.argo.lint_pods import pod, pods
from fedloom.deploy.argo.lint_references import Scope, references
from fedloom.specs.trails import Trail

TYPES = ("container", "containerSet", "script", "dag", "steps", "resource", "suspend", "http", "data", "plugin")
_INNER = ("dag", "steps")
_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]{0,127}")
_REFERENCE = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_PARAMETER = re.compile(r"[-a-zA-Z0-9_]{1,128}")
_MOST_TEMPLATES = 200
_MOST_PARAMETERS = 500
_MOST_DEPTH = 100


def workflow_spec(found: Findings, at: Trail, known: dict[tuple[str, Any], Data]) -> None:
    """Check a workflow's spec.

    Args:
        found: Where problems go.
        at: Where the spec stands.
        known: The manifests that are checked together, by kind and name.
    """
    spec: Data = found.document.data
    for step in at:
        spec = section(spec, str(step))
    reference = section(spec, "workflowTemplateRef")
    if reference:
        _referred(found, (*at, "workflowTemplateRef", "name"), reference, known)
        if found.document.data["kind"] == "WorkflowTemplate":
            found.error((*at, "workflowTemplateRef"), "a WorkflowTemplate cannot refer to another")
        return
    listed = [each for each in items(spec, "templates") if isinstance(each, dict)]
    templates = {str(each.get("name")): each for each in listed}
    _templates(found, at, listed)
    _entries(found, at, spec, templates)
    calls = Calls(found, templates, known)
    for i, template in enumerate(listed):
        calls.check((*at, "templates", i), template, spec)
    _depth(found, at, templates)
    pods(found, at, spec, any("container" in template for template in listed))
    references(found, (*at, "metrics"), spec.get("metrics"), Scope.of_workflow(spec))


def _referred(found: Findings, trail: Trail, reference: Data, known: dict[tuple[str, Any], Data]) -> None:
    kind = "ClusterWorkflowTemplate" if reference.get("clusterScope") else "WorkflowTemplate"
    names = [name for of, name in known if of == kind]
    if names and reference.get("name") not in names:
        found.error(trail, f"there is no {kind} {reference.get('name')!r} among these files")


def _templates(found: Findings, at: Trail, listed: list[Data]) -> None:
    if not listed:
        found.error(at, "has neither templates nor a workflowTemplateRef")
    if found.version != "3.7" and len(listed) > _MOST_TEMPLATES:
        found.error((*at, "templates"), f"{len(listed)} templates are more than {_MOST_TEMPLATES}")
    seen: set[str] = set()
    for i, template in enumerate(listed):
        trail, name = (*at, "templates", i), str(template.get("name"))
        if not _NAME.fullmatch(name):
            found.error(
                (*trail, "name"), f"{name!r} is no name of a template: up to 128 letters, digits and inner hyphens"
            )
        if name in seen:
            found.error((*trail, "name"), f"another template is called {name} too")
        seen.add(name)
        types = [kind for kind in TYPES if kind in template]
        if len(types) != 1:
            message = f"has {' and '.join(types)}" if types else "does nothing"
            found.error(trail, f"template {name} {message}", f"give it one of {', '.join(TYPES)}")
        _limits(found, trail, template, inner=bool(types) and types[0] in _INNER)
        _parameters(found, trail, template)


def _limits(found: Findings, trail: Trail, template: Data, inner: bool) -> None:
    """What only leaves, or only inner templates, may say; Argo takes the rest and does not act upon it."""
    for key in ("timeout", "activeDeadlineSeconds"):
        if inner and key in template:
            found.error((*trail, key), f"{key} is for leaf templates only")
    if not inner and "parallelism" in template:
        found.error((*trail, "parallelism"), "parallelism is for dag and steps templates only")
    timeout = template.get("timeout")
    if isinstance(timeout, str) and "{{" not in timeout and not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", timeout):
        found.error((*trail, "timeout"), f"{timeout!r} is no duration", "write a number and a unit, such as 90s")
    for i, output in enumerate(items(template, "outputs", "parameters")):
        source = section(output, "valueFrom")
        at = (*trail, "outputs", "parameters", i)
        if not source and "value" not in output:
            found.error(at, f"the output {output.get('name')} comes from nowhere", "give it a valueFrom")
        if inner and "path" in source:
            found.error((*at, "valueFrom", "path"), "a path is for leaf templates; a dag or steps has a parameter")
        if not inner and "parameter" in source:
            found.error((*at, "valueFrom", "parameter"), "a leaf template has no tasks; its outputs come from a path")


def _parameters(found: Findings, trail: Trail, template: Data) -> None:
    for part in ("inputs", "outputs"):
        listed = items(template, part, "parameters")
        if len(listed) > _MOST_PARAMETERS:
            found.error((*trail, part), f"{len(listed)} parameters are more than {_MOST_PARAMETERS}")
        seen: set[str] = set()
        for i, each in enumerate(listed):
            name = str(each.get("name"))
            if not _PARAMETER.fullmatch(name):
                found.error((*trail, part, "parameters", i, "name"), f"{name!r} is no name of a parameter")
            if name in seen:
                found.error((*trail, part, "parameters", i, "name"), f"another parameter is called {name} too")
            seen.add(name)


def _entries(found: Findings, at: Trail, spec: Data, templates: dict[str, Data]) -> None:
    if "entrypoint" not in spec and found.document.data["kind"] != "WorkflowTemplate":
        found.error(at, "entrypoint is missing")
    for key in ("entrypoint", "onExit"):
        if key in spec and spec[key] not in templates:
            found.error((*at, key), f"there is no template {spec[key]!r}")
    exits = {name for name in [spec.get("onExit")] if isinstance(name, str)}
    if spec.get("entrypoint") in exits:
        found.error((*at, "onExit"), "is the entrypoint too")


class Calls:
    """Templates, and what their tasks and steps call."""

    def __init__(self, found: Findings, templates: dict[str, Data], known: dict[tuple[str, Any], Data]) -> None:
        self.found, self.templates, self.known = found, templates, known

    def check(self, trail: Trail, template: Data, spec: Data) -> None:
        """Check one template."""
        scope = Scope.of_template(template, spec)
        if "dag" in template:
            dag(self.found, trail, template, scope, self)
        elif "steps" in template:
            self._steps(trail, template, scope)
        else:
            pod(self.found, trail, template, spec)
            own = {key: value for key, value in template.items() if key != "metrics"}
            references(self.found, trail, own, scope.in_pod(template))
        references(self.found, (*trail, "metrics"), template.get("metrics"), scope.in_metrics(template))

    def called(self, call: Data) -> Data | None:
        """The template that a task or step calls; None where it is not among the files."""
        if "inline" in call:
            return section(call, "inline")
        reference = section(call, "templateRef")
        if not reference:
            return self.templates.get(str(call.get("template")))
        kind = "ClusterWorkflowTemplate" if reference.get("clusterScope") else "WorkflowTemplate"
        other = self.known.get((kind, reference.get("name")))
        inside = {each.get("name"): each for each in items(other, "spec", "templates") if isinstance(each, dict)}
        return inside.get(reference.get("template"))

    def call(self, trail: Trail, call: Data) -> None:
        """A task or step calls one template that is there, with the arguments that it takes."""
        found, how = self.found, [key for key in ("template", "templateRef", "inline") if key in call]
        name = str(call.get("name"))
        if not _NAME.fullmatch(name):
            found.error((*trail, "name"), f"{name!r} is no name: up to 128 letters, digits and inner hyphens")
        if len(how) != 1:
            found.error(trail, f"{name} calls {' and '.join(how) or 'nothing'}", "give it a template or a templateRef")
            return
        target = self.called(call)
        if target is None:
            if how == ["template"]:
                found.error((*trail, "template"), f"there is no template {call['template']!r}")
            return
        self._arguments((*trail, "arguments"), call, target)
        loops = [key for key in ("withItems", "withParam", "withSequence") if key in call]
        if len(loops) > 1:
            found.error(trail, f"{name} has {' and '.join(loops)}", "keep one")
        try:
            parse(_REFERENCE.sub("x", call.get("when", "true")))
        except ExpressionError as error:
            found.warning((*trail, "when"), f"{call['when']!r} is not understood by this check: it {error}")

    def _arguments(self, trail: Trail, call: Data, target: Data) -> None:
        name, other = call.get("name"), f"template {target.get('name')}"
        wanted, given = parameter_names(target, "inputs"), parameter_names(call, "arguments")
        for parameter, said in wanted.items():
            if parameter not in given and not {"default", "value", "valueFrom"} & said.keys():
                self.found.error(trail, f"{name} does not say {parameter}, which {other} needs")
        for parameter in given.keys() - wanted.keys():
            self.found.warning(trail, f"{name} says {parameter}, which {other} does not take")

    def _steps(self, trail: Trail, template: Data, scope: Scope) -> None:
        before: dict[str, Data | None] = {}
        names: set[str] = set()
        for i, group in enumerate(template["steps"]):
            for j, step in enumerate(group):
                at, name = (*trail, "steps", i, j), str(step.get("name"))
                self.call(at, step)
                if name in names:
                    self.found.error((*at, "name"), f"another step is called {name} too")
                names.add(name)
                references(self.found, at, step, scope.after("steps", before, step))
            before |= {str(step.get("name")): self.called(step) for step in group}
        references(self.found, (*trail, "outputs"), template.get("outputs"), scope.after("steps", before, {}))


def _depth(found: Findings, at: Trail, templates: dict[str, Data]) -> None:
    """Calls that never end, or go deeper than Argo follows them."""
    depth: dict[str, int] = {}
    for root in templates:
        stack = [(root, iter(_callees(templates[root], templates)))]
        path = {root: None}
        while stack and root not in depth:
            name, left = stack[-1]
            callee = next((c for c in left if c not in depth), None)
            if callee is None:
                depth[name] = 1 + max((depth[c] for c in _callees(templates[name], templates)), default=0)
                stack.pop()
                path.pop(name)
            elif callee in path:
                if not _has_condition(templates[name], callee):
                    found.error((*at, "templates"), f"template {callee} calls itself, through {name}, without end")
                depth[callee] = 0  # a call with a condition may end
            else:
                path[callee] = None
                stack.append((callee, iter(_callees(templates[callee], templates))))
    if depth and max(depth.values()) > _MOST_DEPTH:
        found.error((*at, "templates"), f"templates call each other more than {_MOST_DEPTH} deep")


def _callees(template: Data, templates: dict[str, Data]) -> Iterator[str]:
    return (str(call["template"]) for call in _calls(template) if str(call.get("template")) in templates)


def _has_condition(template: Data, callee: str) -> bool:
    return all("when" in call for call in _calls(template) if call.get("template") == callee)


def _calls(template: Data) -> Iterator[Data]:
    yield from items(template, "dag", "tasks")
    for group in items(template, "steps"):
        yield from group
