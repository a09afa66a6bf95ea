"""What a job asks to be left outside the run's own records: models, their records, reports."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.specs.bundle import JobBundle
from fedloom.specs.job import Job
from fedloom.specs.locations import parse_location
from fedloom.specs.trails import Trail
from fedloom.tasks.recipe import OutputRecipe

MODELS = ("safetensors", "pytorch")
REPORTS = ("json", "markdown", "html")
RECORDS = (
    "client_participation",
    "aggregation_weights",
    "quality_check_results",
    "byzantine_exclusions",
    "convergence_metrics",
)
_DRAWN = ("generate_confusion_matrix", "generate_roc_curve", "generate_calibration_plot")


def output_unbuilt(job: Job) -> Iterator[tuple[Trail, str]]:
    """What a job asks for and a run cannot leave behind."""
    asked = job.output
    if asked is None:
        return
    if asked.format not in (None, *MODELS):
        yield ("output", "format"), f"a model in the format {asked.format} is not built; there are {', '.join(MODELS)}"
    if asked.report_format not in (None, *REPORTS):
        message = f"a report as {asked.report_format} is not built; write html, and print it from a browser"
        yield ("output", "report_format"), message
    for i, name in enumerate(asked.metadata_includes):
        if name not in RECORDS:
            yield ("output", "metadata_includes", i), f"there is no record {name}; there are {', '.join(RECORDS)}"


def output_lacks(bundle: JobBundle) -> Iterator[tuple[str, Trail, str, str | None]]:
    """Destinations that lead out of the run store, or to none."""
    asked = bundle.job.output
    for name in ("destination", "report_destination") if asked is not None else ():
        place = getattr(asked, name)
        if place is None:
            continue
        hint = "write a folder, which lies below exports/ in the run store, or a URL such as s3://bucket/models"
        try:
            if parse_location(place.rstrip("/")).kind == "dataset":
                yield "job", ("output", name), "a data set takes no files", hint
        except ValueError as error:
            yield "job", ("output", name), str(error), hint


def output_notes(job: Job) -> list[str]:
    """What a job says of its outputs and a run does not act upon."""
    asked = job.output
    if asked is None:
        return []
    found = []
    if asked.report_destination is not None and asked.report_format is None:
        found.append("no report is exported: report_format says none")
    if asked.report_format != "html" and any(getattr(asked, name) for name in _DRAWN):
        found.append("drawings are part of the HTML report: fedloom report RUN writes it, or report_format: html")
    if job.kind == "evaluate" and (asked.destination is not None or asked.format is not None):
        found.append("no model is exported: an evaluation makes none")
    return found


def output_recipe(job: Job) -> OutputRecipe | None:
    """What a run exports; None where it exports nothing."""
    asked = job.output
    if asked is None:
        return None
    model = (asked.format or MODELS[0]) if asked.save_aggregated_model and job.kind != "evaluate" else None
    wanted = asked.save_metadata and (model is not None or bool(asked.metadata_includes))
    records = asked.metadata_includes if wanted else None
    if model is None and records is None and asked.report_format is None:
        return None
    return OutputRecipe(
        model=model,
        model_to=_place(asked.destination),
        records=records,
        report=asked.report_format,
        report_to=_place(asked.report_destination),
    )


def _place(destination: str | None) -> str:
    return "" if destination is None else str(parse_location(destination.rstrip("/")))
