"""ROIs made of parcels: read them from a parcel table or a label image, write the table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import roi_images, write
from bids_brainlm.bidsio.maps import MapSet
from bids_brainlm.errors import ConfigError, DataError, MissingInputError, OutputError

HEMISPHERES = ("both", "left", "right", "separate")
_CYCLE = ("#0000E0", "#806000", "#60A060", "#A03070", "#505050", "#00A0A0", "#A080E0")
_SIDES = {"l": "L", "lh": "L", "left": "L", "r": "R", "rh": "R", "right": "R"}
_IN_NAME = re.compile(r"(?:^|[_-])(LH|RH|L|R)(?:[_-]|$)")
_EMPTY = ("", "n/a")
_FEW_WITH_NUMBERS, _FEW_BY_NAME = 0.5, 0.1  # share of parcels that may be missing in the maps


@dataclass(frozen=True)
class Rois:
    """ROIs of a set of parcels, in the order of the package's table.

    Attributes
    ----------
    names : tuple of str
        ROIs that the table does not know stand behind the others.
    colours : tuple of str
        Hex; left and right of an ROI have the same.
    members : tuple of tuple of str
        Names of the parcels of each ROI.
    hemispheres : tuple of str
        Where the parcels of each ROI lie: L, R or LR.
    warnings : tuple of str
        What to report.
    """

    names: tuple[str, ...]
    colours: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]
    hemispheres: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def parcel_hemispheres(
    names: Sequence[str], x: np.ndarray, stated: Sequence[str] | None = None
) -> list[str]:
    """Return the hemisphere of each parcel.

    Parameters
    ----------
    names : sequence of str
    x : array, shape (n_parcels,)
        Of the centroids, mm.
    stated : sequence of str, optional
        What a table says; empty or ``n/a`` where it says nothing.

    Returns
    -------
    list of str
        L or R; empty where nothing tells.

    Notes
    -----
    The table comes first, then the name (``LH_``, ``_R_`` and the like), then the sign of x. A
    parcel on both sides goes where its centroid lies (R at exactly 0).
    """
    sides = []
    for k, name in enumerate(names):
        side = _SIDES.get(stated[k].strip().lower(), "") if stated is not None else ""
        found = _IN_NAME.search(name)
        if not side and found:
            side = found.group(1)[0]
        if not side and np.isfinite(x[k]):
            side = "L" if x[k] < 0 else "R"
        sides.append(side)
    return sides


def read_rois(path: Path, maps: MapSet, *, hemispheres: str = "both", overlap: float = 0.4) -> Rois:
    """Read ROIs for the parcels of a set of maps.

    Parameters
    ----------
    path : Path
        A table (``.tsv``) with the columns ``roi`` and ``name``, ``index`` or both, and maybe
        ``hemisphere``; or a label image in mm with a table of its names, see
        `roi_images.read_roi_image`.
    maps : MapSet
        The parcels.
    hemispheres : {"both", "left", "right", "separate"}
        Parcels of both hemispheres in one ROI, those of one hemisphere, or an ROI for each
        (``PostTempL``, ``PostTempR``).
    overlap : float
        With an image: a parcel belongs to the ROI that holds most of its voxels, if it holds
        at least this share of them.

    Returns
    -------
    Rois
        ROIs without a parcel are left out, with a warning where the file names them.

    Raises
    ------
    DataError
        The table was made for another atlas, lists a parcel twice, or no parcel is in any ROI.
    ConfigError
        A setting is wrong.
    MissingInputError
        There is no such file.

    Notes
    -----
    A voxel lies in an ROI if the image's voxel that is nearest to its centre, in mm, does.
    Equal shares go to the ROI that comes first. Parcels of the table that the maps lack (outside
    the brain mask) are left out with a warning: up to half of them where numbers and names
    agree, up to a tenth where there are only names. A number with another name is an error: the
    numbers of Schaefer parcels changed between releases.
    """
    if hemispheres not in HEMISPHERES:
        raise ConfigError(
            f"The hemispheres {hemispheres!r} are unknown, expected one of {HEMISPHERES}.",
            hint="Set --roi-hemispheres to one of these.",
        )
    if not 0 < overlap <= 1:
        raise ConfigError(
            f"The overlap is {overlap:g}, expected a share above 0 and up to 1.",
            hint="Set --roi-overlap to a number such as 0.4.",
        )
    if not path.is_file():
        raise MissingInputError(
            f"The ROIs {path} do not exist.", hint="Give a table or an image with --rois."
        )
    is_image = path.name.endswith(roi_images.IMAGES)
    if maps.grid is not None and is_image:
        raise DataError(
            f"{path}: found an image of ROIs in the volume, the maps are on surfaces or CIFTI.",
            hint="Give --rois a table of parcels (columns roi and name).",
        )
    if maps.grid is None:
        owner, xyz = roi_images.voxels(maps.labels, maps.affine)
        x = roi_images.centroids(owner, xyz, len(maps.names))[:, 0]
    else:
        x = _side_of_parcels(maps)
    if is_image:
        assigned, order, warnings = _from_image(path, owner, xyz, len(maps.names), overlap)
        stated = None
    else:
        assigned, stated, order, warnings = _from_table(path, maps)
    sides = parcel_hemispheres(maps.names, x, stated)
    return _group(path, maps.names, assigned, sides, order, hemispheres, warnings)


def _side_of_parcels(maps: MapSet) -> np.ndarray:
    """Return -1 for parcels of the left hemisphere, 1 for the right, NaN for others."""
    number = {"L": -1.0, "R": 1.0}
    of_location = np.array([number.get(str(side), np.nan) for side in maps.grid.sides])
    inside = maps.labels > 0
    owner, signs = maps.labels[inside] - 1, of_location[inside]
    total = np.bincount(owner, np.nan_to_num(signs), len(maps.names))
    return np.where(total != 0, np.sign(total), np.nan)


def _from_image(
    path: Path, owner: np.ndarray, xyz: np.ndarray, n_parcels: int, overlap: float
) -> tuple[list[str], tuple[str, ...], list[str]]:
    """Return the ROI of each parcel (empty for none), the ROIs in order, and warnings."""
    image = roi_images.read_roi_image(path)
    codes = roi_images.values_at(image.labels, image.affine, xyz)
    found = roi_images.shares(owner, codes, n_parcels, len(image.names))
    best = found.argmax(axis=1)
    enough = found.max(axis=1) >= overlap
    assigned = [image.names[k] if ok else "" for k, ok in zip(best, enough, strict=True)]
    return assigned, image.names, list(image.warnings)


def _from_table(
    path: Path, maps: MapSet
) -> tuple[list[str], list[str], tuple[str, ...], list[str]]:
    """Return ROI and stated hemisphere of each parcel, the ROIs in order, and warnings."""
    table = write.read_tsv(path)
    if "roi" not in table or not {"name", "index"} & table.keys():
        raise DataError(
            f"{path}: expected the columns roi and name or index, found {list(table)}.",
            hint="Give a table that bids_brainlm-rois made, or your own, with --rois.",
        )
    rows = _match(path, table, maps)
    assigned, stated = [""] * len(maps.names), [""] * len(maps.names)
    taken: set[int] = set()
    order = tuple(dict.fromkeys(r.strip() for r in table["roi"] if r.strip() not in _EMPTY))
    for line, row in enumerate(rows):
        if row is None:
            continue
        if row in taken:
            raise DataError(
                f"{path}: found the parcel {maps.names[row]} twice, expected each parcel once.",
                hint="A parcel can be in one ROI only; mend the table given with --rois.",
            )
        taken.add(row)
        roi = table["roi"][line].strip()
        assigned[row] = "" if roi in _EMPTY else roi
        stated[row] = table["hemisphere"][line] if "hemisphere" in table else ""
    n_missing = sum(row is None for row in rows)
    warnings = []
    if n_missing:
        warnings.append(f"{path.name}: {n_missing} of {len(rows)} parcels are not in the maps")
    if "name" not in table:
        warnings.append(
            f"{path.name}: parcels are matched by number only, which cannot tell releases of an "
            "atlas apart"
        )
    return assigned, stated, order, warnings


def _match(path: Path, table: Mapping[str, list[str]], maps: MapSet) -> list[int | None]:
    """Return the row of the maps for each line of a table; None where they lack the parcel."""
    by_name = {name: k for k, name in enumerate(maps.names)}
    by_index = {index: k for k, index in enumerate(maps.index)}
    try:
        numbers = [int(float(cell)) for cell in table.get("index", [])]
    except ValueError as error:
        raise DataError(f"{path}: column index: expected integers, found {error}.") from error
    names = table.get("name", [])
    rows: list[int | None] = []
    wrong: list[str] = []
    for line in range(len(table["roi"])):
        found = {by_name.get(names[line])} if names else set()
        if numbers:
            found.add(by_index.get(numbers[line]))
        rows.append(found.pop() if len(found) == 1 else None)
        if found and rows[-1] is None:
            wrong.append(f"{numbers[line]} {names[line]}")
    n_matched = sum(row is not None for row in rows)
    few = _FEW_WITH_NUMBERS if numbers and names else _FEW_BY_NAME
    n_missing = len(rows) - n_matched
    if wrong or not n_matched or n_missing > few * len(rows):
        lacking = [
            str(names[k] if names else numbers[k]) for k, row in enumerate(rows) if row is None
        ]
        raise DataError(
            f"{path}: found {n_matched} of {len(rows)} parcels in the maps, with "
            f"{len(wrong)} numbers that have another name there, such as: "
            f"{', '.join((wrong or lacking)[:3])}. The table was made for another atlas or "
            "another release of it.",
            hint="Make the table for the atlas of the maps with bids_brainlm-rois, and give it "
            "with --rois.",
        )
    return rows


def _group(
    path: Path,
    names: Sequence[str],
    assigned: Sequence[str],
    sides: Sequence[str],
    order: Sequence[str],
    hemispheres: str,
    warnings: list[str],
) -> Rois:
    """Return the ROIs in the order of the table."""
    table = roi_images.roi_table()
    others = [name for name in order if name not in table.names]
    colours = dict(zip(table.names, table.colours, strict=True))
    colours |= {name: _CYCLE[k % len(_CYCLE)] for k, name in enumerate(others)}
    wanted = {"both": ("",), "left": ("L",), "right": ("R",), "separate": ("L", "R")}[hemispheres]
    found = []
    for name in (*table.names, *others):
        for side in wanted:
            own = [k for k, roi in enumerate(assigned) if roi == name and side in ("", sides[k])]
            label = f"{name}{side}" if hemispheres == "separate" else name
            if own:
                where = "".join(sorted({sides[k] for k in own}))
                found.append((label, colours[name], tuple(names[k] for k in own), where))
            elif name in order:
                warnings.append(f"{path.name}: the ROI {label} has no parcel")
    if not found:
        raise DataError(
            f"{path}: found none of the {len(names)} parcels in any ROI "
            f"(hemispheres: {hemispheres}).",
            hint="Check that the file given with --rois is in the space of the atlas (mm), or "
            "lower --roi-overlap.",
        )
    labels, shades, members, where = zip(*found, strict=True)
    return Rois(labels, shades, members, where, tuple(warnings))


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a name that cannot be written, before any work.

    Parameters
    ----------
    path : Path
        Of the table.
    overwrite : bool
        Files that are there may be replaced.

    Raises
    ------
    ConfigError
        The name does not end in ``.tsv``.
    OutputError
        The table or its JSON is there.
    """
    if path.suffix != ".tsv":
        raise ConfigError(
            f"The output {path} is no table.", hint="Give a name that ends in .tsv with --output."
        )
    there = [file for file in (path, path.with_suffix(".json")) if file.exists()]
    if there and not overwrite:
        raise OutputError(
            f"{there[0]} is there already.",
            hint="Choose another name with --output, or replace it with --overwrite.",
        )


def write_rois(
    path: Path,
    columns: Mapping[str, Sequence[object] | np.ndarray],
    sidecar: Mapping[str, object],
    *,
    overwrite: bool = False,
) -> None:
    """Write a parcel table and its JSON.

    Parameters
    ----------
    path : Path
        Ends in ``.tsv``; the JSON stands beside it.
    columns : mapping
        ``index``, ``name``, ``hemisphere``, ``roi``, ``overlap``: one row a parcel.
    sidecar : mapping
        What the JSON states.
    overwrite : bool
        Replace files that are there.

    Raises
    ------
    ConfigError
        The name does not end in ``.tsv``.
    OutputError
        A file is there, or the folder cannot be created.
    ReadWriteError
        Writing failed midway.
    """
    check_output(path, overwrite=overwrite)
    write.write_json(path.with_suffix(".json"), sidecar)
    write.write_tsv(path, columns)
