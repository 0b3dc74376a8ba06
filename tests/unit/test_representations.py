"""Geometry of representations against scipy, statsmodels and loops; planted structure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import qr
from scipy.signal import lfilter
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, spearmanr, zscore
from statsmodels.tsa.stattools import acf

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import rank_correlation as ranks
from bids_brainlm.numerics import representations as rep

few = settings(derandomize=True, max_examples=60, deadline=None)


def by_pdist(features):
    return pdist(zscore(features, axis=0), "correlation")


@pytest.fixture
def spaces(rng):
    """Two spaces that share a part, with units of very different size."""
    common = rng.standard_normal((23, 4))
    make = [
        np.stack([common @ rng.standard_normal((4, 9)) + k * rng.standard_normal((23, 9))
                  for k in range(5)], axis=1)
        for _ in range(2)
    ]  # fmt: skip
    return tuple(space * rng.uniform(0.01, 100, 9) + 3 for space in make)


# Dissimilarities


def test_rdm_equals_scipy(rng):
    features = rng.standard_normal((31, 12)) * rng.uniform(0.1, 50, 12) + 7
    np.testing.assert_allclose(rep.rdm(features), by_pdist(features), atol=2e-12)
    np.testing.assert_allclose(rep.rdm(features.astype("f4")), by_pdist(features), atol=1e-5)
    assert squareform(rep.rdm(features)).shape == (31, 31)


def test_rdm_by_hand():
    features = np.array([[1.0, 2, 3], [2, 4, 6], [3, 1, 5], [0, 0, 0]])
    z = (features - features.mean(0)) / features.std(0)
    expected = [1 - np.corrcoef(z[i], z[j])[0, 1] for i in range(4) for j in range(i + 1, 4)]
    np.testing.assert_allclose(rep.rdm(features), expected, atol=1e-12)


def test_constant_features_do_not_matter_and_equal_rows_are_at_0(rng):
    features = rng.standard_normal((8, 5))
    features[5] = features[2]
    wide = np.column_stack([features, np.zeros(8), np.full(8, 1e6)])
    matrix = squareform(rep.rdm(wide))
    z = np.column_stack([zscore(features, axis=0), np.zeros((8, 2))])
    np.testing.assert_allclose(matrix, squareform(pdist(z, "correlation")), atol=1e-11)
    assert matrix[2, 5] == 0
    np.testing.assert_array_equal(matrix[2], matrix[5])


def test_order_scale_and_offset_of_units_do_not_matter(rng):
    features = rng.standard_normal((20, 30))
    changed = features[:, rng.permutation(30)] * rng.uniform(0.1, 10, 30) - 4
    np.testing.assert_allclose(rep.rdm(changed), rep.rdm(features), atol=2e-12)


# Rank correlations


@few
@given(st.integers(0, 2**31), st.integers(2, 60), st.integers(1, 30))
def test_spearman_equals_scipy_also_with_ties(seed, n, n_values):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, n_values + 1, (2, n)).astype(float)
    found = ranks.spearman(a, b)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_spearman_matrix_in_blocks(rng, monkeypatch):
    vectors = rng.standard_normal((4, 101)) + rng.standard_normal(101)
    vectors[3, 5] = np.nan
    monkeypatch.setattr(ranks, "_PAIRS_PER_BLOCK", 10)
    found = ranks.spearman_matrix(list(vectors))
    np.testing.assert_allclose(found[:3, :3], spearmanr(vectors[:3].T).statistic, atol=1e-12)
    assert np.isnan(found[3]).all()
    assert np.isnan(found[:, 3]).all()


def _pairs(a, b):
    return [by_pdist(space) for space in (a, b)]


def _stream(a, b):
    return ranks.stream_spearman(
        rep._directions(a), rep._directions(b), rep._dissimilarity, high=2.0
    )


@pytest.mark.parametrize("rows_per_block", [1, 7, 1000])
def test_streamed_spearman_is_exact_for_few_pairs(rng, monkeypatch, rows_per_block):
    monkeypatch.setattr(ranks, "_ROWS_PER_BLOCK", rows_per_block)
    a = rng.standard_normal((60, 6))
    b = a + rng.standard_normal((60, 6))
    b[40] = b[3]  # ties
    found = _stream(a, b)
    assert found.r == pytest.approx(spearmanr(*_pairs(a, b)).statistic, abs=1e-12)
    assert (found.error, found.n_pairs) == (0.0, 60 * 59 // 2)


def test_counted_ranks_agree_with_exact_ones_within_their_bound(rng, monkeypatch):
    monkeypatch.setattr(ranks, "_EXACT_PAIRS", 0)
    monkeypatch.setattr(ranks, "_ROWS_PER_BLOCK", 64)
    a = rng.standard_normal((500, 20))
    b = a + rng.standard_normal((500, 20))
    exact = spearmanr(*_pairs(a, b)).statistic
    found = _stream(a, b)
    assert found.n_pairs == 124750
    assert abs(found.r - exact) <= found.error + 1e-12
    assert found.error < 1e-4
    assert found.r == pytest.approx(exact, abs=1e-8)


@few
@given(st.integers(0, 2**31), st.integers(3, 40), st.sampled_from([2, 5, 16, 100, 1000]))
def test_the_bound_holds_with_coarse_bins(seed, n_rows, n_bins):
    """And the counted correlation is that of the rounded dissimilarities."""
    rng = np.random.default_rng(seed)
    a = rng.integers(-2, 3, (n_rows, 5)) + 0.01 * rng.standard_normal((n_rows, 5))
    b = a * rng.integers(0, 2) + rng.standard_normal((n_rows, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "_EXACT_PAIRS", 0)
        patch.setattr(ranks, "_N_BINS", n_bins)
        patch.setattr(ranks, "_ROWS_PER_BLOCK", 11)
        found = _stream(a, b)
    x, y = rep.rdm(a), rep.rdm(b)
    rounded = [np.rint(v * n_bins / 2) for v in (x, y)]
    if min(np.ptp(v) for v in rounded) == 0:
        assert np.isnan(found.r)
        return
    assert found.r == pytest.approx(spearmanr(*rounded).statistic, abs=1e-9)
    assert abs(found.r - spearmanr(x, y).statistic) <= found.error + 1e-12


def test_rows_without_a_pattern_give_nan_and_not_rounding_error(rng, monkeypatch):
    a, b = rng.standard_normal((2, 12, 4))
    a[3] = (a.sum(axis=0) - a[3]) / 11  # the mean of all rows: its z-scores are all 0
    for exact in (10**9, 0):
        monkeypatch.setattr(ranks, "_EXACT_PAIRS", exact)
        assert np.isnan(_stream(a, b).r)


# Comparison of layers


def test_comparison_equals_scipy(spaces):
    embeddings, transformations = spaces
    n_rows, n_layers, _ = embeddings.shape
    found = rep.compare_layers(embeddings, transformations)
    whole = [by_pdist(space.reshape(n_rows, -1)) for space in spaces]
    np.testing.assert_allclose(found.embedding_rdm, whole[0], atol=2e-12)
    np.testing.assert_allclose(found.transformation_rdm, whole[1], atol=2e-12)
    assert found.stacked_features == pytest.approx(spearmanr(*whole).statistic, abs=1e-12)

    stacked = [np.concatenate([space[:, k] for k in range(n_layers)]) for space in spaces]
    expected = spearmanr(*[by_pdist(space) for space in stacked]).statistic
    assert found.stacked_samples == pytest.approx(expected, abs=1e-12)
    assert (found.n_rows, found.n_pairs) == (23, 115 * 114 // 2)

    layers = [[by_pdist(space[:, k]) for k in range(n_layers)] for space in spaces]
    for i in range(n_layers):
        for j in range(n_layers):
            for values, one, two in (
                (found.layer_by_layer, layers[0], layers[1]),
                (1 - found.embedding_layers, layers[0], layers[0]),
                (1 - found.transformation_layers, layers[1], layers[1]),
            ):
                assert values[i, j] == pytest.approx(spearmanr(one[i], two[j]).statistic, abs=1e-10)
    second = [squareform(m, checks=False)
              for m in (found.embedding_layers, found.transformation_layers)]  # fmt: skip
    assert found.second_order == pytest.approx(spearmanr(*second).statistic, abs=1e-12)
    assert (np.diag(found.embedding_layers) == 0).all()

    r = [pearsonr(embeddings[k].ravel(), transformations[k].ravel()).statistic for k in range(23)]
    np.testing.assert_allclose(found.row_r, r, atol=1e-12)
    assert found.row_r_mean == pytest.approx(np.mean(r))
    assert found.row_r_sd == pytest.approx(np.std(r, ddof=1))


def test_rotated_white_spaces_are_the_same(rng):
    """A rotation that keeps the sum of the units moves no correlation distance."""
    n_rows, n_dims = 80, 10

    def white():
        x = rng.standard_normal((n_rows, n_dims))
        return qr(x - x.mean(axis=0), mode="economic")[0] * np.sqrt(n_rows)

    def rotation():
        basis = qr(np.column_stack([np.ones(n_dims), rng.standard_normal((n_dims, n_dims - 1))]))[0]
        turn = np.eye(n_dims)
        turn[1:, 1:] = qr(rng.standard_normal((n_dims - 1, n_dims - 1)))[0]
        return basis @ turn @ basis.T

    embeddings = np.stack([white() for _ in range(4)], axis=1)
    turned = np.stack([embeddings[:, k] @ rotation() for k in range(4)], axis=1)
    found = rep.compare_layers(embeddings, turned)
    assert found.stacked_features == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(np.diag(found.layer_by_layer), 1, atol=1e-6)
    assert found.second_order == pytest.approx(1, abs=1e-6)
    assert abs(found.row_r_mean) < 0.2  # the units themselves are others
    off = found.layer_by_layer[~np.eye(4, dtype=bool)]
    assert np.abs(off).max() < 0.2


def test_independent_spaces_have_nothing_in_common(rng):
    found = rep.compare_layers(*rng.standard_normal((2, 120, 3, 40)))
    assert abs(found.stacked_features) < 0.06
    assert abs(found.stacked_samples) < 0.03
    assert np.abs(found.layer_by_layer).max() < 0.08
    assert abs(found.row_r_mean) < 0.04
    assert found.row_r_sd == pytest.approx(1 / np.sqrt(120), rel=0.3)


def test_same_geometry_in_each_layer_but_other_axes_between_layers(rng):
    """Stacked as samples, two spaces can differ although each layer agrees: the paper's case."""
    common = rng.standard_normal((60, 50))
    embeddings = np.stack([common] * 4, axis=1)
    transformations = np.stack([common[:, rng.permutation(50)] for _ in range(4)], axis=1)
    found = rep.compare_layers(embeddings, transformations)
    assert found.stacked_features == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(found.layer_by_layer, 1, atol=1e-9)
    assert found.stacked_samples < 0.5


def test_other_dimensions_and_few_layers(spaces):
    embeddings, transformations = spaces
    found = rep.compare_layers(embeddings, transformations[:, :, :6])
    assert np.isfinite(found.stacked_features)
    assert np.isnan(found.row_r).all()
    assert np.isnan(found.row_r_mean)
    two = rep.compare_layers(embeddings[:, :2], transformations[:, :2])
    assert np.isnan(two.second_order)
    one = rep.compare_layers(embeddings[:, :1], transformations[:, :1])
    assert one.stacked_features == pytest.approx(one.stacked_samples, abs=1e-12)


def test_large_comparisons_take_the_counted_path(spaces, monkeypatch):
    exact = rep.compare_layers(*spaces)
    monkeypatch.setattr(ranks, "_EXACT_PAIRS", 100)
    counted = rep.compare_layers(*spaces)
    assert exact.stacked_samples_error == 0 < counted.stacked_samples_error < 0.01
    difference = abs(counted.stacked_samples - exact.stacked_samples)
    assert difference <= counted.stacked_samples_error


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((5, 2, 4), (6, 2, 4), "expected as many"),
        ((5, 3, 4), (5, 2, 4), "expected as many"),
        ((2, 2, 4), (2, 2, 4), "at least 3 rows"),
        ((5, 8), (5, 8), "n_layers"),
        ((5, 2, 1), (5, 2, 1), "fewer than 2"),
    ],
)
def test_wrong_shapes(first, second, message):
    with pytest.raises(NumericalError, match=message):
        rep.compare_layers(np.ones(first), np.ones(second))


def test_silent_rows_must_be_left_out(rng):
    embeddings = rng.standard_normal((6, 2, 4))
    with_silence = embeddings.copy()
    with_silence[3] = np.nan
    for pair in ((with_silence, embeddings), (embeddings, with_silence)):
        with pytest.raises(NumericalError, match="leave out the TRs without words"):
            rep.compare_layers(*pair)
    with pytest.raises(NumericalError, match="leave out"):
        rep.rdm(with_silence[:, 0])
    with pytest.raises(NumericalError, match="one shape"):
        ranks.spearman(np.ones(3), np.ones(4))
    with pytest.raises(NumericalError, match="expected as many"):
        ranks.stream_spearman(np.ones((3, 2)), np.ones((4, 2)), rep._dissimilarity, high=2.0)


# Autocorrelation


@pytest.fixture
def slow(rng):
    """AR(1) series in two layers: coefficients .9 and .5."""
    noise = rng.standard_normal((700, 2, 40))
    series = np.stack(
        [lfilter([1], [1, -phi], noise[:, k], axis=0) for k, phi in enumerate((0.9, 0.5))], axis=1
    )
    return series[100:] * 5 + 2


@pytest.mark.parametrize("adjusted", [False, True])
def test_autocorrelation_equals_statsmodels(slow, adjusted):
    found = rep.autocorrelation(slow, np.ones(len(slow), bool), 30, adjusted=adjusted)
    for layer in range(2):
        expected = np.mean(
            [acf(x, nlags=30, adjusted=adjusted, fft=False) for x in slow[:, layer].T], axis=0
        )
        np.testing.assert_allclose(found.values[layer], expected, atol=1e-12)
    np.testing.assert_array_equal(found.n_pairs, 600 - np.arange(31))
    np.testing.assert_array_equal(found.n_features, 40)


def test_silent_ends_do_not_matter(slow):
    valid = np.zeros(600, bool)
    valid[7:587] = True
    padded = np.where(valid[:, None, None], slow, np.nan)
    found = rep.autocorrelation(padded, valid)
    expected = rep.autocorrelation(slow[7:587], np.ones(580, bool))
    np.testing.assert_allclose(found.values, expected.values, atol=1e-12)


def test_gaps_by_loops(rng):
    series, valid = rng.standard_normal((20, 1, 2)), rng.random(20) < 0.7
    valid[[0, -1]] = True
    series[~valid] = np.nan
    found = rep.autocorrelation(series, valid, 5)
    expected = np.zeros(6)
    for feature in range(2):
        x = series[:, 0, feature]
        mean, variance = np.mean(x[valid]), np.var(x[valid])
        for lag in range(6):
            pairs = [(t, t + lag) for t in range(20 - lag) if valid[t] and valid[t + lag]]
            products = [(x[s] - mean) * (x[t] - mean) for s, t in pairs]
            expected[lag] += np.mean(products) / variance * (20 - lag) / 20 / 2
            assert found.n_pairs[lag] == len(pairs)
    np.testing.assert_allclose(found.values[0], expected, atol=1e-12)


def test_gaps_do_not_change_the_estimate_but_filling_them_does(slow, rng):
    valid = rng.random(600) < 0.6
    whole = rep.autocorrelation(slow, np.ones(600, bool), 10).values
    gappy = rep.autocorrelation(np.where(valid[:, None, None], slow, np.nan), valid, 10).values
    np.testing.assert_allclose(gappy, whole, atol=0.05)
    np.testing.assert_allclose(gappy[:, 1], [0.9, 0.5], atol=0.05)
    last = np.maximum.accumulate(np.where(valid, np.arange(600), valid.argmax()))
    filled = rep.autocorrelation(slow[last], np.ones(600, bool), 10).values
    assert filled[1, 1] > 0.6


def test_lags_without_pairs_are_nan_and_constant_units_are_left_out(rng):
    series = rng.standard_normal((12, 2, 3))
    series[:, 0, 1] = 7.0
    series[:, 1] = 3.0
    valid = np.arange(12) % 3 == 0  # pairs at lags 0, 3, 6, 9 only
    found = rep.autocorrelation(series, valid, 10)
    np.testing.assert_array_equal(found.n_features, [2, 0])
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(found.values[0])), [0, 3, 6, 9])
    assert found.values[0, 0] == pytest.approx(1)
    assert np.isnan(found.values[1]).all()


def test_wrong_autocorrelations(rng):
    series = rng.standard_normal((10, 2, 3))
    everything = np.ones(10, bool)
    with pytest.raises(NumericalError, match="at least 3 valid"):
        rep.autocorrelation(series, np.zeros(10, bool), 2)
    with pytest.raises(NumericalError, match="n_layers"):
        rep.autocorrelation(series[:, 0], everything, 2)
    with pytest.raises(NumericalError, match="expected 0 to 9"):
        rep.autocorrelation(series, everything, 10)
    series[4, 1, 1] = np.nan
    with pytest.raises(NumericalError, match="NaN"):
        rep.autocorrelation(series, everything, 3)
