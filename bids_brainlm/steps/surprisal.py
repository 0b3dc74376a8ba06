"""Surprisal and entropy of words under a causal model, once per story and model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.language import models
from bids_brainlm.language.surprisal import extract_surprisal
from bids_brainlm.steps import stories
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, finish, made_by

NAME = "surprisal"
VERSION = 2
EMPTY = "n/a: no words; filled in the encoding step (setting silence)"
COLUMNS = {
    "surprisal": {"Description": "sum over the words of the TR", "Units": "bit"},
    "entropy": {
        "Description": "of the prediction of each word's first token, sum over the words",
        "Units": "bit",
    },
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


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    found = {"words": unit.place(names, "surprisal", "tsv")}
    found.update(stories.stim_places(unit, names, f"{unit.model}Surprisal", "surprisal"))
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "surprisal", "json")


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Compute surprisal of several stories with one model."""

    def make(job: Job, model: models.LanguageModel) -> list[str]:
        return _story(job, settings, model, resources)

    return stories.with_model(jobs, resources, make, seed=settings.seed, head=True)


def _story(job: Job, settings: Params, model: models.LanguageModel, resources) -> list[str]:
    """Write the quantities of one story."""
    words_job = made_by(job, "words")
    n_trs = int(words_job.facts["n_trs"])
    limit, kept = settings.context_tokens
    found = extract_surprisal(
        model,
        stories.row_words(words_job.outputs["words"], n_trs),
        context=settings.context,
        context_trs=settings.context_trs,
        limit_tokens=limit,
        reset_tokens=kept,
        borders=tuple(job.facts["borders"]),
        progress=lambda done, total: resources.progress(f"{job.unit}: {done}/{total} texts"),
    )
    words, rows = stories.read_words(words_job.outputs["words"])
    order = np.argsort(rows[rows >= 0], kind="stable")
    kept_words = [w for w, row in zip(words, rows, strict=True) if row >= 0]
    ordered = [kept_words[k] for k in order]
    write.write_tsv(
        job.outputs["words"],
        {
            "onset": [w.onset for w in ordered],
            "duration": [w.offset - w.onset for w in ordered],
            "word": [w.text for w in ordered],
            "row": np.sort(rows[rows >= 0]).tolist(),
            "surprisal": found.surprisal,
            "entropy": found.entropy,
            "n_tokens": found.n_tokens.tolist(),
        },
    )
    values = np.column_stack([found.row_surprisal, found.row_entropy])
    more = {"Description": "language-model surprisal and entropy", "EmptyTRs": EMPTY}
    stories.write_stim(job, "surprisal", values, COLUMNS, more)
    warnings = []
    if found.n_truncated:
        warnings.append(
            f"{job.unit}: the context of {found.n_truncated} TRs was longer than the model's "
            f"{model.max_tokens} tokens; the oldest words were cut."
        )
    finish(
        job,
        {
            "Story": job.unit.story,
            "Model": stories.describe(model, job),
            "MatrixProducts": model.products,
            "ContextBorders": list(job.facts["borders"]),
            "Columns": {
                "surprisal": {"Description": "-log2 p of the word's tokens", "Units": "bit"},
                "entropy": {"Description": COLUMNS["entropy"]["Description"], "Units": "bit"},
            },
            "EmptyTRs": EMPTY,
            "NumberOfWords": len(ordered),
            "NumberWithoutPrediction": int(found.n_unpredicted),
            "MeanSurprisal": _mean(found.surprisal),
            "NumberTruncated": int(found.n_truncated),
            **stories.grid_of(words_job),
            "Warnings": warnings,
        },
    )
    return warnings


def _mean(values: np.ndarray) -> float | None:
    """Mean of what is predicted; ``None`` of nothing."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else None
