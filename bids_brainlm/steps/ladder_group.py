"""Control ladders of a group: mean gain of every rung, intervals, and sign-flip tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import write_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.numerics import multiple, nested, resampling
from bids_brainlm.steps import group_files, regions
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each_job, finish, stamp

NAME = "ladder_group"
VERSION = 2
READ = ("gain", "unique", "product", "r2", "shared")
"""Statistics of participants that are read."""
TESTED = ("gain", "unique")
DESCRIPTIONS = {
    "gain": "mean over participants of what a rung adds to R2 of those before it",
    "gaincilow": "lower bound of the 95 % interval of gain, bootstrap over participants",
    "gaincihigh": "upper bound of the 95 % interval of gain",
    "gaineffect": "gain / standard deviation over participants (Cohen's d)",
    "gainp": "one-sided p of gain, sign flips over participants",
    "gainpfwe": "p of the largest statistic over all rungs and parcels (family-wise error)",
    "gainq": "gainp adjusted for the false discovery rate over all rungs and parcels",
    "betterp": "largest one-sided p of comparisons of this model with every smaller one of the "
    "ladder and with none (R2 = 0): a rung that only mends what an earlier one overfits fails",
    "betterq": "betterp adjusted for the false discovery rate over all rungs and parcels",
    "unique": "mean over participants of R2 of the whole model minus R2 without the rung",
    "uniquep": "one-sided p of unique, sign flips over participants",
    "uniqueq": "uniquep adjusted over all rungs and parcels",
    "product": "mean over participants of the product measure in the whole model",
    "r2": "mean over participants of R2 of the model with this rung and all before it",
    "shared": "mean over participants of R2 of the whole model minus the sum of unique",
}


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    n_permutations: int
    n_bootstraps: int
    fdr: float
    fdr_method: str
    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    s = config.stats
    return Params(s.n_permutations, s.n_bootstraps, s.fdr, s.fdr_method, config.encoding.seed)


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar of gain)."""
    found = {}
    for stat in DESCRIPTIONS:
        labels = {"desc": unit.feature, "stat": stat}
        for ext in unit.map_extensions():
            if (stat, ext) != ("gain", "json"):
                found[f"{stat}.{ext}"] = unit.place(names, "group_boldmap", ext, labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "group_boldmap", "json", {"desc": unit.feature, "stat": "gain"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Make the group maps of several ladders."""
    return each_job(jobs, lambda job: _maps(job, settings), resources, "group ladder")


def _maps(job: Job, settings: Params) -> None:
    """Write the group maps of one ladder."""
    read = {stat: group_files.read_people(job, stat, correlations=False) for stat in READ}
    tables = {stat: _mean(people.values) for stat, people in read.items()}
    tables["gaincilow"], tables["gaincihigh"] = _interval(read["gain"].values, settings)
    tables["gaineffect"] = _effect(read["gain"].values)
    for stat in TESTED:
        found = _tested(read[stat].values, settings)
        tables[f"{stat}p"], tables[f"{stat}q"] = found[0], found[2]
        if stat == "gain":
            tables["gainpfwe"] = found[1]
    tables["betterp"] = nested.better_test(
        np.moveaxis(read["r2"].values, 2, 1),
        n_permutations=settings.n_permutations,
        rng=np.random.default_rng([settings.seed, 23]),
    ).T
    tables["betterq"] = _adjusted(tables["betterp"], settings)
    _write(job, settings, read, tables)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over participants; NaN where nobody has a value."""
    count = np.isfinite(values).sum(axis=0)
    total = np.where(np.isfinite(values), values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _interval(values: np.ndarray, settings: Params) -> tuple[np.ndarray, np.ndarray]:
    """Return the bootstrap interval of the mean; the same people are drawn for all cells."""
    flat = values.reshape(len(values), -1)
    low, high = resampling.bootstrap_interval(
        flat,
        n_bootstraps=settings.n_bootstraps,
        rng=np.random.default_rng([settings.seed, 21]),
    )
    return low.reshape(values.shape[1:]), high.reshape(values.shape[1:])


def _effect(values: np.ndarray) -> np.ndarray:
    """Return the mean in standard deviations over participants; NaN for fewer than two."""
    count = np.isfinite(values).sum(axis=0)
    centre = _mean(values)
    squares = np.where(np.isfinite(values), (values - centre) ** 2, 0.0).sum(axis=0)
    spread = np.sqrt(squares / np.maximum(count - 1, 1))
    return np.where((count > 1) & (spread > 0), centre / np.where(spread > 0, spread, 1), np.nan)


def _tested(values: np.ndarray, settings: Params) -> tuple[np.ndarray, ...]:
    """Test means against 0 over all rungs and parcels together: p, family-wise p, q."""
    found = resampling.sign_flip_test(
        values.reshape(len(values), -1),
        n_permutations=settings.n_permutations,
        rng=np.random.default_rng([settings.seed, 22]),
    )
    p, largest = (part.reshape(values.shape[1:]) for part in (found.p, found.p_fwe))
    return p, largest, _adjusted(p, settings)


def _adjusted(p: np.ndarray, settings: Params) -> np.ndarray:
    """Control the false discovery rate over all rungs and parcels."""
    adjust = multiple.benjamini_hochberg
    if settings.fdr_method == "by":
        adjust = multiple.benjamini_yekutieli
    return adjust(p.ravel()).reshape(p.shape)


def _write(
    job: Job,
    settings: Params,
    read: Mapping[str, group_files.People],
    tables: Mapping[str, np.ndarray],
) -> None:
    """Write tables, images and sidecars."""
    people = read["gain"]
    maps = regions.map_set(job, people.names)
    first = write.read_json(job.files["first"])
    what = "regions" if "regions" in job.facts else "parcels"
    significant = (tables["gainq"] <= settings.fdr).sum(axis=0).tolist()
    kept = ("FeatureSpace", "Model", "Bands", "Rungs", "Missing", "Layer", "Delays", "Gap", "Trim")
    meta = {
        "Story": job.unit.story,
        "Space": job.unit.space,
        "Atlas": job.unit.atlas,
        **regions.describe(job),
        **{k: first.get(k) for k in (*kept, "RepetitionTime", "Leakage")},
        "Participants": list(people.participants),
        "NumberOfParticipants": len(people.participants),
        "Interval": "95 %, bootstrap over participants",
        "Inference": {
            "Test": "sign-flip over participants",
            "NumberOfPermutations": settings.n_permutations,
            "NumberOfBootstraps": settings.n_bootstraps,
            "Alternative": "greater",
            "Family": f"all rungs and {what}",
            "Correction": "Benjamini-Yekutieli"
            if settings.fdr_method == "by"
            else "Benjamini-Hochberg",
            "FDR": settings.fdr,
            "NumberOfSignificant": dict(zip(people.columns, significant, strict=True)),
            "Better": "p of the worst comparison with all smaller models and with none "
            "(intersection-union test)",
        },
        "Seed": settings.seed,
        "Warnings": [w for w in first.get("Warnings") or () if w.startswith(f"{job.unit.story}:")],
        "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
    }
    for stat in DESCRIPTIONS:
        columns = read[stat if stat in READ else "gain"].columns
        paths = job.map_paths(stat)
        write_map(maps, paths, columns, tables[stat])
        if stat != "gain":
            own = {"Description": DESCRIPTIONS[stat], "Statistic": stat, **meta}
            write.write_json(job.outputs[f"{stat}.json"], {**own, "Columns": columns, **stamp(job)})
    own = {"Description": DESCRIPTIONS["gain"], "Statistic": "gain", **meta}
    finish(job, {**own, "Columns": people.columns})
