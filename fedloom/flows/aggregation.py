"""How a job's aggregation becomes what the steps read."""

from __future__ import annotations

from fedloom.specs.job import Job
from fedloom.tasks.recipe import AggregationRecipe


def aggregation_recipe(job: Job) -> AggregationRecipe:
    """How updates become the next model."""
    asked = job.orchestration.aggregation
    return AggregationRecipe(weights=asked.weights, quorum=job.orchestration.quorum)
