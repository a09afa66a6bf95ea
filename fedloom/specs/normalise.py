"""From what a user wrote to the canonical tree of a job, remembering where everything came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedloom.specs.short_forms import (
    ALSO_BESIDE_SECTIONS,
    EXPANSIONS,
    FLAT,
    LISTS,
    MOVES,
    REQUIRED_SECTIONS,
    SECTIONS,
    SPREADS,
    canonical_job_id,
    list_items,
)
from fedloom.specs.trails import Trail

__all__ = ["Normalised", "canonical_job_id", "normalise_job", "origin_of"]

_ABSENT: Any = object()
_DEFAULT_VERSION = "1.0.0"
_KIND_MARKS: tuple[tuple[Trail, str], ...] = (
    (("validation_config", "evaluation_mode"), "evaluate"),
    (("aggregation_config", "updates"), "aggregate"),
)
"""What makes a job of a kind where it does not say its kind."""


@dataclass(frozen=True)
class Normalised:
    """A job in canonical form.

    Attributes:
        tree: The canonical tree, not yet checked.
        origins: Canonical place to the place in the user's file, where the two differ.
        conflicts: Pairs of places in the user's file that give the same value twice.
    """

    tree: dict[str, Any]
    origins: Mapping[Trail, Trail]
    conflicts: tuple[tuple[Trail, Trail], ...] = ()


def origin_of(origins: Mapping[Trail, Trail], trail: Trail) -> Trail:
    """Where the value at a canonical place stands in the user's file."""
    for end in range(len(trail), 0, -1):
        found = origins.get(trail[:end])
        if found is not None:
            return found + trail[end:]
    return trail


def normalise_job(data: Mapping[str, Any]) -> Normalised:
    """Write a job in its canonical form; keys that no form knows stay where they are."""
    work = _Work(data)
    work.spread_all()
    flat_moves = [((key,), place) for key, place in FLAT.items() if key in data]
    for source, target in sorted([*MOVES, *flat_moves], key=lambda move: len(move[1])):
        work.move(source, target)
    work.spread_all()  # Those that a flat key brought.
    for trail in EXPANSIONS:
        work.expand(trail)
    work.expand_lists()
    if _is_flat(data):
        work.complete_flat(data)
    work.prefix_job_id()
    work.say_kind()
    return Normalised(work.tree, work.origins, tuple(work.conflicts))


def _is_flat(data: Mapping[str, Any]) -> bool:
    flat = any(key in FLAT and key not in ALSO_BESIDE_SECTIONS for key in data)
    return flat or not any(key in SECTIONS for key in data)


class _Work:
    """A tree that is being rewritten."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.tree: dict[str, Any] = {key: _copy(value) for key, value in data.items()}
        self.origins: dict[Trail, Trail] = {}
        self.conflicts: list[tuple[Trail, Trail]] = []

    def get(self, trail: Trail) -> Any:
        node: Any = self.tree
        for step in trail:
            if not isinstance(node, dict) or step not in node:
                return _ABSENT
            node = node[step]
        return node

    def pop(self, trail: Trail) -> Any:
        parent = self.get(trail[:-1])
        return parent.pop(trail[-1], _ABSENT) if isinstance(parent, dict) else _ABSENT

    def move(self, source: Trail, target: Trail) -> None:
        came_from = origin_of(self.origins, source)
        value = self.pop(source)
        if value is not _ABSENT:
            self.place(target, value, came_from)

    def place(self, target: Trail, value: Any, came_from: Trail) -> None:
        node: Any = self.tree
        for end, step in enumerate(target[:-1], start=1):
            if isinstance(node, dict) and step not in node:
                node[step] = {}
            self.expand(target[:end])
            node = node[step] if isinstance(node, dict) else None
        if not isinstance(node, dict):
            return  # The section is no mapping, which is reported as such.
        if target[-1] in node:
            self.conflicts.append((origin_of(self.origins, target), came_from))
            return
        node[target[-1]] = value
        self.origins[target] = came_from

    def expand(self, trail: Trail) -> None:
        """Write a section in full where one value stands for it."""
        expansion = EXPANSIONS.get(trail)
        value = self.get(trail)
        if expansion is None or value is _ABSENT:
            return
        full = expansion(value)
        if full is value:
            return
        came_from = origin_of(self.origins, trail)
        for key in full:
            if not isinstance(value, dict):
                self.origins[(*trail, key)] = came_from
            elif key not in value:
                self.origins[(*trail, key)] = (*came_from, "reference")
        self.get(trail[:-1])[trail[-1]] = full

    def spread_all(self) -> None:
        """Lift the keys of mappings that belong one level higher."""
        for trail, names in SPREADS:
            value = self.get(trail)
            if not isinstance(value, dict):
                continue
            came_from = origin_of(self.origins, trail)
            self.pop(trail)
            lifted: dict[str, Any] = value
            for key, inner in lifted.items():
                self.place((*trail[:-1], names.get(key, key)), inner, (*came_from, key))

    def expand_lists(self) -> None:
        for trail in LISTS:
            value = self.get(trail)
            items = list_items(trail, value)
            if items is None:
                continue
            came_from = origin_of(self.origins, trail)
            full = []
            for index, (item, below) in enumerate(items):
                place = (*trail, index)
                self.origins[place] = came_from + below
                short = not isinstance(value, list) or item is not value[index]
                for key in item if short and isinstance(item, dict) else ():
                    given = isinstance(value, dict) and isinstance(value[below[0]], dict) and key in value[below[0]]
                    self.origins[(*place, key)] = (*came_from, *below, *((key,) if given else ()))
                full.append(item)
            self.get(trail[:-1])[trail[-1]] = full

    def complete_flat(self, data: Mapping[str, Any]) -> None:
        """Give a flat job the sections and the particulars that it may leave out."""
        for section in REQUIRED_SECTIONS:
            self.tree.setdefault(section, {})
        for key, target in FLAT.items():
            if target[0] not in data and key != "holdout" and self.get(target) is _ABSENT:
                self.origins.setdefault(target, (key,))
        model = self.tree["model_config"]
        if "model_config" not in data and isinstance(model, dict):
            model.setdefault("version", _DEFAULT_VERSION)
            model.setdefault("input_schema", {})
        metadata = self.tree["job_metadata"]
        job_id = self.get(("job_metadata", "job_id"))
        if "job_metadata" in data or not isinstance(job_id, str):
            return
        architecture = self.get(("model_config", "architecture"))
        algorithm = self.get(("training_config", "algorithm"))
        metadata.setdefault("name", canonical_job_id(job_id))
        metadata.setdefault("description", f"{architecture} model trained with {algorithm}")
        metadata.setdefault("owner", "unassigned")

    def prefix_job_id(self) -> None:
        job_id = self.get(("job_metadata", "job_id"))
        if isinstance(job_id, str) and job_id:
            self.tree["job_metadata"]["job_id"] = canonical_job_id(job_id)

    def say_kind(self) -> None:
        """Write down what kind of job it is, where that follows from the rest and is not training."""
        metadata = self.tree.get("job_metadata")
        if not isinstance(metadata, dict) or "kind" in metadata:
            return
        for trail, kind in _KIND_MARKS:
            if self.get(trail) not in (_ABSENT, None, False):
                metadata["kind"] = kind
                self.origins[("job_metadata", "kind")] = origin_of(self.origins, trail)
                return


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value
