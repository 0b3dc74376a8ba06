"""Make words and transcripts from what files state, or tell what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from bids_brainlm.errors import TranscriptError
from bids_brainlm.records import Phone, Transcript, Word

MISSING = ("", "n/a", "N/A", "nan", "NaN")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
LONGEST = 1e9  # s; larger times are no times


def phone_class(label: str) -> str:
    """Return the ARPAbet class of a phone label.

    Parameters
    ----------
    label : str
        With position tag (``ay_B``) or stress (``AH0``), or without.

    Returns
    -------
    str
        Lower case, without tag and stress.

    Examples
    --------
    >>> phone_class("ay_B"), phone_class("AH0")
    ('ay', 'ah')
    """
    return label.strip().partition("_")[0].rstrip("0123456789").lower()


def read_time(cell: str, where: str, name: str) -> float | None:
    """Read a time from a cell of a table.

    Parameters
    ----------
    cell : str
        Seconds; empty or ``n/a`` where not known.
    where : str
        File and line, for messages.
    name : str
        What it is, for messages.

    Returns
    -------
    float or None
        In s.

    Raises
    ------
    TranscriptError
        Something else than a number.
    """
    cell = cell.strip()
    if cell in MISSING:
        return None
    if len(cell) > 40 or not NUMBER.fullmatch(cell) or not abs(float(cell)) < LONGEST:
        raise TranscriptError(
            f"{where}: found {name} {cell[:40]!r}, expected a number of seconds or nothing."
        )
    return float(cell)


def make_word(
    text: str,
    onset: float | None,
    offset: float | None,
    where: str,
    *,
    aligned: str | None = None,
    phones: tuple[Phone, ...] = (),
) -> Word:
    """Make a word and check it.

    Parameters
    ----------
    text : str
        As in the transcript; white space becomes single spaces.
    onset, offset : float or None
        In s; both or none.
    where : str
        File and line, for messages.
    aligned : str, optional
        The word as the aligner has it.
    phones : tuple of Phone
        Its phones.

    Returns
    -------
    Word

    Raises
    ------
    TranscriptError
        No text, one time without the other, or an end before the start.
    """
    clean = " ".join(text.split())
    if not clean:
        raise TranscriptError(f"{where}: the word is empty, expected text.")
    if (onset is None) != (offset is None):
        known = "onset" if offset is None else "offset"
        raise TranscriptError(
            f"{where}: the word {clean[:40]!r} has only an {known}, expected both times or none."
        )
    if onset is not None and offset is not None and offset < onset:
        raise TranscriptError(
            f"{where}: the word {clean[:40]!r} ends at {offset:g} s, expected an end at or after "
            f"its start at {onset:g} s."
        )
    return Word(clean, onset, offset, " ".join((aligned or "").split()) or None, phones)


def check_number(value: object, where: str, name: str) -> float:
    """Check a number of seconds from JSON.

    Parameters
    ----------
    value : object
        What was found.
    where : str
        File and word, for messages.
    name : str
        What it is, for messages.

    Returns
    -------
    float
        In s.

    Raises
    ------
    TranscriptError
        Not a number, or not finite.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < LONGEST:
        raise TranscriptError(f"{where}: found {name} {value!r:.40}, expected a number of seconds.")
    return float(value)


def make_transcript(
    words: Sequence[Word],
    lines: Sequence[str],
    source: str,
    *,
    text: str | None,
    has_phones: bool,
) -> Transcript:
    """Check the order of the words and put them together.

    Parameters
    ----------
    words : sequence of Word
        In the order of the file.
    lines : sequence of str
        File and line of each, for messages.
    source : str
        Name of the file.
    text : str or None
        The punctuated text.
    has_phones : bool
        Whether the file states phones.

    Returns
    -------
    Transcript

    Raises
    ------
    TranscriptError
        No words, none with times, or onsets that go backwards.
    """
    if not words:
        raise TranscriptError(f"{source}: found no words, expected at least one.")
    last = -math.inf
    for word, where in zip(words, lines, strict=True):
        if word.onset is None:
            continue
        if word.onset < last - 1e-3:
            raise TranscriptError(
                f"{where}: the word {word.text[:40]!r} starts at {word.onset:g} s, expected words "
                f"in the order in which they were spoken (the one before starts at {last:g} s)."
            )
        last = max(last, word.onset)
    if last == -math.inf:
        raise TranscriptError(f"{source}: none of {len(words)} words has times in s.")
    return Transcript(tuple(words), text, has_phones, source)
