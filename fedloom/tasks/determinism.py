"""Torch made repeatable: seeded, with a fixed number of threads, one user at a time."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_one_at_a_time = threading.RLock()
"""Seeds, thread counts and dropout masks are global in torch: two threads would disturb each other."""


@contextmanager
def repeatable(threads: int, seed: int) -> Iterator[None]:
    """Run torch code that gives the same bits each time.

    Args:
        threads: Threads of an operation; sums depend on how they are split.
        seed: Seed of torch's global generator, non-negative.
    """
    with _one_at_a_time, torch.random.fork_rng(devices=[]):
        before = torch.get_num_threads(), random.getstate(), np.random.get_state()
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        random.seed(seed)  # a custom class may draw from these
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            random.setstate(before[1])
            np.random.set_state(before[2])
