"""One instance of a step in a process of its own, as an engine of containers runs it."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path

from fedloom.flows.plan import Plan, Step
from fedloom.tasks.errors import ConfigurationError, RunError, ShardLostError, one_line
from fedloom.tasks.losses import record_failure, record_loss, settle_shards
from fedloom.tasks.select import shard_clients
from fedloom.tasks.step import Outputs, Place, Run, run_step


def find_step(plan: Plan, name: str, round: int, shard: int | None) -> Step:
    """The step of a plan that an instance belongs to.

    Raises:
        ConfigurationError: when the plan has no such step, round or shard; it says what the plan has instead.
    """
    steps = {step.name: step for step in plan.steps}
    if name not in steps:
        close = get_close_matches(name, steps, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(steps)}"
        raise ConfigurationError(f"the plan has no step {name!r}; {hint}")
    in_loop = steps[name] in plan.loop.steps
    if in_loop and not 1 <= round <= plan.loop.rounds:
        raise ConfigurationError(f"step {name!r} runs in rounds 1 to {plan.loop.rounds}; say which with --round")
    if not in_loop and round:
        raise ConfigurationError(f"step {name!r} runs outside the rounds; leave out --round")
    if (steps[name].fan_out is None) != (shard is None):
        need = "needs" if shard is None else "takes no"
        raise ConfigurationError(f"step {name!r} {need} --shard")
    return steps[name]


def run_instance(
    run: Run, plan: Plan, name: str, round: int = 0, shard: int | None = None, settled: bool = False
) -> Outputs:
    """Run one instance of a step; engines that call it know of its end by the exit code of the process alone.

    Args:
        run: The run.
        plan: Its plan.
        name: The step.
        round: From 1; 0 for steps outside the rounds.
        shard: For steps that fan out.
        settled: The engine has given up the instances of earlier steps that left no result: where the plan lets
            them be lost, they are.

    Returns:
        The outputs; for a shard that was lost, the reason.

    Raises:
        RunError: when the run cannot go on.
    """
    step = find_step(plan, name, round, shard)
    place = Place(run, round, shard)
    try:
        if settled:
            for before in plan.steps:
                if before.name in step.needs and before.may_be_lost and before.fan_out is not None:
                    source = place.result(before.fan_out.step)["outputs"]
                    settle_shards(Place(run, round), before.name, source[before.fan_out.output])
        return run_step(run, name, round, shard)
    except ShardLostError as error:
        return {"lost": str(error)}
    except Exception as error:
        if step.may_be_lost and shard is not None:
            record_failure(place, name, error)
        if isinstance(error, RunError):
            raise
        raise RunError(f"step {name} failed: {one_line(error)}") from error


def take_as_lost(run: Run, plan: Plan, name: str, round: int, shard: int | None, reason: str) -> Outputs:
    """Record the loss of a shard that an engine has given up, unless it has a result after all.

    Returns:
        The reason that counts, or the shard's outputs.

    Raises:
        ConfigurationError: when instances of this step may not be lost.
    """
    if shard is None or not find_step(plan, name, round, shard).may_be_lost:
        raise ConfigurationError(f"step {name!r} has no shards that may be lost")
    shard_clients(Place(run, round, shard))  # refuses a shard that the round does not have
    found = Place(run, round).find(name, shard)
    if found is None:
        record_loss(run, name, round, shard, reason)
        return {"lost": reason}
    return {"lost": found["lost"]} if "lost" in found else dict(found["outputs"])


def write_outputs(outputs: Outputs, folder: Path) -> None:
    """Write each output to a file of its name: text as it is, nothing for None, the rest as JSON.

    Raises:
        OSError: when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in outputs.items():
        text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
        (folder / name).write_text(text, encoding="utf-8")
