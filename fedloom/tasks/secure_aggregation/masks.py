"""Masks: AES-128 in counter mode as the stream of pseudorandom ring elements, added in place.

The ring is that of unsigned integers of 32 or 64 bits, where numpy's arithmetic wraps as it should. The stream is
added in pieces that stay in the processor's cache, and counter mode can start anywhere, so that any range of
coordinates can be masked or unmasked on its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Ring = NDArray[np.unsignedinteger[Any]]

KEY_BYTES = 16
_BLOCK = 16
_PIECE = 1 << 18
"""Bytes masked at a time: half of a usual second-level cache."""
_ZEROS = bytes(_PIECE)


@dataclass(frozen=True)
class Mask:
    """One stream: its key (16 bytes, used for nothing else), and whether it is added or subtracted."""

    key: bytes
    negative: bool = False

    def __repr__(self) -> str:
        return "Mask(…)"  # a key in a traceback would open an update


def apply(values: Ring, masks: Iterable[Mask], start: int = 0) -> None:
    """Add masks to a vector in place, modulo 2^32 or 2^64.

    Args:
        values: Contiguous vector of ring elements, uint32 or uint64.
        masks: What to add.
        start: Coordinate of the whole vector at which `values` begins; a multiple of four.

    Raises:
        ValueError: when the vector or its start do not fit the stream's blocks.
    """
    if not values.flags.c_contiguous or values.ndim != 1:
        raise ValueError("masks go on contiguous vectors")
    width = values.itemsize
    if start * width % _BLOCK:
        raise ValueError(f"coordinate {start} does not begin a block of the stream")
    counter = (start * width // _BLOCK).to_bytes(_BLOCK, "big")
    streams = [
        (Cipher(algorithms.AES128(mask.key), modes.CTR(counter)).encryptor().update_into, mask.negative)
        for mask in masks
    ]
    buffer = bytearray(_PIECE + _BLOCK)
    stream = np.frombuffer(buffer, values.dtype, _PIECE // width)
    step = _PIECE // width
    zeros = memoryview(_ZEROS)
    for first in range(0, len(values), step):
        piece = values[first : first + step]
        source, drawn = zeros[: piece.nbytes], stream[: len(piece)]
        for update_into, negative in streams:
            update_into(source, buffer)
            if negative:
                np.subtract(piece, drawn, out=piece)
            else:
                np.add(piece, drawn, out=piece)
