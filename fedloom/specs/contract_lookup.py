"""Where the data contract that a job names lies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*):(?P<version>\d+\.\d+\.\d+)")
_FOLDERS = ("contracts", "DATA_CONTRACTS")


def find_contract(reference: str, folder: Path) -> Path:
    """The file of a contract.

    Args:
        reference: ``name:version``, or a path relative to the job folder or a folder above it.
        folder: The job folder.

    Raises:
        LookupError: There is none, or the path leads out of its folder; args are message and hint.
    """
    named = _NAMED.fullmatch(reference)
    if named is not None:
        inner = f"{named['name']}/{named['version']}/data_contract.yaml"
        relatives = [f"{top}/{inner}" for top in _FOLDERS]
    else:
        relatives = [_relative(reference)]
    bases = list(_upwards(folder))
    if named is None and "/" not in relatives[0]:
        bases = bases[:1]  # a bare name is a file of the job, not one that lies about somewhere above
    for base in bases:
        for relative in relatives:
            path = base / relative
            try:
                if not path.is_file():
                    continue
            except OSError as error:
                raise LookupError(
                    f"the contract {reference[:60]!r} cannot be looked for", str(error.strerror)
                ) from None
            if not path.resolve().is_relative_to(base):
                message = f"the contract {reference!r} is a link that leads out of {base}"
                raise LookupError(message, "put the contract itself there")
            return path
    above = f" and in the folders above it, up to {bases[-1]}" if len(bases) > 1 else ""
    hint = f"looked for {' and '.join(relatives)} in {bases[0]}{above}"
    raise LookupError(f"there is no data contract {reference!r}", hint)


def _relative(reference: str) -> str:
    path = PurePosixPath(reference)
    if path.is_absolute() or PureWindowsPath(reference).drive or reference.startswith("~") or "\\" in reference:
        raise LookupError(
            f"the contract {reference!r} is an absolute path",
            "write a path relative to the job folder, or name:version",
        )
    if ".." in path.parts or "\0" in reference:
        raise LookupError(
            f"the contract {reference!r} leads out of its folder",
            "a path without '..' is looked for in the job folder and in the folders above it",
        )
    return reference


def _upwards(folder: Path) -> Iterator[Path]:
    """The folder and those above it, up to the root of the repository or of the file system."""
    here = folder.resolve()
    for base in (here, *here.parents):
        yield base
        if (base / ".git").exists():
            return
