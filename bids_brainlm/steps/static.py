"""Words to static embeddings (GloVe, word2vec, fastText, spaCy), once per story and file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError
from bids_brainlm.language import vector_sources
from bids_brainlm.language.vectors import Vectors, static_features
from bids_brainlm.steps import stories
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, finish, made_by, plain

NAME = "static"
VERSION = 1
EMPTY = "NaN: no known word; filled in the encoding step (setting silence)"
MANY_UNKNOWN = 0.1  # share of words without a vector from which on the reader is told


@dataclass(frozen=True)
class Params:
    """No settings are read; the inputs name the vectors."""


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    return Params()


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    return {"static": unit.place(names, "story_features", "nc", {"desc": f"{unit.model}Static"})}


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "story_features", "json", {"desc": f"{unit.model}Static"})


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Look up the words of several stories in one file of vectors, which is read once."""
    texts = {job.unit.story: _words(job) for job in jobs}
    wanted = [word for rows in texts.values() for row in rows for word in row]
    try:
        source = vector_sources.resolve(str(jobs[0].files["vectors"]))
        table = vector_sources.load(source, wanted)
    except BrainLMError as error:
        return [Outcome(job, error) for job in jobs]
    return stories.each_story(jobs, lambda job: _story(job, texts[job.unit.story], table))


def _words(job: Job) -> list[list[str]]:
    """Return the words of each row."""
    words = made_by(job, "words")
    return stories.row_words(words.outputs["words"], int(words.facts["n_trs"]))


def _story(job: Job, words: Sequence[Sequence[str]], table: Vectors) -> list[str]:
    """Write the features of one story."""
    import xarray

    values = static_features(words, table)
    spoken = Counter(word for row in words for word in row)
    unknown = {word: n for word, n in spoken.most_common() if word in table.out_of_vocabulary}
    share = 1 - sum(unknown.values()) / max(spoken.total(), 1)
    grid = stories.grid_of(made_by(job, "words"))
    n_trs, n_dims = values.shape
    time = float(grid["StartTime"]) + np.arange(n_trs) * float(grid["RepetitionTime"])
    made = xarray.Dataset(
        {"static": (("tr", "unit"), values.astype(np.float32))},
        coords={"tr": np.arange(n_trs, dtype="int32"), "time": (("tr",), time)},
    )
    made.attrs.update(plain({**grid, "EmptyTRs": EMPTY}))
    made["static"].attrs["long_name"] = "static embeddings, mean over the known words of the TR"
    write.write_netcdf(job.outputs["static"], made)
    warnings = []
    if share < 1 - MANY_UNKNOWN:
        warnings.append(
            f"{job.unit}: {1 - share:.0%} of the words have no vector; the sidecar lists them."
        )
    finish(
        job,
        {
            "Story": job.unit.story,
            "Model": {
                "Label": job.unit.model,
                "Name": job.facts["model"],
                "Kind": "static vectors",
                "Sha256": table.sha256,
                "NumberOfUnits": n_dims,
            },
            "EmptyTRs": EMPTY,
            "ShareOfWordsKnown": share,
            "UnknownWords": unknown,
            "NumberOfEmptyTRs": int(np.isnan(values).any(axis=1).sum()),
            **grid,
            "Warnings": warnings,
        },
    )
    return warnings
