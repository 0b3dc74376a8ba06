"""What ``--static-vectors`` means: a file or a spaCy pipeline, with a label; and how to load it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_brainlm.errors import ConfigError, MissingInputError
from bids_brainlm.language import pipelines
from bids_brainlm.language.vectors import Vectors, from_file, from_pipeline, label_of

SPACY = "spacy:"


@dataclass(frozen=True)
class VectorSource:
    """Where word vectors come from.

    Attributes
    ----------
    label : str
        Name in files: letters and digits.
    name : str
        Name of the file or of the pipeline, without folders.
    path : Path
        The file, or the folder of the pipeline.
    is_pipeline : bool
        Whether it is a spaCy pipeline.
    """

    label: str
    name: str
    path: Path
    is_pipeline: bool


def resolve(given: str) -> VectorSource:
    """Find out what is meant; reads no vectors.

    Parameters
    ----------
    given : str
        A path, or ``spacy:`` with the name or folder of a pipeline; ``LABEL=`` before either
        sets the label.

    Returns
    -------
    VectorSource

    Raises
    ------
    ConfigError
        The label is wrong.
    MissingInputError
        There is no such file or pipeline.
    """
    label, sign, rest = given.partition("=")
    if not sign or Path(given).exists() or not re.fullmatch(r"\w+", label):
        label, rest = "", given
    if sign and label and not label.isalnum():
        raise ConfigError(
            f"--static-vectors {given!r}: found the label {label!r}, expected letters and digits."
        )
    if rest.startswith(SPACY):
        path = pipelines.find(rest.removeprefix(SPACY))
        _require_vectors(path)
        name = Path(rest.removeprefix(SPACY)).name
        return VectorSource(label_of(label or None, name), name, path, True)
    path = Path(rest).expanduser()
    if not path.is_file():
        hint = f"The file is a link without content: datalad get {path}"
        raise MissingInputError(
            f"--static-vectors {rest}: there is no such file of word vectors.",
            hint=hint if path.is_symlink() else "Check the path in --static-vectors.",
        )
    return VectorSource(label_of(label or None, path.name), path.name, path, False)


def _require_vectors(folder: Path) -> None:
    """Refuse a pipeline whose description says that it has no vectors."""
    try:
        meta = json.loads((folder / pipelines.META).read_text("utf-8"))
        width = meta.get("vectors", {}).get("width")
    except (OSError, ValueError, AttributeError):
        return  # loading says what is wrong with it
    if width == 0:
        raise ConfigError(
            f"--static-vectors: the spaCy pipeline {folder.name} has no word vectors.",
            hint="Choose a large pipeline; bids_brainlm-fetch --spacy en_core_web_lg gets one.",
        )


def load(source: VectorSource, words: Sequence[str]) -> Vectors:
    """Read the vectors of some words.

    Parameters
    ----------
    source : VectorSource
        From `resolve`.
    words : sequence of str
        All words of the stories, repeated ones too.

    Returns
    -------
    Vectors

    Raises
    ------
    BrainLMError
        As `vectors.from_file` and `vectors.from_pipeline`.
    """
    if source.is_pipeline:
        pipeline = pipelines.load(source.path, needs_parse=False)
        return from_pipeline(pipeline, words, label=source.label)
    return from_file(source.path, words, label=source.label)
