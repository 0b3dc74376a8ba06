"""Compare the geometry of two representations, and their autocorrelation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_brainlm.errors import NumericalError
from bids_brainlm.numerics.rank_correlation import spearman, spearman_matrix, stream_spearman
from bids_brainlm.numerics.scores import pearson

_RELATIVE_ZERO = 1e-12
_DECIMALS = 12  # rounding error must not split ties


@dataclass(frozen=True)
class LayerComparison:
    """How embeddings and transformations resemble each other.

    Attributes
    ----------
    n_rows : int
        TRs that were compared.
    embedding_rdm, transformation_rdm : array, shape (n_rows * (n_rows - 1) / 2,)
        Condensed dissimilarities of TRs with all layers stacked as features.
    stacked_features : float
        Spearman correlation of these two.
    stacked_samples : float
        Spearman correlation of the dissimilarities of all ``n_layers * n_rows`` layer states.
    stacked_samples_error : float
        Largest possible error of ``stacked_samples``; 0 where ranks are exact.
    n_pairs : int
        Pairs of states behind ``stacked_samples``.
    layer_by_layer : array, shape (n_layers, n_layers)
        Spearman correlation of the dissimilarities of embedding layer i (rows) and
        transformation layer j (columns).
    embedding_layers, transformation_layers : array, shape (n_layers, n_layers)
        1 - Spearman correlation of the dissimilarities of two layers of one space.
    second_order : float
        Spearman correlation of the upper triangles of these two; NaN for fewer than 3 layers.
    row_r : array, shape (n_rows,)
        Pearson correlation over all units of all layers in each TR; NaN where the spaces
        have different numbers of dimensions.
    row_r_mean, row_r_sd : float
        Mean and standard deviation (divisor n - 1) of ``row_r``.
    """

    n_rows: int
    embedding_rdm: np.ndarray
    transformation_rdm: np.ndarray
    stacked_features: float
    stacked_samples: float
    stacked_samples_error: float
    n_pairs: int
    layer_by_layer: np.ndarray
    embedding_layers: np.ndarray
    transformation_layers: np.ndarray
    second_order: float
    row_r: np.ndarray
    row_r_mean: float
    row_r_sd: float


@dataclass(frozen=True)
class Autocorrelation:
    """Autocorrelation of each layer.

    Attributes
    ----------
    values : array, shape (n_layers, n_lags + 1)
        Mean over features; column k is lag k in TRs, column 0 is 1.
    n_pairs : array of int, shape (n_lags + 1,)
        Pairs of valid rows at each lag.
    n_features : array of int, shape (n_layers,)
        Features that vary; others are left out of the mean.
    """

    values: np.ndarray
    n_pairs: np.ndarray
    n_features: np.ndarray


def rdm(features: np.ndarray) -> np.ndarray:
    """Dissimilarity of every pair of rows.

    Parameters
    ----------
    features : array, shape (n_rows, n_features)
        Finite; one row for each TR with words.

    Returns
    -------
    array, shape (n_rows * (n_rows - 1) / 2,)
        1 - Pearson r over features, in the order of `scipy.spatial.distance.squareform`:
        0 to 2. NaN for rows that are constant over features.

    Raises
    ------
    NumericalError
        Not two dimensions, fewer than 3 rows or 2 features, or values are not finite.

    Notes
    -----
    Each feature is z-scored over rows first (constant features become 0), as in the paper;
    otherwise a few units with large values decide alone. Thus neither the order of features
    nor their scale or offset matters, but a rotation does, unless the features are white and
    it keeps their sum. Values are rounded to 12 decimals, so that equal dissimilarities tie
    whatever the rounding.

    References
    ----------
    .. [1] Kriegeskorte et al. (2008), doi:10.3389/neuro.06.004.2008
    """
    directions = _directions(_checked(features, 2))
    upper = np.triu_indices(len(directions), 1)
    return _dissimilarity(directions, directions)[upper]


def compare_layers(embeddings: np.ndarray, transformations: np.ndarray) -> LayerComparison:
    """Compare two representations of the same TRs, layer by layer and as a whole.

    Parameters
    ----------
    embeddings : array, shape (n_rows, n_layers, n_dims)
        One row for each TR with words (leave silent TRs out: filled-in rows would repeat).
        As many layers as transformations: leave layer 0 out.
    transformations : array, shape (n_rows, n_layers, n_dims)
        The same TRs and layers; the number of dimensions may differ.

    Returns
    -------
    LayerComparison

    Raises
    ------
    NumericalError
        The shapes do not fit, there are fewer than 3 rows, or values are not finite.

    Notes
    -----
    With layers stacked as samples, the states of all layers are rows of one matrix whose
    columns are z-scored together; dissimilarities between layers then count as much as those
    within. That matrix of ``(n_layers * n_rows)**2`` pairs is never held: see
    `rank_correlation.stream_spearman`.
    """
    embeddings, transformations = _checked(embeddings, 3), _checked(transformations, 3)
    if embeddings.shape[:2] != transformations.shape[:2]:
        raise NumericalError(
            f"Found embeddings of {embeddings.shape[:2]} and transformations of "
            f"{transformations.shape[:2]} TRs and layers, expected as many.",
            hint="Compare layers 1 to L of both, in the same TRs.",
        )
    n_rows, n_layers = embeddings.shape[:2]
    spaces = (embeddings, transformations)
    whole = [rdm(space.reshape(n_rows, -1)) for space in spaces]
    samples = [_directions(_checked(_stacked(space), 2)) for space in spaces]
    stacked = stream_spearman(*samples, _dissimilarity, high=2.0)
    matrix = spearman_matrix([rdm(space[:, k]) for space in spaces for k in range(n_layers)])
    own = [1.0 - matrix[part, part] for part in (slice(n_layers), slice(n_layers, None))]
    for layers in own:
        np.fill_diagonal(layers, 0.0)
    upper = np.triu_indices(n_layers, 1)
    row_r = _row_correlation(embeddings, transformations)
    return LayerComparison(
        n_rows=n_rows,
        embedding_rdm=whole[0],
        transformation_rdm=whole[1],
        stacked_features=spearman(*whole),
        stacked_samples=stacked.r,
        stacked_samples_error=stacked.error,
        n_pairs=stacked.n_pairs,
        layer_by_layer=matrix[:n_layers, n_layers:],
        embedding_layers=own[0],
        transformation_layers=own[1],
        second_order=spearman(own[0][upper], own[1][upper]) if n_layers >= 3 else float("nan"),
        row_r=row_r,
        row_r_mean=float(row_r.mean()),
        row_r_sd=float(row_r.std(ddof=1)),
    )


def autocorrelation(
    features: np.ndarray, valid: np.ndarray, n_lags: int = 30, *, adjusted: bool = False
) -> Autocorrelation:
    """Correlate the features of each layer with themselves, some TRs later.

    Parameters
    ----------
    features : array, shape (n_trs, n_layers, n_dims)
        Every row of the story; those that are not valid may hold anything.
    valid : array of bool, shape (n_trs,)
        Rows with words. A pair of rows counts only where both are valid.
    n_lags : int
        Longest lag, TRs.
    adjusted : bool
        Leave out the shrinkage by ``(n_trs - lag) / n_trs``, which keeps the estimates of
        long lags small.

    Returns
    -------
    Autocorrelation

    Raises
    ------
    NumericalError
        The shapes do not fit, fewer than 3 rows are valid, those have values that are not
        finite, or the lag is as long as the story.

    Notes
    -----
    With m and s2 the mean and the variance of a feature over valid rows, lag k gives the mean
    of ``(x[t] - m) * (x[t + k] - m)`` over the valid pairs, times ``(n - k) / n`` unless
    ``adjusted``, over s2, where n counts the rows from the first to the last valid one.
    Without gaps this is the usual estimate (`statsmodels.tsa.stattools.acf`). Dividing by the
    number of pairs keeps gaps from making a layer look less autocorrelated; filling them with
    the row before, as the paper did, makes it look more so. A lag without pairs gives NaN.

    References
    ----------
    .. [1] Box, Jenkins, Reinsel & Ljung (2015), Time Series Analysis, section 2.1.5
    """
    features, valid = np.asarray(features), np.asarray(valid, dtype=bool)
    if features.ndim != 3 or valid.shape != features.shape[:1] or valid.sum() < 3:
        raise NumericalError(
            f"Found features of shape {features.shape} and {valid.sum()} valid of {valid.shape} "
            "rows, expected (n_trs, n_layers, n_dims) and at least 3 valid rows."
        )
    if not 0 <= n_lags < len(valid):
        raise NumericalError(f"Found {n_lags} lags, expected 0 to {len(valid) - 1} TRs.")
    n_span = int(np.ptp(np.flatnonzero(valid))) + 1
    pairs = np.array([(valid[: len(valid) - k] & valid[k:]).sum() for k in range(n_lags + 1)])
    divisor = np.where(pairs > 0, pairs, np.nan)
    shrinkage = 1.0 if adjusted else np.maximum(0, 1 - np.arange(n_lags + 1) / n_span)
    values = np.full((features.shape[1], n_lags + 1), np.nan)
    n_features = np.zeros(features.shape[1], dtype=np.int64)
    for layer in range(features.shape[1]):
        series = np.where(valid[:, None], features[:, layer], 0.0).astype(np.float64)
        series, varies = _centred(series, valid)
        n_features[layer] = varies.sum()
        if not varies.any():
            continue
        scale = (series**2).sum(axis=0) / valid.sum()
        for k in range(n_lags + 1):
            products = np.einsum("tf,tf->f", series[: len(series) - k], series[k:])
            values[layer, k] = (products / scale).mean()
        values[layer] *= shrinkage / divisor
    return Autocorrelation(values, pairs, n_features)


def _checked(features: np.ndarray, n_axes: int) -> np.ndarray:
    """Features after checking shape and values."""
    features = np.asarray(features)
    shape = "(n_rows, n_features)" if n_axes == 2 else "(n_rows, n_layers, n_dims)"
    if features.ndim != n_axes or len(features) < 3 or min(features.shape[1:]) < 1:
        raise NumericalError(
            f"Features have shape {features.shape}, expected {shape} with at least 3 rows."
        )
    if features.shape[-1] < 2 or not np.isfinite(features).all():
        raise NumericalError(
            f"Features of shape {features.shape} have NaN or infinite values or fewer than 2 "
            "columns, expected finite values: leave out the TRs without words."
        )
    return features


def _stacked(space: np.ndarray) -> np.ndarray:
    """Stack layers as samples, layer-major."""
    return np.swapaxes(space, 0, 1).reshape(-1, space.shape[2])


def _centred(series: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Varying features about their mean over valid rows (0 elsewhere), and which vary."""
    inside = series[valid]
    mean = inside.mean(axis=0)
    if not np.isfinite(mean).all():
        raise NumericalError("Valid rows have NaN or infinite values, expected finite values.")
    varies = inside.std(axis=0) > _RELATIVE_ZERO * np.abs(inside).max(axis=0)
    return np.where(valid[:, None], series - mean, 0.0)[:, varies], varies


def _directions(features: np.ndarray) -> np.ndarray:
    """Rows of z-scored features, centred and of length 1; NaN where a row is constant."""
    features = features.astype(np.float64)
    mean, sd = features.mean(axis=0), features.std(axis=0)
    sd[sd <= _RELATIVE_ZERO * np.abs(features).max(axis=0)] = np.inf
    features -= mean
    features /= sd
    raw = np.einsum("ij,ij->i", features, features)
    features -= features.mean(axis=1, keepdims=True)
    squares = np.einsum("ij,ij->i", features, features)
    smallest = _RELATIVE_ZERO**2 * np.maximum(raw, features.shape[1])  # as z-scores have
    length = np.sqrt(np.where(squares > smallest, squares, np.nan))
    features /= length[:, None]
    return features


def _dissimilarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - r of every row of one matrix with every row of another."""
    return np.clip(np.round(1.0 - a @ b.T, _DECIMALS), 0.0, 2.0)


def _row_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson r of each row over all layers and dimensions."""
    if a.shape != b.shape:
        return np.full(len(a), np.nan)
    return pearson(a.reshape(len(a), -1).T, b.reshape(len(b), -1).T)
