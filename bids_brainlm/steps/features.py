"""Words on the TR grid to language-model features, once per story and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.language import measures, models
from bids_brainlm.steps import stories
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, finish, made_by, plain

NAME = "features"
VERSION = 3
EMPTY = "NaN; filled in the encoding step (setting silence)"
DESCRIPTIONS = {
    "embeddings": "hidden states, mean over the tokens of the TR; layer 0 = input embeddings",
    "transformations": "head outputs before the output projection, mean over the tokens of the TR",
    "n_tokens": "tokens of the TR; 0: no words, all features are NaN",
    "n_context_tokens": "tokens of the context, without special tokens",
}


@dataclass(frozen=True)
class Params:
    """Settings that this step reads."""

    context: str
    context_trs: int
    context_tokens: tuple[int, int]
    seed: int


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    f = config.features
    return Params(f.context, f.context_trs, f.context_tokens, config.encoding.seed)


def outputs(unit: Unit, names: Names, *, heads: bool) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    found = {"features": unit.place(names, "features", "nc")}
    if heads:
        found.update(stories.stim_places(unit, names, f"{unit.model}Magnitudes", "magnitudes"))
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "features", "json")


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Extract the features of several stories with one model."""

    def make(job: Job, model: models.LanguageModel) -> list[str]:
        return _story(job, settings, model, resources)

    return stories.with_model(jobs, resources, make, seed=settings.seed)


def _story(job: Job, settings: Params, model: models.LanguageModel, resources) -> list[str]:
    """Write the features of one story."""
    words = made_by(job, "words")
    texts = stories.row_texts(words.outputs["words"], int(words.facts["n_trs"]))
    limit, kept = settings.context_tokens
    found = measures.extract(
        model,
        texts,
        context=settings.context,
        context_trs=settings.context_trs,
        limit_tokens=limit,
        reset_tokens=kept,
        borders=tuple(job.facts["borders"]),
        progress=lambda done, total: resources.progress(f"{job.unit}: {done}/{total} TRs"),
    )
    grid = stories.grid_of(words)
    warnings = []
    if model.no_heads_reason is not None:
        warnings.append(f"{job.unit}: {model.no_heads_reason}; only embeddings are extracted.")
    if found.n_truncated:
        warnings.append(
            f"{job.unit}: {found.n_truncated} text windows were longer than the model's "
            f"{model.max_tokens} tokens; their oldest words were cut."
        )
    write.write_netcdf(job.outputs["features"], _dataset(found, grid))
    if "magnitudes" in job.outputs:
        _write_magnitudes(job, found)
    finish(
        job,
        {
            "Story": job.unit.story,
            "Model": stories.describe(model, job),
            "ContextBorders": list(job.facts["borders"]),
            "MatrixProducts": model.products,
            "Pooling": "mean over the tokens of a TR",
            "EmptyTRs": EMPTY,
            "NumberOfTokens": int(found.n_tokens.sum()),
            "NumberOfEmptyTRs": int((found.n_tokens == 0).sum()),
            "NumberTruncated": int(found.n_truncated),
            **grid,
            "Warnings": warnings,
        },
    )
    return warnings


def _dataset(found: measures.Features, grid: Mapping[str, object]):
    """Put the arrays into a labelled dataset."""
    import xarray

    n_trs, n_states, _ = found.embeddings.shape
    time = float(grid["StartTime"]) + np.arange(n_trs) * float(grid["RepetitionTime"])
    arrays = {
        "embeddings": (("tr", "layer", "unit"), found.embeddings),
        "n_tokens": (("tr",), found.n_tokens.astype("int32")),
        "n_context_tokens": (("tr",), found.n_context_tokens.astype("int32")),
    }
    coords = {
        "tr": np.arange(n_trs, dtype="int32"),
        "layer": np.arange(n_states, dtype="int32"),
        "time": (("tr",), time),
    }
    if found.transformations is not None:
        n_blocks = found.transformations.shape[1]
        arrays["transformations"] = (("tr", "block", "head", "dim"), found.transformations)
        coords["block"] = np.arange(1, n_blocks + 1, dtype="int32")
    made = xarray.Dataset(arrays, coords=coords)
    made.attrs.update(plain({**grid, "EmptyTRs": EMPTY}))
    for name, text in DESCRIPTIONS.items():
        if name in made:
            made[name].attrs["long_name"] = text
    made["time"].attrs.update(units="s", long_name="from the first volume of the run")
    return made


def _write_magnitudes(job: Job, found: measures.Features) -> None:
    """Write one column a head: the L2 norm of the TR's mean transformation."""
    n_trs, n_layers, n_heads = found.magnitudes.shape
    what = "L2 norm of the token-mean transformation"
    stories.write_stim(
        job,
        "magnitudes",
        found.magnitudes.reshape(n_trs, -1),
        stories.head_columns(n_layers, n_heads, what, "arbitrary"),
        {"Description": f"{what} of each attention head", "EmptyTRs": EMPTY.replace("NaN", "n/a")},
    )
