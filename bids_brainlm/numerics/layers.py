"""Which layer predicts a parcel best, and how sharply scores change between layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError

_ROUNDING = 1e-12


@dataclass(frozen=True)
class LayerProfile:
    """How scores of parcels depend on layers.

    Attributes
    ----------
    preferred : array, shape (n_parcels,)
        Position of the layer with the highest score; NaN where there is no score.
    softmax : array, shape (n_parcels, n_layers)
        Preference of each layer; rows sum to 1.
    entropy : array, shape (n_parcels,)
        Of the softmax, bits: 0 for one layer, log2(n_layers) for all alike.
    specificity : array, shape (n_parcels,)
        L2 norm of the differences of scores between neighbouring layers.
    """

    preferred: np.ndarray
    softmax: np.ndarray
    entropy: np.ndarray
    specificity: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """Two feature spaces compared over parcels.

    ``difference`` is the mean over participants and parcels of first minus second; ``p`` is
    two-tailed; ``n_participants`` have a value.
    """

    difference: float
    p: float
    n_participants: int


def profile(scores: np.ndarray, *, temperature: float = 1.0) -> LayerProfile:
    """Describe how scores depend on layers.

    Parameters
    ----------
    scores : array, shape (n_parcels, n_layers)
        Scores, layers in order, at least 2.
    temperature : float
        Of the softmax, in units of the scores.

    Returns
    -------
    LayerProfile
        NaN in parcels that lack a score in any layer.

    Raises
    ------
    NumericalError
        Fewer than two layers, or a temperature that is not positive.

    References
    ----------
    .. [1] Kumar, Sumers et al. (2024), doi:10.1038/s41467-024-49173-5
    """
    if scores.ndim != 2 or scores.shape[1] < 2 or not temperature > 0:
        raise NumericalError(
            f"Found scores of shape {scores.shape} and a temperature of {temperature:g}, expected "
            "parcels by at least 2 layers and a temperature above 0.",
            hint="Fit more layers with --layers.",
        )
    known = np.isfinite(scores).all(axis=1)
    filled = np.where(known[:, None], scores, 0.0)
    raised = np.exp((filled - filled.max(axis=1, keepdims=True)) / temperature)
    softmax = raised / raised.sum(axis=1, keepdims=True)
    bits = -(softmax * np.log2(np.maximum(softmax, 1e-300))).sum(axis=1)
    return LayerProfile(
        np.where(known, filled.argmax(axis=1).astype(float), np.nan),
        np.where(known[:, None], softmax, np.nan),
        np.where(known, bits, np.nan),
        np.where(known, np.linalg.norm(np.diff(filled, axis=1), axis=1), np.nan),
    )


def compare_spaces(
    first: np.ndarray,
    second: np.ndarray,
    measure: Callable[[np.ndarray], np.ndarray],
    *,
    n_permutations: int,
    rng: np.random.Generator,
) -> Comparison:
    """Test a measure of layer profiles between two feature spaces of the same people.

    Parameters
    ----------
    first, second : array, shape (n_participants, n_parcels, n_layers)
        Fisher z of the scores in both spaces.
    measure : callable
        Gets the scores of one participant (n_parcels, n_layers), returns one number a parcel,
        such as ``lambda scores: profile(scores).preferred``.
    n_permutations : int
    rng : numpy.random.Generator

    Returns
    -------
    Comparison

    Raises
    ------
    NumericalError
        The shapes differ.

    Notes
    -----
    Each participant gives one number: the mean over parcels of the measure in the first space
    less that in the second. Under the null hypothesis the labels of the spaces can be swapped
    within a participant, which flips the sign of that number; parcels and layers of one person
    are swapped together, as they are not independent (the paper's code swaps each value on its
    own). p is (k + 1) / (n + 1).

    The measure is taken for each participant, not for their average: the preferred layer of an
    average jumps with the majority, so that nearly every swap gives a difference as large as the
    one that was found.
    """
    if first.shape != second.shape or first.ndim != 3:
        raise NumericalError(
            f"Found scores of shapes {first.shape} and {second.shape}, expected the same "
            "participants, parcels and layers.",
            hint="Fit both feature spaces for all participants.",
        )
    gaps = np.array([_mean(measure(a) - measure(b)) for a, b in zip(first, second, strict=True)])
    gaps = gaps[np.isfinite(gaps)]
    if not len(gaps):
        return Comparison(float("nan"), float("nan"), 0)
    signs = rng.choice([-1.0, 1.0], (n_permutations, len(gaps)))
    observed = float(gaps.mean())
    count = int((np.abs(signs @ gaps / len(gaps)) >= abs(observed) - _ROUNDING).sum())
    return Comparison(observed, (count + 1) / (n_permutations + 1), len(gaps))


def _mean(values: np.ndarray) -> float:
    """Mean of what is finite; NaN of nothing."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
