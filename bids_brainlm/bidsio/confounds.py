"""Choose the confounds that are regressed from a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from bids_brainlm.bidsio.bold import require_present
from bids_brainlm.bidsio.dataset import read_sidecars
from bids_brainlm.errors import ConfigError, DataError, MissingInputError

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
HEAD_RADIUS_MM = 50.0
_COMPCOR_PREFIX = {"CSF": "c_comp_cor_", "WM": "w_comp_cor_"}


@dataclass(frozen=True, slots=True)
class Confounds:
    """Regressors of one run.

    ``matrix`` has shape (n_volumes, n) without an intercept, ``columns`` their names,
    ``high_pass`` the cut-off in s of a generated cosine basis (None where the table's own
    cosines are used, or none), ``notes`` what the model asked for and the table lacks.
    """

    matrix: np.ndarray
    columns: tuple[str, ...]
    model: str
    high_pass: float | None
    notes: tuple[str, ...]


@lru_cache(maxsize=1)
def denoise_models() -> Mapping[str, Mapping[str, object]]:
    """Return the confound models of ``data/denoise.json`` by name."""
    text = resources.files("bids_brainlm").joinpath("data/denoise.json").read_text("utf-8")
    return json.loads(text)


def select(
    tsv: Path | None, sidecar: Path | None, model: str, n_volumes: int, tr: float
) -> Confounds:
    """Return the regressors of a confound model.

    Parameters
    ----------
    tsv, sidecar : Path or None
        fMRIPrep's confounds table and its JSON, in the old (``a_comp_cor_`` for all masks)
        or the new style.
    model : str
        A name of ``data/denoise.json``.
    n_volumes : int
        Volumes of the image.
    tr : float
        Repetition time in s, for a generated cosine basis.

    Returns
    -------
    Confounds

    Raises
    ------
    ConfigError
        The model is unknown.
    DataError
        The table has other rows than the image, or lacks motion columns, or a chosen
        column has cells that are not finite numbers.
    MissingInputError
        The table, or the JSON that tells the masks of old aCompCor columns, is missing.

    Notes
    -----
    aCompCor components are taken in natural order among those that the JSON calls retained.
    A table without cosine columns gets the discrete cosine basis of fMRIPrep's cut-off
    (128 s), so that slow drifts are always removed.
    """
    if model not in denoise_models():
        raise ConfigError(
            f"The confound model {model!r} is unknown.",
            hint=f"Use one of these with --denoise: {', '.join(denoise_models())}.",
        )
    settings = denoise_models()[model]
    if not any(settings[key] for key in ("Motion", "Cosines", "CompCor", "Polynomials")):
        return Confounds(np.empty((n_volumes, 0)), (), model, None, ())
    if tsv is None:
        raise MissingInputError(
            f"The confound model {model!r} needs a confounds table, found none beside the image "
            "(expected *_desc-confounds_timeseries.tsv or *_desc-confounds_regressors.tsv).",
            hint="Add the fMRIPrep folder to --derivatives, or use --denoise none.",
        )
    require_present(tsv, "confounds table")
    header, rows = _read(tsv, n_volumes)
    notes: list[str] = []
    names = [*_motion(tsv, header, settings)]
    cosines = _natural(name for name in header if name.startswith("cosine"))
    names += cosines if settings["Cosines"] else []
    names += _compcor(tsv, sidecar, header, settings, notes)
    blocks = [_columns(tsv, header, rows, names)]
    high_pass = None
    if settings["GeneratedHighPass"] and not cosines:
        high_pass = float(settings["GeneratedHighPass"])
        basis = cosine_basis(n_volumes, tr, high_pass)
        blocks.append(basis)
        names += [f"generated_cosine{k:02d}" for k in range(basis.shape[1])]
        notes.append(f"no cosine columns: {basis.shape[1]} generated for {high_pass:g} s")
    order = int(settings["Polynomials"])
    blocks.append(polynomials(n_volumes, order))
    names += [f"polynomial{k}" for k in range(1, order + 1)]
    return Confounds(np.hstack(blocks), tuple(names), model, high_pass, tuple(notes))


def _read(tsv: Path, n_volumes: int | None) -> tuple[list[str], list[list[str]]]:
    """Return the header and the cells of a table; check the number of rows."""
    try:
        lines = tsv.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{tsv} cannot be read: {error}.") from error
    rows = [line.split("\t") for line in lines[1:] if line.strip()]
    if n_volumes is not None and len(rows) != n_volumes:
        raise DataError(
            f"{tsv}: found {len(rows)} rows, expected one for each of the {n_volumes} volumes "
            "of the image.",
            hint="Check that the table belongs to the image, or use --denoise none.",
        )
    return (lines[0].split("\t") if lines else []), rows


def _motion(tsv: Path, header: list[str], settings: Mapping[str, object]) -> list[str]:
    """Return the motion columns, all of which must be there."""
    wanted = list(settings["Motion"])
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(
            f"{tsv}: expected the motion columns {', '.join(wanted)}, found no "
            f"{', no '.join(missing)}.",
            hint="Check the confounds table, or use --denoise none.",
        )
    return wanted


def _natural(names) -> list[str]:
    """Sort names so that numbers in them count as numbers."""
    return sorted(names, key=lambda name: [int(x) for x in re.findall(r"\d+", name)] or [-1])


def _compcor(
    tsv: Path,
    sidecar: Path | None,
    header: list[str],
    settings: Mapping[str, object],
    notes: list[str],
) -> list[str]:
    """Return the first retained components of each mask."""
    wanted = settings["CompCor"]
    if not wanted:
        return []
    described = {}
    if sidecar is not None:
        require_present(sidecar, "description of the confounds")
        described = read_sidecars([sidecar])
    old = [name for name in header if name.startswith("a_comp_cor_")]
    new = any(name.startswith(tuple(_COMPCOR_PREFIX.values())) for name in header)
    if old and not new and not described:
        raise MissingInputError(
            f"{tsv}: the masks (CSF, WM) of its {len(old)} a_comp_cor_ columns stand only in its "
            "JSON, expected beside it, found none.",
            hint=f"Get {tsv.with_suffix('.json').name} from the same fMRIPrep run, or use "
            "--denoise none.",
        )
    names = []
    for mask, number in wanted.items():
        fitting = [
            name
            for name in header
            if _is_component(described.get(name), name, mask, bool(described))
        ]
        chosen = _natural(fitting)[:number]
        if len(chosen) < number:
            notes.append(f"found {len(chosen)} aCompCor components of {mask}, asked for {number}")
        names += chosen
    return names


def _is_component(entry: object, name: str, mask: str, described: bool) -> bool:
    """Tell whether a column is a retained aCompCor component of a mask."""
    if isinstance(entry, Mapping):
        return (
            entry.get("Method") == "aCompCor"
            and entry.get("Mask") == mask
            and bool(entry.get("Retained", True))
        )
    return not described and name.startswith(_COMPCOR_PREFIX[mask])


def _columns(tsv: Path, header: list[str], rows: list[list[str]], names: list[str]) -> np.ndarray:
    """Return columns as numbers, shape (n_rows, n_names).

    Raises
    ------
    DataError
        A cell is not a finite number.
    """
    matrix = np.empty((len(rows), len(names)))
    for k, name in enumerate(names):
        matrix[:, k] = _column(rows, header.index(name))
        bad = np.flatnonzero(~np.isfinite(matrix[:, k]))
        if bad.size:
            raise DataError(
                f"{tsv}: column {name}: found {bad.size} of {len(rows)} cells that are not "
                f"finite numbers (first in line {bad[0] + 2}), expected none.",
                hint="Mend the table, or use --denoise none.",
            )
    return matrix


def _column(rows: list[list[str]], index: int) -> np.ndarray:
    """Return a column as numbers; NaN for what is no number."""
    values = np.full(len(rows), np.nan)
    for k, row in enumerate(rows):
        try:
            values[k] = float(row[index])
        except (ValueError, IndexError):
            continue
    return values


def cosine_basis(n_volumes: int, tr: float, cut_off: float) -> np.ndarray:
    """Return the discrete cosine basis slower than a cut-off, without the constant.

    Parameters
    ----------
    n_volumes : int
        Number of volumes.
    tr : float
        Repetition time in s.
    cut_off : float
        Shortest period in s that is kept in the basis.

    Returns
    -------
    array, shape (n_volumes, n)
        ``n = floor(2 * n_volumes * tr / cut_off)``, as in SPM and fMRIPrep.
    """
    n = min(n_volumes - 1, int(np.floor(2 * n_volumes * tr / cut_off)))
    time = (np.arange(n_volumes) + 0.5) / n_volumes
    return np.cos(np.pi * np.outer(time, np.arange(1, n + 1)))


def polynomials(n_volumes: int, order: int) -> np.ndarray:
    """Return Legendre polynomials 1 to ``order`` over the run, shape (n_volumes, order)."""
    time = np.linspace(-1, 1, n_volumes)
    return np.polynomial.legendre.legvander(time, order)[:, 1:]


def framewise_displacement(tsv: Path) -> float | None:
    """Return the mean framewise displacement of a run in mm.

    Parameters
    ----------
    tsv : Path
        A confounds table.

    Returns
    -------
    float or None
        Mean of the column ``framewise_displacement`` without its empty first cell; where
        there is no such column, computed from motion [1]_ with a radius of 50 mm; None
        without motion columns.

    References
    ----------
    .. [1] Power et al. (2012), doi:10.1016/j.neuroimage.2011.10.018
    """
    header, rows = _read(tsv, None)
    if "framewise_displacement" in header:
        values = _column(rows, header.index("framewise_displacement"))
        values = values[np.isfinite(values)]
        return float(values.mean()) if values.size else None
    if any(name not in header for name in MOTION) or len(rows) < 2:
        return None
    motion = np.column_stack([_column(rows, header.index(name)) for name in MOTION])
    motion[:, 3:] *= HEAD_RADIUS_MM
    steps = np.abs(np.diff(motion, axis=0)).sum(axis=1)
    return float(steps.mean()) if np.isfinite(steps).all() else None
