"""Parcels on a coarse grid, and images whose parcels carry given series."""

from __future__ import annotations

import gzip
from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import ConfigError, MissingInputError
from bids_brainlm.simulate.settings import SimulationSettings

SPACE = "MNI152NLin2009cAsym"
# The template's box: voxel edges at 1 mm and its size, mm.
BOX_CORNER = (-96.5, -132.5, -78.5)
BOX_SIZE = (193.0, 229.0, 193.0)
PERCENT = 0.01  # one unit of a core series is one percent of the baseline
MAX_BLOCKS = 400


@dataclass(frozen=True)
class Parcellation:
    """Parcels on the grid of the images.

    Attributes
    ----------
    label : str
        Name for people and file names.
    labels : array of int, shape (x, y, z), or (n_vertices,) of both hemispheres
        Row of the parcel + 1; 0 outside.
    affine : array, shape (4, 4), or None
        Voxel to mm, of a volume.
    index : tuple of int
        Values in the atlas image.
    names, hemispheres : tuple of str
        One a parcel.
    generated : bool
        Whether the atlas is made here and must be written.
    """

    label: str
    labels: np.ndarray
    affine: np.ndarray | None
    index: tuple[int, ...]
    names: tuple[str, ...]
    hemispheres: tuple[str, ...]
    generated: bool

    @property
    def n_parcels(self) -> int:
        """Number of parcels, empty ones included."""
        return len(self.index)

    def n_voxels(self) -> np.ndarray:
        """Return the number of voxels of each parcel."""
        return np.bincount(self.labels.ravel(), minlength=self.n_parcels + 1)[1:]


def mni_grid(voxel_size: float) -> tuple[tuple[int, int, int], np.ndarray]:
    """Return shape and affine of the MNI152NLin2009cAsym box with large voxels (mm)."""
    shape = tuple(int(np.ceil(size / voxel_size)) for size in BOX_SIZE)
    affine = np.diag([voxel_size] * 3 + [1.0])
    affine[:3, 3] = np.asarray(BOX_CORNER) + voxel_size / 2
    return shape, affine


def blocks(n_blocks: int, voxel_size: float) -> Parcellation:
    """Make an atlas of cubes of eight voxels, half of them on each side.

    Parameters
    ----------
    n_blocks : int
        Number of parcels.
    voxel_size : float
        mm.

    Returns
    -------
    Parcellation
        Named ``LBlock01`` to ``RBlockNN``, on a small grid with an empty border.

    Raises
    ------
    ConfigError
        The number is outside 2 to 400.
    """
    if not 2 <= n_blocks <= MAX_BLOCKS:
        raise ConfigError(
            f"blocks:{n_blocks}: expected 2 to {MAX_BLOCKS} blocks.", hint="Change --atlas."
        )
    n_left = (n_blocks + 1) // 2
    n_y = int(np.ceil(np.sqrt(n_left)))
    n_z = int(np.ceil(n_left / n_y))
    labels = np.zeros((8, 2 + 2 * n_y, 2 + 2 * n_z), dtype=np.int32)
    names, hemispheres = [], []
    for number in range(n_blocks):
        right, place = divmod(number, n_left)
        y, z = place % n_y, place // n_y
        x = 5 if right else 1
        labels[x : x + 2, 1 + 2 * y : 3 + 2 * y, 1 + 2 * z : 3 + 2 * z] = number + 1
        names.append(f"{'LR'[right]}Block{place + 1:02d}")
        hemispheres.append("LR"[right])
    affine = np.diag([voxel_size] * 3 + [1.0])
    affine[:3, 3] = -(np.asarray(labels.shape) - 1) / 2 * voxel_size + [0, -18, 8]
    index = tuple(range(1, n_blocks + 1))
    return Parcellation(
        f"Blocks{n_blocks}", labels, affine, index, tuple(names), tuple(hemispheres), True
    )


def parcellate(settings: SimulationSettings) -> Parcellation:
    """Return the parcels that the settings ask for, on the grid of the images.

    Raises
    ------
    ConfigError
        ``blocks:N`` without a number, or no parcel falls on the grid.
    MissingInputError
        The atlas is not there.
    """
    name = settings.atlas
    if name.startswith("blocks:"):
        count = name.removeprefix("blocks:")
        if not count.isdigit():
            raise ConfigError(f"--atlas {name}: expected a number.", hint="Set --atlas blocks:24.")
        return blocks(int(count), settings.voxel_size)
    from bids_brainlm.bidsio import atlas as atlases

    try:
        atlas = atlases.resolve_atlas(
            name, SPACE, home=settings.templateflow_home, offline=settings.offline
        )
    except MissingInputError as error:
        raise MissingInputError(
            error.message, hint=f"{error.hint} Or make one with --atlas blocks:100."
        ) from error
    shape, affine = mni_grid(settings.voxel_size)
    placed = atlases.to_grid(atlas, shape, affine)
    return Parcellation(
        atlas.label,
        np.asarray(placed.labels, dtype=np.int32),
        affine,
        tuple(int(i) for i in atlas.index),
        tuple(atlas.names),
        tuple(atlas.hemispheres),
        False,
    )


def voxel_series(
    series: np.ndarray, parcels: Parcellation, voxel_sd: float, rng: np.random.Generator
) -> np.ndarray:
    """Give every voxel its parcel's series with noise of its own.

    Parameters
    ----------
    series : array, shape (n_volumes, n_parcels)
        Core series.
    parcels : Parcellation
        Where the parcels are.
    voxel_sd : float
        Standard deviation of voxel noise.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    array, shape (n_volumes, n_voxels)
        Voxels inside parcels, in C order. Voxel noise sums to zero over each parcel, so that
        the mean over the parcel is its series.
    """
    inside = parcels.labels[parcels.labels > 0] - 1
    noise = rng.standard_normal((len(series), len(inside)), dtype=np.float32)
    membership = np.zeros((len(inside), parcels.n_parcels), dtype=np.float32)
    membership[np.arange(len(inside)), inside] = 1
    sizes = np.maximum(membership.sum(axis=0), 1)
    noise -= (noise @ membership / sizes)[:, inside]
    return series[:, inside] + voxel_sd * noise


def clean(data: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Return the residuals of columns after regression on a design."""
    basis, _ = np.linalg.qr(design)
    return data - basis @ (basis.T @ data)


def baselines(parcels: Parcellation, rng: np.random.Generator) -> np.ndarray:
    """Draw plausible intensities for voxels inside parcels."""
    return rng.uniform(8000, 12000, int((parcels.labels > 0).sum()))


def image_bytes(
    data: np.ndarray, parcels: Parcellation, tr: float, dtype: type[np.generic]
) -> bytes:
    """Return a gzipped 4-D NIfTI, zero outside the parcels.

    Parameters
    ----------
    data : array, shape (n_volumes, n_voxels)
        Values of the voxels inside parcels.
    parcels : Parcellation
        Grid and place of the voxels.
    tr : float
        Repetition time, s, for the header.
    dtype : numpy type
        ``np.int16`` or ``np.float32``.

    Returns
    -------
    bytes
        The same for the same input: the gzip header has no time.
    """
    volume = np.zeros((len(data), parcels.labels.size), dtype=dtype)
    values = np.rint(data) if np.issubdtype(dtype, np.integer) else data
    volume[:, parcels.labels.ravel() > 0] = values
    block = volume.reshape(len(data), *parcels.labels.shape).transpose(1, 2, 3, 0)
    return nifti_bytes(block, parcels.affine, tr)


def nifti_bytes(block: np.ndarray, affine: np.ndarray, tr: float | None = None) -> bytes:
    """Return a gzipped NIfTI in MNI space; ``tr`` in s for 4-D data."""
    import nibabel

    image = nibabel.Nifti1Image(block, affine)
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=4)
    image.header.set_xyzt_units("mm", "sec")
    if tr is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
