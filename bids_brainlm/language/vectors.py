"""Static word vectors: only those that are needed, from a file or a spaCy pipeline."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from bids_brainlm.errors import ConfigError, DataError, MissingInputError
from bids_brainlm.language.folders import file_sha256
from bids_brainlm.language.pipelines import Pipeline
from bids_brainlm.language.vector_files import read_vectors, sniff

APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ′＇", "'"))
SEPARATORS = re.compile(r"[\s\-‐‑–—/]+")
CLITIC = re.compile(r"(.+?)(n't|'(?:s|m|re|ve|ll|d))", re.IGNORECASE)
OUTER_SIGNS = re.compile(r"^[\W_]+|[\W_]+$")


@dataclass(frozen=True, eq=False)
class Vectors:
    """Static vectors of the words of a story.

    Attributes
    ----------
    label : str
        Name in files: letters and digits.
    file_format : str
        ``glove``, ``word2vec``, ``word2vec-binary`` or ``spacy``.
    n_dims : int
        Numbers of a vector.
    table : mapping of str to float32 array, shape (n_dims,)
        The vector of each known word, as the word was given.
    sha256 : str
        Of the file as it is (compressed, if so), or the pipeline's fingerprint.
    n_words : int
        Words that were asked for, repeated ones counted.
    out_of_vocabulary : mapping of str to int
        Words without a vector and how often they were asked for, the most frequent first.
    share_covered : float
        Share of ``n_words`` that have a vector, 0 to 1.
    """

    label: str
    file_format: str
    n_dims: int
    table: Mapping[str, np.ndarray]
    sha256: str
    n_words: int
    out_of_vocabulary: Mapping[str, int]
    share_covered: float


def from_file(
    path: str | Path, words: Sequence[str], *, label: str | None = None, file_format: str = "auto"
) -> Vectors:
    """Read the vectors of some words from a file.

    Parameters
    ----------
    path : str or Path
        GloVe text, word2vec text or binary, or fastText ``.vec``; each may be gzipped.
    words : sequence of str
        All words of the stories, repeated ones too.
    label : str, optional
        Name in files; by default letters and digits of the file's name.
    file_format : str
        ``glove`` (text without a first line of sizes), ``word2vec`` (text with it; fastText's
        ``.vec`` is the same), ``word2vec-binary``, or ``auto``.

    Returns
    -------
    Vectors

    Raises
    ------
    ConfigError
        The format or the label is wrong.
    MissingInputError
        There is no such file.
    DataError
        The file is malformed, cut short, or a needed vector is not finite.

    Notes
    -----
    The whole file is read once as a stream and checked, and only needed vectors are kept. A
    word that stands twice in the file has its first vector. For the way a word is looked up
    see `forms`.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(
            f"{path}: there is no such file of word vectors.",
            hint="Check the path; for DataLad datasets: datalad get FILE.",
        )
    label = label_of(label, path.name)
    found_format = sniff(path) if file_format == "auto" else file_format
    needed = {form for word in set(words) for group in _groups(word) for form in group}
    n_dims, found = read_vectors(path, needed, found_format)
    return _collect(label, found_format, n_dims, words, found.get, file_sha256(path))


def from_pipeline(pipeline: Pipeline, words: Sequence[str], *, label: str | None = None) -> Vectors:
    """Take the vectors of some words from a spaCy pipeline.

    Parameters
    ----------
    pipeline : Pipeline
        With vectors; `pipelines.load` with ``needs_parse=False`` is enough.
    words : sequence of str
        All words of the stories, repeated ones too.
    label : str, optional
        Name in files; by default letters and digits of the pipeline's name.

    Returns
    -------
    Vectors

    Raises
    ------
    ConfigError
        The pipeline has no vectors, or the label is wrong.
    DataError
        A needed vector is not finite.

    Notes
    -----
    Words are looked up as in files (see `forms`), not by spaCy's tokens, so words that it does
    not know never count as zeros.
    """
    if not pipeline.has_vectors:
        raise ConfigError(
            f"spaCy pipeline {pipeline.name}: found no word vectors, expected a pipeline with "
            "vectors.",
            hint="Choose a large pipeline; bids_brainlm-fetch --spacy en_core_web_lg gets one.",
        )
    vocabulary = pipeline.nlp.vocab

    def look_up(form: str) -> np.ndarray | None:
        """Return the vector of one spelling."""
        if not vocabulary.has_vector(form):
            return None
        vector = np.asarray(vocabulary.get_vector(form), dtype=np.float32).copy()
        if not np.isfinite(vector).all():
            raise DataError(
                f"spaCy pipeline {pipeline.name}: the vector of {form!r} is not finite.",
                hint="Get the pipeline again, e.g. with bids_brainlm-fetch --spacy NAME.",
            )
        return vector

    return _collect(
        label_of(label, pipeline.name),
        "spacy",
        int(vocabulary.vectors_length),
        words,
        look_up,
        pipeline.sha256,
    )


def label_of(given: str | None, name: str) -> str:
    """Check a label, or make one from the name of a file or pipeline.

    Parameters
    ----------
    given : str or None
        The label, where one is given.
    name : str
        Of the file or pipeline, without folders.

    Returns
    -------
    str
        Letters and digits; by default those of the name without its ending.

    Raises
    ------
    ConfigError
        The given label has other signs.

    Examples
    --------
    >>> label_of(None, "glove.6B.300d.txt.gz")
    'glove6B300d'
    """
    if given is None:
        stem = re.sub(
            r"\.(gz|txt|vec|bin)$", "", re.sub(r"\.gz$", "", name, flags=re.I), flags=re.I
        )
        given = re.sub(r"[^A-Za-z0-9]", "", stem) or "vectors"
    if not re.fullmatch(r"[A-Za-z0-9]+", given):
        raise ConfigError(
            f"word vectors: found the label {given!r}, expected letters and digits only."
        )
    return given


def forms(word: str) -> tuple[str, ...]:
    """Return the spellings under which a word is looked up, the best first.

    Parameters
    ----------
    word : str
        As in the transcript.

    Returns
    -------
    tuple of str
        As written, in lower case, with straight apostrophes, then without the signs around
        it; these each as written and in lower case.

    Notes
    -----
    The first spelling that has a vector counts. If none has, the word is taken apart at white
    space, hyphens and slashes, else at a clitic (``dog's``, ``don't``, ``we'll``), and its
    vector is the mean over the known parts, as if they were words. The first part of a word
    with a clitic has to be known: ``'s`` alone does not stand for a name that is not.

    Examples
    --------
    >>> forms("“So,”")
    ('“So,”', '“so,”', 'So', 'so')
    """
    straight = word.translate(APOSTROPHES)
    bare = OUTER_SIGNS.sub("", straight)
    found = [word, word.lower(), straight, straight.lower(), bare, bare.lower()]
    return tuple(dict.fromkeys(form for form in found if form))


def static_features(words_by_row: Sequence[Sequence[str]], vectors: Vectors) -> np.ndarray:
    """Average the vectors of each TR's words.

    Parameters
    ----------
    words_by_row : sequence of sequence of str, length n_trs
        Words of each TR; none where silent.
    vectors : Vectors
        Made for these words.

    Returns
    -------
    float32 array, shape (n_trs, n_dims)
        Mean over the known words; NaN in rows without any.

    Raises
    ------
    DataError
        A word was not among those for which the vectors were read.
    """
    found = np.full((len(words_by_row), vectors.n_dims), np.nan, dtype=np.float32)
    for row, words in enumerate(words_by_row):
        known = [vectors.table[word] for word in words if word in vectors.table]
        strange = [word for word in words if word not in vectors.table]
        strange = [word for word in strange if word not in vectors.out_of_vocabulary]
        if strange:
            raise DataError(
                f"row {row}: the vectors {vectors.label} were not read for {strange[0]!r}, "
                f"expected words of the {vectors.n_words} that were asked for.",
                hint="Read the vectors again for all words of the story.",
            )
        if known:
            found[row] = np.mean(np.asarray(known, dtype=np.float64), axis=0)
    return found


def _parts(word: str) -> tuple[str, ...]:
    """Take a word apart that has no vector of its own; empty where it has no parts."""
    parts = tuple(part for part in SEPARATORS.split(word) if OUTER_SIGNS.sub("", part))
    return parts if len(parts) > 1 else ()


def _clitic(word: str) -> tuple[str, str] | None:
    """Split a clitic off: the stem and the clitic; None where there is none."""
    match = CLITIC.fullmatch(OUTER_SIGNS.sub("", word.translate(APOSTROPHES)))
    return None if match is None else (match[1], match[2])


def _groups(word: str) -> Iterable[tuple[str, ...]]:
    """Yield the spellings of a word and of all its parts."""
    for part in (word, *_parts(word)):
        yield forms(part)
        split = _clitic(part)
        if split is not None:
            yield forms(split[0])
            yield split[1], split[1].lower()


def _collect(
    label: str,
    file_format: str,
    n_dims: int,
    words: Sequence[str],
    look_up: Callable[[str], np.ndarray | None],
    sha256: str,
) -> Vectors:
    """Look all words up and tell what was found."""
    asked = Counter(words)
    table: dict[str, np.ndarray] = {}
    for word in asked:
        vector = _vector(word, look_up)
        if vector is not None:
            vector.setflags(write=False)
            table[word] = vector
    unknown = {word: n for word, n in asked.most_common() if word not in table}
    n_words = asked.total()
    n_known = n_words - sum(unknown.values())
    return Vectors(
        label,
        file_format,
        n_dims,
        MappingProxyType(table),
        sha256,
        n_words,
        MappingProxyType(unknown),
        n_known / n_words if n_words else 0.0,
    )


def _vector(word: str, look_up: Callable[[str], np.ndarray | None]) -> np.ndarray | None:
    """Return the vector of a word, from its parts if it has none of its own."""
    own = _first(forms(word), look_up)
    if own is not None:
        return own
    parts = _parts(word)
    if parts:
        return _average([_vector(part, look_up) for part in parts])
    split = _clitic(word)
    if split is None:
        return None
    stem = _first(forms(split[0]), look_up)
    ending = _first((split[1], split[1].lower()), look_up)
    return None if stem is None else _average([stem, ending])


def _first(
    spellings: Sequence[str], look_up: Callable[[str], np.ndarray | None]
) -> np.ndarray | None:
    """Return the vector of the first spelling that has one."""
    for form in spellings:
        vector = look_up(form)
        if vector is not None:
            return vector
    return None


def _average(vectors: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Average the vectors that are there."""
    known = [vector for vector in vectors if vector is not None]
    return np.mean(np.asarray(known, float), axis=0).astype(np.float32) if known else None
