"""Find an atlas and bring it to the grid of an image."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio.grids import Grid
from bids_brainlm.bidsio.names import alphanumeric, parse_entities
from bids_brainlm.bidsio.stream import load_image, read_data
from bids_brainlm.bidsio.write import read_tsv
from bids_brainlm.errors import DataError, MissingInputError

log = logging.getLogger(__name__)

_IMAGES = (".nii.gz", ".nii")
_MIN_VOXELS = 1000  # an image with fewer labelled voxels is no map of a brain
_LARGEST = 2**31 - 1  # label
_RESOLUTIONS = ("02", "2", "01", "1")  # preferred first
_HEMISPHERE = re.compile(r"(?:^|_)(L|R)H?_([A-Za-z0-9]+)")


@dataclass(frozen=True, slots=True)
class Atlas:
    """A labelled image and the table of its parcels.

    Attributes
    ----------
    label : str
        The value of the entity ``atlas`` in output names.
    name : str
        As it was asked for.
    path : Path
        The label image.
    space : str or None
        The template that the file name states.
    labels : array of int, shape (x, y, z) or (n_locations,)
        Original values.
    affine : array, shape (4, 4), or None
        Of a volume, to mm.
    index : array of int, shape (n_parcels,)
        Value of each parcel, ascending as in the table.
    names, hemispheres, networks : tuple of str
        One a parcel; hemisphere is L, R or empty, network may be empty.
    anatomical : bool
        False where positions mean nothing: no brain pictures can be drawn.
    warnings : tuple of str
        What to report.
    grid : Grid or None
        What the locations of surfaces and CIFTI are.
    right : Path or None
        The label file of the right hemisphere.
    """

    label: str
    name: str
    path: Path
    space: str | None
    labels: np.ndarray
    affine: np.ndarray | None
    index: np.ndarray
    names: tuple[str, ...]
    hemispheres: tuple[str, ...]
    networks: tuple[str, ...]
    anatomical: bool
    warnings: tuple[str, ...]
    grid: Grid | None = None
    right: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that it was read from; none where the images bring their parcels."""
        if self.path.name.endswith(".ptseries.nii"):
            return ()
        return (self.path,) if self.right is None else (self.path, self.right)

    @property
    def n_parcels(self) -> int:
        """Number of parcels, with those that may be empty on a grid."""
        return len(self.index)


@dataclass(frozen=True, slots=True)
class GridAtlas:
    """An atlas on the grid of an image.

    ``labels`` holds the row of the parcel's table plus 1 (0 outside), ``n_voxels`` has shape
    (n_parcels,).
    """

    labels: np.ndarray
    affine: np.ndarray | None
    n_voxels: np.ndarray

    @property
    def empty(self) -> np.ndarray:
        """Which parcels have no voxel, shape (n_parcels,) of bool."""
        return self.n_voxels == 0


def resolve_atlas(
    name: str, space: str | None, *, home: Path | None = None, offline: bool = True
) -> Atlas:
    """Find an atlas by its TemplateFlow name or its path.

    Parameters
    ----------
    name : str
        ``Schaefer2018_100Parcels17Networks`` (underscores do not matter), or the path of a
        label image with a table ``index``, ``name`` beside it.
    space : str or None
        The template of the BOLD images, such as ``MNI152NLin2009cAsym``.
    home : Path, optional
        The TemplateFlow folder; the default is ``$TEMPLATEFLOW_HOME``, else
        ``~/.cache/templateflow``.
    offline : bool
        Never ask TemplateFlow to download.

    Returns
    -------
    Atlas

    Raises
    ------
    MissingInputError
        Nothing of that name is there.
    DataError
        The image or the table is no atlas.
    """
    path = Path(name)
    if name.endswith(_IMAGES) or os.sep in name:
        if not os.path.lexists(path):
            raise MissingInputError(
                f"The atlas {path} does not exist.",
                hint="Give a label image or a TemplateFlow name with --atlas.",
            )
        return _read(path, name, space)
    home = templateflow_home(home)
    found = _in_templateflow(home, name, space)
    present = [path for path in found if path.is_file() and path.stat().st_size]
    if not present and not offline:
        present = _download(name, space)
    if not present:
        state = "only an empty file" if found else "no file"
        raise MissingInputError(
            f"The atlas {name} in space {space} is not in {home}: found {state}, expected "
            f"tpl-{space}/tpl-{space}_*_atlas-*_dseg.nii.gz that spells {alphanumeric(name)}.",
            hint=f"Run with network access: bids_brainlm-fetch --atlas {name} --space {space}; "
            "or give a label image with --atlas PATH.",
        )
    return _read(present[0], name, space)


def templateflow_home(given: Path | None = None) -> Path:
    """Return the TemplateFlow folder: ``given``, else the environment's, else the usual one."""
    usual = os.environ.get("TEMPLATEFLOW_HOME") or "~/.cache/templateflow"
    return given or Path(usual).expanduser()


def fslr_sphere(home: Path, side: str) -> Path:
    """Return where TemplateFlow has the sphere of fsLR 32k in the space of fsaverage."""
    return home / "tpl-fsLR" / f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii"


def fsaverage_meshes(home: Path, side: str, n_vertices: int) -> list[Path]:
    """Return the meshes of fsaverage with so many vertices that TemplateFlow has."""
    density = {2562: "3k", 10242: "10k", 40962: "41k", 163842: "164k"}.get(n_vertices, "none")
    folder = home / "tpl-fsaverage"
    found = folder.glob(f"tpl-fsaverage*_hemi-{side}_*den-{density}_*.surf.gii")
    return sorted(path for path in found if path.is_file() and path.stat().st_size)


def spelling(path: Path) -> str:
    """Return the name of an atlas file: atlas, seg, scale and desc joined."""
    labels = parse_entities(path).entities
    return "".join(labels.get(key, "") for key in ("atlas", "seg", "scale", "desc"))


def _in_templateflow(home: Path, name: str, space: str | None) -> list[Path]:
    """Return the label images of an atlas, preferred resolution first."""
    folder = home / f"tpl-{space}"
    wanted = alphanumeric(name).lower()
    paths = [path for path in folder.glob("**/*_dseg.nii.gz") if spelling(path).lower() == wanted]

    def rank(path: Path) -> tuple[int, str]:
        label = parse_entities(path).entities.get("res", "")
        order = _RESOLUTIONS.index(label) if label in _RESOLUTIONS else len(_RESOLUTIONS)
        return order, path.name

    return sorted(paths, key=rank)


def _download(name: str, space: str | None) -> list[Path]:
    """Ask TemplateFlow for an atlas; the list is empty when that fails."""
    try:
        from templateflow import api, conf  # fails where its home cannot be written

        for path in _in_templateflow(Path(conf.TF_HOME), name, space)[:1]:
            labels = parse_entities(path).entities
            keys = [key for key in ("atlas", "seg", "scale", "desc") if key in labels]
            query = {key: labels[key] for key in keys} | {"suffix": "dseg"}
            api.get(space, resolution=labels.get("res"), extension=".nii.gz", **query)
            api.get(space, resolution=None, extension=".tsv", **query)
            if path.stat().st_size:
                return [path]
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise MissingInputError(
            f"The atlas {name} in space {space} is not here, and TemplateFlow could not get it: "
            f"{type(error).__name__}: {error}",
            hint="Set TEMPLATEFLOW_HOME to a folder that can be written, check the network and "
            f"run: bids_brainlm-fetch --atlas {name} --space {space}",
        ) from error
    return []


def _read(path: Path, name: str, space: str | None) -> Atlas:
    """Read a label image and its table."""
    image = load_image(path)
    values = read_data(image, path)
    values = values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values
    labels = np.rint(np.nan_to_num(values).clip(-1, _LARGEST)).astype(np.int32)
    if values.ndim != 3 or not np.allclose(values, labels) or labels.min() < 0:
        raise DataError(
            f"{path}: found {values.ndim} dimensions and values that are no labels, expected a "
            "3-D image of integers, 0 outside.",
            hint="Give a label image (dseg) with --atlas.",
        )
    present = np.unique(labels[labels > 0])
    if not present.size:
        raise DataError(f"{path}: found no labelled voxel, expected an atlas.")
    tables = [item for item in _siblings(path, ".tsv") if item.is_file()]
    file = next((item for item in tables if item.stat().st_size), None)
    index, names, hemispheres, networks = parcel_table(file, present, path.name)
    parsed = parse_entities(path)
    stated = parsed.entities.get("tpl") or parsed.entities.get("space")
    warnings = []
    if space is not None and stated is not None and stated != space:
        warnings.append(
            f"the atlas is in {stated}, the images are in {space}; it is resampled by its "
            "affine, which can be a few mm off"
        )
    if names[0] == f"parcel{index[0]}":
        warnings.append("the atlas has no table of names; parcels are called by their numbers")
    return Atlas(
        label=alphanumeric(spelling(path)) or alphanumeric(path.name.partition(".")[0]),
        name=name,
        path=path,
        space=stated,
        labels=labels,
        affine=image.affine,
        index=index,
        names=names,
        hemispheres=hemispheres,
        networks=networks,
        anatomical=int((labels > 0).sum()) >= _MIN_VOXELS and _says_anatomical(path),
        warnings=tuple(warnings),
    )


def _siblings(path: Path, extension: str) -> list[Path]:
    """Return the sidecars that may describe an image: same name, or without ``res``."""
    stem = path.name.partition(".")[0]
    stems = dict.fromkeys((stem, re.sub(r"_(res|space)-[A-Za-z0-9]+", "", stem)))
    return [path.with_name(f"{item}{extension}") for item in stems]


def _says_anatomical(path: Path) -> bool:
    """Return the field ``Anatomical`` of the JSON beside an atlas; True without one."""
    for sidecar in _siblings(path, ".json"):
        try:
            return bool(json.loads(sidecar.read_text("utf-8")).get("Anatomical", True))
        except (OSError, ValueError, AttributeError):
            continue
    return True


_Table = tuple[np.ndarray, tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def parcel_table(file: Path | None, present: np.ndarray, image: str) -> _Table:
    """Return index, names, hemispheres and networks of the parcels.

    Parameters
    ----------
    file : Path or None
        Table with the columns ``index`` and ``name``, and maybe ``hemisphere`` and ``network``.
    present : array of int
        Labels that occur.
    image : str
        Name of the label image, for messages.

    Raises
    ------
    DataError
        The table is damaged, lacks a label or lists one twice.

    Notes
    -----
    Without a table every value of the image is a parcel called ``parcel<value>``.
    """
    if file is None:
        names = tuple(f"parcel{value}" for value in present)
        return present, names, ("",) * len(names), ("",) * len(names)
    table = read_tsv(file)
    if not {"index", "name"} <= table.keys():
        found = f"{list(table)!s:.200}"
        raise DataError(f"{file}: expected the columns index and name, found {found}.")
    try:
        values = [int(float(cell)) for cell in table["index"]]
    except (ValueError, OverflowError) as error:
        raise DataError(f"{file}: column index: expected integers, found {error}.") from error
    rows = sorted((value, k) for k, value in enumerate(values) if value > 0)
    index = np.array([value for value, _ in rows], np.int64)
    unknown = np.setdiff1d(present, index)
    if unknown.size or len(set(values)) != len(values):
        raise DataError(
            f"{file}: found {len(unknown)} labels of {image} that it does not list "
            f"(first: {unknown[:1]}) or numbers that it lists twice, expected each label once.",
            hint="Mend the table of the atlas, or take it away: labels then get their number.",
        )
    names = tuple(table["name"][k] for _, k in rows)
    columns = list(guessed(names))
    for place, column in enumerate(("hemisphere", "network")):
        if column in table:
            columns[place] = tuple(table[column][k].replace("n/a", "") for _, k in rows)
    return index, names, columns[0], columns[1]


def guessed(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return hemisphere and network that the names of parcels tell; empty where they do not."""
    found = [_HEMISPHERE.search(name) for name in names]
    first, second = ([one.group(k) if one else "" for one in found] for k in (1, 2))
    return tuple(first), tuple(second)


def to_grid(atlas: Atlas, shape: tuple[int, int, int], affine: np.ndarray) -> GridAtlas:
    """Bring an atlas to a grid by nearest neighbour.

    Parameters
    ----------
    atlas : Atlas
        The atlas.
    shape : tuple of int
        The grid.
    affine : array, shape (4, 4)
        Of the grid, to mm.

    Returns
    -------
    GridAtlas
        Parcels that lose all voxels are kept in the table with 0 voxels.

    Raises
    ------
    DataError
        No labelled voxel lies on the grid.

    Notes
    -----
    Each voxel gets the label of the atlas voxel whose centre is nearest; a tie goes to the
    higher atlas index. The same grid is taken as it is.
    """
    rows = np.zeros(int(atlas.index.max()) + 1, np.int32)
    rows[atlas.index] = np.arange(1, atlas.n_parcels + 1)
    source = rows[atlas.labels]
    if tuple(shape) == source.shape and np.allclose(affine, atlas.affine, atol=1e-4):
        labels = source
    else:
        labels = _nearest(source, np.linalg.inv(atlas.affine) @ affine, tuple(shape))
    n_voxels = np.bincount(labels.ravel(), minlength=atlas.n_parcels + 1)[1:]
    if not n_voxels.any():
        raise DataError(
            f"The atlas {atlas.name} ({atlas.path}) and the image do not overlap: found 0 "
            f"labelled voxels on the image's grid {tuple(shape)}.",
            hint="Give an atlas in the space of the images with --atlas, or choose --space.",
        )
    return GridAtlas(labels, np.asarray(affine, float), n_voxels)


def _nearest(source: np.ndarray, to_source: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return ``source`` at the voxels of a grid; 0 where the grid leaves it."""
    labels = np.zeros(shape, np.int32)
    j, k = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    for i in range(shape[0]):
        inside = np.ones(j.shape, bool)
        position = []
        for axis in range(3):
            row = to_source[axis]
            place = np.floor(row[0] * i + row[1] * j + row[2] * k + row[3] + 0.5 + 1e-6)
            inside &= (place >= 0) & (place < source.shape[axis])
            position.append(place)
        labels[i][inside] = source[tuple(place[inside].astype(np.intp) for place in position)]
    return labels
