"""What every spec model shares: strictness, and the types that recur."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Semver = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
FreeForm = dict[str, Any]
"""A section that fedloom keeps for people and does not act on."""


class Section(BaseModel):
    """A section of a spec: unknown keys are errors, values are not coerced across types.

    Building the validators is deferred until a model is first used, so that a command pays
    only for the kinds of spec that it reads.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=False,
        populate_by_name=False,
        protected_namespaces=(),
        allow_inf_nan=False,
        defer_build=True,
        ser_json_inf_nan="constants",
    )
