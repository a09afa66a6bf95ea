"""The index of given updates: what an aggregate job combines, and who made it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from fedloom.specs.base import Section
from fedloom.specs.fields import Count, Name, Natural, NotNegative, Number


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


Text = Annotated[Name, AfterValidator(_printable)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class UpdateEntry(Section):
    """One client's update."""

    client: Text = Field(description="The client's id in the fleet.")
    file: Text = Field(description="Its safetensors file, relative to the index: new minus old parameters, by name.")
    sha256: Digest = Field(description="SHA-256 of the file, 64 hex digits.")
    samples: Count = Field(description="Windows that it was trained on.")
    round: Natural = Field(0, description="The round that it was made for; how late it is follows from it.")
    loss: Number | None = Field(None, description="Mean loss per window after training.")
    loss_before: Number | None = Field(None, description="Mean loss per window of the old model.")
    weight: NotNegative | None = Field(
        None, description="Its weight, where the job's weights are custom; that of the fleet's column if not given."
    )


class UpdateIndex(Section):
    """All updates of a folder, ``index.json``. Entries are checked one by one: a wrong one is a dropout."""

    base_model: Digest | None = Field(None, description="SHA-256 of the model that the updates are changes of.")
    round: Natural | None = Field(None, description="The current round; the latest of the updates' if not given.")
    updates: tuple[dict[str, Any], ...] = Field(description="The updates, see UpdateEntry.")
