"""The interactive view of group maps on the cortex: what the drawing script is given.

Notes
-----
The page draws by itself, without a library and without WebGL (see ``templates/brainview.js``),
so that it works offline, over remote desktops and for as long as browsers draw pixels. Vertices
get their parcels as in `figures_surface.project`, colours end where those of the static maps
end. Numbers are rounded to 1/32000 of the largest value of a map; whether a parcel is
significant is decided here, on the full values.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from bids_brainlm.report import common, figures_surface
from bids_brainlm.report.content import BrainView, GroupStory, ParcelMap, Text
from bids_brainlm.report.group_scores import column_of

STATISTICS = {
    "mean": ("mean r", "q"),
    "normalized": ("r / ceiling", "q"),
    "effect": ("effect size (d)", "q"),
    "unique": ("unique R²", "uniqueq"),
    "rjoint": ("joint r", "rjointq"),
    "gain": ("gain in R²", "gainq"),
    "preferredlayer": ("preferred layer", "q"),
    "loading": ("loading (r)", ""),
    "isc": ("ISC (r)", "iscq"),
    "splithalf": ("split-half r", ""),
    "crosssubject": ("cross-subject r", ""),
}
"""Statistics of the view in order: words, and the statistic with their q-values."""

MOST_VALUES = 600_000
"""Values of all maps of a view; beyond, maps keep the column with the highest mean only."""

MOST_NAMES = 1200
"""Parcels up to which the page lists their names for choice."""

_TOP = 32_000
_NONE = -32_768
_NOWHERE = 65_535


def block(story: GroupStory, name: str) -> BrainView | Text:
    """Make the interactive view of a story, or say why there is none.

    Parameters
    ----------
    story : GroupStory
    name : str
        Anchor of the view.

    Returns
    -------
    BrainView or Text
    """
    labels = story.labels
    if labels is None or not labels.is_anatomical:
        return Text(
            f"There is no brain map: the images of atlas {story.atlas} do not say where its "
            "parcels lie in a template brain."
        )
    data, used = _data(story)
    words = "parcels or regions of interest" if len(data["sets"]) > 1 else "parcels"
    return BrainView(
        anchor=name,
        title="Brain view",
        caption=(
            f"Group maps of n = {len(story.people)} participants on the cortex of fsaverage5, one "
            f"value for each of the {words}. Drag or use the arrow keys to turn the hemispheres, "
            "point at a parcel for its value, click to keep it and to see its values over layers "
            "or heads. Colours end where those of the static maps end, for all layers and heads "
            "of a map; lines part what is shown from what is left out. How to read it: choose "
            "a layer or head before looking, since the highest of many is high by chance as well; "
            "grey cortex has no value, or one below the threshold."
        ),
        data=json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False),
        files=used,
    )


def _data(story: GroupStory) -> tuple[dict, tuple[str, ...]]:
    """Return what the script draws, and the paths of the mean maps behind it."""
    first = next(iter(story.maps.values()))
    rows = {s: figures_surface.project(story.labels, first.index, s) for s in figures_surface.SIDES}
    budget = [MOST_VALUES]
    sets = [_set("Parcels", story, rows, budget)]
    if story.regions is not None and story.regions.maps:
        found = _regions(story, first, rows)
        if found is not None:
            sets.append(_set("Regions of interest", story.regions, found, budget))
    used = [m.path for (_, stat), m in story.maps.items() if stat in ("mean", "isc")]
    return {"colours": _colours(), "sets": [s for s in sets if s["maps"]]}, tuple(used)


def _regions(
    story: GroupStory, first: ParcelMap, rows: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """Return the region of each vertex; None where it is not known which parcels it has."""
    item = next((m for m in story.regions.maps.values() if m.meta.get("Regions")), None)
    if item is None:
        return None
    owner = {
        parcel: item.names.index(str(region["Name"]))
        for region in item.meta["Regions"]
        if str(region["Name"]) in item.names
        for parcel in region["Parcels"]
    }
    of_parcel = np.array([*(owner.get(name, -1) for name in first.names), -1])
    return {side: of_parcel[found] for side, found in rows.items()}


def _set(
    title: str, story: GroupStory, rows: Mapping[str, np.ndarray], budget: list[int]
) -> dict[str, object]:
    """Return maps that share their rows; rows that no vertex shows are left out."""
    first = next(iter(story.maps.values()))
    seen = np.unique(np.concatenate([r[r >= 0] for r in rows.values()]))
    place = np.full(len(first.index) + 1, _NOWHERE)
    place[seen] = np.arange(len(seen))
    columns = common.place_columns(story.labels) if story.labels is not None else []
    where = [common.place_of(story.labels, first.index[k], columns) for k in seen]
    return {
        "title": title,
        "names": [first.names[k] for k in seen],
        "places": [", ".join(p for p in one if p) for one in where] if columns else [],
        "isListed": len(seen) <= MOST_NAMES,
        "hidden": len(first.index) - len(seen),
        "rows": {side: _coded(place[found], "<u2") for side, found in rows.items()},
        "maps": _maps(story, seen, budget),
    }


def _maps(story: GroupStory, seen: np.ndarray, budget: list[int]) -> list[dict[str, object]]:
    """Return the maps in the order of the page."""
    components = sorted({d for d, stat in story.maps if stat == "loading"})
    descs = [*story.descs(), *story.across(), *components, "", "nuisance"]
    made = []
    for desc in dict.fromkeys(descs):
        for stat, (label, q_stat) in STATISTICS.items():
            item = story.maps.get((desc, stat))
            if item is None or not np.isfinite(item.values).any():
                continue
            q = story.maps.get((desc, q_stat))
            made.append(_map(story, item, q, seen, label, budget))
    return made


def _map(
    story: GroupStory,
    item: ParcelMap,
    q: ParcelMap | None,
    seen: np.ndarray,
    label: str,
    budget: list[int],
) -> dict[str, object]:
    """Return one statistic of a feature space."""
    columns = [c for c in item.columns if c not in ("ci_low", "ci_high")]
    scores = story.maps.get((item.desc, "mean"), item)
    best = column_of(scores)
    best = best if best in columns else columns[0]
    kept = columns
    if len(seen) * len(columns) * 2 > budget[0]:
        kept = [best]
    budget[0] -= len(seen) * len(kept) * 2
    steps = item.stat == "preferredlayer"
    partial = item.stat == "mean" and item.desc.endswith("Partial")
    return {
        "space": "Ceilings" if not item.desc else common.feature_words(item.desc, item.meta),
        "label": f"partial {label.removeprefix('mean ')}" if partial else label,
        "columns": [common.column_words(c) for c in kept],
        "best": kept.index(best),
        "isReduced": len(kept) < len(columns),
        "limit": float(common.scale_limit(item.column(best))),
        "steps": _layers(scores) if steps else None,
        "values": _packed(np.column_stack([item.column(c) for c in kept])[seen]),
        "q": None if q is None else _q_values(q, kept, seen, over_layers=steps),
    }


def _layers(scores: ParcelMap) -> list[int]:
    """Return the layers that a parcel may prefer."""
    found = [int(c[5:]) for c in common.layers_of(scores.columns) if c != "layer00"]
    return found or [1]


def _packed(values: np.ndarray) -> dict[str, object]:
    """Return values as 16-bit numbers, row by row, and the step between two of them."""
    known = np.isfinite(values)
    top = float(np.abs(values[known]).max(initial=0.0)) or 1.0
    step = top / _TOP
    whole = np.where(known, np.rint(np.where(known, values, 0.0) / step), _NONE)
    return {"step": step, "data": _coded(whole, "<i2")}


def _q_values(
    q: ParcelMap, columns: Sequence[str], seen: np.ndarray, *, over_layers: bool
) -> dict[str, object]:
    """Return q-values; significant ones are below zero, which leaves rounding no say."""
    level = common.fdr_of(q.meta)
    values = np.column_stack([q.column(c) for c in columns])[seen]
    if over_layers:
        found = q.values[seen]
        values = np.where(np.isfinite(found), found, np.inf).min(axis=1, keepdims=True)
        values[~np.isfinite(values)] = np.nan
    known = np.isfinite(values)
    whole = 1 + np.rint(np.where(known, values, 0.0) * (_TOP - 1))
    signed = np.where(values < level, -whole, whole)
    return {
        "level": level,
        "top": _TOP - 1,
        "data": _coded(np.where(known, signed, _NONE), "<i2"),
    }


def _coded(values: np.ndarray, kind: str) -> str:
    """Return an array as base64 of its bytes, little endian."""
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode("ascii")


def _colours() -> dict[str, str]:
    """Return 256 colours of each scale, three bytes each."""
    import matplotlib as mpl

    whole = np.linspace(0, 1, 256)
    return {
        name: _coded(np.rint(mpl.colormaps[colours](whole)[:, :3] * 255), "u1")
        for name, colours in (("diverging", "RdBu_r"), ("steps", "viridis"))
    }


@cache
def mesh() -> str:
    """Return the meshes of fsaverage5 for the script, as JSON; they are the same on every page.

    Returns
    -------
    str
        Coordinates are in hundredths of a millimetre; both hemispheres share their triangles.
    """
    from nilearn import datasets, surface

    files = datasets.fetch_surf_fsaverage("fsaverage5")
    sides = {}
    for side in figures_surface.SIDES:
        own = {
            name: _centred(surface.load_surf_mesh(files[f"{key}_{side}"]).coordinates)
            for name, key in (("inflated", "infl"), ("pial", "pial"))
        }
        sulci = np.packbits(figures_surface.hemisphere(side).is_sulcus, bitorder="little")
        sides[side] = {**own, "sulci": _coded(sulci, "u1")}
    faces = figures_surface.hemisphere("left").faces
    return json.dumps({"faces": _coded(faces, "<u2"), "sides": sides}, separators=(",", ":"))


def _centred(places: np.ndarray) -> str:
    """Return coordinates around the middle of their box."""
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    return _coded(np.rint((places - middle) * 100), "<i2")
