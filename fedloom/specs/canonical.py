"""Canonical JSON and digests: one byte string for one value, on every machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces.

    Args:
        value: JSON values, dataclasses of them, tuples and mappings.

    Raises:
        ValueError: for NaN or infinity, which JSON does not have.
        TypeError: for anything that is no JSON value.
    """
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hex digits."""
    return sha256(canonical_json(value))


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def plain(value: Any) -> Any:
    """Dataclasses and mappings as dicts, tuples as lists, the rest as it is."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return value.as_posix()
    return value


def restore(kind: type[T], data: Any) -> T:
    """A dataclass from what `plain` made of it.

    Args:
        kind: The dataclass; its fields are dataclasses, tuples, JSON values, or unions of the latter.
        data: The plain data.

    Raises:
        ValueError: when the data is not that of such a dataclass.
    """
    try:
        return cast(T, _restore(kind, data))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is no {kind.__name__}: {error}") from error


def _restore(kind: Any, data: Any) -> Any:
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{name: _restore(hints[name], value) for name, value in data.items()})
    if isinstance(data, dict):
        made = next((option for option in get_args(kind) if is_dataclass(option)), None)
        return data if made is None else _restore(made, data)
    if isinstance(data, list):
        inner = next((option for option in (kind, *get_args(kind)) if get_origin(option) is tuple), tuple[Any, ...])
        types = get_args(inner)
        if len(types) == 2 and types[1] is Ellipsis:
            return tuple(_restore(types[0], item) for item in data)
        return tuple(_restore(one, item) for one, item in zip(types, data, strict=True))
    if kind is float or (NoneType in get_args(kind) and float in get_args(kind) and int not in get_args(kind)):
        return data if data is None else float(data)
    return data
