"""Group maps over all stories together, stratified by story.

A participant who heard several stories counts once in the null distribution, not once a story.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import rows_of, write_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import DataError
from bids_brainlm.numerics import multiple
from bids_brainlm.numerics.stratified import stratified_test
from bids_brainlm.steps import encoding_columns, group_files, regions
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each_job, finish, stamp

NAME = "pooled"
VERSION = 2
STORY = "pooled"
"""Takes the place of a story in names of files over all stories."""
DESCRIPTIONS = {
    "mean": "mean over stories and participants of r of the main band (Fisher mean)",
    "cilow": "lower bound of the 95 % interval, bootstrap of participants with all their stories",
    "cihigh": "upper bound of the 95 % interval",
    "effect": "mean over the standard deviation over participants within stories (Hedges' g)",
    "p": "one-sided p of the mean, sign flips of participants with all their stories",
    "pfwe": "p of the largest statistic over the family of tests (family-wise error)",
    "q": "p adjusted for the false discovery rate over the family of tests",
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
    """Return the files that the step writes, without the record (the sidecar of mean)."""
    found = {}
    for stat in DESCRIPTIONS:
        labels = {"desc": unit.feature, "stat": stat}
        for ext in unit.map_extensions():
            if (stat, ext) != ("mean", "json"):
                found[f"{stat}.{ext}"] = unit.place(names, "group_boldmap", ext, labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "group_boldmap", "json", {"desc": unit.feature, "stat": "mean"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Pool the stories of several feature spaces."""
    return each_job(jobs, lambda job: _pool(job, settings), resources, "group maps")


def _pool(job: Job, settings: Params) -> None:
    """Write the maps of one feature space over all stories."""
    stories = [str(story) for story in job.facts["stories"]]
    read = [group_files.read_people(job, story, correlations=True) for story in stories]
    people, names, values = _align(job, read)
    n_columns = values.shape[3]
    tables = {stat: np.empty((len(names), n_columns)) for stat in DESCRIPTIONS}
    together = _is_one_family(write.read_json(job.files["first"]))
    flat = values.reshape(*values.shape[:2], -1)
    pieces = [flat] if together else [values[:, :, :, c] for c in range(n_columns)]
    adjust = multiple.benjamini_hochberg
    if settings.fdr_method == "by":
        adjust = multiple.benjamini_yekutieli
    for number, piece in enumerate(pieces):
        found = stratified_test(
            piece,
            n_permutations=settings.n_permutations,
            n_bootstraps=settings.n_bootstraps,
            rng=np.random.default_rng([settings.seed, 14]),
        )
        parts = (
            np.tanh(found.mean),
            np.tanh(found.low),
            np.tanh(found.high),
            found.d,
            found.p,
            found.p_fwe,
            adjust(found.p),
        )
        for stat, part in zip(DESCRIPTIONS, parts, strict=True):
            if together:
                tables[stat][:] = part.reshape(len(names), n_columns)
            else:
                tables[stat][:, number] = part
    _write(job, settings, (people, names, read[0].columns, stories), tables)


def _is_one_family(first: Mapping[str, object]) -> bool:
    """Tell whether columns are corrected together: heads, and models of one feature each."""
    space = str(first["FeatureSpace"])
    return space == "heads" or space.endswith(encoding_columns.EACH)


def _align(job: Job, read: Sequence[group_files.People]) -> tuple[list[str], list[str], np.ndarray]:
    """Return participants, parcels, and z (n_people, n_stories, n_parcels, n_columns)."""
    columns = read[0].columns
    if any(one.columns != columns for one in read):
        raise DataError(
            f"{job.unit.feature}: the stories have maps with different columns, expected the same.",
            hint="Run the participant level with the same --layers for all stories (--overwrite).",
        )
    people = sorted({p for one in read for p in one.participants})
    names = [n for n in read[0].names if all(n in one.names for one in read)]
    values = np.full((len(people), len(read), len(names), len(columns)), np.nan)
    for k, one in enumerate(read):
        rows = [people.index(p) for p in one.participants]
        values[rows, k] = one.values[:, rows_of(one.names, names)]
    return people, names, values


def _write(
    job: Job,
    settings: Params,
    facts: tuple[list[str], list[str], list[str], list[str]],
    tables: dict[str, np.ndarray],
) -> None:
    """Write tables, images and sidecars."""
    people, names, columns, stories = facts
    maps = regions.map_set(job, names)
    first = write.read_json(job.files["first"])
    together = _is_one_family(first)
    what = "regions" if "regions" in job.facts else "parcels"
    meta = {
        "Story": STORY,
        "Stories": stories,
        "Space": job.unit.space,
        "Atlas": job.unit.atlas,
        **regions.describe(job),
        "FeatureSpace": first["FeatureSpace"],
        "Model": first["Model"],
        "Columns": columns,
        "Participants": people,
        "NumberOfParticipants": len(people),
        "Weights": "every story counts the same",
        "Interval": "95 %, bootstrap over participants with all their stories, on Fisher z",
        "Inference": {
            "Test": "sign-flip over participants, stratified by story",
            "NumberOfPermutations": settings.n_permutations,
            "NumberOfBootstraps": settings.n_bootstraps,
            "Alternative": "greater",
            "Family": f"all columns and {what}" if together else f"{what} of one column",
            "Correction": "Benjamini-Hochberg"
            if settings.fdr_method == "bh"
            else "Benjamini-Yekutieli",
            "FDR": settings.fdr,
        },
        "Seed": settings.seed,
        "Warnings": [],
        "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
    }
    for stat, values in tables.items():
        paths = job.map_paths(stat)
        write_map(maps, paths, columns, values)
        if stat != "mean":
            described = {"Description": DESCRIPTIONS[stat], "Statistic": stat, **meta}
            write.write_json(job.outputs[f"{stat}.json"], {**described, **stamp(job)})
    finish(job, {"Description": DESCRIPTIONS["mean"], "Statistic": "mean", **meta})
