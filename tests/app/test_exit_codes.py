"""Every exit code of the contract, the words that come with it, and what is left behind."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import small_alice
from small_alice import arguments, bold, confounds, events, leftovers, start, tree

from bids_brainlm import cli
from bids_brainlm.steps import parcels, words


def _words_of(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


def _refused(
    capsys: pytest.CaptureFixture[str], argv: list[str], code: int, *expected: str
) -> str:
    """Run, and check the code, the parts of the message, and that it ends with an action."""
    assert cli.main(argv) == code
    text = _words_of(capsys)
    error = text[text.index("Error: ") :]
    for part in expected:
        assert part in error
    assert "\nWhat to do: " in error
    return error


def test_0_and_silence_on_stdout(done, capsys):
    bids, out = done
    assert cli.main(arguments(bids, out)) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "0 of 11 units to make" in shown.err
    assert cli.main(["--version"]) == 0
    assert cli.main(["-v"]) == 0
    versions = capsys.readouterr().out.split("\n")
    assert versions[0] == versions[1]
    assert versions[0].startswith("bids_brainlm ")
    assert cli.main(["--help"]) == 0


def test_1_is_a_bug_with_a_traceback_in_the_log(small, tmp_path, capsys, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("planted bug")

    monkeypatch.setattr(words, "_story", broken)
    assert cli.main(arguments(small, tmp_path / "out")) == 1
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "planted bug" in text
    assert "bug of bids_brainlm" in text
    logs = list((tmp_path / "out" / "logs").glob("*.log"))
    assert any("planted bug" in log.read_text("utf-8") for log in logs)
    assert str(logs[0]) in text
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("spoil", "words_of_it"),
    [
        (lambda p: p.unlink(), "expected dataset_description.json, found none"),
        (lambda p: p.write_text("{broken"), "expected JSON"),
        (lambda p: p.write_text("[]"), "expected a JSON object, found list"),
        (lambda p: p.write_text('{"Name": "x"}'), "found no BIDSVersion"),
        (lambda p: p.write_bytes(b"\xff\xfe\x00"), "expected JSON"),
    ],
)
def test_16_not_a_bids_dataset(small, tmp_path, capsys, spoil, words_of_it):
    spoil(small / "dataset_description.json")
    error = _refused(capsys, arguments(small, tmp_path / "out"), 16, words_of_it)
    assert "dataset_description.json" in error
    assert not (tmp_path / "out").exists()


def test_16_no_folder(tmp_path, capsys):
    _refused(capsys, [str(tmp_path / "no"), str(tmp_path / "out"), "participant"], 16, "no such")


def test_17_level(small, tmp_path, capsys):
    for level, close in (("particpant", "'participant'"), ("x", "participant or group")):
        _refused(capsys, [str(small), str(tmp_path / "out"), level], 17, level, close)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--participant-label", "19"], "--participant-label 19"),
        (["--participant-label", "1"], "3 participants"),
        (["--task-label", "alic"], "Did you mean 'alice'?"),
        (["--run-label", "2"], "select no run"),
        (["--session-label", "a"], "select no run"),
        (["--stimulus-onset", "alise=3"], "Did you mean 'alice'?"),
    ],
)
def test_18_filters(small, tmp_path, capsys, flags, expected):
    _refused(capsys, arguments(small, tmp_path / "out", *flags), 18, expected)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--delay", "3"], "Did you mean '--delays'?"),
        (["--delays", "-1"], "--delays"),
        (["--cv", "1"], "at least 2 folds"),
        (["--alphas", "0"], "expected a penalty > 0"),
        (["--n-iter", "x"], "a whole number >= 1"),
        (["--gap", "nan"], "a finite number"),
        (["--fdr", "1.5"], "between 0 and 1"),
        (["--features", "embedings"], "Did you mean 'embeddings'?"),
        (["--preset", "papre"], "Did you mean 'paper'?"),
        (["--stimulus-onset", "alice"], "STORY=SECONDS"),
        (["--trim", "1"], "expected 2"),
        (["--model", "a=random:tiny-bert", "a=random:bert"], "two models are called"),
        (["--layers", "9", "--features", "embeddings"], "from 0 to 4"),
    ],
)
def test_64_usage(small, tmp_path, capsys, flags, expected):
    argv = arguments(small, tmp_path / "out", *flags)
    _refused(capsys, argv, 64, expected)
    if "--layers" not in flags:
        assert not (tmp_path / "out").exists()


def test_64_settings_file(small, tmp_path, capsys):
    file = tmp_path / "s.toml"
    for content, expected in (
        ("[encoding]\ndelay = [1]", "Did you mean 'delays'?"),
        ("[encodin]\ncv = 3", "Did you mean 'encoding'?"),
        ("cv = 3", "unknown section"),
        ("[encoding\n", "cannot be read as TOML"),
        ("[encoding]\ncv = 2.5", "a whole number"),
        ("[execution]\noffline = 1", "true or false"),
    ):
        file.write_text(content)
        _refused(
            capsys, arguments(small, tmp_path / "out", "--config-file", str(file)), 64,
            expected, "s.toml",
        )
    _refused(capsys, arguments(small, tmp_path / "out", "--config-file", "none.toml"), 66, "none")


def test_64_output_is_input(small, capsys):
    _refused(capsys, arguments(small, small), 64, "is or contains BIDS_DIR", "derivatives")
    _refused(capsys, arguments(small, small.parent), 64, "is or contains BIDS_DIR")


def _without(path: Path, column: str) -> None:
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
    drop = rows[0].index(column)
    text = "\n".join("\t".join(c for k, c in enumerate(r) if k != drop) for r in rows)
    path.write_text(text + "\n", "utf-8")


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def _nan_cell(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    cells = lines[7].split("\t")
    cells[2] = "n/a"
    lines[7] = "\t".join(cells)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-900])


def _flat(path: Path) -> None:
    image = nibabel.load(path)
    data = np.asarray(image.dataobj)[..., 0]
    nibabel.save(nibabel.Nifti1Image(data, image.affine), path)


def _fill(path: Path, value: float) -> None:
    image = nibabel.load(path)
    data = np.full(image.shape, value, np.float32)
    nibabel.save(nibabel.Nifti1Image(data, image.affine, image.header), path)


WRONG_DATA = {
    "events without onset": (
        lambda b: _without(events(b, "18"), "onset"), 65, ["onset", "events.tsv"]),
    "events with text for a time": (
        lambda b: _replace(events(b, "18"), "-20.0", "early"), 65, ["line 2", "'early'"]),
    "event without length": (
        lambda b: _replace(events(b, "18"), "220", "0"), 65, ["duration of 0 s"]),
    "events beyond the run": (
        lambda b: _replace(events(b, "18"), "-20.0", "900"), 65, ["s"]),
    "TR mismatch": (
        lambda b: _replace(b / "sub-18" / "func" / "sub-18_task-alice_bold.json", "2", "3"),
        65, ["TR is 3", "expected 2 s"]),
    "no TR": (
        lambda b: (b / "sub-18" / "func" / "sub-18_task-alice_bold.json").write_text("{}"),
        65, ["RepetitionTime"]),
    "confounds: wrong rows": (
        lambda b: confounds(b, "18").write_text(
            "\n".join(confounds(b, "18").read_text("utf-8").splitlines()[:300]) + "\n"),
        65, ["found 299 rows", "362 volumes"]),
    "confounds: NaN": (
        lambda b: _nan_cell(confounds(b, "18")), 65, ["line 8", "not finite", "--denoise none"]),
    "confounds: no motion": (
        lambda b: _without(confounds(b, "18"), "rot_y"), 65, ["found no rot_y"]),
    "image: truncated": (lambda b: _truncate(bold(b, "18")), 65, ["damaged", "bold.nii.gz"]),
    "image: not gzip": (lambda b: bold(b, "18").write_bytes(b"x" * 4000), 65, ["bold.nii.gz"]),
    "image: 3-D": (lambda b: _flat(bold(b, "18")), 65, ["found the shape (3, 2, 1)"]),
    "image: all NaN": (lambda b: _fill(bold(b, "18"), np.nan), 65, ["empty", "sub-18"]),
    "image: constant": (lambda b: _fill(bold(b, "18"), 5.0), 65, ["empty", "sub-18"]),
    "image: no content": (
        lambda b: (bold(b, "18").unlink(), bold(b, "18").symlink_to(b / "gone"))[0], 66,
        ["datalad get", "bold.nii.gz"]),
    "image: missing": (lambda b: bold(b, "18").unlink(), 66, ["sub-18"]),
    "confounds: missing": (
        lambda b: confounds(b, "18").unlink(), 66, ["no confounds table", "--denoise none"]),
}


@pytest.mark.parametrize("name", WRONG_DATA)
def test_65_and_66_wrong_data_of_one_participant(done, capsys, name):
    """Asked for by name, a participant with wrong data ends the call with the data's code."""
    bids, out = done
    spoil, code, expected = WRONG_DATA[name]
    spoil(bids)
    before = tree(out)
    error = _refused(
        capsys, arguments(bids, out, "--participant-label", "18", "--overwrite"), code, *expected
    )
    assert str(bids) in error or "sub-18" in error
    assert leftovers(out) == []
    after = tree(out)
    others = [k for k in before if "sub-18" not in k]
    assert {k: after.get(k) for k in others} == {k: before[k] for k in others}


def _other_words(path: Path) -> None:
    path.unlink()
    rows = "".join(f"{2000 + k}\t0.5\tword\n" for k in range(50))
    (path.parent / "alice_audio.tsv").write_text("onset\tduration\tword\n" + rows, "utf-8")


WRONG_TEXT = {
    "empty": (lambda p: p.write_text(""), 66),
    "blank": (lambda p: p.write_text(" \n"), 65),
    "binary": (lambda p: p.write_bytes(bytes(range(256)) * 20), 65),
    "other text": (lambda p: p.write_text("Once upon a time\n" * 20), 65),
    "all words outside": (_other_words, 65),
    "missing": (lambda p: p.unlink(), 66),
    "no content": (lambda p: (p.unlink(), p.symlink_to("gone"))[0], 66),
}


@pytest.mark.parametrize("name", WRONG_TEXT)
def test_65_and_66_transcript(small, tmp_path, capsys, name):
    spoil, code = WRONG_TEXT[name]
    spoil(small / "stimuli" / "alice_audio.TextGrid")
    error = _refused(capsys, arguments(small, tmp_path / "out"), code, "alice", "--transcripts"
                     if name != "all words outside" else "--stimulus-onset")
    if name == "all words outside":
        assert "none of 50 words" in error
        assert "window" in error
    assert leftovers(tmp_path) == []
    assert not list(tmp_path.glob("out/stimuli/*/*.tsv"))


def test_65_too_few_rows(small, tmp_path, capsys):
    error = _refused(
        capsys, arguments(small, tmp_path / "out", "--trim", "45", "45"), 65, "rows", "--cv"
    )
    assert "100 volumes" in error


def test_65_and_66_atlas(small, tmp_path, capsys):
    out = tmp_path / "out"
    image = small_alice.atlas(small)
    _refused(capsys, arguments(small, out, "--atlas", str(image.with_name("no.nii.gz"))), 66,
             "no.nii.gz")
    _refused(capsys, arguments(small, out, "--atlas", "Schaefer2018_4Parcels", "--offline"), 66,
             "Schaefer2018_4Parcels")
    assert not out.exists()
    loaded = nibabel.load(image)
    far = loaded.affine.copy()
    far[:3, 3] += 900
    other = tmp_path / "atlas-Far_dseg.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.asarray(loaded.dataobj), far), other)
    shutil.copy(str(image).replace(".nii.gz", ".tsv"), str(other).replace(".nii.gz", ".tsv"))
    error = _refused(capsys, arguments(small, out, "--atlas", str(other)), 65, "Far")
    assert "overlap" in error or "empty" in error
    table = Path(str(image).replace(".nii.gz", ".tsv"))
    lines = table.read_text("utf-8").splitlines()
    table.write_text("\n".join(lines[:-2]) + "\n", "utf-8")
    _refused(capsys, arguments(small, tmp_path / "out2"), 65, "dseg")
    assert not (tmp_path / "out2").exists()


def test_66_model_folders(small, tmp_path, capsys):
    out = tmp_path / "out"
    _refused(capsys, arguments(small, out, "--model", str(tmp_path / "no" / "model")), 66, "model")
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 2}))
    _refused(capsys, arguments(small, out, "--model", str(folder)), 66, "weights", "safetensors")
    assert not out.exists()
    _refused(
        capsys, arguments(small, out, "--model", "some-org/not-here", "--offline"), 66, "not-here"
    )


def test_65_damaged_weights(small, minilm, tmp_path, capsys):
    folder = tmp_path / "weights"
    shutil.copytree(minilm, folder)
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: 10**6])
    code = cli.main(arguments(small, tmp_path / "out", "--model", str(folder)))
    error = _words_of(capsys)
    assert code in (65, 66)
    assert str(folder) in error
    assert "What to do: " in error


def test_66_group_without_participants(tmp_path, small, capsys):
    _refused(capsys, arguments(small, tmp_path / "out", level="group"), 66, "no results of part")


def test_73_output_cannot_be_created(small, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    _refused(capsys, arguments(small, tmp_path / "file"), 73, "file")
    _refused(capsys, arguments(small, tmp_path / "file" / "below"), 73, "cannot be created")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_73_read_only_folder(small, tmp_path, capsys):
    (tmp_path / "out").mkdir(mode=0o500)
    _refused(capsys, arguments(small, tmp_path / "out"), 73, "cannot be written")


def test_73_other_tool(small, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    text = json.dumps({"Name": "x", "BIDSVersion": "1.9.0", "GeneratedBy": [{"Name": "fMRIPrep"}]})
    (out / "dataset_description.json").write_text(text)
    _refused(capsys, arguments(small, out), 73, "made by fMRIPrep", "bids_brainlm")
    assert list(tree(out)) == ["dataset_description.json"]


def test_73_a_folder_in_the_place_of_a_file(small, tmp_path, capsys):
    target = tmp_path / "out" / "stimuli" / "task-alice" / "task-alice_words.tsv"
    target.mkdir(parents=True)
    code = cli.main(arguments(small, tmp_path / "out"))
    error = _words_of(capsys)
    assert code in (73, 74)
    assert "task-alice_words.tsv" in error
    assert leftovers(tmp_path) == []


def _limited(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize(
    ("size", "culprit"),
    [
        (20_000, "task-alice_words.tsv"),
        pytest.param(100_000, "features.nc", marks=pytest.mark.slow),
        pytest.param(150_000, "sub-18.html", marks=pytest.mark.slow),
    ],
)
def test_74_a_full_disk_leaves_nothing_half_written(small, made, tmp_path, size, culprit):
    """No file can grow beyond a size, as on a disk that fills up."""
    out = tmp_path / "out"
    run = subprocess.run(
        small_alice.command(*arguments(small, out)), capture_output=True, text=True, check=False,
        env=small_alice.environment(), preexec_fn=lambda: _limited(size),
    )
    assert run.returncode == 74, run.stderr
    assert "Traceback" not in run.stderr
    assert f"{culprit} cannot be written: File too large" in run.stderr
    assert "What to do: Check free disk space" in run.stderr
    assert leftovers(out) == []
    reference = tree(made)
    assert {k: v for k, v in tree(out).items() if k in reference and reference[k] != v and
            k != "descriptions.tsv"} == {}
    assert cli.main(arguments(small, out)) == 0
    assert tree(out) == reference


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_74_on_a_real_full_disk(small, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(disk)],
        capture_output=True, check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here; the test above stands in for it")
    try:
        run = subprocess.run(
            small_alice.command(*arguments(small, disk / "out")), capture_output=True,
            text=True, check=False, env=small_alice.environment(),
        )
        assert run.returncode in (73, 74), run.stderr
        assert "No space left" in run.stderr
        assert "Traceback" not in run.stderr
        assert leftovers(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_32_one_of_three_fails(done, tmp_path, capsys):
    bids, made = done
    _truncate(bold(bids, "22"))
    out = tmp_path / "new"
    assert cli.main(arguments(bids, out, "--on-error", "continue")) == 32
    error = _words_of(capsys)
    assert "1 failed (22), 2 participants are done" in error
    assert "damaged" in error
    reference, found = tree(made), tree(out)
    for name in reference:
        if name.startswith(("sub-18/func", "sub-23/func", "stimuli", "task-")):
            assert found.get(name) == reference[name], name
    assert not any(n.startswith("sub-22/func") and "boldmap" in n for n in found)
    page = (out / "sub-22.html").read_text("utf-8")
    assert "damaged" in page
    assert "damaged" not in (out / "sub-18.html").read_text("utf-8")
    # the group level goes on without, when told to
    assert cli.main(arguments(bids, out, level="group")) == 0
    # mended, the same command makes what is missing and nothing else
    shutil.copy(bold(Path(str(bids)), "18"), bold(bids, "22"))
    capsys.readouterr()
    assert cli.main(arguments(bids, out)) == 0
    assert "3 of 11 units to make" in _words_of(capsys)


def test_stop_ends_with_the_code_of_the_data(done, tmp_path, capsys):
    bids, _ = done
    _truncate(bold(bids, "22"))
    _refused(capsys, arguments(bids, tmp_path / "new", "--on-error", "stop"), 65, "damaged")


def test_32_group_with_missing_maps(done, capsys):
    bids, out = done
    for path in (out / "sub-22" / "func").glob("*desc-randomTinyBertMagnitudes*"):
        path.unlink()
    _refused(capsys, arguments(bids, out, level="group"), 66, "22", "--on-error continue")
    assert not (out / "group").exists()
    assert cli.main(arguments(bids, out, "--on-error", "continue", level="group")) == 32
    assert "sub-22" in _words_of(capsys)
    page = (out / "group.html").read_text("utf-8")
    assert "sub-22" in page


def test_failing_story_with_continue_is_no_success(small, tmp_path, capsys, monkeypatch):
    """What all participants need and cannot have is nobody's partial success."""
    _other_words(small / "stimuli" / "alice_audio.TextGrid")
    _refused(capsys, arguments(small, tmp_path / "out", "--on-error", "continue"), 65, "none of 50")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "moment", [pytest.param("features:", marks=pytest.mark.slow), "encoding:"]
)
def test_130_interrupted(small, tmp_path, signum, moment):
    """The process leaves within seconds, without a rest, and the next run goes on."""
    out = tmp_path / "out"
    run = start(*arguments(small, out, "--n-iter", "3000", "--features", "embeddings",
                           "--alphas", *map(str, range(1, 60))))
    lines = []
    for line in run.stderr:
        lines.append(line)
        if moment in line:
            break
    time.sleep(0.3)
    assert run.poll() is None, "".join(lines)
    run.send_signal(signum)
    sent = time.monotonic()
    rest = run.communicate(timeout=30)[1]
    assert time.monotonic() - sent < 5
    assert run.returncode == 130, rest
    assert "Traceback" not in rest
    assert "Interrupted" in rest
    assert leftovers(out) == []
    assert cli.main(arguments(small, out, "--overwrite")) == 0


def test_an_interruption_while_an_image_is_read(small, tmp_path, monkeypatch, capsys):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parcels, "_series", interrupted)
    assert cli.main(arguments(small, tmp_path / "out")) == 130
    assert "Interrupted" in _words_of(capsys)


def test_messages_have_no_gzip_or_python_jargon(done, capsys):
    bids, out = done
    bold(bids, "18").write_bytes(gzip.compress(b"short"))
    error = _refused(capsys, arguments(bids, out, "--overwrite", "--participant-label", "18"), 65)
    assert "object" not in error
    assert sys.prefix not in error
