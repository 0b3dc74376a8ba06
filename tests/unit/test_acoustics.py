"""Acoustics on the TR grid, and the audio files they come from."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from bids_brainlm.bidsio import audio
from bids_brainlm.errors import DataError, MissingInputError, NumericalError
from bids_brainlm.numerics import acoustics as ac

few = settings(derandomize=True, max_examples=25, deadline=None)


def tone(hertz, seconds, rate, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def test_rms_of_a_sine_and_of_a_constant():
    rms, log_rms, covered = ac.rms_envelope(tone(200, 6, 16000), 16000, tr=1.5, n_trs=4)
    np.testing.assert_allclose(rms, 0.5 / np.sqrt(2), rtol=1e-12)
    np.testing.assert_allclose(log_rms, 20 * np.log10(0.5 / np.sqrt(2)), rtol=1e-12)
    np.testing.assert_array_equal(covered, 1)
    rms, _, _ = ac.rms_envelope(np.full(4410, 0.25, np.float32), 44100, tr=0.05, n_trs=2)
    np.testing.assert_allclose(rms, 0.25)


@pytest.mark.parametrize("hertz", [120, 440, 1000, 3150, 6500])
@pytest.mark.parametrize("rate", [16000, 22050, 44100])
def test_a_tone_lights_the_band_that_holds_it(hertz, rate):
    found = ac.acoustics(tone(hertz, 3, rate), rate, tr=1.0, n_trs=3)
    nearest = np.abs(ac.hertz_to_mel(found.centres) - ac.hertz_to_mel(hertz)).argmin()
    np.testing.assert_array_equal(found.log_mel.argmax(axis=1), nearest)
    mel = ac.hertz_to_mel(found.centres)
    far = (np.abs(mel - ac.hertz_to_mel(hertz)) > 3 * np.diff(mel)[0]) & (
        np.abs(found.centres - hertz) > 120
    )
    assert (found.log_mel[1][far] < found.log_mel[1].max() - 25).all()


def test_band_powers_add_up_to_the_mean_square(rng):
    found = ac.acoustics(tone(1000, 2, 16000), 16000, tr=1.0, n_trs=2, floor_db=-300)
    power = (10 ** (found.log_mel / 10)).sum(axis=1)
    np.testing.assert_allclose(power, 0.125, rtol=1e-4)
    noise = rng.standard_normal(16000 * 20) * 0.1  # white: the share between the centres
    found = ac.acoustics(noise, 16000, tr=20.0, n_trs=1)
    share = (found.centres[-1] - found.centres[0]) / 8000
    level = 10 * np.log10((10 ** (found.log_mel / 10)).sum())
    assert level == pytest.approx(10 * np.log10(0.01 * share), abs=1.5)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_filters_add_up_to_one_between_the_first_and_last_centre(rate):
    frequencies = np.linspace(0, rate / 2, 4001)
    centres, weights = ac.mel_filters(frequencies, ac.MelBands())
    inner = (frequencies >= centres[0]) & (frequencies <= centres[-1])
    np.testing.assert_allclose(weights.sum(axis=0)[inner], 1, atol=1e-12)
    outside = (frequencies <= 50) | (frequencies >= 8000)
    np.testing.assert_allclose(weights[:, outside], 0, atol=1e-9)
    assert centres.shape == (32,)
    assert np.ptp(np.diff(ac.hertz_to_mel(centres))) < 1e-9


def test_mel_scale_has_its_published_values():
    assert ac.hertz_to_mel(1000.0) == pytest.approx(999.99, abs=0.01)  # the point it is made for
    assert ac.hertz_to_mel(0.0) == 0
    frequencies = np.array([50.0, 440.0, 8000.0])
    np.testing.assert_allclose(ac.mel_to_hertz(ac.hertz_to_mel(frequencies)), frequencies)


def test_sampling_rate_does_not_matter():
    parts = {}
    for rate in (16000, 44100, 48000):
        sound = sum(tone(f, 3, rate, a) for f, a in ((150, 0.3), (900, 0.1), (4000, 0.02)))
        parts[rate] = ac.acoustics(sound, rate, tr=1.5, n_trs=2)
    for rate in (44100, 48000):
        np.testing.assert_allclose(parts[rate].rms, parts[16000].rms, rtol=1e-3)
        np.testing.assert_array_equal(parts[rate].centres, parts[16000].centres)
        # 25 ms are not a whole number of samples at 44.1 kHz: the flanks of a tone differ a bit
        for level, tolerance in ((-50, 0.3), (-25, 0.1)):
            heard = parts[16000].log_mel > level
            difference = np.abs(parts[rate].log_mel - parts[16000].log_mel)[heard]
            assert difference.size >= 4
            assert difference.max() < tolerance


def _by_scipy(samples, rate, tr, n_trs, first_time):
    """Average scipy's spectrogram in loops, with filters made anew."""
    length = round(0.025 * rate)
    frequencies, times, density = signal.spectrogram(
        samples,
        rate,
        window="hann",
        nperseg=length,
        noverlap=length - rate // 100,
        nfft=4 * length,
        detrend=False,
        mode="psd",
    )
    power = density * rate / (4 * length)
    points = [
        700 * (10 ** (m / 2595) - 1)
        for m in np.linspace(2595 * np.log10(1 + 50 / 700), 2595 * np.log10(1 + 8000 / 700), 34)
    ]
    result = np.full((n_trs, 32), np.nan)
    for row in range(n_trs):
        start = first_time + row * tr
        frames = [k for k, t in enumerate(times) if start <= t < start + tr]
        for band in range(32):
            weights = np.interp(frequencies, points[band : band + 3], [0, 1, 0])
            values = [10 * np.log10(max(1e-8, weights @ power[:, k])) for k in frames]
            if values:
                result[row, band] = np.mean(values)
    return result


def test_equals_the_spectrogram_of_scipy(rng):
    rate = 16000
    envelope = np.repeat(rng.uniform(0, 0.3, 40), rate // 8)
    samples = rng.standard_normal(envelope.size) * envelope
    samples[rate : 2 * rate] = 0
    found = ac.acoustics(samples, rate, tr=0.7, n_trs=9, first_time=-0.9)
    expected = _by_scipy(samples, rate, 0.7, 9, -0.9)
    np.testing.assert_allclose(found.log_mel, expected, atol=1e-8)
    assert np.isnan(expected[0]).all()
    assert found.valid.tolist() == [False] + [True] * 8


@pytest.mark.peer
@pytest.mark.slow  # importing librosa takes longer than all other tests here
@pytest.mark.filterwarnings("ignore")
def test_filters_equal_those_of_librosa():
    librosa = pytest.importorskip("librosa", reason="librosa is not installed")
    expected = librosa.filters.mel(
        sr=16000, n_fft=1600, n_mels=32, fmin=50, fmax=8000, htk=True, norm=None, dtype=np.float64
    )
    _, weights = ac.mel_filters(np.fft.rfftfreq(1600, 1 / 16000), ac.MelBands())
    np.testing.assert_allclose(weights, expected, atol=1e-10)


def test_a_shift_by_one_tr_moves_the_rows_by_one(rng):
    rate, tr = 22050, 2.0
    samples = rng.standard_normal(rate * 13) * np.repeat(rng.uniform(0, 0.5, 13), rate)
    here = ac.acoustics(samples, rate, tr=tr, n_trs=6, first_time=0.5)
    later = ac.acoustics(samples, rate, tr=tr, n_trs=6, first_time=0.5 - tr)
    for name in ("rms", "log_rms", "log_mel", "covered"):
        np.testing.assert_array_equal(getattr(later, name)[1:], getattr(here, name)[:-1])
    padded = np.concatenate([np.zeros(round(rate * tr)), samples])
    moved = ac.acoustics(padded, rate, tr=tr, n_trs=6, first_time=0.5)
    np.testing.assert_allclose(moved.rms[1:], here.rms[:-1], rtol=1e-12)
    np.testing.assert_allclose(moved.log_mel[2:], here.log_mel[1:-1], atol=1e-9)


@pytest.mark.parametrize(("rate", "tr"), [(44100, 1.5), (22050, 0.7), (16000, 0.72), (44100, 1.4)])
def test_a_click_on_a_border_belongs_to_the_row_that_begins_there(rate, tr):
    for row in (0, 1, 7, 113):
        samples = np.zeros(round(rate * tr * 115))
        samples[round(row * tr * rate)] = 1.0
        rms, _, _ = ac.rms_envelope(samples, rate, tr=tr, n_trs=115)
        np.testing.assert_array_equal(np.flatnonzero(rms), [row])
        if row:
            samples = np.roll(samples, -1)
            rms, _, _ = ac.rms_envelope(samples, rate, tr=tr, n_trs=115)
            np.testing.assert_array_equal(np.flatnonzero(rms), [row - 1])


def test_rows_without_audio_are_not_valid_and_half_covered_rows_use_what_is_there():
    rate = 16000
    samples = tone(400, 5, rate)  # 5 s of audio; rows of 2 s from -3 s to 9 s
    found = ac.acoustics(samples, rate, tr=2.0, n_trs=6, first_time=-3.0)
    np.testing.assert_allclose(found.covered, [0, 0.5, 1, 1, 0, 0])
    assert found.valid.tolist() == [False, True, True, True, False, False]
    assert np.isnan(found.rms[~found.valid]).all()
    assert np.isnan(found.log_rms[~found.valid]).all()
    assert np.isnan(found.log_mel[~found.valid]).all()
    np.testing.assert_allclose(found.rms[1:4], 0.5 / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(found.log_mel[1], found.log_mel[2], atol=0.3)
    partly = ac.acoustics(samples, rate, tr=2.0, n_trs=3, first_time=0.0)
    np.testing.assert_allclose(partly.covered, [1, 1, 0.5])
    assert partly.valid.all()


def test_a_row_with_less_than_a_frame_has_loudness_only():
    found = ac.acoustics(tone(400, 2.005, 16000), 16000, tr=2.0, n_trs=2)
    assert found.covered[1] == pytest.approx(0.0025)
    assert np.isfinite(found.rms).all()
    assert found.valid.tolist() == [True, False]


def test_digital_silence_is_at_the_floor():
    found = ac.acoustics(np.zeros(32000, np.float32), 16000, tr=1.0, n_trs=2)
    assert (found.rms == 0).all()
    assert (found.log_rms == -80).all()
    assert (found.log_mel == -80).all()
    assert found.valid.all()
    lower = ac.acoustics(np.zeros(32000), 16000, tr=1.0, n_trs=2, floor_db=-120)
    assert (lower.log_mel == -120).all()


def test_low_rates_leave_out_the_bands_they_cannot_hold():
    rate = 8000
    found = ac.acoustics(tone(440, 2, rate), rate, tr=1.0, n_trs=2)
    full = ac.acoustics(tone(440, 2, 16000), 16000, tr=1.0, n_trs=2)
    n_kept = len(found.centres)
    assert 20 < n_kept < 32
    np.testing.assert_array_equal(found.centres, full.centres[:n_kept])
    heard = full.log_mel[0] > -60
    np.testing.assert_allclose(found.log_mel[0][heard[:n_kept]], full.log_mel[0][heard], atol=0.2)


@few
@given(
    st.lists(st.integers(0, 9000), max_size=4),
    st.sampled_from([16000, 22050, 11025]),
    st.floats(-1.5, 1.5),
)
def test_blocks_of_any_length_give_the_same(cuts, rate, first_time):
    samples = np.random.default_rng(3).standard_normal(9000)
    whole = ac.acoustics(samples, rate, tr=0.2, n_trs=5, first_time=first_time)
    blocks = iter(np.split(samples, sorted(cuts)))
    pieces = ac.acoustics(blocks, rate, tr=0.2, n_trs=5, first_time=first_time)
    for name in ("rms", "log_mel", "covered", "valid"):
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-9)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((10, 2)), "one channel"),
        (np.zeros(10, np.int16), "int16"),
        (np.array([0.0, np.nan]), "NaN"),
    ],
)
def test_wrong_samples(samples, message):
    with pytest.raises(NumericalError, match=message):
        ac.acoustics(samples, 16000, tr=1.0, n_trs=1)


def test_wrong_settings():
    samples = np.zeros(100)
    for arguments in (
        {"tr": 0.0, "n_trs": 3},
        {"tr": 1.0, "n_trs": 0},
        {"tr": 1.0, "n_trs": 1, "first_time": np.nan},
    ):
        with pytest.raises(NumericalError, match="expected at least 1 row"):
            ac.rms_envelope(samples, 16000, **arguments)
    for bands in (ac.MelBands(0), ac.MelBands(3, 500, 400)):
        with pytest.raises(NumericalError, match="mel bands"):
            ac.acoustics(samples, 16000, tr=1.0, n_trs=1, bands=bands)
    with pytest.raises(NumericalError, match="do not fit"):
        ac.acoustics(samples, 16000, tr=1.0, n_trs=1, bands=ac.MelBands(500))
    with pytest.raises(NumericalError, match="do not fit"):
        ac.acoustics(samples, 150, tr=1.0, n_trs=1)


# Audio files


@pytest.fixture
def soundfile():
    return pytest.importorskip("soundfile", reason="soundfile is not installed")


@pytest.mark.parametrize(
    ("name", "kind", "tolerance"),
    [
        ("a.wav", {"subtype": "PCM_16"}, 4e-5),
        ("a.wav", {"subtype": "FLOAT"}, 1e-7),
        ("a.flac", {"subtype": "PCM_24"}, 1e-6),
        ("a.ogg", {"format": "OGG", "subtype": "VORBIS"}, 0.05),
    ],
)
def test_reads_formats_and_averages_channels(soundfile, tmp_path, name, kind, tolerance):
    rate = 22050
    stereo = np.column_stack([tone(300, 13, rate, 0.4), tone(300, 13, rate, 0.2)])
    soundfile.write(tmp_path / name, stereo, rate, **kind)
    samples, found = audio.read_audio(tmp_path / name)
    assert (found, samples.dtype, samples.ndim) == (rate, np.float32, 1)
    np.testing.assert_allclose(samples, stereo.mean(axis=1), atol=tolerance)
    blocks = list(audio.audio_blocks(tmp_path / name))
    assert len(blocks) > 1
    np.testing.assert_array_equal(np.concatenate(blocks), samples)
    info = audio.audio_info(tmp_path / name)
    assert (info.rate, info.n_channels, info.duration) == (rate, 2, 13.0)


def test_a_file_gives_the_acoustics_of_its_samples(soundfile, tmp_path):
    samples = tone(700, 14, 22050).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 22050, subtype="FLOAT")
    rate = audio.audio_info(tmp_path / "a.wav").rate
    found = ac.acoustics(audio.audio_blocks(tmp_path / "a.wav"), rate, tr=2.0, n_trs=8)
    expected = ac.acoustics(samples, 22050, tr=2.0, n_trs=8)
    np.testing.assert_allclose(found.log_mel, expected.log_mel, atol=1e-9)
    assert found.valid.sum() == 7


def test_nan_samples_are_named_with_their_time(soundfile, tmp_path):
    samples = np.zeros((44100, 2), np.float32)
    samples[22050, 1] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
    with pytest.raises(DataError, match=r"first at 0\.500 s"):
        audio.read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize(("rate", "n"), [(500, 100), (1_000_000, 100), (16000, 0)])
def test_absurd_headers(soundfile, tmp_path, rate, n):
    soundfile.write(tmp_path / "a.wav", np.zeros(n), rate)
    with pytest.raises(DataError, match=r"Hz, expected|no samples"):
        audio.read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("extension", ["wav", "flac"])
def test_cut_files_are_refused(soundfile, tmp_path, extension, rng):
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, rng.uniform(-0.5, 0.5, 50000), 16000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"ends early|damaged|the header states") as error:
        audio.read_audio(path)
    assert "Get the file again" in error.value.hint


def test_a_streamed_wav_without_a_length_is_read(soundfile, tmp_path):
    """Programs that write WAV to a pipe state the largest length there is."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(100, 1, 16000), 16000)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff\xff\xff\xff"
    content[4:8] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(content))
    assert len(audio.read_audio(path)[0]) == 16000


def test_a_cut_mp3_is_taken_with_a_warning(soundfile, tmp_path, rng, caplog):
    path = tmp_path / "a.mp3"
    soundfile.write(path, rng.uniform(-0.5, 0.5, 160000), 16000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        samples, _ = audio.read_audio(path)
    assert 40000 < len(samples) < 100000
    assert "the header states 10.000 s" in caplog.text


@pytest.mark.parametrize("content", [b"hello " * 300, b"RIFF\x00\x00\x00\x00WAVE"])
def test_files_that_are_no_audio(soundfile, tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match="expected an audio file"):
        audio.read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("kind", ["IRCAM", "SVX", "NIST", "PAF", "MAT4", "PVF", "CAF", "VOC"])
def test_formats_under_another_name_do_not_reach_the_library(soundfile, tmp_path, kind):
    """The library looks at the content and has old readers with known holes."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(100, 1, 16000), 16000, format=kind, subtype="PCM_16")
    assert soundfile.info(path).format == kind
    with pytest.raises(DataError, match="expected an audio file"):
        audio.audio_info(path)


@pytest.mark.parametrize("kind", ["WAV", "RF64", "AIFF", "AU", "W64", "FLAC", "OGG", "MP3"])
def test_every_known_format_is_let_through(soundfile, tmp_path, kind):
    path = tmp_path / "a.wav"
    order = {"WAV": ("LITTLE", "BIG"), "AU": ("LITTLE", "BIG")}.get(kind, ("FILE",))
    for endian in order:
        soundfile.write(path, tone(100, 1, 16000), 16000, format=kind, endian=endian)
        assert audio.audio_info(path).rate == 16000


def test_absent_content_tells_how_to_get_it(tmp_path):
    link = tmp_path / "a.wav"
    link.symlink_to("../.git/annex/objects/xx/a.wav")
    (tmp_path / "b.wav").write_bytes(b"")
    (tmp_path / "c.wav").write_bytes(b"/annex/objects/MD5E-s1--00.wav\n")
    for name in "abc":
        path = tmp_path / f"{name}.wav"
        with pytest.raises(MissingInputError) as error:
            audio.read_audio(path)
        assert f"datalad get {path}" in error.value.hint
    with pytest.raises(MissingInputError, match="does not exist"):
        audio.read_audio(tmp_path / "d.wav")


def test_without_soundfile(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(MissingInputError) as error:
        audio.read_audio(tmp_path / "a.wav")
    assert "pip install soundfile" in error.value.hint


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_finds_audio_in_the_documented_order(tmp_path):
    names = [
        "stimuli/black_audio.wav",
        "stimuli/black_audio.flac",
        "stimuli/black.MP3",
        "black_audio.wav",
    ]
    _touch(tmp_path, *names)
    for name in names:
        found = audio.find_audio(tmp_path, "black_audio.wav")
        assert (found.path, found.present) == (tmp_path / name, True)
        found.path.unlink()
    missing = audio.find_audio(tmp_path, "black_audio.wav")
    assert missing.path is None
    assert missing.looked_for[0] == "stimuli/black_audio.wav"


def test_finds_the_sound_of_a_film_names_with_dots_and_plain_folders(tmp_path):
    _touch(tmp_path, "film.wav", "story.v2.flac", "story.wav", "deep/er.wav", "filmstrip.wav")
    _touch(tmp_path, "black_audio.wav")
    for name, expected in (
        ("black", "black_audio.wav"),
        ("film.mp4", "film.wav"),
        ("story.v2", "story.v2.flac"),
        ("deep/er.wav", "deep/er.wav"),
        ("story", "story.wav"),
    ):
        assert audio.find_audio(tmp_path, name).path == tmp_path / expected
    assert audio.find_audio(tmp_path, "fil").path is None
    assert audio.find_audio(tmp_path, " ").path is None


def test_content_is_taken_before_a_link_and_a_link_before_nothing(tmp_path):
    (tmp_path / "a_audio.wav").symlink_to("nowhere")
    found = audio.find_audio(tmp_path, "a_audio.wav")
    assert (found.path, found.present) == (tmp_path / "a_audio.wav", False)
    _touch(tmp_path, "a.flac")
    assert audio.find_audio(tmp_path, "a_audio.wav").path == tmp_path / "a.flac"


def test_names_that_lead_out_of_the_folder_are_not_followed(tmp_path):
    _touch(tmp_path, "secret.wav", "data/x.txt")
    for name in ("../secret.wav", "../../secret.wav", str(tmp_path / "secret.wav")):
        assert audio.find_audio(tmp_path / "data", name).path is None
