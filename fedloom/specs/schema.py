"""JSON Schemas of the specs, for editors and for other programs.

``python -m fedloom.specs.schema`` writes them anew. The schema of a job describes the long form
and the short forms, from the same tables that the normaliser works with.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from fedloom.specs.kinds import KINDS, model_of
from fedloom.specs.short_forms import EXPANSIONS, FLAT, MOVES, REQUIRED_SECTIONS, SPREADS
from fedloom.specs.trails import Trail, dotted

SCHEMAS: tuple[str, ...] = tuple(KINDS)
"""The names of the schemas, those of the kinds of spec."""

FOLDER = Path(__file__).parent / "schemas"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_LOOSE = {
    ("training_config",): ("local_epochs", "batch_size"),
    ("orchestration_config",): ("min_clients", "max_clients"),
}
"""Required keys that may stand one level lower."""

Schema = dict[str, Any]


def json_schema(name: str) -> Schema:
    """The JSON Schema (2020-12) of a kind of spec.

    Raises:
        KeyError: There is no schema of this name.
    """
    schema = model_of(name).model_json_schema(by_alias=True)
    _drop_titles(schema)
    if name == "job":
        _add_short_forms(schema)
    title = f"fedloom {name.replace('_', ' ')}"
    return {"$schema": _DIALECT, "$id": f"urn:fedloom:schema:{name}", **schema, "title": title}


def schema_text(name: str) -> str:
    """The schema as it stands in its file."""
    return json.dumps(json_schema(name), indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path = FOLDER) -> None:
    """Write every schema to ``NAME.schema.json``."""
    folder.mkdir(exist_ok=True)
    for name in SCHEMAS:
        (folder / f"{name}.schema.json").write_text(schema_text(name), encoding="utf-8")


def _drop_titles(node: Any) -> None:
    """Remove the titles that only repeat the names of keys."""
    if isinstance(node, list):
        for item in node:
            _drop_titles(item)
    elif isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        for key, inner in node.items():
            if key == "properties":
                for schema in inner.values():
                    _drop_titles(schema)
            else:
                _drop_titles(inner)


def _add_short_forms(schema: Schema) -> None:
    long = copy.deepcopy(schema)
    for section, keys in _LOOSE.items():
        owner = _object(schema, section)
        owner["required"] = [key for key in owner["required"] if key not in keys]
    for trail in EXPANSIONS:
        properties = _object(schema, trail[:-1])["properties"]
        properties[trail[-1]] = _or(properties[trail[-1]], _short_value(long, trail))
    _lists(schema)
    for source, target in MOVES:
        inner = copy.deepcopy(_object(schema, target[:-1])["properties"][target[-1]])
        _object(schema, source[:-1])["properties"][source[-1]] = _short_for(inner, target)
    for trail, names in SPREADS:
        _spread(schema, _object(long, trail[:-1])["properties"], trail, names)
    job_id = _object(schema, ("job_metadata",))["properties"]["job_id"]
    job_id["pattern"] = "^[a-z0-9-]+$"
    flat = {
        key: _short_for(copy.deepcopy(_object(schema, target[:-1])["properties"][target[-1]]), target)
        for key, target in FLAT.items()
    }
    schema["properties"] |= flat
    del schema["required"]
    schema["allOf"] = [
        {"anyOf": [{"required": [section]}, _flat_section(long, section)]} for section in REQUIRED_SECTIONS
    ]


def _flat_section(long: Schema, section: str) -> Schema:
    """What a flat job needs in place of a section."""
    needed = [key for key in _object(long, (section,)).get("required", []) if key in FLAT]
    filled_in = ("name", "description", "owner", "version", "input_schema")
    return {"required": [key for key in needed if key not in filled_in]}


def _object(schema: Schema, trail: Trail) -> Schema:
    """The schema of the object at a place, references followed."""
    node = _followed(schema, schema)
    for step in trail:
        node = _followed(schema, node["properties"][step])
    return node


def _followed(schema: Schema, node: Schema) -> Schema:
    if "$ref" in node:
        target: Schema = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        return target
    for option in node.get("anyOf", []):
        found = _followed(schema, option)
        if "properties" in found:
            return found
    return node


def _short_value(long: Schema, trail: Trail) -> list[Schema]:
    """What may stand in place of a section: the value of its main key."""
    properties = _object(long, trail)["properties"]
    if trail == ("orchestration_config", "schedule"):
        return [_bare(properties["type"]), {"type": "string", "description": "A cron expression."}]
    for key in ("type", "algorithm", "strategy"):
        if key in properties:
            return [_bare(properties[key])]
    if "method" in properties:
        return [{"type": "boolean"}, {"enum": properties["method"]["anyOf"][0]["enum"]}]
    if "enabled" in properties:
        return [{"type": "boolean"}]
    return [{"type": "string"}]


def _bare(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key in ("type", "enum", "const")}


def _or(schema: Schema, short: list[Schema]) -> Schema:
    notes: Schema = {key: schema[key] for key in ("description", "default") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in notes}
    options = inner["anyOf"] if set(inner) == {"anyOf"} else [inner]
    return {"anyOf": [*short, *options], **notes}


def _short_for(schema: Schema, target: Trail) -> Schema:
    note = f"Short for {dotted(target)}."
    return {**schema, "description": f"{schema['description']} {note}" if "description" in schema else note}


def _lists(schema: Schema) -> None:
    metrics = _object(schema, ("validation_config",))["properties"]["metrics"]
    metric = metrics["items"]
    goals: Schema = {"type": "object", "additionalProperties": {"type": ["number", "object", "null"]}}
    items = {"type": "array", "items": {"anyOf": [{"type": "string"}, metric]}}
    _object(schema, ("validation_config",))["properties"]["metrics"] = {
        "anyOf": [items, goals],
        "description": f"{metrics['description']} Names, or name: target, are enough.",
    }
    related = schema["properties"]["related_documents"]
    related["items"] = {"anyOf": [{"type": "string"}, related["items"]]}


def _spread(schema: Schema, properties: Schema, trail: Trail, names: dict[str, str]) -> None:
    renamed = {new: old for old, new in names.items()}
    inner = {renamed.get(key, key): copy.deepcopy(value) for key, value in properties.items()}
    spread = {"type": "object", "properties": inner, "additionalProperties": False}
    owner = _object(schema, trail[:-1])["properties"]
    owner[trail[-1]] = _or(owner[trail[-1]], [spread]) if trail[-1] in owner else spread


if __name__ == "__main__":
    write_schemas()
