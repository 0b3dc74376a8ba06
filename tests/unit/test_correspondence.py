"""Correspondence over heads: scipy's Spearman, a plant found, and honest p-values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.correspondence import correspond

LAYERS = np.repeat(np.arange(6), 12)


def _run(accuracy, scores, n=999, seed=0, layers=LAYERS):
    rng = np.random.default_rng(seed)
    return correspond(accuracy, scores, layers, n_permutations=n, rng=rng)


def test_equals_scipy_with_ties(rng):
    accuracy, scores = rng.integers(0, 9, (72, 3)).astype(float), rng.normal(size=(72, 4))
    found = _run(accuracy, scores)
    for label, parcel in np.ndindex(3, 4):
        expected = stats.spearmanr(accuracy[:, label], scores[:, parcel])
        assert found.rho[label, parcel] == pytest.approx(expected.statistic, abs=1e-12)
        assert found.p[label, parcel] == pytest.approx(expected.pvalue, abs=0.06)


def test_a_planted_link_is_found_and_others_are_not(rng):
    accuracy, scores = rng.normal(size=(72, 5)), rng.normal(size=(72, 6))
    scores[:, 2] += 1.5 * accuracy[:, 3]
    found = _run(accuracy, scores, n=4999)
    assert found.p[3, 2] < 0.001
    assert found.p_within[3, 2] < 0.001
    others = np.ones((5, 6), bool)
    others[3, 2] = False
    assert (found.p[others] < 0.01).sum() <= 2


def test_a_link_through_depth_alone_vanishes_within_layers(rng):
    """Both change with layer and share nothing else."""
    depth = LAYERS[:, None].astype(float)
    found = _run(depth + rng.normal(size=(72, 1)), depth + rng.normal(size=(72, 1)), n=4999)
    assert found.rho[0, 0] > 0.6
    assert found.p[0, 0] < 0.001
    assert abs(found.rho_within[0, 0]) < 0.3
    assert found.p_within[0, 0] > 0.01


def test_p_values_are_uniform_without_a_link():
    """400 null data sets; within layers also when depth drives both sides."""
    rng = np.random.default_rng(5)
    depth = LAYERS[:, None] * np.ones(400)
    free = _run(rng.normal(size=(72, 400)), rng.normal(size=(72, 1)), n=399)
    held = _run(depth + rng.normal(size=(72, 400)), depth[:, :1] + rng.normal(size=(72, 1)), n=399)
    low, high = stats.binom.ppf([0.001, 0.999], 400, 0.05)
    assert low <= (free.p[:, 0] <= 0.05).sum() <= high
    assert low <= (held.p_within[:, 0] <= 0.05).sum() <= high
    assert stats.kstest(free.p[:, 0], "uniform").pvalue > 0.001
    assert stats.kstest(held.p_within[:, 0], "uniform").pvalue > 0.001
    assert (held.p[:, 0] <= 0.05).mean() > 0.5  # what the version within layers is for


def test_what_is_not_known_is_not_tested(rng):
    accuracy, scores = rng.normal(size=(72, 2)), rng.normal(size=(72, 2))
    accuracy[3, 0], scores[:, 1] = np.nan, 2.0
    found = _run(accuracy, scores, n=99)
    assert np.isnan(found.rho).tolist() == [[True, True], [False, True]]
    assert np.isnan(found.p_within).tolist() == [[True, True], [False, True]]


def test_the_same_seed_gives_the_same_bits_whatever_else_is_tested(rng):
    accuracy, scores = rng.normal(size=(72, 2)), rng.normal(size=(72, 3))
    assert np.array_equal(_run(accuracy, scores).p, _run(accuracy, scores).p)
    assert np.array_equal(_run(accuracy, scores).p[:, :1], _run(accuracy, scores[:, :1]).p)
    with pytest.raises(NumericalError, match="72 heads, scores of 71"):
        _run(accuracy, scores[1:])
