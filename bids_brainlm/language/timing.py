"""Words and phones in time: missing times, scan time, rows of the TR grid."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from itertools import pairwise

import numpy as np

from bids_brainlm.errors import ConfigError, TimingError
from bids_brainlm.records import Phone, TRGrid, Word

log = logging.getLogger(__name__)

BIN_RULES = ("offset", "onset", "midpoint")
MISSING_TIMES = ("interpolate", "backfill")
UNKNOWN_PHONE = "oov"


@dataclass(frozen=True)
class Placement:
    """Where words are on the grid.

    Attributes
    ----------
    rows : int array, shape (n_words,)
        Row of the grid, -1 where a word is outside.
    n_before, n_after : int
        Words outside, before row 0 and after the last row.
    """

    rows: np.ndarray
    n_before: int
    n_after: int


def fill_times(
    words: Sequence[Word], *, missing: str = "interpolate"
) -> tuple[tuple[Word, ...], int]:
    """Give times to the words that the aligner did not find.

    Parameters
    ----------
    words : sequence of Word
        In the order in which they were spoken; times in s or None.
    missing : str
        ``interpolate``: words without times share the time between their neighbours, from
        the offset of the one before to the onset of the one after, in equal parts. Before
        the first timed word they get its onset, after the last its offset, with duration 0.
        ``backfill``: they get both times of the next timed word, and those after the last
        timed word are dropped, as in the paper.

    Returns
    -------
    words : tuple of Word
        All with times; filled ones have ``interpolated`` set.
    n_missing : int
        How many words of the input had no times, filled or dropped.

    Raises
    ------
    ConfigError
        ``missing`` is unknown.
    TimingError
        No word has times.

    Notes
    -----
    Where neighbours overlap, the words between them get the later of the two times and
    duration 0. Filled words have no phones.
    """
    if missing not in MISSING_TIMES:
        raise ConfigError(
            f"missing times: found {missing!r}, expected one of {', '.join(MISSING_TIMES)}."
        )
    timed = [i for i, word in enumerate(words) if word.onset is not None]
    if not timed:
        raise TimingError(
            f"none of {len(words)} words has times in s.",
            hint="Align the transcript again, or give another folder with --transcripts.",
        )
    filled: list[Word] = []
    ends = [-1, *timed, len(words)]
    for left, right in pairwise(ends):
        gap = words[left + 1 : right]
        before = words[left] if left >= 0 else None
        after = words[right] if right < len(words) else None
        if gap and missing == "interpolate":
            filled += _share(gap, before, after)
        elif gap and after is not None:
            filled += [
                replace(word, onset=after.onset, offset=after.offset, interpolated=True)
                for word in gap
            ]
        if after is not None:
            filled.append(after)
    return tuple(filled), len(words) - len(timed)


def _share(gap: Sequence[Word], before: Word | None, after: Word | None) -> list[Word]:
    """Share the time between two words equally."""
    edges = [
        *((before.offset,) if before is not None else ()),
        *((after.onset,) if after is not None else ()),
    ]
    known = [edge for edge in edges if edge is not None]
    start, end = known[0], known[-1]
    times = np.linspace(start, max(start, end), len(gap) + 1).tolist()
    return [
        replace(word, onset=onset, offset=offset, interpolated=True)
        for word, onset, offset in zip(gap, times[:-1], times[1:], strict=True)
    ]


def to_scan(words: Sequence[Word], audio_start: float) -> tuple[Word, ...]:
    """Move words and phones from audio time to scan time.

    Parameters
    ----------
    words : sequence of Word
        Times in s from the start of the audio file.
    audio_start : float
        When the audio file began, s from the run's first volume; may be negative.

    Returns
    -------
    tuple of Word
        Times in s from the run's first volume.
    """
    return tuple(
        replace(
            word,
            onset=None if word.onset is None else word.onset + audio_start,
            offset=None if word.offset is None else word.offset + audio_start,
            phones=tuple(
                Phone(phone.label, phone.onset + audio_start, phone.offset + audio_start)
                for phone in word.phones
            ),
        )
        for word in words
    )


def place_words(words: Sequence[Word], grid: TRGrid, rule: str = "offset") -> Placement:
    """Put every word into one row of the grid.

    Parameters
    ----------
    words : sequence of Word
        Scan time, all with times (see `fill_times`).
    grid : TRGrid
        The volumes of the story.
    rule : str
        Which time of a word counts: ``offset`` (as in the paper), ``onset`` or
        ``midpoint``.

    Returns
    -------
    Placement

    Raises
    ------
    ConfigError
        The rule is unknown.
    TimingError
        A word has no times.

    Notes
    -----
    Bins are half-open, ``[k*tr, (k+1)*tr)``: a word that ends on a border counts for the
    volume that begins there, and so does one that ends up to 1e-7 s before it (rounding).
    """
    if rule not in BIN_RULES:
        raise ConfigError(f"bin rule: found {rule!r}, expected one of {', '.join(BIN_RULES)}.")
    found = np.array([grid.bin(_moment(word, rule)) for word in words], dtype=np.int64)
    before, after = found < 0, found >= grid.n_trs
    return Placement(np.where(before | after, -1, found), int(before.sum()), int(after.sum()))


def _moment(word: Word, rule: str) -> float:
    """Return the time of a word that counts, s."""
    if word.onset is None or word.offset is None:
        raise TimingError(
            f"the word {word.text!r} has no times.",
            hint="Align the transcript again, or give another folder with --transcripts.",
        )
    if rule == "offset":
        return word.offset
    return word.onset if rule == "onset" else (word.onset + word.offset) / 2


def word_counts(rows: np.ndarray, n_trs: int) -> np.ndarray:
    """Count the words of each TR.

    Parameters
    ----------
    rows : int array, shape (n_words,)
        Row of each word, -1 for outside.
    n_trs : int
        Rows of the grid.

    Returns
    -------
    int array, shape (n_trs,)
        0 where a TR is silent.
    """
    rows = np.asarray(rows, dtype=np.int64)
    return np.bincount(rows[rows >= 0], minlength=n_trs).astype(np.int64)


@lru_cache(maxsize=1)
def phone_labels() -> tuple[str, ...]:
    """Return the 40 phone classes in the order of the paper: 39 of ARPAbet, and ``oov``.

    Returns
    -------
    tuple of str
    """
    text = resources.files("bids_brainlm").joinpath("data", "phones.tsv").read_text("utf-8")
    return tuple(text.split()[1:])


def phone_features(
    words: Sequence[Word], grid: TRGrid, labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Tell which phones begin in each TR, and how many.

    Parameters
    ----------
    words : sequence of Word
        Scan time; words without phones add nothing.
    grid : TRGrid
        The volumes of the story.
    labels : sequence of str
        Phone classes, see `phone_labels`.

    Returns
    -------
    presence : uint8 array, shape (n_trs, n_labels)
        1 where at least one phone of the class begins in the TR.
    counts : int array, shape (n_trs,)
        Phones that begin in the TR, of any class.

    Notes
    -----
    A phone belongs to the TR in which it begins, whatever the bin rule of words. A label
    counts up to its first ``_``; labels that are not in ``labels`` count as ``oov``.
    """
    columns = {label: i for i, label in enumerate(labels)}
    presence = np.zeros((grid.n_trs, len(labels)), dtype=np.uint8)
    counts = np.zeros(grid.n_trs, dtype=np.int64)
    unknown: set[str] = set()
    for phone in (phone for word in words for phone in word.phones):
        row = grid.bin(phone.onset)
        if not 0 <= row < grid.n_trs:
            continue
        counts[row] += 1
        label = phone.label.partition("_")[0]
        if label not in columns:
            unknown.add(label)
            label = UNKNOWN_PHONE
        if label in columns:
            presence[row, columns[label]] = 1
    if unknown:
        log.warning(
            "%d phone labels are unknown and count as %r: %s",
            len(unknown),
            UNKNOWN_PHONE,
            ", ".join(sorted(unknown)[:10]),
        )
    return presence, counts
