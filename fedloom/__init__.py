"""fedloom: federated-learning job specs, compiled to DAG workflows and run in process, on Prefect or on Argo."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedloom.flows.compile import compile_plan as compile_plan
    from fedloom.flows.fedjob import FedJob as FedJob
    from fedloom.specs.bundle import load_job as load_job
    from fedloom.specs.problems import SpecError as SpecError

_NAMES = {
    "FedJob": "fedloom.flows.fedjob",
    "SpecError": "fedloom.specs.problems",
    "compile_plan": "fedloom.flows.compile",
    "load_job": "fedloom.specs.bundle",
}

__all__ = ["FedJob", "SpecError", "__version__", "compile_plan", "load_job"]


def __getattr__(name: str) -> Any:
    # Imported on first use: `fedloom --help` must not wait for pydantic.
    if name == "__version__":
        from importlib.metadata import version

        return version("fedloom")
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'fedloom' has no attribute {name!r}")
