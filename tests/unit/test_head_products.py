"""Weights and predictions of delayed features against explicit columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.numerics._lag_products import LagProducts, usable
from bids_brainlm.numerics._plain_products import PlainProducts
from bids_brainlm.numerics.folds import Fold


def _explicit(features, of_test, fold, delays, centre):
    """Delayed training and test rows, row by row."""
    nothing = np.zeros(features.shape[1])
    train, test = (
        np.array([np.concatenate([x[t - d] if t >= d else nothing for d in delays]) for t in rows])
        for x, rows in ((features, fold.train), (of_test, fold.test))
    )
    if centre:
        return train - train.mean(axis=0), test - train.mean(axis=0)
    return train, test


def _products(fold, delays, n_trs, centre, plain):
    if plain:
        return PlainProducts(fold, delays, centre=centre)
    return LagProducts(fold, delays, n_trs, centre=centre)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    delays=st.sampled_from([(0, 1), (3, 4), (0, 1, 2, 3), (2, 3, 4, 5), tuple(range(1, 9))]),
    cuts=st.lists(st.integers(0, 47), min_size=4, max_size=4, unique=True).map(sorted),
    centre=st.booleans(),
    other_test=st.booleans(),
    plain=st.booleans(),
    n_features=st.sampled_from([1, 6, 40]),
    n_targets=st.sampled_from([1, 7, 200]),
    middle=st.sampled_from([0.0, 0.5, 1e4]),
)
def test_equals_explicit_columns(
    seed, delays, cuts, centre, other_test, plain, n_features, n_targets, middle
):
    """Any runs of training and test rows, from the first to the last row of the story."""
    rng = np.random.default_rng(seed)
    a, b, c, d = cuts
    every = np.arange(48)
    fold = Fold(test=np.r_[every[a:b], every[c:d]], train=np.r_[every[:a], every[b:c], every[d:]])
    features = rng.standard_normal((48, n_features)) + middle
    of_test = rng.standard_normal((48, n_features)) + middle if other_test else features
    dual = rng.standard_normal((len(fold.train), n_targets))
    train, test = _explicit(features, of_test, fold, delays, centre)
    products = _products(fold, delays, 48, centre, plain)
    part = products.part(features, of_test if other_test else None)
    prediction, squares = products.read(part, products.dual(dual))
    weights = train.T @ dual
    scale = np.linalg.norm(test) * np.linalg.norm(train) * np.linalg.norm(dual, axis=0)
    assert (np.abs(prediction - test @ weights) <= 1e-14 * max(1.0, middle) * scale).all()
    assert (np.abs(squares - (weights**2).sum(axis=0)) <= 1e-13 * max(1.0, middle) * squares).all()


@pytest.mark.parametrize("plain", [False, True], ids=["lags", "plain"])
def test_nothing_is_changed_and_no_target_sees_another(rng, plain):
    fold = Fold(test=np.arange(10, 21), train=np.r_[0:9, 22:40])
    features, dual = rng.standard_normal((40, 3)), rng.standard_normal((27, 400))
    before = features.copy(), dual.copy()
    products = _products(fold, (2, 3, 4, 5), 40, True, plain)
    part = products.part(features)
    first = products.read(part, products.dual(dual))
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(dual, before[1])
    again = products.read(part, products.dual(dual))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    dual[:, 5] = np.inf
    with np.errstate(invalid="ignore"):
        harmed = products.read(part, products.dual(dual))[0]
    np.testing.assert_allclose(np.delete(harmed, 5, 1), np.delete(first[0], 5, 1), atol=1e-12)


def test_no_targets():
    fold = Fold(test=np.arange(10, 21), train=np.r_[0:9, 22:40])
    products = LagProducts(fold, (0, 1), 40, centre=True)
    found = products.read(products.part(np.ones((40, 2))), products.dual(np.empty((27, 0))))
    assert [one.shape for one in found] == [(11, 0), (0,)]


def test_which_delays_are_taken():
    assert all(usable(delays) for delays in [(0, 1), (4, 5), (2, 3, 4, 5), tuple(range(8))])
    assert not any(usable(delays) for delays in [(), (3,), (0, 1, 2), (1, 3), (5, 4), (1, 2, 3, 5)])
