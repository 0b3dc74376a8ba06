"""Encoding across stories or runs: fitted on some, tested on one that was never seen.

Within a story, training and test rows share speaker, topic and recording. Where a participant
heard several stories (or runs), the same models are also fitted on all but one and tested on that
one. Once per tested run and feature space; one column of a map is one layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bids_brainlm import devices
from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import read_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError
from bids_brainlm.numerics import crossval, design, transfer
from bids_brainlm.steps import (
    encoding_columns,
    encoding_runs,
    encoding_sidecar,
    run_maps,
    significance,
    story_blocks,
)
from bids_brainlm.steps import encoding_tables as tables
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, made_by

NAME = "across"
VERSION = 2
ENDINGS = tables.ACROSS
ONLY_WITHIN = ("oasm",)  # its columns are the rows of one story


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    delays: tuple[int, ...]
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
    n_permutations: int
    null: str
    block_length: int
    fdr: float


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    e, s = config.encoding, config.stats
    return Params(
        delays=e.delays,
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
        n_permutations=s.n_permutations,
        null=s.null,
        block_length=s.block_length,
        fdr=s.fdr,
    )


def desc(unit: Unit, scheme: str) -> str:
    """Return the ``desc`` label, such as ``minilmEmbeddingsAcrossStories``."""
    return f"{tables.desc(unit)}{ENDINGS[scheme]}"


def outputs(unit: Unit, names: Names, bands: Sequence[str], scheme: str) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar of r)."""
    found = {}
    for stat in tables.statistics(unit, bands):
        labels = {"desc": desc(unit, scheme), "stat": stat}
        for ext in unit.map_extensions():
            if (stat, ext) != ("r", "json"):
                found[f"{stat}.{ext}"] = unit.place(names, "boldmap", ext, labels)
    return found


def record(unit: Unit, names: Names, scheme: str) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "boldmap", "json", {"desc": desc(unit, scheme), "stat": "r"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Encode one left-out story or run with one feature space, for participants who heard alike."""
    return encoding_runs.each_batch(
        jobs,
        lambda batch: _batch(batch, settings, resources),
        resources.mem_gb,
        read=story_blocks.read,
    )


def _batch(
    batch: Sequence[encoding_runs.Person], settings: Params, resources: Resources
) -> list[Outcome]:
    """Fit all columns for participants with the same blocks and write their maps."""
    job, lengths = batch[0].job, batch[0].lengths
    where = transfer.places(lengths, story_blocks.apart(job.settings, float(job.facts["tr"])))
    scaling = encoding_columns.Scaling(settings.silence, settings.unscaled_bands)
    nuisance, columns = story_blocks.bands_of(job, job.facts["bands"], scaling, lengths, where)
    bands = nuisance if columns[0][1] is None else [*nuisance, columns[0][1]]
    plan = _plan(job, settings, where, len(bands))
    plan = replace(plan, screening=devices.screening(resources.device))
    null = significance.Null(
        settings.null, settings.block_length, settings.n_permutations, (settings.seed, 1)
    )
    shown = f"{job.unit.story} {desc(job.unit, str(job.facts['scheme']))}"
    fitting = tables.Fitting(
        plan,
        null,
        settings.fdr,
        by_voxel=job.unit.is_everywhere,
        shared_training=False,
        tell=lambda label: resources.progress(f"{shown} {label}: {len(batch)} runs"),
    )
    fitted = tables.fit_columns(columns, nuisance, batch, fitting, resources)
    labels = [label for label, _ in columns]
    outcomes = []
    for k, person in enumerate(batch):
        try:
            found = [column[k] for column in fitted]
            if encoding_columns.is_each(job):
                found = tables.corrected_together(found, settings.fdr)
            _write(person, labels, found, _Fit(plan, bands, where))
            outcomes.append(Outcome(person.job))
        except BrainLMError as error:
            outcomes.append(Outcome(person.job, error))
    return outcomes


def _plan(job: Job, settings: Params, where: Sequence[slice], n_bands: int) -> crossval.Plan:
    """Fix the one outer fold."""
    gap = encoding_runs.gap_in_trs(settings.gap, float(job.facts["tr"]))
    given = {
        "inner_cv": settings.inner_cv,
        "gap": gap,
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
    return transfer.make_plan(
        where, story_blocks.names(job), n_bands, given, story_blocks.texts(job)
    )


@dataclass(frozen=True)
class _Fit:
    """What was fitted: folds, bands, and rows of each block."""

    plan: crossval.Plan
    bands: Sequence[design.Band]
    where: Sequence[slice]


def _write(
    person: encoding_runs.Person,
    labels: Sequence[str],
    found: Sequence[Mapping[str, object]],
    fit: _Fit,
) -> None:
    """Write all maps of one run."""
    job = person.job
    base = None
    if job.unit.feature != "nuisance":
        nuisance = next(one for one in job.upstream if one.step == NAME)
        base = read_map(nuisance.outputs["r2.tsv"])[3]
    stats = tables.statistics(job.unit, [band.name for band in fit.bands])
    values = tables.spread(person, stats, labels, found, base)
    meta = _meta(job, labels, found, fit)
    run_maps.write_run_maps(job, values, meta, _description, "r")


def _description(stat: str) -> str:
    """Say what a statistic is: there is one fold, the tested run."""
    text = encoding_sidecar.description(stat)
    return text.replace(", mean over folds", "").replace(", pooled over folds", "")


def _meta(
    job: Job, labels: Sequence[str], found: Sequence[Mapping[str, object]], fit: _Fit
) -> dict[str, object]:
    """Describe the fit: what was trained on and what was tested."""
    scheme = str(job.facts["scheme"])
    source: Mapping[str, object] = {}
    if job.unit.feature != "nuisance":
        source = write.read_json(encoding_columns.source_of(job, str(job.unit.feature)).record)
    leaks = story_blocks.leakage(job, fit.plan, source, fit.where)
    views = story_blocks.views(job)
    meta = encoding_sidecar.describe(views[0], labels, found, fit.plan, fit.bands, leaks)
    known = [write.read_json(made_by(view, "parcels").record) for view in views]
    fold = fit.plan.outer[0]
    inner = [fold.train[one.test] for one in fit.plan.inner[0]]
    del meta["Folds"]
    return {
        **meta,
        "EmptyParcels": sorted({i for one in known for i in one["EmptyParcels"]}),
        "CrossValidation": f"leave one {'story' if scheme == 'stories' else 'run'} out",
        "Split": {
            "Test": story_blocks.rows_of(job, fold.test, fit.where),
            "Train": story_blocks.rows_of(job, fold.train, fit.where),
            "Inner": [story_blocks.rows_of(job, rows, fit.where) for rows in inner],
        },
    }
