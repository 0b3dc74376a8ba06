"""Shares of parcels in a surface mask, with the surface atlas checked against the volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.parsers.expat import ExpatError

import numpy as np

from bids_brainlm.bidsio.stream import load_image
from bids_brainlm.errors import DataError

_N_FSAVERAGE5 = 10242
_MESHES = (_N_FSAVERAGE5, 40962, 163842)  # fsaverage5, fsaverage6, fsaverage
_SAME_MM, _MATCHED_MM = 10.0, 8.0
_HINT = "Give a mask in the volume with --heschl instead."


def surface_shares(
    masks: Sequence[Path],
    atlases: Sequence[Path],
    hemispheres: Sequence[str],
    index: np.ndarray,
    centres: np.ndarray,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the share of each parcel's vertices in a mask.

    Parameters
    ----------
    masks, atlases : sequence of Path
        Left and right GIFTI label (or shape) files on one of the fsaverage meshes.
    hemispheres : sequence of str
        L or R of each parcel of the volume atlas.
    index : array of int, shape (n_parcels,)
        Label numbers of the volume atlas.
    centres : array, shape (n_parcels, 3)
        Centroids in the volume, mm.

    Returns
    -------
    shares : array, shape (n_parcels,)
        0 where the surface has no such parcel.
    warnings : tuple of str
        Where labels were matched by position.

    Raises
    ------
    DataError
        Meshes or numbers of labels do not fit, or parcels of the two atlases lie elsewhere.

    Notes
    -----
    Label numbers of surface and volume files need not mean the same parcels: a file in the order
    of Kong et al. has the parcels of Schaefer et al. with other numbers. So the mean position of
    each label's vertices (midway between white and pial surface of fsaverage5, whose vertices are
    the first ones of the finer meshes) is compared with the centroid of the parcel of that
    number. If they lie within 10 mm (median), numbers are taken as they are. If not, labels and
    parcels are paired so that the sum of distances is smallest, and the median must be at most
    8 mm.

    References
    ----------
    .. [1] Kong et al. (2021), Individual-specific areal-level parcellations improve functional
       connectivity prediction of behavior, doi:10.1093/cercor/bhab101
    """
    found = np.zeros(len(index))
    warnings = []
    for k, side in enumerate(("L", "R")):
        mask, labels = _vertices(masks[k]), np.rint(_vertices(atlases[k])).astype(np.int64)
        if mask.size != labels.size or labels.size not in _MESHES:
            raise DataError(
                f"{masks[k].name} has {mask.size} vertices and {atlases[k].name} {labels.size}, "
                f"expected the same fsaverage mesh (one of {_MESHES}).",
                hint=_HINT,
            )
        rows = np.flatnonzero(np.asarray(hemispheres) == side)
        numbers = np.unique(labels[labels > 0])
        if not 0 < numbers.size <= rows.size:
            raise DataError(
                f"{atlases[k].name}: found {numbers.size} labels, the atlas has {rows.size} "
                f"parcels in hemisphere {side}.",
                hint="Give the surface files of the atlas that --atlas names. " + _HINT,
            )
        own, warning = _pair(atlases[k], labels, numbers, rows, index, centres)
        warnings += warning
        for number, row in zip(numbers, own, strict=True):
            found[row] = float((mask[labels == number] > 0.5).mean())
    return found, tuple(warnings)


def _vertices(path: Path) -> np.ndarray:
    """Return the values of a GIFTI file, shape (n_vertices,)."""
    try:
        image = load_image(path)
    except ExpatError as error:
        raise DataError(f"{path} is not a GIFTI file that can be read: {error}.") from error
    arrays = getattr(image, "darrays", [])
    if len(arrays) != 1 or np.ndim(arrays[0].data) != 1:
        raise DataError(
            f"{path}: expected a GIFTI file with one value a vertex, found another kind of file.",
            hint=_HINT,
        )
    return np.asarray(arrays[0].data, float)


def _coordinates(side: str) -> np.ndarray:
    """Return positions of the vertices of fsaverage5 midway in the cortex, mm."""
    from nilearn import datasets

    surfaces = datasets.load_fsaverage("fsaverage5")
    part = {"L": "left", "R": "right"}[side]
    pial, white = (surfaces[name].parts[part].coordinates for name in ("pial", "white_matter"))
    return (np.asarray(pial, float) + np.asarray(white, float)) / 2


def _pair(
    path: Path,
    labels: np.ndarray,
    numbers: np.ndarray,
    rows: np.ndarray,
    index: np.ndarray,
    centres: np.ndarray,
) -> tuple[np.ndarray, list[str]]:
    """Return the parcel (row) of each label of a hemisphere, and what to report."""
    from scipy.optimize import linear_sum_assignment

    side = "L" if np.nanmean(centres[rows, 0]) < 0 else "R"
    xyz, coarse = _coordinates(side), labels[:_N_FSAVERAGE5]
    seen = np.isin(numbers, coarse)
    places = np.stack([xyz[coarse == n].mean(axis=0) for n in numbers[seen]])
    distance = np.linalg.norm(places[:, None] - centres[rows][None], axis=2)
    distance = np.nan_to_num(distance, nan=1e3)
    by_number = _by_number(numbers, rows, index)
    if by_number is not None:
        place_of = {row: k for k, row in enumerate(rows)}
        same = [distance[k, place_of[row]] for k, row in enumerate(by_number[seen])]
        if np.median(same) <= _SAME_MM:
            return by_number, []
    which, column = linear_sum_assignment(distance)
    apart = float(np.median(distance[which, column]))
    if apart > _MATCHED_MM or not seen.all():
        raise DataError(
            f"{path.name}: its parcels lie {apart:.0f} mm (median) from those of the atlas, "
            f"expected at most {_MATCHED_MM:g} mm; it is another atlas.",
            hint="Give the surface files of the atlas that --atlas names. " + _HINT,
        )
    return rows[column], [
        f"{path.name}: its labels have another order than the atlas; {numbers.size} labels were "
        f"matched by position (median distance {apart:.1f} mm)"
    ]


def _by_number(numbers: np.ndarray, rows: np.ndarray, index: np.ndarray) -> np.ndarray | None:
    """Return the parcels (rows) that labels name by number; None where the numbers do not fit."""
    if np.isin(numbers, index[rows]).all():
        return rows[np.searchsorted(index[rows], numbers)]
    return rows[numbers - 1] if numbers.max() <= rows.size else None
