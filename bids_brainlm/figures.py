"""Figures of the reports from Python: the same drawings as matplotlib figures, in other looks."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bids_brainlm.bidsio.names import Names
from bids_brainlm.errors import ConfigError, MissingInputError
from bids_brainlm.report import remake, remake_maps, style
from bids_brainlm.report.content import GroupStory, Recording
from bids_brainlm.report.remake import PageFigure
from bids_brainlm.report.remake_maps import MapChoice
from bids_brainlm.steps import reports

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAP = "map"
ALIASES = {
    "layercurves": "regionlayers",
    "correspondencematrix": "correspondenceregions",
    "examples": "correspondenceexamples",
    "preferredlayermap": "preferredmap",
    "headmatrix": "regionheads",
    "scree": "specializationscree",
    "associations": "specializationlinks",
    "ceilings": "isc",
}
"""Other names of figures, without dashes; the names of the report's files hold as well."""

MANY = 2000
"""Shapes from which on a part of a figure becomes a bitmap in SVG and PDF files."""

DPI = 300


def list_figures(
    out_dir: str | Path,
    *,
    story: str | None = None,
    participant: str | None = None,
    regions: bool = False,
) -> list[PageFigure]:
    """List the figures that can be remade.

    Parameters
    ----------
    out_dir : path-like
        The output dataset.
    story : str, optional
        Only this one.
    participant : str, optional
        The figures of this participant's page, in place of those of the group.
    regions : bool
        Regions of interest in place of parcels.

    Returns
    -------
    list of PageFigure
        In the order of the page.

    Raises
    ------
    MissingInputError
        There are no results.
    """
    items = _items(out_dir, story, participant, regions=regions)
    return [figure for item in items for figure in _of_item(item)]


def plot(
    out_dir: str | Path,
    figure: str,
    *,
    story: str | None = None,
    desc: str | None = None,
    participant: str | None = None,
    session: str | None = None,
    run: str | None = None,
    atlas: str | None = None,
    regions: bool = False,
    rois: Sequence[str] = (),
    stat: str | None = None,
    column: str | int | None = None,
    view: str = "all",
    threshold: str | float | None = None,
    width: float | None = None,
    height: float | None = None,
    cmap: str | None = None,
    limit: float | None = None,
) -> Figure:
    """Draw a figure of a report again.

    Parameters
    ----------
    out_dir : path-like
        The output dataset; nothing is written to it.
    figure : str
        Name as in the report's files (``group/figures/*_<name>.svg``), with or without dashes;
        `list_figures` has them. ``map`` draws any statistic on the brain.
    story, desc, session, run, atlas : str, optional
        Which one; may be left out where there is one. ``desc`` is a feature space
        (``minilmEmbeddings``; its end is enough) or the label of a model.
    participant : str, optional
        Label without prefix: a figure of the participant's page.
    regions : bool
        Regions of interest in place of parcels.
    rois : sequence of str
        Only these regions or parcels.
    stat, column, view, threshold
        Of ``map``: statistic as in the file names, column (a layer's number, ``L01H02``),
        ``all``, ``slices``, ``glass`` or ``surface``; ``q`` (significant parcels only) or a
        number (parcels at least this far from zero).
    width, height : float, optional
        Inches; the size of the report where left out. Text keeps its size.
    cmap : str, optional
        Name of a matplotlib colour map.
    limit : float, optional
        End of the symmetric colour scale, in the unit of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        Shown by notebooks; belongs to no pyplot window. A map with ``view="all"`` is made of
        bitmaps, one a view.

    Raises
    ------
    MissingInputError
        There is no such figure, or several; the message lists them.
    ConfigError
        An option is wrong or does not apply to this figure.

    Examples
    --------
    >>> fig = bids_brainlm.plot("out", "paired", width=4)  # doctest: +SKIP
    >>> fig.savefig("paired.pdf")  # doctest: +SKIP
    """
    asked = style.Remake(width, height, _known_colours(cmap), limit)
    _check_sizes(asked)
    items = _items(out_dir, story, participant, regions=regions)
    places = {"session": session, "run": run, "atlas": atlas}
    items = [i for i in items if _agrees(i, places)]
    if rois:
        items = [remake.restrict(i, list(dict.fromkeys(rois))) for i in items]
    name = _name_of(figure)
    if name == MAP:
        given = "" if column is None else str(column)
        bound = "" if threshold is None else threshold
        choice = MapChoice(desc or "", stat or "", given, view, bound)
        with style.remaking(asked):
            remake_maps.draw_map(_only(items, out_dir), choice)
    else:
        if stat or column is not None or view != "all" or threshold is not None:
            raise ConfigError(
                f"Figure {name} shows one statistic in one view: --stat, --column, --view and "
                "--threshold belong to the figure 'map'.",
                hint="Leave them out, or draw 'map'.",
            )
        item, wanted = _wanted(items, name, desc)
        remake.draw(item, wanted, asked)
    return _checked(asked, name)


def _items(
    out_dir: str | Path, story: str | None, participant: str | None, *, regions: bool
) -> list[GroupStory] | list[Recording]:
    """Read the stories of the group, or the runs of a participant."""
    names = Names(out_dir)
    if participant is not None:
        if regions:
            raise ConfigError("Regions of interest are results of the group: leave out --regions.")
        label = participant.removeprefix("sub-")
        found: list = reports.recordings(names, label, story=story)
    else:
        found = reports.group_stories(names, story=story)
        found = [remake.by_region(one) for one in found] if regions else found
    if not found:
        who = "group results" if participant is None else f"results of participant {participant}"
        what = "" if story is None else f" for story {story!r}"
        raise MissingInputError(
            f"{out_dir} has no {who}{what}.{_others(names, story)}",
            hint="Give the OUTPUT_DIR of bids_brainlm after the group level, or name a story or "
            "participant that is there (--story, --participant-label).",
        )
    return found


def _others(names: Names, story: str | None) -> str:
    """Name the stories that are there, where one was asked for."""
    if story is None:
        return ""
    there = {names.parse(p)[1]["story"] for p in names.find("group_boldmap", {"ext": "tsv"})}
    return f" Stories of the group: {', '.join(sorted(there)) or 'none'}."


def _of_item(item: GroupStory | Recording) -> list[PageFigure]:
    """List the figures of a story or run, the one of any map among them."""
    found = remake.listing(item)
    if any(one.figure == MAP for one in found):
        return found
    if not item.maps or item.labels is None or not item.labels.is_anatomical:
        return found
    return [*found, PageFigure(MAP, item.story, "", item.atlas)]


def _agrees(item: GroupStory | Recording, places: dict[str, str | None]) -> bool:
    """Tell whether session, run and atlas are those that are asked for."""
    own = {key: getattr(item, key, None) for key in places}
    return all(value is None or own[key] == value for key, value in places.items())


def _name_of(figure: str) -> str:
    """Return the name in the report's files."""
    plain = "".join(c for c in figure if c.isalnum()).lower()
    return ALIASES.get(plain, plain)


def _only(items: Sequence[GroupStory | Recording], out_dir: str | Path) -> GroupStory | Recording:
    """Return the one story or run that is meant."""
    if len(items) == 1:
        return items[0]
    there = "; ".join(_place_words(i) for i in items)
    raise MissingInputError(
        f"{out_dir} has {len(items)} stories or runs that fit{': ' + there if there else ''}.",
        hint="Name one: --story, --atlas, and for participants --session and --run.",
    )


def _place_words(item: GroupStory | Recording) -> str:
    """Say which story, run and atlas this is."""
    parts = [f"--story {item.story}", f"--atlas {item.atlas}"]
    for key in ("session", "run"):
        value = getattr(item, key, None)
        parts += [f"--{key} {value}"] if value else []
    return " ".join(parts)


def _wanted(
    items: Sequence[GroupStory | Recording], name: str, desc: str | None
) -> tuple[GroupStory | Recording, PageFigure]:
    """Find the one figure that is meant."""
    listed = [(item, one) for item in items for one in remake.listing(item)]
    named = [(item, one) for item, one in listed if one.figure.lower() == name]
    if not named:
        there = sorted({one.figure for _, one in listed} | {MAP})
        close = difflib.get_close_matches(name, [*there, *ALIASES], n=1, cutoff=0.6)
        near = f" Did you mean {close[0]!r}?" if close else ""
        raise MissingInputError(
            f"There is no figure {name!r} here; found {', '.join(there)}.{near}",
            hint="See bids_brainlm-plot OUT --list; with --participant-label, those of one page.",
        )
    fits = [pair for pair in named if desc is None or pair[1].desc.lower() == desc.lower()]
    if not fits and desc is not None:
        fits = [pair for pair in named if pair[1].desc.lower().endswith(desc.lower())]
    if len(fits) == 1:
        return fits[0]
    shown = fits or named
    words = [f"{_place_words(i)}{f' --desc {one.desc}' if one.desc else ''}" for i, one in shown]
    what = f"is there {len(fits)} times" if fits else f"is not there for {desc!r}"
    raise MissingInputError(
        f"Figure {name} {what}; found {'; '.join(words)}.",
        hint="Name one of these with --story, --desc, --atlas, --session or --run.",
    )


def _known_colours(cmap: str | None) -> str | None:
    """Check the name of a colour map."""
    import matplotlib as mpl

    if cmap is None or cmap in mpl.colormaps:
        return cmap
    close = difflib.get_close_matches(cmap, list(mpl.colormaps), n=3, cutoff=0.5)
    raise ConfigError(
        f"--cmap is {cmap!r}, which matplotlib does not know.",
        hint=f"For example: --cmap {' or '.join(close) or 'viridis'}.",
    )


def _check_sizes(asked: style.Remake) -> None:
    """Refuse sizes that cannot be drawn."""
    for flag, value, least, most in (
        ("--width", asked.width, 0.5, 100.0),
        ("--height", asked.height, 0.5, 100.0),
    ):
        if value is not None and not least <= value <= most:
            raise ConfigError(f"{flag} is {value:g}, expected {least:g} to {most:g} inches.")
    if asked.limit is not None and not asked.limit > 0:
        raise ConfigError(f"--limit is {asked.limit:g}, expected a number above 0.")


def _checked(asked: style.Remake, name: str) -> Figure:
    """Return what was drawn as one figure, after checking that every option did something."""
    for option in ("cmap", "limit"):
        if getattr(asked, option) is not None and option not in asked.used:
            what = "colour map" if option == "cmap" else "symmetric colour scale"
            raise ConfigError(f"Figure {name} has no {what}.", hint=f"Leave --{option} out.")
    parts = asked.figures
    if len(parts) > 1 and asked.height is not None:
        raise ConfigError(
            f"Figure {name} is made of {len(parts)} pictures, whose heights follow from the width.",
            hint="Leave --height out; for maps, or choose one picture with --view.",
        )
    made = parts[0] if len(parts) == 1 else _stacked(parts)
    for drawn in [d for axes in made.axes for d in axes.collections]:
        if len(drawn.get_paths()) > MANY:
            drawn.set_rasterized(True)
            made.set_dpi(DPI)
    made._repr_png_ = partial(style.png, made, 110)  # notebooks show it without pyplot
    return made


def _stacked(parts: Sequence[Figure]) -> Figure:
    """Put pictures under each other, each as a bitmap."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = max(part.get_figwidth() for part in parts)
    height = sum(part.get_figheight() for part in parts)
    with style.drawing():
        whole = Figure(figsize=(width, height))
        top = height
        for part in parts:
            part.set_dpi(DPI)
            drawn = FigureCanvasAgg(part)
            drawn.draw()
            own = part.get_figwidth(), part.get_figheight()
            top -= own[1]
            box = ((width - own[0]) / 2 / width, top / height, own[0] / width, own[1] / height)
            axes = whole.add_axes(box)
            axes.set_axis_off()
            axes.imshow(np.asarray(drawn.buffer_rgba()), interpolation="none", aspect="auto")
    return whole
