"""Logistic regression of many labels: minima of the written objective, symmetries, hard data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics import logistic


def data(seed, n_rows=60, n_features=5, n_labels=4, signal=1.0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n_rows, n_features)) * rng.uniform(0.3, 3, n_features)
    features += rng.standard_normal(n_features)
    values = signal * features @ rng.standard_normal((n_features, n_labels))
    values += rng.standard_normal((n_rows, n_labels)) - np.linspace(-1, 1, n_labels)
    labels = values > 0
    labels[:2] = [[True], [False]]
    return features, labels


def objective(flat, x, y, C, balanced, penalise_intercept):
    """The objective as its definition says, one label, with the gradient by hand."""
    w, b = flat[:-1], flat[-1]
    sign = np.where(y, 1.0, -1.0)
    s = np.where(y, len(y) / (2 * y.sum()), len(y) / (2 * (~y).sum())) if balanced else 1.0
    margin = sign * (x @ w + b)
    value = 0.5 * w @ w + C * (s * np.logaddexp(0, -margin)).sum()
    pull = -C * s * sign / (1 + np.exp(margin))
    gradient = np.append(w + x.T @ pull, pull.sum())
    if penalise_intercept:
        value += 0.5 * b**2
        gradient[-1] += b
    return value, gradient


@pytest.mark.parametrize("penalise_intercept", [False, True])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0, 100.0])
def test_minimum_of_the_written_objective(C, balanced, penalise_intercept):
    features, labels = data(3)
    model = logistic.fit(
        features, labels, C, balanced=balanced, penalise_intercept=penalise_intercept
    )
    assert model.converged.all()
    for k in range(labels.shape[1]):
        arguments = (features, labels[:, k], C, balanced, penalise_intercept)
        best = minimize(
            objective, np.zeros(6), arguments, jac=True, tol=1e-14, options={"maxiter": 5000}
        )
        found = np.append(model.coef[k], model.intercept[k])
        value, gradient = objective(found, *arguments)
        at_zero = objective(np.zeros(6), *arguments)[1]
        assert value <= best.fun * (1 + 1e-9) + 1e-12
        assert np.linalg.norm(gradient) <= 1e-5 * np.linalg.norm(at_zero)
        np.testing.assert_allclose(found, best.x, rtol=1e-3, atol=1e-4 * np.abs(best.x).max())


def test_one_feature_two_rows_by_hand():
    """Rows at -1 and 1: w solves w = 2 C / (1 + exp(w)), and the intercept is 0."""
    C = 0.7
    model = logistic.fit(np.array([[-1.0], [1.0]]), np.array([[False], [True]]), C)
    w = model.coef[0, 0]
    assert w == pytest.approx(2 * C / (1 + np.exp(w)), rel=1e-6)
    assert model.intercept[0] == pytest.approx(0, abs=1e-9)


def test_balanced_weights_by_hand():
    labels = np.array([[True, False], [False, False], [False, True], [False, True]])
    expected = [[2, 1], [2 / 3, 1], [2 / 3, 1], [2 / 3, 1]]
    np.testing.assert_allclose(logistic.balanced_weights(labels), expected)


def test_decision_values_are_the_linear_form():
    model = logistic.Fit(np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([0.5, 1.0]), None, 0)
    expected = [[0.5 + 1 + 4, 1 - 2], [0.5 - 1, 1.0]]
    np.testing.assert_allclose(logistic.decide([[1, 2], [-1, 0]], model), expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), log_c=st.floats(-4, 2), penalise_intercept=st.booleans())
def test_symmetries(seed, log_c, penalise_intercept):
    features, labels = data(seed, n_rows=40)
    C = 10.0**log_c
    fit = logistic.fit(features, labels, C, penalise_intercept=penalise_intercept)
    size = np.abs(fit.coef).max(axis=1, keepdims=True)
    order = np.random.default_rng(seed).permutation(len(features))
    other = logistic.fit(
        features[order][:, ::-1], ~labels[order], C, penalise_intercept=penalise_intercept
    )
    assert np.abs(other.coef[:, ::-1] + fit.coef).max() <= 1e-4 * size.max()
    alone = logistic.fit(features, labels[:, :1], C, penalise_intercept=penalise_intercept)
    assert np.abs(alone.coef - fit.coef[:1]).max() <= 1e-4 * size[0]
    if not penalise_intercept:
        moved = logistic.fit(features + 100.0, labels, C)
        values = logistic.decide(features + 100.0, moved)
        expected = logistic.decide(features, fit)
        assert np.abs(values - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


def test_a_path_and_one_c_per_label():
    features, labels = data(8)
    grid = [1e-3, 0.1, 10.0]
    path = logistic.fit_path(features, labels, grid)
    for C, model in zip(grid, path, strict=True):
        alone = logistic.fit(features, labels, C)
        np.testing.assert_allclose(model.coef, alone.coef, rtol=1e-4, atol=1e-7)
    mixed = logistic.fit(features, labels, np.array([10.0, 0.1, 1e-3, 0.1]))
    for label, index in enumerate([2, 1, 0, 1]):
        np.testing.assert_allclose(mixed.coef[label], path[index].coef[label], rtol=1e-4, atol=1e-7)
    norms = [np.linalg.norm(model.coef, axis=1) for model in path]
    assert (np.diff(norms, axis=0) > 0).all()


@pytest.mark.parametrize("C", [1.0, 100.0, 1e6])
@pytest.mark.parametrize("penalise_intercept", [False, True])
def test_separable_data(C, penalise_intercept):
    """More features than rows: a plane separates every label, the minimum is still finite."""
    rng = np.random.default_rng(5)
    features = rng.standard_normal((30, 40))
    labels = rng.random((30, 6)) < 0.3
    labels[:2] = [[True], [False]]
    model = logistic.fit(features, labels, C, penalise_intercept=penalise_intercept)
    assert model.converged.all()
    assert np.isfinite(model.coef).all()
    assert ((logistic.decide(features, model) > 0) == labels).all()


@pytest.mark.parametrize("penalise_intercept", [False, True])
def test_extreme_c_ends(penalise_intercept):
    """The paper's grid goes from 1e-30 to 1e30; nothing runs on and nothing overflows."""
    features, labels = data(1, n_rows=30, n_features=12)
    path = logistic.fit_path(
        features, labels, np.logspace(-30, 30, 11), penalise_intercept=penalise_intercept
    )
    for model in path:
        assert np.isfinite(model.coef).all()
        assert model.n_iterations <= 100
    assert (logistic.decide(features, path[-1]) > 0)[0].all()


def test_constant_and_equal_features():
    features, labels = data(4)
    plain = logistic.fit(features, labels, 1.0)
    wider = np.column_stack([features, np.full(len(features), 7.0), features[:, 0]])
    model = logistic.fit(wider, labels, 1.0)
    assert model.converged.all()
    np.testing.assert_allclose(model.coef[:, 5], 0, atol=1e-9)
    np.testing.assert_allclose(model.coef[:, 0], model.coef[:, 6], rtol=1e-5)
    assert (np.abs(model.coef[:, 0]) < np.abs(plain.coef[:, 0])).all()


def test_features_without_information():
    """All features 0: weights 0; the intercept is the log odds, 0 if balanced."""
    labels = np.zeros((10, 1), dtype=bool)
    labels[:3] = True
    zero = np.zeros((10, 2))
    model = logistic.fit(zero, labels, 1.0, balanced=False)
    assert model.converged.all()
    assert model.intercept[0] == pytest.approx(np.log(3 / 7), rel=1e-6)
    model = logistic.fit(zero, labels, 1.0)
    np.testing.assert_allclose([*model.coef[0], *model.intercept], 0, atol=1e-9)


def test_too_few_steps_are_told():
    features, labels = data(2)
    model = logistic.fit(features, labels, 100.0, max_iterations=1)
    assert not model.converged.any()
    assert model.n_iterations == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y | True, 1.0), "4 of 4 labels have one class"),
        (lambda x, y: (x[1:], y, 1.0), r"\(59, 5\) and labels \(60, 4\)"),
        (lambda x, y: (np.where(x > 0, x, np.nan), y, 1.0), "NaN or infinite"),
        (lambda x, y: (x, y, 0.0), "above 0"),
        (lambda x, y: (x, y, np.inf), "finite numbers above 0"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(NumericalError, match=message):
        logistic.fit(*change(*data(0)))
