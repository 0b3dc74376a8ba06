"""Group maps of one feature space: means, intervals, tests, ceiling-normalised scores."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import neighbours, write
from bids_brainlm.bidsio.maps import read_map, write_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.numerics import multiple, resampling, tfce
from bids_brainlm.steps import encoding_tables, group_files, regions
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each_job, finish, made_by, stamp

NAME = "group"
VERSION = 5
CORRELATIONS = ("r", "rjoint")
CORRECTIONS = {"bh": "Benjamini-Hochberg", "by": "Benjamini-Yekutieli"}
# one model for each feature, within or across stories
EACH = tuple(f"Each{ending}" for ending in ("", *encoding_tables.ACROSS.values()))
DESCRIPTIONS = {
    "mean": "mean over participants of r of the main band (Fisher mean)",
    "cilow": "lower bound of the 95 % interval of the mean, bootstrap over participants",
    "cihigh": "upper bound of the 95 % interval of the mean, bootstrap over participants",
    "effect": "mean / standard deviation over participants of Fisher z (Cohen's d)",
    "p": "one-sided p of the mean",
    "pfwe": "p of the largest statistic over the family of tests (family-wise error)",
    "ptfce": "family-wise p with threshold-free cluster enhancement, over the voxels (or vertices) "
    "of a column",
    "q": "p adjusted for the false discovery rate over the family of tests",
    "meanthresholded": "mean where q is at most the false discovery rate, else n/a",
    "normalized": "mean r / mean intersubject correlation (both Fisher means); n/a where the "
    "ceiling lies below its floor or its interval includes zero",
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
    fdr_method: str
    tfce: bool
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
        s.fdr_method,
        s.tfce,
        config.ceiling.ceiling_floor,
        config.encoding.seed,
    )


def statistics(
    available: Collection[str], *, has_ceiling: bool = True, has_clusters: bool = False
) -> list[str]:
    """Return the statistics that are written, from those that all participants have.

    Partial correlations have no ceiling to be divided by, and only voxels form clusters.
    """
    found = ["mean", "cilow", "cihigh", "effect", "p", "pfwe", "q", "meanthresholded"]
    found += ["normalized"] if has_ceiling else []
    found += ["ptfce"] if has_clusters else []
    for stat in ("r2", "rjoint", "unique"):
        if stat in available:
            found += [stat] if stat == "r2" else [stat, f"{stat}p", f"{stat}q"]
    return found


def outputs(unit: Unit, names: Names, stats: Sequence[str]) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar of mean)."""
    found = {}
    for stat in stats:
        labels = {"desc": unit.feature, "stat": stat}
        for ext in unit.map_extensions():
            if (stat, ext) != ("mean", "json"):
                found[f"{stat}.{ext}"] = unit.place(names, "group_boldmap", ext, labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "group_boldmap", "json", {"desc": unit.feature, "stat": "mean"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Make the group maps of several feature spaces."""
    return each_job(jobs, lambda job: _maps(job, settings), resources, "group maps")


def _read(job: Job, stat: str) -> group_files.People:
    """Read one statistic of all participants."""
    return group_files.read_people(job, stat, correlations=stat in CORRELATIONS)


def _maps(job: Job, settings: Params) -> list[str]:
    """Write all group maps of one feature space and return warnings."""
    found = _read(job, "r")
    z = found.values
    tables: dict[str, np.ndarray] = {"mean": np.tanh(_mean(z))}
    low, high = _by_column(z, lambda v, rng: _interval(v, settings, rng), settings)
    tables["cilow"], tables["cihigh"] = np.tanh(low), np.tanh(high)
    tables["effect"] = _effect(z)
    together = _are_many(job, found.columns) is not None
    tables["p"], tables["pfwe"], tables["q"] = _tested(z, settings, together=together)
    if settings.tfce and "ptfce.tsv" in job.outputs:
        tables["ptfce"] = _clusters(job, found.names, z, settings)
    tables["meanthresholded"] = np.where(tables["q"] <= settings.fdr, tables["mean"], np.nan)
    if "normalized.tsv" in job.outputs:
        ceiling, usable = _ceiling(job, found.names, settings)
        ratio = tables["mean"] / np.where(usable, ceiling, 1)
        tables["normalized"] = np.where(usable, ratio, np.nan)
    if "r2.tsv" in job.outputs:
        tables["r2"] = _mean(_read(job, "r2").values)
    for stat in ("rjoint", "unique"):
        if f"{stat}.tsv" in job.outputs:
            values = _read(job, stat).values
            tables[stat] = np.tanh(_mean(values)) if stat in CORRELATIONS else _mean(values)
            tested = _tested(values, settings, together=together)
            tables[f"{stat}p"], _, tables[f"{stat}q"] = tested
    warnings = _too_few(job, settings, len(found.participants))
    _write(job, settings, found, tables, warnings)
    return warnings


def _are_many(job: Job, columns: Sequence[str]) -> str | None:
    """Name columns that are corrected together with the parcels: heads, or single features."""
    if all(re.fullmatch(r"L\d+H\d+", column) for column in columns):
        return "heads"
    return "features" if str(job.unit.feature).endswith(EACH) else None


def _family(job: Job, columns: Sequence[str]) -> str:
    """Name the tests that are corrected together."""
    what = "parcels" if "regions" not in job.facts else "regions"
    many = _are_many(job, columns)
    return f"all {many} and {what}" if many else f"{what} of one column"


def _too_few(job: Job, settings: Params, n_participants: int) -> list[str]:
    """Say when the test cannot give small p values with so few participants."""
    smallest = 0.5**n_participants
    if settings.group_test != "sign-flip" or smallest <= settings.fdr / 10:
        return []
    return [
        f"{job.unit.story}: {n_participants} participants give 2^{n_participants} sign flips, so "
        f"no p can be below {smallest:.3g}; after FDR correction at q = {settings.fdr:g} few or no "
        "parcels can be significant. Add participants, or read the participants' own maps."
    ]


def _ceiling(job: Job, names: Sequence[str], settings: Params) -> tuple[np.ndarray, np.ndarray]:
    """Return the ISC of the named parcels or regions and whether it can be divided by.

    Both have shape (n_parcels, 1). The lower bound of a region is the mean of its parcels'
    bounds, which is on the safe side. A floor of 0 divides by everything above 0, as the paper.
    """
    _, parcels, columns, values = read_map(made_by(job, "ceilings").outputs["isc.tsv"])
    wanted = values[:, [columns.index(c) for c in ("value", "ci_low")]]
    known, z = regions.average(job, parcels, group_files.fisher_z(wanted))
    place = {name: k for k, name in enumerate(known)}
    found = np.array([np.tanh(z[place[n]]) if n in place else [np.nan] * 2 for n in names])
    ceiling, low = found[:, :1], found[:, 1:]
    usable = ceiling >= max(settings.ceiling_floor, 1e-6)
    if settings.ceiling_floor > 0:
        usable &= ~(low <= 0)  # no interval (few participants): the floor alone decides
    return ceiling, usable


def _effect(z: np.ndarray) -> np.ndarray:
    """Return the mean over participants in standard deviations; NaN for fewer than two."""
    count = np.isfinite(z).sum(axis=0)
    centre = _mean(z)
    squares = np.where(np.isfinite(z), (z - centre) ** 2, 0.0).sum(axis=0)
    spread = np.sqrt(squares / np.maximum(count - 1, 1))
    return np.where((count > 1) & (spread > 0), centre / np.where(spread > 0, spread, 1), np.nan)


def _clusters(job: Job, names: Sequence[str], z: np.ndarray, settings: Params) -> np.ndarray:
    """Return family-wise p of every column of voxels with cluster enhancement."""
    maps = regions.map_set(job, names)
    if maps.grid is not None:
        return _clusters_of_vertices(job, maps.labels, z, settings)
    volume = maps.labels
    order = volume[volume > 0] - 1  # voxels of the volume in C order, as rows of the table
    tested = np.empty(z.shape[1:])
    for column in range(z.shape[2]):
        found = tfce.tfce_sign_flip_test(
            z[:, order, column],
            volume > 0,
            n_permutations=settings.n_permutations,
            rng=np.random.default_rng([settings.seed, 2]),
        )
        tested[order, column] = found.p_fwe
    return tested


def _clusters_of_vertices(
    job: Job, labels: np.ndarray, z: np.ndarray, settings: Params
) -> np.ndarray:
    """Return family-wise p of every column of vertices; neighbours share an edge."""
    edges = neighbours.mesh_edges(str(job.unit.space))
    rows = labels[edges] - 1
    rows = rows[(rows >= 0).all(axis=1)]
    tested = [
        tfce.tfce_sign_flip_test(
            z[:, :, column],
            edges=rows,
            n_permutations=settings.n_permutations,
            rng=np.random.default_rng([settings.seed, 2]),
            extent_power=1.0,
        ).p_fwe
        for column in range(z.shape[2])
    ]
    return np.column_stack(tested)


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


def _tested(values: np.ndarray, settings: Params, *, together: bool) -> tuple[np.ndarray, ...]:
    """Test means against 0: p, family-wise p and q over the parcels of a column, or over all."""
    adjust = (
        multiple.benjamini_yekutieli
        if settings.fdr_method == "by"
        else (multiple.benjamini_hochberg)
    )

    def test(column: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        if settings.group_test == "bootstrap":
            found = resampling.bootstrap_test(column, n_bootstraps=settings.n_bootstraps, rng=rng)
        else:
            found = resampling.sign_flip_test(
                column, n_permutations=settings.n_permutations, rng=rng
            )
        return found.p, found.p_fwe, adjust(found.p)

    if not together:
        return _by_column(values, test, settings)
    flat = test(values.reshape(len(values), -1), np.random.default_rng([settings.seed, 2]))
    return tuple(part.reshape(values.shape[1:]) for part in flat)


def _write(
    job: Job,
    settings: Params,
    found: group_files.People,
    tables: Mapping[str, np.ndarray],
    warnings: Sequence[str],
) -> None:
    """Write tables, images and sidecars."""
    participants, columns = found.participants, found.columns
    maps = regions.map_set(job, found.names)
    first = write.read_json(job.files["first"])
    significant = {c: int((tables["q"][:, k] <= settings.fdr).sum()) for k, c in enumerate(columns)}
    meta = {
        "Story": job.unit.story,
        "Space": job.unit.space,
        "Atlas": job.unit.atlas,
        **regions.describe(job),
        "FeatureSpace": first["FeatureSpace"],
        "Model": first["Model"],
        "Columns": list(columns),
        "Participants": list(participants),
        "NumberOfParticipants": len(participants),
        **{k: first[k] for k in ("Bands", "Delays", "RepetitionTime", "Gap", "Trim")},
        "Leakage": first.get("Leakage"),
        "Interval": "95 %, bootstrap over participants on Fisher z",
        "CeilingFloor": settings.ceiling_floor,
        "Inference": {
            "Test": f"{settings.group_test} over participants",
            "NumberOfPermutations": settings.n_permutations
            if settings.group_test == "sign-flip"
            else settings.n_bootstraps,
            "NumberOfBootstraps": settings.n_bootstraps,
            "Alternative": "greater",
            "Family": _family(job, columns),
            "Correction": CORRECTIONS[settings.fdr_method],
            "FDR": settings.fdr,
            "NumberOfSignificant": significant,
        },
        "Seed": settings.seed,
        "Warnings": list(warnings),
        "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
    }
    for stat, values in tables.items():
        more = None
        if stat == "mean" and len(columns) == 1:
            more = {"ci_low": tables["cilow"][:, 0], "ci_high": tables["cihigh"][:, 0]}
        paths = job.map_paths(stat)
        write_map(maps, paths, columns, values, more)
        if stat != "mean":
            described = {"Description": DESCRIPTIONS[stat], "Statistic": stat, **meta}
            write.write_json(job.outputs[f"{stat}.json"], {**described, **stamp(job)})
    finish(job, {"Description": DESCRIPTIONS["mean"], "Statistic": "mean", **meta})
