"""One instance of a step on its own: is it one that the plan has?"""

from __future__ import annotations

from difflib import get_close_matches

from fedloom.flows.plan import Plan
from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.select import shard_clients
from fedloom.tasks.step import Outputs, Place, Run, record_loss


def check_instance(plan: Plan, name: str, round: int, shard: int | None) -> None:
    """Refuse a step, round or shard that the plan does not have.

    Raises:
        ConfigurationError: with what the plan has instead.
    """
    steps = {step.name: step for step in (*plan.setup, *plan.loop.steps)}
    if name not in steps:
        close = get_close_matches(name, steps, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(steps)}"
        raise ConfigurationError(f"the plan has no step {name!r}; {hint}")
    in_loop = steps[name] in plan.loop.steps
    if in_loop and not 1 <= round <= plan.loop.rounds:
        raise ConfigurationError(f"step {name!r} runs in rounds 1 to {plan.loop.rounds}; say which with --round")
    if not in_loop and round:
        raise ConfigurationError(f"step {name!r} runs before the rounds; leave out --round")
    if (steps[name].fan_out is None) != (shard is None):
        need = "needs" if shard is None else "takes no"
        raise ConfigurationError(f"step {name!r} {need} --shard")


def take_as_lost(run: Run, plan: Plan, name: str, round: int, shard: int | None, reason: str) -> Outputs:
    """Record the loss of a shard that an engine has given up, unless it has a result after all.

    Returns:
        The reason that counts, or the shard's outputs.

    Raises:
        ConfigurationError: when instances of this step may not be lost.
    """
    if shard is None or not any(step.name == name and step.may_be_lost for step in plan.loop.steps):
        raise ConfigurationError(f"step {name!r} has no shards that may be lost")
    shard_clients(Place(run, round, shard))  # refuses a shard that the round does not have
    found = Place(run, round).find(name, shard)
    if found is None:
        record_loss(run, name, round, shard, reason)
        return {"lost": reason}
    return {"lost": found["lost"]} if "lost" in found else dict(found["outputs"])
