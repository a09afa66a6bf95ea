"""Updates that others made: their index, and who of it takes part in an aggregation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import IO, Any

from pydantic import BaseModel, ValidationError

from fedloom.specs.canonical import sha256
from fedloom.specs.locations import parse_location, resolve_inside
from fedloom.specs.update_index import UpdateEntry, UpdateIndex
from fedloom.tasks.errors import ConfigurationError, RunError, one_line
from fedloom.tasks.step import Place, Run

INDEX = "index.json"
_MOST_INDEX_BYTES = 256 << 20


class GivenError(Exception):
    """A file of given updates that cannot be used; the message is the reason."""


@dataclass(frozen=True)
class Given:
    """What an index says.

    Attributes:
        sha256: Of the index.
        entries: By client, its latest update.
        refused: By client (or "entry N" where none is named), why what it gave does not count.
        now: The current round.
    """

    sha256: str
    entries: dict[str, UpdateEntry]
    refused: dict[str, str]
    now: int


def read_index(place: Place) -> Given:
    """Read the index of the job's updates; a wrong entry is refused, and the others count.

    Of several updates of a client that for the latest round counts; of two for that round, none does.

    Raises:
        ConfigurationError: when there is no index, it is no such index, or its updates change another model.
        RunError: when a URL cannot be read.
    """
    run = place.run
    rules = run.recipe.given
    assert rules is not None, "only an aggregation has given updates"
    at = f"{rules.location}/{INDEX}"
    try:
        data = read_given(run, INDEX, _MOST_INDEX_BYTES)
        index = UpdateIndex.model_validate(json.loads(data))
    except GivenError as error:
        kind = RunError if "://" in rules.location else ConfigurationError  # a server may answer the next time
        raise kind(f"the updates in {rules.location} cannot be read: {INDEX}: {error}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{at} is no index of updates: {_first(error)}") from error
    except ValueError as error:
        raise ConfigurationError(f"{at} is no JSON: {error}") from error
    _check_base(place, index.base_model, at)
    given: dict[str, list[UpdateEntry]] = {}
    refused: dict[str, str] = {}
    for number, raw in enumerate(index.updates, start=1):
        try:
            entry = UpdateEntry.model_validate(raw)
        except ValidationError as error:
            name = raw.get("client")
            who = name if isinstance(name, str) and name and name.isprintable() else f"entry {number}"
            refused[who] = f"{INDEX}: {_first(error)}"
            continue
        given.setdefault(entry.client, []).append(entry)
    entries: dict[str, UpdateEntry] = {}
    for client, own in given.items():
        last = max(entry.round for entry in own)
        entry, *others = (entry for entry in own if entry.round == last)
        if others:
            refused.setdefault(client, f"it gave two updates for round {last}")
        if client not in refused:
            entries[client] = entry
    latest = max((entry.round for entry in entries.values()), default=0)
    return Given(sha256(data), entries, refused, latest if index.round is None else index.round)


def _check_base(place: Place, base: str | None, at: str) -> None:
    own = place.result("initialise", round=0)["outputs"]
    known = {own["model_digest"], own["source_digest"], place.run.recipe.model_source_digest}
    if base is not None and base not in known:
        model = own["model_digest"]
        raise ConfigurationError(f"{at} has changes of the model {base[:12]}…, and model_source is {model[:12]}…")


def read_given(run: Run, name: str, most: int) -> bytes:
    """A file of the folder of updates.

    Args:
        run: The run; a path of its job stays in the job's folder.
        name: Relative to the index.
        most: Bytes that it may have.

    Raises:
        GivenError: when it cannot be read, leads out of the folder, or is larger.
    """
    assert run.recipe.given is not None, "only an aggregation has given updates"
    folder = parse_location(run.recipe.given.location)
    try:
        inside = parse_location(name)
        if inside.kind != "file":
            raise GivenError(f"{name!r} is no relative path")
        if folder.kind == "url":
            data = _from_url(f"{folder.path.rstrip('/')}/{inside.path}", most)
        else:
            path = resolve_inside(resolve_inside(run.folder, folder.path), inside.path)
            if path.exists() and not path.is_file():
                raise GivenError("it is no file")
            with path.open("rb") as stream:
                data = stream.read(most + 1)
    except FileNotFoundError as error:
        raise GivenError("it is not there") from error
    except OSError as error:
        raise GivenError(error.strerror or one_line(error)) from error
    except ValueError as error:
        raise GivenError(str(error)) from error
    if len(data) > most:
        raise GivenError(f"it is larger than {most:,} bytes")
    return data


def _from_url(url: str, most: int) -> bytes:
    import fsspec

    try:
        stream: IO[bytes]
        with fsspec.open(url, "rb") as stream:
            return bytes(stream.read(most + 1))
    except FileNotFoundError:
        raise
    except Exception as error:  # every file system has exceptions of its own
        raise GivenError(one_line(error)) from error


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in found["loc"])
    said = f"{where}: {found['msg']}" if where else str(found["msg"])
    return "".join(char if char.isprintable() else "?" for char in said)  # keys may hold anything


def as_json(model: BaseModel) -> Any:
    """What the store keeps of an entry."""
    return model.model_dump(mode="json")
