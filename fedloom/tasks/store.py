"""The run store: one fsspec URL that holds everything that steps tell each other.

Keys are relative POSIX paths. An object is there in full or not at all: on a local folder it is written
under a temporary name and renamed; object stores put an object in one piece.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from fedloom.specs.canonical import canonical_json, sha256
from fedloom.tasks.errors import ConfigurationError, StoreError

_userinfo = re.compile(r"://[^/]*@")


@dataclass(frozen=True)
class Stored:
    """An object in the store: its key, SHA-256 (64 hex digits) and size in bytes."""

    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Entry:
    """An object as a listing shows it: its key, its size in bytes, and when it was last written."""

    key: str
    bytes: int
    modified: datetime


@dataclass(frozen=True)
class RunStore:
    """Atomic reads and writes below one URL.

    Attributes:
        url: A folder or any fsspec URL (``s3://bucket/prefix``, ``memory://runs``).
    """

    url: str
    _fs: Any = field(init=False, repr=False, compare=False)
    _root: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.url:
            raise ConfigurationError("the run store has no name; give a folder or a URL")
        if "://" in self.url and (_userinfo.search(self.url) or "?" in self.url):
            raise ConfigurationError(
                "the URL of the run store carries credentials; they would end in logs and results. "
                "Set them in the environment instead"
            )
        try:
            filesystem, root = fsspec.core.url_to_fs(self.url)
        except Exception as error:  # file systems fail in any way they like
            raise StoreError(f"the run store {self.url!r} cannot be opened: {_reason(error)}") from error
        object.__setattr__(self, "_fs", filesystem)
        object.__setattr__(self, "_root", root.rstrip("/"))

    def write(self, key: str, data: bytes) -> Stored:
        """Write an object, replacing what was there.

        Raises:
            StoreError: when the store is read-only, full or out of reach; nothing is half-written.
        """
        path = self._path(key)
        try:
            if isinstance(self._fs, LocalFileSystem):
                _replace(path, data)
            else:
                self._fs.pipe_file(path, data)
        except Exception as error:
            raise StoreError(f"cannot write {key} to the run store {self.url}: {_reason(error)}") from error
        return Stored(key, sha256(data), len(data))

    def create(self, key: str, data: bytes) -> bool:
        """Write an object if there is none; of several that try at once, one succeeds.

        Returns:
            Whether this call wrote it.

        Raises:
            StoreError: when the store cannot be written, or knows no such write.
        """
        path = self._path(key)
        try:
            if isinstance(self._fs, LocalFileSystem):
                _link(path, data)
            else:
                self._fs.pipe_file(path, data, mode="create")
        except Exception as error:
            if self.exists(key):  # object stores say so in words of their own
                return False
            raise StoreError(f"cannot create {key} in the run store {self.url}: {_reason(error)}") from error
        return True

    def write_content(self, folder: str, suffix: str, data: bytes) -> Stored:
        """Write an object under its own SHA-256, once."""
        key = f"{folder}/{sha256(data)}{suffix}"
        if self.exists(key):
            return Stored(key, sha256(data), len(data))
        return self.write(key, data)

    def write_json(self, key: str, value: Any) -> Stored:
        """Write a value as canonical JSON."""
        return self.write(key, canonical_json(value))

    def read(self, key: str, expect: str | None = None) -> bytes:
        """Read an object.

        Args:
            key: Its key.
            expect: The SHA-256 it must have.

        Raises:
            StoreError: when it is missing, out of reach or not what was written.
        """
        try:
            data = bytes(self._fs.cat_file(self._path(key)))
        except Exception as error:
            raise StoreError(f"cannot read {key} from the run store {self.url}: {_reason(error)}") from error
        if expect is not None and sha256(data) != expect:
            raise StoreError(
                f"{key} in the run store {self.url} is damaged: its SHA-256 is {sha256(data)[:12]}…, "
                f"expected {expect[:12]}…; delete it and run again"
            )
        return data

    def folders(self, key: str) -> list[str]:
        """The names of the folders below a key, sorted; none when there is no such key.

        Raises:
            StoreError: when the store is out of reach.
        """
        try:
            found = self._fs.ls(self._path(key), detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise StoreError(f"cannot reach the run store {self.url}: {_reason(error)}") from error
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == "directory")

    def objects(self, key: str, deep: bool = True) -> list[Entry]:
        """The objects below a key, by key; none when there is no such key.

        Args:
            key: A folder.
            deep: Also those in folders below it.

        Raises:
            StoreError: when the store is out of reach.
        """
        path = self._path(key)
        try:
            self._fs.invalidate_cache()  # object stores keep listings, and others write too
            found = self._fs.find(path, maxdepth=None if deep else 1, detail=True).values()
        except FileNotFoundError:
            return []
        except Exception as error:
            raise StoreError(f"cannot reach the run store {self.url}: {_reason(error)}") from error
        start = len(self._fs._strip_protocol(self._root)) + 1
        files = (info for info in found if info["type"] == "file" and not info["name"].endswith(".tmp"))
        return sorted((Entry(i["name"][start:], i["size"], _modified(i)) for i in files), key=lambda e: e.key)

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Several objects at once, by key; those that are not there, or no longer, are left out.

        Raises:
            StoreError: when the store is out of reach.
        """
        paths = {self._fs._strip_protocol(self._path(key)): key for key in keys}
        if not paths:
            return {}
        try:
            found = self._fs.cat(list(paths), on_error="return")
        except Exception as error:
            raise StoreError(f"cannot reach the run store {self.url}: {_reason(error)}") from error
        if len(paths) == 1 and isinstance(found, bytes):
            found = {next(iter(paths)): found}
        for value in found.values():
            if isinstance(value, Exception) and not isinstance(value, FileNotFoundError):
                raise StoreError(f"cannot reach the run store {self.url}: {_reason(value)}") from value
        return {paths[path]: bytes(data) for path, data in found.items() if not isinstance(data, Exception)}

    def delete(self, key: str) -> None:
        """Delete an object, and on a local store the folders that are empty then; nothing happens when it is not there.

        Raises:
            StoreError: when it cannot be deleted.
        """
        try:
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._path(key))
        except Exception as error:
            raise StoreError(f"cannot delete {key} from the run store {self.url}: {_reason(error)}") from error
        if self.local_folder is not None:
            with suppress(OSError):  # it is not empty, or another deleted it
                for folder in Path(key).parents[:-1]:
                    (self.local_folder / folder).rmdir()

    @property
    def local_folder(self) -> Path | None:
        """The store's folder; None when it is no folder of this machine."""
        return Path(self._root) if isinstance(self._fs, LocalFileSystem) else None

    def stat(self, key: str) -> Stored:
        """What `write` returned for an object."""
        data = self.read(key)
        return Stored(key, sha256(data), len(data))

    def read_json(self, key: str) -> Any:
        """Read a JSON object written by `write_json`."""
        data = self.read(key)
        try:
            return json.loads(data)
        except ValueError as error:
            raise StoreError(
                f"{key} in the run store {self.url} is no JSON: {error}; delete it and run again"
            ) from error

    def exists(self, key: str) -> bool:
        """Whether an object is there.

        Raises:
            StoreError: when the store is out of reach.
        """
        try:
            return bool(self._fs.isfile(self._path(key)))
        except Exception as error:
            raise StoreError(f"cannot reach the run store {self.url}: {_reason(error)}") from error

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


def _replace(path: str, data: bytes) -> None:
    with _written(path, data) as temporary:
        os.replace(temporary, path)


def _link(path: str, data: bytes) -> None:
    """As `_replace`, but FileExistsError where there is a file."""
    with _written(path, data) as temporary:
        os.link(temporary, path)


@contextmanager
def _written(path: str, data: bytes) -> Iterator[str]:
    """A temporary file beside a path, on the disk; gone afterwards."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _modified(info: dict[str, Any]) -> datetime:
    """When a listed object was last written, in UTC; file systems name it as they like."""
    at = next((info[name] for name in ("mtime", "LastModified", "created") if info.get(name) is not None), 0.0)
    if isinstance(at, datetime):
        return at.astimezone(UTC)
    return datetime.fromtimestamp(float(at), UTC)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
