"""Layer profiles by hand, a planted difference found, and honest p-values without one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.layers import compare_spaces, profile


def test_profile_by_hand():
    scores = np.array([[0.0, 3.0, 4.0, 4.0], [1.0, 1.0, 1.0, 1.0], [np.nan, 1, 2, 3]])
    found = profile(scores)
    assert found.preferred[0] == 2  # the first of equals
    assert found.specificity[:2].tolist() == [np.sqrt(9 + 1), 0]
    assert found.entropy[1] == pytest.approx(2)
    expected = np.exp([0, 3, 4, 4]) / np.exp([0, 3, 4, 4]).sum()
    np.testing.assert_allclose(found.softmax[0], expected)
    assert found.entropy[0] == pytest.approx(stats.entropy(expected, base=2))
    assert np.isnan(found.preferred[2])
    assert np.isnan(found.softmax[2]).all()


def test_a_low_temperature_picks_one_layer():
    found = profile(np.array([[0.1, 0.2, 0.15]]), temperature=0.001)
    assert found.entropy[0] < 1e-6
    with pytest.raises(NumericalError, match="at least 2 layers"):
        profile(np.zeros((3, 1)))


def _people(rng, peak, n_people=16, n_parcels=20, n_layers=6):
    curve = np.exp(-0.5 * (np.arange(n_layers) - peak) ** 2)
    return curve + rng.normal(0, 0.5, (n_people, n_parcels, n_layers))


def test_a_planted_difference_of_preference_is_found(rng):
    first, second = _people(rng, 4), _people(rng, 1)
    found = compare_spaces(first, second, lambda s: profile(s).preferred, n_permutations=499,
                           rng=rng)
    assert 1.5 < found.difference < 4
    assert found.p == 1 / 500
    assert found.n_participants == 16


def test_p_is_uniform_when_spaces_are_alike():
    """Parcels of a person share noise, which swapping cell by cell would not survive."""
    rng = np.random.default_rng(8)
    p = []
    for _ in range(220):
        shared = rng.normal(0, 0.5, (2, 12, 1, 5))
        first, second = (s + _people(rng, 2, 12, 6, 5) for s in shared)
        found = compare_spaces(first, second, lambda s: profile(s).specificity,
                               n_permutations=99, rng=rng)
        p.append(found.p)
    low, high = stats.binom.ppf([0.001, 0.999], 220, 0.05)
    assert low <= (np.array(p) <= 0.05).sum() <= high
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_swapping_everybody_gives_the_opposite(rng):
    first, second = _people(rng, 4), _people(rng, 1)
    there = compare_spaces(first, second, lambda s: profile(s).preferred, n_permutations=9, rng=rng)
    back = compare_spaces(second, first, lambda s: profile(s).preferred, n_permutations=9, rng=rng)
    assert there.difference == pytest.approx(-back.difference)
    with pytest.raises(NumericalError, match="same participants"):
        compare_spaces(first, second[1:], profile, n_permutations=9, rng=rng)
