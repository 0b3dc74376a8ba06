"""Head-wise encoding: one model on all heads, and each head's own part of its prediction.

Written as maps with one column a head (``desc-<model>Heads``), once per run and model.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

import numpy as np

from bids_brainlm import devices
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError
from bids_brainlm.numerics import blas, crossval, design, head_nulls, heads, multiple
from bids_brainlm.steps import encoding_columns, encoding_runs, run_maps, significance
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit
from bids_brainlm.steps.encoding_sidecar import describe

NAME = "heads"
VERSION = 4
N_SURROGATES = 3  # series without link; each costs about as much as reading the heads
MORE_COPIES = 20  # of the targets, besides one a band and one a fold; see `heads.fit_heads`
DESCRIPTIONS = {
    "r": "Pearson r of each head's own part of the prediction with the data, mean over folds",
    "norm": "L2 norm of each head's weights over its columns and delays, mean over folds",
    "normexcess": "natural logarithm of norm less that of series with the parcel's own "
    "autocorrelation and random phases (no link with the story), same band weights and penalty, "
    "mean over such series; 0 is what chance gives",
    "r2loss": "R2 of the joint prediction minus R2 without the head's part: a read-out knock-out, "
    "neither a refit nor an ablation of the language model",
    "p": "one-sided p of r, block permutation of held-out predictions, (k + 1) / (n + 1)",
    "q": "p adjusted for the false discovery rate over all heads and parcels of the participant",
    "rthresholded": "r where q is at most the false discovery rate, else n/a",
}


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    delays: tuple[int, ...]
    cv: int
    inner_cv: int
    gap: float
    trim: tuple[int, int]
    n_iter: int
    alphas: tuple[float, ...]
    selection_score: str
    kernel_scaling: str
    silence: str
    bands: tuple[str, ...]
    unscaled_bands: tuple[str, ...]
    test_scaling: str
    intercept: str
    seed: int
    n_permutations: int
    block_length: int
    fdr: float


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    e, s = config.encoding, config.stats
    return Params(
        delays=e.delays,
        cv=e.cv,
        inner_cv=e.inner_cv,
        gap=e.gap,
        trim=e.trim,
        n_iter=e.n_iter,
        alphas=e.alphas,
        selection_score=e.selection_score,
        kernel_scaling=e.kernel_scaling,
        silence=e.silence,
        bands=e.bands,
        unscaled_bands=e.unscaled_bands,
        test_scaling=e.test_scaling,
        intercept=e.intercept,
        seed=e.seed,
        n_permutations=s.n_permutations,
        block_length=s.block_length,
        fdr=s.fdr,
    )


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar of r)."""
    found = {}
    for stat in DESCRIPTIONS:
        labels = {"desc": f"{unit.model}Heads", "stat": stat}
        for ext in unit.map_extensions():
            if (stat, ext) != ("r", "json"):
                found[f"{stat}.{ext}"] = unit.place(names, "boldmap", ext, labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "boldmap", "json", {"desc": f"{unit.model}Heads", "stat": "r"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Encode several runs of one story with all heads of one model."""
    return encoding_runs.each_batch(
        jobs, lambda batch: _batch(batch, settings, resources), resources.mem_gb
    )


def _batch(
    batch: Sequence[encoding_runs.Person], settings: Params, resources: Resources
) -> list[Outcome]:
    """Fit one model for a batch of runs, read its heads, and write their maps."""
    job, n_trs = batch[0].job, len(batch[0].series)
    scaling = encoding_columns.Scaling(settings.silence, settings.unscaled_bands)
    nuisance = encoding_columns.nuisance_bands(job, settings.bands, scaling, n_trs)
    band, labels, head_dim = encoding_columns.heads_band(job, scaling, n_trs)
    bands = [*nuisance, band]
    plan = _plan(job, settings, n_trs, len(bands))
    plan = replace(plan, screening=devices.screening(resources.device))
    length = min(settings.block_length or significance.FIXED_BLOCK, len(plan.rows) // 6)
    resources.progress(f"{job.unit}: {len(labels)} heads, {len(batch)} runs")
    targets = [person.targets for person in batch]
    pieces = encoding_runs.pieces(
        [y.shape[1] for y in targets],
        n_trs,
        len(bands) + settings.cv + MORE_COPIES,
        n_workers=1,
        mem_gb=resources.mem_gb,
    )
    found: list[list[heads.HeadResult]] = [[] for _ in batch]
    with blas.single_threaded():
        for piece in pieces:
            results = heads.headwise(
                bands,
                np.arange(len(labels) * head_dim).reshape(-1, head_dim),
                [targets[k][:, some] for k, some in piece],
                plan,
                main="model",
                knockout=True,
                test=heads.HeadTest(length, settings.n_permutations, (settings.seed, 3)),
                null=head_nulls.HeadNull(
                    N_SURROGATES, [_seed(batch[k], settings.seed) for k, _ in piece]
                ),
            )
            for (k, _), result in zip(piece, results, strict=True):
                found[k].append(_without_series(result))
    outcomes = []
    for person, parts in zip(batch, found, strict=True):
        try:
            _write(person, _joined(parts), labels, plan, bands, settings)
            outcomes.append(Outcome(person.job))
        except BrainLMError as error:
            outcomes.append(Outcome(person.job, error))
    return outcomes


def _seed(person: encoding_runs.Person, seed: int) -> tuple[int, int, int]:
    """Return a seed that only this run has, for its surrogate series."""
    unit = person.job.unit
    own = f"{unit.participant} {unit.session} {unit.run}"
    return seed, 16, zlib.crc32(own.encode())


def _without_series(result: heads.HeadResult) -> heads.HeadResult:
    """Drop what is as large as the data and not needed any more."""
    none = np.empty((0, 0))
    return replace(result, model=replace(result.model, prediction=none, observed=none))


def _joined(parts: Sequence[heads.HeadResult]) -> heads.HeadResult:
    """Put the pieces of one run together."""
    if len(parts) == 1:
        return parts[0]

    def whole(name: str, axis: int = 0) -> np.ndarray:
        return np.concatenate([attrgetter(name)(part) for part in parts], axis=axis)

    model = replace(
        parts[0].model,
        r=whole("model.r"),
        rjoint=whole("model.rjoint"),
        r2=whole("model.r2"),
        alpha_index=whole("model.alpha_index", 1),
        gamma_index=whole("model.gamma_index", 1),
    )
    names = ("r", "norms", "r2_loss", "p", "excess")
    return heads.HeadResult(model=model, **{name: whole(name) for name in names})


def _plan(job: Job, settings: Params, n_trs: int, n_bands: int) -> crossval.Plan:
    """Fix the folds of a story."""
    given = {
        "cv": settings.cv,
        "inner_cv": settings.inner_cv,
        "gap": settings.gap,
        "trim": settings.trim,
        "n_iter": settings.n_iter,
        "alphas": settings.alphas,
        "delays": settings.delays,
        "seed": settings.seed,
        "selection_score": settings.selection_score,
        "test_scaling": settings.test_scaling,
        "intercept": settings.intercept,
        "kernel_scaling": settings.kernel_scaling,
    }
    return encoding_runs.fold_plan(job, n_trs, n_bands, given)


def _write(
    person: encoding_runs.Person,
    found: heads.HeadResult,
    labels: Sequence[str],
    plan: crossval.Plan,
    bands: Sequence[design.Band],
    settings: Params,
) -> None:
    """Write the maps of one run; the false discovery rate is that of heads and parcels."""
    job = person.job
    q = multiple.benjamini_hochberg(found.p.ravel()).reshape(found.p.shape)
    tables = {
        "r": found.r,
        "norm": found.norms,
        "normexcess": found.excess,
        "r2loss": found.r2_loss,
        "p": found.p,
        "q": q,
        "rthresholded": np.where(q <= settings.fdr, found.r, np.nan),
    }
    meta = _meta(job, found, q, labels, plan, bands)
    values = {stat: (labels, person.spread(table)) for stat, table in tables.items()}
    run_maps.write_run_maps(job, values, meta, DESCRIPTIONS.__getitem__, "r")


def _meta(
    job: Job,
    found: heads.HeadResult,
    q: np.ndarray,
    labels: Sequence[str],
    plan: crossval.Plan,
    bands: Sequence[design.Band],
) -> Mapping[str, object]:
    """Describe the one model behind all heads."""
    model = found.model
    gammas = np.stack([g[i] for g, i in zip(plan.gammas, model.gamma_index, strict=True)])
    fitted = {
        "alphas": np.bincount(model.alpha_index.ravel(), minlength=len(plan.alphas)),
        "gammas": gammas.mean(axis=(0, 1)),
        "significant": int(np.nansum(q <= float(job.settings["fdr"]))),
        "block_length": min(
            int(job.settings["block_length"]) or significance.FIXED_BLOCK, len(plan.rows) // 6
        ),
    }
    meta = describe(job, ["value"], [fitted], plan, bands)
    meta["Columns"] = list(labels)
    meta["Inference"] = {**meta["Inference"], "Family": "all heads and parcels of the participant"}
    meta["Inference"]["Scored"] = "each head's own part of the prediction"
    meta["NumberOfSurrogates"] = N_SURROGATES
    meta["WholeModel"] = {
        "MeanR": float(np.nanmean(model.r)),
        "MeanRJoint": float(np.nanmean(model.rjoint)),
        "MeanR2": float(np.nanmean(model.r2)),
    }
    return meta
