"""Where a client's data lies: the one rule for what a data location may say."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_DATASET = re.compile(r"^dataset:(?P<name>[a-z0-9][a-z0-9._-]*)/(?P<path>.+)$")
_URL = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.+)$")
_VERSION = re.compile(r"(versionId|generation)=[\w.-]+")
_REMOTE_SCHEMES = frozenset({"s3", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "memory"})
_LOCAL_SCHEMES = frozenset({"file", "local"})


@dataclass(frozen=True)
class Location:
    """A parsed data location.

    Attributes:
        kind: "file" (beside the fleet file), "dataset" (a prepared data set) or "url".
        path: The relative path, the file within the data set, or the whole URL.
        dataset: The name of the data set; None for the other kinds.
    """

    kind: Literal["file", "dataset", "url"]
    path: str
    dataset: str | None = None

    def __str__(self) -> str:
        return f"dataset:{self.dataset}/{self.path}" if self.kind == "dataset" else self.path


def parse_location(text: str) -> Location:
    """Read a data location: a relative path, ``dataset:NAME/FILE`` or a URL with a scheme.

    Raises:
        ValueError: The text is none of these, or could lead out of its folder.
    """
    if not text.strip():
        raise ValueError("the data location is empty")
    if not text.isprintable() or text != text.strip():
        raise ValueError(f"the data location {text!r} has control characters or outer blanks")
    if text.startswith("dataset:"):
        match = _DATASET.match(text)
        if match is None:
            raise ValueError(f"{text!r} is no data set file; write dataset:NAME/FILE")
        return Location("dataset", _relative(match["path"], text), match["name"])
    match = _URL.match(text)
    if match is None:
        return Location("file", _relative(text, text))
    if match["scheme"].lower() in _LOCAL_SCHEMES:
        raise ValueError(f"{text!r} names a place on one machine; write a path relative to the fleet file")
    if "::" in text:
        raise ValueError(f"{text!r} chains file systems ('::'), which could reach files of this machine")
    if match["scheme"].lower() not in _REMOTE_SCHEMES:
        raise ValueError(f"{text!r} has an unknown scheme; there are {', '.join(sorted(_REMOTE_SCHEMES))}")
    path, _, query = match["rest"].partition("?")
    if "@" in path.split("/", 1)[0] or (query and not _VERSION.fullmatch(query)):
        raise ValueError("the URL carries a password or token; credentials belong in the environment, not in a spec")
    return Location("url", text)


def resolve_inside(root: Path, relative: str) -> Path:
    """The file at a relative path below root, symlinks followed.

    Raises:
        ValueError: The path leads out of root.
    """
    base = os.path.realpath(root)
    real = os.path.realpath(os.path.join(base, relative))
    if real != base and not real.startswith(base.rstrip(os.sep) + os.sep):
        raise ValueError(f"{relative!r} leads out of the folder {root}")
    return Path(real)


def escapes(root: Path, relatives: list[str]) -> set[str]:
    """Those of many relative paths that a symlink leads out of root; each folder is looked at once."""
    base = os.path.realpath(root)
    folders: dict[str, bool] = {}
    found = set()
    for relative in relatives:
        head = os.path.dirname(relative)
        if head not in folders:
            folders[head] = _leads_out(root, head)
        link = os.path.islink(os.path.join(base, relative))
        if folders[head] or (link and _leads_out(root, relative)):
            found.add(relative)
    return found


def _leads_out(root: Path, relative: str) -> bool:
    try:
        resolve_inside(root, relative)
    except ValueError:
        return True
    return False


def _relative(path: str, text: str) -> str:
    if "\\" in path or ":" in path:
        raise ValueError(f"{text!r} is no relative path; use / between folders and no ':'")
    # By hand: a fleet has up to a million of these, and pathlib is slow.
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/"):
        raise ValueError(f"{text!r} is an absolute path; it must be relative and stay inside its folder")
    if ".." in parts:
        raise ValueError(f"{text!r} leads out of its folder ('..')")
    if path.endswith("/") or not parts:
        raise ValueError(f"{text!r} names a folder, not a file")
    return "/".join(parts)
