"""Linguistic labels from the transformations of every head, once per story and model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.numerics import blas, decoding, decoding_plan, multiple
from bids_brainlm.steps import stories
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, finish, made_by
from bids_brainlm.steps.encoding_sidecar import gap_in_trs

NAME = "decoding"
VERSION = 1
SHIFT_SECONDS = 15.0  # permutations turn the labels by at least this


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    decoding_splits: str
    decoding_cv: int
    decoding_inner_cv: int
    decoding_gap: float
    decoding_c: tuple[float, ...]
    decoding_scaling: str
    decoding_intercept: str
    decoding_permutations: int
    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    d = config.decoding
    return Params(
        d.decoding_splits,
        d.decoding_cv,
        d.decoding_inner_cv,
        d.decoding_gap,
        d.decoding_c,
        d.decoding_scaling,
        d.decoding_intercept,
        d.decoding_permutations,
        config.encoding.seed,
    )


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    return {"table": unit.place(names, "decoding", "tsv")}


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "decoding", "json")


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Decode the labels of several stories."""

    def make(job: Job) -> list[str]:
        resources.progress(f"{job.unit}: decoding")
        with blas.single_threaded():
            return _story(job, settings)

    return stories.each_story(jobs, make)


def _story(job: Job, settings: Params) -> list[str]:
    """Write the accuracies of one story."""
    heads, labels, names = _read(job)
    rows = np.flatnonzero(np.isfinite(heads[0, :, 0]))  # silent TRs are left out
    tr = float(made_by(job, "words").facts["tr"])
    plan = decoding_plan.make_plan(
        rows,
        settings.decoding_cv,
        settings.decoding_inner_cv,
        gap_in_trs(settings.decoding_gap, tr),
        shuffled=settings.decoding_splits == "shuffled",
        seed=settings.seed,
    )
    found = decoding.decode(
        heads[:, rows],
        labels[rows],
        plan,
        C=settings.decoding_c,
        standardise=settings.decoding_scaling == "train",
        penalise_intercept=settings.decoding_intercept == "penalised",
        n_permutations=settings.decoding_permutations,
        min_shift=gap_in_trs(SHIFT_SECONDS, tr),
        rng=np.random.default_rng([settings.seed, 4]),
    )
    n_layers = _n_layers(job)
    q = multiple.benjamini_hochberg(found.p.ravel()).reshape(found.p.shape)
    _write_table(job.outputs["table"], found, q, names, n_layers)
    finish(job, {**_meta(job, found, q, names, len(rows), settings), "Warnings": []})
    return []


def _read(job: Job) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return heads (n_heads, n_trs, head_dim), labels (n_trs, n_labels) and their names."""
    import xarray

    with xarray.open_dataset(
        made_by(job, "features").outputs["features"], engine="h5netcdf"
    ) as stored:
        values = stored["transformations"].to_numpy().astype(np.float64)
    n_trs, n_layers, n_heads, head_dim = values.shape
    heads = values.reshape(n_trs, n_layers * n_heads, head_dim).transpose(1, 0, 2)
    outputs_of = made_by(job, "linguistic").outputs
    presence = write.read_stim_tsv_gz(outputs_of["linguisticPresence"]) > 0
    names = write.read_json(outputs_of["linguisticPresence_json"])["Columns"]
    return np.ascontiguousarray(heads), presence, [str(name) for name in names]


def _n_layers(job: Job) -> int:
    """Return the number of layers of the model."""
    return int(write.read_json(made_by(job, "features").record)["Model"]["NumberOfLayers"])


def _write_table(
    path: Path, found: decoding.Decoding, q: np.ndarray, names: Sequence[str], n_layers: int
) -> None:
    """Write one row a head and label."""
    n_heads, n_labels = found.accuracy.shape
    each = n_heads // n_layers
    pairs = [(head, label) for head in range(n_heads) for label in range(n_labels)]
    write.write_tsv(
        path,
        {
            "layer": [head // each + 1 for head, _ in pairs],
            "head": [head % each + 1 for head, _ in pairs],
            "label": [names[label] for _, label in pairs],
            "accuracy": [float(found.accuracy[pair]) for pair in pairs],
            "p": [float(found.p[pair]) for pair in pairs],
            "p_fwe": [float(found.p_fwe[pair]) for pair in pairs],
            "q": [float(q[pair]) for pair in pairs],
        },
    )


def _meta(
    job: Job,
    found: decoding.Decoding,
    q: np.ndarray,
    names: Sequence[str],
    n_rows: int,
    settings: Params,
) -> dict[str, object]:
    """Describe models, folds, classes and tests."""
    made = made_by(job, "features")
    balance = [
        {
            "Label": name,
            "NumberOfPositiveTRs": int(n),
            "NumberOfScoredTRs": int(scored),
            "NotDecoded": reason or None,
        }
        for name, n, scored, reason in zip(
            names, found.n_positive, found.n_scored, found.reasons, strict=True
        )
    ]
    return {
        "Story": job.unit.story,
        "Model": write.read_json(made.record)["Model"],
        "Pipeline": write.read_json(made_by(job, "linguistic").record)["Pipeline"],
        "Score": "balanced accuracy on held-out TRs, mean over outer folds; chance is 0.5",
        "Decoder": "logistic regression (L2), classes weighted by their inverse frequency",
        "NumberOfRows": n_rows,
        "EmptyTRs": "left out",
        "Classes": balance,
        "Splits": settings.decoding_splits,
        "Inference": {
            "Test": "circular shift of the labels within halves of the story, refitted by one "
            "Newton step",
            "NumberOfPermutations": found.n_permutations,
            "Alternative": "greater",
            "Family": "all heads and labels (q); p_fwe: largest statistic over the heads",
            "Correction": "Benjamini-Hochberg",
            "NumberOfSignificant": int(np.nansum(q <= 0.05)),
        },
        "NumberNotConverged": int(found.n_not_converged),
        **stories.grid_of(made_by(job, "words")),
    }
