"""How embeddings and transformations relate: RDMs, TR-wise correlation, autocorrelation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.numerics import blas, representations
from bids_brainlm.steps import stories
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, finish, made_by

NAME = "representations"
VERSION = 1
N_LAGS = 30
MIN_ROWS = 10
PARTS = {
    "rdm": "Spearman r of RDMs; row: layer of embeddings, column: layer of transformations",
    "rdm-embeddings": "1 - Spearman r of the RDMs of two layers of embeddings",
    "rdm-transformations": "1 - Spearman r of the RDMs of two layers of transformations",
    "autocorrelation-embeddings": "autocorrelation, mean over units; row: layer, column: lag, TR",
    "autocorrelation-transformations": "the same of transformations",
    "within-tr": "Pearson r of embeddings and transformations over units and layers; row: TR",
}


@dataclass(frozen=True)
class Params:
    """No settings are read."""


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    return Params()


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    return {"table": unit.place(names, "representations", "tsv")}


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "representations", "json")


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Compare the representations of several stories."""

    def make(job: Job) -> list[str]:
        resources.progress(f"{job.unit}: representations")
        with blas.single_threaded():
            return _story(job)

    return stories.each_story(jobs, make)


def _story(job: Job) -> list[str]:
    """Compare the representations of one story."""
    embeddings, heads = _read(made_by(job, "features"))
    valid = np.isfinite(embeddings[:, 0, 0])
    n_rows = int(valid.sum())
    if n_rows < MIN_ROWS:
        return _too_few(job, n_rows)
    # Transformations of a block are made from the embeddings before it and go into those after.
    found = representations.compare_layers(embeddings[valid, 1:], heads[valid])
    parts = {"rdm": (1, 1, found.layer_by_layer)}
    for name, values in (("embeddings", embeddings[:, 1:]), ("transformations", heads)):
        n_lags = min(N_LAGS, n_rows // 2)
        curves = representations.autocorrelation(values, valid, n_lags)
        parts[f"autocorrelation-{name}"] = (1, 0, curves.values)
    parts["rdm-embeddings"] = (1, 1, found.embedding_layers)
    parts["rdm-transformations"] = (1, 1, found.transformation_layers)
    own = np.full((len(valid), 1), np.nan)
    own[valid, 0] = found.row_r
    parts["within-tr"] = (0, 0, own)
    _write_table(job.outputs["table"], parts)
    finish(
        job,
        {
            "Story": job.unit.story,
            "Model": write.read_json(made_by(job, "features").record)["Model"],
            "NumberOfRows": n_rows,
            "EmptyTRs": "left out",
            "SpearmanLayersAsFeatures": found.stacked_features,
            "SpearmanLayersAsSamples": found.stacked_samples,
            "SpearmanLayersAsSamplesError": found.stacked_samples_error,
            "NumberOfPairsLayersAsSamples": int(found.n_pairs),
            "SpearmanSecondOrder": _or_none(found.second_order),
            "CorrelationByTR": {
                "Mean": _or_none(found.row_r_mean),
                "SD": _or_none(found.row_r_sd),
            },
            "Parts": PARTS,
            **stories.grid_of(made_by(made_by(job, "features"), "words")),
            "Warnings": [],
        },
    )
    return []


def _too_few(job: Job, n_rows: int) -> list[str]:
    """Write an empty comparison of a story that has too few TRs with words."""
    _write_table(job.outputs["table"], {})
    warnings = [
        f"{job.unit}: {n_rows} TRs with words are too few to compare representations (at least "
        f"{MIN_ROWS})."
    ]
    finish(job, {"Story": job.unit.story, "NumberOfRows": n_rows, "Warnings": warnings})
    return warnings


def _read(features: Job) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings (n_trs, n_layers + 1, n_units) and transformations, heads side by side."""
    import xarray

    with xarray.open_dataset(features.outputs["features"], engine="h5netcdf") as stored:
        embeddings = stored["embeddings"].to_numpy().astype(np.float64)
        heads = stored["transformations"].to_numpy().astype(np.float64)
    return embeddings, heads.reshape(*heads.shape[:2], -1)


def _or_none(value: float) -> float | None:
    """Return a number as JSON holds it: null where it is not defined."""
    return float(value) if np.isfinite(value) else None


def _write_table(path: Path, parts: Mapping[str, tuple[int, int, np.ndarray]]) -> None:
    """Write matrices as rows (part, row, column, value); numbers start as given."""
    columns: dict[str, list[object]] = {"part": [], "row": [], "column": [], "value": []}
    for part, (first_row, first_column, matrix) in parts.items():
        for (row, column), value in np.ndenumerate(matrix):
            columns["part"].append(part)
            columns["row"].append(row + first_row)
            columns["column"].append(column + first_column)
            columns["value"].append(float(value))
    write.write_tsv(path, columns)
