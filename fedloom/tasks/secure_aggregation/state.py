"""Where a client keeps what it has said in a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedloom.tasks.secure_aggregation.identity import write_private


class State(Protocol):
    """Named bytes; `save` is atomic."""

    def load(self, name: str) -> bytes | None:
        """What was saved, or None."""

    def save(self, name: str, data: bytes) -> None:
        """Keep bytes under a name."""

    def delete(self, name: str) -> None:
        """Forget a name."""


@dataclass(frozen=True)
class FolderState:
    """In a folder that only the client can read."""

    folder: Path

    def load(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def save(self, name: str, data: bytes) -> None:
        write_private(self.folder / name, data)

    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class MemoryState:
    """In this process, for clients that live as long as a session."""

    kept: dict[str, bytes] = field(default_factory=dict, repr=False)

    def load(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def save(self, name: str, data: bytes) -> None:
        self.kept[name] = data

    def delete(self, name: str) -> None:
        self.kept.pop(name, None)
