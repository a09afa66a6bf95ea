"""What a job's noise promises, accounted; a claim that does not follow from the noise is refused here.

The unit decides what is protected. With DP-SGD it is a record: one window of a client's data, wherever the client
takes part; noise is in every client's own training. With DP-FedAvg it is a client with all its data; noise is on the
sum of the clients' updates. The two are never added.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from fedloom.flows.protect import ROOM_FOR_NOISE
from fedloom.specs.bundle import JobBundle
from fedloom.specs.problems import Problem, SpecError
from fedloom.specs.trails import Trail
from fedloom.tasks.recipe import AdaptiveClipRecipe, MaskingRecipe, PrivacyRecipe, SelectionRecipe, TrainingRecipe
from fedloom.tasks.window_spec import WindowSpec

_AT: Trail = ("privacy_config", "differential_privacy")
_SAMPLES = "data_samples"
_CLOSE = 1 + 1e-9


@dataclass(frozen=True)
class Limit:
    """What use of the data demands; None where it says nothing.

    Attributes:
        source: Who demands it, for messages.
        mechanism: DP-SGD or DP-FedAvg.
    """

    source: str
    epsilon: float | None
    delta: float | None
    mechanism: str | None = None
    noise_multiplier: float | None = None
    clip: float | None = None


def privacy_recipe(
    bundle: JobBundle,
    inputs: WindowSpec,
    selection: SelectionRecipe,
    training: TrainingRecipe,
    masking: MaskingRecipe | None,
    rounds: int,
) -> PrivacyRecipe | None:
    """Differential privacy as a job asks for it, with what it costs; None where it does not.

    Raises:
        SpecError: when the claim does not follow from the noise, or the data demands more.
    """
    asked, limits = bundle.job.privacy.differential_privacy, contract_limits(bundle)
    if not asked.enabled:
        if limits:
            raise _wrong(bundle, "enabled", f"{limits[0].source} demands differential privacy")
        return None
    clip, delta = asked.max_grad_norm or asked.sensitivity, asked.delta
    needed = {"mechanism": asked.mechanism, "delta": delta, "max_grad_norm": clip}
    missing = [name for name, value in needed.items() if not value]
    if missing:
        hint = "DP-SGD protects single records, DP-FedAvg whole clients" if missing[0] == "mechanism" else None
        raise _wrong(bundle, missing[0], "is missing", hint)
    assert delta is not None
    assert clip is not None
    if asked.sensitivity is not None and asked.sensitivity != clip:
        message = f"is {asked.sensitivity:g}, and max_grad_norm clips to {clip:g}: they are the same bound"
        raise _wrong(bundle, "sensitivity", message, "leave one of them out")
    record = asked.mechanism == "DP-SGD"
    sums = _record_sums(bundle, inputs, training) if record else _client_sums(bundle, selection)
    made = PrivacyRecipe(
        unit="record" if record else "client",
        noise_multiplier=asked.noise_multiplier or 1.0,
        clip=clip,
        adaptive=None,
        sampling=sums.sampling,
        rate=sums.rate,
        population=sums.population,
        drawn=sums.drawn,
        steps_per_round=sums.steps_per_round,
        delta=delta,
        epsilon=math.inf,
        ledger=_ledger(bundle, "record" if record else "client"),
        budget_epsilon=min((limit.epsilon for limit in limits if limit.epsilon is not None), default=None),
        budget_delta=min((limit.delta for limit in limits if limit.delta is not None), default=None),
    )
    made = _adaptive(bundle, _accounted(bundle, made, masking, rounds), masking, selection.target)
    for limit in limits:
        _within(bundle, made, asked.mechanism or "", limit)
    return made


def _ledger(bundle: JobBundle, unit: str) -> str:
    """One ledger for a fleet, its data and the unit: jobs on the same share it, units are never added."""
    assert bundle.fleet is not None
    data = bundle.contract.contract_metadata.contract_id if bundle.contract is not None else "data"
    return ".".join(re.sub(r"[^A-Za-z0-9_-]", "-", part)[:60] for part in (bundle.fleet.fleet_id, data, unit))


def _accounted(bundle: JobBundle, made: PrivacyRecipe, masking: MaskingRecipe | None, rounds: int) -> PrivacyRecipe:
    from fedloom.tasks.errors import ConfigurationError
    from fedloom.tasks.privacy.mechanism import spent

    asked = bundle.job.privacy.differential_privacy
    try:
        if asked.noise_multiplier is None:
            made = replace(made, noise_multiplier=_noise_for(made, masking, rounds, asked.epsilon or 0.0))
            if masking is not None and made.unit == "client" and made.noise_multiplier > ROOM_FOR_NOISE:
                message = f"{asked.epsilon:g} takes more noise than the masks' ring is fitted to without being told"
                raise _wrong(bundle, "noise_multiplier", message, f"write {made.noise_multiplier:.4g} or a little more")
        made = replace(made, epsilon=spent(made, masking, rounds))
        if asked.epsilon is not None and made.epsilon > asked.epsilon * _CLOSE:
            need = _noise_for(made, masking, rounds, asked.epsilon)
            raise _wrong(
                bundle,
                "epsilon",
                f"{asked.epsilon:g} does not follow from the noise: noise_multiplier {made.noise_multiplier:g} over "
                f"{rounds} rounds gives epsilon {made.epsilon:.4g} for one {made.unit} at delta {made.delta:g}",
                f"it takes noise_multiplier {need:.4g}",
            )
    except ConfigurationError as error:
        raise _wrong(bundle, "epsilon", str(error)) from error
    return made


def _adaptive(bundle: JobBundle, made: PrivacyRecipe, masking: MaskingRecipe | None, cohort: int) -> PrivacyRecipe:
    """The norm that follows the updates; what it tells of them is paid with more noise on the update, not epsilon."""
    from fedloom.tasks.errors import ConfigurationError
    from fedloom.tasks.privacy.accounting import effective_noise

    asked = bundle.job.privacy.differential_privacy.adaptive_clip
    if asked is None:
        return made
    if made.unit == "record":
        raise _wrong(bundle, "adaptive_clip", "is for DP-FedAvg: DP-SGD clips gradients, to a fixed norm")
    if masking is not None:
        message = "does not go with masks: their ring, and the noise in it, are fitted to a fixed norm"
        raise _wrong(bundle, "adaptive_clip", message, "write a fixed max_grad_norm, or disable secure_aggregation")
    count_noise = asked.count_noise or max(cohort / 20, made.noise_multiplier)
    try:
        update_noise = effective_noise(made.noise_multiplier, count_noise)
    except ConfigurationError as error:
        raise _wrong(bundle, "adaptive_clip", str(error), f"write count_noise: {made.noise_multiplier:g}") from error
    recipe = AdaptiveClipRecipe(asked.target_quantile, asked.learning_rate, count_noise, update_noise)
    return replace(made, adaptive=recipe)


def _noise_for(made: PrivacyRecipe, masking: MaskingRecipe | None, rounds: int, target: float) -> float:
    """The noise multiplier that keeps an epsilon, to four digits and rounded up."""
    from fedloom.tasks.privacy.accounting import least_noise
    from fedloom.tasks.privacy.mechanism import spent

    noise = least_noise(lambda noise: spent(replace(made, noise_multiplier=noise), masking, rounds), target)
    return float(f"{noise * 1.00005:.5g}")


@dataclass(frozen=True)
class _Sums:
    sampling: str
    rate: float
    population: int = 0
    drawn: int = 0
    steps_per_round: int = 1


def _record_sums(bundle: JobBundle, inputs: WindowSpec, training: TrainingRecipe) -> _Sums:
    """Batches of a round: the same rate at every client, so that the cost does not depend on anyone's data.

    A client may be drawn in every round, so all rounds count.
    """
    rate = bundle.job.privacy.differential_privacy.sampling_rate
    if rate is None:
        assert bundle.fleet is not None
        samples = [count for count in bundle.fleet.attributes.get(_SAMPLES, ()) if count]
        if not samples:
            message = f"is missing, and the fleet has no column {_SAMPLES} to derive it from"
            raise _wrong(bundle, "sampling_rate", message)
        fewest = max(1, (int(min(samples)) - inputs.window_size) // inputs.stride + 1)
        rate = min(1.0, training.batch_size / fewest)
    return _Sums("poisson", rate, steps_per_round=training.local_epochs * math.ceil(1 / rate - 1e-9))


def _client_sums(bundle: JobBundle, selection: SelectionRecipe) -> _Sums:
    """Who is in a round's sum; a draw that prefers some clients is accounted as if it took all.

    So is one that depends on earlier rounds, or fits the cohort to a shape: chances are then not those of the formula.
    """
    from fedloom.tasks.selection.eligibility import ineligibility

    assert bundle.fleet is not None
    if bundle.job.weights != "uniform":
        at: Trail = ("orchestration_config", "aggregation", "weights")
        message = "with DP-FedAvg every client counts alike: the sum of weights has no noise"
        raise SpecError([bundle.problem("job", at, "error", message, "write weights: uniform")])
    eligible = sum(not reason for reason in ineligibility(bundle.fleet, selection))
    if selection.algorithm == "poisson" and selection.uniform:
        return _Sums("poisson", min(1.0, selection.target / max(eligible, 1)))
    if selection.algorithm == "random" and selection.uniform and selection.target < eligible:
        return _Sums("without_replacement", 1.0, eligible, selection.target)
    return _Sums("all", 1.0)


def contract_limits(bundle: JobBundle) -> list[Limit]:
    """What the data contract and its policy demand.

    Raises:
        SpecError: when the policy cannot be read.
    """
    privacy = bundle.contract.privacy if bundle.contract is not None else None
    if privacy is None:
        return []
    found = []
    demanded = privacy.differential_privacy
    if demanded is not None and demanded.enabled:
        found.append(Limit("the data contract", demanded.epsilon, demanded.delta, demanded.mechanism))
    if privacy.dp_policy_file is not None:
        found.append(_policy_limit(bundle, privacy.dp_policy_file))
    return found


def _policy_limit(bundle: JobBundle, name: str) -> Limit:
    from fedloom.specs.contract_parts import DpPolicy
    from fedloom.specs.documents import load_document
    from fedloom.specs.kinds import parse

    folder = (bundle.contract_path.parent if bundle.contract_path is not None else bundle.folder).resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        at: Trail = ("privacy", "dp_policy_file")
        raise SpecError([bundle.problem("contract", at, "error", f"{name} lies outside the contract's folder")])
    policy = parse(load_document(path), DpPolicy)
    budget, sgd = policy.privacy_budget, policy.dp_sgd
    share = budget.budget_allocation.total_budget if budget.budget_allocation is not None else None
    used = sgd if sgd is not None and sgd.enabled else None
    return Limit(
        f"the policy {name}",
        min(budget.epsilon, share or budget.epsilon),
        budget.delta,
        policy.dp_metadata.mechanism,
        used.noise_addition.noise_multiplier if used is not None and used.noise_addition is not None else None,
        used.gradient_clipping.max_norm if used is not None and used.gradient_clipping is not None else None,
    )


def _within(bundle: JobBundle, made: PrivacyRecipe, mechanism: str, limit: Limit) -> None:
    """Refuse a job that spends more than the data allows.

    Raises:
        SpecError: with the number that is too large or too small.
    """
    source = limit.source
    if limit.mechanism is not None and limit.mechanism != mechanism:
        raise _wrong(bundle, "mechanism", f"is {mechanism}, {source} demands {limit.mechanism}")
    if limit.epsilon is not None and made.epsilon > limit.epsilon * _CLOSE:
        message = f"the rounds cost {made.epsilon:.4g}, {source} allows {limit.epsilon:g}"
        raise _wrong(bundle, "epsilon", message, "add noise, or take fewer rounds")
    if limit.delta is not None and made.delta > limit.delta * _CLOSE:
        raise _wrong(bundle, "delta", f"is {made.delta:g}, {source} allows {limit.delta:g}")
    if limit.noise_multiplier is not None and made.noise_multiplier < limit.noise_multiplier:
        message = f"is {made.noise_multiplier:g}, {source} demands at least {limit.noise_multiplier:g}"
        raise _wrong(bundle, "noise_multiplier", message)
    if limit.clip is not None and made.adaptive is not None:
        raise _wrong(bundle, "adaptive_clip", f"may exceed the norm of {limit.clip:g} that {source} allows")
    if limit.clip is not None and made.clip > limit.clip:
        raise _wrong(bundle, "max_grad_norm", f"is {made.clip:g}, {source} allows {limit.clip:g}")


def _wrong(bundle: JobBundle, field: str, message: str, hint: str | None = None) -> SpecError:
    problem: Problem = bundle.problem("job", (*_AT, field), "error", message, hint)
    return SpecError([problem])
