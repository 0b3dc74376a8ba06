"""Find and read the audio file of a stimulus."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType

import numpy as np

from bids_brainlm.bidsio.bold import is_present, require_present
from bids_brainlm.errors import DataError, MissingInputError

log = logging.getLogger(__name__)

EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64")
_OTHER_MEDIA = (".mp4", ".m4v", ".m4a", ".aac", ".wma", ".mov", ".avi", ".mkv", ".mpg", ".webm")
LOWEST_RATE, HIGHEST_RATE = 2_000, 768_000  # Hz
LONGEST_HOURS = 12.0
MAX_CHANNELS = 64
MAX_SAMPLES_AT_ONCE = 1 << 30  # 4 GiB
_FRAMES_PER_BLOCK = 1 << 18
_COMPRESSED_WITH_LOSS = ("MP3", "OGG")
_DATA_CHUNK = re.compile(r"^data\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
_STREAMED = 0x7FFF_0000  # writers to a pipe state a size from here on, as they do not know it
# Formats of `EXTENSIONS` by their first bytes. The library would look for many more, old ones whose
# readers have known holes, whatever the file's name says.
_STARTS = (b"RIFF", b"RIFX", b"RF64", b".snd", b"dns.", b"fLaC", b"OggS", b"ID3", b"riff")
_HINT = "Convert the file to 16-bit WAV, or give another folder with --audio."


@dataclass(frozen=True, slots=True)
class AudioSearch:
    """The audio file that was found, and every place that was looked at.

    ``path`` is None where nothing was found; ``present`` is False where it is a git-annex
    link without content. ``looked_for`` holds paths relative to the folder, in order;
    ``*`` stands for the extensions in `EXTENSIONS`.
    """

    path: Path | None
    present: bool
    looked_for: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header of an audio file states; ``rate`` in Hz, ``duration`` in s.

    The number of samples is an estimate in some MP3 files.
    """

    path: Path
    rate: int
    n_samples: int
    n_channels: int
    format: str

    @property
    def duration(self) -> float:
        """Length in s, as the header states it."""
        return self.n_samples / self.rate


def find_audio(folder: Path, stim_file: str) -> AudioSearch:
    """Find the audio file of a stimulus.

    Parameters
    ----------
    folder : Path
        A BIDS dataset, or a folder with audio files (``--audio``).
    stim_file : str
        As in events.tsv (``black_audio.wav``, relative to ``stimuli/``), or a stem
        (``black``).

    Returns
    -------
    AudioSearch

    Notes
    -----
    ``stimuli/`` is looked at before the folder itself. In each, the name as it is given comes
    first, then its last part with any known extension (the sound of ``movie.mp4`` may lie in
    ``movie.wav``), then the same with and without ``_audio``. A file with content is taken
    before a link without. Names that lead out of the folder are not followed.
    """
    given = PurePosixPath(stim_file.strip().replace("\\", "/"))
    is_media = given.suffix.lower() in (*EXTENSIONS, *_OTHER_MEDIA)
    stem = given.stem if is_media else given.name
    plain = stem.removesuffix("_audio")
    exact = [] if given.is_absolute() or ".." in given.parts else [given.as_posix()]
    if not plain:
        return AudioSearch(None, False, ())
    names = [*exact, given.name, f"{stem}.*", f"{plain}_audio.*", f"{plain}.*"]
    looked_for, links = [], []
    for relative in dict.fromkeys(f"{part}{name}" for part in ("stimuli/", "") for name in names):
        looked_for.append(relative)
        for path in _paths(folder, relative):
            if is_present(path):
                return AudioSearch(path, True, tuple(looked_for))
            if os.path.lexists(path) and not path.is_dir():
                links.append(path)
    return AudioSearch(links[0] if links else None, False, tuple(looked_for))


def _paths(folder: Path, relative: str) -> Iterator[Path]:
    """Yield the paths that a place stands for, if they are names of audio files."""
    if relative.endswith(".*"):
        stem = relative.removesuffix("*").removesuffix(".")
        for extension in EXTENSIONS:
            yield folder / f"{stem}{extension}"
            yield folder / f"{stem}{extension.upper()}"
    elif relative.lower().endswith(EXTENSIONS):
        yield folder / relative


def audio_info(path: Path) -> AudioInfo:
    """Read the header of an audio file.

    Parameters
    ----------
    path : Path
        Anything that libsndfile reads.

    Returns
    -------
    AudioInfo

    Raises
    ------
    MissingInputError
        The file is missing, or a git-annex link without content, or the package soundfile
        is not installed.
    DataError
        It is no audio file, or it holds no samples, ends before its header says so, or has
        a sampling rate, a length or channels that no recording of a story has.
    """
    require_present(path, "audio file")
    soundfile = _library()
    _require_known(path)
    try:
        header = soundfile.info(str(path), verbose=True)
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        raise DataError(f"{path}: expected an audio file, found: {error}.", hint=_HINT) from error
    _check(path, header)
    return AudioInfo(path, header.samplerate, header.frames, header.channels, header.format)


def _require_known(path: Path) -> None:
    """Raise an error where the first bytes are not those of a format of `EXTENSIONS`."""
    try:
        with path.open("rb") as stream:
            start = stream.read(12)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", hint=_HINT) from error
    is_mp3 = len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0
    is_aiff = start.startswith(b"FORM") and start[8:11] == b"AIF"
    if not is_mp3 and not is_aiff and not start.startswith(_STARTS):
        raise DataError(
            f"{path}: found a file that begins with {start[:4]!r}, expected an audio file "
            f"({', '.join(EXTENSIONS)}).",
            hint=_HINT,
        )


def _check(path: Path, header: object) -> None:
    """Raise an error where a header cannot be that of a recording."""
    rate, n_samples, n_channels = header.samplerate, header.frames, header.channels
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise DataError(
            f"{path}: found a sampling rate of {rate} Hz, expected {LOWEST_RATE} to "
            f"{HIGHEST_RATE} Hz.",
            hint=_HINT,
        )
    if n_samples < 1:
        raise DataError(f"{path}: found no samples, expected some.", hint=_HINT)
    if n_samples / rate > LONGEST_HOURS * 3600 or n_channels > MAX_CHANNELS:
        raise DataError(
            f"{path}: found {n_samples / rate / 3600:.1f} h in {n_channels} channels, expected "
            f"at most {LONGEST_HOURS:g} h in {MAX_CHANNELS} channels.",
            hint=_HINT,
        )
    cut = _DATA_CHUNK.search(header.extra_info)
    if cut and int(cut[2]) + MAX_CHANNELS * 8 < int(cut[1]) < _STREAMED:
        raise DataError(
            f"{path} ends early: found {cut[2]} bytes of sound, the header states {cut[1]}.",
            hint="Get the file again, then run the same command.",
        )


def audio_blocks(path: Path) -> Iterator[np.ndarray]:
    """Read an audio file block by block.

    Parameters
    ----------
    path : Path
        See `audio_info`, which tells the sampling rate.

    Yields
    ------
    array of float32, shape (n_block_samples,)
        The mean of the channels; 1 is full scale. All blocks but the last have the same
        length; memory does not grow with the file.

    Raises
    ------
    MissingInputError
        As `audio_info`.
    DataError
        As `audio_info`, or samples are NaN or infinite, or the file is damaged.

    Notes
    -----
    The mean of two channels in opposite phase is silence; such recordings are rare.
    """
    info = audio_info(path)
    soundfile = _library()
    n_read = 0
    try:
        with soundfile.SoundFile(str(path)) as stream:
            while True:
                block = stream.read(_FRAMES_PER_BLOCK, dtype="float32", always_2d=True)
                if not len(block):
                    break
                _require_finite(info, block, n_read)
                n_read += len(block)
                yield block.mean(axis=1, dtype=np.float64).astype(np.float32)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{path} is damaged after {n_read / info.rate:.3f} s of sound: {error}.",
            hint="Get the file again, then run the same command.",
        ) from error
    _check_length(info, n_read)


def _require_finite(info: AudioInfo, block: np.ndarray, n_read: int) -> None:
    """Raise an error where samples are not finite."""
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if bad.size:
        raise DataError(
            f"{info.path}: found NaN or infinite samples (first at "
            f"{(n_read + bad[0]) / info.rate:.3f} s), expected numbers.",
            hint=_HINT,
        )


def _check_length(info: AudioInfo, n_read: int) -> None:
    """Hold the samples that were read against the header."""
    if n_read == info.n_samples:
        return
    found = (
        f"{info.path}: found {n_read / info.rate:.3f} s of sound, the header states "
        f"{info.duration:.3f} s"
    )
    if n_read == 0 or info.format not in _COMPRESSED_WITH_LOSS:
        raise DataError(f"{found}.", hint="Get the file again, then run the same command.")
    if abs(n_read - info.n_samples) > info.rate:
        log.warning("%s; taken as it is.", found)


def read_audio(path: Path) -> tuple[np.ndarray, int]:
    """Read a whole audio file.

    Parameters
    ----------
    path : Path
        See `audio_info`.

    Returns
    -------
    samples : array of float32, shape (n_samples,)
        The mean of the channels; 1 is full scale.
    rate : int
        Samples a second, Hz.

    Raises
    ------
    MissingInputError
        As `audio_info`.
    DataError
        As `audio_blocks`, or there are more than 2**30 samples.

    Notes
    -----
    Needs 4 bytes a sample of one channel (1 h at 44.1 kHz: 0.64 GB); `audio_blocks` needs a
    few MB.
    """
    info = audio_info(path)
    if info.n_samples > MAX_SAMPLES_AT_ONCE:
        raise DataError(
            f"{path}: found {info.n_samples} samples, expected at most {MAX_SAMPLES_AT_ONCE}.",
            hint="Convert the file to a lower sampling rate, such as 16 kHz.",
        )
    samples = np.empty(info.n_samples, np.float32)
    end = 0
    for block in audio_blocks(path):
        if end + block.size > samples.size:  # an MP3 that is longer than its header says
            more = np.empty(max(samples.size, block.size), np.float32)
            samples = np.concatenate([samples[:end], more])
        samples[end : end + block.size] = block
        end += block.size
    return samples[:end], info.rate


def _library() -> ModuleType:
    """Import soundfile, an optional package."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: libsndfile itself is missing
        raise MissingInputError(
            f"Audio cannot be read: expected the package soundfile, found: {error}.",
            hint="Run: pip install soundfile. Or leave acoustics out of --features and --bands.",
        ) from error
    return soundfile
