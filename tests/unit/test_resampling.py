"""Resampling: against plain loops, exact enumeration, ties, NaN, messages."""

import itertools

import numpy as np
import pytest
from scipy.stats import permutation_test

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import _resampling, resampling
from bids_brainlm.numerics.scores import pearson

SEGMENTS = [slice(0, 50), slice(50, 103)]


def _permute(prediction, target, **changes):
    arguments = {
        "block_length": 10,
        "n_permutations": 300,
        "rng": np.random.default_rng(3),
        "segments": SEGMENTS,
    }
    return resampling.block_permutation_test(prediction, target, **(arguments | changes))


def _looped(prediction, target, order, length, shared):
    """Correlations after moving blocks, one row after the other."""
    a, b = np.array(prediction), np.array(target)
    for rows in SEGMENTS:
        a[rows] /= a[rows].std(0)
        b[rows] = (b[rows] - b[rows].mean(0)) / b[rows].std(0)
        if shared:
            a[rows] -= a[rows].mean(0)
    a -= a.mean(0)
    rows = np.concatenate([np.arange(i * length, (i + 1) * length) for i in order])
    rows = np.r_[rows, np.arange(rows.size, len(a))]
    few = len(order) / (len(order) - 1)  # blocks share a mean at each place within a block
    return (a[rows] * b).mean(0) * np.sqrt(2 if shared else few)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_block_permutation_equals_a_loop(rng, shared, alternative):
    prediction, target = rng.standard_normal((2, 103, 4)) + 3.0
    target += 0.2 * prediction
    result = _permute(prediction, target, shared_training=shared, alternative=alternative)
    length = result.block_length_used
    n_blocks = 103 // length
    orders = np.random.default_rng(3).permuted(np.tile(np.arange(n_blocks), (300, 1)), axis=1)
    null = np.array([_looped(prediction, target, order, length, shared) for order in orders])
    observed = sum(pearson(prediction[s], target[s]) * (s.stop - s.start) / 103 for s in SEGMENTS)
    np.testing.assert_allclose(result.observed, observed)
    turn = {"greater": lambda x: x, "less": lambda x: -x, "two-sided": np.abs}[alternative]
    null, observed = turn(null), turn(observed)
    np.testing.assert_allclose(result.p, (1 + (null >= observed).sum(0)) / 301)
    largest = null.max(1)[:, None]
    np.testing.assert_allclose(result.p_fwe, (1 + (largest >= observed).sum(0)) / 301)


def test_block_permutation_nan_and_constant_targets(rng):
    prediction, target = rng.standard_normal((2, 103, 5))
    whole = _permute(prediction[:, :2], target[:, :2])
    prediction[4, 2] = np.nan
    target[:, 3] = 2.0
    prediction[:50, 4] = 0.0
    result = _permute(prediction, target)
    np.testing.assert_array_equal(np.isnan(result.p), [False, False, True, True, False])
    np.testing.assert_array_equal(np.isnan(result.p_fwe), np.isnan(result.p))
    np.testing.assert_array_equal(np.isnan(result.observed), np.isnan(result.p))
    np.testing.assert_array_equal(result.p[:2], whole.p)


def test_block_permutation_in_pieces_is_the_same(rng, monkeypatch):
    prediction, target = rng.standard_normal((2, 103, 9))
    whole = _permute(prediction, target)
    monkeypatch.setattr(_resampling, "TARGETS_PER_BLOCK", 4)
    monkeypatch.setattr(_resampling, "RESAMPLES_PER_BLOCK", 70)
    pieces = _permute(prediction, target)
    np.testing.assert_array_equal(pieces.p, whole.p)
    np.testing.assert_array_equal(pieces.p_fwe, whole.p_fwe)
    assert _resampling.targets_per_block(4000) == 1


def test_block_permutation_finds_a_signal(rng):
    target = rng.standard_normal((103, 3))
    result = _permute(target + 0.3 * rng.standard_normal((103, 3)), target)
    np.testing.assert_allclose(result.p, 1 / 301)
    np.testing.assert_allclose(result.p_fwe, 1 / 301)


@pytest.mark.parametrize(
    ("n_rows", "shortest", "expected"), [(340, 10, 10), (342, 10, 11), (343, 15, 18), (100, 20, 20)]
)
def test_block_length_leaves_few_rows_over(n_rows, shortest, expected):
    assert resampling.choose_block_length(n_rows, shortest) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block_length": 30}, "fewer than 5 blocks"),
        ({"block_length": 0}, "fewer than 5 blocks"),
        ({"n_permutations": 0}, "0 resamples"),
        ({"alternative": "more"}, "alternative"),
        ({"segments": [slice(0, 50), slice(60, 103)]}, "without holes"),
        ({"segments": [slice(0, 50)]}, "without holes"),
    ],
)
def test_block_permutation_messages(rng, change, words):
    with pytest.raises(NumericalError, match=words):
        _permute(*rng.standard_normal((2, 103, 2)), **change)


def test_block_permutation_shapes(rng):
    with pytest.raises(NumericalError, match="expected"):
        _permute(rng.standard_normal((103, 2)), rng.standard_normal((103, 3)))


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_sign_flip_exact_equals_scipy(rng, alternative):
    values = rng.standard_normal((8, 3)) + 0.4
    result = resampling.sign_flip_test(
        values, n_permutations=1000, rng=rng, alternative=alternative
    )
    assert result.n_permutations == 255
    for target in range(3):
        peer = permutation_test(
            (values[:, target],),
            np.mean,
            permutation_type="samples",
            alternative=alternative,
            n_resamples=np.inf,
        )
        if alternative != "two-sided" or peer.pvalue < 1:
            assert result.p[target] == pytest.approx(peer.pvalue)
    np.testing.assert_allclose(result.observed, values.mean(0))


def test_sign_flip_family_equals_a_loop(rng):
    values = rng.standard_normal((6, 4)) * np.array([1, 10, 0.1, 1]) + 0.3
    result = resampling.sign_flip_test(values, n_permutations=64, rng=rng)
    signs = np.array(list(itertools.product([1.0, -1.0], repeat=6)))
    flipped = signs[:, :, None] * values
    t = flipped.mean(1) / (flipped.std(1, ddof=1) / np.sqrt(6))
    observed = values.mean(0) / (values.std(0, ddof=1) / np.sqrt(6))
    expected = (t.max(1)[:, None] >= observed - 1e-12).mean(0)
    np.testing.assert_allclose(result.p_fwe, expected)
    assert (result.p_fwe >= result.p).all()


def test_sign_flip_random_patterns_and_seed(rng):
    values = rng.standard_normal((20, 5)) + np.array([0, 0, 0.3, 0.6, 2.0])
    first, second = (
        resampling.sign_flip_test(values, n_permutations=2000, rng=np.random.default_rng(1))
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.p, second.p)
    assert first.p[-1] == pytest.approx(1 / 2001)
    assert first.p_fwe[-1] == pytest.approx(1 / 2001)


def test_sign_flip_with_absent_participants(rng):
    values = rng.standard_normal((9, 4)) + 0.5
    values[6:, 1] = np.nan
    values[1:, 2] = np.nan
    values[:, 3] = np.nan
    result = resampling.sign_flip_test(values, n_permutations=600, rng=rng)
    np.testing.assert_array_equal(np.isnan(result.p), [False, False, True, True])
    alone = resampling.sign_flip_test(values[:6, 1:2], n_permutations=600, rng=rng)
    assert result.p[1] == pytest.approx(alone.p[0])
    assert np.isnan(result.p_fwe[2:]).all()


def test_sign_flip_without_variance():
    values = np.zeros((6, 2))
    values[:, 1] = 0.4
    result = resampling.sign_flip_test(values, n_permutations=100, rng=np.random.default_rng(0))
    np.testing.assert_allclose(result.p, [1.0, 1 / 64])
    np.testing.assert_allclose(result.p_fwe, [1.0, 1 / 64])


def test_bootstrap_interval_equals_a_loop():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((12, 3))
    low, high = resampling.bootstrap_interval(
        values, n_bootstraps=4000, rng=np.random.default_rng(1)
    )
    means = np.array([values[rng.integers(0, 12, 12)].mean(0) for _ in range(4000)])
    np.testing.assert_allclose(low, np.quantile(means, 0.025, axis=0), atol=0.05)
    np.testing.assert_allclose(high, np.quantile(means, 0.975, axis=0), atol=0.05)


def test_bootstrap_with_absent_participants(rng):
    values = rng.standard_normal((10, 3))
    values[3:, 1] = np.nan
    values[1:, 2] = np.nan
    low, high = resampling.bootstrap_interval(values, n_bootstraps=500, rng=rng)
    np.testing.assert_array_equal(np.isnan(low), [False, False, True])
    assert low[1] >= values[:3, 1].min()
    assert high[1] <= values[:3, 1].max()
    test = resampling.bootstrap_test(values, n_bootstraps=500, rng=rng)
    np.testing.assert_array_equal(np.isnan(test.p), [False, False, True])


def test_bootstrap_test(rng):
    values = rng.standard_normal((15, 3)) * 0.5 + np.array([2.0, 0.0, -2.0])
    values[:, 1] -= values[:, 1].mean()
    result = resampling.bootstrap_test(values, n_bootstraps=999, rng=rng)
    assert result.p[0] == pytest.approx(0.001)
    assert 0.4 < result.p[1] < 0.6
    assert result.p[2] == pytest.approx(1.0)
    less = resampling.bootstrap_test(values, n_bootstraps=999, rng=rng, alternative="less")
    assert less.p[2] == pytest.approx(0.001)
    assert (result.p_fwe >= result.p).all()


def test_group_messages(rng):
    with pytest.raises(NumericalError, match="n_participants"):
        resampling.sign_flip_test(np.ones(4), n_permutations=10, rng=rng)
    with pytest.raises(NumericalError, match="level"):
        resampling.bootstrap_interval(np.ones((4, 1)), n_bootstraps=10, rng=rng, level=95)
    with pytest.raises(NumericalError, match="0 resamples"):
        resampling.bootstrap_interval(np.ones((4, 1)), n_bootstraps=0, rng=rng)


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
@pytest.mark.parametrize("name", ["sign_flip", "bootstrap"])
def test_a_column_without_values_changes_nothing_for_the_others(rng, name, alternative):
    """Tables without missing values take another way; 600 targets are more than one block."""
    values = rng.standard_normal((14, 600)) * rng.uniform(0.1, 9, 600)
    values += rng.uniform(-0.5, 0.5, 600)
    values[:, :3] = np.round(values[:, :3])  # ties
    with_empty = np.column_stack([values, np.full(14, np.nan)])
    count = {"sign_flip": "n_permutations", "bootstrap": "n_bootstraps"}[name]
    test = getattr(resampling, f"{name}_test")
    complete, other = (
        test(table, rng=np.random.default_rng(5), alternative=alternative, **{count: 700})
        for table in (values, with_empty)
    )
    np.testing.assert_array_equal(complete.p, other.p[:-1])
    np.testing.assert_array_equal(complete.p_fwe, other.p_fwe[:-1])
    np.testing.assert_allclose(complete.observed, other.observed[:-1], rtol=1e-13)
