"""The prepared data sets that a job reads: made ready before its run, and named for what they are."""

from __future__ import annotations

from collections.abc import Callable

from fedloom.specs.bundle import JobBundle
from fedloom.specs.locations import parse_location
from fedloom.tasks import datasets
from fedloom.tasks.errors import RunError


def dataset_names(bundle: JobBundle) -> list[str]:
    """The data sets that the fleet, the holdout and the baseline of a job lie in, sorted."""
    holdout, drift = bundle.job.validation.holdout_dataset, bundle.job.validation.drift_detection
    places = list(bundle.fleet.data) if bundle.fleet else []
    places += [holdout.source] if holdout is not None and holdout.source else []
    if drift is not None and drift.enabled and drift.baseline_distribution:
        places.append(drift.baseline_distribution)
    found = {parse_location(place).dataset for place in places if place.startswith("dataset:")}
    return sorted(name for name in found if name)


def prepare_data(bundle: JobBundle, say: Callable[[str], None]) -> None:
    """Prepare what is missing; without it every client would be a dropout.

    Raises:
        RunError: when a data set cannot be had.
    """
    for name in dataset_names(bundle):
        try:
            datasets.prepare(name, say=say)
        except datasets.DatasetError as error:
            raise RunError(str(error)) from error
