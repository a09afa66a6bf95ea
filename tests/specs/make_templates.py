"""Make the trained model and the updates of the packaged templates: python -m tests.specs.make_templates.

The model is trained on the left and right arms of four subjects of imu-watch; each of these clients then gives one
update of three more local epochs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.result import read_result
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import load_job
from fedloom.specs.scaffold import HERE
from fedloom.tasks.client import fit, make_order, receive
from fedloom.tasks.model_store import model_key, tensors_to_bytes
from fedloom.tasks.models import build_model

TEMPLATES = HERE / "templates"
ROUNDS = 12


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "job"
        shutil.copytree(TEMPLATES / "aggregate", folder)
        (folder / "job.yaml").write_text(yaml.safe_dump(training_job()))
        bundle = load_job(folder)
        plan = compile_plan(bundle)
        run = open_run(plan, bundle, str(Path(scratch) / "store"))
        simulate(plan, run)
        digest = read_result(run).model_digest
        model = run.store.read(model_key(digest), expect=digest)
        for template in ("eval", "aggregate"):
            (TEMPLATES / template / "model.safetensors").write_bytes(model)
        order = make_order(plan.recipe, run.plan_digest, ROUNDS + 1, digest, len(model))
        start = receive(order, model)
        updates = TEMPLATES / "aggregate" / "updates"
        updates.mkdir(exist_ok=True)
        entries = []
        assert bundle.fleet is not None
        for client, data in zip(bundle.fleet.clients, bundle.fleet.data, strict=True):
            windows = run.windows.read(data, bundle.fleet.root, order.inputs, 60.0)
            update = fit(order, client, start, windows, build_model(order.model))
            content = tensors_to_bytes(update.delta)
            (updates / f"{client}.safetensors").write_bytes(content)
            entries.append(
                {
                    "client": client,
                    "file": f"{client}.safetensors",
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "samples": update.samples,
                    "round": ROUNDS + 1,
                    "loss": round(update.loss, 6),
                }
            )
        index = {"base_model": digest, "round": ROUNDS + 1, "updates": entries}
        (updates / "index.json").write_text(json.dumps(index, indent=1) + "\n")


def training_job() -> dict[str, Any]:
    """The job of the aggregate template, as one that trains."""
    job: dict[str, Any] = yaml.safe_load((TEMPLATES / "aggregate" / "job.yaml").read_text())
    for section in ("aggregation_config", "output", "versioning"):
        del job[section]
    del job["job_metadata"]["kind"], job["model_config"]["model_source"]
    training = job["training_config"]
    training["hyperparameters"]["learning_rate"] = 0.01
    training["local_epochs"], training["seed"] = 3, 1
    training["global_training"]["num_rounds"] = ROUNDS
    return job


if __name__ == "__main__":
    main()
