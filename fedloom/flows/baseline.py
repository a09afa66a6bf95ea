"""The reference that drift is measured against, made of data that a job's model would read."""

from __future__ import annotations

from dataclasses import replace

from fedloom.flows.recipe import inputs_of
from fedloom.flows.runnable import signals_of
from fedloom.specs.bundle import JobBundle
from fedloom.tasks.errors import ConfigurationError, RunError


def make_baseline(bundle: JobBundle, source: str | None) -> bytes:
    """The bytes of a baseline distribution.

    The job need not compile: it may be one that lacks just this file.

    Args:
        bundle: The job.
        source: A location as that of a holdout, relative to the job's folder; None for the job's holdout.

    Raises:
        ConfigurationError: when the job names no such data, or no signals.
        RunError: when the data cannot be read.
    """
    from fedloom.tasks.client_data import ClientDataError, read_windows
    from fedloom.tasks.drift import baseline_file

    holdout = bundle.job.validation.holdout_dataset
    location = source or (holdout.source if holdout is not None else None)
    if location is None:
        raise ConfigurationError("the job has no holdout; name the data with --source")
    if not signals_of(bundle.job, bundle.contract):
        raise ConfigurationError("the job names no signals to read")
    spec = replace(inputs_of(bundle.job, bundle.contract), label_column=None)
    try:
        windows = read_windows(location, bundle.folder, spec)
    except ClientDataError as error:
        raise RunError(f"{location}: {error}") from error
    return baseline_file(windows, spec, location)
