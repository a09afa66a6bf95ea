"""From pydantic's errors to problems that a person can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedloom.specs.documents import Document
from fedloom.specs.problems import Problem
from fedloom.specs.short_forms import FLAT
from fedloom.specs.trails import Trail, dotted

_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "none_required": "empty",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "tuple_type": "a list",
    "list_type": "a list",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}
_FORMS = {
    r"^\d+\.\d+\.\d+$": ("a version of three numbers", '"1.0.0"'),
    r"^fl-[a-z0-9-]+$": ("an id of lower-case letters, digits and hyphens", "fl-engine-oil-2024q4"),
    r"^\d{4}-\d{2}-\d{2}$": ("a date", '"2024-11-15"'),
    r"^\d+\s+(seconds?|minutes?|hours?|days?|weeks?)$": ("a duration", '"8 hours"'),
}


_SUGGESTIONS = 50
"""For so many problems of a document it is looked for what was meant: it takes time, and nobody reads more."""


def explain(error: ValidationError, document: Document, model: type[BaseModel]) -> list[Problem]:
    """All errors of one document, one problem a place, in the order of the file."""
    grouped: dict[Trail, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        if details["type"] == "finite_number":
            continue  # Found wherever they stand, also where the model has no number; see kinds.parse.
        grouped.setdefault(_real_trail(details, document.data), []).append(details)
    # Where one branch of a union fails deeper, the failure of the others says nothing.
    inner = {trail[:end] for trail in grouped for end in range(len(trail))}
    found = [
        _problem(trail, group, document, model, suggest=number < _SUGGESTIONS)
        for number, (trail, group) in enumerate(grouped.items())
        if not (trail in inner and all(details["type"] in _WANTED for details in group))
    ]
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def closest(word: str, known: Sequence[str]) -> str | None:
    """The known word that the user probably meant."""
    by_lower = {other.lower(): other for other in known}
    match = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[match[0]] if match else None


def _real_trail(details: ErrorDetails, data: Any) -> Trail:
    """The error's place without pydantic's names of union members and validators."""
    loc = details["loc"]
    last_is_key = details["type"] in ("missing", "extra_forbidden")
    trail: Trail = ()
    for index, step in enumerate(loc):
        known = isinstance(data, dict) and step in data
        listed = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if known or listed:
            data = data[step]
            trail = (*trail, step)
        elif last_is_key and index == len(loc) - 1:
            trail = (*trail, step)
    return trail


def _problem(
    trail: Trail, group: list[ErrorDetails], document: Document, model: type[BaseModel], suggest: bool
) -> Problem:
    details = group[0]
    kind = details["type"]
    if kind == "missing":
        description = _description(model, trail)
        return document.problem(trail, "is missing", f"add {trail[-1]}: {description}" if description else None)
    if kind == "extra_forbidden":
        hint = _where_to(trail, document, model) if suggest else None
        return document.problem(trail, f"unknown key '{trail[-1]}'", hint)
    if kind == "value_error":
        message = str(details["ctx"]["error"])
        return document.problem(_named_key(trail, message, document), message)
    wanted = [_WANTED[item["type"]] for item in group if item["type"] in _WANTED]
    if len(wanted) == len(group):
        return _wrong_type(trail, details["input"], list(dict.fromkeys(wanted)), document)
    details = next(item for item in group if item["type"] not in _WANTED)
    message, hint = _wrong_value(details)
    return document.problem(trail, message, hint)


def _wrong_type(trail: Trail, value: Any, wanted: list[str], document: Document) -> Problem:
    expected = " or ".join(wanted)
    if value is None:
        return document.problem(trail, f"is empty, it must be {expected}", "write a value or remove the key")
    hint = None
    if isinstance(value, str) and ("number" in expected or "true" in expected):
        if re.fullmatch(r"[-+.\deE]+|true|false", value):
            hint = f"write it without quotes: {value}"
        elif value.lower() in ("yes", "on", "no", "off"):
            hint = f"write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    elif "text" in wanted and isinstance(value, bool | int | float):
        hint = f'put it in quotes: "{json_like(value)}"'
    return document.problem(trail, f"must be {expected}, not {json_like(value)}", hint)


def _wrong_value(details: ErrorDetails) -> tuple[str, str | None]:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    shown = json_like(value)
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        best = closest(value, allowed) if isinstance(value, str) else None
        options = "one of " + ", ".join(allowed) if len(allowed) > 1 else f"'{allowed[0]}'"
        return f"{shown} is not allowed: it must be {options}", f"did you mean '{best}'?" if best else None
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{shown} is out of range: it must be {words} {context[key]:g}", None
    if kind == "string_pattern_mismatch":
        form, example = _FORMS.get(context["pattern"], (f"of the form {context['pattern']}", None))
        return f"{shown} must be {form}", f"for example {example}" if example else None
    if kind in ("string_too_short", "too_short"):
        return ("is empty" if context["min_length"] == 1 else f"needs at least {context['min_length']} items"), None
    if kind in ("string_too_long", "too_long"):
        unit = "characters" if kind == "string_too_long" else "items"
        return f"is too long: at most {context['max_length']} {unit}", None
    return details["msg"][:1].lower() + details["msg"][1:], None


def json_like(value: Any) -> str:
    """A value as it is written in YAML, shortened."""
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    names: dict[Any, str] = {True: "true", False: "false"} if isinstance(value, bool) else {}
    text = names.get(value, f"{value!r}" if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _named_key(trail: Trail, message: str, document: Document) -> Trail:
    """The key that a message about a whole section begins with, if the section has it."""
    section: Any = document.data
    for step in trail:
        section = section[step]
    first = message.split(" ", 1)[0].strip("'")
    return (*trail, first) if isinstance(section, dict) and first in section else trail


def _where_to(trail: Trail, document: Document, model: type[BaseModel]) -> str | None:
    """What to do about an unknown key: another spelling, or another section."""
    key, section = str(trail[-1]), trail[:-1]
    here = [name for owner in _models_at(model, section) for name in _keys(owner)]
    top_of_job = model.__name__ == "Job" and not section
    if top_of_job:
        here = [*here, *FLAT]
    places = [place for place in _all_places(model) if place[-1] == key and place[:-1] != section]
    if places:
        return f"it belongs in {dotted(places[0][:-1]) or 'the top level'}"
    elsewhere = {str(place[-1]): place for place in reversed(_all_places(model))}
    best, far = closest(key, here), closest(key, list(elsewhere))
    if far and _likeness(key, far) > max(0.8, _likeness(key, best)):
        return f"did you mean '{far}' of {dotted(elsewhere[far][:-1]) or 'the top level'}?"
    if best:
        return f"did you mean '{best}'?"
    return f"known keys here: {', '.join(here)}" if here and not top_of_job else None


def _likeness(word: str, other: str | None) -> float:
    return difflib.SequenceMatcher(None, word, other or "").ratio()


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def _models_at(model: type[BaseModel], trail: Trail) -> list[type[BaseModel]]:
    found = [model]
    for step in trail:
        inner = [field for owner in found for name, field in owner.model_fields.items() if step in (field.alias, name)]
        if inner:
            found = [below for field in inner for below in _models_in(field.annotation)]
        elif not isinstance(step, int) and found and all(step not in _keys(owner) for owner in found):
            continue  # A key of a free mapping whose values are models.
    return found


@cache
def _all_places(model: type[BaseModel]) -> tuple[Trail, ...]:
    return tuple(_places(model, ()))


def _places(model: type[BaseModel], trail: Trail) -> Iterator[Trail]:
    """Every key that the model knows, by its place; lists are passed through."""
    for name, field in model.model_fields.items():
        place = (*trail, field.alias or name)
        yield place
        for inner in _models_in(field.annotation):
            yield from _places(inner, place)


def _description(model: type[BaseModel], trail: Trail) -> str | None:
    for owner in _models_at(model, trail[:-1]):
        for name, field in owner.model_fields.items():
            if trail[-1] in (field.alias, name) and field.description:
                return field.description[:1].lower() + field.description[1:].rstrip(".")
    return None
