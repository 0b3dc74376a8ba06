"""How sharply scores change between layers, without counting noise as sharpness."""

from __future__ import annotations

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.layers import Comparison

_ROUNDING = 1e-12


def shared_specificity(fisher_z: np.ndarray) -> np.ndarray:
    """Measure the differences between neighbouring layers that participants share.

    Parameters
    ----------
    fisher_z : array, shape (n_participants, n_parcels, n_layers)
        Scores of several participants, layers in order.

    Returns
    -------
    array, shape (n_parcels,)
        L2 norm of the common differences, z; with a minus sign where participants agree less
        than by chance, that is, where the squared norm is estimated below 0. NaN in parcels
        that a participant lacks.

    Raises
    ------
    NumericalError
        Fewer than two participants or layers.

    Notes
    -----
    The squared norm of a mean of noise is not 0: it is the larger, the less layers are alike in
    their noise, so that a space with independent layers looks more specific than one with
    similar layers in brains that follow neither. Products of *different* participants have no
    such bias: the estimate is the mean of ``<d_i, d_j>`` over all pairs i != j of participants,
    with d the differences between neighbouring layers.
    """
    differences = _differences(fisher_z)
    n = len(differences)
    total = (differences.sum(axis=0) ** 2).sum(axis=1)
    own = (differences**2).sum(axis=(0, 2))
    return _signed_root((total - own) / (n * (n - 1)))


def compare_specificity(
    first: np.ndarray,
    second: np.ndarray,
    *,
    n_permutations: int,
    rng: np.random.Generator,
) -> Comparison:
    """Test whether two feature spaces differ in specificity.

    Parameters
    ----------
    first, second : array, shape (n_participants, n_parcels, n_layers)
        Fisher z of the scores in both spaces, participants in the same order.
    n_permutations : int
    rng : numpy.random.Generator

    Returns
    -------
    Comparison
        ``difference`` of the specificity (root of the mean over parcels of the squared norm,
        signed) in z; NaN where no parcel is known in everybody.

    Raises
    ------
    NumericalError
        The shapes differ, or there are fewer than two participants or layers.

    Notes
    -----
    The statistic is the difference of the unbiased squared norms (`shared_specificity`), mean
    over parcels. Two null hypotheses must be refuted, and p is the larger of their two-tailed
    p values, (k + 1) / (n + 1):

    * both spaces have the same profiles, tested by swapping them within participants;
    * there are no common profiles at all, tested by flipping the sign of a participant's
      differences in both spaces together.

    Swapping alone is not enough: where brains follow neither space but one has less noise in
    common between layers, 12 % instead of 5 % of tests reach p <= 0.05; with the biased norm of
    each participant it was 73 to 95 %. Parcels and layers of a person move together, as they are
    not independent.
    """
    if first.shape != second.shape:
        raise NumericalError(
            f"Found scores of shapes {first.shape} and {second.shape}, expected the same "
            "participants, parcels and layers.",
            hint="Fit both feature spaces for all participants.",
        )
    both = np.concatenate([_differences(first), _differences(second)])
    n = len(first)
    known = np.isfinite(both).all(axis=(0, 2))
    if not known.any():
        return Comparison(float("nan"), float("nan"), n)
    flat = both[:, known].reshape(2 * n, -1)
    gram = flat @ flat.T / (n * (n - 1) * known.sum())
    observed = _contrast(gram, np.ones((1, n)), np.zeros((1, n), bool))[0]
    draws = (n_permutations, n)
    none = np.zeros(draws, bool)
    swapped = _contrast(gram, np.ones(draws), rng.random(draws) < 0.5)
    flipped = _contrast(gram, rng.choice([-1.0, 1.0], draws), none)
    p = [
        (1 + int((np.abs(null) >= abs(observed) - _ROUNDING).sum())) / (n_permutations + 1)
        for null in (swapped, flipped)
    ]
    sizes = [_size(gram[part, part]) for part in (slice(0, n), slice(n, 2 * n))]
    return Comparison(float(_signed_root(sizes[0]) - _signed_root(sizes[1])), max(p), n)


def _differences(fisher_z: np.ndarray) -> np.ndarray:
    """Return differences between neighbouring layers."""
    if fisher_z.ndim != 3 or fisher_z.shape[0] < 2 or fisher_z.shape[2] < 2:
        raise NumericalError(
            f"Found scores of shape {fisher_z.shape}, expected at least 2 participants, parcels, "
            "and at least 2 layers.",
            hint="Fit more layers with --layers, for more participants.",
        )
    return np.diff(fisher_z, axis=2)


def _contrast(gram: np.ndarray, signs: np.ndarray, swap: np.ndarray) -> np.ndarray:
    """Return first less second squared norm of every draw of signs and swaps, (n_draws,)."""
    first = np.concatenate([np.where(swap, 0.0, signs), np.where(swap, signs, 0.0)], axis=1)
    second = np.concatenate([np.where(swap, signs, 0.0), np.where(swap, 0.0, signs)], axis=1)
    own = np.diag(gram)

    def squared(chosen: np.ndarray) -> np.ndarray:
        return ((chosen @ gram) * chosen).sum(axis=1) - (chosen**2) @ own

    return squared(first) - squared(second)


def _size(gram: np.ndarray) -> float:
    """Return the sum of the products of different participants."""
    return float(gram.sum() - np.trace(gram))


def _signed_root(squares: np.ndarray | float) -> np.ndarray:
    """Return roots that keep the sign."""
    return np.sign(squares) * np.sqrt(np.abs(squares))
