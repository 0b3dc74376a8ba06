"""Brain maps of parcel values on a template, for atlases that are anatomical."""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager

import numpy as np

from bids_brainlm.report import style
from bids_brainlm.report.content import Labels


def paint(labels: Labels, index: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """Put a value on every voxel of its parcel.

    Parameters
    ----------
    labels : Labels
        Atlas; voxels hold parcel numbers, or rows of the table counted from 1.
    index : tuple of int, length n_parcels
        Parcel numbers.
    values : array, shape (n_parcels,)
        NaN becomes 0, that is, not drawn.

    Returns
    -------
    array, shape (x, y, z)
        float32.
    """
    image = np.asarray(labels.image).astype(np.int64)
    present = np.unique(image[image > 0])
    numbers = np.asarray(index)
    if not np.isin(present, numbers).all():
        numbers = np.arange(1, len(index) + 1)
    table = np.zeros(int(max(image.max(initial=0), numbers.max(initial=0))) + 1, np.float32)
    table[numbers] = np.nan_to_num(values)
    return table[np.clip(image, 0, None)]


@contextmanager
def _quiet():
    """Keep remarks of the drawing library about its own dependencies out of the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def slices(
    labels: Labels, index: tuple[int, ...], values: np.ndarray, *, label: str, limit: float
) -> bytes:
    """Draw all parcels on axial slices of the MNI152 template.

    Parameters
    ----------
    labels, index, values
        As for `paint`.
    label : str
        Colour bar label with unit.
    limit : float
        End of the symmetric colour scale.

    Returns
    -------
    bytes
        PNG.
    """
    import nibabel

    volume = paint(labels, index, values)
    with style.drawing(), _quiet():
        from nilearn import plotting

        image = nibabel.Nifti1Image(volume, labels.affine)
        fig, limit = style.canvas(1.75), style.scale_end(limit)
        display = plotting.plot_stat_map(
            image,
            display_mode="z",
            cut_coords=[-24, -8, 8, 24, 40, 56],
            figure=fig,
            cmap=style.colours("RdBu_r"),
            vmax=limit,
            symmetric_cbar=True,
            threshold=1e-9,
            black_bg=False,
            annotate=False,
            draw_cross=False,
            resampling_interpolation="nearest",
            axes=(0.01, 0.06, 0.93, 0.86),
        )
        display.annotate(size=9)
        _label_bar(display, label)
        return style.png(fig)


def glass(
    labels: Labels, index: tuple[int, ...], values: np.ndarray, *, label: str, limit: float
) -> bytes:
    """Draw parcels on a glass brain; pass NaN for parcels that are not to be drawn.

    Returns
    -------
    bytes
        PNG.
    """
    import nibabel

    volume = paint(labels, index, values)
    with style.drawing(), _quiet():
        from nilearn import plotting

        image = nibabel.Nifti1Image(volume, labels.affine)
        fig, limit = style.canvas(2.0), style.scale_end(limit)
        display = plotting.plot_glass_brain(
            image,
            display_mode="lyrz",
            figure=fig,
            cmap=style.colours("RdBu_r"),
            vmax=limit,
            vmin=-limit,
            symmetric_cbar=True,
            plot_abs=False,
            colorbar=True,
            threshold=1e-9,
            black_bg=False,
            annotate=False,
            axes=(0.01, 0.04, 0.93, 0.92),
        )
        display.annotate(size=9)
        _label_bar(display, label)
        return style.png(fig)


def _label_bar(display: object, label: str) -> None:
    """Name the colour bar."""
    bar = getattr(display, "_cbar", None)
    if bar is not None:
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=7.5)


def stack(pictures: list[bytes]) -> bytes:
    """Put PNG pictures of one width under each other.

    Returns
    -------
    bytes
        PNG; empty where all parts are empty (figures that are remade).
    """
    from PIL import Image

    pictures = [p for p in pictures if p]
    if not pictures:
        return b""
    parts = [Image.open(io.BytesIO(p)).convert("RGB") for p in pictures]
    width = max(p.width for p in parts)
    whole = Image.new("RGB", (width, sum(p.height for p in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, ((width - part.width) // 2, top))
        top += part.height
    buffer = io.BytesIO()
    whole.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
