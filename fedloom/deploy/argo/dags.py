"""The DAGs of a plan: the rounds of its loop, and what is around them."""

from __future__ import annotations

from collections.abc import Sequence

from hera.workflows import models as m

from fedloom.flows.plan import OutputRef, Plan, Step
from fedloom.specs.problems import Problem, SpecError

MAIN, ROUNDS, ROUND = "main", "rounds", "round"
MOST_TASKS = 200
"""Tasks of a DAG, and templates of a workflow, that Argo's v4 definitions allow."""
_BLOCK = 100
_TEMPLATES_LEFT = 150  # of the 200, for blocks of rounds; the rest are steps
Names = dict[str, str]


def rounds_dags(plan: Plan) -> list[m.Template]:
    """The chain of rounds; beyond 200, a chain of blocks of them.

    A round that follows the last one is skipped, and those after it are omitted: their dependency did not succeed.

    Raises:
        SpecError: when there are more rounds than Argo's limits leave room for.
    """
    rounds, stop = plan.loop.rounds, plan.loop.until.output
    if rounds > _BLOCK * _TEMPLATES_LEFT:
        message = f"{rounds:,} rounds are more than one workflow can hold: {_BLOCK * _TEMPLATES_LEFT:,}"
        raise SpecError([Problem("error", message, plan.job_id, path="training_config.global_training.num_rounds")])
    digits = len(str(rounds))
    names = [f"{ROUND}-{number:0{digits}d}" for number in range(1, rounds + 1)]
    if rounds <= MOST_TASKS:
        return [_chain(ROUNDS, names, [ROUND] * rounds, stop, range(1, rounds + 1))]
    blocks, block_names = [], []
    for first in range(0, rounds, _BLOCK):
        inside = names[first : first + _BLOCK]
        name = f"{ROUNDS}-{first + 1:0{digits}d}"
        block = _chain(name, inside, [ROUND] * len(inside), stop, range(first + 1, first + len(inside) + 1))
        # Where the block's last round did not run, the loop had ended before.
        ended = m.ValueFrom(parameter=_output(inside[-1], stop), default="true")
        block.outputs = m.Outputs(parameters=[m.Parameter(name=stop, value_from=ended)])
        blocks.append(block)
        block_names.append(name)
    return [_chain(ROUNDS, block_names, block_names, stop), *blocks]


def _chain(
    name: str, tasks: Sequence[str], templates: Sequence[str], stop: str, rounds: range | None = None
) -> m.Template:
    made = []
    for i, (task, template) in enumerate(zip(tasks, templates, strict=True)):
        made.append(m.DAGTask(name=task, template=template))
        if i:
            made[-1].depends = f"{tasks[i - 1]}.Succeeded"
            made[-1].when = f"'{_output(tasks[i - 1], stop)}' != 'true'"
        if rounds is not None:
            made[-1].arguments = _arguments({"round": str(rounds[i])})
    return m.Template(name=name, dag=m.DAGTemplate(tasks=made))


def round_dag(plan: Plan, names: Names, job_id: str) -> m.Template:
    """One round. Its shards all come to an end, and what the lost ones mean is for the quorum to say."""
    loop = plan.loop
    tasks = [_task(step, loop.steps, names, {"round": "{{inputs.parameters.round}}"}) for step in loop.steps]
    ended = m.ValueFrom(parameter=_output(names[loop.until.step], loop.until.output))
    return m.Template(
        name=ROUND,
        inputs=m.Inputs(parameters=[m.Parameter(name="round")]),
        outputs=m.Outputs(parameters=[m.Parameter(name=loop.until.output, value_from=ended)]),
        dag=m.DAGTemplate(fail_fast=False, tasks=tasks),
        metrics=m.Metrics(
            prometheus=[
                m.Prometheus(
                    name="fedloom_round_seconds",
                    help="How long a round took.",
                    labels=[m.MetricLabel(key="job", value=job_id)],
                    gauge=m.Gauge(realtime=False, value="{{duration}}"),
                )
            ]
        ),
    )


def main_dag(plan: Plan, names: Names, after: str | None) -> m.Template:
    """The whole run: set-up, rounds, finish.

    Args:
        plan: The plan.
        names: Template name of each step.
        after: A template that runs when all else has succeeded.
    """
    tasks = [_task(step, plan.setup, names, {}) for step in plan.setup]
    tasks.append(m.DAGTask(name=ROUNDS, template=ROUNDS, depends=_all(_last(plan.setup), names)))
    for step in plan.finish:
        tasks.append(_task(step, plan.finish, names, {}))
        tasks[-1].depends = tasks[-1].depends or f"{ROUNDS}.Succeeded"
    if after is not None:
        ends = _all(_last(plan.finish), names) or f"{ROUNDS}.Succeeded"
        tasks.append(m.DAGTask(name=after, template=after, depends=ends))
    return m.Template(name=MAIN, dag=m.DAGTemplate(tasks=tasks))


def read_outputs(plan: Plan, step: Step) -> list[str]:
    """The outputs of a step that the DAG or a monitoring system reads, in a fixed order."""
    refs = [plan.loop.until, *(other.fan_out for other in plan.steps if other.fan_out)]
    read = [ref.output for ref in refs if ref.step == step.name] + [measure.output for measure in step.measures]
    return list(dict.fromkeys(read))


def loses_shards(plan: Plan, step: Step) -> bool:
    """Whether a step that this one needs may have lost shards."""
    return any(other.name in step.needs and other.may_be_lost for other in plan.steps)


def _task(step: Step, part: Sequence[Step], names: Names, arguments: dict[str, str]) -> m.DAGTask:
    task = m.DAGTask(name=names[step.name], template=names[step.name])
    if needed := _all([other for other in part if other.name in step.needs], names):
        task.depends = needed
    if step.fan_out is not None:
        arguments = {**arguments, "shard": "{{item}}"}
        task.with_param = _ref(step.fan_out, names)
    if arguments:
        task.arguments = _arguments(arguments)
    return task


def _all(steps: Sequence[Step], names: Names) -> str | None:
    conditions = [_settled(names[step.name]) if step.may_be_lost else f"{names[step.name]}.Succeeded" for step in steps]
    if len(conditions) > 1:
        conditions = [f"({each})" if "||" in each else each for each in conditions]
    return " && ".join(conditions) or None


def _settled(name: str) -> str:
    """However its instances ended; AllFailed would not count those whose pods were evicted (Errored)."""
    return f"{name}.Succeeded || {name}.Failed || {name}.Errored"


def _last(part: Sequence[Step]) -> list[Step]:
    needed = {need for step in part for need in step.needs}
    return [step for step in part if step.name not in needed]


def _arguments(values: dict[str, str]) -> m.Arguments:
    return m.Arguments(parameters=[m.Parameter(name=name, value=value) for name, value in values.items()])


def _ref(ref: OutputRef, names: Names) -> str:
    return _output(names[ref.step], ref.output)


def _output(task: str, output: str) -> str:
    return f"{{{{tasks.{task}.outputs.parameters.{output}}}}}"
