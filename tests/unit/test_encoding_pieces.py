"""Targets are cut into pieces that fit into memory, and the memory is what a fit takes."""

import tracemalloc

import numpy as np
import pytest

from bids_brainlm.numerics import _ridge_host, blas, folds, ridge
from bids_brainlm.steps import encoding_runs as runs

NINE = np.logspace(-2, 6, 9)


def _sizes(made):
    return [sum(some.stop - some.start for _, some in piece) for piece in made]


@pytest.mark.parametrize("mem_gb", [0.5, 0.9, 1.2, 1.6, 3.0, 20.0, np.inf])
@pytest.mark.parametrize("n_workers", [1, 2])
def test_pieces_are_whole_and_fit(mem_gb, n_workers):
    widths, n_trs, n_bands = [1000] * 7 + [300, 5000], 500, 4
    made = runs.pieces(widths, n_trs, n_bands, n_workers=n_workers, mem_gb=mem_gb)
    for number, width in enumerate(widths):
        parts = [some for piece in made for run, some in piece if run == number]
        assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
        assert parts[-1].stop == width
        assert all(part.start % runs.PANEL == 0 for part in parts)
    room = (mem_gb * 1e9 - runs._LOADED - 16.0 * n_trs * sum(widths)) / n_workers
    for size in _sizes(made):
        assert size <= runs.FEWEST or runs.thread_bytes(size, n_trs, n_bands) <= room


def test_the_allowance_begins_where_the_search_keeps_more():
    assert min(_ridge_host._MANY_FOR_LADDERS.values()) == runs._FROM


@pytest.mark.thorough
@pytest.mark.parametrize(("n_targets", "score"), [(1000, "r2"), (1300, "r"), (2600, "r2")])
def test_a_fit_stays_within_its_allowance(n_targets, score):
    """A story of 500 TRs, 5 x 4 folds, 9 penalties, 100 gammas: the largest that has ladders."""
    rng = np.random.default_rng(0)
    n_rows = 390
    bands = [rng.standard_normal((n_rows, n)) for n in (4, 8, 160, 800)]
    kernels = ridge.linear_kernels(bands)
    kernels *= n_rows / np.trace(kernels, axis1=1, axis2=2)[:, None, None]
    targets = rng.standard_normal((n_rows, n_targets))
    gammas = ridge.sample_gammas(4, 100, rng)
    inner = folds.contiguous_folds(np.arange(n_rows), 4, 5)
    with blas.single_threaded():
        tracemalloc.start()
        ridge.encode_kernels(kernels, kernels[:, :98], [targets], gammas, NINE, inner, score=score)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < runs.thread_bytes(n_targets, 500, 4)
    if n_targets > 1000:  # the allowance is not a multiple of what is needed
        assert peak > 0.5 * runs.thread_bytes(n_targets, 500, 4)
