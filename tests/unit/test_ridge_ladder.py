"""A few matrices stand for all of several penalties: bounds hold, no choice changes."""

import dataclasses

import numpy as np
import pytest

from bids_brainlm.numerics import _ridge_factors as factors
from bids_brainlm.numerics import _ridge_host, folds, ridge, ridge_ladder, ridge_search
from bids_brainlm.numerics._ridge_blocks import Block
from bids_brainlm.numerics._ridge_climb import Climb
from bids_brainlm.numerics.ridge_screens import Lean

N_ROWS, N_GAMMAS = 60, 32
ALPHAS = np.array([1e-4, 1e-2, 0.3, 1.0, 10.0, 1e3, 1e4, 1e9, 1e15])


def _problem(seed, n_targets, size=1.0):
    """Kernels of trace ``size * N_ROWS``, noise with signal in some targets, and folds."""
    rng = np.random.default_rng(seed)
    bands = [rng.standard_normal((N_ROWS, n)) * np.arange(1, n + 1) ** -0.5 for n in (2, 30, 200)]
    kernels = np.stack([band @ band.T for band in bands])
    kernels *= size * N_ROWS / np.trace(kernels, axis1=1, axis2=2)[:, None, None]
    targets = rng.standard_normal((N_ROWS, n_targets))
    targets += bands[2] @ rng.standard_normal((200, n_targets)) * rng.uniform(0, 0.7, n_targets)
    gammas = ridge.sample_gammas(3, N_GAMMAS, rng)
    inner = folds.contiguous_folds(np.arange(N_ROWS), 3, 2)
    return kernels, targets - targets.mean(0), gammas, inner


def _matrix(kernels, gamma, alpha, fold):
    """What predicts validation rows from training targets, by a plain solve."""
    kernel = np.tensordot(gamma, kernels, 1)
    inside = kernel[np.ix_(fold.train, fold.train)] + alpha * np.eye(len(fold.train))
    return np.linalg.solve(inside, kernel[np.ix_(fold.train, fold.test)]).T


def _score(y, p, score):
    centred = y - y.mean(0)
    total = (centred**2).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        if score == "r2":
            return np.where(total == 0, 0.0, 1 - ((y - p) ** 2).sum(0) / total)
        p = p - p.mean(0)
        r = (centred * p).sum(0) / np.sqrt(total * (p**2).sum(0))
        return np.where(total == 0, 0.0, r)


def _table(kernels, targets, gammas, alphas, inner, score):
    """Score of every pair in every fold, (n_folds, n_gammas, n_alphas, n_targets)."""
    return np.array([
        [
            [
                _score(targets[f.test], _matrix(kernels, g, a, f) @ targets[f.train], score)
                for a in alphas
            ]
            for g in gammas
        ]
        for f in inner
    ])  # fmt: skip


def _screens(kernels, gammas, alphas, inner, score):
    centred = score == "r"
    splits = [factors.Split(kernels, fold, alphas, centred=centred) for fold in inner]
    return [[Lean(split.hat(gamma)) for split in splits] for gamma in gammas]


@pytest.fixture
def used(monkeypatch):
    """Ladders of a search; small calls have them as well, and combinations need not pay."""
    ladders = []

    def noted(screens, *, relative):
        ladders.append(ridge_ladder.ladder(screens, relative=relative))
        return ladders[-1]

    monkeypatch.setattr(_ridge_host, "ladder", noted)
    monkeypatch.setattr(_ridge_host, "_MANY_FOR_LADDERS", {False: 300, True: 300})
    monkeypatch.setattr(_ridge_host, "_MANY_OF_LADDERS", 30)
    return ladders


@pytest.mark.parametrize("score", ["r2", "r"])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_bounds_hold(score, size):
    kernels, targets, gammas, inner = _problem(1, 120, size)
    targets[inner[1].test, 5] = 0.0  # constant in one fold
    targets[:, 6] *= 1e30
    screens = _screens(kernels, gammas, ALPHAS, inner, score)
    ladders = [
        ridge_ladder.ladder([each[k] for each in screens], relative=score == "r") for k in range(3)
    ]
    block = Block(targets, np.arange(120), inner, centred=score == "r")
    climb = Climb(block.singles, screens, ladders, np.zeros(len(ALPHAS)))
    true = _table(kernels, targets, gammas, ALPHAS, inner, score)
    for number, each in enumerate(ladders):
        total = np.zeros((120, len(ALPHAS) * N_GAMMAS), np.float32)
        high = np.empty_like(total)
        climb._nearly_in(number, each, np.arange(120), total, high)
        exact = true[number] - climb.bases[number]
        exact = exact.transpose(2, 1, 0).reshape(120, -1)
        rounding = 1e-12 * (1 + np.abs(climb.bases[number][:, None]))  # of the plain solves
        assert (high >= exact - rounding).all()
        assert (2.0 * total - high <= exact + rounding).all()
        assert np.median((high - total)[:, 2 * N_GAMMAS :]) < 0.1  # worth having


@pytest.mark.parametrize("relative", [False, True])
def test_what_is_left_is_not_above_its_bound(relative):
    kernels, targets, gammas, inner = _problem(2, 40)
    screens = _screens(kernels, gammas, ALPHAS, inner, "r2")
    found = ridge_ladder.ladder([each[0] for each in screens], relative=relative)
    y = (targets / np.linalg.norm(targets, axis=0)).astype(np.float32).T
    train, observed = y[:, inner[0].train], y[:, inner[0].test]
    sums = found.sums(train, observed)
    parts = found.parts.reshape(found.rank, -1, train.shape[1]).astype(float)
    ranks = [len(step.weights) for step in found.steps]
    assert ranks[-1] == ranks[-2] == 3  # one matrix a band
    assert ranks == sorted(ranks, reverse=True)
    for alpha, step in zip(ALPHAS, found.steps, strict=True):
        product, squares, rest, size = sums.of(step)
        combined = np.einsum("kg,kvn,tn->tgv", step.weights, parts[: len(step.weights)], train)
        error = found.error * size * (1.0 + size)
        assert (np.abs(product - np.einsum("tgv,tv->tg", combined, observed)) <= error).all()
        assert (np.abs(squares - (combined**2).sum(2)) <= error).all()
        whole = np.array([_matrix(kernels, gamma, alpha, inner[0]) for gamma in gammas])
        whole = np.einsum("gvn,tn->tgv", whole / step.unit, train)
        left = np.linalg.norm(whole - combined, axis=2)
        assert (left <= rest).all()


@pytest.mark.parametrize("score", ["r2", "r"])
@pytest.mark.parametrize("size", [0.1, 3.0])
def test_choices_are_those_of_plain_solves(score, size, used):
    kernels, targets, gammas, inner = _problem(3, 320, size)
    alphas = ALPHAS[:7]
    found = ridge.search(kernels, [targets], gammas, alphas, inner, score=score)[0]
    assert len(used) == 3
    table = _table(kernels, targets, gammas, alphas, inner, score).mean(0)
    table += 1e-10 * np.log(alphas)[:, None]
    best = table.reshape(-1, 320).argmax(0)
    np.testing.assert_array_equal(found.gamma_index, best // 7)
    np.testing.assert_array_equal(found.alpha_index, best % 7)
    np.testing.assert_allclose(found.cv_score, table.reshape(-1, 320).max(0), atol=1e-9)


@pytest.mark.parametrize("score", ["r2", "r"])
def test_same_bits_with_and_without(score, used, monkeypatch):
    kernels, targets, gammas, inner = _problem(4, 360)
    targets[:, :5] = np.random.default_rng(0).standard_normal((N_ROWS, 5))  # the plateau
    people = np.split(targets, [20, 220], axis=1)
    alone = [ridge.search(kernels, [p], gammas, ALPHAS, inner, score=score)[0] for p in people]
    assert not used
    monkeypatch.setattr(_ridge_host, "_LARGE_BLOCK", 150)
    together = ridge.search(kernels, people, gammas, ALPHAS, inner, score=score)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.gamma_index, other.gamma_index)
        np.testing.assert_array_equal(one.alpha_index, other.alpha_index)
        np.testing.assert_array_equal(one.cv_score, other.cv_score)
    assert len(used) == 3
    assert (np.concatenate([one.alpha_index for one in alone]) >= 7).any()


@pytest.mark.parametrize("score", ["r2", "r"])
def test_targets_without_data_harm_no_other(score, used):
    kernels, targets, gammas, inner = _problem(5, 320)
    clean = ridge.search(kernels, [targets], gammas, ALPHAS, inner, score=score)[0]
    spoilt = targets.copy()
    spoilt[:, 1], spoilt[:, 3], spoilt[10:20, 4], spoilt[:, 7] = 0.0, 1.5, np.nan, 1e30
    found = ridge.search(kernels, [spoilt], gammas, ALPHAS, inner, score=score, check=False)[0]
    assert len(used) == 6
    assert np.isnan(found.cv_score[4])
    assert found.cv_score[[1, 3]] == pytest.approx(0.0, abs=1e-8)
    assert (found.gamma_index[[1, 4]] == 0).all()
    others = np.setdiff1d(np.arange(320), [1, 3, 4, 7])
    np.testing.assert_array_equal(found.gamma_index[others], clean.gamma_index[others])
    np.testing.assert_array_equal(found.alpha_index[others], clean.alpha_index[others])
    np.testing.assert_array_equal(found.cv_score[others], clean.cv_score[others])


def test_only_missing_targets(used):
    kernels, targets, gammas, inner = _problem(6, 310)
    nothing = np.full_like(targets, np.nan)
    found = ridge.search(kernels, [nothing], gammas, ALPHAS, inner, check=False)[0]
    assert used
    assert np.isnan(found.cv_score).all()
    assert ridge.search(0.0 * kernels, [targets], gammas, ALPHAS, inner)[0].cv_score.shape == (310,)


def test_where_ladders_are_left_out(used, monkeypatch):
    kernels, targets, gammas, inner = _problem(7, 310)
    whole = ridge.search(kernels, [targets], gammas, ALPHAS[2:6], inner)[0]
    assert len(used) == 3
    monkeypatch.setattr(ridge_search, "_BYTES_OF_LADDERS", 2**20)  # a long story
    other = ridge.search(kernels, [targets], gammas, ALPHAS[2:6], inner)[0]
    assert len(used) == 3
    monkeypatch.undo()
    monkeypatch.setattr(_ridge_host, "_MANY_FOR_LADDERS", {False: 300, True: 300})
    monkeypatch.setattr(_ridge_host, "_MANY_OF_LADDERS", 30)
    monkeypatch.setattr(_ridge_host, "ladder", lambda *_, **__: None)
    third = ridge.search(kernels, [targets], gammas, ALPHAS[2:6], inner)[0]
    for each in (other, third):
        np.testing.assert_array_equal(whole.gamma_index, each.gamma_index)
        np.testing.assert_array_equal(whole.alpha_index, each.alpha_index)
        np.testing.assert_array_equal(whole.cv_score, each.cv_score)


def test_matrices_too_large_for_float32():
    kernels, _, gammas, inner = _problem(8, 1)
    hats = [factors.Split(kernels, inner[0], ALPHAS, centred=False).hat(g) for g in gammas]
    assert ridge_ladder.ladder([Lean(hat) for hat in hats], relative=False) is not None
    large = [Lean(dataclasses.replace(hat, across=1e12 * hat.across)) for hat in hats]
    assert ridge_ladder.ladder(large, relative=False) is None
