"""Control ladder: what each kind of features adds to the simpler ones, once per run and model.

Nested models are refitted, from position in the story up to the trained language model, and the
whole model once more without each rung. One column of a map is one rung.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bids_brainlm import devices
from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError, NumericalError
from bids_brainlm.numerics import blas, crossval, design, nested
from bids_brainlm.steps import encoding_columns, encoding_runs, run_maps
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each
from bids_brainlm.steps.encoding_sidecar import describe

NAME = "ladder"
VERSION = 2
ENDING = "Ladder"
SHARED = "value"  # the one column of maps of what rungs share
DEPTH = 2 / 3  # of a model, where the layer lies that enters the ladder
UNTRAINED, TRAINED = "untrained", "trained"
RUNGS: Mapping[str, tuple[str, ...]] = {
    "position": ("position", "oasm"),
    "wordrate": ("silence", "counts"),
    "phonemes": ("phonemes",),
    "acoustics": ("acoustics",),
    "recordings": ("stim-",),
    "linguistic": ("linguistic",),
    "static": ("static",),
    UNTRAINED: (UNTRAINED,),
    TRAINED: (TRAINED,),
}
"""Rungs in order, and the feature spaces of each; ``stim-`` stands for any recording."""
ONLY_AS_BANDS = ("recordings", "linguistic")  # rungs of spaces that are in --bands only
DESCRIPTIONS = {
    "gain": "R2 of the model with this rung and all before it, minus R2 of the model without it",
    "r2": "R2 of the model with this rung and all before it, pooled over folds; the mean of each "
    "test block is left out",
    "unique": "R2 of the whole model minus R2 of the model refitted without this rung",
    "product": "product measure of the rung in the whole model; rungs add up to its R2",
    "shared": "R2 of the whole model minus the sum of the rungs' unique R2; negative where rungs "
    "help each other or overfit",
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
    unscaled_bands: tuple[str, ...]
    test_scaling: str
    intercept: str
    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    e = config.encoding
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
        unscaled_bands=e.unscaled_bands,
        test_scaling=e.test_scaling,
        intercept=e.intercept,
        seed=e.seed,
    )


def desc(unit: Unit) -> str:
    """Return the ``desc`` label, such as ``minilmLadder``."""
    return f"{unit.model}{ENDING}"


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar of gain)."""
    found = {}
    for stat in DESCRIPTIONS:
        labels = {"desc": desc(unit), "stat": stat}
        for ext in unit.map_extensions():
            if (stat, ext) != ("gain", "json"):
                found[f"{stat}.{ext}"] = unit.place(names, "boldmap", ext, labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "boldmap", "json", {"desc": desc(unit), "stat": "gain"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Fit the ladder of one model for several runs of one story."""
    return encoding_runs.each_batch(
        jobs, lambda batch: _batch(batch, settings, resources), resources.mem_gb
    )


@dataclass(frozen=True)
class _Bands:
    """Bands of the whole model, rung of each, names of the rungs, layer, and what is missing."""

    bands: Sequence[design.Band]
    rung_of: Sequence[int]
    rungs: Sequence[str]
    layer: int
    missing: Sequence[Mapping[str, str]]


def _batch(
    batch: Sequence[encoding_runs.Person], settings: Params, resources: Resources
) -> list[Outcome]:
    """Fit all models of the ladder for a batch of runs and write their maps."""
    job, n_trs = batch[0].job, len(batch[0].series)
    found = _read(job, settings, n_trs)
    plan = _plan(job, settings, n_trs, len(found.bands))
    plan = replace(plan, screening=devices.screening(resources.device))
    models = nested.models_of(len(found.rungs))
    targets = [person.targets for person in batch]
    pieces = encoding_runs.pieces(
        [y.shape[1] for y in targets],
        n_trs,
        len(found.bands) + len(found.rungs),
        n_workers=min(resources.nprocs, len(models)),
        mem_gb=resources.mem_gb,
    )

    def fit(model: tuple[int, ...]) -> list[nested.Fit]:
        parts: list[list[nested.Fit]] = [[] for _ in batch]
        for piece in pieces:
            cut = [targets[k][:, some] for k, some in piece]
            fits = nested.fit(found.bands, found.rung_of, model, cut, plan)
            for (k, _), one in zip(piece, fits, strict=True):
                parts[k].append(one)
        shown = " + ".join(found.rungs[k] for k in model)
        resources.progress(f"{job.unit.story} {desc(job.unit)} {shown}: {len(batch)} runs")
        return [_joined(several) for several in parts]

    with blas.single_threaded():
        fitted = each(fit, models, resources.nprocs, writes=False)
    outcomes = []
    for k, person in enumerate(batch):
        own = {model: fits[k] for model, fits in zip(models, fitted, strict=True)}
        try:
            _write(person, own, found, plan)
            outcomes.append(Outcome(person.job))
        except BrainLMError as error:
            outcomes.append(Outcome(person.job, error))
    return outcomes


def _read(job: Job, settings: Params, n_trs: int) -> _Bands:
    """Read the bands of all rungs; rungs that turn out empty are left out."""
    scaling = encoding_columns.Scaling(settings.silence, settings.unscaled_bands)
    rung = {b: one["Name"] for one in job.facts["rungs"] for b in one["Bands"]}
    bands: list[design.Band] = []
    missing = list(job.facts["missing"])
    for name in [band for band in rung if band not in (UNTRAINED, TRAINED)]:
        try:
            bands += encoding_columns.nuisance_bands(job, [name], scaling, n_trs)
        except NumericalError as error:
            if name not in job.facts["unasked"]:
                raise
            missing.append({"Name": rung[name], "Why": error.message})
    layer = 0
    for name in [band for band in rung if band in (UNTRAINED, TRAINED)]:
        own = name == job.facts["top"]
        made = next(
            one
            for one in job.upstream
            if one.step == "features" and (one.unit.model == job.unit.model) == own
        )
        band, layer = encoding_columns.state_at(job, made, DEPTH, scaling, n_trs=n_trs, name=name)
        bands.append(band)
    names = list(dict.fromkeys(rung[band.name] for band in bands))
    return _Bands(bands, [names.index(rung[band.name]) for band in bands], names, layer, missing)


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


def _joined(parts: Sequence[nested.Fit]) -> nested.Fit:
    """Put the pieces of one run together; targets lie last."""
    names = ("r2", "product", "alpha_index", "gamma_index")
    return nested.Fit(*[np.concatenate([getattr(p, n) for p in parts], axis=-1) for n in names])


def _write(
    person: encoding_runs.Person,
    fits: Mapping[tuple[int, ...], nested.Fit],
    found: _Bands,
    plan: crossval.Plan,
) -> None:
    """Write the maps of one run."""
    shares = nested.shares(fits)
    values = {}
    for stat in DESCRIPTIONS:
        columns = [SHARED] if stat == "shared" else list(found.rungs)
        table = person.spread(np.atleast_2d(getattr(shares, stat)).T)
        values[stat] = (columns, table)
    meta = _meta(person.job, fits, found, plan)
    run_maps.write_run_maps(person.job, values, meta, DESCRIPTIONS.__getitem__, "gain")


def _meta(
    job: Job,
    fits: Mapping[tuple[int, ...], nested.Fit],
    found: _Bands,
    plan: crossval.Plan,
) -> dict[str, object]:
    """Describe the ladder: rungs, what is missing, and what its nested models chose."""
    tables = []
    for k in range(len(found.rungs)):
        one = fits[tuple(range(k + 1))]
        held = [rung <= k for rung in found.rung_of]
        gammas = np.stack([g[i] for g, i in zip(plan.gammas, one.gamma_index, strict=True)])
        weights = gammas.mean(axis=(0, 1)) * held
        tables.append(
            {
                "alphas": np.bincount(one.alpha_index.ravel(), minlength=len(plan.alphas)),
                "gammas": weights,
                "significant": 0,
                "block_length": None,
            }
        )
    untested = replace(job, settings={**job.settings, "n_permutations": 0, "fdr": None})
    meta = describe(untested, list(found.rungs), tables, plan, found.bands)
    twin = next((one for one in job.upstream if one.unit.model == job.facts["untrained"]), None)
    for band in meta["Bands"]:
        if band["Name"] == UNTRAINED and twin is not None:
            band["Model"] = write.read_json(twin.record).get("Model")
    bands = [band.name for band in found.bands]
    rungs = [
        {
            "Name": name,
            "Bands": [b for b, r in zip(bands, found.rung_of, strict=True) if r == k],
        }
        for k, name in enumerate(found.rungs)
    ]
    return {
        **meta,
        "Rungs": rungs,
        "Missing": list(found.missing),
        "Layer": {
            "Number": found.layer,
            "Rule": "embeddings at two thirds of the model's depth, the same layer of the "
            "untrained model; fixed before any data are seen",
        },
        "BandWeights": "smaller models try the band weights of the whole model without the columns "
        "of the bands that they lack",
        "Inference": {"Test": "none for one participant; the group level tests gain and unique"},
    }
