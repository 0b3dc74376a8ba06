"""Find the parcels of surfaces and of CIFTI: label GIFTI, annotations, dlabel, or the series' own.

`find_atlas` takes any kind of image; volumes go to `atlas`. `placing` brings the parcels to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio import atlas as volumes
from bids_brainlm.bidsio import grayordinates, spaces, surfaces, write
from bids_brainlm.bidsio.atlas import Atlas
from bids_brainlm.bidsio.grayordinates import Grayordinates
from bids_brainlm.bidsio.names import alphanumeric, parse_entities
from bids_brainlm.bidsio.surfaces import Surfaces
from bids_brainlm.errors import ConfigError, DataError, MissingInputError

DENSITIES = {"3k": 2562, "10k": 10242, "32k": 32492, "41k": 40962, "164k": 163842}
_OUTSIDE = re.compile(r"\?+|unknown|(.*[^a-z])?medial[ _]?wall|background.*", re.IGNORECASE)
_ENDINGS = (".label.gii", ".func.gii", ".shape.gii", ".gii", ".annot", ".dlabel.nii")
_HEMI = re.compile(r"_?hemi-[LR]|^[lr]h\.|\.[LR](?=\.|$)")
HINT = (
    "Give --atlas the label GIFTI or .annot file of the left hemisphere (the right one lies beside "
    "it), both with a comma between them, or for CIFTI a .dlabel.nii."
)


def find_atlas(
    name: str, image: Path, space: str | None, *, home: Path | None = None, offline: bool = True
) -> Atlas:
    """Find the parcels for an image of any kind.

    Parameters
    ----------
    name : str
        For volumes see `atlas.resolve_atlas`. For surfaces the label GIFTI or ``.annot`` file of
        the left hemisphere, ``LEFT,RIGHT``, or a TemplateFlow name; for CIFTI also a
        ``.dlabel.nii``. Parcellated series are their own atlas, whatever the name.
    image : Path
        The BOLD image, or that of the left hemisphere.
    space : str or None
        The template of the BOLD images, such as ``fsaverage6``.
    home : Path, optional
        The TemplateFlow folder; see `atlas.resolve_atlas`.
    offline : bool
        Never ask TemplateFlow to download (volumes only).

    Returns
    -------
    Atlas

    Raises
    ------
    MissingInputError
        Nothing of that name is there, or one hemisphere is missing.
    DataError
        A file is no atlas.
    """
    kind = spaces.kind_of_file(image.name)
    if kind == spaces.VOLUME:
        return volumes.resolve_atlas(name, space, home=home, offline=offline)
    if image.name.endswith(".ptseries.nii"):
        return _own_parcels(image)
    left, right = _files(name, kind, space, home)
    if left.name.endswith(".dlabel.nii"):
        labels, grid, texts = grayordinates.read_dlabel(left)
        return _atlas(name, (left, None), labels, grid, texts)
    return _pair(name, left, right)


def require_dense(image: Path) -> None:
    """Refuse parcellated series where every grayordinate is asked for.

    Raises
    ------
    ConfigError
        The image is a ``ptseries``.
    """
    if image.name.endswith(".ptseries.nii"):
        raise ConfigError(
            f"{image}: found parcels, but --voxelwise asks for every grayordinate.",
            hint="Leave --voxelwise out, or give dense series (dtseries.nii).",
        )


def _files(name: str, kind: str, space: str | None, home: Path | None) -> tuple[Path, Path | None]:
    """Return the label files that a name means; no second one for CIFTI."""
    given = [Path(part.strip()) for part in name.split(",")]
    is_path = os.sep in name or spaces.kind_of_file(given[0].name) != spaces.VOLUME
    if not is_path and not given[0].name.endswith((".nii", ".nii.gz")):
        return _in_templateflow(name, kind, space, home)
    if kind == spaces.CIFTI and given[0].name.endswith(".dlabel.nii") and len(given) == 1:
        pair = [given[0]]
    else:
        if spaces.kind_of_file(given[0].name) != spaces.SURFACE or len(given) > 2:
            raise ConfigError(
                f"--atlas {name} is no atlas for images in {space}, which are "
                f"{'surfaces' if kind == spaces.SURFACE else 'CIFTI'}.",
                hint=HINT,
            )
        pair = given if len(given) == 2 else _both(given[0])
    for path in pair:
        if not os.path.lexists(path):
            raise MissingInputError(f"The surface atlas {path} does not exist.", hint=HINT)
    return pair[0], pair[1] if len(pair) == 2 else None


def _both(one: Path) -> list[Path]:
    """Return the files of both hemispheres, left first, by the name of one of them."""
    right = surfaces.right_of(one)
    if right is not None:
        return [one, right]
    left = surfaces.left_of(one)
    if left is None:
        raise ConfigError(
            f"--atlas {one}: found no hemisphere in the name (hemi-L, lh., .L.).", hint=HINT
        )
    return [left, one]


def _in_templateflow(
    name: str, kind: str, space: str | None, home: Path | None
) -> tuple[Path, Path | None]:
    """Return the label files of an atlas in TemplateFlow, of the mesh or of a finer one."""
    home = volumes.templateflow_home(home)
    wanted = alphanumeric(name).lower()
    folders = dict.fromkeys((f"tpl-{space}", re.sub(r"(fsaverage)\d$", r"\1", f"tpl-{space}")))
    endings = ["_dseg.dlabel.nii"] if kind == spaces.CIFTI else []
    found: list[tuple[int, str, Path]] = []
    for ending in [*endings, "_dseg.label.gii"]:
        for folder in folders:
            for path in (home / folder).glob(f"**/*{ending}"):
                labels = parse_entities(path).entities
                if volumes.spelling(path).lower() == wanted and labels.get("hemi") != "R":
                    found.append((_distance(labels, path, str(space)), path.name, path))
    usable = sorted(item for item in found if item[0] >= 0 and item[2].stat().st_size)
    if not usable:
        raise MissingInputError(
            f"The atlas {name} for the space {space} is not in {home}: found "
            f"{len(found)} files, expected {' or '.join(folders)} with a file "
            f"*{' or *'.join([*endings, '_dseg.label.gii'])} that spells {alphanumeric(name)}.",
            hint=HINT,
        )
    left = usable[0][2]
    return (left, None) if left.name.endswith(".dlabel.nii") else (left, _both(left)[1])


def _distance(labels: Mapping[str, str], path: Path, space: str) -> int:
    """Return how much finer a file's mesh is than the images'; negative where it is coarser."""
    if path.name.endswith(".dlabel.nii"):
        return 0
    template = path.name.split("_")[0].removeprefix("tpl-")
    have = DENSITIES.get(labels.get("den", ""), spaces.MESHES.get(template, 0))
    need = spaces.MESHES.get(space, DENSITIES["32k"])
    return have - need if have else 1


def _pair(name: str, left: Path, right: Path) -> Atlas:
    """Read the label files of both hemispheres."""
    parts = [surfaces.read_label_file(path) for path in (left, right)]
    labels, texts = [part[0] for part in parts], [dict(part[1]) for part in parts]
    warnings = []
    for path, own, names in zip((left, right), labels, texts, strict=True):
        lacking = np.setdiff1d(own, [0, *names])
        if lacking.size and names:
            names.clear()
            warnings.append(
                f"{path.name}: its table of names lacks {lacking.size} of its labels and is not "
                "used; parcels are called by their numbers"
            )
        outside = [key for key, text in names.items() if _OUTSIDE.fullmatch(text)]
        own[np.isin(own, outside)] = 0
    table = _beside(left, ".tsv")
    shared = np.intersect1d(*(own[own > 0] for own in labels))
    if table is None:
        texts = [_named(own, names) for own, names in zip(labels, texts, strict=True)]
        if set(texts[0].values()) & set(texts[1].values()):
            texts = [
                {key: f"{side}_{text}" for key, text in own.items()}
                for side, own in zip(surfaces.SIDES, texts, strict=True)
            ]
        if shared.size:
            offset = max(int(labels[0].max()), 0)
            labels[1] = np.where(labels[1] > 0, labels[1] + offset, 0)
            texts[1] = {key + offset: text for key, text in texts[1].items()}
    grid = Surfaces(*map(len, labels))
    both = np.concatenate(labels)
    return _atlas(name, (left, right), both, grid, {**texts[0], **texts[1]}, tuple(warnings))


def _named(labels: np.ndarray, names: Mapping[int, str]) -> dict[int, str]:
    """Return a name for each label that occurs."""
    present = np.unique(labels[labels > 0]).tolist()
    return {key: names.get(key) or f"parcel{key}" for key in present}


def _stem(path: Path) -> str:
    """Return a file's name without its ending."""
    ending = next((e for e in _ENDINGS if path.name.endswith(e)), path.suffix)
    return path.name.removesuffix(ending)


def _beside(path: Path, extension: str) -> Path | None:
    """Return the table or sidecar of a label file: same name, or without the hemisphere."""
    stem = _stem(path)
    for name in dict.fromkeys((stem, _HEMI.sub("", stem))):
        file = path.with_name(f"{name}{extension}")
        if file.is_file() and file.stat().st_size:
            return file
    return None


def _atlas(
    name: str,
    paths: tuple[Path, Path | None],
    labels: np.ndarray,
    grid: Surfaces | Grayordinates,
    texts: Mapping[int, str],
    warnings: tuple[str, ...] = (),
) -> Atlas:
    """Make an atlas of labels on a grid and their names; a TSV beside the file wins."""
    path, right = paths
    outside = [key for key, text in texts.items() if _OUTSIDE.fullmatch(text)]
    labels = np.where(np.isin(labels, outside), 0, labels)
    present = np.unique(labels[labels > 0])
    if not present.size:
        raise DataError(f"{path}: found no labelled vertex, expected an atlas.", hint=HINT)
    table = _beside(path, ".tsv")
    if table is None:
        index, names = present, tuple(texts.get(k) or f"parcel{k}" for k in present.tolist())
        _, networks = volumes.guessed(names)
        hemispheres = _hemispheres(labels, grid, present)
    else:
        index, names, hemispheres, networks = volumes.parcel_table(table, present, path.name)
    if len(set(names)) != len(names):
        raise DataError(f"{path}: found parcels of the same name, expected each name once.")
    parsed, sidecar = parse_entities(path).entities, _beside(path, ".json")
    label = alphanumeric(volumes.spelling(path)) or alphanumeric(_HEMI.sub("", _stem(path)))
    return Atlas(
        label=label,
        name=name,
        path=path,
        space=parsed.get("tpl") or parsed.get("space"),
        labels=labels,
        affine=None,
        index=index,
        names=names,
        hemispheres=hemispheres,
        networks=networks,
        anatomical=sidecar is None or write.read_json(sidecar).get("Anatomical") is not False,
        warnings=warnings,
        grid=grid,
        right=right,
    )


def _hemispheres(
    labels: np.ndarray, grid: Surfaces | Grayordinates, index: np.ndarray
) -> tuple[str, ...]:
    """Return L or R of each parcel; empty where it lies on both sides or in the volume."""
    sides = grid.sides
    found = []
    for key in index:
        own = set(sides[labels == key])
        found.append(own.pop() if len(own) == 1 else "")
    return tuple(map(str, found))


def _own_parcels(image: Path) -> Atlas:
    """Return the parcels of a parcellated series."""
    grid = grayordinates.grid_of(grayordinates.load(image))
    if grid.is_dense:
        raise DataError(f"{image}: found grayordinates, a ptseries has parcels.")
    entities = parse_entities(image).entities
    label = alphanumeric("".join(entities.get(k, "") for k in ("atlas", "seg", "scale")))
    names = tuple(str(name) for name in grid.axis.name)
    index = np.arange(1, len(names) + 1)
    return Atlas(
        label=label or "parcels",
        name=label,
        path=image,
        space=entities.get("space"),
        labels=index.copy(),
        affine=None,
        index=index,
        names=names,
        hemispheres=tuple(grid.sides.tolist()),
        networks=volumes.guessed(names)[1],
        anatomical=True,
        warnings=(),
        grid=grid,
    )
