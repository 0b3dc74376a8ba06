"""Stimulus recordings on the volumes of a story."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from bids_brainlm.bidsio.stim_files import StimTable, without_content
from bids_brainlm.errors import DataError
from bids_brainlm.records import TRGrid

log = logging.getLogger(__name__)

_SAME_GRID = 0.1  # TRs that a sample may be off the row it is copied to
_NEAR = 0.02  # relative difference between sampling period and TR that must be a rounding error
_ROUNDING = 1e-7  # s, as `TRGrid.bin`


@dataclass(frozen=True, slots=True)
class StimRows:
    """A recording on the rows of a story.

    ``values`` has shape (n_trs, n_columns), NaN where there is no value; ``valid`` (n_trs,)
    is True where all columns have one. ``rule`` is ``copy``, ``average`` or ``interpolation``.
    ``dropped`` are columns that had no value in any row, ``constant`` kept ones with one value
    only.
    """

    columns: tuple[str, ...]
    values: np.ndarray
    valid: np.ndarray
    rule: str
    dropped: tuple[str, ...]
    constant: tuple[str, ...]


def to_rows(table: StimTable, grid: TRGrid, audio_onset: float = 0.0) -> StimRows:
    """Put a recording on the volumes of a story.

    Parameters
    ----------
    table : StimTable
        The recording.
    grid : TRGrid
        Row 0 begins at ``grid.onset`` s after the run's first volume.
    audio_onset : float
        What is added to the times of the table to get times in s from the run's first
        volume: 0 for recordings whose clock is the run's, as BIDS has it; the start of the
        audio file for those whose clock is the audio's (`StimFile`).

    Returns
    -------
    StimRows

    Raises
    ------
    DataError
        The table covers no row, or its sampling period is nearly the TR but drifts away.

    Notes
    -----
    Sample i lies at ``start_time + i / sampling_frequency``.

    * Sampled once a TR, in step with the volumes (to a tenth of a TR over all rows):
      ``copy``, one sample a row.
    * Faster than the TR: ``average`` over the samples from the start of the row up to, but
      not including, its end; ``n/a`` is left out. Rows that are covered in part use what is
      there.
    * Slower, or once a TR but out of step: ``interpolation``, linear between the two samples
      around the *start* of the row, which is the time that a row has in ``copy``. It looks
      ahead by up to one sample. No value is made up beyond the first and the last sample or
      beside ``n/a``.
    """
    n_samples = len(table.values)
    period = 1.0 / table.sampling_frequency
    start = table.start_time + audio_onset
    rows = np.arange(grid.n_trs)
    place = (grid.onset + rows * grid.tr - start) / period  # of each row, in samples
    rule = _rule(table, grid, place, period)
    if rule == "copy":
        values = np.full((grid.n_trs, len(table.columns)), np.nan)
        index = np.rint(place).astype(np.int64)
        inside = (index >= 0) & (index < n_samples)
        values[inside] = table.values[index[inside]]
    elif rule == "average":
        borders = np.append(place, place[-1] + grid.tr / period) - _ROUNDING / period
        values = _averages(table.values, borders)
    else:
        values = _interpolated(table.values, place)
    return _rows(table, grid, values, rule, start)


def _rule(table: StimTable, grid: TRGrid, place: np.ndarray, period: float) -> str:
    """Choose how samples become rows."""
    covered = (place > -0.5) & (place < len(table.values) - 0.5)
    off = place[covered] - np.rint(place[covered])
    near = abs(period / grid.tr - 1) < _NEAR
    if near and off.size:
        steps = np.rint(place[covered])
        in_step = (np.abs(off) <= _SAME_GRID).all() and (np.diff(steps) == 1).all()
        if in_step:
            return "copy"
        drift = abs(grid.tr / period - 1) * off.size
        if drift > _SAME_GRID:
            raise DataError(
                f"{table.path}: found a SamplingFrequency of {table.sampling_frequency:g} Hz "
                f"({period:g} s a sample), nearly the TR of {grid.tr:g} s but {drift:.1f} TRs "
                f"off after {off.size} rows; expected {1 / grid.tr:.9g} Hz if it has one sample "
                "a TR.",
                hint="Write SamplingFrequency with all its digits.",
            )
        return "interpolation"
    return "average" if period < grid.tr else "interpolation"


def _averages(values: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """Average the samples between borders, without those that are NaN."""
    borders = np.clip(np.ceil(borders), 0, len(values)).astype(np.int64)
    result = np.full((len(borders) - 1, values.shape[1]), np.nan)
    for row in np.flatnonzero(np.diff(borders)):
        piece = values[borders[row] : borders[row + 1]]
        present = np.isfinite(piece)
        count = present.sum(axis=0)
        total = np.where(present, piece, 0.0).sum(axis=0)
        result[row] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return result


def _interpolated(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Interpolate between samples; NaN outside and beside NaN."""
    nearest = np.rint(place)
    place = np.where(np.abs(place - nearest) < 1e-6, nearest, place)
    result = np.full((len(place), values.shape[1]), np.nan)
    inside = (place >= 0) & (place <= len(values) - 1)
    left = np.floor(place[inside]).astype(np.int64)
    right = np.minimum(left + 1, len(values) - 1)
    weight = (place[inside] - left)[:, None]
    mixed = (1 - weight) * values[left] + weight * values[right]
    result[inside] = np.where(weight == 0, values[left], mixed)
    return result


def _rows(table: StimTable, grid: TRGrid, values: np.ndarray, rule: str, start: float) -> StimRows:
    """Drop the columns without a value and make the record."""
    dropped, constant = without_content(table.columns, values)
    absent = frozenset(dropped)
    kept = [k for k, name in enumerate(table.columns) if name not in absent]
    if not kept:
        end = start + len(table.values) / table.sampling_frequency
        raise DataError(
            f"{table.path}: found samples from {start:.3f} to {end:.3f} s after the first volume "
            f"with no value in the story, expected values from {grid.onset:.3f} to "
            f"{grid.onset + grid.n_trs * grid.tr:.3f} s.",
            hint="Check StartTime in the JSON file, and --stimulus-onset.",
        )
    if dropped:
        log.warning(
            "%s: %d columns have no value in the story and are left out: %s",
            table.path,
            len(dropped),
            ", ".join(dropped[:10]),
        )
    values = values[:, kept]
    valid = np.isfinite(values).all(axis=1)
    columns = tuple(table.columns[k] for k in kept)
    return StimRows(columns, values, valid, rule, dropped, constant)
