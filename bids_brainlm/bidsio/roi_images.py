"""Images of ROIs: their names, and how much of each parcel lies in them, in mm."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.stream import load_image
from bids_brainlm.errors import DataError

IMAGES = (".nii.gz", ".nii", ".img")
_SIDE = re.compile(r"^(LH|RH|L|R|left|right)[_ -]+", re.IGNORECASE)
_TABLE = Path(__file__).parents[1] / "data" / "rois.tsv"
_HINT = (
    "Write a table with the columns index and name beside the image (same name, .tsv), or give "
    "a parcel table with --rois."
)


@dataclass(frozen=True)
class RoiTable:
    """The one table of ROIs: names in their order, colours (hex), descriptions."""

    names: tuple[str, ...]
    colours: tuple[str, ...]
    descriptions: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]

    def canonical(self, name: str) -> str:
        """Return this table's name of an ROI; a name that it does not know is kept."""
        bare = _SIDE.sub("", " ".join(name.split()))
        for own, others in zip(self.names, self.aliases, strict=True):
            if _plain(bare) in [_plain(item) for item in (own, *others)]:
                return own
        return bare


@dataclass(frozen=True)
class RoiImage:
    """A label image of ROIs.

    Attributes
    ----------
    path : Path
    names : tuple of str
        Each ROI once, both hemispheres together.
    labels : array of int, shape (x, y, z)
        Position in ``names`` plus 1; 0 outside.
    affine : array, shape (4, 4)
        To mm.
    warnings : tuple of str
    """

    path: Path
    names: tuple[str, ...]
    labels: np.ndarray
    affine: np.ndarray
    warnings: tuple[str, ...]


def roi_table() -> RoiTable:
    """Return the table of ROIs that all of the package shares."""
    table = write.read_tsv(_TABLE)
    aliases = [tuple(part.strip() for part in cell.split(";")) for cell in table["aliases"]]
    return RoiTable(
        tuple(table["name"]), tuple(table["colour"]), tuple(table["description"]), tuple(aliases)
    )


def _plain(name: str) -> str:
    """Return the letters and digits of a name, lower-case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def values_at(volume: np.ndarray, affine: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """Return the values of a volume at positions.

    Parameters
    ----------
    volume : array, shape (x, y, z)
    affine : array, shape (4, 4)
        Of the volume, to mm.
    xyz : array, shape (n, 3)
        Positions in mm.

    Returns
    -------
    array, shape (n,)
        Of the nearest voxel; 0 outside the volume.

    Notes
    -----
    A tie goes to the higher voxel index, as where atlases are brought to a grid.
    """
    inverse = np.linalg.inv(affine)
    ijk = np.floor(xyz @ inverse[:3, :3].T + inverse[:3, 3] + 0.5 + 1e-6).astype(np.int64)
    inside = ((ijk >= 0) & (ijk < volume.shape)).all(axis=1)
    found = np.zeros(len(xyz), volume.dtype)
    found[inside] = volume[tuple(ijk[inside].T)]
    return found


def voxels(labels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the parcel and the position of each labelled voxel.

    Parameters
    ----------
    labels : array of int, shape (x, y, z)
        Row of the parcel plus 1; 0 outside.
    affine : array, shape (4, 4)
        To mm.

    Returns
    -------
    owner : array of int, shape (n_voxels,)
        Row of the parcel.
    xyz : array, shape (n_voxels, 3)
        Centres in mm.
    """
    ijk = np.argwhere(labels > 0)
    owner = labels[tuple(ijk.T)].astype(np.int64) - 1
    return owner, ijk @ affine[:3, :3].T + affine[:3, 3]


def centroids(owner: np.ndarray, xyz: np.ndarray, n_parcels: int) -> np.ndarray:
    """Return the mean position of each parcel's voxels.

    Parameters
    ----------
    owner : array of int, shape (n_voxels,)
    xyz : array, shape (n_voxels, 3)
        mm.
    n_parcels : int

    Returns
    -------
    array, shape (n_parcels, 3)
        mm; NaN where a parcel has no voxel.
    """
    n_voxels = np.bincount(owner, minlength=n_parcels)
    sums = np.stack([np.bincount(owner, xyz[:, k], n_parcels) for k in range(3)], axis=1)
    return np.where(n_voxels[:, None] > 0, sums / np.maximum(n_voxels, 1)[:, None], np.nan)


def shares(owner: np.ndarray, codes: np.ndarray, n_parcels: int, n_rois: int) -> np.ndarray:
    """Return the share of each parcel's voxels that lies in each ROI.

    Parameters
    ----------
    owner : array of int, shape (n_voxels,)
        Row of the parcel.
    codes : array of int, shape (n_voxels,)
        Position of the ROI plus 1; 0 in none.
    n_parcels, n_rois : int

    Returns
    -------
    array, shape (n_parcels, n_rois)
        0 to 1; 0 where a parcel has no voxel.
    """
    counts = np.bincount(owner * (n_rois + 1) + codes, minlength=n_parcels * (n_rois + 1))
    counts = counts.reshape(n_parcels, n_rois + 1)
    return counts[:, 1:] / np.maximum(counts.sum(axis=1), 1)[:, None]


def read_mask(path: Path, label: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read a mask.

    Parameters
    ----------
    path : Path
        A 3-D image.
    label : int, optional
        Take this label of a label image; without it, the image must be a mask (0 and one
        other value, or probabilities up to 1, cut at one half).

    Returns
    -------
    mask : array of int, shape (x, y, z)
        0 or 1.
    affine : array, shape (4, 4)

    Raises
    ------
    DataError
        The image has several labels, or nothing is inside.
    """
    values, affine = _volume(path)
    if label is not None:
        mask = np.rint(values) == label
    else:
        present = np.unique(values[values > 0])
        if present.size > 1 and present[-1] > 1:
            raise DataError(
                f"{path}: found {present.size} different values, expected a mask (0 and 1).",
                hint="Name the label to take: --heschl-label or --v1-label.",
            )
        mask = values > (0.5 if present.size > 1 else 0)
    if not mask.any():
        what = "inside the mask" if label is None else f"with the label {label}"
        raise DataError(
            f"{path}: found no voxel {what}, expected at least one.",
            hint="Check the image, and --heschl-label or --v1-label.",
        )
    return mask.astype(np.int64), affine


def _volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a 3-D volume (NaN as 0) and its affine."""
    image = load_image(path)
    values = np.nan_to_num(np.asanyarray(image.dataobj).astype(np.float64))
    values = values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values
    if values.ndim != 3:
        raise DataError(f"{path}: found {values.ndim} dimensions, expected a 3-D image.")
    return values, np.asarray(image.affine, float)


def read_roi_image(path: Path) -> RoiImage:
    """Read a label image of ROIs and the names of its labels.

    Parameters
    ----------
    path : Path
        NIfTI or Analyze, in mm. Beside it lies a table with the same name and ``.tsv``
        (columns ``index``, ``name``), or EvLab's ``<name>_labels.txt``.

    Returns
    -------
    RoiImage

    Raises
    ------
    DataError
        The image is no label image, there is no table, the two do not fit, or MFG lies below
        IFGorb.

    Notes
    -----
    Labels with the same name (left and right) are one ROI. Labels that the table does not list
    belong to no ROI. EvLab numbers the labels of the right hemisphere on from the left in the
    text file, but leaves a space in the image (14 to 26 are 19 to 31): where the numbers do not
    fit but the counts do, labels are matched in ascending order, and the hemisphere of each row
    is checked against the position of its voxels. MFG below IFGorb is impossible anatomy: the
    names are swapped, as in two figures of the paper.
    """
    volume, affine = _volume(path)
    values = np.rint(volume).astype(np.int64)
    if not np.allclose(values, volume) or values.min() < 0 or not values.any():
        raise DataError(
            f"{path}: expected a label image of integers, 0 outside, found other values or no "
            "label.",
            hint=_HINT,
        )
    table = roi_table()
    numbers, names = _names(path, values, affine)
    present = np.unique(values[values > 0])
    found = [(n, table.canonical(name)) for n, name in zip(numbers, names, strict=True)]
    found = [(n, name) for n, name in found if n in present]
    if not found:
        raise DataError(
            f"{path}: its table lists none of the image's {present.size} labels.", hint=_HINT
        )
    kept = tuple(dict.fromkeys(name for _, name in found))
    lookup = np.zeros(int(values.max()) + 1, np.int64)
    for number, name in found:
        lookup[number] = kept.index(name) + 1
    labels = lookup[values]
    _check_frontal(path, kept, labels, affine)
    n_unlisted = present.size - len(found)
    warnings = (f"{path.name}: {n_unlisted} labels have no name and are left out",)
    return RoiImage(path, kept, labels, affine, warnings if n_unlisted else ())


def _stem(path: Path) -> str:
    """Return a file name without the extension of images."""
    return next((path.name.removesuffix(e) for e in IMAGES if path.name.endswith(e)), path.stem)


def label_file(path: Path) -> Path | None:
    """Return the file beside an image that names its labels; None without one."""
    stem = _stem(path)
    short = re.sub(r"_(res|space)-[A-Za-z0-9]+", "", stem)
    names = (f"{stem}.tsv", f"{short}.tsv", f"{stem}_labels.txt")
    return next((path.with_name(n) for n in names if path.with_name(n).is_file()), None)


def _names(path: Path, values: np.ndarray, affine: np.ndarray) -> tuple[list[int], Sequence[str]]:
    """Return the labels of an image and their names."""
    file = label_file(path)
    if file is None:
        raise DataError(f"{path}: found no table that names its labels.", hint=_HINT)
    table = write.read_tsv(file)
    number, name = ("index", "name") if file.suffix == ".tsv" else ("roiNumber", "label")
    if not {number, name} <= table.keys():
        raise DataError(
            f"{file}: expected the columns {number} and {name}, found {list(table)}.", hint=_HINT
        )
    try:
        numbers = [int(float(cell)) for cell in table[number]]
    except ValueError as error:
        raise DataError(f"{file}: column {number}: expected integers, found {error}.") from error
    if len(set(numbers)) != len(numbers):
        raise DataError(f"{file}: found a label twice, expected each once.", hint=_HINT)
    if number == "roiNumber":
        numbers = _in_order(file, numbers, table.get("hemisphere", []), values, affine)
    return numbers, table[name]


def _in_order(
    file: Path,
    numbers: list[int],
    sides: Sequence[str],
    values: np.ndarray,
    affine: np.ndarray,
) -> list[int]:
    """Return the image's label of each row of an EvLab table, checked by hemisphere."""
    present = np.unique(values[values > 0])
    if not set(present.tolist()) <= set(numbers):
        if len(present) != len(numbers):
            raise DataError(
                f"{file}: found {len(numbers)} labels, the image has {len(present)} and other "
                "numbers.",
                hint=_HINT,
            )
        rank = {number: k for k, number in enumerate(sorted(numbers))}
        numbers = [int(present[rank[number]]) for number in numbers]
    for number, side in zip(numbers, sides, strict=False):
        ijk = np.argwhere(values == number)
        x = float(np.mean(ijk @ affine[0, :3] + affine[0, 3])) if len(ijk) else 0.0
        if x * {"l": -1, "r": 1}.get(side.strip().lower()[:1], 0) < 0:
            raise DataError(
                f"{file}: label {number} is called {side}, but its voxels lie at x = {x:.0f} mm.",
                hint=_HINT,
            )
    return numbers


def _check_frontal(
    path: Path, names: tuple[str, ...], labels: np.ndarray, affine: np.ndarray
) -> None:
    """Refuse MFG below IFGorb: the names are swapped."""
    if not {"MFG", "IFGorb"} <= set(names):
        return
    heights = []
    for name in ("MFG", "IFGorb"):
        ijk = np.argwhere(labels == names.index(name) + 1)
        heights.append(float(np.mean(ijk @ affine[2, :3] + affine[2, 3])))
    if heights[0] <= heights[1]:
        raise DataError(
            f"{path}: found MFG at z = {heights[0]:.0f} mm and IFGorb at z = {heights[1]:.0f} mm, "
            "expected MFG above IFGorb; the names look swapped.",
            hint="Mend the table beside the image, or the affine of the image.",
        )
