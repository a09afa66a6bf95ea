"""Rules for pods: image, command, resources, volumes, retries, and what they may do."""

from __future__ import annotations

import re
from typing import Any

from fedloom.deploy.argo.expressions import FUNCTIONS, ExpressionError, functions, names, parse
from fedloom.deploy.argo.findings import Data, Findings, items, section
from fedloom.deploy.argo.values import SECRET_NAME, check_image
from fedloom.specs.trails import Trail

_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|[eE][-+]?\d+)?")
_DURATION = re.compile(r"\d+|(\d+(\.\d+)?(ms|s|m|h|d))+")
_POLICIES = ("Always", "OnFailure", "OnError", "OnTransientError")
_LAST_RETRY = {f"lastRetry.{name}" for name in ("exitCode", "status", "duration", "message")}


def pods(found: Findings, at: Trail, spec: Data, has_pods: bool) -> None:
    """What holds for all pods of a workflow."""
    rights = section(spec, "securityContext")
    if has_pods and not rights.get("runAsNonRoot") and not rights.get("runAsUser"):
        found.warning(at, "pods run as root unless the image says otherwise", "set securityContext.runAsNonRoot")
    if has_pods and "serviceAccountName" not in spec:
        found.warning(at, "pods run under the namespace's default account", "set serviceAccountName")


def pod(found: Findings, trail: Trail, template: Data, spec: Data) -> None:
    """Check a leaf template."""
    _retries(found, (*trail, "retryStrategy"), template.get("retryStrategy"))
    for key in ("container", "script"):
        if key in template:
            _container(found, (*trail, key), template[key], key)
            volumes = [*items(spec, "volumes"), *items(template, "volumes")]
            claims = [section(claim, "metadata") for claim in items(spec, "volumeClaimTemplates")]
            _mounts(found, (*trail, key), template[key], {v.get("name") for v in [*volumes, *claims]})


def _container(found: Findings, trail: Trail, container: Data, kind: str) -> None:
    image = container.get("image")
    if not image:
        found.error(trail, "has no image")
    elif "{{" not in image:
        try:
            check_image(image)
        except ValueError as error:
            found.error((*trail, "image"), str(error))
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@" not in image and tag in ("", "latest"):
            found.warning((*trail, "image"), f"{image} may be another image tomorrow", "give it a tag or a digest")
    if kind == "container" and not container.get("command"):
        found.warning(trail, "has no command: Argo must ask the image's registry for it")
    rights = section(container, "securityContext")
    if rights.get("privileged"):
        found.warning((*trail, "securityContext", "privileged"), "the pod may do anything to its node")
    if rights.get("allowPrivilegeEscalation") is not False:
        found.warning(trail, "may gain rights", "set securityContext.allowPrivilegeEscalation: false")
    resources = section(container, "resources")
    if not resources.get("requests") or not resources.get("limits"):
        found.warning(trail, "has no requests or no limits of CPU and memory")
    for part in ("requests", "limits"):
        for key, amount in section(resources, part).items():
            if "{{" not in str(amount) and not _QUANTITY.fullmatch(str(amount)):
                found.error((*trail, "resources", part, key), f"{amount!r} is no quantity, such as 500m or 2Gi")
    for i, variable in enumerate(items(container, "env")):
        name = str(variable.get("name"))
        if variable.get("value") and SECRET_NAME.search(name) and "{{" not in variable["value"]:
            found.error((*trail, "env", i), f"{name} stands here in plain text", "refer to a Secret by valueFrom")


def _mounts(found: Findings, trail: Trail, container: Data, volumes: set[Any]) -> None:
    paths: set[str] = set()
    for i, mount in enumerate(items(container, "volumeMounts")):
        if mount.get("name") not in volumes:
            found.error((*trail, "volumeMounts", i, "name"), f"there is no volume {mount.get('name')!r}")
        if mount.get("mountPath") in paths:
            found.error((*trail, "volumeMounts", i, "mountPath"), f"{mount['mountPath']} is mounted twice")
        paths.add(str(mount.get("mountPath")))


def _retries(found: Findings, trail: Trail, strategy: Any) -> None:
    if not isinstance(strategy, dict):
        return
    policy, limit = strategy.get("retryPolicy"), strategy.get("limit")
    if policy is not None and policy not in _POLICIES:
        found.error((*trail, "retryPolicy"), f"{policy!r} is none of {', '.join(_POLICIES)}")
    if limit is None:
        found.warning(trail, "has no limit: a pod that fails is tried for ever")
    elif "{{" not in str(limit) and not str(limit).isdigit():
        found.error((*trail, "limit"), f"{limit!r} is no number of retries")
    backoff = section(strategy, "backoff")
    for key in ("duration", "maxDuration", "cap"):
        value = str(backoff.get(key, "1s"))
        if "{{" not in value and not _DURATION.fullmatch(value):
            found.error((*trail, "backoff", key), f"{value!r} is no duration, such as 30s")
    factor = str(backoff.get("factor", 1))
    if "{{" not in factor and not factor.isdigit():
        found.error((*trail, "backoff", "factor"), f"{factor!r} is no whole number")
    expression = strategy.get("expression")
    if expression is None or "{{" in expression:
        return
    try:
        node = parse(expression)
    except ExpressionError as error:
        found.error((*trail, "expression"), f"the expression {error}")
        return
    for name in sorted(names(node) - _LAST_RETRY):
        found.error((*trail, "expression"), f"reads {name}; there are {', '.join(sorted(_LAST_RETRY))}")
    for name in sorted(functions(node) - FUNCTIONS.keys()):
        found.warning((*trail, "expression"), f"calls {name}, which this check does not know")
