"""Which files of a derivative dataset count as BOLD images: volumes, surfaces and CIFTI."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from bids_brainlm.bidsio import spaces
from bids_brainlm.bidsio.names import ParsedName, alphanumeric

VOLUMES = (".nii.gz", ".nii")
SURFACES = (".func.gii", ".func.gii.gz")
DENSE, PARCELLATED = ".dtseries.nii", ".ptseries.nii"
_SMOOTHED = re.compile(r"sm\d+")
_OF_PARCELS = ("atlas", "seg", "scale")  # entities


class _Candidate(Protocol):
    """What `of_atlas` reads."""

    @property
    def parsed(self) -> ParsedName:
        """The name taken apart."""


C = TypeVar("C", bound=_Candidate)


def candidate_state(parsed: ParsedName) -> str | None:
    """Tell what was done to a BOLD image.

    Parameters
    ----------
    parsed : ParsedName

    Returns
    -------
    {"clean", "preproc", "smoothed"} or None
        None for other files.

    Notes
    -----
    Volumes are ``_bold.nii.gz`` with ``desc-clean`` or ``desc-preproc``. Surfaces of spaces
    such as fsaverage6 are ``.func.gii``, with the suffix ``bold`` or, as in Narratives and
    fMRIPrep 20.0, without one; CIFTI series (space fsLR) have the suffix ``bold`` or, from
    XCP-D, ``timeseries``. For both, no ``desc`` means preprocessed, ``desc-denoised`` (XCP-D)
    means clean, and ``desc-sm6`` (AFNI, Narratives) smoothed and not clean.
    """
    desc, extension = parsed.entities.get("desc", ""), parsed.extension
    space = spaces.kind_of_space(parsed.entities.get("space"))
    if extension in VOLUMES:
        usable = parsed.suffix == "bold" and desc in ("clean", "preproc")
        return desc if usable else None
    if extension in SURFACES:
        usable = parsed.suffix in ("bold", None) and space == spaces.SURFACE
        usable = usable and parsed.entities.get("hemi") in ("L", "R")
    else:
        usable = extension in (DENSE, PARCELLATED) and space == spaces.CIFTI
        usable = usable and parsed.suffix in ("bold", "timeseries")
    if not usable:
        return None
    if _SMOOTHED.fullmatch(desc):
        return "smoothed"
    return {"": "preproc", "preproc": "preproc", "clean": "clean", "denoised": "clean"}.get(desc)


def hemispheres(parsed: ParsedName, path: Path) -> tuple[Path, Path | None] | None:
    """Return the files of an image: one, or those of the left and the right hemisphere.

    A file that is missing is named as it would be called. None for a right hemisphere that has
    a left one, which stands for both.
    """
    side = parsed.entities.get("hemi")
    if parsed.extension not in SURFACES or side is None:
        return path, None
    other = path.with_name(path.name.replace(f"hemi-{side}", f"hemi-{'R' if side == 'L' else 'L'}"))
    if side == "L":
        return path, other
    return None if os.path.lexists(other) else (other, path)


def of_atlas(found: Sequence[C], atlas: str) -> Sequence[C]:
    """Choose among dense and parcellated series of a run.

    Parameters
    ----------
    found : sequence of candidates
    atlas : str
        As ``--atlas`` names it.

    Returns
    -------
    sequence of candidates
        The parcellated series whose atlas spells like ``atlas``, else dense series, else all.
    """
    wanted = alphanumeric(atlas).lower()

    def spelled(one: C) -> str:
        labels = one.parsed.entities
        return alphanumeric("".join(labels.get(key, "") for key in _OF_PARCELS)).lower()

    parcellated = [one for one in found if one.parsed.extension == PARCELLATED]
    exact = [one for one in parcellated if wanted and spelled(one) == wanted]
    return exact or [one for one in found if one not in parcellated] or found
