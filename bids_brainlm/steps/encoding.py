"""Banded-ridge encoding of parcel series, with significance, once per run and feature space.

All runs of a story that are asked for in one call share folds, band weights and matrix
factorisations. One column of a map is one layer (or the single column of a space).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import MapSet, read_map, write_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError
from bids_brainlm.numerics import blas, crossval, design, multiple
from bids_brainlm.steps import encoding_columns, encoding_runs, run_checks, significance
from bids_brainlm.steps import predictions as kept
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each, finish, made_by, stamp
from bids_brainlm.steps.encoding_sidecar import describe, description

NAME = "encoding"
VERSION = 3
VOXELS = "voxels"
OWN, SEEN, BLOCK = "own", "seen", "block_length"


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


def desc(unit: Unit) -> str:
    """Return the ``desc`` label of a unit's maps, such as ``minilmEmbeddings``.

    Spaces of stories have none of a model before them: ``linguistic``, ``linguisticEach``,
    ``stimEnvelope``.
    """
    first, *rest = str(unit.feature).split("-")
    name = first + "".join(part[:1].upper() + part[1:] for part in rest)
    return name if unit.model is None else f"{unit.model}{name[0].upper()}{name[1:]}"


def statistics(unit: Unit, bands: Sequence[str]) -> list[str]:
    """Return the statistics that are written for a unit."""
    main = ["r", "rjoint", "r2", "p", "q", "rthresholded"]
    if unit.atlas != VOXELS:
        main.insert(4, "pfwe")
    if unit.feature != "nuisance":
        main.insert(3, "unique")
    return main + [band_stat(band) for band in bands if band != "model"]


def band_stat(band: str) -> str:
    """Return the statistic that holds a band's own r, such as ``rcounts``, ``rstimenvelope``."""
    return "r" + band.replace("-", "").lower()


def outputs(
    unit: Unit, names: Names, bands: Sequence[str], *, predictions: bool = False
) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar of r).

    Held-out predictions are written where they are wanted; no score depends on that.
    """
    found = {}
    for stat in statistics(unit, bands):
        labels = {"desc": desc(unit), "stat": stat}
        for ext in ("tsv", "nii.gz", "json"):
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
    plan = _plan(job, settings, n_trs, len(nuisance) + (columns[0][1] is not None))
    targets = [person.targets for person in batch]
    main = None if columns[0][1] is None else "model"
    pieces = encoding_runs.pieces(
        [y.shape[1] for y in targets],
        n_trs,
        len(nuisance) + (main is not None),
        n_workers=min(resources.nprocs, len(columns)),
        mem_gb=resources.mem_gb,
    )

    by_voxel = job.unit.atlas == VOXELS
    null = significance.Null(
        settings.null, settings.block_length, settings.n_permutations, (settings.seed, 1)
    )

    def fit(column: tuple[str, design.Band | None]) -> list[dict[str, object]]:
        label, band = column
        bands = nuisance if band is None else [*nuisance, band]
        parts: list[list[dict[str, object]]] = [[] for _ in batch]
        for piece in pieces:
            cut = [targets[k][:, some] for k, some in piece]
            results = crossval.crossvalidate(bands, cut, plan, main=main)
            for (k, _), result in zip(piece, results, strict=True):
                parts[k].append(_part(result, plan, null, by_voxel=by_voxel))
                if kept.is_wanted(batch[k]):
                    parts[k][-1][kept.STAT] = result.prediction.astype(np.float32)
        resources.progress(f"{job.unit.story} {desc(job.unit)} {label}: {len(batch)} runs")
        return [_table(several, plan, settings, null) for several in parts]

    with blas.single_threaded():
        fitted = each(fit, columns, resources.nprocs, writes=False)
    labels = [label for label, _ in columns]
    bands = nuisance if main is None else [*nuisance, columns[0][1]]
    outcomes = []
    for k, person in enumerate(batch):
        try:
            tables = [column[k] for column in fitted]
            if encoding_columns.is_each(job):
                tables = _corrected_together(tables, settings)
            _write_person(person, labels, tables, plan, bands)
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


def _part(
    result: crossval.Result, plan: crossval.Plan, null: significance.Null, *, by_voxel: bool
) -> dict[str, object]:
    """Return what is known of some targets of one column of one run; targets lie last.

    The parcels of a run are tested together, once all are there; voxels are tested here, since
    the predictions of all of them would not fit into memory.
    """
    part: dict[str, object] = {
        "r": result.r,
        "rjoint": result.rjoint,
        "r2": result.r2,
        **{band_stat(n): values for n, values in result.band_r.items() if n != "model"},
        "alpha_index": result.alpha_index,
        "gamma_index": result.gamma_index,
    }
    if not by_voxel:
        return {**part, OWN: result.prediction, SEEN: result.observed}
    tested = significance.test(
        result.prediction, result.observed, plan.segments, null.without_estimate()
    )
    return {**part, "p": tested.p, BLOCK: tested.block_length_used}


def _table(
    parts: Sequence[Mapping[str, object]],
    plan: crossval.Plan,
    settings: Params,
    null: significance.Null,
) -> dict[str, object]:
    """Put the pieces of one column of one run together and add what needs all targets."""
    table: dict[str, object] = {
        name: np.concatenate([part[name] for part in parts], axis=-1)
        for name in parts[0]
        if name != BLOCK
    }
    length = parts[0].get(BLOCK)
    if OWN in table:
        tested = significance.test(table.pop(OWN), table.pop(SEEN), plan.segments, null)
        table["p"], table["pfwe"], length = tested.p, tested.p_fwe, tested.block_length_used
    q = multiple.benjamini_hochberg(table["p"])
    alpha_index, gamma_index = table.pop("alpha_index"), table.pop("gamma_index")
    gammas = np.stack([g[i] for g, i in zip(plan.gammas, gamma_index, strict=True)])
    return {
        **table,
        "q": q,
        "rthresholded": np.where(q <= settings.fdr, table["r"], np.nan),
        "alphas": np.bincount(alpha_index.ravel(), minlength=len(plan.alphas)),
        "gammas": gammas.mean(axis=(0, 1)),
        "significant": int(np.nansum(q <= settings.fdr)),
        "block_length": length,
    }


def _corrected_together(
    tables: Sequence[dict[str, object]], settings: Params
) -> list[dict[str, object]]:
    """Adjust p over the columns and parcels of a run together."""
    p = np.stack([np.asarray(table["p"]) for table in tables])
    q = multiple.benjamini_hochberg(p.ravel()).reshape(p.shape)
    return [
        {
            **table,
            "q": own,
            "rthresholded": np.where(own <= settings.fdr, table["r"], np.nan),
            "significant": int(np.nansum(own <= settings.fdr)),
        }
        for table, own in zip(tables, q, strict=True)
    ]


def _write_person(
    person: encoding_runs.Person,
    labels: Sequence[str],
    tables: Sequence[Mapping[str, object]],
    plan: crossval.Plan,
    bands: Sequence[design.Band],
) -> None:
    """Write all maps of one run."""
    job = person.job
    parcels = made_by(job, "parcels")
    maps = MapSet.read(parcels.outputs["label_nii"], parcels.outputs["label_tsv"])
    meta = describe(job, labels, tables, plan, bands)
    if job.unit.feature == "nuisance":
        meta["Alignment"] = run_checks.run_lag(job, person.series)
        if meta["Alignment"].get("Unlikely"):
            verdict = f"{job.unit.story}: {meta['Alignment']['Verdict']}"
            meta["Warnings"] = [*meta["Warnings"], verdict]
    values: dict[str, np.ndarray] = {}
    for stat in statistics(job.unit, [band.name for band in bands]):
        if stat == "unique":
            continue
        values[stat] = person.spread(np.column_stack([table[stat] for table in tables]))
    if job.unit.feature != "nuisance":
        base = read_map(made_by(job, "encoding").outputs["r2.tsv"])[3]
        values["unique"] = values["r2"] - base
    for stat, table in values.items():
        paths = {ext: job.outputs[f"{stat}.{ext}"] for ext in ("tsv", "nii.gz")}
        write_map(maps, paths, labels, table)
        if stat != "r":
            described = {"Description": description(stat), "Statistic": stat, **meta}
            write.write_json(job.outputs[f"{stat}.json"], {**described, **stamp(job)})
    if kept.is_wanted(person):
        kept.save(person, labels, [table[kept.STAT] for table in tables], plan, meta)
    finish(job, {"Description": description("r"), "Statistic": "r", **meta})
