"""A whole study from parcels on one core: 59 participants, 30 feature spaces, heads, group."""

from __future__ import annotations

import numpy as np

from benchmarks.common import Result, cpu_seconds
from benchmarks.encoding import autocorrelated
from benchmarks.heads import DELAYS, simulated_heads
from bids_brainlm.numerics import blas, crossval, design, heads, isc, resampling

STORIES = {"black": (42, 534), "slumlord": (17, 601)}
N_SPACES = 30
N_PARCELS = 1000


def story_bands(rng: np.random.Generator, n_trs: int, model: np.ndarray) -> list[design.Band]:
    """Silence, counts, phonemes, and the model's band."""
    valid = np.ones(n_trs, bool)
    sizes = {"silence": 1, "counts": 2, "phonemes": 40}
    bands = [
        design.Band(name, rng.standard_normal((n_trs, size)), valid) for name, size in sizes.items()
    ]
    return [*bands, design.Band("model", model, valid)]


def paper_plan(n_trs: int) -> crossval.Plan:
    """One alpha, 100 gammas, 3 x 3 folds, 10 TRs trimmed at both ends."""
    return crossval.make_plan(
        np.arange(10, n_trs - 10), n_folds=3, n_inner=3, gap=0, n_bands=4, n_gammas=100,
        alphas=(1.0,), delays=DELAYS, seed=0, score="r",
    )  # fmt: skip


def story(n_people: int, n_trs: int, n_spaces: int, n_readers: int, n_parcels: int) -> dict:
    """Return CPU seconds of each part of one story; ``n_readers`` participants' heads are read."""
    rng = np.random.default_rng(n_people)
    shared = autocorrelated(rng, n_trs, n_parcels)
    targets = [0.3 * shared + autocorrelated(rng, n_trs, n_parcels) for _ in range(n_people)]
    plan = paper_plan(n_trs)
    scores = []

    def spaces() -> None:
        """Fit the same model for all participants together, one space after the other."""
        for _ in range(n_spaces):
            bands = story_bands(rng, n_trs, rng.standard_normal((n_trs, 768)))
            results = crossval.crossvalidate(bands, targets, plan, main="model")
            scores.append(np.array([result.r for result in results]))

    def read(n: int) -> None:
        """Fit all heads for some participants and score every head."""
        fit = heads.fit_heads(bands, targets[:n], plan, main="model")
        for head in range(144):
            for k, part in enumerate(heads.read_head(fit, np.arange(64) + 64 * head)):
                crossval.mean_r(part.prediction, fit.observed[k])

    def group() -> None:
        """Sign flips and intervals of one space."""
        resampling.sign_flip_test(scores[0], n_permutations=10_000, rng=rng)
        resampling.bootstrap_interval(scores[0], n_bootstraps=10_000, rng=rng)

    found = {"spaces": cpu_seconds(spaces) * N_SPACES / n_spaces}
    bands = story_bands(rng, n_trs, simulated_heads(rng, n_trs, 12, 12, 64))
    one, some = cpu_seconds(lambda: read(1)), cpu_seconds(lambda: read(n_readers))
    found["heads"] = one + (n_people - 1) * (some - one) / (n_readers - 1)
    series = np.stack([target.T for target in targets]).transpose(0, 2, 1)
    found["ISC"] = cpu_seconds(lambda: isc.leave_one_out(series))
    found["statistics"] = N_SPACES * cpu_seconds(group)
    return found


def study(quick: bool) -> Result:
    """Both stories; some spaces and some participants' heads, continued."""
    n_spaces, n_readers, n_parcels = (1, 2, 100) if quick else (3, 4, N_PARCELS)
    with blas.single_threaded():
        parts = {
            name: story(n_people, n_trs, n_spaces, n_readers, n_parcels)
            for name, (n_people, n_trs) in STORIES.items()
        }
    total = sum(sum(found.values()) for found in parts.values())
    sums = {key: sum(found[key] for found in parts.values()) for key in parts["black"]}
    return Result(
        work="whole study from parcels, one core",
        shapes=f"59 participants x {N_SPACES} spaces x {n_parcels} parcels, heads, ISC, group "
        f"(from {n_spaces} spaces and heads of {n_readers} participants); asked: 45 min",
        seconds=total,
        peers=(),
        same="",
        floor=", ".join(f"{key} {value / 60:.1f} min" for key, value in sums.items()),
        notes=parts,
    )
