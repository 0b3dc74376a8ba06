"""Brain maps on demand: any statistic of a story or run, on slices, glass brain or surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import ConfigError, MissingInputError
from bids_brainlm.report import common
from bids_brainlm.report.content import GroupStory, ParcelMap, Recording
from bids_brainlm.report.group_scores import column_of

VIEWS = ("all", "slices", "glass", "surface")
LABELS = {
    "mean": "mean r",
    "r": "r",
    "r2": "R²",
    "isc": "ISC (r)",
    "splithalf": "split-half r",
    "crosssubject": "cross-subject r",
    "gain": "gain in R²",
    "unique": "unique R²",
    "rjoint": "joint r",
    "normalized": "r / ceiling",
    "effect": "effect size (d)",
    "preferredlayer": "preferred layer",
    "layerentropy": "layer entropy (bits)",
    "rho": "Spearman ρ",
    "loading": "loading",
    "meanthresholded": "mean r",
}


@dataclass(frozen=True)
class MapChoice:
    """Which map, and how.

    Attributes
    ----------
    desc, stat, column : str
        Empty: the only one, the mean (participants: ``r``), the column with the highest mean.
    view : {"all", "slices", "glass", "surface"}
    threshold : str or float
        ``q``: only parcels below the false discovery rate of the run; a number: only values
        at least this far from zero; empty: all parcels (``all``: as in the report).
    """

    desc: str = ""
    stat: str = ""
    column: str = ""
    view: str = "all"
    threshold: str | float = ""


def draw_map(item: GroupStory | Recording, choice: MapChoice) -> None:
    """Draw a map; call it inside `style.remaking`.

    Parameters
    ----------
    item : GroupStory or Recording
    choice : MapChoice

    Raises
    ------
    ConfigError
        The view, threshold or column is unknown.
    MissingInputError
        There is no such map, or the atlas cannot be drawn on a brain.

    Notes
    -----
    Parcels that do not pass the threshold are left out of the drawing; the colour scale is that
    of all parcels.
    """
    from bids_brainlm.report import figures_brain, figures_surface

    if choice.view not in VIEWS:
        raise ConfigError(f"--view is {choice.view!r}, expected one of {', '.join(VIEWS)}.")
    found = find_map(item, choice)
    labels = item.labels
    if labels is None or not labels.is_anatomical:
        raise MissingInputError(
            f"{item.atlas} in {item.space} cannot be drawn on a brain: its labels are no "
            "anatomical atlas in an MNI space.",
            hint="Draw the scores by parcel with the figure 'parcels'.",
        )
    column = _column(item, found, choice.column)
    values = found.column(column)
    label = LABELS.get(found.stat, found.stat)
    keep = _kept(item, found, column, choice.threshold)
    shown = values if keep is None else np.where(keep, values, np.nan)
    if choice.view == "all":
        if keep is None and (q := _q_of(item, found)) is not None:
            keep = q.column(column) < common.fdr_of(q.meta)
        common.brain_png(labels, found.index, values, keep, label)
        if labels.affine is None:
            return
        whole = common.scale_limit(values)
        figures_surface.surface(labels, found.index, values, label=label, limit=whole)
        return
    if labels.affine is None and choice.view in ("slices", "glass"):
        raise MissingInputError(
            f"--view {choice.view} needs a volume; {item.space} has surfaces.",
            hint="Draw it with --view surface.",
        )
    limit = common.scale_limit(values)
    if choice.view == "surface" and found.stat == "preferredlayer":
        layers = _layers(item, found.desc)
        figures_surface.preferred(labels, found.index, shown, layers, label=label)
        return
    drawn = {
        "slices": figures_brain.slices,
        "glass": figures_brain.glass,
        "surface": figures_surface.surface,
    }[choice.view]
    drawn(labels, found.index, shown, label=label, limit=limit)


def find_map(item: GroupStory | Recording, choice: MapChoice) -> ParcelMap:
    """Find the map that is meant.

    Parameters
    ----------
    item : GroupStory or Recording
    choice : MapChoice

    Returns
    -------
    ParcelMap

    Raises
    ------
    MissingInputError
        There is none, or several feature spaces have it.
    """
    stat = choice.stat or ("r" if isinstance(item, Recording) else "mean")
    descs = sorted(d for d, s in item.maps if s == stat and d != "participants")
    exact = [d for d in descs if d.lower() == choice.desc.lower()]
    near = [d for d in descs if d.lower().endswith(choice.desc.lower())] if choice.desc else descs
    matches = exact or near
    if len(matches) == 1:
        return item.maps[matches[0], stat]
    if matches:
        raise MissingInputError(
            f"Statistic {stat} is there for {', '.join(matches)}.",
            hint=f"Name one: --desc {matches[-1]}.",
        )
    if descs:
        raise MissingInputError(
            f"Story {item.story} has no {stat} of {choice.desc!r}; found {', '.join(descs)}.",
            hint="Name one of these with --desc.",
        )
    stats = sorted({s for _, s in item.maps})
    raise MissingInputError(
        f"Story {item.story} has no statistic {stat!r}; found {', '.join(stats) or 'none'}.",
        hint="Name one of these with --stat.",
    )


def _column(item: GroupStory | Recording, found: ParcelMap, wanted: str) -> str:
    """Return the column that is meant; the best of the scores where none is named."""
    if wanted:
        number = f"layer{int(wanted):02d}" if wanted.isdigit() else wanted
        for column in found.columns:
            if column.lower() in (wanted.lower(), number):
                return column
        raise ConfigError(
            f"--column is {wanted!r}, but {found.path} has {', '.join(found.columns)}.",
        )
    score = "r" if isinstance(item, Recording) else "mean"
    best = item.maps.get((found.desc, score), found)
    column = column_of(best)
    return column if column in found.columns else found.columns[0]


def _q_of(item: GroupStory | Recording, found: ParcelMap) -> ParcelMap | None:
    """Return the q-values that belong to a statistic, if any."""
    for stat in (f"{found.stat}q", "q"):
        q = item.maps.get((found.desc, stat))
        if q is not None and (stat != "q" or found.stat not in ("isc", "unique", "rjoint")):
            return q
    return None


def _kept(
    item: GroupStory | Recording, found: ParcelMap, column: str, threshold: str | float
) -> np.ndarray | None:
    """Return which parcels pass the threshold, None where there is none."""
    if threshold == "":
        return None
    if threshold == "q":
        q = _q_of(item, found)
        if q is None:
            raise MissingInputError(
                f"{found.path} has no q-values beside it.",
                hint="Give a number to --threshold, or leave it out.",
            )
        return q.column(column) < common.fdr_of(q.meta)
    try:
        least = float(threshold)
    except ValueError:
        raise ConfigError(
            f"--threshold is {threshold!r}, expected q or a number in the unit of the map."
        ) from None
    return np.abs(np.nan_to_num(found.column(column))) >= least


def _layers(item: GroupStory | Recording, desc: str) -> list[int]:
    """Return the layers that a parcel may prefer."""
    scores = item.maps.get((desc, "mean"))
    columns = common.layers_of(scores.columns) if scores is not None else ()
    found = [int(c[5:]) for c in columns if c != "layer00"]
    return found or [1]
