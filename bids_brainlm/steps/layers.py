"""Layer preference and specificity of a group, embeddings against transformations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import read_map, rows_of, write_map
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.numerics import layers, specificity
from bids_brainlm.steps import group_files, regions
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each_job, finish, stamp

NAME = "layers"
VERSION = 2
UNIT_OF_SCORE = 0.01  # r; the softmax has temperature 1 in hundredths
DESCRIPTIONS = {
    "preferredlayer": "layer with the highest mean r (layer 0 left out)",
    "layerentropy": "entropy of the softmax over layers of 100 times the mean r, bits",
    "specificity": "L2 norm of the differences (Fisher z) between neighbouring layers that "
    "participants share, without the bias of noise; negative where they share less than by chance",
}


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    n_permutations: int
    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    return Params(config.stats.n_permutations, config.encoding.seed)


def outputs(unit: Unit, names: Names, descs: Sequence[str]) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    found = {}
    for desc in descs:
        for stat in DESCRIPTIONS:
            for ext in unit.map_extensions():
                labels = {"desc": desc, "stat": stat}
                found[f"{desc}.{stat}.{ext}"] = unit.place(names, "group_boldmap", ext, labels)
    if len(descs) == 1:
        found.pop(f"{descs[0]}.preferredlayer.json")  # the record
    return found


def record(unit: Unit, names: Names, descs: Sequence[str]) -> Path:
    """Return the sidecar that is written last.

    Two spaces have one of their own, so that a space that is fitted later is no other setting.
    """
    if len(descs) == 1:
        labels = {"desc": descs[0], "stat": "preferredlayer"}
    else:
        labels = {"desc": f"{unit.model}Layers", "stat": "comparison"}
    return unit.place(names, "group_boldmap", "json", labels)


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Describe the layers of several stories and models."""
    return each_job(jobs, lambda job: _describe(job, settings), resources, "layer preference")


def _describe(job: Job, settings: Params) -> None:
    """Write profiles of every space and the comparison of two."""
    compared = _compare(job, settings)
    described = {}
    for made in (one for one in job.upstream if one.step == "group"):
        desc = str(made.unit.feature)
        _, names, columns, means = read_map(made.outputs["mean.tsv"])
        kept = [k for k, column in enumerate(columns) if column != "layer00"]
        found = layers.profile(means[:, kept] / UNIT_OF_SCORE)
        numbers = np.array([int(columns[k].removeprefix("layer")) for k in kept])
        known = np.isfinite(found.preferred)
        preferred = np.full(len(names), np.nan)
        preferred[known] = numbers[found.preferred[known].astype(int)]
        people = group_files.read_people(job, desc, correlations=True)
        kept = [k for k, column in enumerate(people.columns) if column != "layer00"]
        tables = {
            "preferredlayer": preferred,
            "layerentropy": found.entropy,
            "specificity": specificity.shared_specificity(people.values[:, :, kept]),
        }
        described[desc] = _write(job, made, desc, names, tables, compared)
    last = dict(next(iter(described.values())))
    if compared is not None:
        last.update(Description="two feature spaces compared", Statistic="comparison")
    finish(job, last)


def _write(job, made: Job, desc: str, names, tables, compared) -> dict[str, object]:
    """Write the maps of one space and return the sidecar of its preferred layers."""
    maps = regions.map_set(job, names)
    record_of = write.read_json(made.record)
    shared = {
        "Story": job.unit.story,
        "Space": job.unit.space,
        "Atlas": job.unit.atlas,
        **regions.describe(job),
        "Model": record_of["Model"],
        "FeatureSpace": record_of["FeatureSpace"],
        "Participants": record_of["Participants"],
        "Comparison": compared,
        "Warnings": [],
        "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
    }
    for stat, values in tables.items():
        paths = job.map_paths(f"{desc}.{stat}")
        write_map(maps, paths, ["value"], values[:, None])
        sidecar = job.outputs.get(f"{desc}.{stat}.json")
        meta = {"Description": DESCRIPTIONS[stat], "Statistic": stat, **shared}
        if sidecar is not None:
            write.write_json(sidecar, {**meta, **stamp(job)})
    return {
        "Description": DESCRIPTIONS["preferredlayer"],
        "Statistic": "preferredlayer",
        **shared,
    }


def _compare(job: Job, settings: Params) -> dict[str, object] | None:
    """Test preference and specificity of two spaces by swapping them within participants."""
    spaces = [str(one.unit.feature) for one in job.upstream if one.step == "group"]
    if len(spaces) != 2:
        return None
    people, (first, second) = _participants(job, spaces)
    found: dict[str, object] = {"First": spaces[0], "Second": spaces[1], "Participants": people}
    draws = {"n_permutations": settings.n_permutations}
    results = {
        "preferred": layers.compare_spaces(
            first,
            second,
            lambda scores: layers.profile(scores).preferred,
            rng=np.random.default_rng([settings.seed, 6]),
            **draws,
        ),
        "specificity": specificity.compare_specificity(
            first, second, rng=np.random.default_rng([settings.seed, 6]), **draws
        ),
    }
    for measure, result in results.items():
        known = np.isfinite(result.difference)
        found[measure] = {
            "Difference": result.difference if known else None,
            "P": result.p if known else None,
            "NumberOfParticipants": result.n_participants,
        }
    found["Test"] = (
        "spaces swapped within participants, two-sided, (k + 1) / (n + 1); specificity: the "
        "larger p of that and of flipping participants' profiles"
    )
    found["NumberOfPermutations"] = settings.n_permutations
    return found


def _participants(job: Job, spaces: Sequence[str]) -> tuple[list[str], list[np.ndarray]]:
    """Return participants with both spaces, and z (n_people, n_parcels, n_layers) of each."""
    found = [group_files.read_people(job, space, correlations=True) for space in spaces]
    people = sorted(set(found[0].participants) & set(found[1].participants))
    shared = [name for name in found[0].names if name in set(found[1].names)]
    stacked = []
    for one in found:
        kept = [k for k, column in enumerate(one.columns) if column != "layer00"]
        stacked.append(one.of(people)[:, rows_of(one.names, shared)][:, :, kept])
    return people, stacked
