"""Job scripts for queues: what they say, and what they make on a real Slurm and without a queue."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import small_alice
from small_alice import arguments, leftovers, tree

from bids_brainlm import cli, jobs
from bids_brainlm.queues import QUEUES

JUPYTER = Path(__file__).parents[2] / "platforms" / "slurm" / "jupyter.sh"
QSUB = """#!/bin/bash
# A mock of qsub: notes its arguments and prints a number as the real one does.
echo "$*" >> "$STATE"
case " $* " in *" -t "*) echo "$(wc -l < "$STATE").1-3:1" ;; *) wc -l < "$STATE" ;; esac
"""
ENGINE = '#!/bin/sh\n# A mock of apptainer: prints its arguments.\nprintf "%s\\n" "$@"\n'


def write(small, out, queue, folder, *own, more=()):
    """Write job scripts for a call as of `small_alice`; return the exit code."""
    bids, out_dir, _, *flags = arguments(small, out, *more)
    return jobs.main([*own, queue, str(folder), bids, out_dir, *flags])


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def call(*command: object, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=300,
        env=small_alice.environment() | environ,
    )


def pages_apart(found: dict[str, str], reference: dict[str, str]) -> list[str]:
    """Return what differs; pages name the command, and the links of the dataset the folders."""
    names = {n for n in reference if reference[n] != found.get(n) and not n.endswith(".html")}
    return sorted(names - {"dataset_description.json"})


@pytest.mark.parametrize("queue", QUEUES)
def test_scripts_are_sound_and_ask_for_what_the_plan_needs(small, tmp_path, capsys, queue):
    folder = tmp_path / "jobs"
    assert write(small, tmp_path / "out", queue, folder, "--cores", "2", "--hours", "5") == 0
    said = capsys.readouterr().out
    assert "3 participants, 0 skipped; a task has 2 cores" in said
    assert (folder / "participants.txt").read_text() == "18\n22\n23\n"
    for name in ("job.sh", "submit.sh"):
        assert call("bash", "-n", folder / name).returncode == 0
        assert os.access(folder / name, os.X_OK)
        if shutil.which("shellcheck"):
            checked = call("shellcheck", "--severity=warning", folder / name)
            assert checked.returncode == 0, checked.stdout
    assert not (tmp_path / "out").exists()
    script = (folder / "job.sh").read_text()
    memory = {"slurm": "--mem=3G", "sge": "h_vmem=1500M", "pbs": "ncpus=2:mem=3gb", "list": ""}
    assert memory[queue] in script
    hours = {"slurm": "--time=05:00:00", "sge": "h_rt=05:00:00", "pbs": "walltime=05:00:00"}
    assert hours.get(queue, "") in script


def test_more_work_gets_more_time(small, tmp_path):
    def hours(*more):
        folder = tmp_path / f"jobs{len(more)}"
        assert write(small, tmp_path / "out", "slurm", folder, more=more) == 0
        (line,) = [x for x in (folder / "job.sh").read_text().splitlines() if "--time=" in x]
        return int(line.partition("--time=")[2].partition(":")[0])

    assert hours() == 1
    assert hours("--n-iter", "10000000", "--cv", "5", "--inner-cv", "4") > 1


@pytest.mark.parametrize(
    ("own", "more", "code", "words"),
    [
        ((), ("--executor", "dask"), 64, "--executor dask is among the options"),
        ((), ("--dry-run",), 64, "--dry-run is among the options"),
        (("--cores", "0"), (), 64, "--cores is 0, expected 1 or more"),
        (("--cores", "two"), (), 64, "--cores"),
        (("--image", "no.sif"), (), 64, "--image no.sif is not there"),
        (("--directive=a\nrm -rf x",), (), 64, "line break"),
        ((), ("--participant-label", "99"), 18, "99"),
        ((), ("--delays", "x"), 64, "--delays"),
    ],
)
def test_what_makes_no_sense_is_refused(small, tmp_path, capsys, own, more, code, words):
    assert write(small, tmp_path / "out", "slurm", tmp_path / "jobs", *own, more=more) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "jobs").exists()


def test_a_queue_that_is_not_known_and_a_folder_with_a_space(small, tmp_path, capsys):
    assert write(small, tmp_path / "out", "condor", tmp_path / "jobs") == 64
    assert "condor" in capsys.readouterr().err
    assert write(small, tmp_path / "out", "slurm", tmp_path / "my jobs") == 64
    assert "has a space" in capsys.readouterr().err
    assert jobs.main(["--help"]) == 0
    assert "bids_brainlm-jobs" in capsys.readouterr().out


def test_scripts_are_not_replaced_unless_told(small, tmp_path, capsys):
    folder = tmp_path / "jobs"
    assert write(small, tmp_path / "out", "slurm", folder) == 0
    (folder / "job.sh").write_text("mine")
    assert write(small, tmp_path / "out", "slurm", folder) == 73
    assert "participants.txt" in capsys.readouterr().err
    assert (folder / "job.sh").read_text() == "mine"
    assert write(small, tmp_path / "out", "slurm", folder, "--overwrite") == 0
    assert (folder / "job.sh").read_text() != "mine"


def test_a_job_calls_the_image_strictly(small, tmp_path):
    """With a mock engine: the call that it gets is the one that was meant, for one participant."""
    image = program(tmp_path, "brain lm.sif", "")
    engine = program(tmp_path, "engine", ENGINE)
    folder, out = tmp_path / "jobs", tmp_path / "out"
    more = ("--participant-label", "22", "18", "--gap", "6")
    assert write(small, out, "slurm", folder, "--image", str(image), more=more) == 0
    environ = {"APPTAINER": str(engine), "TMPDIR": str(tmp_path / "scratch")}
    done = call(folder / "job.sh", "participant", SLURM_ARRAY_TASK_ID="2", **environ)
    words = done.stdout.splitlines()
    assert words[:4] == ["run", "--containall", "--cleanenv", "--no-home"], done.stderr
    assert f"{small}:{small}:ro" in words
    assert str(out) in words
    place = words.index(str(image))
    assert words[place - 2 : place] == ["--pwd", str(Path.cwd())]
    assert f"{Path.cwd()}:{Path.cwd()}:ro" in words
    found = cli.parse(words[place + 1 :])
    assert (found.inputs.participant_label, found.encoding.gap) == (("22",), 6.0)
    assert not Path(found.execution.work_dir).exists()  # taken away at the end
    group = call(folder / "job.sh", "group", **environ).stdout.splitlines()
    found = cli.parse(group[group.index(str(image)) + 1 :])
    assert (found.level, found.inputs.participant_label) == ("group", ("18", "22"))
    assert call(folder / "job.sh", "participant", **environ).returncode != 0  # no task number
    missing = call(folder / "job.sh", "participant", SLURM_ARRAY_TASK_ID="9", **environ)
    assert "no such line in participants.txt" in missing.stderr


@pytest.mark.parametrize("queue", ["sge", "pbs"])
def test_queues_that_are_not_here_get_three_jobs_in_order(small, tmp_path, queue):
    """With a mock qsub: each job waits for the one before."""
    program(tmp_path / "bin", "qsub", QSUB)
    folder = tmp_path / "jobs"
    assert write(small, tmp_path / "out", queue, folder, "--concurrent", "2") == 0
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = call(folder / "submit.sh", PATH=path, STATE=str(tmp_path / "state"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "stimulus 1, participants 2, group 3\n"
    job = folder / "job.sh"
    assert (tmp_path / "state").read_text().splitlines() == {
        "sge": [
            f"-terse {job} stimulus",
            f"-terse -hold_jid 1 -t 1-3 -tc 2 {job} participant",
            f"-terse -hold_jid 2 {job} group",
        ],
        "pbs": [
            f"-v LEVEL=stimulus {job}",
            f"-v LEVEL=participant -W depend=afterok:1 -J 1-3%2 {job}",
            f"-v LEVEL=group -W depend=afterany:2 {job}",
        ],
    }[queue]


@pytest.mark.slow
def test_without_a_queue_the_same_files(small, made, tmp_path):
    """Stories, two participants at once, and the group, each in a process of its own."""
    folder, out = tmp_path / "jobs", tmp_path / "array"
    assert write(small, out, "list", folder, "--concurrent", "2") == 0
    done = call(folder / "submit.sh")
    logs = "".join(p.read_text() for p in (folder / "logs").iterdir())
    assert done.returncode == 0, done.stderr + logs
    assert pages_apart(tree(out), tree(made)) == []
    assert (out / "group.html").is_file()
    assert leftovers(out) == []
    spoiled = small_alice.bold(small, "22")
    spoiled.write_bytes(spoiled.read_bytes()[:-900])
    assert write(small, tmp_path / "bad", "list", tmp_path / "again") == 0
    done = call(tmp_path / "again" / "submit.sh")
    assert done.returncode == 32
    assert "some participants failed" in done.stderr
    assert (tmp_path / "bad" / "group.html").is_file()  # of those who are done


@pytest.mark.slow
def test_slurm_runs_the_array_and_the_group(small, made, tmp_path, slurm):
    """A real Slurm: stories, an array of three tasks, and the group, each after the one before."""
    folder, out = tmp_path / "jobs", tmp_path / "array"
    own = ("--directive=--partition=main", "--concurrent", "2", "--memory-gb", "2")
    assert write(small, out, "slurm", folder, *own) == 0
    done = call(folder / "submit.sh", **slurm)
    assert done.returncode == 0, done.stderr
    end = time.monotonic() + 400
    while call("squeue", "--noheader", **slurm).stdout and time.monotonic() < end:
        time.sleep(1)
    logs = "".join(p.read_text() for p in (folder / "logs").iterdir())
    assert call("squeue", "--noheader", **slurm).stdout == "", logs
    assert len(list((folder / "logs").iterdir())) == 5, logs
    assert pages_apart(tree(out), tree(made)) == [], logs
    assert (out / "group.html").is_file(), logs
    assert leftovers(out) == []


# --- Jupyter ------------------------------------------------------------------------------------


def test_jupyter_is_started_in_the_image(tmp_path):
    """With a mock engine: folders are bound, and the token is in no argument."""
    image = program(tmp_path, "brainlm.sif", "")
    engine = program(tmp_path, "engine", ENGINE.replace("printf", "echo $0; printf"))
    environ = {
        "JUPYTER": str(tmp_path / "jupyter"), "IMAGE": str(image), "APPTAINER": str(engine),
        "OUT": "/scratch/out", "FOLDERS": "/data/a:/data/b", "NOTEBOOKS": "/notes",
    }
    done = call("bash", JUPYTER, "prepare", **environ)
    words = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert words[1:5] == ["exec", "--containall", "--cleanenv", "--no-home"]
    assert {"/data/a:/data/a:ro", "/data/b:/data/b:ro", "/scratch/out", "/notes"} <= set(words)
    assert words[words.index("--pwd") + 1] == "/notes"
    home, temporary = (next(w for w in words if w.startswith(f"{n}=")) for n in ("HOME", "TMPDIR"))
    assert home.partition("=")[2] == temporary.partition("=")[2]  # /tmp of an image is small
    start = words.index("sh")  # the image's own environment has no pip, its Python elsewhere has
    wanted = ["sh", "-c", 'exec "$(realpath "$0")" -m pip "$@"', "/opt/venv/bin/python", "install"]
    assert words[start : start + 5] == wanted
    assert call("bash", JUPYTER).returncode == 1  # JUPYTER is not set
    assert call("bash", JUPYTER, "x", **environ).returncode == 64
    assert call("bash", JUPYTER, "submit", **environ).returncode == 66  # not prepared


def _asked(url: str, token: str) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"token {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            json.loads(answer.read())
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.mark.slow
def test_jupyter_answers_on_a_node_of_slurm(tmp_path, slurm):
    """A real Slurm and the JupyterLab in BRAINLM_TEST_JUPYTER, without an image."""
    prepared = os.environ.get("BRAINLM_TEST_JUPYTER")
    if not prepared:
        pytest.skip("BRAINLM_TEST_JUPYTER names no folder made by jupyter.sh prepare")
    if os.cpu_count() < 2:
        pytest.skip("the job asks for two cores")
    folder = tmp_path / "jupyter"
    folder.mkdir()
    (folder / "packages").symlink_to(Path(prepared) / "packages")
    environ = {**slurm, "JUPYTER": str(folder), "PYTHON": sys.executable, "LOCAL": "1",
               "RELAY": "me@login", "NOTEBOOKS": str(tmp_path), "SBATCH_MEM_PER_NODE": "2G"}
    done = call("timeout", 120, "bash", JUPYTER, "submit", **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    address = next(line for line in lines if line.startswith("http://127.0.0.1:"))
    base, _, token = address.partition("/lab?token=")
    port = base.rpartition(":")[2]
    assert any(x.startswith(f"ssh -N -L {port}:127.0.0.1:{port} -J me@login ") for x in lines)
    assert _asked(f"{base}/api/kernelspecs", token) == 200
    assert _asked(f"{base}/api/kernelspecs", "wrong") == 403
    assert token not in call("ps", "-eo", "args").stdout
    (words,) = (folder / "jobs").glob("*.txt")
    assert words.stat().st_mode & 0o077 == 0
    cancel = next(line for line in lines if line.startswith("scancel "))
    assert call(*cancel.split(), **slurm).returncode == 0
    end = time.monotonic() + 60
    while call("squeue", "--noheader", **slurm).stdout and time.monotonic() < end:
        time.sleep(0.5)
    assert call("squeue", "--noheader", **slurm).stdout == ""
