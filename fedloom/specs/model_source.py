"""Where a trained model comes from: the one rule for what ``model_source`` may say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from fedloom.specs.locations import parse_location
from fedloom.specs.short_forms import canonical_job_id

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_JOB = re.compile(r"fl-[a-z0-9-]+")
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class ModelSource:
    """A parsed model source.

    Attributes:
        kind: "champion" (the released model of a job), "run" (the last model of a run), "file" or "url".
        name: The job's id ("" for the job that says so), the run's id, the relative path, or the whole URL.
    """

    kind: Literal["champion", "run", "file", "url"]
    name: str


def parse_model_source(text: str) -> ModelSource:
    """Read a model source: ``champion``, ``champion:JOB_ID``, ``run:RUN_ID``, a path or a URL of a .safetensors file.

    Raises:
        ValueError: The text is none of these; the message says what to write.
    """
    head, _, rest = text.partition(":")
    if text == "champion":
        return ModelSource("champion", "")
    if head == "champion":
        job = canonical_job_id(rest)
        if not _JOB.fullmatch(job):
            raise ValueError(f"'{rest}' is no job id; write champion:JOB_ID")
        return ModelSource("champion", job)
    if head == "run":
        if not _RUN.fullmatch(rest):
            raise ValueError(f"'{rest}' is no run id; write run:RUN_ID, as the run's last line names it")
        return ModelSource("run", rest)
    path = re.split(r"[#?]", text)[0]
    if PurePosixPath(path).suffix.lower() in (".md", ".yaml", ".yml", ".json", ".html", ".txt"):
        raise ValueError(f"'{path}' is a document, not a model")
    if PurePosixPath(path).suffix != SUFFIX:
        raise ValueError(f"'{text}' names no {SUFFIX} file")
    location = parse_location(text)
    if location.kind == "dataset":
        raise ValueError("a data set holds no models")
    return ModelSource("file" if location.kind == "file" else "url", location.path)
