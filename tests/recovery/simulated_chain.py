"""Simulated stories and brains for whole chains of analyses: features, plans, fits, group tests.

Heads have half of their variance of their own; the rest they share with their layer, with the
layer before and with the whole model. They differ in how slowly they change. Embeddings add up
what heads write, as a residual stream does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.signal import lfilter
from scipy.stats import binom, gamma

from bids_brainlm.numerics import crossval, design, heads

TR = 1.5
DELAYS = (2, 3, 4, 5)
ALPHAS = (1.0, 10.0, 100.0, 1000.0, 1e4)


def ar1(rng, n_trs, n_columns, rho):
    """Draw AR(1) series of variance 1; ``rho`` is one number or one a column."""
    rho = np.broadcast_to(np.asarray(rho, float), (n_columns,))
    noise = rng.standard_normal((n_trs + 60, n_columns))
    series = np.empty_like(noise)
    for value in np.unique(rho):
        some = rho == value
        series[:, some] = lfilter([np.sqrt(1 - value**2)], [1.0, -value], noise[:, some], axis=0)
    return series[60:]


def response(series):
    """Convolve with a double gamma and scale to variance 1."""
    t = np.arange(0, 25, TR)
    out = lfilter(gamma.pdf(t, 6) - gamma.pdf(t, 16) / 6, [1.0], series, axis=0)
    return (out - out.mean(axis=0)) / out.std(axis=0)


@dataclass(frozen=True)
class Story:
    """Features of one story; heads (n_trs, n_layers, n_heads, head_dim)."""

    heads: np.ndarray
    embeddings: np.ndarray
    nuisance: design.Band
    plan: crossval.Plan

    @property
    def n_trs(self):
        return len(self.heads)

    @property
    def n_heads(self):
        """Heads of all layers."""
        return self.heads.shape[1] * self.heads.shape[2]

    @cached_property
    def layers(self):
        """Layer of each head."""
        return np.repeat(np.arange(1, self.heads.shape[1] + 1), self.heads.shape[2])

    @cached_property
    def by_head(self):
        """Outputs of each head, (n_heads, n_trs, head_dim)."""
        return np.moveaxis(self.heads.reshape(self.n_trs, self.n_heads, -1), 1, 0)

    def fit(self, features, targets):
        """Encode participants' targets with one feature space; one result a participant."""
        band = design.Band("model", features.reshape(self.n_trs, -1), np.ones(self.n_trs, bool))
        return crossval.crossvalidate([self.nuisance, band], targets, self.plan, main="model")

    def headwise(self, targets, *, n_permutations=0):
        """Encode with all heads and score each; one result a participant."""
        wide = self.heads.reshape(self.n_trs, -1)
        test = None
        if n_permutations:
            test = heads.HeadTest(min(15, len(self.plan.rows) // 6), n_permutations, 3)
        return heads.headwise(
            [self.nuisance, design.Band("model", wide, np.ones(self.n_trs, bool))],
            np.arange(wide.shape[1]).reshape(self.n_heads, -1),
            targets, self.plan, main="model", test=test,
        )  # fmt: skip

    def z_of_layers(self, space, targets):
        """Fisher z of every layer, (n_participants, n_parcels, n_layers)."""
        fits = [self.fit(space[:, k], targets) for k in range(space.shape[1])]
        return np.stack([[np.arctanh(one.r) for one in fit] for fit in fits], axis=-1)


def story(seed, *, n_trs=240, n_layers=3, n_heads=4, head_dim=6, layered=True, n_gammas=3):
    """Draw a story; without ``layered`` heads are exchangeable: all share the same with all."""
    rng = np.random.default_rng([71, *np.atleast_1d(seed)])
    rank = max(2, head_dim // 2)
    whole = ar1(rng, n_trs, rank, 0.5)
    found = np.empty((n_trs, n_layers, n_heads, head_dim))
    before = ar1(rng, n_trs, rank, 0.5)
    for layer in range(n_layers):
        shared = (ar1(rng, n_trs, rank, 0.5) + before) / np.sqrt(2) if layered else whole
        for head in range(n_heads):
            rho = rng.choice([0.2, 0.5, 0.8]) if layered else 0.5
            own = ar1(rng, n_trs, rank, rho)
            sources = np.hstack([whole / 2, shared / 2, own / np.sqrt(2)])
            found[:, layer, head] = sources @ rng.standard_normal((3 * rank, head_dim))
        before = shared
    state, stream = ar1(rng, n_trs, n_heads * head_dim, 0.3), []
    for layer in range(n_layers):
        wide = found[:, layer].reshape(n_trs, -1)
        state = state + wide @ rng.standard_normal((wide.shape[1],) * 2) / np.sqrt(wide.shape[1])
        stream.append(state)
    counts = rng.poisson(4, (n_trs, 2)).astype(float)
    plan = crossval.make_plan(
        np.arange(5, n_trs - 5), n_folds=4, n_inner=3, gap=8, n_bands=2, n_gammas=n_gammas,
        alphas=ALPHAS, delays=DELAYS, seed=1,
    )  # fmt: skip
    nuisance = design.Band("counts", counts, np.ones(n_trs, bool))
    return Story(found, np.stack(stream, axis=1), nuisance, plan)


def people(rng, n_participants, n_trs, n_parcels, signal=None, share=0.0):
    """Draw participants' series; parcels of one person resemble each other.

    ``signal`` (n_trs, n_parcels) has variance 1 and the given share of that of the series.
    """
    found = []
    for _ in range(n_participants):
        noise = ar1(rng, n_trs, n_parcels, 0.4) + 0.7 * ar1(rng, n_trs, 1, 0.4)
        noise /= np.sqrt(1.49)
        own = noise if signal is None else np.sqrt(share) * signal + np.sqrt(1 - share) * noise
        found.append(own)
    return found


def bounds(n, level=0.05):
    """Return the binomial 99 % interval of a count at the nominal level."""
    return binom.ppf([0.005, 0.995], n, level)


def keeps_level(p, level=0.05):
    """Tell whether the number of small p lies in the binomial 99 % interval."""
    low, high = bounds(np.size(p), level)
    return low <= (np.asarray(p) <= level).sum() <= high
