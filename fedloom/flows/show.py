"""A Plan for the eyes: a tree, Mermaid, Graphviz."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from fedloom.flows.aggregation_words import aggregation_lines, aggregation_notes
from fedloom.flows.estimate import estimate
from fedloom.flows.kinds import kind_notes
from fedloom.flows.outputs import output_notes
from fedloom.flows.plan import Plan, Step, plan_digest
from fedloom.flows.pseudonyms import pseudonym_notes
from fedloom.flows.recipe import DEFAULT_WINDOW
from fedloom.flows.selection import draws, score_of
from fedloom.flows.selection_checks import history_notes
from fedloom.specs.bundle import JobBundle
from fedloom.specs.canonical import plain
from fedloom.tasks.amounts import amount
from fedloom.tasks.learning_rate import training_of
from fedloom.tasks.recipe import Recipe
from fedloom.tasks.secure_aggregation.parameters import Assumptions, choose

_MOVED = {"train": "model down, update up", "evaluate": "model down", "aggregate": "update up"}


def as_tree(plan: Plan) -> str:
    """The DAG as an indented tree, with the digest and the estimates."""
    recipe, cost = plan.recipe, estimate(plan.recipe)
    lines = [f"{plan.job_id}  (kind {recipe.kind}, model {recipe.model_version}, seed {recipe.seed})"]
    lines += [f"├─ {step.name}{_remarks(step, cost.shards)}" for step in plan.setup]
    until = plan.loop.until
    lines.append(f"├─ rounds 1 … {plan.loop.rounds}  (ends early when {until.step}.{until.output})")
    for step in plan.loop.steps:
        lines.append(f"│  {'└─' if step is plan.loop.steps[-1] else '├─'} {step.name}{_remarks(step, cost.shards)}")
    lines += [f"{'└─' if step is plan.finish[-1] else '├─'} {step.name}" for step in plan.finish]
    lines += [
        "",
        f"clients per round    {_drawn(recipe)}, "
        f"at least {recipe.selection.minimum}, quorum {recipe.aggregation.quorum}",
        *(f"{'' if i else 'drawn by':<20} {words}" for i, words in enumerate(_how_drawn(recipe))),
        *aggregation_lines(recipe.aggregation),
        f"parameters           {_count(cost.parameters)}",
        f"per client and round {_bytes(cost.bytes_per_client_and_round)} ({_MOVED[recipe.kind]})",
        f"all rounds           {_bytes(cost.bytes_total)}",
        f"memory per shard     {_bytes(cost.memory_per_shard_bytes)} of tensors; shards a round: {cost.shards}",
        *_training(recipe),
        *_masking(recipe),
        *_privacy(recipe),
        f"plan digest          {plan_digest(plan)}",
    ]
    return "\n".join(lines)


def _training(recipe: Recipe) -> list[str]:
    """Where training starts and how its rate changes, if the job says either."""
    if recipe.kind != "train":
        return []
    lines = [] if recipe.model_source is None else [f"starts from          {recipe.model_source}"]
    if recipe.training.schedule is not None:
        shown = sorted({1, 1 + recipe.rounds // 4, 1 + recipe.rounds // 2, recipe.rounds})
        rates = [f"{training_of(recipe, number).learning_rate:.3g} in round {number}" for number in shown]
        lines.append(f"learning rate        {', '.join(rates)}")
    return lines


def _how_drawn(recipe: Recipe) -> list[str]:
    return [] if recipe.kind == "aggregate" else list(draws(recipe.selection))


def _drawn(recipe: Recipe) -> str:
    if recipe.kind == "aggregate":
        return "all that gave an update"
    return f"up to {recipe.selection.target} ({recipe.selection.algorithm})"


def _masking(recipe: Recipe) -> list[str]:
    rules = recipe.masking
    if rules is None:
        return []
    room = f"at least {rules.survivors} clients in a sum; {rules.bits} bits in a ring of {rules.ring_bits}"
    if rules.protocol == "two_server":
        return [f"secure aggregation   half of every update to each of two servers; {room}"]
    degrees = choose(recipe.selection.target, Assumptions(rules.corrupt, rules.dropout), rules.threshold)
    return [
        f"secure aggregation   each client shares with {degrees.neighbours} others, {degrees.threshold} of them open a "
        f"secret; {room}"
    ]


def _privacy(recipe: Recipe) -> list[str]:
    privacy = recipe.privacy
    if privacy is None:
        return []
    who = "one window of a client's data" if privacy.unit == "record" else "one client with all its data"
    how = {"poisson": f"Poisson sampling at {privacy.rate:.4g}", "all": "no amplification by sampling"}
    drawn = how.get(privacy.sampling, f"{privacy.drawn} of {privacy.population} clients")
    costs = epsilons(recipe)
    shown = [costs[i] for i in sorted({0, len(costs) // 4, len(costs) // 2, len(costs) - 1})]
    return [
        f"privacy of           {who}: noise {privacy.noise_multiplier:g} × clip {privacy.clip:g}, "
        f"{privacy.steps_per_round} noisy sums a round, {drawn}",
        f"epsilon at {privacy.delta:<9g} " + ", ".join(f"{cost:.3g} after round {number}" for number, cost in shown),
    ]


def epsilons(recipe: Recipe) -> tuple[tuple[int, float], ...]:
    """Round and epsilon so far, of each round, or of 50 where there are more."""
    from fedloom.tasks.privacy.accounting import epsilon_by_round
    from fedloom.tasks.privacy.mechanism import mechanism_of

    if recipe.privacy is None:
        return ()
    mechanism = mechanism_of(recipe.privacy, recipe.masking)
    return epsilon_by_round(mechanism, recipe.rounds, recipe.privacy.delta, "rdp")


def as_json(plan: Plan, bundle: JobBundle) -> str:
    """The plan, its digest, the estimates and the notes as JSON."""
    shown = {
        "kind": plan.recipe.kind,
        "digest": plan_digest(plan),
        "plan": plain(plan),
        "estimate": asdict(estimate(plan.recipe)),
        "epsilon_by_round": [{"round": number, "epsilon": cost} for number, cost in epsilons(plan.recipe)],
        "notes": notes(bundle),
    }
    return json.dumps(shown, indent=2, ensure_ascii=False)


def notes(bundle: JobBundle) -> list[str]:
    """What the job folder says that a run of the plan does not act upon."""
    job, found = bundle.job, []
    if job.metadata.status in ("completed", "failed", "archived"):
        found.append(f"the job's status is {job.metadata.status}, and it runs all the same")
    if bundle.schedule is not None or job.orchestration.schedule.type != "on_demand":
        found.append("the schedule is checked, and not carried out: a run starts when it is called")
    if bundle.rollout is not None or job.deployment is not None:
        found.append("the rollout is checked, and not carried out: a run ends with the gate")
    if job.orchestration.resources is not None:
        found.append(
            "resources are for clusters: a run on this machine takes what it needs; memory_gb must hold a step"
        )
    if job.monitoring is not None or job.compliance is not None:
        found.append("monitoring and compliance sections are kept for people and not acted upon")
    if job.resource_estimation is not None:
        found.append("resource_estimation is kept for people; the plan has estimates of its own")
    found += aggregation_notes(bundle)
    timing = job.orchestration.timing
    if timing is not None and timing.min_clients is not None and not timing.wait_for_min_clients:
        found.append("timing.min_clients does not count, as wait_for_min_clients is false")
    secure = job.privacy.secure_aggregation
    if secure.enabled and secure.protocol in ("threshold_paillier", "MPC"):
        found.append(
            f"for protocol {secure.protocol}, pairwise masks (SecAgg+) run: the server sees the sum alone, "
            "without homomorphic encryption or a second party"
        )
    if secure.enabled and secure.protocol == "two_server":
        found.append("two servers keep updates apart only while they do not work together: let two operators run them")
        unused = [name for name in ("threshold", "dropout_tolerance") if getattr(secure, name) is not None]
        if unused:
            found.append(
                f"with two servers nobody shares secrets: what the job says of {' and '.join(unused)} does not count"
            )
    inputs, private = job.model.input_schema, job.privacy.differential_privacy
    if private.enabled and job.model.model_source is not None:
        found.append("epsilon is that of this run's rounds: what the model it starts from had cost is not in it")
    overlap = -(-(inputs.window_size or DEFAULT_WINDOW) // (inputs.stride or inputs.window_size or DEFAULT_WINDOW))
    if private.enabled and private.mechanism == "DP-SGD" and overlap > 1:
        found.append(
            f"privacy is that of one window, and a sample is in up to {overlap} of them: "
            "for one sample the promise is weaker (group privacy)"
        )
    if job.model.input_schema.window_size is None:
        found.append(f"the job does not say how long a window is: it has {DEFAULT_WINDOW} samples")
    holdout = job.validation.holdout_dataset
    if holdout is not None and holdout.size is None and (holdout.stratified or holdout.stratify_by):
        found.append("the holdout has no size: all of it is used, and there is nothing to stratify")
    if job.model.input_schema.sampling_rate is not None:
        found.append("sampling_rate is kept for people: windows are counted in samples")
    found = kind_notes(job) + output_notes(job) + found + pseudonym_notes(bundle)
    return found + _contract_notes(bundle) + _selector_notes(bundle)


def _contract_notes(bundle: JobBundle) -> list[str]:
    found: list[str] = []
    contract = bundle.contract
    if contract is None:
        return found
    ranges = any(signal.min is not None or signal.max is not None for signal in contract.schema_.signals)
    if ranges or contract.constraints or contract.slas:
        found.append("the contract's ranges, constraints and service levels are not enforced by a run")
    if contract.contract_metadata.status in ("deprecated", "retired"):
        found.append(f"the contract is {contract.contract_metadata.status}, and used all the same")
    return found


def _selector_notes(bundle: JobBundle) -> list[str]:
    found: list[str] = []
    if bundle.fleet is not None:
        parts = [name for name, _ in score_of(bundle.job, bundle.selector, bundle.fleet)]
        if "quantity" in parts and len(parts) < 3 and not _named_metric(bundle):
            found.append(f"the fleet has columns for {' and '.join(parts)} alone: the score is made of them")
    if bundle.selector is None:
        return found
    found += history_notes(bundle)
    how, watch = bundle.selector.selection_algorithm, bundle.selector.monitoring
    if how.importance_metric is not None and how.algorithm != "importance_sampling":
        found.append(f"importance_metric does not count: clients are drawn by {how.algorithm}")
    if how.sampling_weights and how.algorithm != "weighted_random":
        found.append(f"sampling_weights do not count: clients are drawn by {how.algorithm}")
    if how.exploration_rate and how.algorithm in ("random", "poisson"):
        found.append(f"exploration_rate does not count: {how.algorithm} draws with equal chances anyway")
    if watch is not None and not watch.log_selection_decisions:
        found.append("selection decisions are recorded always, also with log_selection_decisions: false")
    return found


def _named_metric(bundle: JobBundle) -> bool:
    return bundle.selector is not None and bundle.selector.selection_algorithm.importance_metric is not None


def as_mermaid(plan: Plan) -> str:
    """A Mermaid flowchart; the rounds are a subgraph with an arrow back."""
    lines = ["flowchart TD", *(f"  {step.name}[{step.name}]" for step in (*plan.setup, *plan.finish))]
    lines.append(f'  subgraph rounds["round 1 … {plan.loop.rounds}"]')
    for step in plan.loop.steps:
        left, right = ("[[", "]]") if step.fan_out else ("[", "]")
        lines.append(f"    {step.name}{left}{_label(step)}{right}")
    lines += [f"    {a} --> {b}" for a, b in _edges(plan.loop.steps)]
    until = plan.loop.until
    lines += [
        f"    {plan.loop.steps[-1].name} -. not {until.output} .-> {plan.loop.steps[0].name}",
        "  end",
        *(f"  {a} --> {b}" for a, b in _edges(plan.setup)),
        *(f"  {a} --> {b}" for a, b in _around(plan)),
    ]
    return "\n".join(lines)


def as_dot(plan: Plan) -> str:
    """A Graphviz digraph."""
    lines = ["digraph plan {", "  rankdir=TB; node [shape=box];"]
    lines += [f'  "{step.name}";' for step in (*plan.setup, *plan.finish)]
    lines.append(f'  subgraph cluster_rounds {{ label="round 1 … {plan.loop.rounds}";')
    for step in plan.loop.steps:
        shape = ", peripheries=2" if step.fan_out else ""
        lines.append(f'    "{step.name}" [label="{_label(step)}"{shape}];')
    lines += [f'    "{a}" -> "{b}";' for a, b in _edges(plan.loop.steps)]
    first, last = plan.loop.steps[0].name, plan.loop.steps[-1].name
    lines += [f'    "{last}" -> "{first}" [style=dashed, label="not {plan.loop.until.output}"];', "  }"]
    lines += [f'  "{a}" -> "{b}";' for a, b in _edges(plan.setup)]
    lines += [f'  "{a}" -> "{b}";' for a, b in _around(plan)]
    return "\n".join([*lines, "}"])


def _around(plan: Plan) -> Iterator[tuple[str, str]]:
    """From the set-up into the rounds, and out of them."""
    yield from ((step.name, plan.loop.steps[0].name) for step in plan.setup[-1:])
    yield from ((plan.loop.steps[-1].name, step.name) for step in plan.finish[:1])
    yield from _edges(plan.finish)


def _edges(steps: tuple[Step, ...]) -> Iterator[tuple[str, str]]:
    return ((need, step.name) for step in steps for need in step.needs)


def _label(step: Step) -> str:
    return f"{step.name} × {step.fan_out.output}" if step.fan_out else step.name


def _remarks(step: Step, shards: int) -> str:
    remarks = [f"needs {', '.join(step.needs)}"] if step.needs else []
    if step.fan_out:
        remarks.append(f"one per shard, up to {shards}" if step.fan_out.output == "shards" else "one per chunk")
    if step.may_be_lost:
        remarks.append("a lost shard is judged by the quorum")
    return f"  ({'; '.join(remarks)})" if remarks else ""


def _count(number: int | None) -> str:
    return "depends on the custom class" if number is None else f"{number:,}"


def _bytes(number: int | None) -> str:
    return "depends on the custom class" if number is None else amount(number)
