"""The way to the Prefect engine: a quiet API first, then the flow in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedloom.flows.events import Listener
from fedloom.flows.prefect_server import PrefectUnavailable, prefect_api
from fedloom.flows.result import RunResult
from fedloom.tasks.errors import RunError


def run_on_prefect(listener: Listener, say: Callable[[str], None], **parameters: Any) -> RunResult:
    """Call the flow `fedloom.flows.prefect_flow.federated_job` against the user's API or a private one.

    Args:
        listener: Told of every finished step.
        say: Told where the API is.
        parameters: The flow's parameters.

    Raises:
        RunError: when there is no API, or the run cannot go on.
    """
    try:
        with prefect_api() as url:
            say(f"Prefect: {url.removesuffix('/api')}")
            from fedloom.flows.prefect_flow import federated_job, listening

            token = listening.set(listener)
            try:
                return RunResult(**federated_job(**parameters))
            finally:
                listening.reset(token)
    except PrefectUnavailable as error:
        raise RunError(str(error)) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("prefect", "httpx", "httpcore"):
            raise
        raise RunError(f"the Prefect API was lost ({type(error).__name__}: {error}); run again to continue") from error
