"""What the steps of a story share: its words, its stim files, its language models."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.errors import BrainLMError
from bids_brainlm.language import models
from bids_brainlm.language.libraries import import_torch
from bids_brainlm.records import Word
from bids_brainlm.steps.base import Job, Outcome, Resources, stamp

# The number of threads can change the last bits of a forward pass, so it is no setting.
TORCH_THREADS = 2

Story = Callable[[Job], Sequence[str]]


def each_story(jobs: Sequence[Job], make: Story) -> list[Outcome]:
    """Make one story after the other; ``make`` returns warnings. Keep each one's error."""
    outcomes = []
    for job in jobs:
        try:
            outcomes.append(Outcome(job, warnings=tuple(make(job))))
        except BrainLMError as error:
            outcomes.append(Outcome(job, error))
    return outcomes


def with_model(
    jobs: Sequence[Job],
    resources: Resources,
    make: Callable[[Job, models.LanguageModel], Sequence[str]],
    *,
    seed: int,
    attention: str = "sdpa",
    head: bool = False,
) -> list[Outcome]:
    """Load the model of the jobs once and make their stories with it.

    Parameters
    ----------
    jobs : sequence of Job
        Of one model; ``files["given"]`` names it.
    resources : Resources
    make : callable
        Gets job and model, writes the files and returns warnings.
    seed : int
        Of random weights.
    attention : str
        ``sdpa`` or ``eager``, see `models.load`.
    head : bool
        Whether the language-model head is needed.

    Returns
    -------
    list of Outcome
        When the model cannot be loaded, every job has that error.
    """
    import_torch()
    try:
        source = models.resolve(
            str(jobs[0].files["given"]),
            models_dir=resources.models_dir,
            offline=resources.offline,
        )
        with _threads():
            model = models.load(
                source, seed=seed, device=resources.device, attention=attention, head=head
            )
            return each_story(jobs, lambda job: make(job, model))
    except BrainLMError as error:
        return [Outcome(job, error) for job in jobs]


@contextmanager
def _threads() -> Iterator[None]:
    """Fix the number of torch's threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(TORCH_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_words(path: Path) -> tuple[list[Word], np.ndarray]:
    """Read words.tsv.

    Returns
    -------
    words : list of Word
        In scan time, without phones.
    rows : array of int, shape (n_words,)
        Row of the story grid; -1 for words outside.
    """
    words, rows = [], []
    with path.open(encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            onset = float(line["onset"])
            words.append(
                Word(
                    line["word"],
                    onset,
                    onset + float(line["duration"]),
                    None if line["aligned"] == "n/a" else line["aligned"],
                    interpolated=line["interpolated"] == "1",
                )
            )
            rows.append(-1 if line["row"] == "n/a" else int(line["row"]))
    return words, np.array(rows, int)


def row_words(path: Path, n_trs: int) -> list[list[str]]:
    """Read words.tsv and return the words of every row (none for silent TRs)."""
    words, rows = read_words(path)
    found: list[list[str]] = [[] for _ in range(n_trs)]
    for word, row in zip(words, rows, strict=True):
        if row >= 0:
            found[row].append(word.text)
    return found


def row_texts(path: Path, n_trs: int) -> list[str]:
    """Read words.tsv and return the text of every row (empty for silent TRs)."""
    return [" ".join(words) for words in row_words(path, n_trs)]


def grid_of(words: Job) -> dict[str, float]:
    """Return start and repetition time of the story grid, s, from its words job."""
    return {"StartTime": words.facts["start_time"], "RepetitionTime": words.facts["tr"]}


def head_columns(n_layers: int, n_heads: int, what: str, units: str) -> dict[str, dict[str, str]]:
    """Describe one column a head, ``L01H01`` first."""
    return {
        f"L{layer:02d}H{head:02d}": {
            "Description": f"{what}, layer {layer} head {head}",
            "Units": units,
        }
        for layer in range(1, n_layers + 1)
        for head in range(1, n_heads + 1)
    }


def describe(model: models.LanguageModel, job: Job) -> dict[str, object]:
    """Describe a model and what it saw, for sidecars, from the settings of the job's step."""
    settings = job.settings
    tokens = settings["context_tokens"]
    return {
        "Label": job.unit.model,
        "Name": model.source.name,
        "Kind": model.source.kind,
        "Architecture": model.architecture,
        "Revision": model.revision,
        "Sha256": model.sha256,
        "TokenizerSha256": model.tokenizer_sha256,
        "NumberOfLayers": model.n_layers,
        "NumberOfHeads": model.n_heads,
        "NumberOfUnits": model.n_dims,
        "HeadsReadable": model.heads is not None,
        "Causal": model.causal,
        "Context": settings["context"],
        "ContextTRs": settings["context_trs"],
        "ContextTokens": None if tokens is None else {"Limit": tokens[0], "Kept": tokens[1]},
    }


def write_stim(
    job: Job,
    name: str,
    values: np.ndarray,
    columns: Mapping[str, Mapping[str, str]],
    more: Mapping[str, object],
) -> None:
    """Write a stim file and its sidecar, outputs ``name`` and ``name_json`` of the job.

    Parameters
    ----------
    job : Job
        Its last upstream ``words`` job gives the grid.
    name : str
        Key of the outputs.
    values : array, shape (n_trs, n_columns)
        NaN where a TR has no value.
    columns : mapping of str to mapping
        Description (and Units) of each column, in order.
    more : mapping
        Further entries of the sidecar; says how TRs were filled (``EmptyTRs``).
    """
    grid = grid_of(next(one for one in job.upstream if one.step == "words"))
    write.write_stim_tsv_gz(job.outputs[name], values)
    write.write_json(
        job.outputs[f"{name}_json"],
        {
            "Columns": list(columns),
            "StartTime": grid["StartTime"],
            "SamplingFrequency": 1 / float(grid["RepetitionTime"]),
            "Story": job.unit.story,
            "NumberOfEmptyTRs": int(np.isnan(values).all(axis=1).sum()),
            **more,
            **{column: dict(text) for column, text in columns.items()},
            **stamp(job),
        },
    )


def stim_places(job_unit, names, recording: str, key: str) -> dict[str, Path]:
    """Return the outputs ``key`` and ``key_json`` of a recording."""
    labels = {"recording": recording}
    return {
        key: job_unit.place(names, "stim", "tsv.gz", labels),
        f"{key}_json": job_unit.place(names, "stim", "json", labels),
    }
