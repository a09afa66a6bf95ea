"""Reading one YAML file into plain data, knowing where every value stands.

The data are built in one pass over the parser's events, without recursion, so that limits on
size, depth and number of nodes hold before anything is allocated. Scalars follow the core
schema of YAML 1.2 (``1e-5`` is a number, ``on`` and dates are text).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fedloom.specs.problems import Problem, Severity, SpecError
from fedloom.specs.trails import Position, Trail, dotted
from fedloom.specs.yaml_events import TreeBuilder

MAX_BYTES = 1 << 20

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FENCE = re.compile(r"^\s*```", re.MULTILINE)
_MARKDOWN_HINT = "this is Markdown with code blocks: put the text of its ```yaml blocks into a .yaml file of its own"


@dataclass(frozen=True)
class Document:
    """A spec file as plain data.

    Attributes:
        file: The file as the user named it.
        data: dicts, lists, str, int, float, bool and None.
        positions: Where each value stands; for an entry of a mapping, where its key stands.
        text: The file's text.
        origins: For data in a normal form, the place in the file of what stands elsewhere there.
    """

    file: str
    data: Any
    positions: Mapping[Trail, Position] = field(default_factory=dict, repr=False)
    text: str = field(default="", repr=False)
    origins: Mapping[Trail, Trail] = field(default_factory=dict, repr=False)

    def in_file(self, trail: Trail) -> Trail:
        """The place in the file of a value of the data."""
        for end in range(len(trail), 0, -1):
            origin = self.origins.get(trail[:end])
            if origin is not None:
                return origin + trail[end:]
        return trail

    def position(self, trail: Trail) -> Position:
        """The position of a value, or of its nearest ancestor that is in the file."""
        trail = self.in_file(trail)
        for end in range(len(trail), -1, -1):
            found = self.positions.get(trail[:end])
            if found is not None:
                return found
        return (0, 0)

    def problem(self, trail: Trail, message: str, hint: str | None = None, severity: Severity = "error") -> Problem:
        """A problem with the value at a place of the data."""
        line, column = self.position(trail)
        return Problem(severity, message, self.file, line, column, dotted(self.in_file(trail)), hint)


def load_document(path: Path, shown_as: str | None = None) -> Document:
    """Read a YAML (or JSON) file.

    Args:
        path: The file.
        shown_as: How to name the file in problems; the path itself if not given.

    Raises:
        SpecError: The file cannot be read, is too large, or is not one well-formed document.
    """
    shown = shown_as or str(path)
    return parse_document(read_text(path, shown), shown)


def read_text(path: Path, shown: str) -> str:
    """Read a regular UTF-8 file of bounded size."""
    try:
        info = os.stat(path)
        if stat.S_ISDIR(info.st_mode):
            raise _refuse(shown, "is a folder, not a file")
        if not stat.S_ISREG(info.st_mode):
            raise _refuse(shown, "is not a regular file")
        if info.st_size > MAX_BYTES:
            raise _refuse(shown, f"is too large: {info.st_size:,} bytes, a spec has at most {MAX_BYTES:,}")
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _refuse(shown, "there is no such file", "check the path for a typing error") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else str(error)) or "unknown reason"
        raise _refuse(shown, f"cannot be read: {reason.lower()}") from None
    if len(raw) > MAX_BYTES:
        raise _refuse(shown, f"is too large: a spec has at most {MAX_BYTES:,} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        problem = Problem(
            "error",
            f"is not UTF-8 text (byte 0x{raw[error.start]:02X})",
            shown,
            line,
            column,
            "",
            "save the file with the encoding UTF-8",
        )
        raise SpecError([problem]) from None


def parse_document(text: str, shown: str) -> Document:
    """Turn YAML text into a Document; see load_document."""
    if "\x00" in text:
        raise _refuse(shown, "is not YAML: it holds a NUL character")
    builder = TreeBuilder(shown)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.feed(event)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise SpecError([*builder.problems, _syntax_problem(error, text, shown)]) from None
    if builder.problems:
        raise SpecError(builder.problems)
    if builder.root is None:
        raise _refuse(shown, "is empty", "write a spec, or start from one: fedloom init NAME")
    if not isinstance(builder.root, dict | list):
        hint = _MARKDOWN_HINT if _FENCE.search(text) else "a spec is made of lines such as 'job_id: fl-example'"
        raise _refuse(shown, "is not a YAML mapping", hint)
    return Document(shown, builder.root, builder.positions, text)


def _syntax_problem(error: Exception, text: str, shown: str) -> Problem:
    line, column, hint = 0, 0, None
    if isinstance(error, yaml.MarkedYAMLError):
        reason = error.problem or "syntax error"
        mark = error.problem_mark or error.context_mark
        if mark:
            line, column = mark.line + 1, mark.column + 1
        if error.context and error.context_mark:
            reason += f" ({error.context} that starts on line {error.context_mark.line + 1})"
        hint = _syntax_hint(reason)
    else:
        # A control character, or an escape that is no character.
        reason = getattr(error, "reason", None) or "a character that YAML does not allow"
        at = getattr(error, "position", None)
        if isinstance(at, int):
            line, column = _line_column(text, at)
    hint = _MARKDOWN_HINT if _FENCE.search(text) else hint
    return Problem("error", f"is not YAML: {reason}", shown, line, column, "", hint)


def _refuse(shown: str, message: str, hint: str | None = None) -> SpecError:
    return SpecError([Problem("error", message, shown, hint=hint)])


def _line_column(text: str, at: int) -> Position:
    return text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1


def _syntax_hint(reason: str) -> str | None:
    if "\\t" in reason:
        return "indent with spaces, not with tabs"
    if "mapping values are not allowed" in reason:
        return "check the indentation, and put text that holds ': ' in quotes"
    return None
