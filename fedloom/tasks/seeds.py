"""Randomness of a step: derived from the job's seed and the place where it is used, and from nothing else."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_sequence(seed: int, *place: str | int) -> np.random.SeedSequence:
    """The seed of one place in a run, e.g. ``seed_sequence(7, "train", 3, "client-12")``.

    The place is hashed, so that seeds of different places are independent and a client keeps its
    randomness when others come or go.
    """
    label = "\x1f".join(str(part) for part in place)
    words = np.frombuffer(hashlib.sha256(label.encode()).digest(), dtype=np.uint32)
    return np.random.SeedSequence([seed, *words.tolist()])


def torch_seed(seed: int, *place: str | int) -> int:
    """The same as one non-negative 63-bit integer, which torch generators take."""
    return int(seed_sequence(seed, *place).generate_state(1, np.uint64)[0] >> np.uint64(1))
