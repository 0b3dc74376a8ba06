"""Nested decoding gives the answers of scikit-learn's loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bids_brainlm.numerics import decoding, logistic

pytestmark = pytest.mark.peer
C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)
SOLVERS = {
    False: {"solver": "newton-cholesky", "tol": 1e-10, "max_iter": 1000},
    True: {"solver": "liblinear", "tol": 1e-8, "max_iter": 100_000},
}


def model_of(penalise_intercept, **settings):
    return LogisticRegression(class_weight="balanced", **SOLVERS[penalise_intercept], **settings)


@pytest.fixture(scope="module")
def story():
    """Return autocorrelated heads, labels of which some follow a head, rows with holes."""
    rng = np.random.default_rng(11)
    n_rows, head_dim, n_labels = 180, 12, 4
    X = lfilter([1.0], [1.0, -0.6], rng.standard_normal((2, n_rows, head_dim)), axis=1)
    X = X @ (rng.standard_normal((head_dim, head_dim)) * np.geomspace(2, 0.1, head_dim))
    X += rng.standard_normal(head_dim)
    signal = X[0] @ rng.standard_normal((head_dim, n_labels))
    values = signal / signal.std(0) * [0, 0.5, 1, 2] + rng.standard_normal((n_rows, n_labels))
    labels = values > np.quantile(values, [0.5, 0.7, 0.85, 0.4], axis=0).diagonal()
    rows = np.flatnonzero(rng.random(260) < 0.85)[:n_rows]
    return X, labels, rows


@pytest.mark.parametrize("penalise_intercept", [False, True])
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("shape", [(230, 32), (60, 64)], ids=["dense", "separable"])
def test_one_fit(shape, C, penalise_intercept):
    rng = np.random.default_rng(2)
    features = rng.standard_normal(shape)
    rates = np.linspace(0.06, 0.7, 8)
    labels = rng.random((shape[0], 8)) < rates + 0.2 * np.sign(features[:, :1]) * rates
    labels[:2] = [[True], [False]]
    unseen = rng.standard_normal((1000, shape[1]))
    model = logistic.fit(features, labels, C, penalise_intercept=penalise_intercept)
    agreement = []
    for label in range(8):
        peer = model_of(penalise_intercept, C=C).fit(features, labels[:, label])
        scale = np.abs(peer.coef_).max()
        np.testing.assert_allclose(model.coef[label], peer.coef_[0], atol=2e-5 * scale)
        bound = 2e-5 * max(scale, abs(peer.intercept_[0]))
        assert model.intercept[label] == pytest.approx(peer.intercept_[0], abs=bound)
        ours = logistic.decide(unseen, model)[:, label] > 0
        agreement.append((ours == peer.predict(unseen)).mean())
    assert np.mean(agreement) >= 0.9999


def nested(features, label, splits, standardise, penalise_intercept):
    """The usual loop: a grid search in each outer fold; scores and C by fold."""
    scores, chosen, values = [], [], []
    for train, test, inner in splits:
        steps = [StandardScaler()] if standardise else []
        pipeline = make_pipeline(*steps, model_of(penalise_intercept))
        search = GridSearchCV(
            pipeline,
            {"logisticregression__C": C_GRID},
            scoring="balanced_accuracy",
            cv=inner,
        )
        search.fit(features[train], label[train])
        guess = search.predict(features[test])
        scores.append(balanced_accuracy_score(label[test], guess))
        chosen.append(C_GRID.index(search.best_params_["logisticregression__C"]))
        values.append(search.decision_function(features[test]))
    return scores, chosen, values


def blocks(rows, n_folds, gap):
    """Positions of blocks and of the rows more than a gap of TRs away, row by row."""
    parts = np.array_split(np.arange(len(rows)), n_folds)
    for test in parts:
        train = [
            i for i in range(len(rows))
            if all(abs(int(rows[i]) - int(rows[t])) > gap for t in test)
        ]
        yield np.array(train), test


@pytest.mark.parametrize(("standardise", "heads"), [(True, [0, 1]), (False, [0])])
def test_nested_blocks(story, standardise, heads):
    X, labels, rows = story
    X = X[heads]
    gap = 4
    splits = []
    for train, test in blocks(rows, 3, gap):
        splits.append((train, test, list(blocks(rows[train], 3, gap))))
    plan = decoding.make_plan(rows, 3, 3, gap)
    found = decoding.decode(
        X, labels, plan, C=C_GRID, standardise=standardise, n_permutations=0, keep_decisions=True
    )
    for head in range(len(X)):
        for label in range(labels.shape[1]):
            scores, chosen, values = nested(X[head], labels[:, label], splits, standardise, False)
            np.testing.assert_array_equal(found.C_index[head, :, label], chosen)
            np.testing.assert_allclose(found.accuracy_by_fold[head, :, label], scores, atol=1e-12)
            assert found.accuracy[head, label] == pytest.approx(np.mean(scores), abs=1e-12)
            ours = found.decision[head, :, label]
            theirs = np.concatenate(values)
            np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_nested_as_in_the_paper(story):
    """Shuffled splits, features as they come, liblinear's penalised intercept."""
    X, labels, rows = story
    plan = decoding.make_plan(rows, 3, 3, 0, shuffled=True, seed=5)
    splits = [
        (outer.train, outer.test, [(fold.train, fold.test) for fold in inner])
        for outer, inner in zip(plan.outer, plan.inner, strict=True)
    ]
    found = decoding.decode(
        X[:1], labels, plan, C=C_GRID, standardise=False, penalise_intercept=True, n_permutations=0
    )
    for label in range(labels.shape[1]):
        scores, chosen, _ = nested(X[0], labels[:, label], splits, False, True)
        np.testing.assert_array_equal(found.C_index[0, :, label], chosen)
        np.testing.assert_allclose(found.accuracy_by_fold[0, :, label], scores, atol=1e-12)
