"""The recipe: what the steps of a run read, and nothing that does not change its outcome.

The compiler makes it from the specs; the plan's digest covers it. Everything here is a JSON value.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedloom.tasks.recipe.aggregation import (
    AggregationRecipe,
    CheckRecipe,
    MaskingRecipe,
    RobustRecipe,
    ServerOptimizerRecipe,
    StalenessRecipe,
)
from fedloom.tasks.recipe.evaluation import (
    Bound,
    ConfidenceRecipe,
    DriftRecipe,
    EvaluationRecipe,
    GapRecipe,
    RobustnessRecipe,
)
from fedloom.tasks.recipe.given import GivenRecipe
from fedloom.tasks.recipe.measuring import MeasuringRecipe
from fedloom.tasks.recipe.model import ModelRecipe, Scalar, Setting
from fedloom.tasks.recipe.output import OutputRecipe
from fedloom.tasks.recipe.privacy import AdaptiveClipRecipe, PrivacyRecipe
from fedloom.tasks.recipe.selection import AutoBlockRecipe, ColumnWeight, FairnessRecipe, SelectionRecipe
from fedloom.tasks.recipe.training import ScheduleRecipe, TrainingRecipe
from fedloom.tasks.window_spec import WindowSpec

__all__ = [
    "AdaptiveClipRecipe",
    "AggregationRecipe",
    "AutoBlockRecipe",
    "Bound",
    "CheckRecipe",
    "ColumnWeight",
    "ConfidenceRecipe",
    "DriftRecipe",
    "EvaluationRecipe",
    "FairnessRecipe",
    "GapRecipe",
    "GivenRecipe",
    "MaskingRecipe",
    "MeasuringRecipe",
    "ModelRecipe",
    "OutputRecipe",
    "PrivacyRecipe",
    "Recipe",
    "RobustRecipe",
    "RobustnessRecipe",
    "Scalar",
    "ScheduleRecipe",
    "SelectionRecipe",
    "ServerOptimizerRecipe",
    "Setting",
    "StalenessRecipe",
    "TrainingRecipe",
]


@dataclass(frozen=True)
class Recipe:
    """Everything that steps of one job read.

    Attributes:
        kind: "train", "evaluate" (no update of the model) or "aggregate" (of updates that are given).
        job_id: The job.
        model_version: Version of the model that the job makes.
        seed: Where all randomness comes from.
        rounds: Rounds at most.
        fleet_digest: SHA-256 of the roster.
        threads: Threads of a step; fixed, because sums depend on how they are split.
        masking: Secure aggregation; None for updates that the server may see.
        privacy: Differential privacy; None for none.
        baseline: The run leaves out the privacy that its job promises, for comparison; its model is never released.
        measuring: What clients measure; None but in a job of kind evaluate.
        given: The updates of a job of kind aggregate; None in others.
        increment: The part of the version that grows with a release: "major", "minor" or "patch"; None for none.
        output: What it leaves for others; None for nothing.
        model_source: The trained model to start from; None for parameters drawn from the seed.
        model_source_digest: SHA-256 of its file, where that lies in the job's folder.
    """

    kind: str
    job_id: str
    model_version: str
    seed: int
    rounds: int
    fleet_digest: str
    threads: int
    model: ModelRecipe
    inputs: WindowSpec
    selection: SelectionRecipe
    training: TrainingRecipe
    aggregation: AggregationRecipe
    masking: MaskingRecipe | None
    privacy: PrivacyRecipe | None
    baseline: bool
    evaluation: EvaluationRecipe
    measuring: MeasuringRecipe | None
    given: GivenRecipe | None
    increment: str | None
    output: OutputRecipe | None
    model_source: str | None
    model_source_digest: str | None

    @property
    def single_updates(self) -> bool:
        """Whether the server sees the update of every client, and not sums of them."""
        return self.aggregation.single_updates or self.kind == "aggregate"
