"""Models in the run store: safetensors under their own SHA-256."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fedloom.tasks.errors import StoreError
from fedloom.tasks.store import RunStore, Stored

MODEL_SUFFIX = ".safetensors"


def model_key(digest: str) -> str:
    """Key of a model."""
    return f"models/{digest}{MODEL_SUFFIX}"


def write_model(store: RunStore, state: Mapping[str, torch.Tensor]) -> Stored:
    """Store a model once; its SHA-256 is its name."""
    return store.write_content("models", MODEL_SUFFIX, tensors_to_bytes(state))


def read_model(store: RunStore, digest: str) -> dict[str, torch.Tensor]:
    """Read a model and check that it is the one that was asked for.

    Raises:
        StoreError: when it is missing or its bytes do not have this SHA-256.
    """
    return bytes_to_tensors(store.read(model_key(digest), expect=digest), model_key(digest))


def tensors_to_bytes(state: Mapping[str, torch.Tensor]) -> bytes:
    """Safetensors bytes; the same tensors give the same bytes."""
    return bytes(save({name: state[name].contiguous() for name in sorted(state)}))


def bytes_to_tensors(data: bytes, name: str) -> dict[str, torch.Tensor]:
    """The tensors, in the order of their names.

    Raises:
        StoreError: when the bytes are no safetensors.
    """
    try:
        state = load(data)
    except SafetensorError as error:
        raise StoreError(f"{name} is no safetensors file: {error}") from error
    return {key: state[key] for key in sorted(state)}
