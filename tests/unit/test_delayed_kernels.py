"""Kernels of delayed features against products of explicit delayed columns."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import delayed_kernels, folds, scaling
from bids_brainlm.numerics.design import Band


def _explicit(band, fold, delays, *, test_scaling, centre, common_scale):
    """Delay, centre and scale, row by row."""
    valid = [row for row in fold.train if band.valid[row]]
    raw = np.where(band.valid[:, None], band.features, 0.0)
    scaled = raw
    if band.scaled:
        sd = band.features[valid].std(axis=0)
        sd[sd < 1e-12] = 1.0
        scaled = (band.features - band.features[valid].mean(axis=0)) / sd
        scaled[~band.valid] = 0.0

    def delayed(rows, values):
        nothing = np.zeros(values.shape[1])
        return np.array(
            [np.concatenate([values[t - d] if t >= d else nothing for d in delays]) for t in rows]
        )

    train = delayed(fold.train, scaled)
    test = delayed(fold.test, raw if test_scaling == "none" else scaled)
    if centre:
        train, test = train - train.mean(axis=0), test - train.mean(axis=0)
    size = np.sqrt((train**2).sum() / len(train)) if common_scale else 1.0
    return train / size, test / size, size


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_features=st.sampled_from([1, 3, 40]),
    delays=st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True),
    loud=st.sampled_from([(0.0, 1.0), (50.0, 2.0), (-3.0, 1e-4), (1e4, 1.0)]),
    scaled=st.booleans(),
    test_scaling=st.sampled_from(["train", "none"]),
    centre=st.booleans(),
    common_scale=st.booleans(),
    start=st.integers(0, 5),
)
def test_equals_explicit_columns(
    seed, n_features, delays, loud, scaled, test_scaling, centre, common_scale, start
):
    """With rows before the fold and without, silent rows, gaps, and means far from 0."""
    rng = np.random.default_rng(seed)
    features = loud[0] + loud[1] * rng.standard_normal((60, n_features))
    valid = rng.random(60) > 0.2
    valid[20:25] = True
    band = Band("model", np.where(valid[:, None], features, 0.0), valid, scaled)
    given_ = {"test_scaling": test_scaling, "centre": centre, "common_scale": common_scale}
    for fold in folds.contiguous_folds(np.arange(start, 57), 3, 2):
        train, test, size = _explicit(band, fold, delays, **given_)
        found = delayed_kernels.fold_kernels(band, fold, delays, **given_)
        longest = np.sqrt((train**2).sum(axis=1).max())
        of_test = max(longest, np.sqrt((test**2).sum(axis=1).max()))
        # Explicit columns that are centred lose as many digits as their mean is large.
        lost = 1.0 if scaled or not centre else max(1.0, abs(loud[0] / loud[1]))
        within = 1e-12 * lost
        np.testing.assert_allclose(found.train, train @ train.T, atol=within * longest**2)
        np.testing.assert_allclose(found.test, test @ train.T, atol=within * longest * of_test)
        np.testing.assert_array_equal(found.train, found.train.T)
        assert found.size == pytest.approx(size, rel=within)


def test_statistics_are_those_of_all_columns_at_once(rng):
    """300 columns are more than a block."""
    features, valid = rng.normal(4, 3, (50, 300)), rng.random(50) > 0.1
    fold = folds.contiguous_folds(np.arange(50), 2, 1)[0]
    found = delayed_kernels.fold_kernels(Band("model", features, valid), fold, (1, 2))
    expected = scaling.fit(features, fold.train, valid)
    np.testing.assert_allclose(found.scaler.mean, expected.mean, rtol=1e-14)
    np.testing.assert_allclose(found.scaler.sd, expected.sd, rtol=1e-14)
    raw = delayed_kernels.fold_kernels(Band("model", features, valid, False), fold, (1, 2))
    assert raw.scaler is None


def test_columns_are_never_held_at_once(rng):
    n_trs, n_features = 60, 6000
    band = Band("model", rng.standard_normal((n_trs, n_features)), np.ones(n_trs, bool))
    fold = folds.contiguous_folds(np.arange(n_trs), 2, 1)[0]
    tracemalloc.start()
    delayed_kernels.fold_kernels(band, fold, (1, 2, 3, 4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < band.features.nbytes / 2


def test_what_does_not_fit_is_named(rng):
    fold = folds.contiguous_folds(np.arange(20), 2, 1)[0]
    band = Band("model", rng.standard_normal((20, 3)), np.ones(20, bool), False)
    with pytest.raises(NumericalError, match="A delay of 20 TRs does not fit"):
        delayed_kernels.fold_kernels(band, fold, (1, 20))
    band.features[3, 1] = np.nan
    with pytest.raises(NumericalError, match="NaN"):
        delayed_kernels.fold_kernels(band, fold, (0,))
