"""All 144 heads: one fit on 36,864 columns and a score of every head's own part."""

from __future__ import annotations

import numpy as np

from benchmarks.common import Peer, Result, cpu_seconds, in_turn, peak_mib, straight
from benchmarks.heads import DELAYS, planted_targets, simulated_heads
from bids_brainlm.numerics import blas, crossval, design, heads

N_GAMMAS = 100


def simulate(n_layers: int, n_targets: int) -> tuple[list[design.Band], np.ndarray]:
    """Bands of silence, counts, phonemes and heads, and targets that follow one head each."""
    rng = np.random.default_rng(0)
    features = simulated_heads(rng, 534, n_layers, 12, 64)
    valid = np.ones(534, bool)
    sizes = {"silence": 1, "counts": 2, "phonemes": 40}
    bands = [
        design.Band(name, rng.standard_normal((534, size)), valid) for name, size in sizes.items()
    ]
    bands.append(design.Band("model", features, valid))
    planted = rng.integers(0, 12 * n_layers, n_targets)
    shares = np.full(n_targets, 0.1)
    return bands, planted_targets(rng, features, valid, planted, 64, shares, 1.5)


def paper_fit(train: list[np.ndarray], targets: np.ndarray, gammas: np.ndarray, inner: list):
    """GroupRidgeCV as the paper calls it, with our folds and gammas."""
    from himalaya.backend import set_backend
    from himalaya.ridge import GroupRidgeCV
    from himalaya.scoring import correlation_score

    from benchmarks.encoding import Given

    set_backend("numpy")
    model = GroupRidgeCV(
        groups="input", fit_intercept=False, cv=Given(inner),
        solver_params={
            "n_iter": gammas, "alphas": 1.0, "score_func": correlation_score,
            "progress_bar": False,
        },
    )  # fmt: skip
    return model.fit(train, targets)


def paper_head(
    test: np.ndarray, weights: np.ndarray, head: int, observed: np.ndarray
) -> np.ndarray:
    """Zero the weights of all other heads, predict, correlate parcel by parcel."""
    from scipy.stats import pearsonr

    n_features = test.shape[1] // len(DELAYS)
    kept = np.zeros_like(weights)
    for delay in range(len(DELAYS)):
        start = delay * n_features + head * 64
        kept[start : start + 64] = weights[start : start + 64]
    predicted = test @ kept
    return np.array(
        [pearsonr(predicted[:, t], observed[:, t])[0] for t in range(observed.shape[1])]
    )


def largest_difference(
    bands: list[design.Band], targets: np.ndarray, plan: crossval.Plan, groups: np.ndarray
) -> float:
    """Compare parts with products of explicit delayed columns, as a share of the largest."""
    fit = heads.fit_heads(bands, [targets], plan, main="model")
    parts = [heads.read_head(fit, columns)[0] for columns in groups]
    apart = []
    for number, fitted in enumerate(crossval.fit_folds(bands, [targets], plan)):
        train, test, _ = design.fold_design(bands[-1], plan.outer[number], plan.delays)
        found = fitted.found[0]
        dual = found.dual * plan.gammas[number][found.gamma_index, -1]
        for columns, part in zip(groups, parts, strict=True):
            starts = np.arange(len(plan.delays)) * bands[-1].features.shape[1]
            kept = (starts[:, None] + columns).ravel()
            expected = test[:, kept] @ (train[:, kept].T @ dual)
            apart.append(np.abs(part.prediction[number] - expected).max() / expected.max())
    return max(apart)


def heads_row(quick: bool) -> Result:
    """Compare one outer fold of the paper's script, continued, with all of ours."""
    n_layers, n_targets, counts = (2, 100, (1, 3)) if quick else (12, 1000, (2, 5))
    n_heads = 12 * n_layers
    bands, targets = simulate(n_layers, n_targets)
    plan = crossval.make_plan(
        np.arange(10, 524), n_folds=3, n_inner=3, gap=0, n_bands=4, n_gammas=N_GAMMAS,
        alphas=(1.0,), delays=DELAYS, seed=0, score="r",
    )  # fmt: skip
    groups = np.arange(64 * n_heads).reshape(n_heads, 64)

    def ours() -> None:
        """Fit all folds and score all heads."""
        heads.headwise(bands, groups, [targets], plan, main="model")

    fold = plan.outer[0]
    designs = [design.fold_design(band, fold, DELAYS) for band in bands]
    train, test = [d[0] for d in designs], [d[1] for d in designs]
    centred = targets[fold.train] - targets[fold.train].mean(axis=0)
    observed = targets[fold.test] - targets[fold.train].mean(axis=0)
    kept = {}
    with blas.single_threaded():
        times = in_turn({"ours": ours}, 1 if quick else 5)
        fit_only = cpu_seconds(lambda: heads.fit_heads(bands, [targets], plan, main="model"))
        spent = [
            cpu_seconds(
                lambda n=n: kept.update(
                    model=paper_fit(train, centred, plan.gammas[0][:n], plan.inner[0])
                )
            )
            for n in counts
        ]
        weights = kept["model"].coef_[sum(band.shape[1] for band in train[:-1]) :]
        one_head = cpu_seconds(lambda: [paper_head(test[-1], weights, h, observed) for h in (0, 5)])
        memory = peak_mib(ours)
        apart = largest_difference(bands, targets, plan, groups[[0, 5]])
    fits = 3 * straight(counts, tuple(spent), N_GAMMAS)
    loops = 3 * n_heads * one_head / 2
    table = 8 * 4 * 64 * n_heads * n_targets / 2**20
    peer = fits + loops
    return Result(
        work="all heads, one fit and a score of each",
        shapes=f"{n_heads} heads, {4 * 64 * n_heads} columns, {n_targets} parcels, 3 x 3 folds",
        seconds=times["ours"],
        peers=(
            Peer(
                "the paper's head-wise script", peer, peer / times["ours"], 750.0,
                f"from {counts[0]} and {counts[1]} gammas and 2 heads of one fold",
            ),
        ),
        same=f"parts within {apart:.0e} of explicit columns",
        floor=f"an array of columns x parcels would take {table:.0f} MiB",
        peak_mib=memory,
        repeats=1 if quick else 5,
        notes={"fit_s": fit_only, "paper_fits_s": fits, "paper_heads_s": loops},
    )  # fmt: skip
