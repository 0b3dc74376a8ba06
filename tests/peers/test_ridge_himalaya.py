"""The banded ridge equals himalaya's MultipleKernelRidgeCV on the same candidates and folds."""

import numpy as np
import pytest

from bids_brainlm.numerics import folds, ridge
from bids_brainlm.numerics.blas import single_threaded

pytestmark = pytest.mark.peer

ALPHAS = np.logspace(-1, 6, 8)


@pytest.fixture(
    scope="module",
    params=[(40, "wide"), (230, "wide"), (40, "thin"), (230, "thin")],
    ids=lambda value: f"{value[0]}-{value[1]}",
)
def problem(request):
    n_targets, kind = request.param
    rng = np.random.default_rng(5)
    n_train, n_test = 96, 30
    sizes = {"wide": (4, 8, 40, 200), "thin": (1, 2, 3, 200)}[kind]
    bands = [rng.standard_normal((n_train + n_test, size)) for size in sizes]
    bands = [band - band[:n_train].mean(0) for band in bands]
    weights = [rng.standard_normal((size, n_targets)) / np.sqrt(size) for size in sizes]
    strength = rng.dirichlet([0.3] * 4, n_targets).T
    signal = sum(s * (b @ w) for s, b, w in zip(strength, bands, weights, strict=True))
    targets = signal + 0.5 * rng.standard_normal(signal.shape)
    targets -= targets[:n_train].mean(0)
    rows = np.arange(n_train)
    inner = folds.contiguous_folds(rows, 3, 4)
    return {
        "train": [band[:n_train] for band in bands],
        "test": [band[n_train:] for band in bands],
        "targets": targets[:n_train],
        "inner": inner,
        "gammas": ridge.sample_gammas(4, 14, rng),
    }


def _himalaya(problem, alphas, score):
    pytest.importorskip("himalaya", reason="himalaya is needed for this comparison")
    from himalaya.kernel_ridge import MultipleKernelRidgeCV
    from himalaya.scoring import correlation_score, r2_score

    model = MultipleKernelRidgeCV(
        kernels="precomputed",
        solver_params={
            "n_iter": problem["gammas"],
            "alphas": alphas,
            "local_alpha": True,
            "score_func": {"r2": r2_score, "r": correlation_score}[score],
            "progress_bar": False,
        },
        cv=_Explicit(problem["inner"]),
    )
    model.fit(ridge.linear_kernels(problem["train"]), problem["targets"])
    return model, model.predict(ridge.linear_kernels(problem["test"], problem["train"]), split=True)


class _Explicit:
    """A splitter with folds given in advance."""

    def __init__(self, inner):
        self.inner = inner

    def get_n_splits(self, *_):
        return len(self.inner)

    def split(self, *_):
        return iter([(fold.train, fold.test) for fold in self.inner])


@pytest.mark.parametrize("score", ["r2", "r"])
@pytest.mark.parametrize("alphas", [ALPHAS, np.array([1.0])], ids=["grid", "one-alpha"])
def test_same_choice_scores_and_split_predictions(problem, score, alphas):
    with single_threaded():
        model, split = _himalaya(problem, alphas, score)
        ours = ridge.encode(
            problem["train"],
            problem["test"],
            [problem["targets"]],
            problem["gammas"],
            alphas,
            problem["inner"],
            score=score,
        )[0]
    gammas = problem["gammas"][ours.gamma_index].T
    expected = np.log(gammas / alphas[ours.alpha_index])
    assert len(np.unique(ours.gamma_index)) > 3
    np.testing.assert_allclose(model.deltas_, expected, atol=1e-9)
    np.testing.assert_allclose(ours.cv_score, model.cv_scores_.max(0), atol=1e-6)
    np.testing.assert_allclose(ours.prediction_by_band, split, atol=1e-6)


def test_ties_of_large_penalties_are_broken_as_by_himalaya(problem):
    alphas = np.logspace(2, 12, 6)
    noise = np.random.default_rng(3).standard_normal(problem["targets"].shape)
    problem = {**problem, "targets": noise - noise.mean(0), "gammas": problem["gammas"][:5]}
    with single_threaded():
        model, _ = _himalaya(problem, alphas, "r")
        kernels = ridge.linear_kernels(problem["train"])
        arguments = (problem["gammas"], alphas, problem["inner"])
        ours = ridge.search(kernels, [problem["targets"]], *arguments, score="r")[0]
    expected = np.log(problem["gammas"][ours.gamma_index].T / alphas[ours.alpha_index])
    assert (ours.alpha_index == 5).sum() > 5
    np.testing.assert_allclose(model.deltas_, expected, atol=1e-9)


def test_gammas_follow_himalayas_law():
    pytest.importorskip("himalaya", reason="himalaya is needed for this comparison")
    from himalaya.kernel_ridge import generate_dirichlet_samples
    from scipy.stats import ks_2samp

    ours = ridge.sample_gammas(4, 20_000, np.random.default_rng(0))
    peer = generate_dirichlet_samples(20_000, 4, random_state=0)
    np.testing.assert_allclose(ours.sum(1), 1.0)
    np.testing.assert_allclose(ours[0], 0.25)
    for offset in (0, 1):
        assert ks_2samp(ours[2 + offset :: 2, 0], peer[offset::2, 0]).pvalue > 1e-3
        assert ks_2samp(ours[2 + offset :: 2].max(1), peer[offset::2].max(1)).pvalue > 1e-3
