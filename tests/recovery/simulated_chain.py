"""Simulated stories and brains for whole chains of analyses: features, plans, fits.

Half of the variance of a head is its own; the rest it shares with its layer, with the layer
before and with the whole model. Heads differ in how slowly they change. Embeddings add up what
heads write, as a residual stream does. Participants' parcels resemble each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.signal import lfilter
from scipy.stats import binom, gamma

from bids_brainlm.numerics import blas, crossval, design, head_nulls, heads, resampling

TR = 1.5
DELAYS = (2, 3, 4, 5)
ALPHAS = (10.0, 1000.0, 1e5)
SLOWNESS = (0.2, 0.5, 0.8)  # lag-1 autocorrelation of heads
GAP = 8


def ar1(rng, n_trs, n_columns, rho):
    """Draw AR(1) series of variance 1."""
    noise = rng.standard_normal((n_trs + 60, n_columns))
    return lfilter([np.sqrt(1 - rho**2)], [1.0, -rho], noise, axis=0)[60:]


def response(series):
    """Convolve with a double gamma and scale to variance 1."""
    t = np.arange(0, 25, TR)
    out = lfilter(gamma.pdf(t, 6) - gamma.pdf(t, 16) / 6, [1.0], series, axis=0)
    return (out - out.mean(axis=0)) / out.std(axis=0)


@dataclass(frozen=True)
class Story:
    """Features and folds of one story.

    ``heads`` has shape (n_trs, n_layers, n_heads, head_dim), ``embeddings`` (n_trs, n_layers,
    n_units). Targets have shape (n_trs, n_targets): all participants' parcels side by side.
    """

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
        """Layer of each head, from 1."""
        return np.repeat(np.arange(1, self.heads.shape[1] + 1), self.heads.shape[2])

    @cached_property
    def by_head(self):
        """Outputs of each head, (n_heads, n_trs, head_dim)."""
        wide = self.heads.reshape(self.n_trs, self.n_heads, -1)
        return np.ascontiguousarray(np.moveaxis(wide, 1, 0))

    def _bands(self, features):
        wide = features.reshape(self.n_trs, -1)
        return [self.nuisance, design.Band("model", wide, np.ones(self.n_trs, bool))]

    def fit(self, features, targets):
        """Encode with one feature space."""
        with blas.single_threaded():
            bands = self._bands(features)
            return crossval.crossvalidate(bands, [targets], self.plan, main="model")[0]

    def headwise(self, targets, *, n_permutations=0):
        """Encode with all heads and score each, as `steps.heads` does."""
        bands = self._bands(self.heads)
        groups = np.arange(bands[1].features.shape[1]).reshape(self.n_heads, -1)
        length = min(15, len(self.plan.rows) // 6)
        test = heads.HeadTest(length, n_permutations, (1, 3)) if n_permutations else None
        with blas.single_threaded():
            return heads.headwise(
                bands, groups, [targets], self.plan, main="model", test=test
            )[0]  # fmt: skip

    def excess(self, targets, n_people, n_parcels, *, n_surrogates=3):
        """Excess of norms over those of random phases, (n_groups, n_people, n_heads, n_parcels).

        ``targets`` are groups of people side by side. Persons k of all groups share phases.
        """
        bands = self._bands(self.heads)
        groups = np.arange(bands[1].features.shape[1]).reshape(self.n_heads, -1)
        several = targets.reshape(self.n_trs, -1, n_people, n_parcels)
        split = [several[:, :, k].reshape(self.n_trs, -1) for k in range(n_people)]
        null = head_nulls.HeadNull(n_surrogates, [[73, k] for k in range(n_people)])
        with blas.single_threaded():
            found = heads.headwise(bands, groups, split, self.plan, main="model", null=null)
        values = np.stack([one.excess for one in found])
        values = values.reshape(n_people, -1, n_parcels, self.n_heads)
        return values.transpose(1, 0, 3, 2)

    def z_of_layers(self, space, targets):
        """Fisher z of every layer, (n_targets, n_layers)."""
        fits = [self.fit(space[:, k], targets) for k in range(space.shape[1])]
        return np.arctanh(np.stack([one.r for one in fits], axis=1))

    def in_folds(self, result):
        """Cut what a fit predicted into test blocks."""
        return [result.prediction[rows] for rows in self.plan.segments]


def make_plan(n_trs, *, n_folds=3, n_inner=2, n_gammas=2, alphas=ALPHAS):
    """Fix folds without the first and last TRs."""
    return crossval.make_plan(
        np.arange(5, n_trs - 5), n_folds=n_folds, n_inner=n_inner, gap=GAP, n_bands=2,
        n_gammas=n_gammas, alphas=alphas, delays=DELAYS, seed=1,
    )  # fmt: skip


def counts_band(rng, n_trs):
    """Draw a nuisance band."""
    return design.Band("counts", rng.poisson(4, (n_trs, 2)) * 1.0, np.ones(n_trs, bool))


def story(
    *seed, n_trs=160, n_layers=3, n_heads=4, head_dim=4, layered=True, own_share=0.5, plan=None
):
    """Draw a story; without ``layered`` heads are exchangeable: they share with all alike."""
    rng = np.random.default_rng([71, *seed])
    rank = max(2, head_dim // 2)
    whole, before = ar1(rng, n_trs, rank, 0.5), ar1(rng, n_trs, rank, 0.5)
    found = np.empty((n_trs, n_layers, n_heads, head_dim))
    for layer in range(n_layers):
        shared = (ar1(rng, n_trs, rank, 0.5) + before) / np.sqrt(2) if layered else whole
        for head in range(n_heads):
            own = ar1(rng, n_trs, rank, rng.choice(SLOWNESS) if layered else 0.5)
            both = np.sqrt((1 - own_share) / 2) * np.hstack([whole, shared])
            sources = np.hstack([both, np.sqrt(own_share) * own])
            mixing = rng.standard_normal((3 * rank, head_dim))
            found[:, layer, head] = sources @ mixing
        before = shared
    state, stream = ar1(rng, n_trs, n_heads * head_dim, 0.3), []
    for layer in range(n_layers):
        wide = found[:, layer].reshape(n_trs, -1)
        state = state + wide @ rng.standard_normal((wide.shape[1],) * 2) / np.sqrt(wide.shape[1])
        stream.append(state)
    nuisance = counts_band(rng, n_trs)
    return Story(found, np.stack(stream, axis=1), nuisance, plan or make_plan(n_trs))


def brains(rng, n_participants, n_trs, n_parcels, signal=None, share=0.0):
    """Draw participants' series, (n_trs, n_participants * n_parcels), variance about 1.

    ``signal``, (n_trs, n_parcels) or with all participants side by side, has variance 1 and
    the given share of that of the series.
    """
    found = ar1(rng, n_trs, n_participants * n_parcels, 0.4).reshape(n_trs, n_participants, -1)
    found = (found + 0.7 * ar1(rng, n_trs, n_participants, 0.4)[:, :, None]) / np.sqrt(1.49)
    if signal is not None:
        own = signal.reshape(n_trs, -1, n_parcels)
        found = np.sqrt(share) * own + np.sqrt(1 - share) * found
    return found.reshape(n_trs, -1)


def bounds(n, level=0.05):
    """Return the binomial 99 % interval of a count at the nominal level."""
    return binom.ppf([0.005, 0.995], n, level)


def rate(p, level=0.05):
    """Share of p at or below the level."""
    return float((np.asarray(p) <= level).mean())


def keeps_level(p, level=0.05):
    """Tell whether the number of small p lies in the binomial 99 % interval."""
    low, high = bounds(np.size(p), level)
    return bool(low <= (np.asarray(p) <= level).sum() <= high)


def one_each(p):
    """Take one test of each dataset in turn, which are independent; p (n_datasets, ...)."""
    p = np.asarray(p).reshape(len(p), -1)
    return p[np.arange(len(p)), np.arange(len(p)) % p.shape[1]]


def is_rare(errors, level=0.05):
    """Tell whether datasets with any rejection are not more than the level allows."""
    return bool(np.sum(errors) <= bounds(np.size(errors), level)[1])


def flip_test(z, n_permutations=1100):
    """Test means over participants, (n_people, n_parcels, n_columns), as the group step does.

    All columns get the same draws; of 10 people, all 1024 patterns.
    """
    tested = [
        resampling.sign_flip_test(
            z[..., k], n_permutations=n_permutations, rng=np.random.default_rng([1, 2])
        ).p
        for k in range(z.shape[2])
    ]
    return np.stack(tested, axis=1)


def block_test(story, result, n_permutations=299):
    """Return p of every target of a fit by permuted blocks, as the encoding step does."""
    return resampling.block_permutation_test(
        result.prediction,
        result.observed,
        block_length=min(15, len(result.prediction) // 6),
        n_permutations=n_permutations,
        rng=np.random.default_rng([1, 1]),
        segments=story.plan.segments,
    ).p
