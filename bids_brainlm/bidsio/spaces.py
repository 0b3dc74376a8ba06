"""Which kind of image a space has: volumes, pairs of surfaces, or CIFTI.

This is the one place where the kind is decided, from names alone: the group level knows no
more than the names of files.
"""

from __future__ import annotations

import re

VOLUME, SURFACE, CIFTI = "volume", "surface", "cifti"
EVERYWHERE = {VOLUME: "voxels", SURFACE: "vertices", CIFTI: "grayordinates"}
"""Labels of ``atlas`` where there is no atlas: every location is its own parcel."""

MESHES = {
    "fsaverage3": 642,
    "fsaverage4": 2562,
    "fsaverage5": 10242,
    "fsaverage6": 40962,
    "fsaverage": 163842,
    "fsaverage7": 163842,
}
"""Vertices of a hemisphere. The first ones of a finer mesh are those of the coarser meshes."""

_SURFACE_SPACE = re.compile(r"fsaverage\d?")
_CIFTI_SPACE = "fsLR"
_CIFTI_NAME = re.compile(r"\.(d|p)(tseries|scalar|label)\.nii$")
_OF_SIDE = re.compile(r"([LR])\.(.+)")


def kind_of_space(space: str | None) -> str:
    """Return the kind of the images in a space.

    Examples
    --------
    >>> kind_of_space("fsaverage6"), kind_of_space("fsLR"), kind_of_space("MNI152NLin6Asym")
    ('surface', 'cifti', 'volume')
    """
    if space == _CIFTI_SPACE:
        return CIFTI
    return SURFACE if _SURFACE_SPACE.fullmatch(space or "") else VOLUME


def kind_of_file(name: str) -> str:
    """Return the kind of an image, a map or an atlas, by its name.

    Examples
    --------
    >>> kind_of_file("a.func.gii"), kind_of_file("lh.a.annot"), kind_of_file("a.dlabel.nii")
    ('surface', 'surface', 'cifti')
    """
    if name.endswith((".gii", ".gii.gz", ".annot")):
        return SURFACE
    return CIFTI if _CIFTI_NAME.search(name) else VOLUME


def everywhere(space: str | None) -> str:
    """Return the label of ``atlas`` for maps without one: voxels, vertices or grayordinates."""
    return EVERYWHERE[kind_of_space(space)]


def is_everywhere(atlas: str | None) -> bool:
    """Tell whether maps have a value for every location, not for parcels."""
    return atlas in EVERYWHERE.values()


def is_volume(space: str | None) -> bool:
    """Tell whether maps in a space are volumes."""
    return kind_of_space(space) == VOLUME


def image_extensions(space: str | None, atlas: str | None, stat: str | None = None) -> list[str]:
    """Return the extensions of the images of a map, besides its table.

    Parameters
    ----------
    space, atlas : str or None
        As in the map's name.
    stat : str, optional
        ``label`` for the parcels themselves.

    Returns
    -------
    list of str
        ``L.`` and ``R.`` before an extension stand for the entity ``hemi``, see `split_side`.

    Examples
    --------
    >>> image_extensions("fsaverage6", "Schaefer100")
    ['L.func.gii', 'R.func.gii']
    >>> image_extensions("fsLR", "Schaefer100"), image_extensions("fsLR", "grayordinates")
    (['pscalar.nii'], ['dscalar.nii'])
    """
    kind = kind_of_space(space)
    if kind == SURFACE:
        labelled = stat == "label" and not is_everywhere(atlas)
        return [f"{side}.{'label' if labelled else 'func'}.gii" for side in "LR"]
    if kind == CIFTI:
        dense = str(atlas).startswith(EVERYWHERE[CIFTI])  # also regions made of grayordinates
        return ["dscalar.nii" if dense else "pscalar.nii"]
    return ["nii.gz"]


def split_side(extension: str) -> tuple[str | None, str]:
    """Return hemisphere and extension.

    Examples
    --------
    >>> split_side("L.func.gii"), split_side("nii.gz")
    (('L', 'func.gii'), (None, 'nii.gz'))
    """
    if extension[1:2] != ".":
        return None, extension
    found = _OF_SIDE.fullmatch(extension)
    return (found.group(1), found.group(2)) if found else (None, extension)
