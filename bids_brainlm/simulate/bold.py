"""Parcel series with a planted layer and head: arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.simulate import readout
from bids_brainlm.simulate.settings import Noise
from bids_brainlm.simulate.spaces import TAIL, FeatureSpaces, autoregressive


@dataclass(frozen=True)
class Truth:
    """What is planted in each parcel; arrays have one element a parcel.

    Attributes
    ----------
    kind : tuple of str
        ``embedding`` (a layer of the residual stream), ``head`` (outputs of one attention
        head) or ``noise``.
    layer : array of int
        0 = input embeddings, 1 to L = blocks; -1 in noise parcels.
    head : array of int
        0 to H - 1; -1 where no head is planted.
    has_words : array of bool
        Whether the parcel also responds to word rate.
    """

    kind: tuple[str, ...]
    layer: np.ndarray
    head: np.ndarray
    has_words: np.ndarray

    @property
    def is_signal(self) -> np.ndarray:
        """Tell which parcels have a stimulus-locked part."""
        return self.layer >= 0

    def columns(self) -> list[str]:
        """Return the planted map column of each parcel: ``layer03``, ``L02H05`` or ``n/a``."""
        return [
            "n/a"
            if kind == "noise"
            else (f"layer{layer:02d}" if kind == "embedding" else f"L{layer:02d}H{head + 1:02d}")
            for kind, layer, head in zip(self.kind, self.layer, self.head, strict=True)
        ]


@dataclass(frozen=True)
class StoryResponse:
    """Stimulus-locked parts of a story, shape (n_trs + TAIL, n_parcels), variance 1 or 0.

    Unit variance is reached on the ``n_trs`` rows of the story window.
    """

    signal: np.ndarray
    words: np.ndarray
    shared: np.ndarray


def plant(
    n_parcels: int,
    n_layers: int,
    n_heads: int,
    rng: np.random.Generator,
    *,
    noise_share: float = 0.3,
    head_share: float = 0.15,
    word_share: float = 0.3,
) -> Truth:
    """Choose what each parcel carries.

    Parameters
    ----------
    n_parcels, n_layers, n_heads : int
        Parcels, blocks of the model, and heads of a block (0: no heads are planted).
    rng : numpy.random.Generator
        Source of randomness.
    noise_share, head_share, word_share : float
        Share of pure-noise parcels; of heads and word-rate responses among the others.

    Returns
    -------
    Truth
        Layers are planted about equally often; the order over parcels is random.
    """
    n_noise = round(noise_share * n_parcels)
    n_signal = n_parcels - n_noise
    n_head = round(head_share * n_signal) if n_heads else 0
    kind = np.array(
        ["noise"] * n_noise + ["head"] * n_head + ["embedding"] * (n_signal - n_head), dtype=object
    )
    layer, head = np.full(n_parcels, -1), np.full(n_parcels, -1)
    layer[n_noise : n_noise + n_head] = 1 + rng.permutation(n_head) % max(n_layers, 1)
    head[n_noise : n_noise + n_head] = rng.integers(0, max(n_heads, 1), n_head)
    layer[n_noise + n_head :] = rng.permutation(n_signal - n_head) % (n_layers + 1)
    has_words = np.zeros(n_parcels, dtype=bool)
    has_words[n_noise:] = rng.permutation(n_signal) < round(word_share * n_signal)
    order = rng.permutation(n_parcels)
    return Truth(tuple(kind[order]), layer[order], head[order], has_words[order])


def story_response(
    embeddings: np.ndarray,
    transformations: np.ndarray | None,
    n_words: np.ndarray,
    truth: Truth,
    *,
    tr: float,
    autocorrelation: float,
    rng: np.random.Generator,
) -> StoryResponse:
    """Return the stimulus-locked parts of every parcel for a story.

    Parameters
    ----------
    embeddings : array, shape (n_trs, n_layers + 1, n_units)
        Features of the story window; rows without words may be NaN.
    transformations : array, shape (n_trs, n_layers, n_heads, n_dims), optional
        Needed where heads are planted.
    n_words : array, shape (n_trs,)
        Words in each TR.
    truth : Truth
        What is planted.
    tr : float
        Repetition time, s.
    autocorrelation : float
        Lag-1 autocorrelation of the shared part.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    StoryResponse

    Raises
    ------
    NumericalError
        Too few rows, or heads are planted without ``transformations``.

    Notes
    -----
    Features are standardised over rows with words; rows without are zero. The planted layer
    and head of a parcel are the same in every story, its readout is drawn anew for each.
    """
    n_trs = len(n_words)
    if n_trs < 30 or np.count_nonzero(n_words) < 20:
        raise NumericalError(
            f"A story has {n_trs} TRs, {np.count_nonzero(n_words)} with words; expected at least "
            "30 and 20.",
            hint="Make the stories longer with --run-seconds or --n-words.",
        )
    if "head" in truth.kind and transformations is None:
        raise NumericalError(
            "Heads are planted, but the model gives no transformations.",
            hint="Set --head-share 0, or choose another --model.",
        )
    spaces = FeatureSpaces(embeddings, transformations, n_words, tr)
    signal = np.zeros((n_trs + TAIL, len(truth.kind)))
    keys = _keys(truth)
    for key in sorted({key for key in keys if key[0] != "noise"}):
        parcels = [parcel for parcel, other in enumerate(keys) if other == key]
        directions, contests = spaces.directions(*key)
        drawn = [readout.draw_readout(directions, contests, rng) for _ in parcels]
        signal[:, parcels] = readout.extend(spaces.own(*key), spaces.rows, np.stack(drawn, 1))
    rate = spaces.nuisance[:, 1:2]
    shared = _shared(n_trs + TAIL, len(truth.kind), autocorrelation, rng)
    return StoryResponse(
        _unit(signal, n_trs),
        _unit(rate, n_trs) * truth.has_words,
        _unit(shared, n_trs) * truth.is_signal,
    )


def _keys(truth: Truth) -> list[tuple[str, int, int]]:
    """Return kind, layer and head of each parcel."""
    return [
        (kind, int(layer), int(head))
        for kind, layer, head in zip(truth.kind, truth.layer, truth.head, strict=True)
    ]


def _unit(series: np.ndarray, n_trs: int) -> np.ndarray:
    """Centre and scale to variance 1 on the story window; constant columns become 0."""
    centred = series - series[:n_trs].mean(axis=0)
    sd = centred[:n_trs].std(axis=0)
    return np.where(sd > 1e-9, centred / np.where(sd > 1e-9, sd, 1.0), 0.0)


def _shared(n_rows: int, n_parcels: int, coefficient: float, rng: np.random.Generator):
    """Return stimulus-locked noise: three sources that parcels share, and one of their own."""
    sources = autoregressive((n_rows, 3), coefficient, rng)
    loadings = rng.standard_normal((3, n_parcels)) / np.sqrt(3)
    return sources @ loadings + autoregressive((n_rows, n_parcels), coefficient, rng)


def mix(response: StoryResponse, truth: Truth, noise: Noise, gain: float) -> np.ndarray:
    """Return the stimulus-locked part of a participant, shape (n_trs + TAIL, n_parcels)."""
    return (
        gain
        * (
            np.sqrt(noise.signal) * response.signal
            + np.sqrt(noise.words) * response.words
            + np.sqrt(noise.shared) * response.shared
        )
        * truth.is_signal
    )


def private(n_trs: int, truth: Truth, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    """Return the private noise of a participant's run, shape (n_trs, n_parcels)."""
    locked = (noise.signal + noise.shared) * truth.is_signal + noise.words * truth.has_words
    rest = np.sqrt(np.maximum(1 - locked, 0.05))
    return rest * autoregressive((n_trs, len(truth.kind)), noise.autocorrelation, rng)


def gains(n_participants: int, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    """Draw the participants' gains of the stimulus-locked part."""
    return rng.uniform(*noise.gain_range, n_participants)


def simulate_parcels(
    embeddings: np.ndarray,
    transformations: np.ndarray | None,
    n_words: np.ndarray,
    truth: Truth,
    *,
    tr: float = 1.5,
    n_participants: int = 5,
    noise: Noise | None = None,
    seed: int = 1,
) -> np.ndarray:
    """Simulate the core parcel series of one story, without confounds and voxels.

    Parameters
    ----------
    embeddings : array, shape (n_trs, n_layers + 1, n_units)
        Features of the story window; rows without words may be NaN.
    transformations : array, shape (n_trs, n_layers, n_heads, n_dims), optional
        Needed where heads are planted.
    n_words : array, shape (n_trs,)
        Words in each TR.
    truth : Truth
        From :func:`plant`.
    tr : float
        Repetition time, s.
    n_participants : int
        How many participants.
    noise : Noise, optional
        Default: the ``standard`` level.
    seed : int
        Same seed, same numbers.

    Returns
    -------
    array, shape (n_participants, n_trs, n_parcels)
        Variance about 1 in every parcel.

    Raises
    ------
    NumericalError
        Too few rows, or heads are planted without ``transformations``.
    """
    noise = noise or Noise()
    rng = np.random.default_rng(seed)
    response = story_response(
        embeddings,
        transformations,
        n_words,
        truth,
        tr=tr,
        autocorrelation=noise.autocorrelation,
        rng=rng,
    )
    n_trs = len(n_words)
    return np.stack(
        [
            mix(response, truth, noise, gain)[:n_trs] + private(n_trs, truth, noise, rng)
            for gain in gains(n_participants, noise, rng)
        ]
    )
