"""Find words in a text: which characters each of them is, whatever stands between them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

APOSTROPHES = "'’‘ʼ′`´＇‛"
MARKS = "\u0300-\u036f\u00ad\u200b-\u200d\u2060"  # accents on their own, invisible signs
UNIT = re.compile(rf"[^\W_]+(?:[{APOSTROPHES.replace('ʼ', '')}{MARKS}]+[^\W_]+)*")
Span = tuple[int, int]


@dataclass(frozen=True)
class FoundWords:
    """Where words are in a text.

    Attributes
    ----------
    spans : tuple of (int, int) or None
        First character and the one behind the last, of each word; None where it is not in
        the text. They follow each other and do not overlap.
    n_missing : int
        Words that are not in the text.
    n_different : int
        Words that were paired with something spelled differently at the same place.
    n_extra : int
        Runs of letters and digits in the text that belong to no word.
    """

    spans: tuple[Span | None, ...]
    n_missing: int
    n_different: int
    n_extra: int


@dataclass(frozen=True, slots=True)
class _Unit:
    """A run of letters and digits: how it is compared, and the place of each character."""

    key: str
    places: tuple[int, ...]


@dataclass(slots=True)
class _Pairs:
    """What is known so far: the characters of each word, and the units of the text in use."""

    first: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    different: set[int] = field(default_factory=set)
    used: set[int] = field(default_factory=set)

    def add(self, word: int, first: int, last: int) -> None:
        """Give characters to a word."""
        self.first.setdefault(word, first)
        self.last[word] = last


def find_words(words: Sequence[str], text: str) -> FoundWords:
    """Find words in the text that they were taken from.

    Parameters
    ----------
    words : sequence of str
        In the order in which they were spoken.
    text : str
        The text, with punctuation or without.

    Returns
    -------
    FoundWords

    Notes
    -----
    Runs of letters and digits are compared without case, accents and apostrophes; what stands
    between them does not count. So quotes and dashes of any kind, hyphens and added or lost
    punctuation make no difference. Where the runs differ, longest equal stretches are kept
    (difflib), and between them words are paired if their letters add up to the same
    (``e-mail``, ``email``), or if there are as many runs on either side (``five``, ``5``).
    Other words of the gap stay without a place, and so do words of the text.

    The span of a word takes in its own outer signs (``$5``, ``goin'``) where the text has
    them. A word of signs only is looked for between its neighbours.
    """
    text_units = _units(text)
    word_units = [(i, unit) for i, word in enumerate(words) for unit in _units(word)]
    pairs = _pair(word_units, text_units)
    spans = _widen(words, text, pairs)
    return FoundWords(
        tuple(spans),
        sum(span is None for span in spans),
        len(pairs.different),
        len(text_units) - len(pairs.used),
    )


def _units(text: str) -> list[_Unit]:
    """Return the runs of letters and digits of a text."""
    found = []
    for match in UNIT.finditer(text):
        key, places = [], []
        for place in range(*match.span()):
            for sign in unicodedata.normalize("NFKD", text[place]).casefold():
                if sign.isalnum() and sign not in APOSTROPHES:
                    key.append(sign)
                    places.append(place)
        if not key:
            key, places = list(match.group()), list(range(*match.span()))
        found.append(_Unit("".join(key), tuple(places)))
    return found


def _pair(word_units: Sequence[tuple[int, _Unit]], text_units: Sequence[_Unit]) -> _Pairs:
    """Pair the runs of the words with those of the text."""
    ours, theirs = [unit.key for _, unit in word_units], [unit.key for unit in text_units]
    head = _n_equal(ours, theirs)
    tail = _n_equal(ours[head:][::-1], theirs[head:][::-1])
    pairs = _Pairs()
    for k in range(head):
        _pair_one(pairs, word_units[k], text_units, k)
    middle = SequenceMatcher(
        None, ours[head : len(ours) - tail], theirs[head : len(theirs) - tail], autojunk=False
    )
    for kind, a, b, c, d in middle.get_opcodes():
        a, b, c, d = a + head, b + head, c + head, d + head
        if kind == "equal":
            for k in range(b - a):
                _pair_one(pairs, word_units[a + k], text_units, c + k)
        elif kind == "replace":
            _mend(pairs, word_units[a:b], text_units, range(c, d))
    for k in range(-tail, 0):
        _pair_one(pairs, word_units[k], text_units, len(text_units) + k)
    return pairs


def _n_equal(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return how many items are equal from the start."""
    n_same = 0
    for mine, other in zip(ours, theirs, strict=False):
        if mine != other:
            break
        n_same += 1
    return n_same


def _pair_one(
    pairs: _Pairs, word_unit: tuple[int, _Unit], text_units: Sequence[_Unit], place: int
) -> None:
    """Pair one run of a word with one run of the text."""
    unit = text_units[place]
    pairs.add(word_unit[0], unit.places[0], unit.places[-1])
    pairs.used.add(place)


def _mend(
    pairs: _Pairs,
    word_units: Sequence[tuple[int, _Unit]],
    text_units: Sequence[_Unit],
    block: range,
) -> None:
    """Pair runs that differ: by letters if these add up to the same, else by their number."""
    letters = "".join(text_units[k].key for k in block)
    if "".join(unit.key for _, unit in word_units) == letters:
        places = [place for k in block for place in text_units[k].places]
        start = 0
        for word, unit in word_units:
            end = start + len(unit.key)
            pairs.add(word, places[start], places[end - 1])
            start = end
        pairs.used.update(block)
    elif len(word_units) == len(block):
        for word_unit, place in zip(word_units, block, strict=True):
            if word_unit[1].key != text_units[place].key:
                pairs.different.add(word_unit[0])
            _pair_one(pairs, word_unit, text_units, place)


def _widen(words: Sequence[str], text: str, pairs: _Pairs) -> list[Span | None]:
    """Return the spans of the words with their outer signs, and find words of signs only."""
    next_start = [len(text)] * (len(words) + 1)
    for word in range(len(words) - 1, -1, -1):
        next_start[word] = pairs.first.get(word, next_start[word + 1])
    spans: list[Span | None] = []
    floor = 0
    for word, given in enumerate(words):
        ceiling = next_start[word + 1]
        span: Span | None = None
        if word in pairs.first:
            start, end = max(floor, pairs.first[word]), pairs.last[word] + 1
            before, after = _outer_signs(given)
            start -= _n_same_signs(text[floor:start][::-1], before[::-1])
            end += _n_same_signs(text[end:ceiling], after)
            span = (start, end) if start < end else None
        elif given and not UNIT.search(given):
            at = text.find(given, floor, ceiling)
            span = None if at < 0 else (at, at + len(given))
        floor = floor if span is None else span[1]
        spans.append(span)
    return spans


def _outer_signs(word: str) -> tuple[str, str]:
    """Return what stands before the first and after the last run of a word."""
    runs = [match.span() for match in UNIT.finditer(word)]
    return word[: runs[0][0]], word[runs[-1][1] :]


def _n_same_signs(text: str, signs: str) -> int:
    """Return how many signs the text has in the same order, from the start."""
    n_same = 0
    for found, wanted in zip(text, signs, strict=False):
        if found != wanted and not (found in APOSTROPHES and wanted in APOSTROPHES):
            break
        n_same += 1
    return n_same
