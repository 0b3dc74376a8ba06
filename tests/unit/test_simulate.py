"""The simulator's arrays: planted layers are recoverable, noise is noise."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from bids_brainlm.bidsio import confounds as app_confounds
from bids_brainlm.bidsio import write
from bids_brainlm.errors import ConfigError, NumericalError
from bids_brainlm.numerics import fir, folds, isc, ridge, scaling, scores
from bids_brainlm.simulate import bold, confounds, images, narratives, readout, spaces
from bids_brainlm.simulate.settings import SNR_LEVELS, Noise, SimulationSettings

DELAYS = (2, 3, 4, 5)
TRIM = 10


def tiny_transformer(
    rng: np.random.Generator, n_trs: int, n_layers: int, n_heads: int, n_dims: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features whose neighbouring layers are as alike as in a residual stream."""
    n_units = n_heads * n_dims
    state = rng.standard_normal((n_trs, n_units))
    embeddings, transformations = [state], []
    for _ in range(n_layers):
        moved = np.tanh(state @ rng.standard_normal((n_units, n_units)) / np.sqrt(n_units))
        transformations.append(moved.reshape(n_trs, n_heads, n_dims))
        state = state + moved
        embeddings.append(state)
    n_words = rng.integers(1, 7, n_trs)
    n_words[rng.random(n_trs) < 0.08] = 0
    found = np.stack(embeddings, 1), np.stack(transformations, 1)
    for array in found:
        array[n_words == 0] = np.nan
    return *found, n_words


def own_band_r(
    features: np.ndarray, n_words: np.ndarray, series: np.ndarray, n_gammas: int = 6
) -> np.ndarray:
    """Score features by the app's banded ridge, shape (n_participants, n_parcels)."""
    spoken = n_words > 0
    main = np.zeros(features.shape)
    sd = features[spoken].std(0)
    main[spoken] = (features[spoken] - features[spoken].mean(0)) / np.where(sd > 0, sd, 1)
    counts = n_words[:, None].astype(float)
    bands = [fir.delay(band, DELAYS)[TRIM:-TRIM] for band in ((counts == 0) * 1.0, counts, main)]
    targets = series[:, TRIM:-TRIM]
    gammas = ridge.sample_gammas(3, n_gammas, np.random.default_rng(1))
    alphas = np.logspace(-2, 4, 10)
    found = []
    for fold in folds.contiguous_folds(np.arange(len(main) - 2 * TRIM), 3, TRIM):
        scaled = []
        for band in bands:
            fitted = scaling.fit(band, fold.train)
            scaled.append(scaling.apply(band, fitted) / np.sqrt(band.shape[1]))
        inner = [
            folds.positions(part, fold.train)
            for part in folds.contiguous_folds(fold.train, 3, TRIM)
        ]
        results = ridge.encode(
            [band[fold.train] for band in scaled],
            [band[fold.test] for band in scaled],
            [target[fold.train] - target[fold.train].mean(0) for target in targets],
            gammas,
            alphas,
            inner,
        )
        found.append(
            [
                scores.pearson(result.prediction_by_band[-1], target[fold.test])
                for result, target in zip(results, targets, strict=True)
            ]
        )
    return np.nan_to_num(np.mean(found, axis=0))


def recovery(scores_by_layer: np.ndarray, layer: np.ndarray) -> tuple[float, float]:
    """Return the share of parcels whose planted layer wins: in one participant, on average."""
    single = (scores_by_layer.argmax(0) == layer).mean()
    average = (scores_by_layer.mean(1).argmax(0) == layer).mean()
    return float(single), float(average)


def test_response_fits_delays_2_to_5():
    shape = spaces.double_gamma(1.5)
    power = shape**2 / (shape**2).sum()
    assert power[2:6].sum() > 0.94
    assert np.argmax(shape) in (3, 4)


def test_convolution_is_causal():
    impulse = np.zeros((20, 1))
    impulse[5] = 1
    out = spaces.convolve(impulse, spaces.double_gamma(1.5))
    assert np.all(out[:5] == 0)
    np.testing.assert_allclose(out[5:, 0], spaces.double_gamma(1.5)[:15])


def test_autoregressive_noise_is_stationary(rng):
    noise = spaces.autoregressive((50, 20000), 0.4, rng)
    np.testing.assert_allclose(noise.var(axis=1), 1, atol=0.05)
    assert np.mean(noise[1:] * noise[:-1]) == pytest.approx(0.4, abs=0.01)


def test_plan_has_the_shares_asked_for(rng):
    truth = bold.plant(100, 6, 12, rng, noise_share=0.3, head_share=0.2, word_share=0.5)
    assert truth.kind.count("noise") == 30
    assert truth.kind.count("head") == 14
    assert truth.has_words.sum() == 35
    assert not truth.has_words[~truth.is_signal].any()
    counts = np.bincount(truth.layer[[kind == "embedding" for kind in truth.kind]])
    assert counts.max() - counts.min() <= 1
    columns = dict(zip(truth.columns(), truth.kind, strict=True))
    assert columns["n/a"] == "noise"
    assert columns["layer00"] == "embedding"
    heads = [column for column, kind in columns.items() if kind == "head"]
    assert all(int(column[1:3]) >= 1 and 1 <= int(column[4:]) <= 12 for column in heads)


def test_planted_layer_is_recovered_and_noise_is_not(rng):
    embeddings, transformations, n_words = tiny_transformer(rng, 480, 3, 4, 12)
    truth = bold.plant(40, 3, 4, rng, head_share=0.0)
    series = bold.simulate_parcels(embeddings, transformations, n_words, truth, seed=3)
    assert series.shape == (5, 480, 40)
    np.testing.assert_allclose(series.var(axis=1).mean(), 1, atol=0.1)
    found = np.array([own_band_r(embeddings[:, i], n_words, series) for i in range(4)])
    signal = truth.is_signal
    single, average = recovery(found[:, :, signal], truth.layer[signal])
    assert single >= 0.9
    assert average >= 0.95
    assert abs(found[:, :, ~signal].mean()) < 0.02
    reliability = isc.leave_one_out(series)
    assert 0.2 < reliability[:, signal].mean() < 0.5
    assert abs(reliability[:, ~signal].mean()) < 0.03


def test_planted_head_is_recovered(rng):
    embeddings, transformations, n_words = tiny_transformer(rng, 400, 2, 3, 16)
    truth = bold.plant(12, 2, 3, rng, noise_share=0.0, head_share=1.0)
    series = bold.simulate_parcels(embeddings, transformations, n_words, truth, seed=4)
    found = np.array(
        [own_band_r(transformations[:, i, j], n_words, series) for i in range(2) for j in range(3)]
    )
    wanted = (truth.layer - 1) * 3 + truth.head
    assert (found.mean(1).argmax(0) == wanted).mean() >= 0.9


def test_layer_of_real_model_is_recovered_at_standard_noise(minilm_alice):
    embeddings, transformations, n_words = minilm_alice
    rng = np.random.default_rng(1)
    truth = bold.plant(60, embeddings.shape[1] - 1, transformations.shape[2], rng)
    series = bold.simulate_parcels(embeddings, transformations, n_words, truth, seed=1)
    is_layer = np.array([kind == "embedding" for kind in truth.kind])
    found = np.array(
        [own_band_r(embeddings[:, i], n_words, series) for i in range(embeddings.shape[1])]
    )
    single, average = recovery(found[:, :, is_layer], truth.layer[is_layer])
    assert single >= 0.9, single
    assert average >= 0.95, average
    at_layer = [found[truth.layer[p], :, p].mean() for p in np.flatnonzero(is_layer)]
    assert 0.1 < np.mean(at_layer) < 0.35
    assert abs(found[:, :, ~truth.is_signal].mean()) < 0.02
    assert 0.1 < isc.leave_one_out(series)[:, truth.is_signal].mean() < 0.45


@pytest.fixture(scope="module")
def minilm_alice(minilm):
    """Return MiniLM features of the Alice reading at TR 1.5 s, about 480 TRs."""
    from bids_brainlm.language import models
    from bids_brainlm.records import TRGrid
    from bids_brainlm.simulate import features, stories

    (story,) = stories.made_stories(["alice"], seconds=720)
    grid = TRGrid(0, 486, 1.5)
    rows = [[] for _ in range(grid.n_trs)]
    for word in story.words:
        if word.offset is not None:
            rows[grid.bin(word.offset)].append(word.text)
    settings = SimulationSettings(model=str(minilm), context_trs=10)
    model = features.load_model(settings)
    assert isinstance(model, models.LanguageModel)
    found = features.story_features(model, [" ".join(words) for words in rows], settings)
    return found.embeddings, found.transformations, found.n_words


def test_same_seed_same_series(rng):
    embeddings, transformations, n_words = tiny_transformer(rng, 90, 2, 2, 8)
    truth = bold.plant(8, 2, 2, np.random.default_rng(0))
    one, two = (
        bold.simulate_parcels(embeddings, transformations, n_words, truth, seed=5) for _ in range(2)
    )
    np.testing.assert_array_equal(one, two)
    other = bold.simulate_parcels(embeddings, transformations, n_words, truth, seed=6)
    assert not np.allclose(one, other)


def test_level_none_is_noise_alone(rng):
    embeddings, _, n_words = tiny_transformer(rng, 120, 2, 2, 8)
    truth = bold.plant(200, 2, 0, rng, noise_share=1.0)
    series = bold.simulate_parcels(embeddings, None, n_words, truth, noise=Noise.at("none"))
    assert set(truth.kind) == {"noise"}
    assert abs(isc.leave_one_out(series).mean()) < 0.02


def test_too_short_story_is_refused(rng):
    embeddings, transformations, n_words = tiny_transformer(rng, 20, 2, 2, 8)
    truth = bold.plant(4, 2, 2, rng)
    with pytest.raises(NumericalError, match="20 TRs"):
        bold.simulate_parcels(embeddings, transformations, n_words, truth)


def test_heads_need_transformations(rng):
    embeddings, _, n_words = tiny_transformer(rng, 60, 2, 2, 8)
    truth = bold.plant(4, 2, 2, rng, noise_share=0.0, head_share=1.0)
    with pytest.raises(NumericalError, match="no transformations"):
        bold.simulate_parcels(embeddings, None, n_words, truth)


def test_readout_is_carried_to_all_rows(rng):
    responses = rng.standard_normal((70, 30))
    rows = slice(0, 60)
    weights = rng.standard_normal((30, 2))
    wanted = (responses - responses[rows].mean(0)) @ weights
    np.testing.assert_allclose(readout.extend(responses, rows, wanted[rows]), wanted, atol=1e-8)


def test_prediction_operator_never_sees_its_test_rows(rng):
    responses = rng.standard_normal((60, 5))
    operator = readout.prediction_operator(responses)
    for test in np.array_split(np.arange(60), readout.N_FOLDS):
        assert np.all(operator[np.ix_(test, test)] == 0)


@pytest.mark.parametrize("level", sorted(SNR_LEVELS))
def test_levels(level):
    noise = Noise.at(level)
    assert noise.signal == SNR_LEVELS[level]
    assert noise.signal + noise.words + noise.shared < 1


@pytest.mark.parametrize("bad", ["loud", "-1", 0.95, "nan"])
def test_bad_level(bad):
    with pytest.raises(ConfigError, match="SNR"):
        Noise.at(bad)


@pytest.mark.parametrize(
    "values",
    [
        {"flavour": "raw"},
        {"tr": 0.0},
        {"noise_share": 1.5},
        {"participants": ()},
        {"participants": ("01/../x",)},
        {"seed": -1},
        {"n_words": 0},
    ],
)
def test_bad_settings(values):
    with pytest.raises(ConfigError):
        SimulationSettings(**values)


def test_run_lengths_are_those_of_narratives():
    assert narratives.run_length("black", "127", 812.0, 1.5, real=True) == 550
    lengths = {
        narratives.run_length("slumlordreach", label, 1794.5, 1.5, real=True)
        for label in ("016", "106", "110", "111", "112")
    }
    assert len(lengths) > 1
    assert all(1205 <= length <= 1223 for length in lengths)
    made = narratives.run_length("black", "127", 100.0, 1.5, real=False)
    assert 67 + 8 <= made <= 67 + 10


def test_confounds_are_understood_by_the_app(rng, tmp_path):
    made = confounds.draw(200, 1.5, rng)
    write.write_tsv(tmp_path / "a.tsv", made.table())
    write.write_json(tmp_path / "a.json", made.sidecar())
    chosen = app_confounds.select(tmp_path / "a.tsv", tmp_path / "a.json", "auto", 200, 1.5)
    assert chosen.matrix.shape == (200, 6 + 4 + 10)
    assert app_confounds.framewise_displacement(tmp_path / "a.tsv") == pytest.approx(
        np.nanmean(made.displacement), rel=1e-6
    )
    added = confounds.disturbance(made, 3, (0.5, 0.5, 0.7), rng)
    np.testing.assert_allclose(images.clean(added, made.design()), 0, atol=1e-8)


def test_cosines_are_orthonormal():
    basis = spaces.cosine_basis(300, 1.5)
    assert basis.shape == (300, 7)
    np.testing.assert_allclose(basis.T @ basis, np.eye(7), atol=1e-10)


@pytest.mark.parametrize("n_blocks", [2, 12, 25])
def test_blocks(n_blocks):
    parcels = images.blocks(n_blocks, 8.0)
    np.testing.assert_array_equal(parcels.n_voxels(), np.full(n_blocks, 8))
    assert len(set(parcels.names)) == n_blocks
    assert parcels.labels[0].max() == 0
    middle = parcels.affine @ [*((np.asarray(parcels.labels.shape) - 1) / 2), 1]
    np.testing.assert_allclose(middle[:3], [0, -18, 8])


@pytest.mark.parametrize("atlas", ["blocks:1", "blocks:many", "blocks:100000"])
def test_bad_blocks(atlas):
    with pytest.raises(ConfigError):
        images.parcellate(SimulationSettings(atlas=atlas))


def test_parcel_mean_is_the_planted_series(rng):
    parcels = images.blocks(6, 8.0)
    series = rng.standard_normal((40, 6))
    voxels = images.voxel_series(series, parcels, 1.0, rng)
    inside = parcels.labels[parcels.labels > 0] - 1
    means = np.stack([voxels[:, inside == i].mean(1) for i in range(6)], 1)
    np.testing.assert_allclose(means, series, atol=1e-5)
    assert voxels.std() > 1.2


def test_images_are_the_same_bytes_and_have_the_tr(rng, tmp_path):
    parcels = images.blocks(4, 8.0)
    data = rng.uniform(8000, 12000, (30, 32))
    made = [images.image_bytes(data, parcels, 1.52, np.int16) for _ in range(2)]
    assert made[0] == made[1]
    assert gzip.decompress(made[0])
    path = tmp_path / "a.nii.gz"
    path.write_bytes(made[0])
    image = nibabel.load(path)
    assert image.shape == (*parcels.labels.shape, 30)
    assert image.header.get_zooms()[3] == pytest.approx(1.52)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    values = np.asanyarray(image.dataobj)
    np.testing.assert_array_equal(values[parcels.labels > 0], np.rint(data).T)
    assert np.all(values[parcels.labels == 0] == 0)
