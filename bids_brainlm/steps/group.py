"""Group maps of one feature space: means, intervals, tests, ceiling-normalised scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import MapSet, read_map, write_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError, DataError
from bids_brainlm.numerics import multiple, resampling
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, finish, made_by, stamp

NAME = "group"
VERSION = 1
CORRELATIONS = ("r", "rjoint")
DESCRIPTIONS = {
    "mean": "mean over participants of r of the main band (Fisher mean)",
    "cilow": "lower bound of the 95 % interval of the mean, bootstrap over participants",
    "cihigh": "upper bound of the 95 % interval of the mean, bootstrap over participants",
    "p": "one-sided p of the mean",
    "q": "p adjusted for the false discovery rate over the parcels of a column",
    "meanthresholded": "mean where q is at most the false discovery rate, else n/a",
    "normalized": "mean r / mean intersubject correlation (both Fisher means); n/a where the "
    "ceiling lies below its floor",
    "rjoint": "mean over participants of r of the whole prediction (Fisher mean)",
    "rjointp": "one-sided p of rjoint",
    "rjointq": "rjointp adjusted over the parcels of a column",
    "unique": "mean over participants of what the main band adds to R2",
    "uniquep": "one-sided p of unique",
    "uniqueq": "uniquep adjusted over the parcels of a column",
    "r2": "mean over participants of R2 of the whole prediction",
}


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    n_permutations: int
    n_bootstraps: int
    fdr: float
    group_test: str
    ceiling_floor: float
    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    s = config.stats
    return Params(
        s.n_permutations,
        s.n_bootstraps,
        s.fdr,
        s.group_test,
        config.ceiling.ceiling_floor,
        config.encoding.seed,
    )


def statistics(feature: str) -> list[str]:
    """Return the statistics that are written for a feature space."""
    base = ["mean", "cilow", "cihigh", "p", "q", "meanthresholded", "normalized", "r2"]
    if feature == "nuisance":
        return base
    return [*base, "rjoint", "rjointp", "rjointq", "unique", "uniquep", "uniqueq"]


def outputs(unit: Unit, names: Names, stats: Sequence[str]) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar of mean)."""
    found = {}
    for stat in stats:
        labels = {"desc": unit.feature, "stat": stat}
        for ext in ("tsv", "nii.gz", "json"):
            if (stat, ext) != ("mean", "json"):
                found[f"{stat}.{ext}"] = unit.place(names, "group_boldmap", ext, labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "group_boldmap", "json", {"desc": unit.feature, "stat": "mean"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Make the group maps of several feature spaces."""
    outcomes = []
    for job in jobs:
        try:
            _maps(job, settings)
            outcomes.append(Outcome(job))
        except BrainLMError as error:
            outcomes.append(Outcome(job, error))
        resources.progress(f"{job.unit.story} {job.unit.feature}: group maps")
    return outcomes


def _read(job: Job, stat: str) -> tuple[list[str], list[str], np.ndarray]:
    """Read one statistic of all participants.

    Returns
    -------
    participants : list of str
    columns : list of str
    values : array, shape (n_participants, n_parcels, n_columns)
        Fisher z for correlations; runs of one participant are averaged.
    """
    runs: dict[str, list[np.ndarray]] = defaultdict(list)
    seen: tuple[list[int], list[str]] | None = None
    for name, path in job.files.items():
        if not name.startswith(f"{stat}:"):
            continue
        participant = name.split(":")[1]
        index, _, columns, values = read_map(path)
        if seen is not None and seen != (index, columns):
            raise DataError(
                f"{path} has {len(index)} parcels and columns {columns[:2]}..., the others have "
                f"{len(seen[0])} and {seen[1][:2]}...; expected the same.",
                hint="Run the participant level with one --atlas and the same --layers for all.",
            )
        seen = (index, columns)
        runs[participant].append(
            np.arctanh(np.clip(values, -0.999999, 0.999999)) if stat in CORRELATIONS else values
        )
    if seen is None:
        raise DataError(f"{job.unit}: found no maps of {stat}.")
    participants = sorted(runs)
    return participants, seen[1], np.stack([np.mean(runs[p], axis=0) for p in participants])


def _maps(job: Job, settings: Params) -> None:
    """Write all group maps of one feature space."""
    participants, columns, z = _read(job, "r")
    tables: dict[str, np.ndarray] = {}
    mean = np.nanmean(z, axis=0) if np.isfinite(z).any() else z[0]
    tables["mean"] = np.tanh(mean)
    low, high = _by_column(z, lambda v, rng: _interval(v, settings, rng), settings)
    tables["cilow"], tables["cihigh"] = np.tanh(low), np.tanh(high)
    tables["p"], tables["q"] = _p_and_q(z, settings)
    tables["meanthresholded"] = np.where(tables["q"] <= settings.fdr, tables["mean"], np.nan)
    ceiling = read_map(made_by(job, "ceilings").outputs["isc.tsv"])[3][:, :1]
    usable = ceiling >= max(settings.ceiling_floor, 1e-6)
    tables["normalized"] = np.where(usable, tables["mean"] / np.where(usable, ceiling, 1), np.nan)
    tables["r2"] = _mean(_read(job, "r2")[2])
    if job.unit.feature != "nuisance":
        joint = _read(job, "rjoint")[2]
        tables["rjoint"] = np.tanh(_mean(joint))
        tables["rjointp"], tables["rjointq"] = _p_and_q(joint, settings)
        unique = _read(job, "unique")[2]
        tables["unique"] = _mean(unique)
        tables["uniquep"], tables["uniqueq"] = _p_and_q(unique, settings)
    _write(job, settings, participants, columns, tables)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over participants; NaN where nobody has a value."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _by_column(values, compute, settings: Params):
    """Apply a test to each column; the same draws serve all columns."""
    parts = [
        compute(values[:, :, c], np.random.default_rng([settings.seed, 2]))
        for c in range(values.shape[2])
    ]
    return tuple(np.stack(part, axis=1) for part in zip(*parts, strict=True))


def _interval(values: np.ndarray, settings: Params, rng: np.random.Generator):
    """Return the bootstrap interval of the mean over participants."""
    return resampling.bootstrap_interval(values, n_bootstraps=settings.n_bootstraps, rng=rng)


def _p_and_q(values: np.ndarray, settings: Params) -> tuple[np.ndarray, np.ndarray]:
    """Test each column's mean against 0; q over the parcels of a column."""

    def test(column: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if settings.group_test == "bootstrap":
            found = resampling.bootstrap_test(column, n_bootstraps=settings.n_bootstraps, rng=rng)
        else:
            found = resampling.sign_flip_test(
                column, n_permutations=settings.n_permutations, rng=rng
            )
        return found.p, multiple.benjamini_hochberg(found.p)

    return _by_column(values, test, settings)


def _write(
    job: Job,
    settings: Params,
    participants: Sequence[str],
    columns: Sequence[str],
    tables: Mapping[str, np.ndarray],
) -> None:
    """Write tables, images and sidecars."""
    maps = MapSet.read(job.files["label_nii"], job.files["label_tsv"])
    first = write.read_json(job.files["first"])
    significant = {c: int((tables["q"][:, k] <= settings.fdr).sum()) for k, c in enumerate(columns)}
    meta = {
        "Story": job.unit.story,
        "Space": job.unit.space,
        "Atlas": job.unit.atlas,
        "FeatureSpace": first["FeatureSpace"],
        "Model": first["Model"],
        "Columns": list(columns),
        "Participants": list(participants),
        "NumberOfParticipants": len(participants),
        **{k: first[k] for k in ("Bands", "Delays", "RepetitionTime", "Gap", "Trim")},
        "Interval": "95 %, bootstrap over participants on Fisher z",
        "CeilingFloor": settings.ceiling_floor,
        "Inference": {
            "Test": f"{settings.group_test} over participants",
            "NumberOfPermutations": settings.n_permutations
            if settings.group_test == "sign-flip"
            else settings.n_bootstraps,
            "NumberOfBootstraps": settings.n_bootstraps,
            "Alternative": "greater",
            "Family": "parcels of one column",
            "Correction": "Benjamini-Hochberg",
            "FDR": settings.fdr,
            "NumberOfSignificant": significant,
        },
        "Seed": settings.seed,
        "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
    }
    for stat, values in tables.items():
        more = None
        if stat == "mean" and len(columns) == 1:
            more = {"ci_low": tables["cilow"][:, 0], "ci_high": tables["cihigh"][:, 0]}
        paths = {ext: job.outputs[f"{stat}.{ext}"] for ext in ("tsv", "nii.gz")}
        write_map(maps, paths, columns, values, more)
        if stat != "mean":
            described = {"Description": DESCRIPTIONS[stat], "Statistic": stat, **meta}
            write.write_json(job.outputs[f"{stat}.json"], {**described, **stamp(job)})
    finish(job, {"Description": DESCRIPTIONS["mean"], "Statistic": "mean", **meta})
