"""Ladders of models: himalaya's product measure, sums, and planted shares."""

import numpy as np
import pytest
from himalaya.scoring import r2_score_split

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import crossval, variance_ladder


def _numbers(found):
    return np.asarray(found, dtype=np.float64)


def test_product_measure_equals_himalaya(rng):
    parts = rng.standard_normal((3, 80, 5))
    parts -= parts.mean(axis=1, keepdims=True)
    observed = parts.sum(axis=0) + rng.standard_normal((80, 5))
    observed -= observed.mean(axis=0)
    found = variance_ladder.product_measure(parts, observed)
    np.testing.assert_allclose(found, _numbers(r2_score_split(observed, parts)), rtol=1e-6)


def test_product_measure_adds_up_within_folds(rng):
    parts = rng.standard_normal((3, 60, 4)) + 1.0
    observed = parts.sum(axis=0) + rng.standard_normal((60, 4)) - 3.0
    segments = [slice(0, 25), slice(25, 60)]
    found = variance_ladder.product_measure(parts, observed, segments=segments)
    whole = variance_ladder.r2_within(parts.sum(axis=0), observed, segments=segments)
    np.testing.assert_allclose(found.sum(axis=0), whole)


def test_r2_is_that_of_the_pipeline(rng):
    prediction, observed = rng.standard_normal((2, 50, 3))
    segments = [slice(0, 20), slice(20, 50)]
    error = crossval.squares([(observed - prediction)[s] for s in segments])
    expected = 1 - error / crossval.squares([observed[s] for s in segments])
    found = variance_ladder.r2_within(prediction, observed, segments=segments)
    np.testing.assert_allclose(found, expected)


def test_gains_add_up_and_find_what_was_planted(rng):
    parts = rng.standard_normal((3, 5000, 2)) * np.sqrt([0.3, 0.2, 0.1])[:, None, None]
    observed = parts.sum(axis=0) + np.sqrt(0.4) * rng.standard_normal((5000, 2))
    found = variance_ladder.ladder(np.cumsum(parts, axis=0), observed)
    np.testing.assert_allclose(found.gain.sum(axis=0), found.r2[-1])
    planted = np.array([[0.3], [0.2], [0.1]]) * [1, 1]
    np.testing.assert_allclose(found.gain, planted, atol=0.03)


def test_commonality_of_correlated_sets(rng):
    common, a, b, noise = rng.standard_normal((4, 20000, 1))
    x = np.hstack([common + a, common + b])
    observed = common + noise
    r2 = []
    for columns in ([0], [1], [0, 1]):
        weights = np.linalg.lstsq(x[:, columns], observed, rcond=None)[0]
        r2.append(variance_ladder.r2_within(x[:, columns] @ weights, observed))
    found = variance_ladder.commonality(*r2)
    # R2: 1/4 for one of the two, 1/3 for both
    np.testing.assert_allclose(found.unique_first, 1 / 3 - 1 / 4, atol=0.01)
    np.testing.assert_allclose(found.unique_second, 1 / 3 - 1 / 4, atol=0.01)
    np.testing.assert_allclose(found.shared, 1 / 6, atol=0.01)
    total = found.unique_first + found.unique_second + found.shared
    np.testing.assert_allclose(total, found.joint)


def test_constant_data_have_no_r2(rng):
    observed = np.ones((30, 2))
    observed[:, 1] = rng.standard_normal(30)
    found = variance_ladder.r2_within(np.zeros((30, 2)), observed)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(0.0)


def test_wrong_shapes_are_refused():
    with pytest.raises(NumericalError, match="no models"):
        variance_ladder.ladder([], np.zeros((5, 1)))
    with pytest.raises(NumericalError, match="expected the same"):
        variance_ladder.ladder([np.zeros((5, 2))], np.zeros((5, 1)))
    with pytest.raises(NumericalError, match="Parts have shape"):
        variance_ladder.product_measure(np.zeros((2, 4, 1)), np.zeros((5, 1)))
    with pytest.raises(NumericalError, match="Segments"):
        variance_ladder.r2_within(np.zeros((5, 1)), np.zeros((5, 1)), segments=[slice(0, 3)])
