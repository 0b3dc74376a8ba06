"""Low-level acoustics on the TR grid: loudness and log-mel spectrogram."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import fft

from bids_brainlm.errors import NumericalError

FLOOR_DB = -80.0
WINDOW, HOP = 0.025, 0.010  # s
_BLOCK = 1 << 18
_FRAMES_PER_BLOCK = 512
_PADDING = 4  # times the window, so that a mel band holds several bins
_HINT = "Check the audio file, --stimulus-onset and --mel-bands."


@dataclass(frozen=True)
class Acoustics:
    """Acoustics of each row of a TR grid; NaN where there is no sound file.

    Attributes
    ----------
    rms : array, shape (n_trs,)
        Root mean square of the samples; 1 is full scale.
    log_rms : array, shape (n_trs,)
        The same in dB, at least the floor.
    log_mel : array, shape (n_trs, n_bands)
        Mean over the frames of a row of the band power in dB, at least the floor.
    centres : array, shape (n_bands,)
        Centre of each band, Hz.
    covered : array, shape (n_trs,)
        Share of each row that the audio file covers, 0 to 1.
    valid : array of bool, shape (n_trs,)
        Rows with a value in every column.
    """

    rms: np.ndarray
    log_rms: np.ndarray
    log_mel: np.ndarray
    centres: np.ndarray
    covered: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class MelBands:
    """Which bands: ``n_bands`` triangles from ``lowest`` to ``highest`` Hz, equal in mel."""

    n_bands: int = 32
    lowest: float = 50.0
    highest: float = 8000.0


def hertz_to_mel(hertz: np.ndarray | float) -> np.ndarray:
    """Return ``2595 log10(1 + f / 700)``, the mel scale of HTK (O'Shaughnessy 1987)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hertz, dtype=np.float64) / 700.0)


def mel_to_hertz(mel: np.ndarray | float) -> np.ndarray:
    """Return the inverse of `hertz_to_mel`."""
    return 700.0 * (10.0 ** (np.asarray(mel, dtype=np.float64) / 2595.0) - 1.0)


def mel_filters(frequencies: np.ndarray, bands: MelBands) -> tuple[np.ndarray, np.ndarray]:
    """Make triangular filters that share out the power of a spectrum.

    Parameters
    ----------
    frequencies : array, shape (n_bins,)
        Frequencies of the spectrum from 0 to half the sampling rate, Hz.
    bands : MelBands
        Which bands.

    Returns
    -------
    centres : array, shape (n_kept,)
        Centre of each band, Hz.
    weights : array, shape (n_kept, n_bins)
        Filters on power, each with a peak of 1.

    Raises
    ------
    NumericalError
        The bands make no sense, or none fits below half the sampling rate.

    Notes
    -----
    The ``n_bands + 2`` edges are equally spaced in mel; band b rises linearly in Hz from
    edge b to its centre, edge b + 1, and falls to edge b + 2 [1]_ [2]_. Between the first and
    the last centre the filters add up to 1 at every frequency, so no power is lost or counted
    twice. (Slaney's filters have equal areas instead; in dB that differs by a constant for
    each band, which z-scoring removes.) Bands that reach beyond half the sampling rate are
    left out: fewer columns rather than columns of something else.

    References
    ----------
    .. [1] Davis & Mermelstein (1980), doi:10.1109/TASSP.1980.1163420
    .. [2] Young et al. (2006), The HTK Book 3.4, section 5.4
    """
    nyquist = float(np.max(frequencies))
    if bands.n_bands < 1 or not 0 <= bands.lowest < bands.highest < math.inf:
        raise NumericalError(
            f"Found {bands.n_bands} mel bands from {bands.lowest:g} to {bands.highest:g} Hz, "
            "expected at least 1 band and increasing frequencies.",
            hint=_HINT,
        )
    ends = hertz_to_mel(np.array([bands.lowest, bands.highest]))
    edges = mel_to_hertz(np.linspace(*ends, bands.n_bands + 2))
    low, centre, high = (edges[k : k + bands.n_bands, None] for k in range(3))
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    kept = high[:, 0] <= nyquist * (1 + 1e-9)
    if not kept.any() or not (weights[kept].sum(axis=1) > 0).all():
        raise NumericalError(
            f"{bands.n_bands} mel bands from {bands.lowest:g} to {bands.highest:g} Hz do not fit "
            f"a spectrum up to {nyquist:g} Hz with {len(frequencies)} bins.",
            hint=_HINT,
        )
    return centre[kept, 0], weights[kept]


def rms_envelope(
    samples: np.ndarray | Iterable[np.ndarray],
    rate: float,
    *,
    tr: float,
    n_trs: int,
    first_time: float = 0.0,
    floor_db: float = FLOOR_DB,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure the loudness of each row only; see `acoustics`.

    Parameters
    ----------
    samples, rate, tr, n_trs, first_time, floor_db
        As for `acoustics`.

    Returns
    -------
    rms : array, shape (n_trs,)
        Root mean square; NaN where there is no sample.
    log_rms : array, shape (n_trs,)
        The same in dB, at least the floor.
    covered : array, shape (n_trs,)
        Share of each row that the samples cover.
    """
    borders = _borders(rate, tr, n_trs, first_time)
    loudness = _Loudness(borders)
    for first, block in _blocks(samples):
        loudness.add(first, block)
    rms = loudness.rms()
    return rms, _decibels(rms**2, floor_db), loudness.covered()


def acoustics(
    samples: np.ndarray | Iterable[np.ndarray],
    rate: float,
    *,
    tr: float,
    n_trs: int,
    first_time: float = 0.0,
    bands: MelBands | None = None,
    floor_db: float = FLOOR_DB,
) -> Acoustics:
    """Measure loudness and log-mel spectrogram of each row of a TR grid.

    Parameters
    ----------
    samples : array, shape (n_samples,), or iterable of arrays
        One channel; 1 is full scale. Blocks of any length are taken one after the other, so
        that memory does not grow with the file.
    rate : float
        Samples a second, Hz.
    tr : float
        Length of a row, s.
    n_trs : int
        Rows.
    first_time : float
        Start of row 0, s after the start of the audio file: negative where the audio begins
        later than the grid.
    bands : MelBands, optional
        The default is 32 bands from 50 Hz to 8 kHz.
    floor_db : float
        Lowest value in dB, relative to a mean square of 1.

    Returns
    -------
    Acoustics

    Raises
    ------
    NumericalError
        The samples are not one finite channel, or a setting makes no sense.

    Notes
    -----
    Row k holds the samples from ``first_time + k * tr`` up to, but not including,
    ``first_time + (k + 1) * tr`` (to 0.1 us). Rows that the audio covers in part are measured
    on what is there. The root mean square includes a constant offset of the recording.

    Frames of 25 ms (Hann window) are centred every 10 ms from the first whole frame on; a
    frame belongs to the row that holds its centre, so it reaches up to 12.5 ms into the next
    row. Power is scaled so that the bins of a frame add up to its mean square; a band's
    power is floored and put in dB for each frame, and then averaged, as hearing is closer to
    a mean of logarithms. Zero padding to 4 windows makes the bins about 10 Hz wide at every
    sampling rate, so that the same sound has the same spectrum at any rate.
    """
    borders = _borders(rate, tr, n_trs, first_time)
    loudness = _Loudness(borders)
    spectrogram = _Spectrogram(borders, rate, bands or MelBands(), floor_db)
    for first, block in _blocks(samples):
        loudness.add(first, block)
        spectrogram.add(block)
    rms, log_mel = loudness.rms(), spectrogram.mean()
    return Acoustics(
        rms=rms,
        log_rms=_decibels(rms**2, floor_db),
        log_mel=log_mel,
        centres=spectrogram.centres,
        covered=loudness.covered(),
        valid=np.isfinite(rms) & np.isfinite(log_mel).all(axis=1),
    )


def _borders(rate: float, tr: float, n_trs: int, first_time: float) -> np.ndarray:
    """Sample at which each row begins, and the end of the last; may lie outside the file."""
    numbers = (rate, tr, first_time)
    if not all(map(math.isfinite, numbers)) or rate <= 0 or tr * rate < 2 or n_trs < 1:
        raise NumericalError(
            f"Found {n_trs} rows of {tr:g} s from {first_time:g} s at {rate:g} Hz, expected at "
            "least 1 row of 2 samples.",
            hint=_HINT,
        )
    times = first_time + tr * np.arange(n_trs + 1)
    return np.ceil((times - 1e-7) * rate).astype(np.int64)


def _blocks(samples: np.ndarray | Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield short blocks and the number of their first sample."""
    first = 0
    for part in [samples] if isinstance(samples, np.ndarray) else samples:
        part = np.asarray(part)
        if part.ndim != 1 or not np.issubdtype(part.dtype, np.floating):
            raise NumericalError(
                f"Samples have shape {part.shape} and type {part.dtype}, expected one channel "
                "(n_samples,) of floating point numbers.",
                hint=_HINT,
            )
        for start in range(0, len(part), _BLOCK):
            block = part[start : start + _BLOCK].astype(np.float64)
            if not np.isfinite(block).all():
                raise NumericalError("Samples have NaN or infinite values.", hint=_HINT)
            yield first, block
            first += len(block)


def _decibels(power: np.ndarray, floor_db: float) -> np.ndarray:
    """Return power in dB, at least the floor; NaN stays NaN."""
    return 10.0 * np.log10(np.maximum(power, 10.0 ** (floor_db / 10.0)))


class _Loudness:
    """Adds up squares for each row."""

    def __init__(self, borders: np.ndarray) -> None:
        self.borders = borders
        self.squares = np.zeros(len(borders) - 1)
        self.counts = np.zeros(len(borders) - 1, np.int64)

    def add(self, first: int, block: np.ndarray) -> None:
        """Take the samples from number ``first`` on."""
        ends = np.clip(self.borders - first, 0, len(block))
        for row in np.flatnonzero(np.diff(ends)):
            piece = block[ends[row] : ends[row + 1]]
            self.squares[row] += piece @ piece
            self.counts[row] += len(piece)

    def rms(self) -> np.ndarray:
        """Root mean square, NaN without samples."""
        counts = np.where(self.counts > 0, self.counts, np.nan)
        return np.sqrt(self.squares / counts)

    def covered(self) -> np.ndarray:
        """Share of the samples of each row that there are."""
        return self.counts / np.diff(self.borders)


class _Spectrogram:
    """Adds up the band powers in dB of the frames of each row."""

    def __init__(self, borders: np.ndarray, rate: float, bands: MelBands, floor_db: float) -> None:
        self.borders, self.rate, self.floor_db = borders, rate, floor_db
        self.length = max(4, round(WINDOW * rate))
        self.n_fft = fft.next_fast_len(_PADDING * self.length, real=True)
        phase = 2 * np.pi * np.arange(self.length) / self.length
        self.window = 0.5 - 0.5 * np.cos(phase)
        self.centres, weights = mel_filters(fft.rfftfreq(self.n_fft, 1 / rate), bands)
        twice = np.full(weights.shape[1], 2.0)  # bins that stand for two frequencies
        twice[0] = 1.0
        if self.n_fft % 2 == 0:
            twice[-1] = 1.0
        self.weights = weights * twice / (self.n_fft * (self.window**2).sum())
        self.sums = np.zeros((len(borders) - 1, len(weights)))
        self.counts = np.zeros(len(borders) - 1, np.int64)
        self.kept, self.first_kept, self.next_frame = np.empty(0), 0, 0

    def _starts(self, first: int, end: int) -> np.ndarray:
        """First sample of the frames from number ``first`` to ``end - 1``."""
        return np.floor(np.arange(first, end) * (HOP * self.rate) + 0.5).astype(np.int64)

    def add(self, block: np.ndarray) -> None:
        """Take the next samples."""
        self.kept = np.concatenate([self.kept, block])
        end = self.first_kept + len(self.kept)
        n_more = int((end - self.length) / (HOP * self.rate)) + 2 - self.next_frame
        starts = self._starts(self.next_frame, self.next_frame + max(n_more, 0))
        starts = starts[starts + self.length <= end]
        for first in range(0, len(starts), _FRAMES_PER_BLOCK):
            self._measure(starts[first : first + _FRAMES_PER_BLOCK])
        self.next_frame += len(starts)
        needed = int(self._starts(self.next_frame, self.next_frame + 1)[0])
        done = min(needed - self.first_kept, len(self.kept))
        self.kept, self.first_kept = self.kept[done:], self.first_kept + done

    def _measure(self, starts: np.ndarray) -> None:
        """Add frames to their rows."""
        rows = np.searchsorted(self.borders, starts + self.length / 2, side="right") - 1
        inside = (rows >= 0) & (rows < len(self.counts))
        starts, rows = starts[inside], rows[inside]
        if not starts.size:
            return
        places = (starts - self.first_kept)[:, None] + np.arange(self.length)
        spectrum = fft.rfft(self.kept[places] * self.window, self.n_fft)
        power = spectrum.real**2 + spectrum.imag**2
        np.add.at(self.sums, rows, _decibels(power @ self.weights.T, self.floor_db))
        np.add.at(self.counts, rows, 1)

    def mean(self) -> np.ndarray:
        """Mean over the frames of each row, NaN without frames."""
        return self.sums / np.where(self.counts > 0, self.counts, np.nan)[:, None]
