"""Seeds: one for every random operator, derived from the seed that the user gave."""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["op_seed"]


def op_seed(seed: int, *path: str | int) -> int:
    """Returns the seed of one random operator, a non-negative int64.

    Distinct paths give independent streams (NumPy's SeedSequence).

    >>> op_seed(0, "flip") != op_seed(0, "crop") != op_seed(1, "crop")
    True
    """
    words = [p if isinstance(p, int) else zlib.crc32(p.encode()) for p in path]
    state = np.random.SeedSequence(seed, spawn_key=words).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
