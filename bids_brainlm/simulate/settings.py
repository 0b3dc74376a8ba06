"""What a simulated dataset is made of: one frozen record, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bids_brainlm.errors import ConfigError

FLAVOURS = ("preproc", "clean", "both")
SPACES = ("MNI152NLin2009cAsym", "fsaverage5", "fsaverage6", "fsaverage")
RAW_BOLD = ("tiny", "link", "none")
SNR_LEVELS = {"high": 0.45, "standard": 0.25, "low": 0.10, "none": 0.0}


@dataclass(frozen=True)
class Noise:
    """Shares of the variance of a signal parcel's core series, and nuisance amplitudes.

    The core series has variance 1 (for a participant of gain 1): ``signal`` from the planted
    feature, ``words`` from word rate (in ``word_share`` of the signal parcels), ``shared`` from
    a stimulus-locked part that no model explains, and private AR(1) noise for the rest.
    Pure-noise parcels are private noise alone, independent over parcels and participants.

    Attributes
    ----------
    signal : float
        Share of the planted feature. ``standard`` is 0.25.
    words : float
        Share of the word-rate response, where a parcel has one.
    shared : float
        Share of the stimulus-locked part that no model explains; gives ISC.
    autocorrelation : float
        Lag-1 autocorrelation of private and shared noise.
    gain_range : tuple of float
        Participants' gains of the stimulus-locked part.
    motion, physiology, drift : float
        Standard deviations, in units of the core series, of what the confounds explain.
    voxel : float
        Standard deviation of voxel noise around the parcel mean, same units; it sums to zero
        over the voxels of a parcel, so that the parcel mean keeps its planted shares.
    """

    signal: float = SNR_LEVELS["standard"]
    words: float = 0.04
    shared: float = 0.02
    autocorrelation: float = 0.4
    gain_range: tuple[float, float] = (0.9, 1.1)
    motion: float = 0.5
    physiology: float = 0.5
    drift: float = 0.7
    voxel: float = 1.0

    @classmethod
    def at(cls, snr: str | float) -> Noise:
        """Return the noise for a level's name or for a signal share.

        Raises
        ------
        ConfigError
            Unknown level, or a share outside 0 to 0.9.
        """
        if isinstance(snr, str) and snr in SNR_LEVELS:
            share = SNR_LEVELS[snr]
        else:
            try:
                share = float(snr)
            except ValueError:
                share = -1.0
        if not 0 <= share <= 0.9:
            raise ConfigError(
                f"SNR is {snr!r}, expected one of {', '.join(SNR_LEVELS)} or the signal's share "
                "of the variance, 0 to 0.9.",
                hint="Set --snr standard.",
            )
        if share == 0:
            return cls(signal=0.0, words=0.0, shared=0.0)
        return cls(signal=share)


@dataclass(frozen=True)
class SimulationSettings:
    """Everything that decides the bytes of a simulated dataset.

    Attributes
    ----------
    participants : tuple of str
        Labels without ``sub-``. In an existing tree: whom to fill (empty: everyone).
    stories : tuple of str
        Task labels. In an existing tree: which tasks to fill (empty: all).
    into : Path, optional
        An existing raw tree whose derivatives are to be written.
    transcripts : Path, optional
        Folder with one folder a story (Gentle). Without it, and without transcripts in the
        tree, the stories are pieces of chapter one of *Alice in Wonderland*.
    model : str, optional
        As ``--model`` of the app. Default: MiniLM where it is installed, else
        ``random:tiny-bert``.
    atlas : str
        ``blocks:N`` (made here) or a name or path as ``--atlas`` of the app takes it.
    space : str
        ``MNI152NLin2009cAsym`` (volumes), or ``fsaverage5``, ``fsaverage6`` or ``fsaverage``
        (pairs of GIFTI files).
    voxel_size : float
        Grid of volumes, mm.
    snr : str or float
        Level or signal share, see :class:`Noise`.
    noise_share, head_share, word_share : float
        Share of pure-noise parcels; of heads and of word-rate responses among the others.
    story_seconds, n_words : optional
        Length of each made-up story; ``n_words`` wins.
    """

    participants: tuple[str, ...] = ("01", "02", "03", "04")
    stories: tuple[str, ...] = ()
    into: Path | None = None
    transcripts: Path | None = None
    model: str | None = None
    models_dir: Path | None = None
    offline: bool = True
    atlas: str = "blocks:24"
    templateflow_home: Path | None = None
    space: str = "MNI152NLin2009cAsym"
    voxel_size: float = 8.0
    snr: str | float = "standard"
    noise_share: float = 0.3
    head_share: float = 0.15
    word_share: float = 0.3
    tr: float = 1.5
    seed: int = 1
    flavour: str = "preproc"
    raw_bold: str = "tiny"
    story_seconds: float | None = None
    n_words: int | None = None
    context_trs: int = 20
    batch_size: int = 16
    overwrite: bool = False
    noise: Noise = field(default_factory=Noise)

    def __post_init__(self) -> None:
        """Check what can be checked without reading a file."""
        object.__setattr__(self, "noise", self._noise())
        rules = (
            (self.flavour in FLAVOURS, f"--flavour {self.flavour}", f"one of {FLAVOURS}"),
            (self.raw_bold in RAW_BOLD, f"--raw-bold {self.raw_bold}", f"one of {RAW_BOLD}"),
            (0.1 <= self.tr <= 10, f"--tr {self.tr:g}", "0.1 to 10 s"),
            (self.space in SPACES, f"--space {self.space}", f"one of {SPACES}"),
            (2 <= self.voxel_size <= 20, f"--voxel-size {self.voxel_size:g}", "2 to 20 mm"),
            (self.n_words is None or self.n_words > 0, f"--n-words {self.n_words}", "1 or more"),
            (bool(self.participants or self.into), "--participants (none)", "at least one"),
            (0 <= self.seed < 2**32, f"--seed {self.seed}", "0 to 4294967295"),
        )
        for good, found, expected in rules:
            if not good:
                raise ConfigError(
                    f"{found}: expected {expected}.", hint=f"Change {found.split()[0]}."
                )
        for name in ("noise_share", "head_share", "word_share"):
            value = getattr(self, name)
            flag = "--" + name.replace("_", "-")
            if not 0 <= value <= 1:
                raise ConfigError(f"{flag} {value:g}: expected 0 to 1.", hint=f"Change {flag}.")
        for label in (*self.participants, *self.stories):
            if not label.isalnum():
                raise ConfigError(
                    f"Label {label!r}: expected letters and digits only.",
                    hint="Change --participants or --stories.",
                )

    @property
    def is_surface(self) -> bool:
        """Tell whether images are pairs of surfaces."""
        return self.space.startswith("fsaverage")

    def _noise(self) -> Noise:
        """Return the noise given, or that of the SNR level."""
        return self.noise if self.noise != Noise() else Noise.at(self.snr)
