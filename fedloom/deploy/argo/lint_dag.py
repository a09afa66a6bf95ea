"""Rules for DAGs: what tasks depend on, and whose outputs they read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedloom.deploy.argo.expressions import ExpressionError, names, parse_depends
from fedloom.deploy.argo.findings import Data, Findings, items
from fedloom.deploy.argo.lint_references import Scope, references
from fedloom.specs.trails import Trail

if TYPE_CHECKING:
    from fedloom.deploy.argo.lint_workflow import Calls

MOST_TASKS = 200
_RESULTS = {"Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned", "AnySucceeded", "AllFailed"}
_OF_LOOPS = {"AnySucceeded", "AllFailed"}
_LOOPS = {"withItems", "withParam", "withSequence"}
Needs = dict[str, set[str]]


def dag(found: Findings, trail: Trail, template: Data, scope: Scope, calls: Calls) -> None:
    """Check a DAG template."""
    tasks = items(template, "dag", "tasks")
    at: Trail = (*trail, "dag", "tasks")
    if found.version != "3.7" and len(tasks) > MOST_TASKS:
        hint = "put blocks of tasks into templates of their own"
        found.error(at, f"{len(tasks)} tasks are more than {MOST_TASKS}", hint)
    by_name = {str(task.get("name")): task for task in tasks}
    if len(by_name) < len(tasks):
        twice = sorted({name for name in by_name if sum(task.get("name") == name for task in tasks) > 1})
        found.error(at, f"several tasks are called {', '.join(twice)}")
    needs: Needs = {}
    for i, task in enumerate(tasks):
        calls.call((*at, i), task)
        needs[str(task.get("name"))] = _needs(found, (*at, i), task, by_name)
    if _cycle(found, at, needs):
        return
    templates = {name: calls.called(task) for name, task in by_name.items()}
    above = _ancestors(needs)
    for i, task in enumerate(tasks):
        known = {name: templates[name] for name in above[str(task.get("name"))]}
        references(found, (*at, i), task, scope.after("tasks", known, task))
    references(found, (*trail, "outputs"), template.get("outputs"), scope.after("tasks", templates, {}))


def _needs(found: Findings, trail: Trail, task: Data, tasks: dict[str, Data]) -> set[str]:
    """The tasks that a task waits for."""
    if "depends" not in task:
        wanted = [str(name) for name in task.get("dependencies") or ()]
        for name in wanted:
            if name not in tasks:
                found.error((*trail, "dependencies"), f"there is no task {name!r}")
        return {name for name in wanted if name in tasks}
    at: Trail = (*trail, "depends")
    for other in ("dependencies", "continueOn"):
        if other in task:
            found.error((*trail, other), f"{other} and depends do not go together", "say it all in depends")
    if str(task.get("name"))[:1].isdigit():
        found.error((*trail, "name"), f"{task['name']} begins with a digit, which a DAG with depends cannot have")
    try:
        read = names(parse_depends(task["depends"]))
    except ExpressionError as error:
        found.error(at, f"{task['depends']!r} {error}")
        return set()
    wanted = []
    for each in sorted(read):
        name, _, result = each.partition(".")
        if name not in tasks:
            found.error(at, f"there is no task {name!r}")
        elif result and result not in _RESULTS:
            found.error(at, f"{each}: there is no result {result}; there are {', '.join(sorted(_RESULTS))}")
        elif result in _OF_LOOPS and not _LOOPS & tasks[name].keys():
            found.error(at, f"{each} is for tasks with a loop, and {name} has none")
        if name in tasks:
            wanted.append(name)
    return set(wanted)


def _cycle(found: Findings, at: Trail, needs: Needs) -> bool:
    left = {name: set(wanted) for name, wanted in needs.items()}
    while ready := [name for name, wanted in left.items() if not wanted & left.keys()]:
        for name in ready:
            del left[name]
    if left:
        found.error(at, f"these tasks wait for each other: {', '.join(sorted(left))}")
    return bool(left)


def _ancestors(needs: Needs) -> Needs:
    """All tasks before each task; the graph has no cycle."""
    above: Needs = {}
    for root in needs:
        stack = [root]
        while stack:
            name = stack[-1]
            missing = [each for each in needs[name] if each not in above]
            if missing:
                stack += missing
                continue
            above[name] = needs[name].union(*(above[each] for each in needs[name]))
            stack.pop()
    return above
