"""Classes of nested fits are those of each fold's own strict fit; hard labels, odd scales."""

import numpy as np
import pytest

from bids_brainlm.numerics import _logistic_nested as nested
from bids_brainlm.numerics import _logistic_newton as newton
from bids_brainlm.numerics import decoding, logistic, scaling

GRID = np.array([1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0])


def case(seed, n_rows=150, n_features=20, rates=(0.08, 0.2, 0.5, 0.7, 0.4), signal=1.0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n_rows, n_features)) @ rng.standard_normal((n_features,) * 2)
    features = features * rng.uniform(0.3, 3, n_features) + rng.standard_normal(n_features)
    values = signal * features @ rng.standard_normal((n_features, len(rates)))
    values = values / values.std(0) + rng.standard_normal((n_rows, len(rates)))
    labels = values > [np.quantile(v, 1 - r) for v, r in zip(values.T, rates, strict=True)]
    plan = decoding.make_plan(np.arange(n_rows), 2, 4, 2)
    rows = plan.outer[0].train
    usable = np.array(
        [
            [0 < labels[rows][f.train, k].sum() < f.train.size for k in range(len(rates))]
            for f in plan.inner[0]
        ]
    )
    return features[rows], labels[rows], plan.inner[0], usable


def strict(features, labels, fold, C, *, standardise, penalise_intercept):
    """Decision values of the rows that a fold leaves out, to ten digits."""
    if standardise:
        features = scaling.apply(features, scaling.fit(features, fold.train))
    model = logistic.fit(
        features[fold.train],
        labels[fold.train],
        C,
        penalise_intercept=penalise_intercept,
        tolerance=1e-10,
        max_iterations=500,
    )
    return logistic.decide(features[fold.test], model)


def compare(features, labels, inner, usable, grid=GRID, **how):
    assert nested.can_solve(features, inner, grid, **how)
    found = nested.classes(features, labels, inner, usable, grid, **how)
    n = 0
    for number, fold in enumerate(inner):
        which = np.flatnonzero(usable[number])
        for index, C in enumerate(grid):
            values = strict(features, labels[:, which], fold, C, **how)
            ours = found.inner[index, number][which][:, fold.test].T
            clear = np.abs(values) > 1e-8 * np.abs(values).max(initial=0)
            np.testing.assert_array_equal(ours[clear], (values > 0)[clear])
            n += int(clear.sum())
    return found, n


@pytest.mark.parametrize(
    ("standardise", "penalise_intercept"), [(True, False), (False, False), (False, True)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_classes_of_strict_fits(seed, standardise, penalise_intercept):
    how = {"standardise": standardise, "penalise_intercept": penalise_intercept}
    _, n = compare(*case(seed), **how)
    assert n > 1500


def test_planes_that_separate():
    """More features than rows in a fold: large weights, tiny curvature."""
    how = {"standardise": True, "penalise_intercept": False}
    compare(*case(3, n_rows=70, n_features=40, rates=(0.15, 0.5)), **how)


def test_repeated_and_constant_features():
    features, labels, inner, usable = case(4)
    wide = np.column_stack([features, features[:, :3], np.full(len(features), 5.0)])
    compare(wide, labels, inner, usable, standardise=True, penalise_intercept=False)


def test_features_without_information():
    features, labels, inner, usable = case(5)
    noise = np.random.default_rng(0).standard_normal(features.shape)
    compare(noise, labels, inner, usable, standardise=True, penalise_intercept=False)


def test_folds_that_a_label_has_no_part_in():
    features, labels, inner, usable = case(6)
    usable[1, 2] = usable[3] = False
    found, _ = compare(features, labels, inner, usable, standardise=True, penalise_intercept=False)
    assert not found.inner[:, 1, 2].any()
    assert not found.inner[:, 3].any()


def test_labels_do_not_depend_on_each_other():
    features, labels, inner, usable = case(7)
    how = {"standardise": True, "penalise_intercept": False}
    whole = nested.classes(features, labels, inner, usable, GRID, **how)
    alone = nested.classes(features, labels[:, [2]], inner, usable[:, [2]], GRID, **how)
    for number, fold in enumerate(inner):
        np.testing.assert_array_equal(
            whole.inner[:, number, 2][:, fold.test], alone.inner[:, number, 0][:, fold.test]
        )


@pytest.mark.parametrize("standardise", [True, False])
def test_the_start_is_near_the_fit_to_all_rows(standardise):
    features, labels, inner, usable = case(8)
    found = nested.classes(
        features, labels, inner, usable, GRID, standardise=standardise, penalise_intercept=False
    )
    scaled = features
    if standardise:
        scaled = scaling.apply(features, scaling.fit(features, np.arange(len(features))))
    for index in (0, 3, 6):
        exact = logistic.fit(scaled, labels, GRID[index])
        start = scaled @ found.coef[index].T + found.intercept[index]
        values = logistic.decide(scaled, exact)
        assert np.abs(start - values).max() < 0.05 * max(1.0, np.abs(values).max())
        again = logistic.fit(
            scaled, labels, GRID[index], start=(found.coef[index], found.intercept[index])
        )
        np.testing.assert_allclose(again.coef, exact.coef, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(again.intercept, exact.intercept, rtol=1e-4, atol=1e-6)
        assert again.n_iterations < exact.n_iterations


def scores(features, labels, inner, usable, **how):
    """Sums of balanced accuracies over folds, (n_C, n_labels), from strict fits."""
    total = np.zeros((GRID.size, labels.shape[1]))
    for number, fold in enumerate(inner):
        which = np.flatnonzero(usable[number])
        for index, C in enumerate(GRID):
            predicted = strict(features, labels[:, which], fold, C, **how) > 0
            truth = labels[fold.test][:, which]
            hits = [(predicted & truth).sum(0) / truth.sum(0)]
            hits += [(~predicted & ~truth).sum(0) / (~truth).sum(0)]
            total[index, which] += np.mean(hits, axis=0)
    return total


@pytest.mark.parametrize("loose", [0.003, 0.03, 0.5])
@pytest.mark.parametrize(
    ("seed", "informative", "how"),
    [
        (10, True, {"standardise": True, "penalise_intercept": False}),
        (11, False, {"standardise": True, "penalise_intercept": False}),
        (12, True, {"standardise": False, "penalise_intercept": True}),
    ],
)
def test_what_is_ruled_out_could_not_be_chosen(monkeypatch, loose, seed, informative, how):
    features, labels, inner, usable = case(seed, rates=(0.15, 0.3, 0.5, 0.7))
    if not informative:
        features = np.random.default_rng(seed).permutation(features)
    for number, fold in enumerate(inner):
        usable[number] &= labels[fold.test].any(0) & ~labels[fold.test].all(0)
    monkeypatch.setattr(nested, "_LOOSE", loose)
    found = nested.classes(features, labels, inner, usable, GRID, only_best=True, **how)
    total = scores(features, labels, inner, usable, **how)
    best = np.argmax(np.round(total, 10), axis=0)
    assert found.contenders[best, np.arange(best.size)].all()
    assert not found.contenders.all()
    for number, fold in enumerate(inner):
        for index, label in np.argwhere(found.contenders & usable[number]):
            values = strict(features, labels[:, [label]], fold, GRID[index], **how)
            ours = found.inner[index, number, label][fold.test]
            clear = np.abs(values[:, 0]) > 1e-8 * np.abs(values).max()
            np.testing.assert_array_equal(ours[clear], values[clear, 0] > 0)


def test_the_smallest_of_equals_is_the_only_contender():
    """Two clouds far apart: every C predicts every row."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2 == 0
    features = rng.standard_normal((120, 5)) + 20.0 * labels[:, None]
    inner = decoding.make_plan(np.arange(150), 5, 4, 0).inner[0]
    assert max(fold.test.max() for fold in inner) == 119
    found = nested.classes(
        features, labels[:, None], inner, np.ones((4, 1), bool), GRID, standardise=True,
        penalise_intercept=False, only_best=True,
    )  # fmt: skip
    np.testing.assert_array_equal(found.contenders[:, 0], np.arange(GRID.size) == 0)


def test_hard_fits_get_their_own_inverse_at_once():
    features, labels, _, _ = case(13)
    scaled = scaling.apply(features, scaling.fit(features, np.arange(len(features))))
    rows = newton.make_rows(np.column_stack([scaled, np.ones(len(scaled))]))
    n, n_terms = labels.shape[1], rows.exact.shape[1]
    ridge = np.full((n, n_terms), 0.1)
    ridge[:, -1] = 0.0
    hard = np.arange(n) % 2 == 0
    batch = newton.Batch(
        np.zeros((n, n_terms)), np.zeros((n, len(scaled))), labels.T.astype(float),
        logistic.balanced_weights(labels).T.copy(), ridge, np.zeros((n, len(scaled))),
        np.arange(n), np.zeros(n, int),
    )  # fmt: skip
    found = newton.descend(rows, batch, 1e-9, 100, hard=hard)
    assert found.hard[hard].all()
    expected = logistic.decide(scaled, logistic.fit(scaled, labels, 10.0, tolerance=1e-10)).T
    assert (np.abs(found.eta - expected) <= found.margin[:, None]).all()
    np.testing.assert_array_equal(found.eta > 0, expected > 0)


def test_steps_that_go_too_far_are_shortened():
    """From a start far away, where a full Newton step overshoots."""
    features, labels, _, _ = case(9, n_rows=200)
    scaled = scaling.apply(features, scaling.fit(features, np.arange(len(features))))
    rows = newton.make_rows(np.column_stack([scaled, np.ones(len(scaled))]))
    n, n_terms = labels.shape[1], rows.exact.shape[1]
    ridge = np.full((n, n_terms), 1.0)
    ridge[:, -1] = 0.0
    start = np.random.default_rng(0).standard_normal((n, n_terms)) * 3
    batch = newton.Batch(
        start.copy(), start @ rows.exact_t, labels.T.astype(float),
        logistic.balanced_weights(labels).T.copy(), ridge, np.zeros((n, len(scaled))),
        np.arange(n), np.zeros(n, int),
    )  # fmt: skip
    with np.errstate(all="ignore"):
        found = newton.descend(rows, batch, 1e-9, 100)
    expected = logistic.fit(scaled, labels, 1.0, tolerance=1e-10)
    np.testing.assert_array_equal(found.eta > 0, logistic.decide(scaled, expected).T > 0)
    np.testing.assert_allclose(found.w[:, :-1], expected.coef, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (lambda x, C: (x, C), {"standardise": True, "penalise_intercept": True}),
        (lambda x, C: (x, np.array([1e-30, 1.0])), {"standardise": True}),
        (lambda x, C: (x, np.array([1.0, 1e6])), {"standardise": True}),
        (lambda x, C: (x * 1e9, C), {"standardise": False}),
        (lambda x, C: (x * 1e-9, C), {"standardise": False}),
        (lambda x, C: (x + 1e7, C), {"standardise": False}),
    ],
)
def test_what_is_left_to_the_plain_way(change, how):
    features, _, inner, _ = case(0)
    assert not nested.can_solve(
        *(lambda x, C: (x, inner, C))(*change(features, GRID)),
        **{"penalise_intercept": False, **how},
    )


def test_a_feature_that_hardly_varies_in_a_fold_is_left_to_the_plain_way():
    features, _, inner, _ = case(0)
    features[:, 0] = 0.0
    features[inner[0].test, 0] = np.linspace(1, 2, inner[0].test.size)
    features[inner[0].train[:2], 0] = 1e-4
    assert not nested.can_solve(features, inner, GRID, standardise=True, penalise_intercept=False)


@pytest.mark.parametrize("standardise", [True, False])
def test_decoding_is_the_same_either_way(monkeypatch, standardise):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((2, 160, 12))
    values = X[0] @ rng.standard_normal((12, 4)) * [0, 0.2, 0.5, 1] + rng.standard_normal((160, 4))
    labels = values > [0.5, 0.0, 1.0, -0.5]
    plan = decoding.make_plan(np.arange(160), 4, 3, 3)
    how = {"standardise": standardise, "n_permutations": 0, "keep_decisions": True}
    fast = decoding.decode(X, labels, plan, **how)
    monkeypatch.setattr(nested, "can_solve", lambda *args, **kwargs: False)
    plain = decoding.decode(X, labels, plan, **how)
    np.testing.assert_array_equal(fast.C_index, plain.C_index)
    np.testing.assert_array_equal(fast.accuracy_by_fold, plain.accuracy_by_fold)
    scale = np.nanmax(np.abs(plain.decision))
    np.testing.assert_allclose(fast.decision, plain.decision, atol=1e-5 * scale)
