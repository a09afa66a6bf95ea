"""How a job's promises of privacy become numbers that steps keep; what cannot be kept is refused here."""

from __future__ import annotations

from math import floor, sqrt

from fedloom.specs.bundle import JobBundle
from fedloom.specs.problems import Problem, SpecError
from fedloom.specs.trails import Trail
from fedloom.tasks.architectures import parameter_count
from fedloom.tasks.recipe import MaskingRecipe, ModelRecipe, SelectionRecipe
from fedloom.tasks.secure_aggregation.parameters import MIN_CLIENTS, Assumptions, ParameterError, choose, fit_ring
from fedloom.tasks.window_spec import WindowSpec

_SECURE: Trail = ("privacy_config", "secure_aggregation")
_USUAL_DROPOUT = 0.05
ROOM_FOR_NOISE = 10.0
"""Noise multiplier that the ring is fitted to where a job leaves its noise to calibration."""
_SAMPLES = "data_samples"


def masking_recipe(
    bundle: JobBundle, model: ModelRecipe, inputs: WindowSpec, selection: SelectionRecipe, quorum: int
) -> MaskingRecipe | None:
    """Secure aggregation as a job asks for it; None where it does not.

    Raises:
        SpecError: when its numbers cannot be met.
    """
    asked = bundle.job.privacy.secure_aggregation
    if not asked.enabled:
        return None
    cohort, smallest = selection.target, max(selection.minimum, MIN_CLIENTS)
    tolerance = asked.dropout_tolerance
    dropout = _USUAL_DROPOUT if tolerance is None else tolerance / cohort
    if dropout >= 1:
        raise _wrong(bundle, "dropout_tolerance", f"{tolerance} is the whole cohort of {cohort} clients")
    if cohort < MIN_CLIENTS:
        raise _wrong(bundle, "enabled", f"a cohort of {cohort} is too small: the sum of two tells each the other's")
    two = asked.protocol == "two_server"
    try:
        if not two:
            _enough_neighbours(cohort, smallest, asked.assumed_corrupt, dropout, asked.threshold)
    except ParameterError as error:
        raise _wrong(bundle, "threshold" if asked.threshold else "enabled", str(error)) from error
    weights = bundle.job.weights
    try:
        ring_bits, bits = fit_ring(_most(bundle, selection), _noise(bundle, cohort, max(quorum, MIN_CLIENTS)))
    except ParameterError as error:
        raise _wrong(bundle, "enabled", str(error)) from error
    return MaskingRecipe(
        protocol="two_server" if two else "pairwise",
        threshold=None if two else asked.threshold,
        corrupt=asked.assumed_corrupt,
        dropout=0.0 if two else dropout,
        survivors=max(quorum, MIN_CLIENTS),
        clip=_clip(bundle),
        weight_max=_largest_weight(bundle, inputs, weights),
        bits=bits,
        ring_bits=ring_bits,
        parameters=parameter_count(model) or 0,
    )


def _enough_neighbours(cohort: int, smallest: int, corrupt: float, dropout: float, threshold: int | None) -> None:
    """See that there are numbers for a session.

    Raises:
        ParameterError: when there are none.
    """
    choose(cohort, Assumptions(corrupt, dropout), threshold)
    # The smallest round must keep its secrets too, if not survive as many dropouts.
    choose(min(smallest, cohort), Assumptions(corrupt, 0.0), threshold)


def _largest_weight(bundle: JobBundle, inputs: WindowSpec, weights: str) -> float:
    column = bundle.job.orchestration.aggregation.weight_column
    if weights == "custom" and column is not None and bundle.fleet is not None:
        return max(float(value) for value in bundle.fleet.attributes[column] if value is not None)
    return 1.0 if weights == "uniform" else float(_most_windows(bundle, inputs))


def _most_windows(bundle: JobBundle, inputs: WindowSpec) -> int:
    """A bound on the windows of any client, from the roster."""
    assert bundle.fleet is not None
    samples = [count for count in bundle.fleet.attributes.get(_SAMPLES, ()) if count is not None]
    if not samples:
        message = f"weights num_samples under masks need a bound: the fleet has no column {_SAMPLES}"
        at: Trail = ("orchestration_config", "aggregation", "weights")
        raise SpecError([bundle.problem("job", at, "error", message, "add it, or write weights: uniform")])
    return max(1, int(max(samples)) // inputs.stride + 1)


def _most(bundle: JobBundle, selection: SelectionRecipe) -> int:
    """Most clients of a round: with Poisson sampling, the whole fleet."""
    assert bundle.fleet is not None
    return len(bundle.fleet.clients) if selection.algorithm == "poisson" else selection.target


def _clip(bundle: JobBundle) -> float:
    """The largest coordinate: an update that is clipped as a whole has none above its norm."""
    private = bundle.job.privacy.differential_privacy
    norm = private.max_grad_norm or private.sensitivity
    if private.enabled and private.mechanism == "DP-FedAvg" and norm is not None:
        return norm
    return bundle.job.privacy.secure_aggregation.clip


def _noise(bundle: JobBundle, clients: int, survivors: int) -> float:
    """Standard deviation of the clients' noise on a full sum, as a multiple of the largest coordinate."""
    private = bundle.job.privacy.differential_privacy
    if not private.enabled or private.mechanism != "DP-FedAvg":
        return 0.0
    corrupt = bundle.job.privacy.secure_aggregation.assumed_corrupt
    return (private.noise_multiplier or ROOM_FOR_NOISE) * sqrt(
        clients / max(1, survivors - floor(corrupt * survivors + 1e-9))
    )


def _wrong(bundle: JobBundle, field: str, message: str) -> SpecError:
    problem: Problem = bundle.problem("job", (*_SECURE, field), "error", message)
    return SpecError([problem])
