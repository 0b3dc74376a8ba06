"""The files under platforms/ do what they say, by the platforms' own tools where they are here."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small_alice
from small_alice import FAST, SPACE, arguments, atlas, bold, confounds, tree

from bids_brainlm import boutiques, cli, config

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).resolve().parents[2]
PLATFORMS = ROOT / "platforms"
BIN = Path(sys.executable).parent


def call(*command: object, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program with this installation's programs first in the path."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, cwd=cwd,
        env=small_alice.environment() | {"PATH": path} | environ,
    )


def parsed(command: str) -> config.Config:
    """Read a command line as the app does."""
    words = command.split()
    assert words[0] == "bids_brainlm"
    return cli.parse(words[1:])


# --- Boutiques ----------------------------------------------------------------------------------

needs_bosh = pytest.mark.skipif(not (BIN / "bosh").exists(), reason="boutiques is not installed")


def invocation(bids: Path, out: Path, level: str = "participant", **more: object) -> dict:
    fast = cli.parse(["in", "out", "participant", *FAST])
    made = {
        "InputDataset": str(bids), "OutputLocation": str(out), "AnalysisLevel": level,
        "model": ["random:tiny-bert"], "features": ["magnitudes"], "alphas": [1, 100],
        "n_iter": fast.encoding.n_iter, "cv": 3, "inner_cv": 2, "gap": 4, "context_trs": 0,
        "n_permutations": 100, "n_bootstraps": 100, "offline": True, "nprocs": 1,
    }
    if level != "group":
        made["atlas"] = str(atlas(bids))
    return made | more


@needs_bosh
def test_the_descriptor_is_valid(tmp_path):
    done = call("bosh", "validate", ROOT / "boutiques.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_bosh
def test_a_simulated_call_is_the_one_that_was_meant(tmp_path, alice):
    (tmp_path / "inv.json").write_text(json.dumps(invocation(
        alice, tmp_path / "out", participant_label=["18", "22"], delays=[2, 3], fdr=0.1,
        stimulus_onset=["alice=-20"], denoise="narratives", verbose=True, preset="paper",
    )))
    descriptor = ROOT / "boutiques.json"
    done = call("bosh", "exec", "simulate", descriptor, "-i", "inv.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = parsed(done.stdout.strip().splitlines()[-1])
    assert (found.bids_dir, found.output_dir, found.level) == (
        alice, tmp_path / "out", "participant"
    )
    assert found.inputs.participant_label == ("18", "22")
    assert found.inputs.stimulus_onset == (("alice", -20.0),)
    assert found.encoding.delays == (2, 3)
    assert (found.stats.fdr, found.preset, found.verbose) == (0.1, "paper", True)
    assert found.execution.offline
    assert found.inputs.denoise == "narratives"


@needs_bosh
def test_a_wrong_call_is_refused_by_the_descriptor(tmp_path, alice):
    for wrong in ({"AnalysisLevel": "run"}, {"n_iter": 0.5}, {"denoise": "fsl"}, {"modell": ["x"]}):
        (tmp_path / "inv.json").write_text(
            json.dumps(invocation(alice, tmp_path / "out") | wrong))
        done = call("bosh", "invocation", ROOT / "boutiques.json", "-i", "inv.json", cwd=tmp_path)
        assert done.returncode != 0, wrong


@needs_bosh
@pytest.mark.slow
def test_a_launched_call_gives_the_app_s_result(small, made, tmp_path):
    out = small.parent / "launched"
    for level in ("participant", "group"):
        (tmp_path / "inv.json").write_text(json.dumps(invocation(small, out, level)))
        done = call(
            "bosh", "exec", "launch", "--no-container", "-s", "--skip-data-collection",
            ROOT / "boutiques.json", "inv.json", cwd=tmp_path, HOME=str(tmp_path),
        )
        assert done.returncode == 0, done.stdout + done.stderr
    reference, found = tree(made), tree(out)
    own = {n for n in found if not n.startswith("group")}
    differing = {n for n in own | set(reference) if reference.get(n) != found.get(n)}
    assert {n for n in differing if not n.endswith(".html")} <= {"dataset_description.json"}
    assert (out / "group.html").is_file()


def test_output_templates_meet_what_is_made(done):
    """Every output that the descriptor promises is there after participant and group."""
    bids, out = done
    assert cli.main(arguments(bids, out, level="group")) == 0
    for output in boutiques.descriptor()["output-files"]:
        if output["id"] in ("output_surface_maps", "output_cifti_maps"):
            continue  # see test_surfaces
        pattern = output["path-template"].removeprefix("[OUTPUT_DIR]/")
        assert list(out.glob(pattern)), output["id"]


# --- brainlife ----------------------------------------------------------------------------------


def brainlife_task(bids: Path, folder: Path, **more: object) -> Path:
    """Make a task's folder as brainlife does, with typed inputs of one run beside it."""
    inputs, task = folder / "input", folder / "task"
    inputs.mkdir(parents=True)
    task.mkdir()
    person = "18"
    mask = bold(bids, person).with_name(
        bold(bids, person).name.replace("desc-preproc_bold", "desc-brain_mask"))
    files = {
        "bold.nii.gz": bold(bids, person), "regressors.tsv": confounds(bids, person),
        "events.tsv": small_alice.events(bids, person),
        "alice_audio.TextGrid": bids / "stimuli" / "alice_audio.TextGrid",
    }
    for name, source in files.items():
        shutil.copy(source, inputs / name)
    given = json.loads((PLATFORMS / "brainlife" / "config.json").read_text("utf-8"))
    if mask.is_file():
        shutil.copy(mask, inputs / "mask.nii.gz")
    else:
        del given["mask"]
    given |= {
        "atlas": str(atlas(bids)), "model": "random:tiny-bert", "features": "magnitudes",
        "n_iter": 2, "alphas": "1 100", "n_permutations": 100, "context_trs": 0, "cv": 3,
        "inner_cv": 2, "gap": 4, "nprocs": 1,
    }
    (task / "config.json").write_text(json.dumps(given | more))
    return task


def brainlife(task: Path) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m bids_brainlm"
    return call("bash", PLATFORMS / "brainlife" / "main", cwd=task, BRAINLM_COMMAND=command)


@pytest.mark.slow
def test_brainlife_main_runs_a_task(small, made):
    task = brainlife_task(small, small.parent / "brainlife")
    done = brainlife(task)
    assert done.returncode == 0, done.stderr
    product = json.loads((task / "product.json").read_text("utf-8"))
    assert product["brainlife"][0]["type"] == "success"
    assert "<html" in (task / "html" / "index.html").read_text("utf-8")
    name = f"sub-18/func/sub-18_task-alice_space-{SPACE}_atlas-Alice6"
    table = f"{name}_desc-randomTinyBertMagnitudes_stat-r_boldmap.tsv"
    assert (task / "output" / table).read_bytes() == (made / table).read_bytes()
    assert all(p.is_symlink() for p in (task / "bids").rglob("*_bold.nii.gz"))


@pytest.mark.slow
def test_brainlife_shows_the_error_and_what_to_do(small):
    task = brainlife_task(small, small.parent / "brainlife", atlas="Schaefer2018_9Parcels")
    done = brainlife(task)
    assert done.returncode == 66
    (message,) = json.loads((task / "product.json").read_text("utf-8"))["brainlife"]
    assert message["type"] == "error"
    assert "Exit code 66. Error: The atlas Schaefer2018_9Parcels" in message["msg"]
    assert "bids_brainlm-fetch --atlas" in message["msg"]


@pytest.mark.parametrize("more", [{"transcript": "../input/bold.nii.gz"}, {"events": "../no.tsv"}])
def test_brainlife_refuses_inputs_before_it_starts(small, more):
    task = brainlife_task(small, small.parent / "brainlife", **more)
    done = brainlife(task)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert next(iter(more.values())) in done.stderr
    assert not (task / "output").exists()


def test_brainlife_example_is_a_call_that_the_app_knows(tmp_path):
    task_py = PLATFORMS / "brainlife" / "task.py"
    done = call(sys.executable, task_py, "arguments", PLATFORMS / "brainlife" / "config.json",
                cwd=tmp_path)
    found = cli.parse(done.stdout.rstrip("\0").split("\0"))
    assert found.inputs.participant_label == ("18",)
    assert found.features.features == ("embeddings", "transformations")
    assert found.execution.work_dir == "work"
    assert json.loads((PLATFORMS / "brainlife" / "product.json").read_text("utf-8"))["brainlife"]


# --- Nipoppy ------------------------------------------------------------------------------------

PIPELINE = PLATFORMS / "nipoppy" / "bids_brainlm"
NIPOPPY = os.environ.get("BRAINLM_NIPOPPY") or shutil.which("nipoppy")
needs_nipoppy = pytest.mark.skipif(
    NIPOPPY is None, reason="nipoppy is not installed; BRAINLM_NIPOPPY may name its program"
)


def test_nipoppy_files_name_each_other_and_the_version():
    about = json.loads((PIPELINE / "config.json").read_text("utf-8"))
    assert about["VERSION"] == boutiques.descriptor()["tool-version"]
    for step in about["STEPS"]:
        for key, name in step.items():
            if key.endswith("_FILE"):
                json.loads((PIPELINE / name).read_text("utf-8"))
    levels = {step["NAME"]: step["ANALYSIS_LEVEL"] for step in about["STEPS"]}
    assert levels == {"participant": "participant", "group": "group"}
    known = {item["id"] for item in boutiques.descriptor()["inputs"]}
    for path in PIPELINE.glob("invocation*.json"):
        assert set(json.loads(path.read_text("utf-8"))) <= known


def test_nipoppy_descriptor_is_the_generated_one():
    """``make boutiques`` writes both."""
    copy = (PIPELINE / "descriptor.json").read_text("utf-8")
    assert json.loads(copy) == boutiques.descriptor()


@needs_nipoppy
@pytest.mark.slow
def test_nipoppy_takes_the_pipeline(tmp_path):
    done = call(NIPOPPY, "pipeline", "validate", PIPELINE, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def _with_sessions(bids: Path) -> Path:
    """Move all runs into a session, which Nipoppy wants."""
    for path in sorted(bids.rglob("sub-*/func/*")):
        new = path.parents[1] / "ses-BL" / "func" / path.name.replace("_task-", "_ses-BL_task-")
        new.parent.mkdir(parents=True, exist_ok=True)
        path.rename(new)
    return bids


@needs_nipoppy
@pytest.mark.slow
def test_nipoppy_processes_and_tracks(small, tmp_path):
    study = tmp_path / "study"
    done = call(NIPOPPY, "init", "--study", study, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    data = _with_sessions(small)
    shutil.copytree(data, study / "bids", dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("derivatives"))
    rows = ["participant_id\tvisit_id\tsession_id\tdatatype"]
    rows += [f"{person}\tBL\tBL\t['func']" for person in small_alice.PARTICIPANTS]
    (study / "manifest.tsv").write_text("\n".join(rows) + "\n")
    done = call(NIPOPPY, "pipeline", "install", "--study", study, "--skip-container", PIPELINE,
                cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    installed = study / "pipelines" / "processing" / "bids_brainlm-0.1.0"
    about = json.loads((installed / "config.json").read_text("utf-8"))
    about |= {"CONTAINER_CONFIG": {"COMMAND": None, "INHERIT": False}, "CONTAINER_INFO": {}}
    (installed / "config.json").write_text(json.dumps(about))  # this installation, no image
    bare = json.loads((installed / "descriptor.json").read_text("utf-8"))
    del bare["container-image"]
    (installed / "descriptor.json").write_text(json.dumps(bare))
    fast = invocation(small, Path("out"))
    for key in ("InputDataset", "OutputLocation", "AnalysisLevel", "atlas", "model"):
        del fast[key]
    for path in installed.glob("invocation*.json"):
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fast))
    file = study / "global_config.json"
    lines = file.read_text("utf-8").splitlines()
    settings = json.loads("\n".join(x for x in lines if not x.strip().startswith("//")))
    settings["CONTAINER_CONFIG"]["COMMAND"] = None
    settings["PIPELINE_VARIABLES"]["PROCESSING"] = {"bids_brainlm": {"0.1.0": {
        "DERIVATIVES": str(small / "derivatives" / "fmriprep"),
        "TRANSCRIPTS": str(small / "stimuli"), "ATLAS": str(atlas(small)),
        "MODEL": "random:tiny-bert",
    }}}
    file.write_text(json.dumps(settings))
    where = ["--study", study, "--pipeline", "bids_brainlm"]
    assert call(NIPOPPY, "track-curation", "--study", study, cwd=tmp_path).returncode == 0
    for step in ("participant", "group"):
        done = call(NIPOPPY, "process", *where, "--pipeline-step", step, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    out = study / "derivatives" / "bids_brainlm" / "0.1.0" / "output"
    assert (out / "group.html").is_file()
    done = call(NIPOPPY, "track-processing", *where, "--pipeline-step", "participant", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    (status,) = (study / "derivatives").glob("*processing_status.tsv")
    with status.open(encoding="utf-8") as stream:
        states = [row["status"] for row in csv.DictReader(stream, delimiter="\t")]
    assert states == ["SUCCESS"] * len(small_alice.PARTICIPANTS)


# --- Slurm --------------------------------------------------------------------------------------

SLURM = PLATFORMS / "slurm" / "participants.sh"
SBATCH = """#!/bin/bash
# Stands in for sbatch: runs each task of the array at once, in order, and prints a number.
set -eu
tasks=1 n=$(( $(cat "$STATE" 2>/dev/null || echo 100) + 1 ))
echo "$n" > "$STATE"
for word; do
    case $word in --array=*) tasks=$(seq "${word#--array=1-}") ;; esac
    case $word in --*) shift ;; *) break ;; esac
done
for task in $tasks; do
    SLURM_JOB_ID=$n SLURM_ARRAY_TASK_ID=$task SLURM_CPUS_PER_TASK=1 bash "$@" >> "$STATE.log" 2>&1
done
echo "$n"
"""


@pytest.mark.slow
def test_slurm_script_makes_stimulus_participants_and_group(small, made, tmp_path):
    """With a stand-in for sbatch: the same files as one call for everybody."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sbatch").write_text(SBATCH)
    (programs / "bids_brainlm").write_text(f'#!/bin/sh\nexec {sys.executable} -m bids_brainlm "$@"')
    for program in programs.iterdir():
        program.chmod(0o755)
    out = tmp_path / "out"
    flags = " ".join(["--atlas", str(atlas(small)), *FAST])
    path = f"{programs}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}"
    done = call("bash", SLURM, "submit", cwd=tmp_path, PATH=path, BIDS=str(small), OUT=str(out),
                FLAGS=flags, STATE=str(tmp_path / "state"))
    log = (tmp_path / "state.log").read_text("utf-8")
    assert done.returncode == 0, done.stderr + log
    assert done.stdout.strip() == "stimulus 101, 3 participants 102, group 103"
    reference, found = tree(made), tree(out)
    differing = {n for n in reference if reference[n] != found.get(n)}
    assert {n for n in differing if not n.endswith(".html")} <= {"dataset_description.json"}
    assert (out / "group.html").is_file()
    for person in small_alice.PARTICIPANTS:
        assert (out / f"sub-{person}.html").is_file()


def test_slurm_script_tells_what_it_needs(tmp_path):
    assert call("bash", SLURM, cwd=tmp_path).returncode == 1
    done = call("bash", SLURM, cwd=tmp_path, BIDS=str(tmp_path), OUT=str(tmp_path / "out"))
    assert done.returncode == 64
    assert "submit|stimulus|participant|group" in done.stderr
    done = call("bash", SLURM, "submit", cwd=tmp_path, BIDS=str(tmp_path), OUT="out")
    assert done.returncode == 66
    assert "no participants" in done.stderr


def test_slurm_script_calls_the_image_strictly(tmp_path):
    (tmp_path / "sub-001").mkdir()
    (tmp_path / "engine").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "engine").chmod(0o755)
    done = call(
        "bash", SLURM, "participant", cwd=tmp_path, BIDS=str(tmp_path), OUT=str(tmp_path / "out"),
        IMAGE="brainlm.sif", APPTAINER=str(tmp_path / "engine"), SLURM_ARRAY_TASK_ID="1",
        FLAGS="--offline", MODELS_DIR="/models", TMPDIR=str(tmp_path),
    )
    words = done.stdout.splitlines()
    assert words[:4] == ["run", "--containall", "--cleanenv", "--no-home"]
    assert f"{tmp_path}:{tmp_path}:ro" in words
    assert "/models:/models:ro" in words
    found = cli.parse(words[words.index("brainlm.sif") + 1:])
    assert found.inputs.participant_label == ("001",)
    assert found.execution.offline
    assert not Path(found.execution.work_dir).exists()  # taken away at the end


# --- BABS ---------------------------------------------------------------------------------------

BABS = os.environ.get("BRAINLM_BABS_PYTHON", sys.executable)
needs_babs = pytest.mark.skipif(
    subprocess.run([BABS, "-c", "import babs"], capture_output=True, check=False).returncode != 0,
    reason="babs is not installed; BRAINLM_BABS_PYTHON may name a Python that has it",
)
MAKE_SCRIPT = """
import sys, yaml
from babs.generate_bidsapp_runscript import generate_bidsapp_runscript
from babs.utils import app_output_settings_from_config
config = yaml.safe_load(open(sys.argv[1]))
datasets = [
    {"name": name, "is_zipped": given["is_zipped"], "path_in_babs": given["path_in_babs"],
     "unzipped_path_containing_subject_dirs": given["path_in_babs"]}
    for name, given in config["input_datasets"].items()
]
names, out = app_output_settings_from_config(config)
sys.stdout = open(sys.argv[2], "w")
sys.stdout.write(generate_bidsapp_runscript(
    datasets, "subject", "brainlm-0-1-0", "containers/image.sif", out, names,
    bids_app_args=config["bids_app_args"], singularity_args=config["singularity_args"],
))
"""


@needs_babs
@pytest.mark.slow
def test_babs_s_own_script_runs_one_participant_s_clone(small, made, tmp_path):
    """BABS makes the script of babs.yaml; a stand-in for Singularity runs this installation."""
    job, programs = tmp_path / "job", tmp_path / "programs"
    (job / "inputs" / "data").mkdir(parents=True)
    shutil.copytree(small, job / "inputs/data/BIDS",
                    ignore=shutil.ignore_patterns("derivatives"))
    shutil.copytree(small / "derivatives/fmriprep", job / "inputs/data/fmriprep")
    for path in job.rglob("sub-2*"):
        if path.name.endswith(".nii.gz"):
            path.unlink()
            path.symlink_to("../../.git/annex/objects/gone")
    script = job / "run.sh"
    done = call(BABS, "-c", MAKE_SCRIPT, PLATFORMS / "babs" / "babs.yaml", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = script.read_text("utf-8")
    text = text.replace("--model google-bert/bert-base-uncased", "--model random:tiny-bert")
    text = text.replace("Schaefer2018_400Parcels17Networks", f"{atlas(small)} {' '.join(FAST[2:])}")
    script.write_text(text)
    programs.mkdir()
    (programs / "singularity").write_text(
        '#!/bin/bash\nwhile [ "$1" != containers/image.sif ]; do\n'
        '  [ "$1" != --pwd ] || cd "$2"; shift\ndone\nshift\n'
        f'exec {sys.executable} -m bids_brainlm "$@"\n'
    )
    (programs / "7z").write_text('#!/bin/sh\ncp -r "$3" "$2"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = call("bash", script, "sub-18", cwd=job, PATH=path)
    assert done.returncode == 0, done.stderr
    (out,) = job.glob("sub-18_bids_brainlm-0-1-0.zip")  # the stand-in for 7z copies
    reference, found = tree(made), tree(out)
    own = [n for n in reference if n.startswith(("sub-18/func", "stimuli/", "task-"))]
    assert own
    assert {n for n in own if reference[n] != found.get(n)} == set()
    assert not list(out.glob("sub-2*"))


def test_babs_example_is_a_call_that_the_app_knows():
    yaml = pytest.importorskip("yaml")
    example = yaml.safe_load((PLATFORMS / "babs" / "babs.yaml").read_text("utf-8"))
    words = ["in", "out", "participant"]
    for flag, value in example["bids_app_args"].items():
        flag = value if flag.startswith("$") else flag
        words += [flag, "sub-001" if flag == "--participant-label" else value]
    found = cli.parse([word for word in words if word])
    assert found.inputs.participant_label == ("sub-001",)
    assert found.execution.offline
    version = boutiques.descriptor()["tool-version"].replace(".", "-")
    assert example["zip_foldernames"] == {"bids_brainlm": version}


# --- DataLad ------------------------------------------------------------------------------------


def test_the_datalad_example_is_a_call_that_the_app_knows():
    text = (PLATFORMS / "datalad" / "README.md").read_text("utf-8").replace("\\\n", " ")
    calls = [line for line in text.splitlines() if line.startswith("datalad containers-run")]
    assert len(calls) == 2
    levels = []
    for line in calls:
        words = shlex.split(line)
        start = max(n for n, word in enumerate(words) if word == "--output") + 2
        levels.append(cli.parse(words[start:]).level)
    assert levels == ["participant", "group"]
