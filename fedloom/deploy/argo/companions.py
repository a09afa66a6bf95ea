"""What a WorkflowTemplate needs beside it: rights, specs, and the list of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedloom.deploy.argo.specs_map import SpecsMap

Manifest = dict[str, Any]


def service_account(metadata: Manifest) -> Manifest:
    """The account that pods run under."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def role(metadata: Manifest) -> Manifest:
    """The one right that Argo's executor needs: to say what a step's result is."""
    rule = {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": [rule]}


def role_binding(metadata: Manifest) -> Manifest:
    """The account gets the right."""
    name = metadata["name"]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": metadata["namespace"]}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
    }


def config_map(metadata: Manifest, specs: SpecsMap) -> Manifest:
    """The specs; immutable, because their digest is in the name."""
    made: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True}
    made["data"] = specs.data
    if specs.binary:
        made["binaryData"] = specs.binary
    return made


def kustomization(files: Sequence[str]) -> Manifest:
    """Everything that `kubectl apply -k` creates."""
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(files)}
