"""Specificity without the bias of noise: by hand, by brute force, and against two nulls."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.specificity import compare_specificity, shared_specificity


def _people(rng, peak, height, n_people=14, n_parcels=8, n_layers=6, noise=0.5):
    curve = height * np.exp(-0.5 * (np.arange(n_layers) - peak) ** 2)
    return curve + rng.normal(0, noise, (n_people, n_parcels, n_layers))


def test_it_is_the_mean_product_of_pairs_of_people(rng):
    values = _people(rng, 3, 1, n_people=5, n_parcels=2)
    differences = np.diff(values, axis=2)
    for parcel, found in enumerate(shared_specificity(values)):
        pairs = [differences[i, parcel] @ differences[j, parcel]
                 for i, j in itertools.permutations(range(5), 2)]
        assert np.sign(found) * found**2 == pytest.approx(np.mean(pairs))


def test_without_noise_it_is_the_norm():
    profile = np.array([0.0, 0.3, 0.4, 0.4])
    found = shared_specificity(np.tile(profile, (4, 1, 1)))
    assert found == pytest.approx([np.sqrt(0.09 + 0.01)])


def test_noise_has_none_on_average(rng):
    squares = [shared_specificity(rng.normal(size=(10, 1, 5)))[0] for _ in range(400)]
    signed = np.sign(squares) * np.square(squares)
    assert abs(np.mean(signed)) < 3 * np.std(signed) / 20


def test_a_planted_difference_is_found_and_turns_with_the_order(rng):
    sharp, flat = _people(rng, 3, 0.8), _people(rng, 3, 0.1)
    there = compare_specificity(sharp, flat, n_permutations=499, rng=rng)
    back = compare_specificity(flat, sharp, n_permutations=499, rng=rng)
    assert there.difference > 0.3
    assert there.difference == pytest.approx(-back.difference)
    assert there.p == back.p == 1 / 500
    assert there.n_participants == 14


@pytest.mark.parametrize(("height", "noises"), [(0.0, (0.3, 0.9)), (0.6, (0.5, 0.5))])
def test_false_positives(height, noises):
    """Nothing but noise of unlike size, and equal profiles: at most the nominal level."""
    rng = np.random.default_rng(4)
    p = []
    for _ in range(300):
        pair = [_people(rng, 2, height, 12, 5, 5, noise=one) for one in noises]
        p.append(compare_specificity(*pair, n_permutations=99, rng=rng).p)
    assert (np.array(p) <= 0.05).sum() <= stats.binom.ppf(0.995, 300, 0.05)


def test_parcels_that_someone_lacks_are_left_out(rng):
    first, second = _people(rng, 3, 1), _people(rng, 1, 1)
    holed = first.copy()
    holed[2, 0] = np.nan
    assert np.isnan(shared_specificity(holed)[0])
    found = compare_specificity(holed, second, n_permutations=9, rng=np.random.default_rng(1))
    rest = compare_specificity(first[:, 1:], second[:, 1:], n_permutations=9,
                               rng=np.random.default_rng(1))
    assert found == rest
    nothing = compare_specificity(np.full_like(first, np.nan), second, n_permutations=9, rng=rng)
    assert np.isnan(nothing.p)


def test_wrong_shapes(rng):
    with pytest.raises(NumericalError, match="same participants"):
        compare_specificity(np.zeros((3, 2, 4)), np.zeros((4, 2, 4)), n_permutations=9, rng=rng)
    with pytest.raises(NumericalError, match="at least 2"):
        shared_specificity(np.zeros((1, 2, 4)))
