"""Every stimulus feature through the app: files, maps, and back as labelled arrays."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import small_alice
from scipy.stats import spearmanr

import bids_brainlm
from bids_brainlm import cli
from bids_brainlm.bidsio import write
from bids_brainlm.errors import MissingInputError
from bids_brainlm.simulate.models import write_tiny_model

pytestmark = pytest.mark.thorough

AUDIO_ONSET, TR, LOUD_ROW = -20.0, 2.0, 30
SPACES = ("embeddings", "transformations", "attention", "surprisal", "linguistic", "static",
          "acoustics", "position", "oasm", "stim-pulse")
STEADY = np.arange(100) / 7


def _write_audio(path):
    """Write noise that is loud during one volume only."""
    rng = np.random.default_rng(1)
    samples = rng.normal(size=220 * 8000) * 100
    first = int((LOUD_ROW * TR - AUDIO_ONSET) * 8000)
    samples[first : first + int(TR * 8000)] *= 50
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(8000)
        stream.writeframes(samples.clip(-32000, 32000).astype("<i2").tobytes())


def _write_stim(bids):
    """Write a recording of the dataset, ten samples a second, constant within each volume."""
    values = np.repeat(STEADY, 20)
    with gzip.open(bids / "task-alice_recording-pulse_stim.tsv.gz", "wt") as stream:
        stream.write("".join(f"{v:.6f}\n" for v in values))
    meta = {"Columns": ["pulse"], "SamplingFrequency": 10, "StartTime": 0}
    (bids / "task-alice_recording-pulse_stim.json").write_text(json.dumps(meta))


def _write_vectors(path):
    """Write GloVe vectors of a few words."""
    words = ["the", "alice", "was", "rabbit", "and", "she", "of", "to", "a", "it"]
    rng = np.random.default_rng(2)
    lines = [f"{w} " + " ".join(f"{v:.4f}" for v in rng.normal(size=5)) for w in words]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def run(alice, shared_data, tmp_path_factory):
    """Run the participant level with every feature space that one causal model allows."""
    folder = tmp_path_factory.mktemp("features")
    bids = small_alice.copy(alice, folder / "bids")
    _write_audio(bids / "stimuli" / "alice_audio.wav")
    _write_stim(bids)
    _write_vectors(folder / "tiny.vectors.txt")
    model = write_tiny_model(folder / "gpt", "gpt2", "the cat sat on the mat in the rabbit hole",
                             seed=3, n_heads=2, n_dims=16)
    flags = [
        "--model", f"tiny={model}", "--features", *SPACES, "--spacy-pipeline",
        str(shared_data / "spacy" / "en_brainlm_test_sm"), "--static-vectors",
        f"few={folder / 'tiny.vectors.txt'}", "--mel-bands", "8", "--context-trs", "3",
        "--bands", "silence", "counts", "--participant-label", "18", "--offline",
    ]
    with contextlib.chdir(folder):
        assert cli.main(small_alice.arguments(bids, folder / "out", *flags)) == 0
    return bids, folder / "out", flags


@pytest.fixture(scope="module")
def out(run):
    return run[1]


def _load(out, feature, **more):
    return bids_brainlm.load_features(out, "alice", feature, **more)


def test_every_space_has_maps(out):
    names = {p.name.split("_desc-")[1].split("_stat-")[0]
             for p in out.glob("sub-18/func/*desc-*_stat-r_boldmap.tsv")}
    assert names == {"nuisance", "tinyEmbeddings", "tinyTransformations", "tinyAttention",
                     "tinySurprisal", "linguistic", "fewStatic", "acoustics", "position", "oasm",
                     "stimPulse"}


def test_maps_of_attention_have_a_column_a_measure(out):
    path = next(out.glob("sub-18/func/*desc-tinyAttention_stat-r_boldmap.tsv"))
    columns = path.read_text().splitlines()[0].split("\t")
    assert columns[:2] == ["index", "name"]
    assert {"lookback", "entropy", "normInf"} <= set(columns)


def test_what_can_be_listed_can_be_loaded(out):
    found = bids_brainlm.list_features(out)
    assert {s.feature for s in found} >= {"embeddings", "transformations", "magnitudes",
                                          "attention", "surprisal", "static", "linguistic",
                                          "words", "nuisance", "acoustics", "position", "oasm"}
    for space in found:
        array = _load(out, space.feature, model=space.model)
        assert array.dims[0] == "tr"
        assert array.sizes["tr"] == 100
        assert array["time"].to_numpy()[LOUD_ROW] == LOUD_ROW * TR
        assert array.attrs["files"]
        assert array.attrs["key"]
        assert array.attrs["EmptyTRs"]


def test_dimensions_are_named(out):
    assert _load(out, "embeddings").dims == ("tr", "layer", "unit")
    assert _load(out, "embeddings")["layer"].values.tolist() == [0, 1, 2]
    heads = _load(out, "transformations")
    assert heads.dims == ("tr", "layer", "head", "dim")
    assert heads["layer"].values.tolist() == [1, 2]
    attention = _load(out, "attention")
    assert attention.dims == ("tr", "measure", "layer", "head")
    assert attention.sel(measure="lookahead").max() == 0  # a causal model
    norm = np.sqrt((heads.astype(float) ** 2).sum("dim", skipna=False))
    np.testing.assert_allclose(_load(out, "magnitudes"), norm, rtol=1e-4)


def test_silent_rows_are_missing_and_marked(out):
    silent = _load(out, "words").to_numpy()[:, 0] == 0
    assert 0 < silent.sum() < 100
    for feature in ("embeddings", "transformations", "attention", "surprisal"):
        values = _load(out, feature).to_numpy().reshape(100, -1)
        assert np.array_equal(np.isnan(values).all(axis=1), silent)
        assert np.array_equal(np.isnan(values).any(axis=1), silent)
    assert (_load(out, "linguistic").to_numpy()[silent] == 0).all()


def test_sound_is_loud_when_it_was_loud(out):
    """The audio file starts 20 s before the first volume."""
    rms = _load(out, "acoustics").sel(column="rms").to_numpy()
    assert int(np.nanargmax(rms)) == LOUD_ROW
    assert rms[LOUD_ROW] > 20 * np.nanmedian(rms)


def test_a_recording_of_the_dataset_lands_on_its_volumes(out):
    np.testing.assert_allclose(_load(out, "stimPulse").to_numpy()[:, 0], STEADY, atol=1e-5)


def test_words_and_their_surprisal(out):
    table = write.read_tsv(out / "stimuli/task-alice/task-alice_model-tiny_surprisal.tsv")
    rows = np.array([int(r) for r in table["row"]])
    bits = np.array([float(v) for v in table["surprisal"]])
    sums = _load(out, "surprisal").sel(column="surprisal").to_numpy()
    for row in (5, 40, 77):
        if (rows == row).any():
            assert sums[row] == pytest.approx(bits[rows == row].sum(), rel=1e-6)
    assert (bits > 0).all()


def test_linguistic_counts_are_those_of_the_tokens(out):
    table = write.read_tsv(out / "stimuli/task-alice/task-alice_tokens.tsv")
    counts = _load(out, "linguistic")
    assert counts.sizes["column"] == 39
    for label, key in (("nsubj", "dep"), ("VERB", "pos")):
        inside = [r for r, v in zip(table["row"], table[key], strict=True)
                  if v == label and r != "n/a"]
        wanted = np.bincount([int(r) for r in inside], minlength=100)
        np.testing.assert_array_equal(counts.sel(column=label), wanted)


def test_static_vectors_are_means_of_known_words(out):
    meta = write.read_json(next(out.glob("stimuli/task-alice/*desc-fewStatic_features.json")))
    assert 0 < meta["ShareOfWordsKnown"] < 1
    assert meta["UnknownWords"]
    assert meta["Model"]["Label"] == "few"


def test_every_stim_file_describes_every_column(out):
    for path in out.glob("*_stim.json"):
        meta = write.read_json(path)
        values = write.read_stim_tsv_gz(path.with_name(path.name.replace(".json", ".tsv.gz")))
        assert values.shape == (100, len(meta["Columns"]))
        if "recording-words" in path.name or "recording-nuisance" in path.name:
            continue
        assert all("Description" in meta[c] for c in meta["Columns"]), path.name


def test_the_comparison_of_representations_is_there(out):
    meta = write.read_json(
        out / "stimuli/task-alice/task-alice_model-tiny_representations.json")
    assert -1 <= meta["SpearmanLayersAsFeatures"] <= 1
    assert meta["NumberOfRows"] == int((_load(out, "words").to_numpy() > 0).sum())


def test_a_rerun_makes_nothing(run, capsys, monkeypatch):
    bids, out, flags = run
    monkeypatch.chdir(bids.parent)
    before = small_alice.stamps(out)
    assert cli.main(small_alice.arguments(bids, out, *flags)) == 0
    assert " 0 of " in capsys.readouterr().err
    assert small_alice.stamps(out) == before


def test_contexts_do_not_share_names_and_start_anew_at_folds(run, tmp_path, monkeypatch):
    bids, _, flags = run
    monkeypatch.chdir(bids.parent)
    out, level = tmp_path / "out", ["--features", "embeddings", "surprisal", "--trim", "4", "4"]
    arguments = small_alice.arguments(bids, out, *flags, *level, level="stimulus")
    growing = ["--context", "growing", "--context-tokens", "60", "30"]
    assert cli.main(arguments) == 0
    assert cli.main([*arguments, *growing]) == 0
    assert {s.model for s in bids_brainlm.list_features(out) if s.feature == "embeddings"} == {
        "tiny", "tinyGrowing"}
    stimuli = out / "stimuli" / "task-alice"
    grown = write.read_json(stimuli / "task-alice_model-tinyGrowing_features.json")
    assert grown["Model"]["Context"] == "growing"
    assert grown["MatrixProducts"] in ("torch", "oneDNN")
    assert grown["Model"]["ContextTokens"] == {"Limit": 60, "Kept": 30}
    assert grown["Model"]["ContextTRs"] is None
    before = _load(out, "embeddings", model="tiny")
    assert cli.main([*arguments, "--context-borders", "folds", "--overwrite"]) == 0
    after = _load(out, "embeddings", model="tiny")
    borders = write.read_json(stimuli / "task-alice_model-tiny_features.json")["ContextBorders"]
    assert len(borders) == 2  # three folds
    changed = np.abs(before - after).max(("layer", "unit")).to_numpy() > 0
    for border in borders:  # only rows whose window reached over the border
        changed[border : border + 3] = False
    assert not changed.any()


def test_estimated_phones_are_marked(run, tmp_path, monkeypatch):
    bids, _, flags = run
    monkeypatch.chdir(bids.parent)
    names = {"the": "DH AH0", "alice": "AE1 L AH0 S", "rabbit": "R AE1 B AH0 T", "was": "W AH1 Z"}
    (bids.parent / "few.dict").write_text("".join(f"{w}  {p}\n" for w, p in names.items()))
    arguments = small_alice.arguments(
        bids, tmp_path / "out", *flags, "--features", "position", "--bands", "silence", "counts",
        "phonemes", "--pronunciations", "few.dict")
    assert cli.main(arguments) == 0
    words = write.read_json(tmp_path / "out/stimuli/task-alice/task-alice_words.json")
    assert words["Phones"]["Source"] == "estimated"
    assert words["Phones"]["Dictionary"] == "few.dict"
    assert 0.05 < words["Phones"]["ShareOfWordsCovered"] < 0.5
    assert words["Phones"]["WordsNotInDictionary"]["and"] > 5
    assert any("pronouncing dictionary" in w for w in words["Warnings"])
    phones = _load(tmp_path / "out", "phonemes")
    assert phones.sizes["column"] == 41
    assert phones.sel(column="dh").sum() > 5
    path = next((tmp_path / "out").glob("sub-18/func/*desc-position_stat-r_boldmap.json"))
    bands = {b["Name"]: b for b in write.read_json(path)["Bands"]}
    assert bands["phonemes"]["PhonesEstimated"] is True


def test_bands_of_every_kind(run, tmp_path, monkeypatch):
    """Controls as nuisance bands: each has its own score, and the baseline is refitted."""
    bids, _, flags = run
    monkeypatch.chdir(bids.parent)
    out = tmp_path / "out"
    more = ["--features", "embeddings", "--bands", "silence", "counts", "position", "acoustics",
            "linguistic", "static", "oasm", "stim-pulse"]
    assert cli.main(small_alice.arguments(bids, out, *flags, *more)) == 0
    stats = {p.name.split("_stat-")[1].split("_")[0]
             for p in out.glob("sub-18/func/*desc-tinyEmbeddings_stat-*_boldmap.tsv")}
    assert {"rposition", "racoustics", "rlinguistic", "rstatic", "roasm", "rstimpulse"} <= stats
    meta = write.read_json(next(out.glob("sub-18/func/*desc-tinyEmbeddings_stat-r_boldmap.json")))
    assert [b["Name"] for b in meta["Bands"]] == [*more[3:], "model"]


@pytest.mark.parametrize(("flags", "code", "words"), [
    (["--features", "surprisal"], 64, "causal"),
    (["--context", "growing"], 64, "causal"),
    (["--features", "linguistic"], 66, "en_core_web_lg"),
    (["--features", "static", "--static-vectors", "no.txt"], 66, "no.txt"),
    (["--features", "acoustics"], 66, "alice_audio"),
    (["--features", "stim-nothing"], 66, "nothing"),
    (["--pronunciations", "no.dict"], 66, "no.dict"),
    (["--features", "embeddings", "embeddings"], 64, "repeats"),
    (["--features", "embedings"], 64, "Did you mean 'embeddings'"),
    (["--bands", "phones"], 64, "Did you mean 'phonemes'"),
])
def test_what_is_missing_is_said_before_any_work(small, tmp_path, capsys, flags, code, words):
    arguments = small_alice.arguments(small, tmp_path / "out", *flags)
    assert cli.main(arguments) == code
    text = capsys.readouterr().err
    assert words in text
    assert "What to do" in text
    assert not (tmp_path / "out").exists()


def test_a_pipeline_without_vectors_is_refused_before_any_work(small, shared_data, tmp_path,
                                                               capsys):
    pipeline = f"spacy:{shared_data / 'spacy' / 'en_brainlm_test_sm'}"
    flags = ["--features", "static", "--static-vectors", pipeline]
    assert cli.main(small_alice.arguments(small, tmp_path / "out", *flags)) == 64
    assert "no word vectors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_vectors_of_a_pipeline(quick, shared_data, tmp_path):
    """The real test pipeline, with vectors of a few words added."""
    import spacy

    nlp = spacy.load(shared_data / "spacy" / "en_brainlm_test_sm")
    nlp.vocab.reset_vectors(width=3)
    for number, word in enumerate(("the", "alice", "rabbit")):
        nlp.vocab.set_vector(word, np.full(3, number + 1.0, np.float32))
    nlp.to_disk(tmp_path / "withvectors")
    flags = ["--features", "static", "--static-vectors", f"few=spacy:{tmp_path / 'withvectors'}"]
    assert quick(*flags) == 0
    values = _load(quick.out, "static", model="few").to_numpy()
    assert values.shape == (100, 3)
    assert np.nanmax(values) <= 3
    assert np.isfinite(values).any()


def test_what_is_not_there_is_said(out):
    with pytest.raises(MissingInputError, match=r"no magnitude.*found the features"):
        _load(out, "magnitude")
    with pytest.raises(MissingInputError, match="found the stories alice"):
        bids_brainlm.load_features(out, "black")


def test_the_output_passes_the_validator(out):
    validator = pytest.importorskip("bids_validator_deno", reason="the extra 'test' brings it")
    assert validator
    command = [str(Path(sys.executable).with_name("bids-validator-deno")), str(out),
               "--ignoreNiftiHeaders", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [i for i in issues if i["severity"] == "error"] == []


def _changed(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


@pytest.fixture
def quick(run, tmp_path, monkeypatch):
    """Return a caller of the stimulus or participant level on a copy that a test may spoil."""
    bids, _, flags = run
    copied = tmp_path / "bids"
    shutil.copytree(bids, copied)
    monkeypatch.chdir(tmp_path)

    def call(*more, level="stimulus", out="out"):
        known = [*flags, *more] if level != "group" else list(more)
        arguments = small_alice.arguments(copied, tmp_path / out, *known, level=level)
        return cli.main(arguments)

    call.bids, call.out = copied, tmp_path / "out"
    return call


def test_every_input_of_a_control_is_in_its_key(quick, capsys):
    """The sidecar of a recording, and the middle of a large audio file."""
    assert quick("--features", "stim-pulse", "acoustics") == 0
    sidecar = quick.bids / "task-alice_recording-pulse_stim.json"
    _changed(sidecar, '"StartTime": 0', '"StartTime": 10')
    assert quick("--features", "stim-pulse", "acoustics") == 73
    assert "stim" in capsys.readouterr().err
    assert quick("--features", "stim-pulse", "acoustics", "--overwrite") == 0
    assert np.isnan(_load(quick.out, "stim-pulse").to_numpy()[:5, 0]).all()
    sound = quick.bids / "stimuli" / "alice_audio.wav"
    data = bytearray(sound.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40_000] = bytes(40_000)
    sound.write_bytes(bytes(data))
    assert quick("--features", "acoustics") == 73


def test_settings_that_do_not_matter_make_nothing_stale(quick, capsys):
    assert quick("--features", "embeddings", "position", "oasm") == 0
    capsys.readouterr()
    more = ["--mel-bands", "9", "--context-tokens", "99", "9", "--seed", "5"]
    assert quick("--features", "embeddings", "position", "oasm", *more) == 0
    assert " 0 of " in capsys.readouterr().err


def test_overwriting_leaves_nothing_of_the_other_settings(quick, run):
    (quick.bids.parent / "few.dict").write_text("the  DH AH0\n")
    phones = ["--bands", "silence", "counts", "phonemes", "--pronunciations", "few.dict"]
    assert quick("--features", "position", *phones) == 0
    assert any(s.feature == "phonemes" for s in bids_brainlm.list_features(quick.out))
    assert quick("--features", "position", "--overwrite") == 0
    assert not any(s.feature == "phonemes" for s in bids_brainlm.list_features(quick.out))


def test_a_gap_that_autocorrelation_crosses_is_told(quick):
    assert quick("--features", "oasm", "--gap", "10", level="participant") == 0
    path = next(quick.out.glob("sub-18/func/*desc-oasm_stat-r_boldmap.json"))
    warnings = " ".join(write.read_json(path)["Warnings"])
    assert "--gap 38" in warnings  # 2 x 8 + 3 TRs of 2 s


def test_a_shorter_run_has_other_folds_than_the_context(quick):
    """The context starts anew where the folds of the whole story begin: told where they differ."""
    image = small_alice.bold(quick.bids, "18")
    loaded = nib.load(image)
    nib.save(nib.Nifti1Image(np.asarray(loaded.dataobj)[..., :80], loaded.affine, loaded.header),
             image)
    table = small_alice.confounds(quick.bids, "18")
    table.write_text("\n".join(table.read_text().splitlines()[:81]) + "\n")
    flags = ["--features", "embeddings", "--context-borders", "folds", "--trim", "4", "4"]
    assert quick(*flags, level="participant") == 0
    path = next(quick.out.glob("sub-18/func/*desc-tinyEmbeddings_stat-r_boldmap.json"))
    assert "text crosses from training to test rows" in " ".join(write.read_json(path)["Warnings"])


def test_groups_do_not_mix_settings(quick, capsys):
    people = ["18", "22", "23"]
    for person, bands in zip(people, (["silence"], ["silence", "counts"], ["silence", "counts"]),
                             strict=True):
        assert quick("--features", "embeddings", "--bands", *bands, "--participant-label", person,
                     level="participant") == 0
    assert quick(level="group") == 65
    text = capsys.readouterr().err
    assert "sub-18" in text
    assert "bands" in text
    assert quick("--on-error", "continue", level="group") == 32
    path = next(quick.out.glob("group/*desc-tinyEmbeddings_stat-mean_boldmap.json"))
    meta = write.read_json(path)
    assert meta["Participants"] == ["22", "23"]


def test_a_model_of_an_unknown_family_gives_embeddings_and_says_so(quick, tmp_path, capsys):
    model = write_tiny_model(tmp_path / "bert", "bert", "the cat sat on the mat", seed=3)
    tokenizer = {p.name: p.read_bytes() for p in model.glob("*token*")}
    from transformers import XLNetConfig, XLNetModel

    config = XLNetConfig(vocab_size=200, d_model=16, n_layer=2, n_head=2, d_inner=32)
    XLNetModel(config).save_pretrained(tmp_path / "xlnet")
    for name, data in tokenizer.items():
        (tmp_path / "xlnet" / name).write_bytes(data)
    both = ["--model", f"odd={tmp_path / 'xlnet'}", "--features"]
    assert quick(*both, "transformations") == 64
    assert "xlnet cannot be read" in capsys.readouterr().err
    assert quick(*both, "embeddings", "transformations") == 0
    assert "Skipped odd transformations" in capsys.readouterr().err
    assert _load(quick.out, "embeddings").sizes["layer"] == 3
    meta = write.read_json(next(quick.out.glob("stimuli/*/*model-odd_features.json")))
    assert "only embeddings" in " ".join(meta["Warnings"])


def test_heads_are_maps_with_a_column_a_head(quick):
    assert quick("--features", "heads", level="participant") == 0
    func = quick.out / "sub-18" / "func"
    stats = {p.name.split("_stat-")[1].split("_")[0] for p in func.glob("*desc-tinyHeads*.tsv")}
    assert stats == {"r", "norm", "normexcess", "r2loss", "p", "q", "rthresholded"}
    columns = next(func.glob("*desc-tinyHeads_stat-r_*.tsv")).read_text().split("\n")[0]
    assert columns.split("\t") == ["index", "name", "L01H01", "L01H02", "L02H01", "L02H02"]


def test_groups_tell_preferred_layers(quick):
    """Four layers: profiles as maps, and the two spaces compared over participants."""
    flags = ["--model", "random:tiny-bert", "--participant-label", "18", "22", "23"]
    group = quick.out / "group"
    for spaces in (["transformations"], ["embeddings", "transformations"]):
        # a space that comes later is more of the same, not another setting
        assert quick(*flags, "--features", *spaces, level="participant") == 0
        assert quick("--n-permutations", "99", "--n-bootstraps", "99", level="group") == 0
    before = small_alice.stamps(quick.out)
    assert quick("--n-permutations", "99", "--n-bootstraps", "99", level="group") == 0
    assert small_alice.stamps(quick.out) == before
    assert "randomTinyBertLayers" in (quick.out / "descriptions.tsv").read_text("utf-8")
    for space in ("Embeddings", "Transformations"):
        mean = write.read_tsv(next(group.glob(f"*desc-randomTinyBert{space}_stat-mean_*.tsv")))
        path = next(group.glob(f"*desc-randomTinyBert{space}_stat-preferredlayer_boldmap.tsv"))
        found = write.read_tsv(path)
        for row, layer in enumerate(found["value"]):
            scores = [float(mean[f"layer{k:02d}"][row]) for k in (1, 2, 3, 4)]
            assert int(float(layer)) == 1 + int(np.argmax(scores))
    meta = write.read_json(path.with_suffix(".json"))
    assert meta["Comparison"]["preferred"]["NumberOfParticipants"] == 3
    assert 0 < meta["Comparison"]["specificity"]["P"] <= 1
    assert "Layer preference" in (quick.out / "group.html").read_text("utf-8")


def test_decoding_and_correspondence_over_heads(quick):
    """What heads decode is written for each head and label; groups compare it with scores."""
    flags = ["--features", "heads", "--decoding", "--decoding-permutations", "19", "--decoding-gap",
             "4", "--decoding-cv", "3", "--decoding-inner-cv", "2"]
    assert quick(*flags, "--participant-label", "18", "22", level="participant") == 0
    table = write.read_tsv(quick.out / "stimuli/task-alice/task-alice_model-tiny_decoding.tsv")
    assert len(table["label"]) == 4 * 39
    assert table["layer"][0::39] == ["1", "1", "2", "2"]
    assert table["head"][0::39] == ["1", "2", "1", "2"]
    meta = write.read_json(quick.out / "stimuli/task-alice/task-alice_model-tiny_decoding.json")
    classes = {c["Label"]: c for c in meta["Classes"]}
    assert classes["intj"]["NotDecoded"]
    presence = _load(quick.out, "linguisticPresence")
    assert classes["nsubj"]["NumberOfPositiveTRs"] == int(presence.sel(column="nsubj").sum())
    assert quick("--n-permutations", "99", "--n-bootstraps", "99", level="group") == 0
    group = quick.out / "group"
    rho = write.read_tsv(next(group.glob("*desc-tinyCorrespondence_stat-rho_boldmap.tsv")))
    mean = write.read_tsv(next(group.glob("*desc-tinyHeads_stat-mean_boldmap.tsv")))
    heads = [c for c in mean if c.startswith("L")]
    accuracy = [float(v) for v, label in zip(table["accuracy"], table["label"], strict=True)
                if label == "nsubj"]
    scores = [float(mean[head][0]) for head in heads]
    assert float(rho["nsubj"][0]) == pytest.approx(spearmanr(accuracy, scores).statistic, abs=1e-9)
    page = (quick.out / "group.html").read_text("utf-8")
    assert "What heads compute" in page
    assert "layer partialled out" in page


@pytest.mark.parametrize("flags", [
    ["--preset", "paper", "--n-iter", "2"],
    pytest.param(["--silence", "ffill"], marks=pytest.mark.slow),
    pytest.param(["--silence", "zero-unscaled"], marks=pytest.mark.slow),
    ["--voxelwise"],
])
def test_presets_voxels_and_silence_policies_run_to_the_group(quick, flags):
    people = ["--participant-label", "18", "22"]
    spaces = ["--features", "embeddings", "linguistic", "--bands", "silence", "counts"]
    assert quick(*spaces, *people, *flags, level="participant") == 0
    assert quick(*flags, level="group") == 0
    assert next(quick.out.glob("group/*desc-linguistic_stat-mean_boldmap.tsv")).is_file()
    assert "Linguistic features are counts" in (quick.out / "logs/CITATION.md").read_text("utf-8")


def test_level_aliases_and_underscores(quick):
    bids, out = quick.bids, quick.out
    common = small_alice.arguments(bids, out, "--participant_label", "18")
    common[2] = "subject"
    assert cli.main(common) == 0
    common[common.index("18")] = "22"
    assert cli.main(common) == 0
    assert cli.main([str(bids), str(out), "dataset", "--n-permutations", "100",
                     "--n-bootstraps", "100"]) == 0
