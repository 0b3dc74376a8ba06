"""Parts of speech and dependencies of a story, for each word and for each TR."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType

import numpy as np

from bids_brainlm.errors import DataError
from bids_brainlm.language.parses import Parse, ParsedToken, parse

__all__ = [
    "LabelDistance",
    "LinguisticFeatures",
    "Parse",
    "ParsedToken",
    "dependency_labels",
    "features",
    "labels",
    "parse",
    "pos_labels",
]

ROOT = "ROOT"


@dataclass(frozen=True, slots=True)
class LabelDistance:
    """Distances of the tokens with one dependency: how many, and the means in tokens."""

    label: str
    n_tokens: int
    mean: float
    mean_without_punctuation: float


@dataclass(frozen=True, eq=False)
class LinguisticFeatures:
    """Labels and distances of a story, one row a TR.

    Attributes
    ----------
    labels : tuple of str, length n_labels
        25 dependencies, then 14 parts of speech; see `labels`.
    counts : int array, shape (n_trs, n_labels)
        Tokens of the TR with each label.
    indicators : bool array, shape (n_trs, n_labels)
        Whether there is any.
    label_distances : float array, shape (n_trs, n_dependencies)
        Mean distance in tokens of the TR's tokens with each dependency; NaN where none.
    distances : float array, shape (n_trs,)
        Mean distance in tokens of the TR's tokens that have a head, punctuation left out; NaN
        where none.
    by_label : tuple of LabelDistance
        Over all TRs, in the order of the dependencies; NaN where there are none.
    n_tokens : int array, shape (n_trs,)
        Tokens of each TR.
    n_outside : int
        Tokens of words outside the rows.
    n_wordless : int
        Tokens of no word.
    other_dependencies, other_pos : mapping of str to int
        Tokens of the rows whose label is not among the columns, by label.
    impossible : tuple of str
        Columns that the pipeline cannot fill; empty where its labels were not given.
    """

    labels: tuple[str, ...]
    counts: np.ndarray
    indicators: np.ndarray
    label_distances: np.ndarray
    distances: np.ndarray
    by_label: tuple[LabelDistance, ...]
    n_tokens: np.ndarray
    n_outside: int
    n_wordless: int
    other_dependencies: Mapping[str, int]
    other_pos: Mapping[str, int]
    impossible: tuple[str, ...]


@lru_cache(maxsize=1)
def _lists() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the lists of labels."""
    text = resources.files("bids_brainlm").joinpath("data", "linguistic.json").read_text("utf-8")
    content = json.loads(text)
    return tuple(content["dep"]), tuple(content["pos"])


def dependency_labels() -> tuple[str, ...]:
    """Return the 25 dependencies in the order of the paper."""
    return _lists()[0]


def pos_labels() -> tuple[str, ...]:
    """Return the 14 parts of speech in the order of the paper."""
    return _lists()[1]


def labels() -> tuple[str, ...]:
    """Return the 39 labels of the columns: dependencies, then parts of speech."""
    return dependency_labels() + pos_labels()


def features(
    tokens: Sequence[ParsedToken],
    rows: np.ndarray,
    n_trs: int,
    *,
    possible: Mapping[str, Sequence[str]] | None = None,
) -> LinguisticFeatures:
    """Count labels and average distances within each TR.

    Parameters
    ----------
    tokens : sequence of ParsedToken
        From `parse`.
    rows : int array, shape (n_words,)
        Row of each word, -1 for outside; see `timing.Placement`.
    n_trs : int
        Rows of the grid.
    possible : mapping of str to sequence of str, optional
        ``Pipeline.labels``, to tell which columns the pipeline can never fill.

    Returns
    -------
    LinguisticFeatures

    Raises
    ------
    DataError
        A token's word has no row, or a row is not on the grid.

    Notes
    -----
    Every token of a word in the rows counts once as a dependency and once as a part of
    speech; labels that are no columns (``punct``, ``nsubjpass``, ``PUNCT`` ...) are told by
    name. ROOT has the distance 0. Roots have no head and stay out of the mean over a TR's
    tokens, in which tokens with other labels count.
    """
    rows = np.asarray(rows, dtype=np.int64)
    _check_rows(tokens, rows, n_trs)
    owned = [token for token in tokens if token.word is not None]
    placed = [(token, int(rows[token.word])) for token in owned if rows[token.word] >= 0]
    columns = {label: column for column, label in enumerate(labels())}
    n_deps = len(dependency_labels())
    counts = np.zeros((n_trs, len(columns)), dtype=np.int64)
    sums = np.zeros((n_trs, n_deps))
    totals, n_heads = np.zeros(n_trs), np.zeros(n_trs)
    other_deps: Counter[str] = Counter()
    other_pos: Counter[str] = Counter()
    for token, row in placed:
        if token.dep in dependency_labels():
            counts[row, columns[token.dep]] += 1
            sums[row, columns[token.dep]] += token.distance
        else:
            other_deps[token.dep] += 1
        if token.pos in pos_labels():
            counts[row, columns[token.pos]] += 1
        else:
            other_pos[token.pos] += 1
        if token.dep != ROOT and not token.is_punctuation:
            totals[row] += token.distance
            n_heads[row] += 1
    return LinguisticFeatures(
        labels(),
        counts,
        counts > 0,
        _mean(sums, counts[:, :n_deps]),
        _mean(totals, n_heads),
        _by_label([token for token, _ in placed]),
        np.bincount([row for _, row in placed], minlength=n_trs).astype(np.int64),
        len(owned) - len(placed),
        len(tokens) - len(owned),
        MappingProxyType(dict(sorted(other_deps.items()))),
        MappingProxyType(dict(sorted(other_pos.items()))),
        _impossible(possible),
    )


def _check_rows(tokens: Sequence[ParsedToken], rows: np.ndarray, n_trs: int) -> None:
    """Raise if the rows do not fit the words or the grid."""
    last = max((token.word for token in tokens if token.word is not None), default=-1)
    if rows.ndim != 1 or last >= len(rows):
        raise DataError(f"rows: found shape {rows.shape}, expected one row for {last + 1} words.")
    if len(rows) and (rows.min() < -1 or rows.max() >= n_trs):
        raise DataError(
            f"rows: found {rows.min()} to {rows.max()}, expected -1 to {n_trs - 1} for {n_trs} TRs."
        )


def _mean(sums: np.ndarray, n_items: np.ndarray) -> np.ndarray:
    """Divide sums by numbers of items; NaN where there are none."""
    return np.divide(sums, n_items, out=np.full(sums.shape, np.nan), where=n_items > 0)


def _by_label(tokens: Sequence[ParsedToken]) -> tuple[LabelDistance, ...]:
    """Average distances over all tokens of each dependency."""
    found = []
    for label in dependency_labels():
        own = [token for token in tokens if token.dep == label]
        n_own = len(own)
        bare = sum(token.distance_without_punctuation for token in own)
        found.append(
            LabelDistance(
                label,
                n_own,
                sum(token.distance for token in own) / n_own if n_own else math.nan,
                bare / n_own if n_own else math.nan,
            )
        )
    return tuple(found)


def _impossible(possible: Mapping[str, Sequence[str]] | None) -> tuple[str, ...]:
    """Return the columns that a pipeline cannot fill."""
    if possible is None:
        return ()
    deps, pos = {*possible.get("dep", ()), ROOT}, set(possible.get("pos", ()))
    return tuple(
        [label for label in dependency_labels() if label not in deps]
        + [label for label in pos_labels() if label not in pos]
    )
