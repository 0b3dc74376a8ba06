"""Figures of the report again: the page is put together, but one figure only is drawn.

Notes
-----
Every figure of a page gets its name just before it is drawn. A naming that knows which one is
wanted switches the drawing on and off (`style.Remake`); so a figure that is remade shows what
the page shows, and there is no second description of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bids_brainlm.errors import ConfigError, MissingInputError
from bids_brainlm.report import group, participant, style
from bids_brainlm.report.content import (
    Comparison,
    GroupStory,
    Labels,
    ParcelMap,
    Recording,
    RunFacts,
)
from bids_brainlm.report.methods import Methods

Item = GroupStory | Recording


@dataclass(frozen=True)
class PageFigure:
    """A figure of a page, as `bids_brainlm.plot` is asked for it.

    ``desc`` is the feature space, or the label of the model; ``participant`` is empty for
    figures of the group; empty texts are what does not apply.
    """

    figure: str
    story: str
    desc: str
    atlas: str
    participant: str = ""
    session: str = ""
    run: str = ""


@dataclass
class _Recorder:
    """A naming that notes every figure, and has the drawing done of the wanted one."""

    item: Item
    asked: style.Remake
    wanted: PageFigure | None = None
    found: list[PageFigure] = field(default_factory=list)

    def __call__(self, figure: str, ext: str, **labels: str | None) -> str:
        """Note a figure."""
        own = {k: labels.get(k) or "" for k in ("story", "desc", "session", "run")}
        who = self.item.participant if isinstance(self.item, Recording) else ""
        made = PageFigure(figure=figure, atlas=self.item.atlas, participant=who, **own)
        self.found.append(made)
        self.asked.is_wanted = made == self.wanted
        return f"{figure}.{ext}"


@dataclass(frozen=True)
class _Part(Labels):
    """Some parcels of an atlas; it is as anatomical as the whole, however few voxels it has."""

    of_brain: bool = True

    @property
    def is_anatomical(self) -> bool:
        """Tell whether the whole atlas can be drawn on a template brain."""
        return self.of_brain


def _replay(item: Item, recorder: _Recorder) -> None:
    """Put the page of one story or run together."""
    facts = RunFacts({}, "", "")
    recorder.asked.is_wanted = False
    with style.remaking(recorder.asked):
        if isinstance(item, Recording):
            participant.participant_page(item.participant, [item], facts, recorder)
        else:
            group.group_page([item], facts, recorder, Methods((), ()))


def listing(item: Item) -> list[PageFigure]:
    """List the figures of one story's or run's part of a page; nothing is drawn.

    Parameters
    ----------
    item : GroupStory or Recording

    Returns
    -------
    list of PageFigure
        In the order of the page.
    """
    recorder = _Recorder(item, style.Remake())
    _replay(item, recorder)
    return list(dict.fromkeys(recorder.found))


def draw(item: Item, wanted: PageFigure, asked: style.Remake) -> None:
    """Draw one figure of a page; ``asked.figures`` gets it.

    Parameters
    ----------
    item : GroupStory or Recording
    wanted : PageFigure
        One of `listing`.
    asked : Remake
    """
    _replay(item, _Recorder(item, asked, wanted))


def by_region(story: GroupStory) -> GroupStory:
    """Return the regions of interest in place of the parcels, with an atlas of regions.

    Parameters
    ----------
    story : GroupStory

    Returns
    -------
    GroupStory

    Raises
    ------
    MissingInputError
        The group level was run without regions.
    """
    if story.regions is None:
        raise MissingInputError(
            f"Story {story.story} with {story.atlas} has no results for regions of interest.",
            hint="Run the group level with --rois, or leave --regions out.",
        )
    labels = story.labels
    if labels is not None:
        members = _members(story)
        place = {name: k for k, (name, _) in enumerate(_parcels(story))}
        rows = np.zeros(len(place) + 1, np.int64)
        for number, parcels in enumerate(members.values(), start=1):
            rows[[place[p] + 1 for p in parcels if p in place]] = number
        labels = replace(labels, image=rows[_rows_of_voxels(labels, _parcels(story))], table={})
    maps = {
        key: replace(one, meta={k: v for k, v in one.meta.items() if k != "Regions"})
        for key, one in story.regions.maps.items()
    }  # or the page would look for the regions' parcels among them
    return replace(story.regions, labels=labels, maps=maps)


def _parcels(item: Item) -> list[tuple[str, int]]:
    """Return name and number of the parcels of a story or run."""
    known = next(iter(item.maps.values()), None)
    return [] if known is None else list(zip(known.names, known.index, strict=True))


def _members(story: GroupStory) -> Mapping[str, Sequence[str]]:
    """Return the parcels of each region of interest."""
    maps = story.regions.maps.values() if story.regions is not None else ()
    for item in maps:
        if item.meta.get("Regions"):
            return {str(r["Name"]): list(r["Parcels"]) for r in item.meta["Regions"]}
    return {}


def _rows_of_voxels(labels: Labels, parcels: Sequence[tuple[str, int]]) -> np.ndarray:
    """Return the row of each voxel's parcel counted from 1, 0 outside; as `figures_brain.paint`."""
    image = np.clip(np.asarray(labels.image).astype(np.int64), 0, None)
    numbers = np.array([number for _, number in parcels])
    if not np.isin(np.unique(image[image > 0]), numbers).all():
        return np.where(image <= len(numbers), image, 0)
    rows = np.zeros(int(max(image.max(initial=0), numbers.max(initial=0))) + 1, np.int64)
    rows[numbers] = np.arange(1, len(numbers) + 1)
    return rows[image]


def restrict(item: Item, rois: Sequence[str]) -> Item:
    """Keep only some regions of interest, or only some parcels.

    Parameters
    ----------
    item : GroupStory or Recording
    rois : sequence of str
        Names of regions or, where there are none of these names, of parcels.

    Returns
    -------
    GroupStory or Recording
        In the order of the file. With regions, parcels are those of the regions.

    Raises
    ------
    ConfigError
        A name is unknown.

    Notes
    -----
    Nothing is computed again: q-values keep the family that they were made in.
    """
    parcels = [name for name, _ in _parcels(item)]
    regions = _parcels(item.regions) if isinstance(item, GroupStory) and item.regions else []
    known = [name for name, _ in regions]
    if isinstance(item, GroupStory) and item.regions and set(rois) <= set(known):
        members = _members(item)
        own = {parcel for name in rois for parcel in members.get(name, ())}
        kept = replace(item, regions=_keep(item.regions, set(rois)))
        return _keep(kept, own) if own else kept
    unknown = [name for name in rois if name not in parcels]
    if unknown:
        everything = [*known, *parcels]
        shown = ", ".join(everything[:12]) + (" ..." if len(everything) > 12 else "")
        raise ConfigError(
            f"--rois names {', '.join(unknown)}; {item.atlas} has {shown}.",
            hint="Name regions of interest or parcels as the tables do, not a mix of both.",
        )
    return _keep(item, set(rois))


def _keep(item: Item, names: set[str]) -> Item:
    """Keep the rows of some names in everything that has rows of parcels."""
    parcels = _parcels(item)
    rows = [k for k, (name, _) in enumerate(parcels) if name in names]
    maps = {key: _rows_of(one, names) for key, one in item.maps.items()}
    labels = item.labels
    if labels is not None:
        of_voxels = _rows_of_voxels(labels, parcels)
        numbers = np.zeros(len(parcels) + 1, np.int64)
        for row in rows:
            numbers[row + 1] = parcels[row][1]
        image = numbers[of_voxels]
        labels = _Part(
            labels.path, labels.space, image, labels.affine, labels.table, labels.is_anatomical
        )
    if isinstance(item, Recording):
        return replace(item, maps=maps, labels=labels)
    scores = {key: values[:, rows] for key, values in item.scores.items()}
    compared = None if item.comparison is None else _keep_compared(item.comparison, names)
    return replace(item, maps=maps, labels=labels, scores=scores, comparison=compared)


def _rows_of(one: ParcelMap, names: set[str]) -> ParcelMap:
    """Keep some rows of a map, and of the list of regions in its sidecar."""
    rows = [k for k, name in enumerate(one.names) if name in names]
    meta = dict(one.meta)
    if meta.get("Regions"):
        meta["Regions"] = [r for r in meta["Regions"] if r["Name"] in names]
    return replace(
        one,
        index=tuple(one.index[k] for k in rows),
        names=tuple(one.names[k] for k in rows),
        values=one.values[rows],
        meta=meta,
    )


def _keep_compared(found: Comparison, names: set[str]) -> Comparison:
    """Keep some regions of a comparison."""
    columns = [k for k, name in enumerate(found.regions) if name in names]
    return replace(
        found,
        regions=tuple(found.regions[k] for k in columns),
        values={key: values[:, columns] for key, values in found.values.items()},
        scores={key: values[:, columns] for key, values in found.scores.items()},
    )
