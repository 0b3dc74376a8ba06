"""Confounds of a simulated run, in the table style of fMRIPrep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_brainlm.simulate.spaces import autoregressive, cosine_basis

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
MASKS = ("CSF", "WM")
N_COMPCOR = 5


@dataclass(frozen=True)
class RunConfounds:
    """What disturbs a run.

    Attributes
    ----------
    motion : array, shape (n_volumes, 6)
        mm and rad.
    cosines : array, shape (n_volumes, n_cosines)
        Discrete cosine basis up to 1 / 128 Hz.
    physiology : array, shape (n_volumes, 10)
        Five components of CSF, then five of white matter.
    """

    motion: np.ndarray
    cosines: np.ndarray
    physiology: np.ndarray

    @property
    def displacement(self) -> np.ndarray:
        """Framewise displacement in mm (rotations on a sphere of 50 mm), first value NaN."""
        scaled = self.motion * [1, 1, 1, 50, 50, 50]
        steps = np.abs(np.diff(scaled, axis=0)).sum(axis=1)
        return np.concatenate([[np.nan], steps])

    def table(self) -> dict[str, np.ndarray]:
        """Return the columns of the confounds table."""
        named = {
            "global_signal": 9000 + 20 * self.physiology.mean(axis=1),
            "csf": 12000 + 60 * self.physiology[:, 0],
            "white_matter": 8000 + 30 * self.physiology[:, N_COMPCOR],
            "framewise_displacement": self.displacement,
        }
        for i, series in enumerate(self.physiology.T):
            named[f"a_comp_cor_{i:02d}"] = series / np.linalg.norm(series)
        for i, series in enumerate(self.cosines.T):
            named[f"cosine{i:02d}"] = series
        return named | dict(zip(MOTION, self.motion.T, strict=True))

    def sidecar(self) -> dict[str, dict[str, object]]:
        """Return the metadata of the CompCor columns; membership is only told here."""
        found: dict[str, dict[str, object]] = {}
        for m, mask in enumerate(MASKS):
            for i in range(N_COMPCOR):
                share = 0.3 / 2**i
                found[f"a_comp_cor_{m * N_COMPCOR + i:02d}"] = {
                    "CumulativeVarianceExplained": round(0.6 * (1 - 0.5 ** (i + 1)), 6),
                    "Mask": mask,
                    "Method": "aCompCor",
                    "Retained": True,
                    "SingularValue": round(100 * share**0.5, 6),
                    "VarianceExplained": share,
                }
        return found

    def design(self) -> np.ndarray:
        """Return all regressors with a quadratic trend, as the Narratives release cleaned."""
        time = np.linspace(-1, 1, len(self.motion))
        trend = np.column_stack([np.ones_like(time), time, time**2])
        return np.hstack([trend, self.motion, self.cosines, self.physiology])


def draw(n_volumes: int, tr: float, rng: np.random.Generator) -> RunConfounds:
    """Draw the confounds of a run.

    Parameters
    ----------
    n_volumes : int
        Length of the run.
    tr : float
        Repetition time, s.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    RunConfounds
        Motion is a random walk with a few jumps; physiology is AR(1).
    """
    steps = rng.standard_normal((n_volumes, 6)) * [0.02, 0.02, 0.03, 4e-4, 3e-4, 3e-4]
    jumps = rng.random((n_volumes, 1)) < 0.01
    steps += jumps * rng.standard_normal((n_volumes, 6)) * [0.2, 0.2, 0.3, 4e-3, 3e-3, 3e-3]
    motion = np.cumsum(steps, axis=0)
    physiology = autoregressive((n_volumes, len(MASKS) * N_COMPCOR), 0.6, rng)
    physiology -= physiology.mean(axis=0)
    return RunConfounds(motion, cosine_basis(n_volumes, tr), physiology)


def disturbance(
    confounds: RunConfounds,
    n_columns: int,
    scales: tuple[float, float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return what the confounds add to each column.

    Parameters
    ----------
    confounds : RunConfounds
        Of the run.
    n_columns : int
        Parcels or voxels.
    scales : tuple of float
        Standard deviations of the parts motion, physiology and drift.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    array, shape (n_volumes, n_columns)
        Every column has its own mixture. Drift is a linear trend with slow cosines.
    """
    n_volumes = len(confounds.motion)
    trend = np.linspace(-1, 1, n_volumes)[:, None]
    slow = np.hstack([trend, confounds.cosines])
    weights = 1 / np.arange(1, slow.shape[1] + 1)
    parts = (confounds.motion, confounds.physiology, _standard(slow) * weights)
    total = np.zeros((n_volumes, n_columns))
    for part, scale in zip(parts, scales, strict=True):
        mixed = _standard(part) @ rng.standard_normal((part.shape[1], n_columns))
        if part is parts[2]:
            mixed = part @ rng.standard_normal((part.shape[1], n_columns))
        total += scale * _standard(mixed)
    return total


def _standard(series: np.ndarray) -> np.ndarray:
    """Centre and scale columns; constant columns become 0."""
    centred = series - series.mean(axis=0)
    sd = centred.std(axis=0)
    return centred / np.where(sd > 0, sd, 1.0)
