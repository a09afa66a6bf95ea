"""Step "export": what a run leaves for others: its model, the records beside it, the report."""

from __future__ import annotations

import io
from typing import Any

import torch

from fedloom.specs.canonical import canonical_json
from fedloom.tasks.determinism import repeatable
from fedloom.tasks.model_store import model_key, read_model
from fedloom.tasks.models import build_model, load_state
from fedloom.tasks.records import records
from fedloom.tasks.report import last_round
from fedloom.tasks.step import Place, Run, StepResult
from fedloom.tasks.store import RunStore, Stored

FOLDER = "exports"
_SUFFIXES = {"safetensors": ".safetensors", "pytorch": ".pt"}
_PAGES = {"json": "summary.json", "markdown": "summary.md", "html": "report.html"}


def step(place: Place) -> StepResult:
    """Write the files below RUN_ID/ of their destinations; written again, they are the same.

    A model that the gate withheld stays in the run store, and the outputs say so.

    Raises:
        StoreError: when a destination cannot be written.
    """
    run, wanted = place.run, place.run.recipe.output
    assert wanted is not None, "a plan without outputs has no such step"
    last = last_round(run)
    summary = run.store.read_json(run.key("summary.json"))
    exported: dict[str, dict[str, Any]] = {}
    kept_back: dict[str, str] = {}
    files: dict[str, Stored] = {}

    def put(role: str, destination: str, name: str, data: bytes) -> None:
        store, key = _target(run, destination, name)
        stored = store.write(key, data)
        exported[role] = {"at": f"{store.url}/{key}", "file": name, "sha256": stored.sha256, "bytes": stored.bytes}
        if store is run.store:
            files[role] = stored

    if wanted.model is not None and summary["gate"]["decision"] != "pass":
        kept_back["model"] = f"the gate did not let it pass: {summary['gate']['decision']}"
    elif wanted.model is not None:
        put("model", wanted.model_to, f"model{_SUFFIXES[wanted.model]}", model_file(run, last, wanted.model))
    if wanted.records is not None:
        own = {name: value for name, value in exported.get("model", {}).items() if name != "at"}
        known = {"summary": summary, "model": own or None, **records(last, wanted.records)}
        put("metadata", wanted.model_to, "metadata.json", canonical_json(known))
    if wanted.report is not None:
        page = _PAGES[wanted.report]
        put("report", wanted.report_to, page.replace("summary", "report"), run.store.read(run.key(page)))
    return StepResult({"exported": exported, "kept_back": kept_back}, files)


def _target(run: Run, destination: str, name: str) -> tuple[RunStore, str]:
    """The store and the key of a file at a destination."""
    if "://" in destination:
        return RunStore(destination), f"{run.run_id}/{name}"
    return run.store, "/".join(part for part in (FOLDER, destination, run.run_id, name) if part)


def model_file(run: Run, last: Place, form: str) -> bytes:
    """The run's last model in a format.

    Args:
        run: The run.
        last: Its last round.
        form: "safetensors" (the floating-point parameters and buffers by name) or "pytorch" (a state dict, saved by
            torch, which ``torch.load(…, weights_only=True)`` reads and the network's class takes).
    """
    digest = last.result("aggregate")["outputs"]["model_digest"]
    if form == "safetensors":
        return run.store.read(model_key(digest), expect=digest)
    with repeatable(run.recipe.threads, 0):
        model = build_model(run.recipe.model)
        load_state(model, read_model(run.store, digest))
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    return stream.getvalue()


def exports_of(run: Run) -> dict[str, str]:
    """Where the run's files for others lie, by what they are; empty where there are none."""
    found = Place(run, 0).find("export")
    return {} if found is None else {role: file["at"] for role, file in found["outputs"]["exported"].items()}
