"""One BLAS thread for work made of many small matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def single_threaded() -> Iterator[None]:
    """Limit BLAS to one thread for the time of a ``with`` block.

    Yields
    ------
    None
        Nothing; the former limits return when the block ends, also after an error.

    Notes
    -----
    Decompositions of matrices of a few hundred rows are slower on several threads than on
    one. Entering costs about a millisecond, so wrap a whole fold and not one decomposition.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        yield
