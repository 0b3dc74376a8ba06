"""Words to parts of speech and dependencies on the TR grid, once per story."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError
from bids_brainlm.language import linguistic, pipelines, transcripts
from bids_brainlm.language.libraries import import_torch
from bids_brainlm.steps import stories
from bids_brainlm.steps.base import Job, Outcome, Resources, Unit, finish, made_by

NAME = "linguistic"
VERSION = 1
LONG_SENTENCES = 100  # mean number of tokens above which borders were hardly found
COUNTS, PRESENCE, DISTANCES = "linguistic", "linguisticPresence", "linguisticDistances"


@dataclass(frozen=True)
class Params:
    """No settings are read; the inputs name the pipeline."""


def params(config: Config) -> Params:
    """Cut out the settings of this step."""
    return Params()


def outputs(unit: Unit, names: Names) -> dict[str, Path]:
    """Return the files that the step writes, without the record."""
    found = {"tokens": unit.place(names, "tokens", "tsv")}
    for key in (COUNTS, PRESENCE, DISTANCES):
        found.update(stories.stim_places(unit, names, key, key))
    return found


def record(unit: Unit, names: Names) -> Path:
    """Return the sidecar that is written last."""
    return unit.place(names, "tokens", "json")


def run(jobs: Sequence[Job], settings: Params, resources: Resources) -> list[Outcome]:
    """Parse several stories with one pipeline."""
    import_torch()  # spaCy imports it
    try:
        pipeline = pipelines.load(jobs[0].files["pipeline"])
    except BrainLMError as error:
        return [Outcome(job, error) for job in jobs]
    return stories.each_story(jobs, lambda job: _story(job, pipeline))


def _text(job: Job) -> str | None:
    """Return the punctuated transcript, where there is one."""
    if "text" in job.files:
        path = job.files["text"]
        return transcripts.decode(path.read_bytes(), path.name)
    source = job.files["transcript"]
    return transcripts.parse(source.read_bytes(), source.name).text


def _story(job: Job, pipeline: pipelines.Pipeline) -> list[str]:
    """Write the features of one story."""
    words, rows = stories.read_words(made_by(job, "words").outputs["words"])
    parse = linguistic.parse(pipeline, words, _text(job))
    n_trs = int(made_by(job, "words").facts["n_trs"])
    found = linguistic.features(parse.tokens, rows, n_trs, possible=pipeline.labels)
    _write_tokens(job, parse, words, rows)
    _write_stims(job, found)
    warnings = _warnings(job, parse, found, len(words))
    finish(job, {**_meta(job, pipeline, parse, found), "Warnings": warnings})
    return warnings


def _write_tokens(job: Job, parse: linguistic.Parse, words, rows: np.ndarray) -> None:
    """Write one row a token."""
    tokens = parse.tokens
    owners = [None if t.word is None else words[t.word] for t in tokens]
    places = [-1 if t.word is None else int(rows[t.word]) for t in tokens]
    write.write_tsv(
        job.outputs["tokens"],
        {
            "onset": [None if w is None else w.onset for w in owners],
            "duration": [None if w is None else w.offset - w.onset for w in owners],
            "token": [t.text for t in tokens],
            "lemma": [t.lemma for t in tokens],
            "pos": [t.pos for t in tokens],
            "tag": [t.tag or None for t in tokens],
            "dep": [t.dep for t in tokens],
            "head": [t.head for t in tokens],
            "distance": [t.distance for t in tokens],
            "distance_without_punctuation": [t.distance_without_punctuation for t in tokens],
            "sentence": [t.sentence for t in tokens],
            "word": [t.word for t in tokens],
            "row": [None if row < 0 else row for row in places],
        },
    )


def _write_stims(job: Job, found: linguistic.LinguisticFeatures) -> None:
    """Write counts, presence and distances, one row a TR."""
    n_deps = len(linguistic.dependency_labels())
    kinds = ["dependency"] * n_deps + ["part of speech"] * (len(found.labels) - n_deps)
    for key, values, what in (
        (COUNTS, found.counts, "number of tokens"),
        (PRESENCE, found.indicators, "1 where there is a token"),
    ):
        columns = {
            label: {"Description": f"{what} with the {kind} {label}"}
            for label, kind in zip(found.labels, kinds, strict=True)
        }
        more = {"Description": f"{what} with each label", "EmptyTRs": "0: no tokens"}
        stories.write_stim(job, key, values.astype(float), columns, more)
    columns = {
        label: {"Description": f"mean distance to the head, dependency {label}", "Units": "tokens"}
        for label in found.labels[:n_deps]
    }
    columns["all"] = {"Description": "mean distance to the head, punctuation left out"}
    values = np.column_stack([found.label_distances, found.distances])
    more = {"Description": "dependency distances", "EmptyTRs": "n/a: no such token"}
    stories.write_stim(job, DISTANCES, values, columns, more)


def _meta(
    job: Job,
    pipeline: pipelines.Pipeline,
    parse: linguistic.Parse,
    found: linguistic.LinguisticFeatures,
) -> dict[str, object]:
    """Describe pipeline, parse and labels."""
    return {
        "Story": job.unit.story,
        "Pipeline": {
            "Name": pipeline.name,
            "Version": pipeline.version,
            "spaCy": pipeline.spacy_version,
            "Sha256": pipeline.sha256,
            "HasLemmas": pipeline.has_lemmas,
        },
        "ParsedText": parse.text_source,
        "NumberOfSentences": parse.n_sentences,
        "NumberOfTokens": len(parse.tokens),
        "NumberOfWordsMissing": parse.n_words_missing,
        "NumberOfWordsDifferent": parse.n_words_different,
        "NumberOfWordsMerged": parse.n_words_merged,
        "NumberOfTextPiecesWithoutWord": parse.n_extra,
        "NumberOfTokensOutside": found.n_outside,
        "OtherDependencies": dict(found.other_dependencies),
        "OtherPartsOfSpeech": dict(found.other_pos),
        "ImpossibleColumns": list(found.impossible),
        "TRsWithLabel": {
            label: int(n)
            for label, n in zip(found.labels, found.indicators.sum(axis=0), strict=True)
        },
        "DependencyDistances": {one.label: plain_distance(one) for one in found.by_label},
        **stories.grid_of(made_by(job, "words")),
    }


def plain_distance(one: linguistic.LabelDistance) -> dict[str, object]:
    """Return a label's distances as JSON holds them: null where there is no token."""
    known = {k: v for k, v in asdict(one).items() if k != "label"}
    return {k: None if v != v else v for k, v in known.items()}


def _warnings(
    job: Job, parse: linguistic.Parse, found: linguistic.LinguisticFeatures, n_words: int
) -> list[str]:
    """Return what a careful reader would want to check."""
    story, warnings = job.unit.story, []
    if parse.text_source == "words":
        warnings.append(
            f"{story}: the words were parsed without punctuation, which makes parses worse; put "
            "the transcript beside the alignment (transcript.txt)."
        )
    if parse.n_words_missing > 0.02 * n_words:
        warnings.append(
            f"{story}: {parse.n_words_missing} of {n_words} words are not in the transcript's text "
            "and have no linguistic features."
        )
    if len(parse.tokens) > LONG_SENTENCES * max(parse.n_sentences, 1):
        warnings.append(
            f"{story}: the spaCy pipeline found {parse.n_sentences} sentences in "
            f"{len(parse.tokens)} tokens; distances across sentences mean little."
        )
    if found.impossible:
        warnings.append(
            f"{story}: the spaCy pipeline does not know {' '.join(found.impossible)}; these "
            "columns are 0."
        )
    return warnings
