"""Praat TextGrids in text format, long or short: intervals and tiers."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bids_brainlm.errors import TranscriptError

# As Praat reads: only free-standing numbers, quoted texts and flags count, the rest is comment.
PIECES = re.compile(
    r'"(?P<text>[^"]*+(?:""[^"]*+)*+)"'
    r"|(?<!\S)(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?!\S)"
    r"|(?<!\S)(?P<flag><\w+>)(?!\S)"
    r"|(?<!\S)![^\n]*"
    r'|(?P<open>")'
    r'|[^\s"]+',
    re.ASCII,
)
SILENCES = frozenset(
    ("", "sp", "sil", "spn", "<p>", "<p:>", "<sil>", "<sp>", "<spn>", "<eps>", "{sl}", "{ns}", "#")
)
WORD_TIERS = ("word", "words")
PHONE_TIERS = ("phone", "phones", "phoneme", "phonemes")


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval of a tier; times in s; ``line`` of the file where its text is."""

    onset: float
    offset: float
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier; point tiers have no intervals."""

    name: str
    is_interval: bool
    intervals: tuple[Interval, ...]

    def is_called(self, names: Sequence[str]) -> bool:
        """Tell whether the name, or its part behind a speaker, is one of ``names``."""
        return self.name.rpartition(" - ")[2].strip().lower() in names


class _Reader:
    """The numbers, texts and flags of a file, one after the other, with their lines."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.line = 1
        self.breaks = [match.start() for match in re.finditer("\n", text)]
        self.pieces = self._read(text)

    def _read(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield kind and content of what counts."""
        for match in PIECES.finditer(text):
            kind = match.lastgroup
            if kind is None:
                continue
            self.line = bisect_right(self.breaks, match.start() - 1) + 1
            if kind == "open":
                raise self.error("found a quote that is never closed, expected text in quotes")
            content = match.group(kind)
            yield kind, content.replace('""', '"') if kind == "text" else content

    def error(self, message: str) -> TranscriptError:
        """Return an error at the present line."""
        return TranscriptError(f"{self.source}, line {self.line}: {message}.")

    def take(self, kind: str, what: str) -> str:
        """Return the next piece, which must be of a kind."""
        found = next(self.pieces, None)
        if found is None:
            raise self.error(f"the file ends here, expected {what}")
        if found[0] != kind:
            raise self.error(f"found {found[1][:40]!r}, expected {what}")
        return found[1]

    def time(self, what: str) -> float:
        """Return the next piece as s."""
        digits = self.take("number", what)
        value = float(digits) if len(digits) <= 40 else math.inf
        if not math.isfinite(value):
            raise self.error(f"found {digits[:40]}, expected {what}")
        return value

    def count(self, what: str) -> int:
        """Return the next piece as a count."""
        digits = self.take("number", what)
        if not digits.isdigit() or len(digits) > 12:
            raise self.error(f"found {digits[:40]!r}, expected {what}")
        return int(digits)


def read_tiers(text: str, source: str) -> list[Tier]:
    """Read the tiers of a TextGrid.

    Parameters
    ----------
    text : str
        The file, in Praat's long or short text format.
    source : str
        Name for messages.

    Returns
    -------
    list of Tier
        In the order of the file.

    Raises
    ------
    TranscriptError
        Not a TextGrid in text format, or cut short; with the line.
    """
    reader = _Reader(text, source)
    if text.startswith("ooBinaryFile"):
        raise reader.error("found a binary TextGrid, expected text (in Praat: Save as text file)")
    if not reader.take("text", 'the file type "ooTextFile"').startswith("ooTextFile"):
        raise reader.error('expected the file type "ooTextFile"')
    if reader.take("text", 'the object class "TextGrid"') != "TextGrid":
        raise reader.error('expected the object class "TextGrid"')
    reader.time("the start of the grid in s")
    reader.time("the end of the grid in s")
    if reader.take("flag", "<exists>") != "<exists>":
        raise reader.error("found a TextGrid without tiers, expected <exists>")
    n_tiers = reader.count("the number of tiers")
    return [_tier(reader) for _ in range(n_tiers)]


def _tier(reader: _Reader) -> Tier:
    """Read one tier."""
    kind = reader.take("text", "a tier")
    if kind not in ("IntervalTier", "TextTier"):
        raise reader.error(f"found {kind[:40]!r}, expected an IntervalTier or a TextTier")
    name = reader.take("text", "the name of a tier")
    reader.time("the start of a tier in s")
    reader.time("the end of a tier in s")
    size = reader.count("the number of intervals")
    if kind == "TextTier":
        for _ in range(size):
            reader.time("a time in s")
            reader.take("text", "the text of a point")
        return Tier(name, False, ())
    intervals: list[Interval] = []
    for _ in range(size):
        onset = reader.time("the start of an interval in s")
        offset = reader.time("the end of an interval in s")
        if offset < onset:
            raise reader.error(
                f"an interval ends at {offset:g} s, expected an end after its start at {onset:g} s"
            )
        label = reader.take("text", "the text of an interval")
        intervals.append(Interval(onset, offset, label, reader.line))
    return Tier(name, True, tuple(intervals))


def speech(tier: Tier) -> list[Interval]:
    """Return the intervals of a tier that are not silences.

    Parameters
    ----------
    tier : Tier
        Words or phones.

    Returns
    -------
    list of Interval
    """
    return [item for item in tier.intervals if item.text.strip().lower() not in SILENCES]


def phone_tier(tiers: Sequence[Tier]) -> Tier | None:
    """Return the first interval tier with the name of a phone tier.

    Parameters
    ----------
    tiers : sequence of Tier
        All of a file.

    Returns
    -------
    Tier or None
    """
    found = (tier for tier in tiers if tier.is_interval and tier.is_called(PHONE_TIERS))
    return next(found, None)


def word_tier(tiers: Sequence[Tier], source: str) -> Tier:
    """Return the word tier: by name, else the first interval tier that is no phone tier.

    Parameters
    ----------
    tiers : sequence of Tier
        All of a file.
    source : str
        Name for messages.

    Returns
    -------
    Tier

    Raises
    ------
    TranscriptError
        There is none.
    """
    intervals = [tier for tier in tiers if tier.is_interval]
    named = [tier for tier in intervals if tier.is_called(WORD_TIERS)]
    others = [tier for tier in intervals if not tier.is_called(PHONE_TIERS)]
    for candidates in (named, others):
        if candidates:
            return candidates[0]
    names = ", ".join(repr(tier.name) for tier in tiers[:12]) or "none"
    raise TranscriptError(
        f"{source}: found the tiers {names}, expected an interval tier called word or words."
    )
