"""Differences of feature spaces: honest p values, a plant found, layers that do not flatter."""

import numpy as np
import pytest
from scipy.stats import binom, kstest

from bids_brainlm.numerics.comparison import chosen, compare

LOW, HIGH = 0.005, 0.995


def _p(first, second, seed=0):
    rng = np.random.default_rng(seed)
    return compare({"a": first, "b": second}, n_permutations=499, n_bootstraps=1, rng=rng).p[0]


def _within(p):
    """Whether the share of p <= .05 lies in the binomial 99 % interval."""
    low, high = binom.ppf([LOW, HIGH], p.size, 0.05)
    return low <= (p <= 0.05).sum() <= high


@pytest.mark.parametrize("n_participants", [9, 18])
def test_p_is_uniform_without_a_difference(n_participants):
    """600 null data sets; participants differ in level and in reliability."""
    rng = np.random.default_rng(n_participants)
    level = rng.standard_normal((n_participants, 600))
    noise = rng.standard_normal((2, n_participants, 600)) * rng.uniform(0.2, 2, (n_participants, 1))
    p = _p(level + noise[0], level + noise[1])
    assert _within(p)
    assert kstest(p, "uniform").pvalue > 0.01


def test_families_of_pairs_and_regions_keep_their_level():
    """250 null data sets of 5 spaces and 6 regions that resemble each other."""
    rng = np.random.default_rng(2)
    fwe, fdr = [], []
    for _ in range(250):
        level = rng.standard_normal((12, 1)) + rng.standard_normal((12, 6))
        spaces = {str(k): level + rng.standard_normal((12, 6)) for k in range(5)}
        found = compare(spaces, n_permutations=199, n_bootstraps=1, rng=rng)
        fwe.append(found.p_fwe.min() <= 0.05)
        fdr.append(found.q.min() <= 0.05)
    low, high = binom.ppf([LOW, HIGH], 250, 0.05)
    assert low <= np.sum(fwe) <= high
    assert np.sum(fdr) <= high


def test_a_planted_difference_is_found():
    rng = np.random.default_rng(3)
    level = rng.standard_normal((18, 1)) + 0.5 * rng.standard_normal((18, 11))
    spaces = {n: level + 0.05 * rng.standard_normal((18, 11)) for n in "abcd"}
    spaces["c"][:, 4] += 0.1
    found = compare(spaces, n_permutations=4999, n_bootstraps=1000, rng=rng)
    planted = np.zeros((6, 11), bool)
    planted[[1, 3, 5], 4] = True  # a-c, b-c, c-d
    assert (found.q <= 0.05)[planted].all()
    assert (found.p_fwe <= 0.05)[planted].all()
    assert (found.q <= 0.05)[~planted].sum() <= 1
    assert (found.p_fwe <= 0.05)[~planted].sum() == 0
    np.testing.assert_allclose(found.difference[[1, 3, 5], 4], [-0.1, -0.1, 0.1], atol=0.04)
    assert (found.low < 0.1)[5, 4]
    assert (found.high > 0.1)[5, 4]


def test_the_interval_covers():
    rng = np.random.default_rng(4)
    found = compare(
        dict(enumerate(rng.standard_normal((2, 30, 800)))),
        n_permutations=1, n_bootstraps=400, rng=rng,
    )  # fmt: skip
    assert 0.91 < ((found.low <= 0) & (found.high >= 0)).mean() < 0.965


@pytest.fixture(scope="module")
def equal_spaces():
    """Two spaces of 12 layers and one of a single layer, equally good, in 600 null data sets."""
    rng = np.random.default_rng(5)
    level = rng.standard_normal((18, 600, 1))
    own = rng.standard_normal((3, 18, 600, 1))
    layers = 0.84 * own[:2] + 0.55 * rng.standard_normal((2, 18, 600, 12))
    return level + layers[0], level + layers[1], level + own[2]


def test_the_best_layer_of_the_same_people_flatters(equal_spaces):
    many, _, one = equal_spaces
    best = many.mean(axis=0).argmax(axis=1)
    flattered = np.take_along_axis(many, best[None, :, None], axis=2)[..., 0]
    assert not _within(_p(flattered, one[..., 0]))
    assert (flattered - one[..., 0]).mean() > 0.1


def test_leaving_out_one_person_does_not_make_the_test_honest(equal_spaces):
    """Why halves: the mean is unbiased, but values of people depend on each other."""
    many, _, one = equal_spaces
    best = (many.sum(axis=0) - many).argmax(axis=2)
    left_out = np.take_along_axis(many, best[..., None], axis=2)[..., 0]
    assert abs((left_out - one[..., 0]).mean()) < 0.05
    assert not _within(_p(left_out, one[..., 0]))


def test_layers_of_the_other_half_are_honest(equal_spaces):
    first, second, one = (chosen(space) for space in equal_spaces)
    for other in (second, one):
        assert abs((first - other).mean()) < 0.05
        assert _within(_p(first, other))


def test_layers_that_differ_in_noise_only_cost_little():
    """The worst case, in which all that differs between the spaces is layers' own noise."""
    noise = np.random.default_rng(8).standard_normal((2, 18, 2000, 12))
    assert 0.05 < (_p(*(chosen(space) for space in noise)) <= 0.05).mean() < 0.1


def test_the_best_layer_is_found_when_there_is_one():
    rng = np.random.default_rng(6)
    z = 0.2 + 0.05 * rng.standard_normal((18, 50, 1)) + 0.03 * rng.standard_normal((18, 50, 12))
    z[..., 7] += 0.05
    assert chosen(z).mean() == pytest.approx(0.25, abs=0.005)
