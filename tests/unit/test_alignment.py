"""Lags of known onsets: made-up series, the words of a real story, and the real Alice data."""

import numpy as np
import pytest
from scipy.signal import fftconvolve, lfilter
from scipy.stats import binom, gamma

from bids_brainlm.bidsio import atlas, confounds, images
from bids_brainlm.errors import NumericalError
from bids_brainlm.language import timing, transcripts
from bids_brainlm.numerics import alignment
from bids_brainlm.records import TRGrid

SPACE = "MNI152NLin2009cAsym"
FINE = 0.05  # s


def _ar1(rng, n_trs, rho=0.6):
    noise = lfilter([1.0], [1.0, -rho], rng.standard_normal(n_trs + 100))[100:]
    return noise / noise.std()


def test_double_gamma_is_that_of_scipy():
    times = np.linspace(-2, 32, 200)
    expected = gamma.pdf(times, 6) - gamma.pdf(times, 16) / 6
    np.testing.assert_allclose(alignment.double_gamma(times), expected, atol=1e-12)
    wide = gamma.pdf(times, 4, scale=1.5) - gamma.pdf(times, 12, scale=1.5) / 3
    found = alignment.double_gamma(times, response=4, undershoot=12, dispersion=1.5, ratio=3)
    np.testing.assert_allclose(found, wide, atol=1e-12)
    fine = np.arange(0, 32, 0.01)
    assert fine[alignment.double_gamma(fine).argmax()] == pytest.approx(5, abs=0.05)


@pytest.mark.parametrize(("tr", "moment"), [(2.0, 0.5), (1.5, 0.0), (0.72, 1.0)])
def test_convolution_equals_a_fine_grid(tr, moment):
    """One burst in TR 3, at 1 ms."""
    regressor = np.zeros(60)
    regressor[3] = 2.0
    found = alignment.convolve_response(regressor, tr, moment=moment)
    events = (3 + (np.arange(2000) + 0.5) / 2000) * tr
    volumes = (np.arange(60) + moment) * tr
    since = volumes[:, None] - events
    expected = 2.0 * alignment.double_gamma(since).mean(axis=1) * tr
    kept = volumes < 3 * tr + 30
    np.testing.assert_allclose(found[kept], expected[kept], atol=1e-4)


@pytest.mark.parametrize("tr", [1.5, 2.0])
@pytest.mark.parametrize("lag", [-8.0, -1.3, 0.0, 0.6, 4.0, 11.0])
def test_known_lags_are_found_between_trs(tr, lag):
    rng = np.random.default_rng(2)
    times = np.arange(-60, 700, FINE)
    burst = (rng.random(times.size) < 0.1).astype(float)
    n_trs = int(500 / tr)
    heard = burst[times >= -FINE / 2][: n_trs * round(tr / FINE)]
    counts = heard.reshape(n_trs, -1).sum(axis=1)
    signal = fftconvolve(burst, alignment.double_gamma(np.arange(0, 32, FINE)))[: times.size]
    volumes = (np.arange(n_trs) + 0.5) * tr
    series = np.interp(volumes - lag, times, signal)
    found = alignment.run_alignment(alignment.convolve_response(counts, tr), series, tr)
    assert found.lag == pytest.approx(lag, abs=0.3)  # the top is flat
    assert found.r > 0.9
    assert found.z > 4
    assert found.unlikely == (abs(lag) > 3)
    assert found.of_run == pytest.approx([found.lag])
    assert np.isnan(found.low)


def test_curve_equals_numpy_at_every_lag(rng):
    n_trs, tr = 150, 2.0
    x, y = _ar1(rng, n_trs), _ar1(rng, n_trs)
    found = alignment.run_alignment(x, y, tr, high_pass=np.inf)
    np.testing.assert_allclose(found.lags, np.arange(-10, 11) * 2.0)
    for lag, r in zip(range(-10, 11), found.curve, strict=True):
        late = y[lag:] if lag >= 0 else y[:lag]
        early = x[: n_trs - lag] if lag >= 0 else x[-lag:]
        assert r == pytest.approx(np.corrcoef(late, early)[0, 1])


def test_p_is_not_too_small_for_300_null_runs():
    rng = np.random.default_rng(5)
    p, flags = [], 0
    for _ in range(300):
        found = alignment.run_alignment(_ar1(rng, 300, 0.8), _ar1(rng, 300), 2.0)
        p.append(found.p)
        flags += found.unlikely
    assert np.sum(np.array(p) <= 0.05) <= binom.ppf(0.995, 300, 0.05)
    assert np.sum(np.array(p) <= 0.2) >= 15  # nor much too large
    assert flags <= binom.ppf(0.995, 300, 0.01)


def test_a_quarter_of_bad_runs_does_not_decide():
    rng = np.random.default_rng(8)
    x = alignment.convolve_response(rng.poisson(3, 300).astype(float), 1.5)
    good = [x / x.std() + _ar1(rng, 300) for _ in range(12)]
    late = [np.roll(x, 9) / x.std() * 3 for _ in range(3)]
    found = alignment.group_alignment([x] * 15, good + late, 1.5)
    assert abs(found.lag) < 0.7
    assert not found.unlikely
    assert found.low <= found.lag <= found.high
    np.testing.assert_allclose(found.of_run[12:], 13.5, atol=1.0)


def test_nothing_to_find_is_said(rng):
    x = alignment.convolve_response(rng.poisson(3, 300).astype(float), 1.5)
    found = alignment.group_alignment([x] * 6, [_ar1(rng, 300) for _ in range(6)], 1.5)
    assert not found.unlikely
    assert "cannot be judged" in found.message


def test_expected_lag_of_other_stories():
    rng = np.random.default_rng(3)
    x = alignment.convolve_response(rng.poisson(3, 300).astype(float), 1.5)
    runs = [np.roll(x, 1) / x.std() + _ar1(rng, 300) for _ in range(12)]
    shared = {"responses": [x] * 12, "series": runs, "tr": 1.5}
    assert alignment.group_alignment(**shared).unlikely
    assert not alignment.group_alignment(**shared, expected=1.5).unlikely
    back = alignment.group_alignment(**shared, expected=3.0)
    assert back.unlikely
    assert "earlier" in back.message


def test_driven_series(rng):
    signal = _ar1(rng, 200)
    series = rng.standard_normal((200, 40))
    series[:, :8] += 2 * signal[:, None]
    series[:, 3] = np.nan
    drive = np.r_[np.ones(8), np.zeros(32)]
    found = alignment.driven_series(series, drive, n_parcels=7)
    assert np.corrcoef(found, signal)[0, 1] > 0.97
    few = alignment.driven_series(series[:, :2])
    z = (series[:, :2] - series[:, :2].mean(0)) / series[:, :2].std(0)
    np.testing.assert_allclose(few, z.mean(axis=1))
    with pytest.raises(NumericalError, match="No parcel"):
        alignment.driven_series(np.full((20, 2), np.nan))


@pytest.fixture(scope="module")
def slumlord(shared_data):
    """Word rate and responses at three latencies of a real story, on its grid."""
    path = shared_data / "narratives" / "gentle" / "slumlordreach" / "align.csv"
    words, _ = timing.fill_times(transcripts.parse(path.read_bytes(), path.name).words)
    words = timing.to_scan(words, 4.5)
    grid = TRGrid(20, 602, 1.5)
    counts = timing.word_counts(timing.place_words(words, grid).rows, grid.n_trs)
    speech = np.zeros(int(660 * 1.5 / FINE))
    for word in words:
        first = int(word.onset / FINE)
        last = max(int(word.offset / FINE), first + 1)
        speech[first:last] += 1.0 / (last - first)
    shape = alignment.double_gamma(np.arange(0, 32, FINE))
    response = fftconvolve(speech, shape)[: speech.size]
    volumes = (np.arange(602) + 20.5) * 1.5

    def person(rng, share):
        own = np.interp(volumes - 0.7 * rng.standard_normal(), np.arange(speech.size) * FINE,
                        response)
        return share * (own - own.mean()) / own.std() + _ar1(rng, 602)

    return alignment.convolve_response(counts.astype(float), 1.5), person


@pytest.mark.parametrize(("rows", "least"), [(0, 0), (1, 17), (-1, 17), (3, 20), (-3, 20)])
def test_onset_errors_in_narratives(slumlord, rows, least):
    """As slumlordreach in the paper: one TR off. 17 people, r about .37, 20 datasets."""
    regressor, person = slumlord
    flagged, named, lags = 0, 0, []
    for seed in range(20):
        rng = np.random.default_rng([7, seed])
        series = [person(rng, 0.4)[4:598] for _ in range(17)]
        shifted = regressor[4 + rows : 598 + rows]
        found = alignment.group_alignment([shifted] * 17, series, 1.5, n_bootstraps=200)
        flagged += found.unlikely
        lags.append(found.lag)
        named += found.unlikely and "about one TR" in found.message
    assert np.mean(lags) == pytest.approx(1.5 * rows, abs=0.4)
    assert flagged >= least
    if rows == 0:
        assert flagged <= 3
    if abs(rows) == 1:
        assert named >= 14


@pytest.fixture(scope="module")
def real(shared_data):
    """Mean series of the six regions of 18 people, cleaned by the app's own functions."""
    folder = shared_data / "alice"
    known = atlas.resolve_atlas(
        str(next(folder.glob("derivatives/atlas/*_dseg.nii.gz"))), SPACE
    )
    series = []
    for func in sorted(folder.glob("derivatives/fmriprep/sub-*/func")):
        (bold,) = func.glob("*desc-preproc_bold.nii.gz")
        (table,) = func.glob("*timeseries.tsv")
        image = images.load_run(bold, 2.0)
        chosen = confounds.select(table, table.with_suffix(".json"), "auto", image.n_volumes, 2.0)
        placed = atlas.to_grid(known, image.shape, image.affine)
        made = images.parcel_series(bold, placed.labels, 6, slice(0, 362), chosen.matrix)
        series.append(alignment.driven_series(made.series))
    (path,) = folder.glob("stimuli/*.TextGrid")
    words, _ = timing.fill_times(transcripts.parse(path.read_bytes(), path.name).words)

    def regressor(onset):
        placed = timing.place_words(timing.to_scan(words, onset), TRGrid(0, 362, 2.0))
        counts = timing.word_counts(placed.rows, 362).astype(float)
        return alignment.convolve_response(counts, 2.0)

    return series, regressor


def test_the_known_onset_of_alice_is_found(real):
    series, regressor = real
    assert len(series) == 18
    found = alignment.group_alignment([regressor(-20.0)] * 18, series, 2.0)
    assert abs(found.lag) < 1.0
    assert found.z > 5
    assert found.p < 0.005
    assert not found.unlikely
    assert found.low <= 0 <= found.high


@pytest.mark.parametrize("error", [-4.0, 4.0])
def test_an_error_of_four_seconds_in_alice_is_caught(real, error):
    series, regressor = real
    found = alignment.group_alignment([regressor(-20.0 + error)] * 18, series, 2.0)
    assert found.lag == pytest.approx(-error, abs=1.0)
    assert found.unlikely
    assert ("later" if error < 0 else "earlier") in found.message


def test_a_forgotten_offset_is_out_of_reach_and_said_so(real):
    """With an onset of 0 instead of -20 s the words come 20 s too late."""
    series, regressor = real
    found = alignment.group_alignment([regressor(0.0)] * 18, series, 2.0, longest=16.0)
    assert not abs(found.lag) < 3
    reach = alignment.group_alignment([regressor(0.0)] * 18, series, 2.0, longest=30.0)
    assert reach.lag == pytest.approx(-20.0, abs=1.5)
    assert reach.unlikely


def test_wrong_input_is_refused(rng):
    x = rng.standard_normal(100)
    with pytest.raises(NumericalError, match="expected finite values"):
        alignment.run_alignment(x, x[:-1], 2.0)
    with pytest.raises(NumericalError, match="too short for lags of up to 13"):
        alignment.run_alignment(x[:80], x[:80], 1.5)
    with pytest.raises(NumericalError, match="constant"):
        alignment.run_alignment(x, np.ones(100), 2.0)
    with pytest.raises(NumericalError, match="no runs"):
        alignment.group_alignment([], [], 2.0)
    with pytest.raises(NumericalError, match="positive TR"):
        alignment.convolve_response(x, 0.0)
