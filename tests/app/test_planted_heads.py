"""Heads and layers that the simulator plants are found by the command line, end to end."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.stats import binom

from bids_brainlm import cli
from bids_brainlm.bidsio import write
from bids_brainlm.simulate import cli as simulate

MODEL = "randomTinyBert"
PEOPLE = 8
SIMULATED = (
    "--model", "random:tiny-bert", "--participants", str(PEOPLE), "--stories", "rabbithole",
    "--context-trs", "10", "--raw-bold", "none",
)  # fmt: skip
PLANTED = (
    "--seed", "1", "--n-parcels", "24", "--snr", "0.7", "--noise-share", "0.25", "--head-share",
    "0.5", "--word-share", "0",
)  # fmt: skip
RUN = (
    "--model", "random:tiny-bert", "--features", "heads", "embeddings", "transformations",
    "--context-trs", "10", "--bands", "silence", "counts", "--n-iter", "4",
    "--alphas", "1", "100", "10000", "--n-permutations", "200", "--cv", "4", "--inner-cv", "3",
    "--nprocs", "1", "--offline", "--ladder", "none",
)  # fmt: skip

pytestmark = pytest.mark.slow


def simulated_group(folder, content):
    """Simulate, run both levels, and return the truth and a reader of group maps."""
    seed = content[content.index("--seed") + 1]  # random weights depend on it
    assert simulate.main([str(folder / "bids"), *SIMULATED, *content]) == 0
    atlas = next((folder / "bids" / "derivatives" / "atlas").glob("*_dseg.nii.gz"))
    bids, out = str(folder / "bids"), str(folder / "out")
    with contextlib.chdir(folder):
        run = ["participant", "--atlas", str(atlas), "--seed", seed, *RUN]
        assert cli.main([bids, out, *run]) == 0
        more = ["--n-permutations", "300", "--n-bootstraps", "100"]
        assert cli.main([bids, out, "group", *more]) == 0

    def read(desc, stat):
        path = next((folder / "out" / "group").glob(f"*_desc-{desc}_stat-{stat}_boldmap.tsv"))
        table = write.read_tsv(path)
        columns = [c for c in table if c not in ("index", "name", "ci_low", "ci_high")]
        values = [[np.nan if v == "n/a" else float(v) for v in table[c]] for c in columns]
        return table["name"], columns, np.array(values).T

    return write.read_tsv(folder / "bids" / "derivatives" / "simulation" / "truth.tsv"), read


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return the truth and a reader of the group maps of planted heads and layers."""
    return simulated_group(tmp_path_factory.mktemp("planted"), PLANTED)


def planted(truth, names, kind):
    """Return rows of the maps, and the planted column of each, for one kind of parcel."""
    rows = [k for k, own in enumerate(truth["kind"]) if own == kind]
    return [names.index(truth["name"][k]) for k in rows], [truth["column"][k] for k in rows]


def test_heads_layers_and_noise_are_planted(found):
    truth, _ = found
    kinds = [truth["kind"].count(kind) for kind in ("head", "embedding", "noise")]
    assert kinds == [9, 9, 6]


def test_planted_heads_have_the_largest_group_r(found):
    truth, read = found
    names, columns, mean = read(f"{MODEL}Heads", "mean")
    q = read(f"{MODEL}Heads", "q")[2]
    rows, own = planted(truth, names, "head")
    best = [columns[k] for k in mean[rows].argmax(axis=1)]
    assert np.mean([a == b for a, b in zip(best, own, strict=True)]) >= 0.8
    right = [q[row, columns.index(c)] <= 0.05 for row, c in zip(rows, own, strict=True)]
    assert np.mean(right) > 0.8
    noise, _ = planted(truth, names, "noise")
    assert (q[noise] <= 0.05).mean() <= 0.05


def test_planted_layers_have_the_largest_group_r(found):
    truth, read = found
    names, columns, mean = read(f"{MODEL}Embeddings", "mean")
    rows, own = planted(truth, names, "embedding")
    best = [columns[k] for k in mean[rows].argmax(axis=1)]
    assert np.mean([a == b for a, b in zip(best, own, strict=True)]) >= 0.8
    _, _, preferred = read(f"{MODEL}Embeddings", "preferredlayer")
    blocks = [k for k, column in enumerate(own) if column != "layer00"]  # not a candidate there
    right = [preferred[rows[k], 0] == int(own[k][-2:]) for k in blocks]
    assert np.mean(right) >= 0.8


@pytest.fixture(scope="module")
def nothing(tmp_path_factory):
    """Return a reader of the group maps of 200 parcels in which nothing is planted."""
    folder = tmp_path_factory.mktemp("nothing")
    return simulated_group(folder, ("--n-parcels", "200", "--snr", "none", "--seed", "2"))[1]


@pytest.mark.parametrize("space", ["Heads", "Embeddings", "Transformations"])
def test_nothing_is_found_where_nothing_is_planted(nothing, space):
    """Every parcel has noise of its own in all participants.

    Parcels of a participant share the confounds that are regressed out, so that they are not
    quite independent datasets.
    """
    p = nothing(f"{MODEL}{space}", "p")[2]
    low, high = binom.ppf([0.005, 0.995], 200, 0.05)
    for column in range(p.shape[1]):
        assert (p[:, column] <= 0.05).sum() <= high + 2  # up to 16 columns are looked at
    one_each = p[np.arange(200), np.arange(200) % p.shape[1]]
    assert low <= (one_each <= 0.05).sum() <= high
    q = nothing(f"{MODEL}{space}", "q")[2]
    assert (q <= 0.05).mean() < 0.02
