"""Runs to report on."""

from collections.abc import Callable

import pytest

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.specs.bundle import load_job
from fedloom.tasks.step import Run


@pytest.fixture
def ended(make_run: Callable[..., Run]) -> Callable[..., Run]:
    """A run of the tiny job, changed as asked, that has ended."""

    def carry_out(**changes: object) -> Run:
        run = make_run(**changes)
        simulate(compile_plan(load_job(run.folder)), run)
        return run

    return carry_out
