"""Partial correlation of brain activity with the predictions of one space, given another's.

Embeddings and transformations of a model predict much the same; the partial correlation tells
what each of them predicts beyond the other, layer by layer, once per run and direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError, DataError
from bids_brainlm.numerics import multiple, partial, resampling
from bids_brainlm.steps import encoding_runs, predictions, run_maps, significance
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, each

NAME = "partial"
VERSION = 2
ENDING = "Partial"
KEPT = (
    "Story", "Task", "Participant", "Session", "Run", "Space", "Atlas", "Model", "Bands", "Delays",
    "RepetitionTime", "StartTime", "Folds", "Gap", "Trim", "NumberOfRows", "Seed", "EmptyParcels",
)  # fmt: skip
DESCRIPTIONS = {
    "r": "partial correlation of the data with the held-out prediction of one feature space, "
    "given that of the other, mean over folds",
    "p": "one-sided p of r, block permutation of residuals, (k + 1) / (n + 1)",
    "q": "p adjusted for the false discovery rate over the parcels of a column",
}


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    n_permutations: int
    block_length: int
    fdr: float
    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    s = config.stats
    return Params(s.n_permutations, s.block_length, s.fdr, config.encoding.seed)


def desc(unit: Unit) -> str:
    """Return the ``desc`` label, such as ``minilmEmbeddingsPartial``."""
    space = str(unit.feature)
    return f"{unit.model}{space[0].upper()}{space[1:]}{ENDING}"


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record (the sidecar of r)."""
    found = {}
    for stat in DESCRIPTIONS:
        for ext in unit.map_extensions():
            if (stat, ext) != ("r", "json"):
                labels = {"desc": desc(unit), "stat": stat}
                found[f"{stat}.{ext}"] = unit.place(names, "boldmap", ext, labels)
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "boldmap", "json", {"desc": desc(unit), "stat": "r"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Correlate several runs of a story."""

    def one(job: Job) -> Outcome:
        try:
            _correlate(job, settings)
        except BrainLMError as error:
            return Outcome(job, error)
        resources.progress(f"{job.unit}: partial correlation")
        return Outcome(job)

    return each(one, jobs, resources.nprocs, writes=True)


def _correlate(job: Job, settings: Params) -> None:
    """Write the partial correlations of one run and direction."""
    own, other = _predictions(job)
    columns, rows, fold, _ = own
    shared = [c for c in columns if c in other[0]]
    if not shared or not np.array_equal(rows, other[1]) or not np.array_equal(fold, other[2]):
        raise DataError(
            f"{job.unit}: the two predictions have {len(shared)} layers and {len(rows)} and "
            f"{len(other[1])} rows in common folds, expected at least one layer and the same rows.",
            hint="Fit both feature spaces in one call, with the same --layers (--overwrite).",
        )
    person = encoding_runs.read_person(job)
    parts = [np.flatnonzero(fold == k) for k in np.unique(fold)]
    blocks = [rows[part] for part in parts]
    observed = [person.targets[block] for block in blocks]
    tables: dict[str, list[np.ndarray]] = {"r": [], "p": [], "q": []}
    for column in shared:
        both = [
            [side[3][side[0].index(column)][part][:, person.kept] for part in parts]
            for side in (own, other)
        ]
        tables["r"].append(partial.mean_partial_r(observed, *both))
        tables["p"].append(_p(observed, both, blocks, settings))
        tables["q"].append(multiple.benjamini_hochberg(tables["p"][-1]))
    _write(job, person, shared, {k: np.column_stack(v) for k, v in tables.items()}, settings)


def _predictions(job: Job):
    """Return what was predicted from this space and from the other one."""
    made = {
        str(one.unit.feature): one.outputs[f"{predictions.STAT}.nc"]
        for one in job.upstream
        if f"{predictions.STAT}.nc" in one.outputs
    }
    own = made.pop(str(job.unit.feature))
    return predictions.load(own), predictions.load(next(iter(made.values())))


def _p(observed, both, blocks: Sequence[np.ndarray], settings: Params) -> np.ndarray:
    """Permute blocks of what is left of the prediction when the other one is known."""
    left, data = partial.residuals(observed, *both)
    ends = np.cumsum([len(block) for block in blocks])
    length = min(settings.block_length or significance.FIXED_BLOCK, int(ends[-1]) // 6)
    return resampling.block_permutation_test(
        left,
        data,
        block_length=length,
        n_permutations=settings.n_permutations,
        rng=np.random.default_rng([settings.seed, 7]),
        segments=[slice(int(e) - len(b), int(e)) for b, e in zip(blocks, ends, strict=True)],
    ).p


def _write(
    job: Job,
    person: encoding_runs.Person,
    columns: Sequence[str],
    tables: dict[str, np.ndarray],
    settings: Params,
) -> None:
    """Write the maps of one run."""
    source = next(one for one in job.upstream if one.unit.feature == job.unit.feature)
    stored = write.read_json(source.record)
    meta = {
        **{name: stored.get(name) for name in KEPT},
        "FeatureSpace": f"{job.unit.feature} given {job.facts['other']}",
        "Controlled": job.facts["other"],
        "Columns": list(columns),
        "Inference": {
            "Test": "block permutation of residuals of held-out predictions",
            "NumberOfPermutations": settings.n_permutations,
            "BlockLength": settings.block_length or significance.FIXED_BLOCK,
            "Alternative": "greater",
            "Family": "parcels of one column",
            "Correction": "Benjamini-Hochberg",
            "FDR": settings.fdr,
            "NumberOfSignificant": {
                c: int(np.nansum(tables["q"][:, k] <= settings.fdr)) for k, c in enumerate(columns)
            },
        },
        "Warnings": list(stored.get("Warnings") or ()),
        "Sources": list(job.facts["sources"]),
    }
    values = {stat: (columns, person.spread(table)) for stat, table in tables.items()}
    run_maps.write_run_maps(job, values, meta, DESCRIPTIONS.__getitem__, "r")
