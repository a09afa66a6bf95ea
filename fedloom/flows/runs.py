"""Opening a run: a plan, the roster and the store, brought together."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from fedloom.flows.about import about
from fedloom.flows.plan import Plan, plan_digest
from fedloom.specs.bundle import JobBundle
from fedloom.specs.canonical import canonical_json, plain
from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.step import Run
from fedloom.tasks.store import RunStore

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def open_run(plan: Plan, bundle: JobBundle, store: str, name: str = "") -> Run:
    """The run of a plan; the plan is written into its folder of the store, and the roster beside the runs.

    Args:
        plan: The compiled plan of the bundle.
        bundle: The specs.
        store: URL of the run store.
        name: Sets runs of one plan apart; "" for the plain run.

    Raises:
        ConfigurationError: when the name cannot be part of a key.
        StoreError: when the store cannot be written.
    """
    if name and not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"run name {name!r} must be 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
        )
    if bundle.fleet is None:
        raise ConfigurationError("the job has no fleet to run on")
    if plan.recipe.model.architecture == "Custom":
        _make_importable(plan.recipe.model.custom_class or "", bundle.folder.resolve())
    run = Run(plan.recipe, plan_digest(plan), bundle.fleet, bundle.folder, RunStore(store), name)
    if not run.store.exists(run.key("plan.json")):
        run.store.write_json(run.key("about.json"), about(bundle))  # what people read about the run
        run.store.write_content("fleets", ".json", canonical_json(bundle.fleet.roster))  # what its digest names
        run.store.write_json(run.key("plan.json"), plain(plan))  # at last: with a plan, all of it is there
    return run


def _make_importable(custom_class: str, folder: Path) -> None:
    """Let a custom class stand in the job's own folder; installed packages come first.

    Raises:
        ConfigurationError: when another job's module of the same name is loaded already.
    """
    name = custom_class.partition(":")[0].partition(".")[0]
    loaded = getattr(sys.modules.get(name), "__file__", None)
    own = next((path for path in (folder / f"{name}.py", folder / name / "__init__.py") if path.exists()), None)
    if own is not None and loaded is not None and Path(loaded).resolve() != own:
        raise ConfigurationError(f"module {name!r} of {custom_class!r} is loaded from {loaded} already; rename one")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
