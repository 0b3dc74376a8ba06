"""Head by head: decoding accuracy against brain score, for every label and parcel of a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import read_map, write_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.numerics import multiple
from bids_brainlm.numerics.correspondence import correspond, correspond_people, widths_of_null
from bids_brainlm.steps import group_files, regions
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each_job, finish, made_by, stamp

NAME = "correspondence"
VERSION = 4
DESCRIPTIONS = {
    "rho": "Spearman correlation over heads of decoding accuracy and group brain score",
    "p": "two-tailed p of rho, permutation of heads, (k + 1) / (n + 1)",
    "q": "p adjusted for the false discovery rate over all labels and parcels",
    "rhowithin": "rho with layer partialled out (ranks less the mean rank of their layer)",
    "pwithin": "two-tailed p of rhowithin, permutation of heads within layers, with a null that is "
    "widened by how alike heads of a layer are in participants' own scores",
    "qwithin": "pwithin adjusted over all labels and parcels",
    "rhopeople": "rhowithin of every participant, Fisher mean",
    "ppeople": "two-tailed p of rhopeople, sign flips over participants, (k + 1) / (n + 1)",
    "pboth": "the larger of pwithin and ppeople: heads and participants both speak for a link",
    "qboth": "pboth adjusted over all labels and parcels",
    "besthead": "group brain score (r) of the head that decodes the label best",
}


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    n_permutations: int
    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    return Params(config.stats.n_permutations, config.encoding.seed)


def desc(unit: Unit) -> str:
    """Return the ``desc`` label, such as ``minilmCorrespondence``."""
    return f"{unit.model}Correspondence"


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar of rho)."""
    found = {}
    for stat in DESCRIPTIONS:
        labels = {"desc": desc(unit), "stat": stat}
        for ext in unit.map_extensions():
            if (stat, ext) != ("rho", "json"):
                found[f"{stat}.{ext}"] = unit.place(names, "group_boldmap", ext, labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "group_boldmap", "json", {"desc": desc(unit), "stat": "rho"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Correlate decoding and encoding over heads, for several stories and models."""
    return each_job(jobs, lambda job: _correspond(job, settings), resources, "correspondence")


def _correspond(job: Job, settings: Params) -> None:
    """Write the maps of one story and model."""
    _, names, columns, scores = read_map(made_by(job, "group").outputs["mean.tsv"])
    accuracy, labels = group_files.read_accuracy(job.files["decoding"], columns)
    layers = np.array([int(column[1:3]) for column in columns])
    of_each = group_files.read_people(job, "r", correlations=True).values.transpose(0, 2, 1)
    widths = widths_of_null(accuracy, of_each, layers)
    found = correspond(
        accuracy,
        scores.T,
        layers,
        n_permutations=settings.n_permutations,
        rng=np.random.default_rng([settings.seed, 5]),
        widths=widths,
    )
    of_people, p_people = correspond_people(
        accuracy,
        of_each,
        layers,
        n_permutations=settings.n_permutations,
        rng=np.random.default_rng([settings.seed, 15]),
    )
    both = np.maximum(found.p_within, p_people)
    best = _best_heads(accuracy)
    chosen = np.where(best >= 0, scores[:, best], np.nan).T
    tables = {
        "rho": found.rho,
        "p": found.p,
        "q": _q(found.p),
        "rhowithin": found.rho_within,
        "pwithin": found.p_within,
        "qwithin": _q(found.p_within),
        "rhopeople": of_people,
        "ppeople": p_people,
        "pboth": both,
        "qboth": _q(both),
        "besthead": chosen,
    }
    maps = regions.map_set(job, names)
    meta = _meta(job, settings, labels, len(columns), tables)
    meta["BestHeads"] = {
        label: columns[head] if head >= 0 else None
        for label, head in zip(labels, best, strict=True)
    }
    meta["WidthsOfNull"] = dict(zip(labels, widths.tolist(), strict=True))
    for stat, values in tables.items():
        paths = job.map_paths(stat)
        write_map(maps, paths, labels, values.T)
        if stat != "rho":
            described = {"Description": DESCRIPTIONS[stat], "Statistic": stat, **meta}
            write.write_json(job.outputs[f"{stat}.json"], {**described, **stamp(job)})
    finish(job, {"Description": DESCRIPTIONS["rho"], "Statistic": "rho", **meta})


def _best_heads(accuracy: np.ndarray) -> np.ndarray:
    """Return the head that decodes each label best, -1 where a label was not decoded."""
    known = np.isfinite(accuracy)
    best = np.where(known, accuracy, -1.0).argmax(axis=0)
    return np.where(known.any(axis=0), best, -1)


def _q(p: np.ndarray) -> np.ndarray:
    """Adjust over labels and parcels together."""
    return multiple.benjamini_hochberg(p.ravel()).reshape(p.shape)


def _meta(
    job: Job, settings: Params, labels: Sequence[str], n_heads: int, tables: dict[str, np.ndarray]
) -> dict[str, object]:
    """Describe what was correlated."""
    first = write.read_json(made_by(job, "group").record)
    return {
        "Story": job.unit.story,
        "Space": job.unit.space,
        "Atlas": job.unit.atlas,
        **regions.describe(job),
        "FeatureSpace": "correspondence",
        "Model": first["Model"],
        "Columns": list(labels),
        "NumberOfHeads": n_heads,
        "NumberOfParticipants": first["NumberOfParticipants"],
        "Inference": {
            "Test": "permutation of heads (within layers for rhowithin); sign flips over "
            "participants for rhopeople; both for pboth",
            "NumberOfPermutations": settings.n_permutations,
            "Alternative": "two-sided",
            "Family": f"all labels and {'regions' if 'regions' in job.facts else 'parcels'}",
            "Correction": "Benjamini-Hochberg",
            "NumberOfSignificant": {
                stat: int(np.nansum(tables[stat] <= 0.05)) for stat in ("q", "qwithin", "qboth")
            },
        },
        "Seed": settings.seed,
        "Warnings": [],
        "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
    }
