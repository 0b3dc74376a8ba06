"""The feature spaces of a story as the brain would answer to them."""

from __future__ import annotations

from math import gamma as gamma_function

import numpy as np

from bids_brainlm.simulate import readout

HIGH_PASS = 128.0  # s
TAIL = 12  # rows after the story window into which its responses run


def double_gamma(tr: float, duration: float = 30.0) -> np.ndarray:
    """Return the canonical double-gamma response sampled at the TR.

    Parameters
    ----------
    tr : float
        Repetition time, s.
    duration : float
        Length, s.

    Returns
    -------
    array, shape (n_lags,)
        Peak at 5 s, undershoot at 15 s of one sixth; absolute values sum to 1. At TR 1.5 s
        95 % of its power lies in lags 2 to 5.
    """
    time = np.arange(0, duration, tr)
    peak = time**5 * np.exp(-time) / gamma_function(6)
    undershoot = time**15 * np.exp(-time) / gamma_function(16)
    shape = peak - undershoot / 6
    return shape / np.abs(shape).sum()


def convolve(series: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolve columns with a response, causally; shape is kept."""
    out = np.zeros(series.shape)
    for lag, weight in enumerate(response[: len(series)]):
        out[lag:] += weight * series[: len(series) - lag]
    return out


def autoregressive(
    shape: tuple[int, ...], coefficient: float, rng: np.random.Generator
) -> np.ndarray:
    """Return stationary AR(1) noise of variance 1 along axis 0."""
    from scipy.signal import lfilter

    innovations = rng.standard_normal(shape)
    innovations[1:] *= np.sqrt(1 - coefficient**2)
    return lfilter([1.0], [1.0, -coefficient], innovations, axis=0)


def cosine_basis(n_volumes: int, tr: float) -> np.ndarray:
    """Return the discrete cosine basis below 1 / 128 Hz, without the constant."""
    order = int(np.floor(2 * n_volumes * tr / HIGH_PASS))
    phase = (2 * np.arange(n_volumes)[:, None] + 1) * np.arange(1, order + 1) / (2 * n_volumes)
    return np.sqrt(2 / n_volumes) * np.cos(np.pi * phase)


class FeatureSpaces:
    """Responses to every feature space of a story and their prediction operators.

    Parameters
    ----------
    embeddings : array, shape (n_trs, n_layers + 1, n_units)
        Rows without words may be NaN.
    transformations : array, shape (n_trs, n_layers, n_heads, n_dims), optional
        Outputs of the attention heads.
    n_words : array, shape (n_trs,)
        Words in each TR.
    tr : float
        Repetition time, s.

    Notes
    -----
    What a readout does more slowly than once in 128 s is left out: any cleaning removes it.
    Prediction operators see the features whole, as the analysis does.
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        transformations: np.ndarray | None,
        n_words: np.ndarray,
        tr: float,
    ) -> None:
        self.rows = slice(0, len(n_words))
        self._spoken = n_words > 0
        self._response = double_gamma(tr)
        self._slow = cosine_basis(len(n_words) + TAIL, tr)
        self._embeddings = [self._respond(space) for space in embeddings.swapaxes(0, 1)]
        self._heads = []
        if transformations is not None:
            self._heads = [
                [self._respond(head) for head in layer.swapaxes(0, 1)]
                for layer in transformations.swapaxes(0, 1)
            ]
        silence = np.column_stack([~self._spoken, n_words]).astype(float)
        silence -= silence.mean(axis=0)
        padded = np.pad(silence, ((0, TAIL), (0, 0)))
        self.nuisance = self._fast(convolve(padded, self._response))
        self._operators: dict[tuple[str, int], np.ndarray] = {}

    def _respond(self, features: np.ndarray) -> np.ndarray:
        """Standardise features over spoken rows, pad, and convolve."""
        spoken = features[self._spoken].astype(float)
        sd = spoken.std(axis=0)
        scaled = np.zeros((len(features) + TAIL, features.shape[1]))
        varies = sd > 1e-6 * sd.max(initial=0.0)
        standard = (spoken - spoken.mean(axis=0)) / np.where(varies, sd, 1.0) * varies
        scaled[self.rows][self._spoken] = standard
        return convolve(scaled, self._response)

    def own(self, kind: str, layer: int, head: int) -> np.ndarray:
        """Return the responses of the planted space on all rows, slow parts removed."""
        is_layer = kind == "embedding"
        return self._fast(self._embeddings[layer] if is_layer else self._heads[layer - 1][head])

    def _fast(self, responses: np.ndarray) -> np.ndarray:
        """Remove what is slower than once in 128 s."""
        return responses - self._slow @ (self._slow.T @ responses)

    def directions(
        self, kind: str, layer: int, head: int
    ) -> tuple[np.ndarray, list[readout.Contest]]:
        """Return specific directions of a space and its contests."""
        contests = [self._layer_contest(kind, layer)]
        if kind == "head":
            heads = self._heads[layer - 1]
            if len(heads) > 1:
                rest = np.hstack([h for i, h in enumerate(heads) if i != head])
                other = readout.prediction_operator(self._inner(rest))
                own = readout.prediction_operator(self._inner(heads[head]))
                contests.append(readout.Contest(own, (other,), (other,)))
        nuisance = self._inner(self.nuisance)
        found = readout.specific_directions(
            self._inner(self.own(kind, layer, head)), contests, nuisance
        )
        return found, contests

    def _layer_contest(self, kind: str, layer: int) -> readout.Contest:
        """Return the contest of a layer with the other layers of its kind."""
        layers = range(len(self._embeddings)) if kind == "embedding" else self._blocks()
        others = [i for i in layers if i != layer]
        near = [i for i in others if abs(i - layer) == 1] or others
        return readout.Contest(
            self._operator(kind, layer),
            tuple(self._operator(kind, i) for i in others),
            tuple(self._operator(kind, i) for i in near),
        )

    def _blocks(self) -> range:
        """Return the layers that have heads."""
        return range(1, len(self._heads) + 1)

    def _operator(self, kind: str, layer: int) -> np.ndarray:
        """Return the prediction operator of a layer, computed once."""
        if (kind, layer) not in self._operators:
            space = (
                self._embeddings[layer]
                if kind == "embedding"
                else np.hstack(self._heads[layer - 1])
            )
            self._operators[kind, layer] = readout.prediction_operator(self._inner(space))
        return self._operators[kind, layer]

    def _inner(self, responses: np.ndarray) -> np.ndarray:
        """Cut out the story window and centre."""
        inner = responses[self.rows]
        return inner - inner.mean(axis=0)
