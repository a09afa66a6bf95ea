"""A job written in Python instead of a folder of YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedloom.flows.compile import compile_plan
from fedloom.flows.data import prepare_data
from fedloom.flows.events import Listener, silent
from fedloom.flows.inline import simulate
from fedloom.flows.plan import Plan
from fedloom.flows.result import RunResult, read_result
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import bundle_from_documents


class FedJob:
    """The same specs as in a job folder, as Python mappings; long and short forms are accepted alike.

    Attributes:
        bundle: The checked specs.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        *,
        folder: Path | str = ".",
        selector: Mapping[str, Any] | None = None,
        rollout: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        contract: Mapping[str, Any] | None = None,
        fleet: Mapping[str, Any] | None = None,
    ) -> None:
        """Check the specs.

        Args:
            job: The job.
            folder: The folder that relative paths in the specs start from.
            selector: Who may take part.
            rollout: How a model is released.
            schedule: When the job is launched.
            contract: The data contract.
            fleet: The roster of clients.

        Raises:
            SpecError: with all problems at once.
        """
        given = {"job": job, "selector": selector, "rollout": rollout, "schedule": schedule}
        given |= {"contract": contract, "fleet": fleet}
        documents = {kind: dict(spec) for kind, spec in given.items() if spec is not None}
        self.bundle = bundle_from_documents(documents, Path(folder))

    def plan(self, seed: int | None = None, rounds: int | None = None) -> Plan:
        """Compile the job; see `fedloom.flows.compile.compile_plan`."""
        return compile_plan(self.bundle, seed, rounds)

    def simulate(
        self,
        store: str = "fedloom-runs",
        *,
        seed: int | None = None,
        rounds: int | None = None,
        name: str = "",
        listener: Listener = silent,
    ) -> RunResult:
        """Run the job in this process, or continue it.

        Args:
            store: URL of the run store.
            seed: Replaces the job's seed.
            rounds: Replaces the job's number of rounds.
            name: Sets runs of one plan apart.
            listener: Told of every finished step.

        Raises:
            SpecError: when the specs ask for what is not built.
            RunError: when the run cannot go on.
        """
        plan = self.plan(seed, rounds)
        prepare_data(self.bundle, lambda _line: None)
        run = open_run(plan, self.bundle, store, name)
        simulate(plan, run, listener)
        return read_result(run)
