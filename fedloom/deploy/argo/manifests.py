"""Manifests as they stand in files: one document or many, with the place of every value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from fedloom.specs.documents import Document, parse_document, read_text
from fedloom.specs.problems import Problem, SpecError

_SPLIT = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_EMPTY = re.compile(r"\A(\s|#.*|---|\.\.\.)*\Z")


def yaml_files(paths: Sequence[Path]) -> list[Path]:
    """The files, and all YAML below the folders, of what a user names."""
    found: list[Path] = []
    for path in paths:
        below = sorted(file for file in path.rglob("*") if file.suffix in (".yaml", ".yml")) if path.is_dir() else []
        found += below or [path]
    return list(dict.fromkeys(found))


def read_manifests(path: Path) -> list[Document]:
    """The documents of a file.

    Raises:
        SpecError: when the file cannot be read, or a document is no YAML.
    """
    return parse_manifests(read_text(path, str(path)), str(path))


def parse_manifests(text: str, shown: str) -> list[Document]:
    """The documents of a text; see `read_manifests`."""
    found = list(_documents(text, shown))
    if not found:
        parse_document("", shown)  # says that it is empty
    return found


def _documents(text: str, shown: str) -> Iterator[Document]:
    # At the start of a line "---" always ends a document, also within text: there it would be indented.
    starts = [0, *(match.start() for match in _SPLIT.finditer(text)), len(text)]
    problems: list[Problem] = []
    for start, end in pairwise(starts):
        part = text[start:end]
        if _EMPTY.match(part):
            continue
        try:
            yield parse_document("\n" * text.count("\n", 0, start) + part, shown)
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
