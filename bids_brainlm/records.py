"""Frozen records that several layers share."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phone:
    """An aligned speech sound; ``onset`` and ``offset`` in s, ``label`` as in the alignment."""

    label: str
    onset: float
    offset: float


@dataclass(frozen=True, slots=True)
class Word:
    """An aligned word. Times in s; ``None`` where the aligner found no time."""

    text: str
    onset: float | None
    offset: float | None
    aligned: str | None = None
    phones: tuple[Phone, ...] = ()
    interpolated: bool = False


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words of one audio file, times relative to its start.

    ``text`` is the punctuated transcript where the source has one. ``has_phones`` tells
    whether the source states phones at all.
    """

    words: tuple[Word, ...]
    text: str | None
    has_phones: bool
    source: str


@dataclass(frozen=True, slots=True)
class TRGrid:
    """The volumes of a story in a run.

    Row ``k`` is volume ``first_volume + k`` and covers ``[onset + k*tr, onset + (k+1)*tr)``
    seconds after the run's first volume.
    """

    first_volume: int
    n_trs: int
    tr: float

    @property
    def onset(self) -> float:
        """Time of row 0 in s from the run's first volume."""
        return self.first_volume * self.tr

    def bin(self, time: float) -> int:
        """Row of a time in s (half-open bins); may lie outside ``0 .. n_trs - 1``.

        A time within a tenth of a microsecond below a border belongs to the next bin, so that
        sums such as 2.9999999999999996 + 12.0 do not slip by one volume. A whole microsecond
        would be too much: Gentle cuts times there, and 230.999999 stays below 231 in the paper.
        """
        return math.floor((time + 1e-7) / self.tr) - self.first_volume
