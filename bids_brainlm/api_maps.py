"""Read maps and tables from Python: labelled arrays and data frames."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bids_brainlm.bidsio import maps, write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.errors import MissingInputError
from bids_brainlm.steps import regions as roi

if TYPE_CHECKING:
    import xarray

LAYER = re.compile(r"layer(?P<layer>\d+)|L(?P<block>\d+)H(?P<head>\d+)")
LEVELS = ("group", "participant")
NOT_MAPS = ("label",)


@dataclass(frozen=True, order=True)
class MapFile:
    """A map that can be loaded.

    ``feature`` is the ``desc`` of its name, empty for ceilings; ``regions`` tells whether rows
    are regions of interest, not parcels.
    """

    story: str
    feature: str
    stat: str
    atlas: str
    space: str
    participant: str = ""
    session: str = ""
    run: str = ""
    regions: bool = False
    path: Path = field(default=Path(), compare=False, repr=False)


def list_maps(
    out_dir: str | Path,
    *,
    level: str = "group",
    story: str | None = None,
    participant: str | None = None,
    stat: str | None = None,
) -> list[MapFile]:
    """List the maps in an output folder.

    Parameters
    ----------
    out_dir : path-like
        The output dataset.
    level : {"group", "participant"}
    story, participant, stat : str, optional
        Only this one; a participant's label is without prefix.

    Returns
    -------
    list of MapFile
        Sorted. Maps without a sidecar (of a run that was killed) are left out.

    Raises
    ------
    ValueError
        The level is unknown.
    """
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}, expected one of {', '.join(LEVELS)}")
    names = Names(out_dir)
    wanted = {"ext": "tsv"}
    wanted.update({k: v for k, v in (("story", story), ("stat", stat)) if v is not None})
    logical = "group_boldmap"
    if level == "participant" or participant is not None:
        logical = "boldmap"
        if participant is not None:
            wanted["participant"] = participant.removeprefix("sub-")
    found = []
    files = [(path, names.parse(path)[1]) for path in names.find(logical, wanted)]
    atlases = {labels["atlas"] for _, labels in files}
    for path, labels in files:
        if labels["stat"] in NOT_MAPS or not path.with_suffix(".json").is_file():
            continue
        given = {k: v for k, v in labels.items() if k not in ("ext", "desc")}
        base = labels["atlas"].removesuffix(roi.ENDING)
        of_regions = base != labels["atlas"] and base in atlases
        desc = labels.get("desc", "")
        found.append(MapFile(feature=desc, path=path, regions=of_regions, **given))
    return sorted(found)


def load_maps(
    out_dir: str | Path,
    story: str,
    feature: str,
    stat: str | None = None,
    *,
    level: str = "group",
    model: str | None = None,
    participant: str | None = None,
    session: str | None = None,
    run: str | None = None,
    regions: bool = False,
    atlas: str | None = None,
    space: str | None = None,
) -> xarray.DataArray:
    """Load one statistic of a feature space.

    Parameters
    ----------
    out_dir : path-like
        The output dataset.
    story : str
        As in the file names; ``pooled`` for all stories together.
    feature : str
        The ``desc`` of the file name (``minilmEmbeddings``), or a feature space
        (``embeddings``); empty for maps without one, such as ``isc``.
    stat : str, optional
        As in the file name; ``mean`` for the group and ``r`` for participants where left out.
    level : {"group", "participant"}
        The map of the group, or those of all participants.
    model : str, optional
        Label of the model; may be left out where there is one.
    participant, session, run : str, optional
        One participant's map; session and run where there are several.
    regions : bool
        Rows are regions of interest (``--rois``), not parcels.
    atlas, space : str, optional
        Labels of atlas and space; may be left out where there is one.

    Returns
    -------
    xarray.DataArray
        ``(parcel, column)``, for all participants ``(participant, parcel, column)``.
        Coordinates: ``parcel`` (names), ``index`` (numbers in the atlas), ``column``
        (``layer03``, ``L01H02``, ``value`` ...), and by column ``layer`` and ``head`` where
        these are known. ``attrs`` has the essentials of the sidecar. NaN: no value.

    Raises
    ------
    MissingInputError
        There is no such map, or several fit; the message lists them.
    ValueError
        The level is unknown.

    Notes
    -----
    Participants may have different parcels (``--atlas voxelwise``): all parcels are there, NaN
    where a participant lacks one. Runs of a participant are never averaged here.

    Examples
    --------
    >>> bids_brainlm.load_maps("out", "black", "embeddings").sel(column="layer03")  # doctest: +SKIP
    <xarray.DataArray 'mean' (parcel: 400)>
    """
    single = participant is not None
    level = "participant" if single else level
    places = {"session": session, "run": run, "atlas": atlas, "space": space}
    stat = stat or ("mean" if level == "group" else "r")
    fits = list_maps(out_dir, level=level, story=story, participant=participant, stat=stat)
    chosen = _of_feature([m for m in fits if m.regions == regions], feature, model)
    for key, value in places.items():
        chosen = [m for m in chosen if value is None or getattr(m, key) == value]
    if not chosen:
        known = list_maps(out_dir, level=level, participant=participant)
        what = f"{stat} of {feature!r}" if feature else stat
        who = f" of participant {participant!r}" if participant is not None else ""
        raise MissingInputError(
            f"{out_dir} has no {what}{who} for {'regions' if regions else 'parcels'} in story "
            f"{story!r}; {_found(known, story, feature, stat)}.",
            hint="Choose one of list_maps(out_dir), or run the level that makes it.",
        )
    _check_one(chosen)
    names = Names(out_dir)
    if single or level == "group":
        made = _array(chosen[0].path)
    else:
        arrays = [_array(m.path) for m in chosen]
        made = _stacked(arrays, [m.participant for m in chosen])
    made.name = stat
    made.attrs = _attributes(names, chosen)
    return made


def _of_feature(found: Sequence[MapFile], feature: str, model: str | None) -> list[MapFile]:
    """Choose maps by ``desc``, or by feature space and model."""
    exact = [m for m in found if m.feature == feature]
    if exact or not feature:
        return exact
    plain = re.sub(r"[^A-Za-z0-9]", "", feature).lower()
    chosen = []
    for m in found:
        if not m.feature.lower().endswith(plain):
            continue
        meta = write.read_json(m.path.with_suffix(".json"))
        about = meta.get("Model")
        label = str(about.get("Label")) if isinstance(about, Mapping) else ""
        space = re.sub(r"[^A-Za-z0-9]", "", m.feature.removeprefix(label)).lower()
        if space == plain and model in (None, label):
            chosen.append(m)
    return chosen


def _check_one(chosen: Sequence[MapFile]) -> None:
    """Refuse several maps; one map for each participant is one."""
    story, stat = chosen[0].story, chosen[0].stat
    keys = sorted({(m.feature, m.atlas, m.space) for m in chosen})
    if len(keys) > 1:
        there = ", ".join(f"{f or '(none)'} with {a} in {s}" for f, a, s in keys)
        raise MissingInputError(
            f"{stat} of story {story!r} is there for {there}.",
            hint="Name one: load_maps(..., model=..., atlas=..., space=...).",
        )
    people = [m.participant for m in chosen]
    if len(people) != len(set(people)):
        there = ", ".join(sorted({f"session {m.session!r} run {m.run!r}" for m in chosen}))
        raise MissingInputError(
            f"Participants have several maps of {stat} in story {story!r}: {there}.",
            hint="Name one: load_maps(..., session=..., run=...).",
        )


def _found(known: Sequence[MapFile], story: str, feature: str, stat: str) -> str:
    """Say what is there in place of a map, nearest first."""
    mine = [m for m in known if m.story == story]
    if not known:
        return "found no maps"
    if not mine:
        return f"found the stories {', '.join(sorted({m.story for m in known})) or 'none'}"
    if feature not in {m.feature for m in mine} and any(m.stat == stat for m in mine):
        there = sorted({m.feature for m in mine if m.feature and m.stat == stat})
        where = "features"
        wanted = feature
    else:
        own = {m.stat for m in mine if feature in ("", m.feature)}
        there = sorted(own or {m.stat for m in mine})
        where = "statistics"
        wanted = stat
    close = difflib.get_close_matches(wanted, there, n=1, cutoff=0.6)
    near = f" (did you mean {close[0]!r}?)" if close else ""
    return f"found the {where} {', '.join(there)}{near}"


def _array(path: Path) -> xarray.DataArray:
    """Read a table as (parcel, column)."""
    import xarray

    index, parcels, columns, values = maps.read_map(path)
    coords: dict[str, object] = {"parcel": parcels, "index": ("parcel", index), "column": columns}
    places = [LAYER.fullmatch(c) for c in columns]
    if places and all(places):
        coords["layer"] = ("column", [int(p["layer"] or p["block"]) for p in places])
        if all(p["head"] for p in places):
            coords["head"] = ("column", [int(p["head"]) for p in places])
    return xarray.DataArray(values, dims=("parcel", "column"), coords=coords)


def _stacked(arrays: Sequence[xarray.DataArray], people: Sequence[str]) -> xarray.DataArray:
    """Put participants' maps beside each other; parcels that one lacks are NaN."""
    import xarray

    first = arrays[0]
    if not all(
        a["parcel"].equals(first["parcel"]) and a["column"].equals(first["column"]) for a in arrays
    ):
        numbers = {}
        for one in arrays:
            numbers.update(zip(one["parcel"].values, one["index"].values, strict=True))
        columns = list(dict.fromkeys(c for a in arrays for c in a["column"].values))
        arrays = [
            a.drop_vars(["index", "layer", "head"], errors="ignore").reindex(
                parcel=list(numbers), column=columns
            )
            for a in arrays
        ]
        arrays = [a.assign_coords(index=("parcel", list(numbers.values()))) for a in arrays]
    joined = xarray.concat(
        arrays, dim="participant", join="exact", coords="minimal", compat="override"
    )
    return joined.assign_coords(participant=list(people))


def _attributes(names: Names, chosen: Sequence[MapFile]) -> dict[str, object]:
    """Return the essentials of a sidecar, as plain texts and numbers."""
    first = chosen[0]
    meta = write.read_json(first.path.with_suffix(".json"))
    model = meta.get("Model")
    test = meta.get("Inference")
    test = test if isinstance(test, Mapping) else {}
    found: dict[str, object] = {
        "story": first.story,
        "feature": first.feature,
        "stat": first.stat,
        "space": first.space,
        "atlas": first.atlas,
        "description": str(meta.get("Description", "")),
        "feature_space": str(meta.get("FeatureSpace") or ""),
        "model": str(model.get("Name") or "") if isinstance(model, Mapping) else "",
        "test": str(test.get("Test") or ""),
        "family": str(test.get("Family") or ""),
        "key": str(meta.get("Key", "")),
        "files": [names.relative(m.path) for m in chosen],
    }
    if isinstance(test.get("FDR"), (int, float)):
        found["fdr"] = float(test["FDR"])
    if meta.get("NumberOfParticipants") is not None:
        found["n_participants"] = int(meta["NumberOfParticipants"])
    if len(chosen) == 1 and first.participant:
        found["participant"] = first.participant
    return found
