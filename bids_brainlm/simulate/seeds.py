"""Random generators that depend on names, not on the order of work."""

from __future__ import annotations

from zlib import crc32

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of a seed and names.

    Parameters
    ----------
    seed : int
        The dataset's seed.
    *names : str
        What is drawn, for example ``"noise", "sub-01_task-black"``.

    Returns
    -------
    numpy.random.Generator
        The same for the same seed and names.
    """
    return np.random.default_rng([seed, *(crc32(name.encode()) for name in names)])


def pick(span: int, *names: str) -> int:
    """Return a number below ``span`` that depends on names alone."""
    return crc32("/".join(names).encode()) % max(span, 1)
