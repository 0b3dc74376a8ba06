"""Scores of many predictions of the same data, against scores one at a time."""

from __future__ import annotations

import numpy as np
from scipy.stats import pearsonr

from bids_brainlm.numerics._same_data import SameData


def _folds(rng, n_targets):
    observed = [rng.normal(2, 3, (n, n_targets)) for n in (30, 31)]
    errors = [rng.normal(1, 2, y.shape) for y in observed]
    predictions = [rng.normal(0.5, 1, y.shape) for y in observed]
    return observed, errors, predictions


def test_equals_pearson_and_differences_of_r2(rng):
    observed, errors, predictions = _folds(rng, 4)
    predictions[0][:, 1] += 1e4  # a mean far above what it varies by
    r, loss = SameData(observed, errors).score(predictions)
    for t in range(4):
        each = [pearsonr(p[:, t], y[:, t])[0] for p, y in zip(predictions, observed, strict=True)]
        np.testing.assert_allclose(r[t], np.mean(each), atol=1e-11)
        total = sum(len(y) * y[:, t].var() for y in observed)
        left = sum(len(e) * e[:, t].var() for e in errors)
        without = sum(
            len(e) * (e + p)[:, t].var() for e, p in zip(errors, predictions, strict=True)
        )
        np.testing.assert_allclose(loss[t], (without - left) / total, rtol=1e-9)


def test_constant_series_count_as_no_correlation(rng):
    observed, errors, predictions = _folds(rng, 5)
    observed[0][:, 0] = 7.1  # data constant in one fold
    predictions[0][:, 1], predictions[1][:, 1] = 0.3, 0.0
    for fold in range(2):
        observed[fold][:, 2] = 0.0
    predictions[0][:, 3] = observed[0][:, 3]
    r, loss = SameData(observed, errors).score(predictions)
    second = [pearsonr(predictions[1][:, t], observed[1][:, t])[0] for t in (0, 3)]
    np.testing.assert_allclose(r[[0, 3]], [second[0] / 2, (1 + second[1]) / 2], atol=1e-12)
    assert r[1] == r[2] == 0.0
    assert abs(loss[1]) < 1e-15
    assert np.isnan(loss[2])
    assert np.isfinite(np.delete(loss, 2)).all()


def test_without_errors_there_is_no_loss(rng):
    observed, errors, predictions = _folds(rng, 3)
    r, loss = SameData(observed).score(predictions)
    assert loss is None
    np.testing.assert_array_equal(r, SameData(observed, errors).score(predictions)[0])
