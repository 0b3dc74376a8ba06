"""Feature spaces of a group compared in pairs: paired tests over participants, with FDR.

A space with several layers enters with the layer that the other half of the participants
chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.maps import rows_of
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.numerics import comparison
from bids_brainlm.steps import group_files, regions
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each_job, finish

NAME = "comparison"
VERSION = 2
COLUMNS = {
    "region": "parcel, or region of interest",
    "first": "desc label of one feature space",
    "second": "desc label of the other",
    "n_participants": "participants with both",
    "difference": "mean over participants of Fisher z of first less that of second",
    "low": "lower bound of its 95 % interval, bootstrap over participants",
    "high": "upper bound of its 95 % interval",
    "effect": "mean difference / standard deviation of the differences (Cohen's d of pairs)",
    "p": "two-sided, sign flips over participants, (k + 1) / (n + 1)",
    "q": "p adjusted for the false discovery rate over all pairs and regions of the table",
    "p_fwe": "two-sided p of the largest statistic over all pairs and regions",
}


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    n_permutations: int
    n_bootstraps: int
    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    s = config.stats
    return Params(s.n_permutations, s.n_bootstraps, config.encoding.seed)


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    return {
        "table": unit.place(names, "comparison", "tsv"),
        "scores": unit.place(names, "scores", "tsv"),
    }


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "comparison", "json")


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Compare the feature spaces of several stories."""
    return each_job(jobs, lambda job: _compare(job, settings), resources, "spaces compared")


@dataclass(frozen=True)
class _Space:
    """Scores of one space.

    ``people`` as they were read. ``picked`` (n_everyone, n_regions) is Fisher z at the chosen
    columns, NaN for those without this space; ``column`` is their place, -1 where there is none.
    """

    people: group_files.People
    picked: np.ndarray
    column: np.ndarray


def _compare(job: Job, settings: Params) -> None:
    """Write the tables of one story and atlas."""
    descs = list(job.facts["descs"])
    read = {d: group_files.read_people(job, d, correlations=True) for d in descs}
    everyone = sorted({p for one in read.values() for p in one.participants})
    names = [n for n in read[descs[0]].names if all(n in one.names for one in read.values())]
    spaces = {d: _space(one, everyone, names) for d, one in read.items()}
    found = comparison.compare(
        {d: one.picked for d, one in spaces.items()},
        n_permutations=settings.n_permutations,
        n_bootstraps=settings.n_bootstraps,
        rng=np.random.default_rng([settings.seed, 8]),
    )
    cells = [(pair, k) for pair in range(len(found.pairs)) for k in range(len(names))]
    table: dict[str, list[object]] = {
        "region": [names[k] for _, k in cells],
        "first": [found.pairs[pair][0] for pair, _ in cells],
        "second": [found.pairs[pair][1] for pair, _ in cells],
        "n_participants": [int(found.n_participants[cell]) for cell in cells],
    }
    for name in list(COLUMNS)[4:]:
        table[name] = [float(getattr(found, name)[cell]) for cell in cells]
    write.write_tsv(job.outputs["table"], table)
    _write_scores(job, spaces, everyone, names)
    n_significant = {"q": int((found.q <= 0.05).sum()), "p_fwe": int((found.p_fwe <= 0.05).sum())}
    finish(job, _meta(job, settings, everyone, len(cells), n_significant))


def _space(people: group_files.People, everyone: Sequence[str], names: Sequence[str]) -> _Space:
    """Choose the columns of one space: each half of all participants by the other half."""
    kept = [k for k, column in enumerate(people.columns) if column != "layer00"]
    own = people.values[:, rows_of(people.names, names)][:, :, kept]
    whole = np.full((len(everyone), *own.shape[1:]), np.nan)
    whole[[list(everyone).index(p) for p in people.participants]] = own
    if len(kept) == 1:
        return _Space(people, whole[:, :, 0], np.full(whole.shape[:2], kept[0]))
    choice = comparison.choose_layers(whole)
    column = np.where(choice == comparison.NO_LAYER, -1, np.array(kept)[choice])
    return _Space(people, comparison.chosen(whole), column)


def _write_scores(
    job: Job, spaces: dict[str, _Space], everyone: Sequence[str], names: Sequence[str]
) -> None:
    """Write participants' scores: of regions at every layer, of parcels at the chosen one."""
    every = "regions" in job.facts
    rows: dict[str, list[object]] = {
        name: [] for name in ("participant", "desc", "region", "column", "chosen", "r")
    }
    for desc, one in spaces.items():
        people = one.people
        places = rows_of(people.names, names)
        for k, participant in enumerate(people.participants):
            mine = one.column[list(everyone).index(participant)]
            for name, place, chosen in zip(names, places, mine.tolist(), strict=True):
                for column in range(len(people.columns)) if every else [chosen]:
                    if column < 0:
                        continue
                    line = (
                        f"sub-{participant}",
                        desc,
                        name,
                        people.columns[column],
                        int(column == chosen),
                        float(np.tanh(people.values[k, place, column])),
                    )
                    for key, value in zip(rows, line, strict=True):
                        rows[key].append(value)
    write.write_tsv(job.outputs["scores"], rows)


def _meta(
    job: Job,
    settings: Params,
    everyone: Sequence[str],
    n_tests: int,
    n_significant: dict[str, int],
) -> dict[str, object]:
    """Describe what was compared."""
    return {
        "Description": "feature spaces compared in pairs over participants",
        "Story": job.unit.story,
        "Space": job.unit.space,
        "Atlas": job.unit.atlas,
        **regions.describe(job),
        "FeatureSpaces": list(job.facts["descs"]),
        "Participants": list(everyone),
        "NumberOfParticipants": len(everyone),
        "Columns": COLUMNS,
        "LayerChoice": "participants at even and odd places form two halves; each half takes, in "
        "each region, the layer (layer 0 left out) with the highest mean score in the other half",
        "Inference": {
            "Test": "sign flips of the differences over participants",
            "NumberOfPermutations": settings.n_permutations,
            "NumberOfBootstraps": settings.n_bootstraps,
            "Alternative": "two-sided",
            "Family": "all pairs of feature spaces and all regions of the table",
            "Correction": "Benjamini-Hochberg (q), largest statistic (p_fwe)",
            "NumberOfTests": n_tests,
            "NumberOfSignificant": n_significant,
        },
        "Seed": settings.seed,
        "Warnings": [],
        "Sources": [f"bids::{name}" for name in sorted(job.fingerprints)],
    }
