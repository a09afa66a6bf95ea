"""The progress of a run on the terminal: one line a round, and a bar where there is a terminal."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from fedloom.flows.events import StepDone
from fedloom.flows.plan import Plan


class ProgressDisplay:
    """A listener that prints; use it as a context manager.

    Attributes:
        plan: The plan that runs.
    """

    def __init__(self, plan: Plan, stream: TextIO) -> None:
        self.plan = plan
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[step]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(plan.job_id, total=plan.loop.rounds, step="")
        self._outputs: dict[str, dict[str, Any]] = {}
        self._recent: deque[float] = deque(maxlen=5)  # rounds that were found finished should not count for long
        self._round_started = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, event: StepDone) -> None:
        """Take note of a finished step."""
        if not event.round:  # imports and set-up must not spoil the estimate
            self._round_started = time.monotonic()
        shard = "" if event.shard is None else f" shard {event.shard:02d}"
        self._bar.update(self._task, step=f"round {event.round} {event.step}{shard}")
        if event.lost is not None:
            self._console.print(f"round {event.round}: {event.step}{shard} was lost ({event.lost})", markup=False)
        if event.outputs is not None:
            self._outputs[event.step] = event.outputs
            if warning := event.outputs.get("warning"):
                self._console.print(f"warning: {warning}", markup=False)
        if event.step == self.plan.loop.until.step:
            self._round_done(event.round)

    def _round_done(self, round: int) -> None:
        now = time.monotonic()
        self._recent.append(now - self._round_started)
        took, measured = self._outputs["aggregate"], self._outputs["evaluate"]["metrics"]
        loss = "–" if took["train_loss"] is None else f"{took['train_loss']:.4f}"
        shown = [name for name in self.plan.recipe.evaluation.metrics if name in measured][:2]
        for line in _dropouts(took["dropouts"]):
            self._console.print(f"round {round}: {line}", markup=False)
        for line in _remarks(took):
            self._console.print(f"round {round}: {line}", markup=False)
        if self._outputs["select"]["skipped"] is not None:
            self._console.print(f"round {round}: skipped, {self._outputs['select']['skipped']}", markup=False)
        if self._outputs["select"]["low_eligibility"]:
            self._console.print(f"round {round}: only {self._outputs['select']['eligible']} clients were eligible")
        parts = [
            f"round {round:>{len(str(self.plan.loop.rounds))}}/{self.plan.loop.rounds}",
            f"clients {took['participants']}/{took['cohort']}",
            *([f"loss {loss}"] if self.plan.recipe.kind != "evaluate" else []),
            *(f"{name} {measured[name]:.4f}" for name in shown),
            f"{now - self._round_started:.1f} s",
        ]
        if self._outputs["gate"]["stop"]:
            parts.append(self._outputs["gate"]["stop_reason"])
        else:
            parts.append(f"ETA {_clock(sum(self._recent) / len(self._recent) * (self.plan.loop.rounds - round))}")
        self._console.print("  ".join(parts), markup=False)
        self._bar.update(self._task, completed=round)
        self._round_started = now


def _dropouts(dropouts: list[dict[str, str]]) -> list[str]:
    """At most three lines: the commonest reasons, each with the number of clients and one of them."""
    by_reason: dict[str, list[str]] = {}
    for dropout in dropouts:
        by_reason.setdefault(dropout["reason"], []).append(dropout["client"])
    common = sorted(by_reason.items(), key=lambda item: -len(item[1]))[:3]
    return [
        f"lost {clients[0]}{f' and {len(clients) - 1} more' if len(clients) > 1 else ''}: {reason}"
        for reason, clients in common
    ]


def _remarks(took: dict[str, Any]) -> list[str]:
    """Updates that did not count, or drew attention: one line for each check, with the number and one of them."""
    found: list[str] = []
    for what in ("excluded", "flagged", "clipped"):
        checks: dict[str, list[dict[str, str]]] = {}
        for remark in took[what]:
            checks.setdefault(remark["check"], []).append(remark)
        found += [
            f"{what} {listed[0]['client']}{f' and {len(listed) - 1} more' if len(listed) > 1 else ''}: "
            f"{listed[0]['reason']}"
            for listed in checks.values()
        ]
        if took["remarks"][what] > len(took[what]):
            found.append(f"{what} in all: {took['remarks'][what]}")
    if took["aborted"] is not None:
        found.append(f"no new model: secure aggregation gave no sum: {took['aborted']}")
    return found if took["withheld"] is None else [*found, f"no new model: {took['withheld']}"]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
