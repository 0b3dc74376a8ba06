"""The console script bids_brainlm-simulate, from arguments to a dataset."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from bids_brainlm.bidsio import atlas, bold, confounds, images, stories, transcript_files, write
from bids_brainlm.bidsio.dataset import Filters, check_dataset, find_events
from bids_brainlm.numerics import isc
from bids_brainlm.simulate import cli, features
from bids_brainlm.simulate.settings import Noise, SimulationSettings

pytestmark = pytest.mark.thorough

TINY = ["--model", features.FALLBACK_MODEL, "--n-parcels", "12", "--run-seconds", "105"]
PARTICIPANTS = ["127", "265", "106", "016"]
TASKS = ["black", "slumlordreach", "pieman", "milkyway"]


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def parcel_series(root: Path, task: str, n_trs: int, first: int) -> np.ndarray:
    """Return the cleaned series of a task's runs as the app reads them."""
    labels = atlas.resolve_atlas(
        str(next((root / "derivatives" / "atlas").glob("*.nii.gz"))), "MNI152NLin2009cAsym"
    )
    found = []
    for run in bold.find_bold(
        bold.derivative_roots(root, ()), filters=Filters.of(tasks=[task]), denoise="auto"
    ):
        image = images.load_run(run.path)
        chosen = confounds.select(
            run.confounds_tsv, run.confounds_json, "auto", image.n_volumes, image.tr
        )
        placed = atlas.to_grid(labels, image.shape[:3], image.affine)
        window = slice(first, first + n_trs)
        series = images.parcel_series(
            run.path, placed.labels, labels.n_parcels, window, chosen.matrix
        )
        assert not series.empty.any()
        found.append(series.series)
    return np.stack(found)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Return a small dataset: 4 participants, 2 stories, 12 parcels, about 85 volumes."""
    out = tmp_path_factory.mktemp("simulated") / "made"
    features.load_model(SimulationSettings(model=features.FALLBACK_MODEL))  # imports
    began = time.perf_counter()
    assert cli.main([str(out), *TINY]) == 0
    assert time.perf_counter() - began < 10
    return out


def test_dataset_is_one_that_the_app_finds(made):
    check_dataset(made)
    runs = find_events(made)
    assert [run.name for run in runs][:2] == ["sub-01_task-goldenkey", "sub-01_task-rabbithole"]
    assert len(runs) == 8
    heard = stories.find_stories(runs, runs)
    assert {story.story for story in heard} == {"goldenkey", "rabbithole"}
    onsets = {story.story: (story.audio_onset, story.story_onset) for story in heard}
    assert onsets == {"rabbithole": (0.0, 9.0), "goldenkey": (12.0, 12.0)}
    for name in onsets:
        search = transcript_files.find_transcript(made / "stimuli", name, name)
        assert search.path is not None
        lines = search.path.read_text().splitlines()
        assert any(line.endswith(",,,") for line in lines)
    images_found = bold.find_bold(bold.derivative_roots(made, ()))
    assert len(images_found) == 8
    assert all(run.present and run.mask and run.confounds_json for run in images_found)
    lengths = {images.load_run(run.path).n_volumes for run in images_found}
    assert len(lengths) > 1
    table = (made / "participants.tsv").read_text()
    assert "rabbithole,goldenkey" in table


def test_truth_is_told(made):
    table = write.read_tsv(made / "derivatives" / "simulation" / "truth.tsv")
    content = json.loads((made / "derivatives" / "simulation" / "simulation.json").read_text())
    assert len(table["index"]) == 12
    assert table["kind"].count("noise") == 4
    assert set(table) == set(content["Columns"])
    assert content["Noise"]["signal"] == Noise().signal
    assert set(content["Gains"]) == {"01", "02", "03", "04"}
    assert content["Stories"]["rabbithole"]["FirstVolume"] == 6
    assert content["Model"]["NumberOfLayers"] >= 2


def test_signal_parcels_are_shared_and_noise_parcels_are_not(made):
    table = write.read_tsv(made / "derivatives" / "simulation" / "truth.tsv")
    content = json.loads((made / "derivatives" / "simulation" / "simulation.json").read_text())
    signal = np.array([kind != "noise" for kind in table["kind"]])
    story = content["Stories"]["goldenkey"]
    series = parcel_series(made, "goldenkey", story["NumberOfRows"], story["FirstVolume"])
    reliability = isc.leave_one_out(series).mean(0)
    assert reliability[signal].mean() > 0.1
    assert abs(reliability[~signal].mean()) < 0.15


def test_same_settings_same_bytes(made, tmp_path):
    assert cli.main([str(tmp_path / "again"), *TINY]) == 0
    assert digests(tmp_path / "again") == digests(made)


def test_other_seed_other_noise_same_text(made, tmp_path):
    assert cli.main([str(tmp_path / "other"), *TINY, "--seed", "2"]) == 0
    one, two = digests(made), digests(tmp_path / "other")
    assert set(one) == set(two)
    same = {name for name in one if one[name] == two[name]}
    assert any(name.endswith("align.csv") for name in same)
    assert not any("desc-preproc" in name and name.endswith(".nii.gz") for name in same)


def test_flavours_and_links(tmp_path):
    more = ["--participants", "01", "--stories", "rabbithole", "--raw-bold", "link"]
    assert cli.main([str(tmp_path / "a"), *TINY, *more, "--flavour", "both"]) == 0
    root = tmp_path / "a"
    link = root / "sub-01" / "func" / "sub-01_task-rabbithole_bold.nii.gz"
    assert link.is_symlink()
    assert not link.exists()
    (clean,) = (root / "derivatives" / "afni-nosmooth").rglob("*desc-clean_bold.nii.gz")
    (raw,) = (root / "derivatives" / "fmriprep").rglob("*desc-preproc_bold.nii.gz")
    import nibabel

    residuals = np.asanyarray(nibabel.load(clean).dataobj)
    whole = np.asanyarray(nibabel.load(raw).dataobj)
    assert residuals.shape == whole.shape
    assert residuals.dtype == np.float32
    assert whole.dtype == np.int16
    assert abs(residuals.mean()) < 1
    assert whole.max() > 8000


def test_given_alignments(tmp_path):
    folder = tmp_path / "alignments" / "tale"
    folder.mkdir(parents=True)
    words = "".join(f"word{i},word{i},{3 + i * 0.4:.2f},{3.3 + i * 0.4:.2f}\n" for i in range(250))
    (folder / "align.csv").write_text(words)
    more = ["--participants", "1", "--stories", "tale", "--transcripts", str(folder.parent)]
    assert cli.main([str(tmp_path / "a"), *TINY, *more]) == 0
    assert (tmp_path / "a" / "stimuli" / "gentle" / "tale" / "align.csv").read_text() == words


@pytest.fixture(scope="module")
def narratives(shared_data, tmp_path_factory) -> Path:
    """Return the real ds002345 tree, cut down to a few participants."""
    root = tmp_path_factory.mktemp("narratives")
    folder = shared_data / "narratives"
    wanted = tuple(f"ds002345/sub-{label}/func/" for label in [*PARTICIPANTS, "023", "278"])
    tops = ("ds002345/dataset_description.json", "ds002345/participants.tsv")
    for name in ("skeleton_regular_files", "annex_symlinks_only"):
        with tarfile.open(folder / f"ds002345_v1.1.4_{name}.tar.gz") as archive:
            for member in archive:
                path = member.name.removeprefix("./")
                if path.startswith(wanted) or path in tops:
                    archive.extract(member, root, filter="tar")
    return root / "ds002345"


def test_real_tree_is_filled(narratives, shared_data, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(shared_data / "templateflow"))
    before = digests(narratives)
    command = ["--into", str(narratives), "--participants", *PARTICIPANTS, "--stories", *TASKS]
    command += ["--transcripts", str(shared_data / "narratives" / "gentle")]
    command += ["--model", features.FALLBACK_MODEL, "--flavour", "clean", "--voxel-size", "10"]
    command += ["--context-trs", "1"]
    assert cli.main([*command, "--atlas", "Schaefer2018_100Parcels17Networks"]) == 0
    after = digests(narratives)
    assert before.items() <= after.items()
    new = set(after) - set(before)
    assert {Path(name).parts[0] for name in new} == {"derivatives", "stimuli"}
    truth = json.loads((narratives / "derivatives/simulation/simulation.json").read_text())
    assert {"black", "slumlord", "reach", "pieman"} < set(truth["Stories"])
    assert truth["Stories"]["slumlord"]["FirstVolume"] == 19
    assert truth["Stories"]["reach"]["FirstVolume"] == 646
    assert truth["Stories"]["black"]["NumberOfRows"] == 534
    assert truth["Stories"]["milkywaysynonyms"]["RepetitionTime"] == 1.52
    runs = bold.find_bold(bold.derivative_roots(narratives, ()))
    lengths = {run.name: images.load_run(run.path).n_volumes for run in runs}
    assert lengths["sub-127_task-black"] == 550
    assert lengths["sub-016_task-pieman_run-2"] == 300
    assert {1205 <= n <= 1223 for name, n in lengths.items() if "slumlord" in name} == {True}
    table = write.read_tsv(narratives / "derivatives/simulation/truth.tsv")
    assert table["name"][0] == "17Networks_LH_VisCent_ExStr_1"
    assert min(int(n) for n in table["n_voxels"]) > 0
    assert cli.main([*command, "--atlas", "blocks:4"]) == 73


def test_runs_without_image_are_left_out(narratives, shared_data, capsys):
    command = ["--into", str(narratives), "--participants", "278", "--stories", "forgot"]
    command += ["--transcripts", str(shared_data / "narratives" / "gentle"), "--overwrite"]
    assert cli.main([*command, "--model", features.FALLBACK_MODEL]) == 18
    assert "278" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 64, "--into TREE"),
        (["{out}", "--snr", "loud"], 64, "--snr standard"),
        (["{out}", "--part", "3"], 64, "unrecognized"),
        (["{out}", "--tr", "fast"], 64, "--tr"),
        (["{out}", "--run-seconds", "5000"], 64, "723 s"),
        (["{out}", "--n-words", "5000"], 64, "words"),
        (["{out}", "--atlas", "blocks:x"], 64, "blocks:24"),
        (["{out}", "--atlas", "NoSuchAtlas"], 66, "NoSuchAtlas"),
        (["{out}", "--model", "no/such-model"], 66, "no/such-model"),
        (["{out}", "--stories", "tale", "--transcripts", "{out}"], 66, "tale"),
        (["{full}"], 73, "--overwrite"),
        (["--into", "{full}"], 16, "dataset_description.json"),
        (["{out}", "--run-seconds", "20"], 65, "--run-seconds"),
    ],
)
def test_errors(arguments, code, words, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    places = {"out": tmp_path / "out", "full": tmp_path / "full"}
    given = [argument.format(**places) for argument in arguments]
    if "--model" not in given:
        given += ["--model", features.FALLBACK_MODEL]
    assert cli.main(given) == code
    told = capsys.readouterr().err
    assert told.splitlines()[-2].startswith("Error: ") or "Error: " in told
    assert words in told
    assert "What to do: " in told
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def test_help_and_version(capsys):
    assert cli.main(["--help"]) == 0
    assert "--participants" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bids_brainlm ")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from bids_brainlm.simulate import cli; cli.main(['--help']); "
        "heavy = {'torch', 'transformers', 'nibabel', 'scipy', 'pandas', 'numpy'}; "
        "sys.exit(1 if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
