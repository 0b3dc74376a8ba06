"""Attention measures of every head and TR, once per story and model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.language import attention, models
from bids_brainlm.language.contexts import passages
from bids_brainlm.language.passes import check_causal
from bids_brainlm.steps import stories
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, finish, made_by

NAME = "attention"
VERSION = 2
EMPTY = "n/a; filled in the encoding step (setting silence)"


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


def recording(unit: Unit, measure: str) -> str:
    """Return the recording of a measure, such as ``minilmAttentionLookback``."""
    return f"{unit.model}Attention{measure[0].upper()}{measure[1:]}"


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record: one recording a measure."""
    found: dict[str, Path] = {}
    for measure in attention.MEASURES:
        found.update(stories.stim_places(unit, names, recording(unit, measure), measure))
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "attention", "json")


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Measure the attention of one model in several stories."""

    def make(job: Job, model: models.LanguageModel) -> list[str]:
        return _story(job, settings, model, resources)

    return stories.with_model(jobs, resources, make, seed=settings.seed, attention="eager")


def _story(job: Job, settings: Params, model: models.LanguageModel, resources) -> list[str]:
    """Write the measures of one story."""
    words = made_by(job, "words")
    n_trs = int(words.facts["n_trs"])
    limit, kept = settings.context_tokens
    read = passages(
        model,
        stories.row_texts(words.outputs["words"], n_trs),
        context=settings.context,
        context_trs=settings.context_trs,
        limit_tokens=limit,
        reset_tokens=kept,
        borders=tuple(job.facts["borders"]),
    )
    if settings.context == "growing":
        check_causal(model, read)
    found = attention.extract_attention(
        model,
        read,
        n_trs,
        progress=lambda done, total: resources.progress(f"{job.unit}: {done}/{total} texts"),
    )
    for measure, values in found.measures.items():
        text, units = attention.MEASURES[measure]
        columns = stories.head_columns(*values.shape[1:], text, units)
        more = {"Description": text, "Measure": measure, "EmptyTRs": EMPTY}
        stories.write_stim(job, measure, values.reshape(n_trs, -1), columns, more)
    finish(
        job,
        {
            "Story": job.unit.story,
            "Model": stories.describe(model, job),
            "MatrixProducts": model.products,
            "ContextBorders": list(job.facts["borders"]),
            "Measures": {name: text for name, (text, _) in attention.MEASURES.items()},
            "EmptyTRs": EMPTY,
            "NumberOfTokens": int(found.n_tokens.sum()),
            "NumberOfEmptyTRs": int((found.n_tokens == 0).sum()),
            "NumberTruncated": sum(len(one.rows) for one in read if one.n_cut > 0),
            **stories.grid_of(words),
            "Warnings": [],
        },
    )
    return []
