"""``bids_brainlm-rois``: a parcel table of ROIs from an atlas and images of ROIs, in mm."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from bids_brainlm import __version__
from bids_brainlm.bidsio import roi_images, roi_rules, roi_surface, rois, write
from bids_brainlm.bidsio.atlas import Atlas, resolve_atlas
from bids_brainlm.errors import BrainLMError, ConfigError

_DEFAULTS = roi_rules.Rules()
_LIMITS = (
    ("--overlap", "overlap", "SHARE", "least share of a parcel in a language ROI or HG"),
    ("--unlabelled", "unlabelled", "SHARE", "vmPFC, dmPFC, PMC: least share outside of these"),
    ("--anterior-limit", "anterior_mm", "MM", "vmPFC, dmPFC: centroid in front of this y"),
    ("--boundary", "boundary_mm", "MM", "dmPFC: centroid above this z, vmPFC: at it or below"),
    ("--medial-limit", "medial_mm", "MM", "vmPFC, dmPFC: largest |x| of the centroid; 0: none"),
    ("--posterior-limit", "posterior_mm", "MM", "PMC: centroid behind this y; 99: none"),
    ("--v1-overlap", "v1_overlap", "SHARE", "least share of a parcel in the V1 mask"),
    ("--v1-radius", "v1_radius_mm", "MM", "without a V1 mask: distance from the calcarine point"),
)


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises this package's error instead of leaving."""

    def error(self, message: str) -> NoReturn:
        """Turn a usage error into exit code 64."""
        raise ConfigError(f"{message}.", hint="See bids_brainlm-rois --help.")


def parser() -> argparse.ArgumentParser:
    """Make the argument parser."""
    made = _Parser(prog="bids_brainlm-rois", description=__doc__, allow_abbrev=False)
    made.add_argument("--version", action="version", version=f"bids_brainlm {__version__}")
    made.add_argument("--atlas", required=True, metavar="NAME_OR_PATH", help="whose parcels")
    made.add_argument("--space", default="MNI152NLin2009cAsym", help="template of the atlas")
    made.add_argument(
        "--language",
        required=True,
        nargs="+",
        metavar="FILE",
        help="label images of the language ROIs, with a table of names beside each",
    )
    made.add_argument("--heschl", metavar="FILE", help="mask of Heschl's gyrus")
    made.add_argument("--heschl-label", type=int, metavar="N", help="its label in --heschl")
    made.add_argument(
        "--heschl-surface",
        nargs=2,
        metavar=("L.gii", "R.gii"),
        help="the same on a surface, with --atlas-surface",
    )
    made.add_argument(
        "--atlas-surface", nargs=2, metavar=("L.gii", "R.gii"), help="the atlas on that surface"
    )
    made.add_argument("--v1", metavar="FILE", help="mask of V1")
    made.add_argument("--v1-label", type=int, metavar="N", help="its label in --v1")
    made.add_argument("--output", required=True, metavar="FILE.tsv", help="the parcel table")
    made.add_argument("--overwrite", action="store_true", help="replace it")
    for flag, name, unit, text in _LIMITS:
        value = getattr(_DEFAULTS, name)
        made.add_argument(
            flag,
            dest=name,
            type=float,
            default=value,
            metavar=unit,
            help=f"{text} (default: {value:g})",
        )
    made.add_argument(
        "--angular-limits",
        dest="angular_mm",
        nargs=2,
        type=float,
        default=_DEFAULTS.angular_mm,
        metavar=("Y", "Z"),
        help="posterior temporal voxels at most at this y and at least at this z "
        "are AngG where the images have none, mm (default: %(default)s)",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Build the table, write it and tell what is in it; return the exit code."""
    try:
        given = parser().parse_args(argv)
    except SystemExit as stop:  # argparse leaves after --help and --version
        return int(stop.code or 0)
    except BrainLMError as error:
        return _report(error)
    try:
        _run(given)
    except BrainLMError as error:
        return _report(error)
    return 0


def _report(error: BrainLMError) -> int:
    """Tell an error in words and return its exit code."""
    sys.stderr.write(f"Error: {error}\n")
    return error.exit_code


def _rules(given: argparse.Namespace) -> roi_rules.Rules:
    """Return the thresholds of the command line."""
    made = roi_rules.Rules(
        **{name: getattr(given, name) for _, name, _, _ in _LIMITS},
        angular_mm=(given.angular_mm[0], given.angular_mm[1]),
    )
    made.check()
    return made


def _run(given: argparse.Namespace) -> None:
    """Read, build, write and summarise."""
    rules = _rules(given)
    if given.heschl and given.heschl_surface:
        raise ConfigError("Give --heschl or --heschl-surface, not both.")
    if bool(given.heschl_surface) != bool(given.atlas_surface):
        raise ConfigError("--heschl-surface and --atlas-surface go together.")
    output = Path(given.output)
    rois.check_output(output, overwrite=given.overwrite)
    atlas = resolve_atlas(given.atlas, given.space)
    language = [roi_images.read_roi_image(Path(name)) for name in given.language]
    heschl, notes = _heschl(given, atlas)
    v1 = None
    if given.v1:
        mask, affine = roi_images.read_mask(Path(given.v1), given.v1_label)
        v1 = roi_rules.mask_shares(roi_rules.geometry(atlas), mask, affine)
    made = roi_rules.build(atlas, language, rules, heschl=heschl, v1=v1)
    warnings = (*notes, *made.warnings)
    sidecar = _sidecar(given, atlas, made, warnings)
    rois.write_rois(output, made.columns, sidecar, overwrite=given.overwrite)
    for warning in warnings:
        sys.stderr.write(f"Warning: {warning}\n")
    sys.stdout.write(_summary(output, atlas, made))


def _heschl(given: argparse.Namespace, atlas: Atlas) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the share of each parcel in Heschl's gyrus, and what to report."""
    if given.heschl:
        mask, affine = roi_images.read_mask(Path(given.heschl), given.heschl_label)
        return roi_rules.mask_shares(roi_rules.geometry(atlas), mask, affine), ()
    if given.heschl_surface:
        places = roi_rules.geometry(atlas)
        masks, surfaces = map(Path, given.heschl_surface), map(Path, given.atlas_surface)
        return roi_surface.surface_shares(
            list(masks), list(surfaces), list(places.sides), atlas.index, places.centres
        )
    return None, ()


def _sidecar(
    given: argparse.Namespace,
    atlas: Atlas,
    made: roi_rules.ParcelRois,
    warnings: Sequence[str],
) -> dict[str, object]:
    """Return what the JSON beside the table states."""
    names = roi_images.label_file(atlas.path)
    files = [("atlas", atlas.path), *([("atlas", names)] if names else [])]
    for name in given.language:
        files.append(("language", Path(name)))
        table = roi_images.label_file(Path(name))
        files += [("language", table)] if table else []
    files += [
        ("heschl", Path(name)) for name in (given.heschl, *(given.heschl_surface or ())) if name
    ]
    files += [("atlas surface", Path(name)) for name in given.atlas_surface or ()]
    files += [("v1", Path(given.v1))] if given.v1 else []
    table = roi_images.roi_table()
    return {
        "index": {"Description": "Label number of the parcel in the atlas."},
        "name": {"Description": "Name of the parcel in the atlas."},
        "hemisphere": {"Levels": {"L": "left", "R": "right"}},
        "roi": {"Levels": dict(zip(table.names, table.descriptions, strict=True))},
        "overlap": {
            "Description": "Share of the parcel (0 to 1) in the ROI's image or surface; for vmPFC, "
            "dmPFC and PMC the share outside of language ROIs and HG; n/a for V1 by position."
        },
        "Atlas": {
            "Name": given.atlas if atlas.path.name not in given.atlas else atlas.path.name,
            "NumberOfParcels": atlas.n_parcels,
            "Space": atlas.space,
            "Labels": roi_rules.generation(atlas.names) or None,
        },
        "Rules": made.rules | {"heschl_label": given.heschl_label, "v1_label": given.v1_label},
        "Sources": [
            {"Role": role, "File": path.name, "SHA256": write.sha256_file(path)}
            for role, path in files
        ],
        "Warnings": list(warnings),
        "GeneratedBy": {"Name": "bids_brainlm-rois", "Version": __version__},
    }


def _summary(output: Path, atlas: Atlas, made: roi_rules.ParcelRois) -> str:
    """Return the table that is printed."""
    labels = roi_rules.generation(atlas.names)
    lines = [f"{output}: {atlas.n_parcels} parcels of {atlas.name}" + f" ({labels})" * bool(labels)]
    lines.append(f"{'ROI':<10}{'left':>6}{'right':>7}{'mm3':>10}")
    lines += [
        f"{name:<10}{n_left:>6}{n_right:>7}{mm3:>10.0f}"
        for name, n_left, n_right, mm3 in made.summary()
    ]
    return "\n".join(lines) + "\n"
