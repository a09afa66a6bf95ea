"""Trained models from elsewhere: found, checked and put into the run store, where steps read them by digest."""

from __future__ import annotations

from collections.abc import Callable

from fedloom.specs.canonical import sha256
from fedloom.specs.locations import resolve_inside
from fedloom.specs.model_source import parse_model_source
from fedloom.tasks.errors import ConfigurationError, RunError, StoreError, one_line
from fedloom.tasks.model_store import bytes_to_tensors, read_model, write_model
from fedloom.tasks.step import Run


def resolve(run: Run, source: str) -> str:
    """The SHA-256 of the model that a source names; its tensors stand in the run store afterwards.

    A champion or a URL may name another model tomorrow: a step that resolves one keeps the digest in its result.

    Args:
        run: The run; its store knows champions and other runs, and paths are relative to its job's folder.
        source: What `parse_model_source` reads.

    Raises:
        ConfigurationError: when there is no such model, or its file is not the one that was planned with.
        StoreError: when the store's own model is damaged.
        RunError: when a URL cannot be read.
    """
    try:
        parsed = parse_model_source(source)
    except ValueError as error:
        raise ConfigurationError(f"model_source: {error}") from error
    finders: dict[str, Callable[[Run, str], str]] = {
        "champion": _champion,
        "run": _other_run,
        "file": _file,
        "url": _url,
    }
    return finders[parsed.kind](run, parsed.name)


def _champion(run: Run, job: str) -> str:
    job = job or run.recipe.job_id
    key = f"champions/{job}.json"
    if not run.store.exists(key):
        raise ConfigurationError(f"model_source: no model of job {job} has passed the gate in {run.store.url}")
    return _known(run, run.store.read_json(key), key)


def _other_run(run: Run, run_id: str) -> str:
    key = f"runs/{run_id}/summary.json"
    if not run.store.exists(key):
        raise ConfigurationError(f"model_source: {run.store.url} has no run {run_id} that has ended")
    return _known(run, run.store.read_json(key), key)


def _known(run: Run, found: object, key: str) -> str:
    """The digest of a model that the store has already."""
    digest = found.get("model_digest") if isinstance(found, dict) else None
    if not isinstance(digest, str):
        raise StoreError(f"{key} in the run store {run.store.url} is damaged: it names no model")
    read_model(run.store, digest)
    return digest


def _file(run: Run, path: str) -> str:
    try:
        data = resolve_inside(run.folder, path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"model_source: cannot read {path}: {reason}") from error
    recipe = run.recipe
    planned = recipe.model_source == path and recipe.model_source_digest
    if planned and sha256(data) != planned:
        raise ConfigurationError(f"model_source: {path} has changed since the plan was made")
    return _store(run, data, path)


def _url(run: Run, url: str) -> str:
    import fsspec

    try:
        with fsspec.open(url, "rb") as stream:
            data: bytes = stream.read()
    except Exception as error:  # every file system has exceptions of its own
        raise RunError(f"model_source: cannot read {url}: {one_line(error)}") from error
    return _store(run, data, url)


def _store(run: Run, data: bytes, name: str) -> str:
    """Store the floating-point tensors of a file: the others, such as counters, are no part of a model here."""
    try:
        state = bytes_to_tensors(data, name)
    except StoreError as error:
        raise ConfigurationError(f"model_source: {error}") from error
    kept = {key: tensor for key, tensor in state.items() if tensor.is_floating_point()}
    if not kept:
        raise ConfigurationError(f"model_source: {name} holds no parameters")
    return write_model(run.store, kept).sha256
