"""Where noise comes from: a secret of whoever adds it, and all that the noisy result depends on.

Noise from the job's seed would protect nobody: the seed stands in the specs. So clients and server have a secret of
their own, from the operating system, and the noise of a result is a pseudorandom function of it and of everything
that goes into the result. A repeated step gives the same bytes, so that nobody gets two noisy views of one value to
average; another value, even under the same names, gets other noise.

The generator is Philox with a 128-bit key (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), which
is made from a block cipher with fewer rounds: no attack on it is known, and no proof that there is none. Samples are
floating-point numbers, whose lowest bits are not those of the real distribution (Mironov 2012).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from filelock import FileLock

from fedloom.specs.canonical import canonical_json, sha256
from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.secure_aggregation.identity import write_private

_BYTES = 32


def own_secret(folder: Path, name: str = "noise") -> bytes:
    """A secret in a folder, 32 bytes; made when it is first asked for.

    Args:
        folder: Of whom it belongs to.
        name: What it is for.

    Raises:
        ConfigurationError: when it cannot be kept, or is damaged.
    """
    path = folder / f"{name}.key"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(folder / f"{name}.lock"):
                if not path.exists():
                    write_private(path, os.urandom(_BYTES))
        secret = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot keep a secret in {folder}: {error.strerror or error}") from error
    if len(secret) != _BYTES:
        raise ConfigurationError(f"{path} is damaged: {len(secret)} bytes, expected {_BYTES}")
    return secret


def noise_source(secret: bytes, *depends_on: str | int) -> np.random.Generator:
    """A generator for one result.

    Args:
        secret: From `own_secret`.
        depends_on: Digests and names of everything that the result is computed from, and what the noise is for.
    """
    key = bytes.fromhex(sha256(secret + canonical_json(depends_on)))[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))


def skellam(variance: float, size: int, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Integers with the distribution of the difference of two Poisson variables.

    Args:
        variance: Of each; their sum's is the sum of theirs, as Skellam variables add up to one.
        size: How many.
        rng: Draws them.

    Returns:
        Shape [size], int64.
    """
    return rng.poisson(variance / 2, size) - rng.poisson(variance / 2, size)
