"""What pages are made of and what they are made from: plain frozen records.

The first half holds the measurements that the step reads from the output folder, the second
half the blocks of a page. Nothing here knows of files, HTML or matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from bids_brainlm.report.spaces import across, within


@dataclass(frozen=True)
class ParcelMap:
    """One statistic of one feature space.

    ``values`` has shape (n_parcels, n_columns); ``columns`` are layers (``layer00``), heads
    (``L01H01``), participants, or ``value``. ``path`` is relative to the output folder.
    """

    path: str
    desc: str
    stat: str
    index: tuple[int, ...]
    names: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    meta: Mapping[str, object]

    def column(self, name: str) -> np.ndarray:
        """Return one column, shape (n_parcels,); NaN where the map lacks it."""
        if name not in self.columns:
            return np.full(len(self.index), np.nan)
        return self.values[:, self.columns.index(name)]


@dataclass(frozen=True)
class Words:
    """The words of a story; ``rows`` has one TR row a word, -1 outside the story window."""

    story: str
    path: str
    rows: np.ndarray
    first_word: str
    last_word: str
    meta: Mapping[str, object]


@dataclass(frozen=True)
class StimulusFile:
    """A file of stimulus features; ``path`` is relative to the output folder.

    ``n_columns`` and ``n_empty`` (TRs without values) are ``None`` where they are not stated.
    """

    path: str
    name: str
    description: str
    n_columns: int | None
    n_empty: int | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Representations:
    """How embeddings and transformations of a model relate in one story.

    ``matrices`` holds the table's parts by name: ``rdm`` (embeddings x transformations, by
    layer), ``autocorrelation-embeddings`` and ``-transformations`` (layer x lag). ``layers``
    numbers their rows.
    """

    model: str
    path: str
    layers: tuple[int, ...]
    matrices: Mapping[str, np.ndarray]
    meta: Mapping[str, object]


@dataclass(frozen=True)
class HeadDecoding:
    """What the heads of a model decode in one story.

    ``accuracy`` and ``q`` have shape (n_heads, n_labels); ``heads`` are ``L01H01`` ...,
    ``layers`` their layers.
    """

    model: str
    path: str
    heads: tuple[str, ...]
    layers: tuple[int, ...]
    labels: tuple[str, ...]
    accuracy: np.ndarray
    q: np.ndarray
    meta: Mapping[str, object]


@dataclass(frozen=True)
class Comparison:
    """Feature spaces compared in pairs.

    ``values`` maps ``difference``, ``q`` ... to arrays (n_pairs, n_regions); ``scores`` maps
    each feature space to participants' r (n_people, n_regions) at the layer that the other
    half of the participants chooses.
    """

    path: str
    scores_path: str
    regions: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    values: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]
    meta: Mapping[str, object]


@dataclass(frozen=True)
class HeadComponents:
    """Principal components of the heads' weights of one model.

    ``scores`` has shape (n_heads, n_components); ``share``, ``agreement``,
    ``null_95``, ``p`` and ``reliability`` have one value a component; ``associations`` maps
    ``rho``, ``q`` ... to arrays (n_components, n_covariates). ``lookback`` is in tokens, one
    value a head.
    """

    desc: str
    path: str
    associations_path: str
    heads: tuple[str, ...]
    layers: tuple[int, ...]
    lookback: np.ndarray | None
    scores: np.ndarray
    share: np.ndarray
    agreement: np.ndarray
    null_95: np.ndarray
    p: np.ndarray
    reliability: np.ndarray
    covariates: tuple[str, ...]
    associations: Mapping[str, np.ndarray]
    meta: Mapping[str, object]


@dataclass(frozen=True)
class Labels:
    """An atlas on a grid: ``image`` (x, y, z) holds parcel numbers, ``affine`` is in mm.

    ``table`` maps them to columns. Surfaces: one number a vertex of fsaverage5, no affine.
    """

    path: str
    space: str
    image: np.ndarray
    affine: np.ndarray | None
    table: Mapping[int, Mapping[str, str]]

    @property
    def is_anatomical(self) -> bool:
        """Tell whether the labels can be drawn on a template brain."""
        if self.affine is None:
            return bool(self.space)
        return self.space.startswith("MNI") and int((self.image > 0).sum()) > 1000


@dataclass(frozen=True)
class Recording:
    """Everything that was made from one run of one participant for one story."""

    participant: str
    story: str
    session: str | None
    run: str | None
    space: str
    atlas: str
    words: Words | None
    series_path: str | None
    series_meta: Mapping[str, object]
    labels: Labels | None
    maps: Mapping[tuple[str, str], ParcelMap]
    stimulus: tuple[StimulusFile, ...] = ()

    @property
    def title(self) -> str:
        """Name the recording for people."""
        parts = [
            f"Story {self.story}",
            self.session and f"session {self.session}",
            self.run and f"run {self.run}",
        ]
        return ", ".join(p for p in parts if p)

    def descs(self) -> tuple[str, ...]:
        """Return the feature spaces with a score within the run, nuisance left out."""
        return within(self.maps, "r")

    def across(self) -> tuple[str, ...]:
        """Return the feature spaces with a score across stories or runs."""
        return across(self.maps, "r")


@dataclass(frozen=True)
class Person:
    """What the group page says about one participant of a story.

    ``edge_share`` is the share of penalties at an end of the grid, ``motion`` the mean
    framewise displacement in mm; ``None`` where it is not known.
    """

    participant: str
    n_runs: int
    n_volumes: int
    edge_share: float | None
    motion: float | None


@dataclass(frozen=True)
class GroupStory:
    """The group's maps of one story and the scores of its participants.

    ``scores`` maps (feature space, statistic) to an array (n_people, n_parcels, n_columns) in
    the order of ``people``; runs of one participant are averaged, NaN where there is none.
    ``regions`` holds the same maps for regions of interest, where there are any.
    """

    story: str
    space: str
    atlas: str
    labels: Labels | None
    maps: Mapping[tuple[str, str], ParcelMap]
    people: tuple[Person, ...]
    scores: Mapping[tuple[str, str], np.ndarray]
    stimulus: tuple[StimulusFile, ...] = ()
    representations: tuple[Representations, ...] = ()
    decoding: tuple[HeadDecoding, ...] = ()
    comparison: Comparison | None = None
    components: tuple[HeadComponents, ...] = ()
    regions: GroupStory | None = None
    alignment: Mapping[str, object] = field(default_factory=dict)

    def descs(self) -> tuple[str, ...]:
        """Return the feature spaces with a group mean within the story, nuisance left out."""
        return within(self.maps, "mean")

    def across(self) -> tuple[str, ...]:
        """Return the feature spaces with a group mean across stories or runs."""
        return across(self.maps, "mean")


@dataclass(frozen=True)
class RunFacts:
    """How the app was called and what happened; ``skipped`` and ``failed`` are (what, why)."""

    settings: Mapping[str, object]
    command: str
    version: str
    warnings: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Notice:
    """A paragraph that must be seen."""

    kind: ClassVar[str] = "notice"
    text: str
    level: Literal["good", "note", "warning", "error"] = "note"


@dataclass(frozen=True)
class Code:
    """Text to copy, kept as it is."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Picture:
    """A figure with its caption and the files behind it (paths relative to the output)."""

    kind: ClassVar[str] = "picture"
    path: str
    data: bytes
    alt: str
    title: str
    caption: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A table column; numbers are right-aligned and rounded to ``digits``."""

    name: str
    number: bool = False
    digits: int = 3
    help: str = ""


@dataclass(frozen=True)
class Table:
    """A sortable table; NaN and ``None`` are shown as a dash."""

    kind: ClassVar[str] = "table"
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[object, ...], ...]
    caption: str = ""
    files: tuple[str, ...] = ()
    sortable: bool = True


@dataclass(frozen=True)
class Pairs:
    """Names and values side by side."""

    kind: ClassVar[str] = "pairs"
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class References:
    """Numberless reference list: (text, DOI)."""

    kind: ClassVar[str] = "references"
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BrainView:
    """An interactive view of maps on the cortex; ``data`` is the JSON that its script draws."""

    kind: ClassVar[str] = "brainview"
    anchor: str
    title: str
    caption: str
    data: str
    files: tuple[str, ...] = ()


Block = Text | Notice | Code | Picture | Table | Pairs | References | BrainView


@dataclass(frozen=True)
class Section:
    """A part of a page with its place in the navigation."""

    anchor: str
    title: str
    blocks: tuple[Block, ...] = ()
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True)
class Card:
    """A number to see first."""

    value: str
    label: str
    note: str = ""
    level: Literal["", "good", "warning", "error"] = ""


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    lead: str
    facts: tuple[tuple[str, str], ...]
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]
    version: str
    notices: tuple[Notice, ...] = field(default=())

    def blocks(self) -> tuple[Block, ...]:
        """Return every block of the page, in order."""
        stack, found = list(self.sections), []
        while stack:
            section = stack.pop(0)
            found += section.blocks
            stack = list(section.sections) + stack
        return tuple(found)

    def pictures(self) -> tuple[Picture, ...]:
        """Return every picture of the page."""
        return tuple(b for b in self.blocks() if isinstance(b, Picture))
