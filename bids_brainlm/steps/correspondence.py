"""Head by head: decoding accuracy against brain score, for every label and parcel of a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import MapSet, read_map, write_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError, DataError
from bids_brainlm.numerics import multiple
from bids_brainlm.numerics.correspondence import correspond
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, finish, made_by, stamp

NAME = "correspondence"
VERSION = 1
DESCRIPTIONS = {
    "rho": "Spearman correlation over heads of decoding accuracy and group brain score",
    "p": "two-tailed p of rho, permutation of heads, (k + 1) / (n + 1)",
    "q": "p adjusted for the false discovery rate over all labels and parcels",
    "rhowithin": "rho with layer partialled out (ranks less the mean rank of their layer)",
    "pwithin": "two-tailed p of rhowithin, permutation of heads within layers",
    "qwithin": "pwithin adjusted over all labels and parcels",
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
        for ext in ("tsv", "nii.gz", "json"):
            if (stat, ext) != ("rho", "json"):
                found[f"{stat}.{ext}"] = unit.place(names, "group_boldmap", ext, labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "group_boldmap", "json", {"desc": desc(unit), "stat": "rho"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Correlate decoding and encoding over heads, for several stories and models."""
    outcomes = []
    for job in jobs:
        try:
            _correspond(job, settings)
            outcomes.append(Outcome(job))
        except BrainLMError as error:
            outcomes.append(Outcome(job, error))
        resources.progress(f"{job.unit}: correspondence")
    return outcomes


def _correspond(job: Job, settings: Params) -> None:
    """Write the maps of one story and model."""
    _, names, columns, scores = read_map(made_by(job, "group").outputs["mean.tsv"])
    accuracy, labels = _accuracy(job.files["decoding"], columns)
    found = correspond(
        accuracy,
        scores.T,
        np.array([int(column[1:3]) for column in columns]),
        n_permutations=settings.n_permutations,
        rng=np.random.default_rng([settings.seed, 5]),
    )
    tables = {
        "rho": found.rho,
        "p": found.p,
        "q": _q(found.p),
        "rhowithin": found.rho_within,
        "pwithin": found.p_within,
        "qwithin": _q(found.p_within),
    }
    maps = MapSet.read(job.files["label_nii"], job.files["label_tsv"]).restrict(names)
    meta = _meta(job, settings, labels, len(columns), tables)
    for stat, values in tables.items():
        paths = {ext: job.outputs[f"{stat}.{ext}"] for ext in ("tsv", "nii.gz")}
        write_map(maps, paths, labels, values.T)
        if stat != "rho":
            described = {"Description": DESCRIPTIONS[stat], "Statistic": stat, **meta}
            write.write_json(job.outputs[f"{stat}.json"], {**described, **stamp(job)})
    finish(job, {"Description": DESCRIPTIONS["rho"], "Statistic": "rho", **meta})


def _q(p: np.ndarray) -> np.ndarray:
    """Adjust over labels and parcels together."""
    return multiple.benjamini_hochberg(p.ravel()).reshape(p.shape)


def _accuracy(path: Path, heads: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Read decoding accuracies, shape (n_heads, n_labels), in the order of the heads."""
    table = write.read_tsv(path)
    labels = list(dict.fromkeys(table["label"]))
    place = {head: k for k, head in enumerate(heads)}
    values = np.full((len(heads), len(labels)), np.nan)
    rows = zip(table["layer"], table["head"], table["label"], table["accuracy"], strict=True)
    for layer, head, label, accuracy in rows:
        name = f"L{int(layer):02d}H{int(head):02d}"
        if name not in place:
            raise DataError(
                f"{path.name} has the head {name}, which the maps do not have; expected the heads "
                "of one model.",
                hint="Make both anew with the same --model (--overwrite).",
            )
        if accuracy != "n/a":
            values[place[name], labels.index(label)] = float(accuracy)
    return values, labels


def _meta(
    job: Job, settings: Params, labels: Sequence[str], n_heads: int, tables: dict[str, np.ndarray]
) -> dict[str, object]:
    """Describe what was correlated."""
    first = write.read_json(made_by(job, "group").record)
    return {
        "Story": job.unit.story,
        "Space": job.unit.space,
        "Atlas": job.unit.atlas,
        "FeatureSpace": "correspondence",
        "Model": first["Model"],
        "Columns": list(labels),
        "NumberOfHeads": n_heads,
        "NumberOfParticipants": first["NumberOfParticipants"],
        "Inference": {
            "Test": "permutation of heads (within layers for rhowithin)",
            "NumberOfPermutations": settings.n_permutations,
            "Alternative": "two-sided",
            "Family": "all labels and parcels",
            "Correction": "Benjamini-Hochberg",
            "NumberOfSignificant": {
                stat: int(np.nansum(tables[stat] <= 0.05)) for stat in ("q", "qwithin")
            },
        },
        "Seed": settings.seed,
        "Warnings": [],
        "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
    }
