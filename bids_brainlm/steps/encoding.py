"""Banded-ridge encoding of parcel series, with significance, once per run and feature space.

All runs of a story that are asked for in one call share folds, band weights and matrix
factorisations. One column of a map is one layer (or the single column of a space).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bids_brainlm import devices
from bids_brainlm.bidsio.maps import read_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError
from bids_brainlm.numerics import crossval, design
from bids_brainlm.steps import encoding_columns, encoding_runs, run_checks, run_maps, significance
from bids_brainlm.steps import encoding_tables as tables
from bids_brainlm.steps import predictions as kept
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, made_by
from bids_brainlm.steps.encoding_sidecar import describe, description
from bids_brainlm.steps.encoding_tables import desc, statistics

NAME = "encoding"
VERSION = 5


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
    null: str
    block_length: int
    fdr: float


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    e, s = config.encoding, config.stats
    return Params(
        e.delays,
        e.cv,
        e.inner_cv,
        e.gap,
        e.trim,
        e.n_iter,
        e.alphas,
        e.selection_score,
        e.kernel_scaling,
        e.silence,
        e.bands,
        e.unscaled_bands,
        e.test_scaling,
        e.intercept,
        e.seed,
        s.n_permutations,
        s.null,
        s.block_length,
        s.fdr,
    )


def outputs(
    unit: Unit, names: Names, bands: Sequence[str], *, predictions: bool = False
) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar of r).

    Held-out predictions are written where they are wanted; no score depends on that.
    """
    found = {}
    for stat in statistics(unit, bands):
        labels = {"desc": desc(unit), "stat": stat}
        for ext in unit.map_extensions():
            if (stat, ext) != ("r", "json"):
                found[f"{stat}.{ext}"] = unit.place(names, "boldmap", ext, labels)
    if predictions:
        labels = {"desc": desc(unit), "stat": kept.STAT}
        for ext in ("nc", "json"):
            found[f"{kept.STAT}.{ext}"] = unit.place(names, "boldmap", ext, labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "boldmap", "json", {"desc": desc(unit), "stat": "r"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Encode several runs of one story with one feature space."""
    return encoding_runs.each_batch(
        jobs, lambda batch: _encode_batch(batch, settings, resources), resources.mem_gb
    )


def _encode_batch(
    batch: Sequence[encoding_runs.Person], settings: Params, resources: Resources
) -> list[Outcome]:
    """Fit all columns for a batch of runs and write their maps."""
    job = batch[0].job
    n_trs = len(batch[0].series)
    scaled = encoding_columns.Scaling(settings.silence, settings.unscaled_bands)
    nuisance = encoding_columns.nuisance_bands(job, settings.bands, scaled, n_trs)
    columns = encoding_columns.main_columns(job, scaled, n_trs)
    bands = nuisance if columns[0][1] is None else [*nuisance, columns[0][1]]
    plan = _plan(job, settings, n_trs, len(bands))
    plan = replace(plan, screening=devices.screening(resources.device))
    null = significance.Null(
        settings.null, settings.block_length, settings.n_permutations, (settings.seed, 1)
    )
    fitting = tables.Fitting(
        plan,
        null,
        settings.fdr,
        by_voxel=job.unit.is_everywhere,
        tell=lambda label: resources.progress(
            f"{job.unit.story} {desc(job.unit)} {label}: {len(batch)} runs"
        ),
    )
    fitted = tables.fit_columns(columns, nuisance, batch, fitting, resources)
    labels = [label for label, _ in columns]
    outcomes = []
    for k, person in enumerate(batch):
        try:
            found = [column[k] for column in fitted]
            if encoding_columns.is_each(job):
                found = tables.corrected_together(found, settings.fdr)
            _write_person(person, labels, found, plan, bands)
            outcomes.append(Outcome(person.job))
        except BrainLMError as error:
            outcomes.append(Outcome(person.job, error))
    return outcomes


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


def _write_person(
    person: encoding_runs.Person,
    labels: Sequence[str],
    found: Sequence[Mapping[str, object]],
    plan: crossval.Plan,
    bands: Sequence[design.Band],
) -> None:
    """Write all maps of one run."""
    job = person.job
    meta = describe(job, labels, found, plan, bands)
    if job.unit.feature == "nuisance":
        meta["Alignment"] = run_checks.run_lag(job, person.series)
        if meta["Alignment"].get("Unlikely"):
            verdict = f"{job.unit.story}: {meta['Alignment']['Verdict']}"
            meta["Warnings"] = [*meta["Warnings"], verdict]
    base = None
    if job.unit.feature != "nuisance":
        base = read_map(made_by(job, "encoding").outputs["r2.tsv"])[3]
    stats = statistics(job.unit, [band.name for band in bands])
    values = tables.spread(person, stats, labels, found, base)
    if kept.is_wanted(person):
        kept.save(person, labels, [table[kept.STAT] for table in found], plan, meta)
    run_maps.write_run_maps(job, values, meta, description, "r")
