"""Read BOLD images in one pass, clean them, and average them over parcels."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_brainlm.bidsio import grids, spaces
from bids_brainlm.bidsio.stream import load_image, read_data
from bids_brainlm.errors import ConfigError, DataError, TimingError

log = logging.getLogger(__name__)

VOXEL_SCALINGS = ("zscore", "none")
_CONSTANT = 1e-6  # sd relative to the largest value, below which a voxel counts as constant


@dataclass(frozen=True, slots=True)
class BoldImage:
    """The header of a BOLD image.

    ``shape`` is that of the grid (three numbers; one for surfaces and CIFTI), ``affine`` maps
    indices of a volume to mm, ``tr`` is in s (the sidecar's where there is one). ``grid`` says
    what the locations of surfaces and CIFTI are; ``right`` is the file of the other hemisphere.
    """

    path: Path
    shape: tuple[int, ...]
    n_volumes: int
    affine: np.ndarray | None
    tr: float
    warnings: tuple[str, ...]
    grid: grids.Grid | None = None
    right: Path | None = None


@dataclass(frozen=True, slots=True)
class ParcelSeries:
    """Time series of parcels.

    Attributes
    ----------
    series : array, shape (n_trs, n_parcels)
        Each column z-scored (standard deviation with ddof 1); NaN where the parcel is empty.
    n_voxels : array of int, shape (n_parcels,)
        Voxels that were averaged.
    n_dropped : array of int, shape (n_parcels,)
        Voxels left out because they are constant or not finite.
    warnings : tuple of str
        What to report, with numbers.
    """

    series: np.ndarray
    n_voxels: np.ndarray
    n_dropped: np.ndarray
    warnings: tuple[str, ...]

    @property
    def empty(self) -> np.ndarray:
        """Which parcels have no series, shape (n_parcels,) of bool."""
        return np.isnan(self.series[0])


def load_run(path: Path, sidecar_tr: float | None = None, right: Path | None = None) -> BoldImage:
    """Check the header of a BOLD image.

    Parameters
    ----------
    path : Path
        A NIfTI image, a CIFTI series, or the GIFTI file of the left hemisphere.
    sidecar_tr : float, optional
        Repetition time in s of the JSON sidecar, which wins over the header.
    right : Path, optional
        The GIFTI file of the right hemisphere.

    Returns
    -------
    BoldImage

    Raises
    ------
    DataError
        The file is not a 4-D image (or series) of at least two volumes, or hemispheres differ.
    TimingError
        Neither sidecar nor header states a repetition time.
    MissingInputError
        A file is missing or has no content.
    """
    if spaces.kind_of_file(path.name) != spaces.VOLUME:
        grid, n_volumes, stated = grids.open_series(path, right)
        if n_volumes < 2:
            raise DataError(f"{path}: found {n_volumes} time point, expected a series.")
        tr, warnings = _repetition_time(path, sidecar_tr, stated)
        return BoldImage(path, grid.shape, n_volumes, None, tr, warnings, grid, right)
    image = load_image(path)
    if len(image.shape) != 4 or image.shape[3] < 2:
        raise DataError(f"{path}: found the shape {image.shape}, expected x, y, z and volumes.")
    try:
        unit = image.header.get_xyzt_units()[1]
    except KeyError:  # a code that NIfTI does not know
        unit = "unknown"
    factor = {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
    header_tr = float(image.header.get_zooms()[3]) * factor
    tr, warnings = _repetition_time(path, sidecar_tr, header_tr)
    shape = tuple(int(size) for size in image.shape[:3])
    return BoldImage(path, shape, int(image.shape[3]), image.affine, tr, warnings)


def _repetition_time(
    path: Path, sidecar_tr: float | None, header_tr: float | None
) -> tuple[float, tuple[str, ...]]:
    """Return the repetition time in s and what to report; a header may state none."""
    if sidecar_tr is None and not (header_tr or 0.0) > 0:
        raise TimingError(
            f"{path}: found no repetition time in sidecar or header, expected one in s.",
            hint="Write RepetitionTime to the JSON sidecar of the image.",
        )
    warnings: tuple[str, ...] = ()
    if sidecar_tr is not None and header_tr is not None and abs(header_tr - sidecar_tr) > 1e-3:
        warnings = (
            f"{path.name}: TR is {header_tr:g} s in the header and {sidecar_tr:g} s in the "
            "sidecar; the sidecar is used",
        )
    return (float(header_tr) if sidecar_tr is None else float(sidecar_tr)), warnings


def parcel_series(
    bold: Path | BoldImage,
    labels: np.ndarray,
    n_labels: int,
    volumes: slice,
    confounds: np.ndarray | None = None,
    *,
    voxel_scaling: str = "zscore",
    chunk_voxels: int = 2048,
) -> ParcelSeries:
    """Average the cleaned voxels of each parcel over a window of a run.

    Parameters
    ----------
    bold : Path or BoldImage
        A 4-D NIfTI image, or what `load_run` gave.
    labels : array of int, shape (x, y, z) or (n_locations,)
        On the grid of the image: 1 to ``n_labels``, 0 outside.
    n_labels : int
        Number of parcels.
    volumes : slice
        The window, first and last + 1.
    confounds : array, shape (n_volumes, n), optional
        Regressors without an intercept; None leaves the data as they are.
    voxel_scaling : {"zscore", "none"}
        Whether every voxel is z-scored before the average.
    chunk_voxels : int
        Voxels cleaned at once; bounds the memory, not the result.

    Returns
    -------
    ParcelSeries

    Raises
    ------
    DataError
        The grids or the rows of the confounds do not fit.
    TimingError
        The run is shorter than the window.
    ConfigError
        The scaling is unknown.

    Notes
    -----
    The order is: confounds and an intercept are regressed from every voxel over the whole
    run; the window is cut; every voxel is z-scored over the window (ddof 1), and those that
    are constant or not finite are left out and counted; voxels are averaged; the parcel's
    series is z-scored (ddof 1). Data are read as float32, all sums are float64.
    """
    header = bold if isinstance(bold, BoldImage) else load_run(bold, 1.0)
    window = _check_window(header, labels, volumes, confounds)
    if voxel_scaling not in VOXEL_SCALINGS:
        raise ConfigError(
            f"The voxel scaling {voxel_scaling!r} is unknown, expected one of {VOXEL_SCALINGS}."
        )
    flat_labels = labels.ravel(order="F")
    flat = np.flatnonzero(flat_labels)
    flat = flat[np.argsort(flat_labels[flat], kind="stable")]
    owner = flat_labels[flat].astype(np.intp) - 1
    data = grids.read_locations(header.path, header.right, header.grid, flat)
    basis = None if confounds is None else orthonormal(confounds)
    sums = np.zeros((n_labels, window.stop - window.start))
    n_voxels = np.zeros(n_labels, np.int64)
    n_finite = 0
    for part in _slabs(owner, chunk_voxels):
        cleaned, finite, usable = _clean(data[part], basis, window, voxel_scaling)
        n_finite += int(finite.sum())
        members = owner[part][usable]
        if members.size:
            starts = np.flatnonzero(np.r_[True, np.diff(members) > 0])
            sums[members[starts]] += np.add.reduceat(cleaned[usable], starts, axis=0)
            n_voxels += np.bincount(members, minlength=n_labels)
    n_dropped = np.bincount(owner, minlength=n_labels) - n_voxels
    series = _standardise(sums, n_voxels)
    warnings = _report(header.path.name, n_labels, flat.size - n_finite, n_dropped, series)
    return ParcelSeries(series.T.copy(), n_voxels, n_dropped, warnings)


def _check_window(
    header: BoldImage, labels: np.ndarray, volumes: slice, confounds: np.ndarray | None
) -> slice:
    """Return the window after checking shapes and lengths."""
    path, n_volumes = header.path, header.n_volumes
    if labels.shape != header.shape:
        raise DataError(f"{path}: found the grid {header.shape}, the atlas has {labels.shape}.")
    if confounds is not None and confounds.shape[0] != n_volumes:
        raise DataError(
            f"{path}: found {n_volumes} volumes, the confounds have {confounds.shape[0]} rows.",
            hint="Check that the confounds table belongs to the image, or use --denoise none.",
        )
    first, end = volumes.start or 0, n_volumes if volumes.stop is None else volumes.stop
    if not 0 <= first < end <= n_volumes or end - first < 2:
        raise TimingError(
            f"{path}: found {n_volumes} volumes, the story needs volumes {first} to {end - 1}.",
            hint="Check the events.tsv, or leave the run out with --run-label or "
            "--participant-label.",
        )
    return slice(first, end)


def orthonormal(confounds: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of confounds and intercept, shape (n_volumes, rank).

    Columns that depend on others (relative singular value below 1e-10) do not count.
    """
    centred = confounds - confounds.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    scale = np.abs(confounds).max(axis=0, initial=0.0) * np.sqrt(len(confounds))
    kept = norms > 1e-12 * np.maximum(scale, np.finfo(float).tiny)
    intercept = np.full((len(confounds), 1), 1 / np.sqrt(len(confounds)))
    if not kept.any():
        return intercept
    left, values, _ = np.linalg.svd(centred[:, kept] / norms[kept], full_matrices=False)
    return np.hstack([intercept, left[:, values > 1e-10 * values[0]]])


def _slabs(owner: np.ndarray, size: int) -> Iterator[slice]:
    """Yield slices of at least ``size`` voxels that end where a parcel ends."""
    borders = np.r_[np.flatnonzero(np.diff(owner)) + 1, owner.size]
    first = 0
    for border in borders:
        if border - first >= size or border == owner.size:
            if border > first:
                yield slice(first, int(border))
            first = int(border)


def _clean(
    raw: np.ndarray, basis: np.ndarray | None, window: slice, voxel_scaling: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cleaned voxels over the window, and which are finite and which usable."""
    finite = np.isfinite(raw).all(axis=1)
    data = np.where(finite[:, None], raw, 0).astype(np.float64)
    largest = np.abs(data).max(axis=1)
    if basis is not None:
        data -= (data @ basis) @ basis.T
    data = data[:, window]
    centred = data - data.mean(axis=1, keepdims=True)
    sd = np.sqrt(np.einsum("vt,vt->v", centred, centred) / (data.shape[1] - 1))
    usable = finite & (sd > _CONSTANT * largest)
    if voxel_scaling == "none":
        return data, finite, usable
    return centred / np.where(usable, sd, 1)[:, None], finite, usable


def _standardise(sums: np.ndarray, n_voxels: np.ndarray) -> np.ndarray:
    """Return z-scored means, shape (n_parcels, n_trs); NaN where there is no series."""
    means = sums / np.maximum(n_voxels, 1)[:, None]
    centred = means - means.mean(axis=1, keepdims=True)
    sd = np.sqrt(np.einsum("pt,pt->p", centred, centred) / (means.shape[1] - 1))
    usable = (n_voxels > 0) & (sd > 1e-12 * np.abs(means).max(axis=1, initial=0.0))
    series = np.full_like(means, np.nan)
    series[usable] = centred[usable] / sd[usable, None]
    return series


def _report(
    name: str, n_labels: int, n_not_finite: int, n_dropped: np.ndarray, series: np.ndarray
) -> tuple[str, ...]:
    """Return warnings with numbers."""
    warnings = []
    if n_not_finite:
        warnings.append(f"{name}: {n_not_finite} voxels hold NaN or infinity and are left out")
    n_constant = int(n_dropped.sum()) - n_not_finite
    if n_constant:
        warnings.append(f"{name}: {n_constant} voxels are constant and are left out")
    n_empty = int(np.isnan(series[:, 0]).sum())
    if n_empty:
        warnings.append(f"{name}: {n_empty} of {n_labels} parcels are empty")
    for warning in warnings:
        log.debug(warning)
    return tuple(warnings)


def voxel_labels(mask_path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, list]]:
    """Return one label a voxel of a mask, for voxelwise work.

    Parameters
    ----------
    mask_path : Path
        A brain mask; voxels above 0.5 are in.

    Returns
    -------
    labels : array of int32, shape (x, y, z)
        1 to n_voxels in C order of the indices, 0 outside.
    affine : array, shape (4, 4)
        The mask's affine.
    table : dict of lists
        Columns ``index``, ``name`` (``i_j_k``), ``x``, ``y``, ``z`` (mm).

    Raises
    ------
    DataError
        The mask is empty or not 3-D.
    """
    image = load_image(mask_path)
    mask = read_data(image, mask_path)
    mask = mask[..., 0] if mask.ndim == 4 and mask.shape[3] == 1 else mask
    if mask.ndim != 3 or not (mask > 0.5).any():
        raise DataError(f"{mask_path}: found no voxel inside, expected a 3-D brain mask.")
    inside = np.argwhere(mask > 0.5)
    labels = np.zeros(mask.shape, np.int32)
    labels[tuple(inside.T)] = np.arange(1, len(inside) + 1)
    xyz = nib.affines.apply_affine(image.affine, inside)
    table = {
        "index": list(range(1, len(inside) + 1)),
        "name": ["_".join(map(str, voxel)) for voxel in inside.tolist()],
        **{axis: xyz[:, k].tolist() for k, axis in enumerate("xyz")},
    }
    return labels, image.affine, table


def paint(values: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """Paint values of parcels on a label image.

    Parameters
    ----------
    values : array, shape (n_parcels,) or (n_parcels, n_columns)
        NaN is kept.
    labels : array of int, shape (x, y, z)
        1 to ``n_parcels``, 0 outside.
    affine : array, shape (4, 4)
        Of the label image.

    Returns
    -------
    Nifti1Image
        float32; 0 outside the parcels. Columns lie along the fourth dimension, also a
        single one given as ``(n_parcels, 1)``.

    Raises
    ------
    DataError
        A label has no value.
    """
    values = np.asarray(values, np.float32)
    if labels.max(initial=0) > len(values):
        raise DataError(f"found {len(values)} values, the labels go up to {labels.max()}.")
    table = np.concatenate([np.zeros((1, *values.shape[1:]), np.float32), values])
    image = nib.Nifti1Image(table[labels], affine)
    image.header.set_xyzt_units("mm")
    return image
