"""Refits of a ladder: sums, independence of useless kernels, and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import blas, crossval, design, nested

N_TRS = 90


def make(rng, widths, n_gammas=5, alphas=(1.0, 30.0)):
    whole = np.ones(N_TRS, bool)
    bands = [
        design.Band(f"b{k}", rng.standard_normal((N_TRS, w)), whole) for k, w in enumerate(widths)
    ]
    plan = crossval.make_plan(
        np.arange(2, N_TRS), n_folds=3, n_inner=2, gap=3, n_bands=len(bands), n_gammas=n_gammas,
        alphas=alphas, delays=(1, 2), seed=3,
    )  # fmt: skip
    targets = bands[0].features @ rng.standard_normal((widths[0], 4))
    return bands, plan, targets + 0.5 * rng.standard_normal((N_TRS, 4))


def fit_all(bands, rung_of, targets, plan):
    with blas.single_threaded():
        return {
            model: nested.fit(bands, rung_of, model, [targets], plan)[0]
            for model in nested.models_of(max(rung_of) + 1)
        }


@given(st.integers(1, 9))
def test_models_are_nested_ones_and_those_without_one_rung(n_rungs):
    found = nested.models_of(n_rungs)
    assert len(found) == len(set(found)) == 2 * n_rungs - 1
    every = set(range(n_rungs))
    without = {tuple(sorted(every - {k})) for k in every} - {()}
    assert without <= set(found)
    assert {tuple(range(k + 1)) for k in range(n_rungs)} <= set(found)


def test_parts_add_up(rng):
    bands, plan, targets = make(rng, (2, 3, 4, 5))
    found = nested.shares(fit_all(bands, [0, 0, 1, 2], targets, plan))
    whole = found.r2[-1]
    np.testing.assert_allclose(found.gain.sum(axis=0), whole)
    np.testing.assert_allclose(found.product.sum(axis=0), whole)
    np.testing.assert_allclose(found.unique.sum(axis=0) + found.shared, whole)
    np.testing.assert_allclose(found.unique[-1], found.gain[-1])


def test_a_smaller_model_is_the_whole_one_with_empty_bands(rng):
    bands, plan, targets = make(rng, (2, 3, 4))
    empty = design.Band("b1", np.zeros((N_TRS, 1)), np.ones(N_TRS, bool))
    with blas.single_threaded():
        small = nested.fit(bands, [0, 1, 2], (0, 2), [targets], plan)[0]
        large = nested.fit([bands[0], empty, bands[2]], [0, 1, 2], (0, 1, 2), [targets], plan)[0]
    np.testing.assert_allclose(small.r2, large.r2)
    np.testing.assert_array_equal(small.gamma_index, large.gamma_index)


def test_r2_is_that_of_the_encoding_step_and_of_scikit_learn(rng):
    bands, plan, targets = make(rng, (2, 3), n_gammas=1, alphas=(5.0,))
    with blas.single_threaded():
        found = nested.fit(bands, [0, 1], (0, 1), [targets], plan)[0].r2
        step = crossval.crossvalidate(bands, [targets], plan, main=None)[0].r2
    np.testing.assert_allclose(found, step)
    errors, observed = [], []
    for fold in plan.outer:
        parts = [design.fold_design(band, fold, plan.delays)[:2] for band in bands]
        train, test = (np.hstack(side) for side in zip(*parts, strict=True))
        mean = targets[fold.train].mean(axis=0)
        model = Ridge(alpha=5.0 * len(bands), fit_intercept=False)
        model.fit(train, targets[fold.train] - mean)
        observed.append(targets[fold.test] - mean)
        errors.append(observed[-1] - model.predict(test))
    expected = 1 - crossval.squares(errors) / crossval.squares(observed)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_company_never_changes_a_result(rng):
    bands, plan, targets = make(rng, (2, 3))
    with blas.single_threaded():
        alone = nested.fit(bands, [0, 1], (0, 1), [targets], plan)[0]
        beside = nested.fit(bands, [0, 1], (0, 1), [targets[:, :2], targets], plan)[1]
    np.testing.assert_array_equal(alone.r2, beside.r2)
    np.testing.assert_array_equal(alone.product, beside.product)


def test_wrong_plans_and_empty_ladders_are_refused(rng):
    bands, plan, targets = make(rng, (2, 3))
    with pytest.raises(NumericalError, match="2 bands, expected 1"):
        nested.fit(bands[:1], [0], (0,), [targets], plan)
    with pytest.raises(NumericalError, match="0 rungs"):
        nested.models_of(0)
