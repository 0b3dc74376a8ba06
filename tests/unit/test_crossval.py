"""The loop over outer folds: nothing of the test rows is seen, and scores are those by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from bids_brainlm.numerics import controls, crossval, design

N_TRS, DELAYS = 200, (2, 3, 4)


def _data(rng):
    features = rng.normal(size=(N_TRS, 6))
    features[rng.random(N_TRS) < 0.1] = np.nan
    counts = rng.poisson(3, (N_TRS, 1)).astype(float)
    targets = rng.normal(size=(N_TRS, 5))
    targets[2:] += np.nan_to_num(features)[:-2, :5]
    return features, counts, targets


def _plan(**more):
    given = {"n_folds": 4, "n_inner": 3, "gap": 6, "n_bands": 2, "n_gammas": 8,
             "alphas": [1, 10, 100, 1000], "delays": DELAYS, "seed": 1}
    return crossval.make_plan(np.arange(5, 195), **{**given, **more})


def _fit(features, counts, targets, plan):
    silent = np.isnan(features).any(axis=1)
    bands = [design.Band("counts", counts, np.ones(N_TRS, bool)),
             design.silence_policy(features, silent, "zero")]
    return crossval.crossvalidate(bands, [targets], plan, main="model")[0]


def test_targets_outside_the_training_rows_change_nothing(rng):
    """Test rows, the gap and the trimmed ends: same predictions and choices, bit by bit."""
    features, counts, targets = _data(rng)
    plan = _plan()
    before = _fit(features, counts, targets, plan)
    fold, rows = plan.outer[1], plan.segments[1]
    changed = targets.copy()
    outside = np.setdiff1d(np.arange(N_TRS), fold.train)
    changed[outside] = rng.normal(size=(len(outside), 5)) * 50 + 9
    after = _fit(features, counts, changed, plan)
    assert np.array_equal(before.prediction[rows], after.prediction[rows])
    assert np.array_equal(before.alpha_index[1], after.alpha_index[1])
    assert np.array_equal(before.gamma_index[1], after.gamma_index[1])


def test_features_of_test_rows_change_no_choice(rng):
    features, counts, targets = _data(rng)
    plan = _plan()
    before = _fit(features, counts, targets, plan)
    test = plan.outer[1].test
    features[test], counts[test] = features[test] * 100 + 7, counts[test] + 50
    after = _fit(features, counts, targets, plan)
    assert np.array_equal(before.alpha_index[1], after.alpha_index[1])
    assert np.array_equal(before.gamma_index[1], after.gamma_index[1])
    assert not np.allclose(before.prediction[plan.segments[1]], after.prediction[plan.segments[1]])


def test_scores_equal_plain_ridge_by_hand(rng):
    """One band, one alpha: scikit-learn on the same design, and the scores written out."""
    features, _, targets = _data(rng)
    plan = _plan(n_bands=1, n_gammas=1, alphas=[10.0])
    band = design.silence_policy(features, np.isnan(features).any(axis=1), "zero")
    found = crossval.crossvalidate([band], [targets], plan, main="model")[0]
    r, errors, totals = [], 0.0, 0.0
    for fold in plan.outer:
        train, test = design.fold_design(band, fold, DELAYS)[:2]
        y = targets - targets[fold.train].mean(axis=0)
        predicted = Ridge(alpha=10.0, fit_intercept=False).fit(train, y[fold.train]).predict(test)
        own = y[fold.test]
        r.append([np.corrcoef(predicted[:, k], own[:, k])[0, 1] for k in range(5)])
        residual = (own - own.mean(axis=0)) - (predicted - predicted.mean(axis=0))
        errors = errors + (residual**2).sum(axis=0)
        totals = totals + ((own - own.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(found.r, np.mean(r, axis=0), atol=1e-9)
    np.testing.assert_allclose(found.rjoint, found.r, atol=1e-12)
    np.testing.assert_allclose(found.r2, 1 - errors / totals, atol=1e-9)


def test_a_control_without_content_explains_nothing(rng):
    """OASM on slow noise, scaled over the whole run, with a gap that it cannot cross.

    It predicts one constant for each test block. The block's mean is tied to the training mean
    by the scaling over the run, so R2 must not count it.
    """
    n_targets = 200
    noise = np.zeros((N_TRS, n_targets))
    for row in range(1, N_TRS):
        noise[row] = 0.95 * noise[row - 1] + rng.normal(size=n_targets)
    noise = (noise - noise.mean(axis=0)) / noise.std(axis=0)
    gap = controls.oasm_gap(2.0, DELAYS)
    plan = _plan(n_bands=1, gap=gap, n_inner=2, alphas=[0.1, 10.0, 1e3])
    band = design.Band("model", controls.oasm(N_TRS, 2.0), np.ones(N_TRS, bool), scaled=False)
    found = crossval.crossvalidate([band], [noise], plan, main="model")[0]
    assert np.abs(found.r).max() < 1e-6
    assert found.r2.max() < 1e-6
    assert found.r2.mean() == pytest.approx(0, abs=1e-6)
