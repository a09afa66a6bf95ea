"""Every rule of the linter: a good set of manifests, and one change a rule that must be found where it is."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedloom.deploy.argo.lint import lint_documents, lint_files
from fedloom.deploy.argo.manifests import parse_manifests
from fedloom.specs.documents import Document
from fedloom.specs.problems import Problem

GOOD = """
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {name: good, labels: {app: x}}
spec:
  entrypoint: main
  onExit: bye
  serviceAccountName: runner
  securityContext: {runAsNonRoot: true}
  arguments:
    parameters: [{name: size, value: "3"}]
  volumes: [{name: tmp, emptyDir: {}}]
  templates:
  - name: main
    dag:
      tasks:
      - {name: list, template: list}
      - name: work
        template: work
        depends: list.Succeeded
        withParam: "{{tasks.list.outputs.parameters.items}}"
        arguments: {parameters: [{name: item, value: "{{item}}"}]}
      - name: end
        template: walk
        depends: work.AnySucceeded || work.AllFailed
        when: "'{{tasks.list.outputs.parameters.items}}' != '[]'"
  - name: walk
    steps:
    - - {name: first, template: list}
    - - name: second
        template: work
        arguments: {parameters: [{name: item, value: "{{steps.first.outputs.parameters.items}}"}]}
  - name: list
    outputs: {parameters: [{name: items, valueFrom: {path: /tmp/items}}]}
    metrics:
      prometheus: [{name: n, help: h, gauge: {realtime: false, value: "{{outputs.parameters.items}}"}}]
    container: &container
      image: tool:1
      command: [tool]
      args: ["{{workflow.parameters.size}}", "{{workflow.uid}}", "{{pod.name}}"]
      resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {cpu: "1", memory: 1Gi}}
      securityContext: {allowPrivilegeEscalation: false}
      volumeMounts: [{name: tmp, mountPath: /tmp}]
    retryStrategy:
      limit: 2
      retryPolicy: Always
      expression: asInt(lastRetry.exitCode) != 2
      backoff: {duration: 10s, factor: 2}
  - name: work
    inputs: {parameters: [{name: item}]}
    timeout: 90s
    container:
      image: tool@sha256:0000000000000000000000000000000000000000000000000000000000000000
      command: [tool]
      args: ["{{inputs.parameters.item}}"]
      resources: {requests: {cpu: 1}, limits: {cpu: 1}}
      securityContext: {allowPrivilegeEscalation: false}
  - name: bye
    container: *container
---
apiVersion: argoproj.io/v1alpha1
kind: CronWorkflow
metadata: {name: good}
spec:
  schedules: ["0 2 * * *"]
  timezone: UTC
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 600
  when: "{{= cronworkflow.lastScheduledTime == nil || (now() - cronworkflow.lastScheduledTime).Seconds() > 30 }}"
  stopStrategy: {expression: cronworkflow.failed >= 3}
  workflowSpec: {workflowTemplateRef: {name: good}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: specs}
data: {job.yaml: "a: 1"}
"""
TEMPLATE, CRON, MAP = 0, 1, 2
MAIN, WALK, LIST, WORK, BYE = range(5)


def good() -> list[Any]:
    return copy.deepcopy([document.data for document in parse_manifests(GOOD, "good.yaml")])


def lint(documents: list[Any], version: str = "4") -> list[Problem]:
    return lint_documents([Document("m.yaml", data) for data in documents], version)


def template(index: int, *path: str | int) -> tuple[str | int, ...]:
    return (TEMPLATE, "spec", "templates", index, *path)


def task(index: int, *path: str | int) -> tuple[str | int, ...]:
    return template(MAIN, "dag", "tasks", index, *path)


def change(data: Any, path: tuple[str | int, ...], value: Any) -> None:
    for step in path[:-1]:
        data = data[step]
    if value is DROP:
        del data[path[-1]]
    elif value is ADD:
        data[path[-1]].append(copy.deepcopy(data[path[-1]][0]))
    else:
        data[path[-1]] = value


DROP, ADD = object(), object()
CASES: list[tuple[tuple[str | int, ...], Any, str]] = [
    # names and labels
    ((TEMPLATE, "metadata", "name"), "Bad_Name", "'Bad_Name' is no name"),
    ((TEMPLATE, "metadata", "name"), "a" * 64, "has 64 characters; a WorkflowTemplate has at most 63"),
    ((CRON, "metadata", "name"), "a" * 53, "has 53 characters; a CronWorkflow has at most 52"),
    ((TEMPLATE, "metadata"), {"generateName": "a" * 60}, "leaves no room for 5 more"),
    ((TEMPLATE, "metadata"), {}, "the object has no name"),
    ((TEMPLATE, "metadata", "labels", "app"), "x" * 64, "is no label"),
    ((TEMPLATE, "metadata", "labels"), {"a b": "x"}, "'a b' is no key of a label"),
    ((TEMPLATE, "metadata", "annotations"), {"/": "x"}, "is no key of an annotation"),
    (template(LIST, "name"), "a_list", "'a_list' is no name of a template"),
    (template(WALK, "name"), "list", "another template is called list too"),
    (task(2, "name"), "the_end", "'the_end' is no name"),
    (task(2, "name"), "2nd", "begins with a digit"),
    (task(2, "name"), "work", "several tasks are called work"),
    (template(WALK, "steps", 1, 0, "name"), "first", "another step is called first too"),
    (template(WORK, "inputs", "parameters", 0, "name"), "a b", "'a b' is no name of a parameter"),
    (template(WORK, "inputs", "parameters"), ADD, "another parameter is called item too"),
    # fields and types
    ((TEMPLATE, "kind"), DROP, "apiVersion and kind are missing"),
    ((TEMPLATE, "apiVersion"), "argoproj.io/v2", "argoproj.io/v2 is not known"),
    ((TEMPLATE, "spec", "parallelism"), "many", "valid integer"),
    ((TEMPLATE, "spec", "entrypoints"), "main", "entrypoints: is no field that Argo knows"),
    (template(LIST, "container", "imagePolicy"), "x", "imagePolicy: is no field that Argo knows"),
    ((TEMPLATE, "spec", "synchronization"), {"mutex": {"name": "m"}}, "mutex is gone since Argo 4"),
    ((CRON, "spec", "schedule"), "0 2 * * *", "schedule is gone since Argo 4"),
    # limits
    (task(0), DROP, "there is no task 'list'"),
    ((TEMPLATE, "spec", "templates"), [], "has neither templates nor"),
    (template(BYE, "container"), DROP, "template bye does nothing"),
    (template(BYE, "suspend"), {}, "template bye has container and suspend"),
    (template(MAIN, "timeout"), "5s", "timeout is for leaf templates only"),
    (template(MAIN, "activeDeadlineSeconds"), 5, "activeDeadlineSeconds is for leaf templates only"),
    (template(WORK, "timeout"), "90", "'90' is no duration"),
    (template(LIST, "parallelism"), 2, "parallelism is for dag and steps templates only"),
    (template(MAIN, "outputs"), {"parameters": [{"name": "x", "valueFrom": {"path": "/x"}}]}, "a path is for leaf"),
    (template(LIST, "outputs", "parameters", 0, "valueFrom"), {"parameter": "x"}, "a leaf template has no tasks"),
    (template(LIST, "outputs", "parameters", 0), {"name": "items"}, "the output items comes from nowhere"),
    # calls
    ((TEMPLATE, "spec", "entrypoint"), "mian", "there is no template 'mian'"),
    ((TEMPLATE, "spec", "onExit"), "nobody", "there is no template 'nobody'"),
    ((TEMPLATE, "spec", "onExit"), "main", "is the entrypoint too"),
    (task(0, "template"), "lost", "there is no template 'lost'"),
    (task(0, "template"), DROP, "list calls nothing"),
    (task(0, "templateRef"), {"name": "good", "template": "list"}, "list calls template and templateRef"),
    (task(1, "arguments"), DROP, "work does not say item, which template work needs"),
    (task(0, "arguments"), {"parameters": [{"name": "x", "value": "1"}]}, "list says x, which template list does not"),
    (task(1, "withItems"), [1], "work has withItems and withParam"),
    (template(WALK, "steps", 0, 0, "template"), "main", "calls itself"),
    ((CRON, "spec", "workflowSpec", "workflowTemplateRef", "name"), "other", "there is no WorkflowTemplate 'other'"),
    # what tasks depend on
    (task(2, "depends"), "work.Done", "there is no result Done"),
    (task(2, "depends"), "work &&", "ends too early"),
    (task(2, "depends"), "nobody", "there is no task 'nobody'"),
    (task(2, "depends"), "list.AllFailed", "is for tasks with a loop, and list has none"),
    (task(2, "dependencies"), ["work"], "dependencies and depends do not go together"),
    (task(2, "continueOn"), {"failed": True}, "continueOn and depends do not go together"),
    (task(0, "depends"), "end", "these tasks wait for each other: end, list, work"),
    # references
    (task(2, "depends"), DROP, "list need not have ended by then"),
    (task(1, "withParam"), "{{tasks.list.outputs.parameters.itms}}", "is no output of template list"),
    (task(1, "withParam"), "{{steps.list.outputs.parameters.items}}", "is not known here"),
    (task(0, "when"), "'{{item}}' == '1'", "has a meaning in a loop only"),
    (template(WALK, "steps", 0, 0, "when"), "{{steps.second.status}} == 'x'", "second need not have ended"),
    (template(WORK, "container", "args"), ["{{inputs.parameters.x}}"], "is no input of this template; it has item"),
    (template(LIST, "container", "args"), ["{{workflow.parameters.x}}"], "is no parameter of the workflow"),
    (template(LIST, "container", "args"), ["{{workflow.id}}"], "{{workflow.id}} is not known"),
    (template(LIST, "container", "args"), ["{{nonsense}}"], "{{nonsense}} is not known here"),
    (template(LIST, "container", "args"), ["{{= workflow.id + 'x' }}"], "workflow.id is not known"),
    (template(LIST, "metrics", "prometheus", 0, "gauge", "value"), "{{outputs.parameters.x}}", "is no output of this"),
    (template(MAIN, "outputs"), {"parameters": [{"name": "x", "valueFrom": {"parameter": "{{tasks.a.status}}"}}]},
     "a need not have ended"),
    # pods
    (template(LIST, "container", "image"), "Tool:1", "is no image reference"),
    (template(LIST, "container", "image"), "tool:latest", "may be another image tomorrow"),
    (template(LIST, "container", "image"), DROP, "has no image"),
    (template(LIST, "container", "command"), DROP, "has no command"),
    (template(LIST, "container", "resources", "limits", "memory"), "1 GB", "'1 GB' is no quantity"),
    (template(LIST, "container", "resources"), DROP, "has no requests or no limits"),
    (template(LIST, "container", "securityContext"), {"privileged": True}, "may do anything to its node"),
    (template(LIST, "container", "securityContext"), DROP, "may gain rights"),
    (template(LIST, "container", "env"), [{"name": "DB_PASSWORD", "value": "x"}], "DB_PASSWORD stands here in plain"),
    (template(LIST, "container", "volumeMounts", 0, "name"), "disk", "there is no volume 'disk'"),
    (template(LIST, "container", "volumeMounts"), ADD, "/tmp is mounted twice"),
    ((TEMPLATE, "spec", "securityContext"), DROP, "pods run as root"),
    ((TEMPLATE, "spec", "serviceAccountName"), DROP, "the namespace's default account"),
    (template(LIST, "retryStrategy", "retryPolicy"), "Never", "'Never' is none of"),
    (template(LIST, "retryStrategy", "limit"), "many", "'many' is no number of retries"),
    (template(LIST, "retryStrategy", "limit"), DROP, "has no limit"),
    (template(LIST, "retryStrategy", "expression"), "lastRetry.code > 1", "reads lastRetry.code"),
    (template(LIST, "retryStrategy", "expression"), "asInt(", "the expression ends too early"),
    (template(LIST, "retryStrategy", "backoff", "duration"), "soon", "'soon' is no duration"),
    (template(LIST, "retryStrategy", "backoff", "factor"), "1.5", "'1.5' is no whole number"),
    (task(2, "when"), "a ==", "is not understood by this check"),
    # cron
    ((CRON, "spec", "schedules"), [], "schedules is missing"),
    ((CRON, "spec", "schedules", 0), "0 2 * *", "it has 4 fields instead of five"),
    ((CRON, "spec", "schedules", 0), "0 25 * * *", "is no cron expression"),
    ((CRON, "spec", "timezone"), "Mars/Base", "'Mars/Base' is no time zone"),
    ((CRON, "spec", "timezone"), DROP, "timezone is missing"),
    ((CRON, "spec", "concurrencyPolicy"), "Maybe", "'Maybe' is none of"),
    ((CRON, "spec", "startingDeadlineSeconds"), 0, "a launch missed by the controller is lost"),
    ((CRON, "spec", "when"), '{{= "a" == cronworkflow.name }}', "the inside of a JSON string"),
    ((CRON, "spec", "when"), "{{= workflow.name == 'a' }}", "reads workflow.name"),
    ((CRON, "spec", "stopStrategy", "expression"), "cronworkflow.tries > 3", "reads cronworkflow.tries"),
    # objects beside them
    ((MAP, "data"), {"a/b": "x"}, "'a/b' is no key"),
    ((MAP, "data"), {"a": 1}, "is no text"),
    ((MAP, "data"), {"a": "x" * (1 << 20), "b": "y"}, "a ConfigMap has at most"),
]  # fmt: skip


def test_the_good_manifests_are_good() -> None:
    assert lint(good()) == []


@pytest.mark.parametrize(("path", "value", "message"), CASES, ids=[case[2] for case in CASES])
def test_each_rule_finds_its_fault(path: tuple[str | int, ...], value: Any, message: str) -> None:
    documents = good()
    change(documents, path, value)
    found = lint(documents)
    assert any(message in f"{problem.path}: {problem.message}" for problem in found), found


def test_too_many_tasks_and_templates_for_version_4() -> None:
    documents = good()
    tasks = documents[TEMPLATE]["spec"]["templates"][MAIN]["dag"]["tasks"]
    tasks += [{"name": f"t{i}", "template": "list"} for i in range(200)]
    documents[TEMPLATE]["spec"]["templates"] += [
        {"name": f"x{i}", "suspend": {}} for i in range(200)
    ]  # fmt: skip
    messages = [problem.message for problem in lint(documents)]
    assert messages == ["205 templates are more than 200", "203 tasks are more than 200"]
    assert lint(documents, "3.7") == []


def test_version_3_7_knows_the_old_fields() -> None:
    documents = good()
    documents[CRON]["spec"]["schedule"] = documents[CRON]["spec"].pop("schedules")[0]
    documents[TEMPLATE]["spec"]["synchronization"] = {"mutex": {"name": "m"}}
    assert lint(documents, "3.7") == []


def test_problems_say_where_they_are_also_in_the_second_document(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(GOOD.replace("timezone: UTC", "timezone: Mars/Base"))
    (problem,) = lint_files([path], "4")
    line = path.read_text().splitlines()[problem.line - 1]
    assert line.strip() == "timezone: Mars/Base"
    assert (problem.file, problem.path, problem.column) == (str(path), "spec.timezone", 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"---\n---\n# nothing\n", "is empty"),
        (b"a: [", "is not YAML"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"just text", "is not a YAML mapping"),
        (b"[1, 2]", "is no manifest"),
        (b"a: 1\n---\nb: {", "is not YAML"),
        (b"x: " + b"y" * (1 << 20), "is too large"),
    ],
)
def test_files_that_are_no_manifests(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    (problem, *_) = lint_files([path], "4")
    assert message in problem.message


def test_a_folder_without_manifests(tmp_path: Path) -> None:
    assert "there is no YAML in this folder" in lint_files([tmp_path], "4")[0].message


def test_a_file_that_is_not_there_and_one_that_is_listed_and_not_there(tmp_path: Path) -> None:
    assert "no such file" in lint_files([tmp_path / "none.yaml"], "4")[0].message
    (tmp_path / "kustomization.yaml").write_text(
        "{apiVersion: kustomize.config.k8s.io/v1beta1, kind: Kustomization, resources: [lost.yaml]}"
    )
    assert "there is no" in lint_files([tmp_path], "4")[0].message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "list", "{{item}}", "{{tasks.x}}", "a.b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "steps", "x"]), inner),
    max_leaves=6,
)


def paths(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path] * bool(path) + [found for key, value in inner for found in paths(value, (*path, key))]


@given(st.data())
def test_whatever_stands_there_the_linter_answers(data: st.DataObject) -> None:
    documents = good()
    for _ in range(data.draw(st.integers(1, 3))):
        change(documents, data.draw(st.sampled_from(paths(documents))), data.draw(JSON))
    lint(documents)


def test_a_thousand_rounds_are_clean(copy_example: Callable[[str], Path]) -> None:
    from fedloom.deploy.argo.lint import lint_rendered
    from fedloom.deploy.argo.render import render_job
    from fedloom.deploy.argo.values import Values

    folder = copy_example("aircraft_accel_v1")
    job = folder / "job.yaml"
    job.write_text(job.read_text().replace("num_rounds: 60", "num_rounds: 1000"))
    rendered = render_job(folder, Values())
    for version in ("3.7", "4"):
        assert lint_rendered(rendered, version) == []
    assert yaml.safe_load(rendered.files["workflow-template.yaml"])
