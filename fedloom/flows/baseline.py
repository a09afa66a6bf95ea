"""The reference that drift is measured against, made of data that a job's model would read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fedloom.flows.recipe import inputs_of
from fedloom.flows.runnable import signals_of
from fedloom.specs.bundle import JobBundle
from fedloom.tasks.errors import ConfigurationError, RunError


def make_baseline(bundle: JobBundle, sources: Sequence[str] = ()) -> bytes:
    """The bytes of a baseline distribution.

    The job need not compile: it may be one that lacks just this file.

    Args:
        bundle: The job.
        sources: Locations as that of a holdout, relative to the job's folder, whose data count together; the job's
            holdout if there are none.

    Raises:
        ConfigurationError: when the job names no such data, or no signals.
        RunError: when the data cannot be read.
    """
    from fedloom.tasks.client_data import ClientDataError, read_windows
    from fedloom.tasks.drift import baseline_file

    holdout = bundle.job.validation.holdout_dataset
    places = list(sources) or ([holdout.source] if holdout is not None and holdout.source else [])
    if not places:
        raise ConfigurationError("the job has no holdout; name the data with --source")
    if not signals_of(bundle.job, bundle.contract):
        raise ConfigurationError("the job names no signals to read")
    spec = replace(inputs_of(bundle.job, bundle.contract), label_column=None)
    windows = []
    for place in places:
        try:
            windows.append(read_windows(place, bundle.folder, spec))
        except ClientDataError as error:
            raise RunError(f"{place}: {error}") from error
    return baseline_file(windows, spec, places)
