"""The recipe: what the steps of a run read, and nothing that does not change its outcome.

The compiler makes it from the specs; the plan's digest covers it. Everything here is a JSON value.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedloom.tasks.recipe.aggregation import AggregationRecipe, MaskingRecipe
from fedloom.tasks.recipe.evaluation import Bound, EvaluationRecipe
from fedloom.tasks.recipe.model import ModelRecipe, Scalar, Setting
from fedloom.tasks.recipe.privacy import AdaptiveClipRecipe, PrivacyRecipe
from fedloom.tasks.recipe.selection import SelectionRecipe
from fedloom.tasks.recipe.training import TrainingRecipe
from fedloom.tasks.window_spec import WindowSpec

__all__ = [
    "AdaptiveClipRecipe",
    "AggregationRecipe",
    "Bound",
    "EvaluationRecipe",
    "MaskingRecipe",
    "ModelRecipe",
    "PrivacyRecipe",
    "Recipe",
    "Scalar",
    "SelectionRecipe",
    "Setting",
    "TrainingRecipe",
]


@dataclass(frozen=True)
class Recipe:
    """Everything that steps of one job read.

    Attributes:
        job_id: The job.
        model_version: Version of the model that the job makes.
        seed: Where all randomness comes from.
        rounds: Rounds at most.
        fleet_digest: SHA-256 of the roster.
        threads: Threads of a step; fixed, because sums depend on how they are split.
        masking: Secure aggregation; None for updates that the server may see.
        privacy: Differential privacy; None for none.
        baseline: The run leaves out the privacy that its job promises, for comparison; its model is never released.
    """

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
