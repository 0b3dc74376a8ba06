"""Planted dimensions of heads are found, what nobody shares is not, and links to heads hold."""

import numpy as np
import pytest
from scipy.stats import binom, kstest

from bids_brainlm.numerics.correspondence import correspond
from bids_brainlm.numerics.specialization import specialize

N_HEADS, N_PARCELS = 36, 30
N_LAYERS = 6
PLACE = np.arange(N_PARCELS)


def _own(rng, n_participants, alike=0.0):
    """Deviations of heads that no participant shares, smooth over parcels, alike in all of them."""
    smooth = np.linalg.cholesky(np.exp(-np.abs(PLACE[:, None] - PLACE) / 8.0))
    noise = rng.standard_normal((n_participants, N_HEADS, N_PARCELS)) @ smooth.T
    return noise + alike * rng.standard_normal((n_participants, N_HEADS, 1))


def _weights(rng):
    """Overall weights of heads and of parcels, the same in everybody, as features make them."""
    return 2.0 * rng.standard_normal((N_HEADS, 1)) + 2.0 * rng.standard_normal(N_PARCELS)


def _within(p):
    low, high = binom.ppf([0.005, 0.995], p.size, 0.05)
    return low <= (p <= 0.05).sum() <= high


@pytest.mark.parametrize(("n_participants", "alike"), [(18, 0.0), (6, 0.0), (12, 8.0)])
def test_p_is_honest_where_participants_share_no_pattern(n_participants, alike):
    """200 null data sets; everybody shares how much weight heads and parcels have as a whole."""
    found = []
    for seed in range(200):
        rng = np.random.default_rng([41, seed, n_participants])
        excess = _weights(rng) + 0.5 * _own(rng, n_participants, alike)
        found.append(specialize(excess, n_permutations=119, rng=rng, n_components=1, n_splits=1).p)
    found = np.concatenate(found)
    if n_participants == 6:  # all 32 different patterns of signs: 1 of them is below .05
        low, high = binom.ppf([0.005, 0.995], 200, 1 / 32)
        assert low <= (found <= 0.05).sum() <= high
        found = found - rng.uniform(0, 1 / 32, 200)
    else:
        assert _within(found)
    assert kstest(found, "uniform").pvalue > 0.005


@pytest.mark.parametrize("unequal", ["noise", "skewed"])
def test_p_is_honest_where_patterns_are_not_symmetric_or_alike(unequal):
    """200 null data sets; participants differ in how noisy they are, or errors are skewed."""
    found = []
    for seed in range(200):
        rng = np.random.default_rng([42, seed])
        own = _own(rng, 10)
        own = own * rng.uniform(0.1, 3.0, (10, 1, 1)) if unequal == "noise" else np.exp(own)
        excess = _weights(rng) + 0.3 * own
        found.append(specialize(excess, n_permutations=119, rng=rng, n_components=1, n_splits=1).p)
    assert _within(np.concatenate(found))


def _patterns(rng):
    """Two dimensions of heads and where in the brain they matter; both balance and are apart."""
    drawn = rng.standard_normal((N_HEADS, 2))
    truth = np.linalg.qr(drawn - drawn.mean(axis=0))[0] * np.sqrt(N_HEADS)
    waves = np.column_stack([np.cos(PLACE / 3), np.sin(PLACE / 4)])
    maps = np.linalg.qr(waves - waves.mean(axis=0))[0].T * np.sqrt(N_PARCELS)
    return truth, maps * np.array([[0.8], [0.6]])


@pytest.fixture(scope="module")
def planted():
    """Two shared dimensions with maps of their own, in 18 participants with noise of their own."""
    rng = np.random.default_rng(43)
    truth, maps = _patterns(rng)
    excess = _weights(rng) + 0.3 * (truth @ maps + 1.5 * _own(rng, 18))
    return truth, maps, specialize(excess, n_permutations=199, rng=rng, n_components=5)


def test_planted_dimensions_are_found(planted):
    truth, maps, found = planted
    for k in range(2):
        assert abs(np.corrcoef(found.scores[:, k], truth[:, k])[0, 1]) > 0.95
        assert abs(np.corrcoef(found.loadings[k], maps[k])[0, 1]) > 0.9
    assert (found.p[:2] == 1 / 200).all()
    assert (found.p[2:] > 0.05).all()
    assert (found.reliability[:2] > 0.85).all()
    assert (found.reliability[2:] < 0.5).all()
    assert (found.agreement[:2] > found.null_95[:2]).all()


def test_weak_dimensions_are_found():
    """40 groups of 10 in which 5 % of the variance of patterns is shared."""
    p, r = [], []
    for seed in range(40):
        rng = np.random.default_rng([47, seed])
        truth, maps = _patterns(rng)
        shared, own = np.outer(truth[:, 0], maps[0]), _own(rng, 10)
        own -= own.mean(axis=2, keepdims=True)
        shared *= np.sqrt(0.05) * own.std() / shared.std()
        excess = _weights(rng) + 0.2 * (shared + own)
        found = specialize(excess, n_permutations=199, rng=rng, n_components=1, n_splits=1)
        p.append(found.p[0])
        r.append(abs(np.corrcoef(found.scores[:, 0], truth[:, 0])[0, 1]))
    assert (np.array(p) <= 0.05).mean() > 0.8
    assert np.mean(r) > 0.8


def test_a_shared_dimension_makes_no_second_one():
    """200 data sets in which one is shared, and another, strong one is everyone's own."""
    first, second = [], []
    for seed in range(200):
        rng = np.random.default_rng([44, seed])
        own = 0.3 * _own(rng, 12)
        own += 2.0 * rng.standard_normal((12, N_HEADS, 1)) * np.sin(PLACE / 9.0)
        shared = 3.0 * np.outer(rng.standard_normal(N_HEADS), np.cos(PLACE / 5.0))
        excess = 0.1 * (_weights(rng) + shared + own)
        p = specialize(excess, n_permutations=119, rng=rng, n_components=2, n_splits=1).p
        first.append(p[0])
        second.append(p[1])
    assert (np.array(first) <= 0.05).all()
    assert (np.array(second) <= 0.05).sum() <= binom.ppf(0.995, 200, 0.05)


def test_scores_are_linked_to_what_was_planted(planted):
    """Distance follows the second dimension; layer and another label follow nothing."""
    truth, _, found = planted
    rng = np.random.default_rng(45)
    layers = np.repeat(np.arange(N_LAYERS), N_HEADS // N_LAYERS)
    distance = np.exp(truth[:, 1] + 0.5 * rng.standard_normal(N_HEADS))
    accuracy = rng.uniform(0.4, 0.9, N_HEADS)
    columns = np.column_stack([layers, distance, accuracy])
    linked = correspond(columns, found.scores, layers, n_permutations=999, rng=rng)
    assert abs(linked.rho[1, 1]) > 0.7
    assert linked.p[1, 1] == linked.p_within[1, 1] == 0.001
    assert np.isnan(linked.p_within[0]).all()  # a layer does not vary within layers
    assert np.isnan(linked.rho_within[0]).all()
    assert np.isfinite(linked.p).all()
    assert np.isfinite(linked.p_within[1:]).all()


def test_links_of_scores_have_honest_p():
    """400 sets of scores that are linked to nothing; then heads of a layer resemble each other."""
    rng = np.random.default_rng(46)
    n_each = N_HEADS // N_LAYERS
    layers = np.repeat(np.arange(N_LAYERS), n_each)
    scores = rng.standard_normal((N_HEADS, 400))
    columns = np.column_stack([layers, layers + rng.standard_normal(N_HEADS)])
    free = correspond(columns, scores, layers, n_permutations=199, rng=rng)
    assert _within(free.p[0])
    assert _within(free.p[1])
    assert _within(free.p_within[1])
    scores += np.repeat(rng.standard_normal((N_LAYERS, 400)), n_each, axis=0)
    clustered = correspond(columns, scores, layers, n_permutations=199, rng=rng)
    assert (clustered.p[0] <= 0.05).mean() > 0.2  # heads are not exchangeable between layers
    assert _within(clustered.p_within[1])
    means = scores.reshape(N_LAYERS, n_each, 400).mean(axis=1)
    order = np.arange(N_LAYERS)
    by_layer = correspond(order[:, None], means, order, n_permutations=719, rng=rng)
    assert _within(by_layer.p[0])
