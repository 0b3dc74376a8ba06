"""Correspondence over heads: scipy's Spearman, a plant found, and honest p-values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.correspondence import (
    correspond,
    correspond_people,
    widths_of_null,
)

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


def _like_heads(rng, n_heads=36, n_labels=6):
    """Decoding in which heads resemble each other beyond their layer, as real heads do."""
    kinds = rng.normal(size=(4, n_labels))[rng.integers(0, 4, n_heads)]
    return kinds + 0.5 * rng.normal(size=(n_heads, n_labels))


def test_people_who_share_a_link_are_found_and_by_hand(rng):
    layers = np.repeat(np.arange(3), 12)
    decoded = _like_heads(rng)
    scores = np.stack([
        np.column_stack([decoded[:, 0] + rng.normal(size=36), rng.normal(size=36)])
        for _ in range(12)
    ])
    rho, p = correspond_people(decoded, scores, layers, n_permutations=999, rng=rng)
    assert p[0, 0] == 1 / 1000
    assert rho[0, 0] > 0.4
    each = []
    for one in scores:
        ranks = [stats.rankdata(x) for x in (decoded[:, 0], one[:, 0])]
        left = [r - np.repeat([r[layers == k].mean() for k in range(3)], 12) for r in ranks]
        each.append(stats.pearsonr(*left)[0])
    assert rho[0, 0] == pytest.approx(np.tanh(np.mean(np.arctanh(each))))


def test_people_whose_brains_follow_nothing_hold_the_level():
    """Scores of a person vary with kinds of heads at random, so that heads do not count singly."""
    rng = np.random.default_rng(9)
    layers = np.repeat(np.arange(3), 12)
    p = []
    for _ in range(220):
        kinds = rng.integers(0, 4, 36)
        decoded = rng.normal(size=(4, 1))[kinds] + 0.5 * rng.normal(size=(36, 1))
        own = rng.normal(size=(10, 4, 1))[:, kinds] + 0.5 * rng.normal(size=(10, 36, 1))
        p.append(correspond_people(decoded, own, layers, n_permutations=199, rng=rng)[1][0, 0])
    low, high = stats.binom.ppf([0.005, 0.995], 220, 0.05)
    assert low <= (np.array(p) <= 0.05).sum() <= high


def test_one_person_cannot_agree(rng):
    with pytest.raises(NumericalError, match="at least 2 participants"):
        correspond_people(np.zeros((12, 2)), np.zeros((1, 12, 3)), np.repeat([0, 1], 6),
                          n_permutations=9, rng=rng)


def test_heads_that_go_together_widen_the_null(rng):
    """Pairs of heads of a layer have the same scores and accuracies: half as many heads."""
    pairs = np.repeat(np.arange(24), 2)
    layers = np.repeat(np.arange(4), 12)
    people = rng.standard_normal((40, 24, 5))
    decoded = rng.standard_normal((24, 30))
    alike = widths_of_null(decoded[pairs], people[:, pairs], layers)
    assert alike.mean() == pytest.approx(np.sqrt((48 - 4) / (24 - 4)), abs=0.1)
    apart = rng.standard_normal((40, 48, 5))
    free = widths_of_null(decoded[pairs], apart, layers)
    assert free.min() >= 1.0
    assert free.mean() < 1.1
    one = widths_of_null(decoded[pairs], apart[:1], layers)
    np.testing.assert_array_equal(one, 1.0)


def test_a_wider_null_holds_its_level_for_heads_in_pairs(rng):
    """400 scores without link."""
    pairs, layers = np.repeat(np.arange(24), 2), np.repeat(np.arange(4), 12)
    decoded, scores = rng.standard_normal((24, 1))[pairs], rng.standard_normal((24, 400))[pairs]
    people = rng.standard_normal((30, 24, 8))[:, pairs]
    widths = widths_of_null(decoded, people, layers)
    narrow, wide = (
        correspond(
            decoded, scores, layers, n_permutations=199, rng=np.random.default_rng(1), widths=one
        )
        for one in (None, widths)
    )
    np.testing.assert_array_equal(narrow.p, wide.p)
    np.testing.assert_array_equal(narrow.rho_within, wide.rho_within)
    low, high = stats.binom.ppf([0.005, 0.995], 400, 0.05)
    assert (narrow.p_within <= 0.05).sum() > high
    assert low <= (wide.p_within <= 0.05).sum() <= high
    with pytest.raises(NumericalError, match="2 widths"):
        correspond(
            decoded, scores, layers, n_permutations=9, rng=rng, widths=np.ones(2)
        )
