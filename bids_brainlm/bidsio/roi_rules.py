"""Build a parcel table of ROIs from an atlas and images of ROIs, by rules in mm."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from bids_brainlm.bidsio import roi_images
from bids_brainlm.bidsio.atlas import Atlas
from bids_brainlm.bidsio.roi_images import RoiImage
from bids_brainlm.bidsio.rois import parcel_hemispheres
from bids_brainlm.errors import ConfigError, DataError

LANGUAGE = ("PostTemp", "AntTemp", "AngG", "IFG", "IFGorb", "MFG")
V1_POINT = (6.0, -90.0, 3.0)
"""Calcarine cortex near the occipital pole, mm, right hemisphere (left: -x)."""

_DEFAULT = re.compile(r"(?:^|_)Default[ABC]?_([A-Za-z]+)")
_NOT_MEDIAL = ("PFC", "Temp", "AntTemp", "IPL", "Par", "PHC")
_VISUAL = re.compile(r"(?:^|_)Vis(?:Cent|Peri)?_")
_SCHAEFER = re.compile(r"(?:(\d+)Networks_)?[LR]H_(?:Vis|SomMot|Default|Cont)")


@dataclass(frozen=True)
class Rules:
    """Thresholds of the rules.

    Attributes
    ----------
    overlap : float
        Least share of a parcel in a language ROI or Heschl's gyrus.
    unlabelled : float
        Least share of a parcel outside of these, for vmPFC, dmPFC and PMC.
    anterior_mm : float
        vmPFC and dmPFC: the centroid lies in front of this y.
    boundary_mm : float
        dmPFC above this z, vmPFC at it or below.
    medial_mm : float
        vmPFC and dmPFC: largest distance of the centroid from the midline; 0 for no limit.
    posterior_mm : float
        PMC: the centroid lies behind this y.
    angular_mm : tuple of float
        Voxels of a posterior temporal ROI at most at this y and at least at this z are AngG,
        where the images have no AngG of their own.
    v1_overlap : float
        Least share of a parcel in a V1 mask.
    v1_radius_mm : float
        Without a mask: largest distance of a visual parcel's centroid from `V1_POINT`.
    """

    overlap: float = 0.4
    unlabelled: float = 0.7
    anterior_mm: float = 41.5
    boundary_mm: float = 19.5
    medial_mm: float = 18.0
    posterior_mm: float = -20.0
    angular_mm: tuple[float, float] = (-50.0, 18.0)
    v1_overlap: float = 0.25
    v1_radius_mm: float = 8.0

    def check(self) -> None:
        """Check ranges.

        Raises
        ------
        ConfigError
            A share is not above 0 and at most 1, or a distance is negative or not finite.
        """
        for name in ("overlap", "unlabelled", "v1_overlap"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                flag = "--" + name.replace("_", "-")
                raise ConfigError(
                    f"{flag} is {value:g}, expected a share above 0 and up to 1.",
                    hint=f"Set {flag} to a number such as {getattr(Rules, name):g}.",
                )
        limits = [self.anterior_mm, self.boundary_mm, self.posterior_mm, *self.angular_mm]
        if not np.isfinite([*limits, self.medial_mm, self.v1_radius_mm]).all():
            raise ConfigError("A limit is not finite, expected numbers in mm.")
        if self.medial_mm < 0 or self.v1_radius_mm < 0:
            raise ConfigError(
                f"--medial-limit is {self.medial_mm:g} mm and --v1-radius {self.v1_radius_mm:g} "
                "mm, expected 0 or more."
            )


@dataclass(frozen=True)
class ParcelRois:
    """What was built.

    Attributes
    ----------
    columns : dict
        ``index``, ``name``, ``hemisphere``, ``roi`` (None for none), ``overlap``: one row a
        parcel of the atlas.
    n_voxels : array of int, shape (n_parcels,)
        On the grid of the atlas.
    voxel_mm3 : float
    rules : dict
    warnings : tuple of str
    """

    columns: dict[str, list[object] | np.ndarray]
    n_voxels: np.ndarray
    voxel_mm3: float
    rules: dict[str, object]
    warnings: tuple[str, ...]

    def summary(self) -> list[tuple[str, int, int, float]]:
        """Return ROI, parcels left and right, and volume in mm3, in the table's order."""
        rois = np.array([roi or "" for roi in self.columns["roi"]])
        sides = np.array(self.columns["hemisphere"])
        rows = []
        for name in roi_images.roi_table().names:
            own = rois == name
            n_left, n_right = int((own & (sides == "L")).sum()), int((own & (sides == "R")).sum())
            rows.append((name, n_left, n_right, float(self.n_voxels[own].sum() * self.voxel_mm3)))
        return rows


@dataclass
class Places:
    """Voxels and centroids of the parcels of an atlas.

    Attributes
    ----------
    owner : array of int, shape (n_voxels,)
        Row of the parcel of each labelled voxel.
    xyz : array, shape (n_voxels, 3)
        Centres of these voxels, mm.
    centres : array, shape (n_parcels, 3)
        Centroids, mm.
    sides : array of str, shape (n_parcels,)
        L or R.
    warnings : list of str
    """

    owner: np.ndarray
    xyz: np.ndarray
    centres: np.ndarray
    sides: np.ndarray
    warnings: list[str] = field(default_factory=list)

    @property
    def n_parcels(self) -> int:
        """Number of parcels."""
        return len(self.centres)


def geometry(atlas: Atlas) -> Places:
    """Return positions of an atlas's voxels and parcels, in mm.

    Raises
    ------
    DataError
        Positions of this atlas mean nothing.
    """
    if not atlas.anatomical:
        raise DataError(
            f"The atlas {atlas.path} is not anatomical, expected one whose positions are mm.",
            hint="Give a label image of the brain with --atlas.",
        )
    rows = np.zeros(int(atlas.index.max()) + 1, np.int64)
    rows[atlas.index] = np.arange(1, atlas.n_parcels + 1)
    owner, xyz = roi_images.voxels(rows[atlas.labels], np.asarray(atlas.affine, float))
    centres = roi_images.centroids(owner, xyz, atlas.n_parcels)
    sides = np.array(parcel_hemispheres(atlas.names, centres[:, 0], atlas.hemispheres))
    return Places(owner, xyz, centres, sides)


def generation(names: Sequence[str]) -> str:
    """Say which generation of Schaefer labels an atlas has; empty for other atlases.

    Notes
    -----
    Release v0.14.3 (CBIG, September 2019) gave parcels other names and numbers. The posterior
    medial parcels are called ``PCC`` before and ``pCunPCC`` since; TemplateFlow has the labels
    of before.
    """
    found = next((found for name in names if (found := _SCHAEFER.search(name))), None)
    if found is None:
        return ""
    networks = f"{found.group(1)} networks, " if found.group(1) else ""
    if any("_pCunPCC_" in name for name in names):
        when = "names as since v0.14.3"
    elif any(re.search(r"Default[ABC]?_PCC_", name) for name in names):
        when = "names as before v0.14.3"
    else:
        when = "release unknown"
    return f"Schaefer 2018, {len(names)} parcels, {networks}{when}"


def candidates(names: Sequence[str], centres: np.ndarray, rules: Rules) -> dict[str, np.ndarray]:
    """Return the parcels that names and centroids allow in vmPFC, dmPFC and PMC.

    Parameters
    ----------
    names : sequence of str
        Schaefer names of any release, 7 or 17 networks.
    centres : array, shape (n_parcels, 3)
        Centroids, mm.
    rules : Rules

    Returns
    -------
    dict of str to array of bool, shape (n_parcels,)
        Before the rule about the unlabelled share.

    Notes
    -----
    Prefrontal parcels have ``PFC`` in their name. PMC takes parcels of the default network
    whose component is none of prefrontal, temporal, inferior parietal (``IPL``, ``Par``) and
    parahippocampal.
    """
    x, y, z = np.nan_to_num(centres, nan=-1e6).T
    frontal = np.array(["PFC" in name for name in names]) & (y > rules.anterior_mm)
    if rules.medial_mm > 0:
        frontal &= np.abs(x) <= rules.medial_mm
    found = [_DEFAULT.search(name) for name in names]
    medial = np.array([bool(f) and not f.group(1).startswith(_NOT_MEDIAL) for f in found])
    return {
        "vmPFC": frontal & (z <= rules.boundary_mm),
        "dmPFC": frontal & (z > rules.boundary_mm),
        "PMC": medial & (y < rules.posterior_mm) & np.isfinite(centres[:, 1]),
    }


def mask_shares(places: Places, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the share of each parcel's voxels in a mask, shape (n_parcels,)."""
    codes = roi_images.values_at(mask, affine, places.xyz)
    return roi_images.shares(places.owner, codes, places.n_parcels, 1)[:, 0]


def _language_shares(places: Places, language: Sequence[RoiImage], rules: Rules) -> np.ndarray:
    """Return the share of each parcel in each language ROI, shape (n_parcels, 6)."""
    codes = np.zeros(len(places.owner), np.int64)
    seen: set[str] = set()
    for image in language:
        seen |= set(image.names)
        places.warnings += image.warnings
        own = [LANGUAGE.index(n) + 1 if n in LANGUAGE else 0 for n in image.names]
        lookup = np.array([0, *own])
        there = lookup[roi_images.values_at(image.labels, image.affine, places.xyz)]
        codes = np.where(codes == 0, there, codes)
    posterior, angular = LANGUAGE.index("PostTemp") + 1, LANGUAGE.index("AngG") + 1
    if "AngG" not in seen:
        y, z = places.xyz[:, 1], places.xyz[:, 2]
        behind = (y <= rules.angular_mm[0]) & (z >= rules.angular_mm[1])
        codes[(codes == posterior) & behind] = angular
    lacking = [name for name in LANGUAGE if name not in seen and name != "AngG"]
    if lacking:
        places.warnings.append(f"the language images have no {', '.join(lacking)}")
    return roi_images.shares(places.owner, codes, places.n_parcels, len(LANGUAGE))


def _calcarine(places: Places, names: Sequence[str], rules: Rules) -> np.ndarray:
    """Return 1 for visual parcels at the calcarine point, shape (n_parcels,)."""
    chosen = np.zeros(places.n_parcels)
    visual = np.array([bool(_VISUAL.search(name)) for name in names])
    for side, sign in (("L", -1), ("R", 1)):
        own = visual & (places.sides == side)
        if not own.any():
            continue
        point = np.array(V1_POINT) * (sign, 1, 1)
        distance = np.linalg.norm(places.centres - point, axis=1)
        near = own & (distance <= rules.v1_radius_mm)
        if not near.any():
            inside = own[places.owner]
            gaps = np.linalg.norm(places.xyz[inside] - point, axis=1)
            near = np.arange(places.n_parcels) == places.owner[inside][gaps.argmin()]
        chosen[near] = 1
    return chosen


def build(
    atlas: Atlas,
    language: Sequence[RoiImage],
    rules: Rules,
    *,
    heschl: np.ndarray | None = None,
    v1: np.ndarray | None = None,
) -> ParcelRois:
    """Give each parcel of an atlas its ROI.

    Parameters
    ----------
    atlas : Atlas
        In mm, with names.
    language : sequence of RoiImage
        Images of the language ROIs, such as EvLab's parcels. Other labels in them (cerebellum
        and the like) are not used.
    rules : Rules
    heschl : array, shape (n_parcels,), optional
        Share of each parcel in Heschl's gyrus; without it, there is no HG.
    v1 : array, shape (n_parcels,), optional
        Share of each parcel in V1; without it, visual parcels near `V1_POINT` are taken.

    Returns
    -------
    ParcelRois

    Raises
    ------
    ConfigError
        A threshold is out of range.
    DataError
        No parcel is in any language ROI.

    Notes
    -----
    1. A parcel belongs to the language ROI or HG with the largest share, if that is at least
       ``overlap``. Equal shares go to the ROI that comes first in the table.
    2. vmPFC, dmPFC and PMC take their `candidates` of which at least ``unlabelled`` lies in no
       language ROI and not in HG; the overlap that is written is this share.
    3. V1 takes parcels without ROI. Without a mask these are the visual parcels whose centroid
       is within ``v1_radius_mm`` of the calcarine point of their hemisphere; where there is
       none (coarse atlases), the visual parcel that is nearest to the point. Their overlap is
       not known and left empty.
    """
    rules.check()
    places = geometry(atlas)
    found = _language_shares(places, language, rules)
    if not (found.max(axis=1) >= rules.overlap).any():
        raise DataError(
            f"None of the {atlas.n_parcels} parcels of {atlas.path.name} has {rules.overlap:g} of "
            f"its voxels in a language ROI (largest share: {found.max():.2f}).",
            hint="Check that --atlas and --language are in one space (mm), or lower --overlap.",
        )
    names = (*LANGUAGE, "HG")
    auditory = np.zeros(atlas.n_parcels) if heschl is None else np.asarray(heschl, float)
    found = np.column_stack([found, auditory])
    rois = np.full(atlas.n_parcels, "", dtype=object)
    overlaps = found.max(axis=1)
    in_one = overlaps >= rules.overlap
    rois[in_one] = np.array(names, object)[found.argmax(axis=1)[in_one]]
    # A share on the surface and one in the volume do not add up to more than all.
    free = np.clip(1 - found.sum(axis=1), 0, 1)
    for name, allowed in candidates(atlas.names, places.centres, rules).items():
        taken = allowed & (free >= rules.unlabelled) & (rois == "")
        rois[taken], overlaps[taken] = name, free[taken]
        if not allowed.any():
            places.warnings.append(f"{name}: no parcel has a name and a place that fit")
    share = _calcarine(places, atlas.names, rules) if v1 is None else np.asarray(v1, float)
    taken = (share >= rules.v1_overlap) & (rois == "")
    rois[taken], overlaps[taken] = "V1", np.nan if v1 is None else share[taken]
    if heschl is None:
        places.warnings.append("HG: no mask was given (--heschl or --heschl-surface)")
    return _finish(atlas, places, rois, overlaps, rules)


def _finish(
    atlas: Atlas, places: Places, rois: np.ndarray, overlaps: np.ndarray, rules: Rules
) -> ParcelRois:
    """Return the table with its rules and warnings."""
    missing = [n for n in roi_images.roi_table().names if n not in set(rois)]
    if missing:
        places.warnings.append(f"no parcel in {', '.join(missing)}")
    columns: dict[str, list[object] | np.ndarray] = {
        "index": [int(v) for v in atlas.index],
        "name": list(atlas.names),
        "hemisphere": [side or None for side in places.sides],
        "roi": [roi or None for roi in rois],
        "overlap": np.where(rois == "", np.nan, overlaps).astype(float),
    }
    return ParcelRois(
        columns,
        np.bincount(places.owner, minlength=atlas.n_parcels),
        float(abs(np.linalg.det(np.asarray(atlas.affine, float)[:3, :3]))),
        asdict(rules) | {"v1_point_mm": list(V1_POINT)},
        (*atlas.warnings, *places.warnings),
    )
