"""The same results whoever does the work: threads, a Dask cluster, Slurm jobs, many processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import small_alice
import xarray
from small_alice import arguments, leftovers, start, tree

from bids_brainlm import cli, config, runner
from bids_brainlm.executors import memory
from bids_brainlm.executors.work import Local
from bids_brainlm.plan import fit, participant, sizes

pytestmark = pytest.mark.thorough


def same(out: Path, reference: Path) -> list[str]:
    """Return the files that differ; of netCDF files the values count, as the contract says.

    Seen once in many runs: a worker wrote the same values in another layout of HDF5. Not seen
    in 2,000 writes under load (threads, Dask workers, other hash seeds, garbage collected at
    other moments, freed memory filled with other bytes).
    """
    one, two = tree(out), tree(reference)
    found = sorted(n for n in {*one, *two} if one.get(n) != two.get(n))
    arrays = [n for n in found if n.endswith(".nc") and n in one and n in two]
    alike = []
    for name in arrays:
        with xarray.open_dataset(out / name) as a, xarray.open_dataset(reference / name) as b:
            if a.identical(b):
                alike += [name, name.replace(".nc", ".json")]
    for name in alike[1::2]:
        a, b = (json.loads((folder / name).read_text()) for folder in (out, reference))
        sums = {"Outputs": 0, "Checksum": 0}
        assert {**a, **sums} == {**b, **sums}
    return [n for n in found if n not in alike]


def _run(bids, out, *more, level="participant"):
    return cli.main(arguments(bids, out, *more, level=level))


def _plan(bids, out, *more):
    settings = cli.parse(arguments(bids, out, *more))
    return settings, participant.plan(settings).jobs


# --- memory -------------------------------------------------------------------------------------


def _system(root, *, groups="", files=(), available=8_000_000):
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(
        f"MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n"
    )
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files:
        path = root / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_memory_without_groups_is_what_is_available(tmp_path):
    root = _system(tmp_path)
    assert memory.free_gb(root) == pytest.approx(0.9 * 8.192)
    assert memory.limit_gb(root) == pytest.approx(16.384)
    assert memory.free_gb(tmp_path / "nothing") == 4.0


V2 = [
    ("a/memory.max", "max\n"),
    ("a/memory.current", "5\n"),
    ("a/b/memory.max", "3000000000\n"),
    ("a/b/memory.current", "1200000000\n"),
    ("a/b/memory.stat", "anon 1\ninactive_file 200000000\n"),
]
V1 = [
    ("memory/memory.limit_in_bytes", str(2**63 - 4096)),
    ("memory/memory.usage_in_bytes", "1"),
    ("memory/job/memory.limit_in_bytes", "2000000000"),
    ("memory/job/memory.usage_in_bytes", "500000000"),
]


@pytest.mark.parametrize(
    ("groups", "files", "free", "limit"),
    [
        ("0::/a/b\n", V2, 2.0, 3.0),
        ("0::/a/b/c\n", V2, 2.0, 3.0),  # a limit of a parent
        ("4:memory:/job\n0::/\n", V1, 1.5, 2.0),
        ("4:cpu,memory:/gone\n", V1, 8.192, 16.384),
        ("0::/elsewhere\n", [("memory.max", "1000000000"), ("memory.current", "0")], 1.0, 1.0),
    ],
)
def test_memory_heeds_control_groups(tmp_path, groups, files, free, limit):
    root = _system(tmp_path, groups=groups, files=files)
    assert memory.free_gb(root) == pytest.approx(0.9 * free)
    assert memory.limit_gb(root) == pytest.approx(limit)


def test_threads_are_as_many_as_fit():
    local = Local(8, 4.0, lambda text: None)
    assert local.shape((1.0, 1.0)) == (3, 4.0)
    assert local.shape((1.0, 0.0)) == (8, 4.0)
    assert local.shape((3.9, 2.0)) == (1, 4.0)


def test_what_cannot_fit_is_refused_before_anything_is_written(small, tmp_path, capsys):
    assert _run(small, tmp_path / "out", "--mem-gb", "0.5") == 64
    error = capsys.readouterr().err
    assert "needs at least" in error
    assert "--mem-gb is 0.5 GB" in error
    assert "would fit; or give --mem-gb" in error
    assert not (tmp_path / "out").exists()
    assert _run(small, tmp_path / "out", "--mem-gb", "0.5", "--dry-run") == 64


def test_voxels_need_more_and_an_atlas_is_proposed(small, tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "_in_mask", lambda path: 80_000.0)
    monkeypatch.setattr(fit, "image_shape", lambda path: (97, 115, 97, 1000))
    monkeypatch.setattr(fit, "n_trs_of", lambda job: 1000)
    settings, jobs = _plan(small, tmp_path / "out", "--mem-gb", "8")
    assert fit.largest_gb(jobs, settings) < 8
    voxels = replace(settings, inputs=replace(settings.inputs, voxelwise=True))
    assert fit.largest_gb(jobs, voxels) > fit.largest_gb(jobs, settings)
    fit.refuse_what_cannot_fit(jobs, voxels)
    less = replace(voxels, execution=replace(voxels.execution, mem_gb=3.0))
    with pytest.raises(config.ConfigError) as caught:
        fit.refuse_what_cannot_fit(jobs, less)
    assert "--atlas in the place of --voxelwise" in caught.value.hint


def test_waves_keep_the_order_of_dependence(small, tmp_path):
    _, jobs = _plan(small, tmp_path / "out")
    waves = runner._waves(jobs)
    place = {job.record: k for k, wave in enumerate(waves) for job in wave}
    assert sum(map(len, waves)) == len(jobs)
    assert all(place[u.record] < place[job.record] for job in jobs for u in job.upstream)
    assert {job.step for job in waves[0]} == {"words", "parcels"}


def test_pieces_of_targets_change_no_byte(done, monkeypatch):
    """Targets cut into the smallest pieces: the same files."""
    from bids_brainlm.steps import encoding_runs

    bids, out = done
    before = tree(out)
    monkeypatch.setattr(encoding_runs, "FEWEST", 1)
    monkeypatch.setattr(encoding_runs, "PANEL", 1)
    monkeypatch.setattr(encoding_runs, "_LOADED", 1e12)
    monkeypatch.setattr(encoding_runs, "BATCH_SHARE", 1e-9)
    for folder in out.glob("sub-*/func"):
        shutil.rmtree(folder)
    assert encoding_runs.pieces([3, 2], 100, 2, n_workers=1, mem_gb=4.0)[1] == [(0, slice(1, 2))]
    assert _run(bids, out) == 0
    assert tree(out) == before


def test_pieces_hold_every_target_once(rng):
    from bids_brainlm.steps import encoding_runs

    for _ in range(200):
        widths = rng.integers(0, 9000, rng.integers(1, 6)).tolist()
        mem_gb = float(rng.uniform(0.7, 3))
        made = encoding_runs.pieces(widths, 400, 4, n_workers=2, mem_gb=mem_gb)
        seen = {k: [] for k in range(len(widths))}
        for piece in made:
            assert sum(s.stop - s.start for _, s in piece) <= max(
                1000, (mem_gb * 1e9 - 6e8) / 2 / (8 * 400 * 12)
            )
            for k, some in piece:
                assert some.start % 8 == 0
                seen[k] += range(some.start, some.stop)
        assert seen == {k: list(range(n)) for k, n in enumerate(widths)}


# --- Dask ---------------------------------------------------------------------------------------


def test_an_executor_that_is_not_installed_names_its_extra(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert _run(small, tmp_path / "out", "--executor", "dask") == 66
    error = capsys.readouterr().err
    assert "needs the Python package distributed" in error
    assert "pip install 'bids_brainlm[dask]'" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--dask-scheduler", "tcp://x:1"], "--dask-scheduler tcp://x:1 goes with --executor dask"),
        (["--executor", "slurm", "--dask-scheduler", "x"], "goes with --executor dask"),
        (["--slurm-options=--time=1"], "goes with --executor slurm"),
        (["--executor", "pbs"], "expected one of local, dask, slurm"),
    ],
)
def test_flags_of_executors_go_together(small, tmp_path, capsys, flags, expected):
    assert _run(small, tmp_path / "out", *flags) == 64
    assert expected in capsys.readouterr().err


def test_no_scheduler_answers(small, tmp_path, capsys, monkeypatch):
    clusters = pytest.importorskip("bids_brainlm.executors.clusters")
    pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 1)
    given = ["--executor", "dask", "--dask-scheduler", "tcp://127.0.0.1:9"]
    assert _run(small, tmp_path / "out", *given) == 66
    error = capsys.readouterr().err
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("says", "expected"),
    [(None, "found no sinfo here"), ("exit 1", "Slurm does not answer: slurm_load: no contact")],
)
def test_no_slurm_answers(small, tmp_path, capsys, monkeypatch, says, expected):
    """A mock sinfo, or none, in the place of a Slurm that cannot be reached: nothing is written."""
    pytest.importorskip("dask_jobqueue", reason="the extra 'slurm' is not installed")
    (tmp_path / "bin").mkdir()
    if says is not None:
        (tmp_path / "bin" / "sinfo").write_text(
            f"#!/bin/sh\necho 'slurm_load: no contact' >&2\n{says}\n"
        )
        (tmp_path / "bin" / "sinfo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert _run(small, tmp_path / "out", "--executor", "slurm") == 66
    error = capsys.readouterr().err
    assert expected in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def _finish(run: subprocess.Popen, seconds: float = 200) -> str:
    try:
        return run.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        run.kill()
        pytest.fail("timed out: " + run.communicate()[1][-3000:])


@pytest.mark.slow
def test_dask_makes_the_same_files_though_a_worker_is_killed(small, made, tmp_path):
    """Two worker processes; one is killed as soon as it has been seen at work."""
    pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    out = tmp_path / "out"
    run = start(*arguments(small, out, "--executor", "dask", "--nprocs", "2"))
    killed = threading.Event()

    def kill_one() -> None:
        seen = time.monotonic() + 100
        while time.monotonic() < seen and run.poll() is None:
            if list(out.glob("sub-*/func/*timeseries.tsv")):
                for pid in _workers_of(run.pid):
                    os.kill(pid, signal.SIGKILL)
                    killed.set()
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one)
    killer.start()
    text = _finish(run)
    killer.join()
    assert run.returncode == 0, text
    assert killed.is_set()
    assert "dashboard: http" in text
    assert "Traceback" not in text
    assert same(out, made) == []
    assert leftovers(out) == []
    assert _workers_of(run.pid) == []


def _workers_of(parent: int) -> list[int]:
    """Return the worker processes that a process started, by their command lines."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            status = (folder / "status").read_text()
            command = (folder / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if f"PPid:\t{parent}\n" in status and b"spawn_main" in command:
            found.append(int(folder.name))
    return found


@contextmanager
def _scheduler(folder: Path, n_workers: int):
    """Run ``dask scheduler`` and ``dask worker`` as on a cluster."""
    names = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--port",
        "0",
        "--scheduler-file",
        str(folder / "scheduler.json"),
        "--no-dashboard",
    ]
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        "--nthreads",
        "1",
        "--nworkers",
        str(n_workers),
        "--scheduler-file",
        str(folder / "scheduler.json"),
        "--no-dashboard",
        "--local-directory",
        str(folder),
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = small_alice.environment()
    running = [subprocess.Popen(names, cwd=folder, env=environment, **quiet)]
    running.append(subprocess.Popen(worker, cwd=folder, env=environment, **quiet))
    try:
        end = time.monotonic() + 60
        while not (folder / "scheduler.json").is_file() and time.monotonic() < end:
            time.sleep(0.1)
        yield json.loads((folder / "scheduler.json").read_text())["address"]
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(30)


@pytest.mark.slow
def test_a_scheduler_that_runs_already(small, made, tmp_path, capfd):
    """Participant and group level; workers have another working directory."""
    pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    (tmp_path / "cluster").mkdir()
    out = tmp_path / "out"
    with _scheduler(tmp_path / "cluster", 2) as address:
        given = ["--executor", "dask", "--dask-scheduler", address]
        assert _run(small, out, *given) == 0
        assert tree(out) == tree(made)
        assert _run(small, out, *given, level="group") == 0
        both = tree(out)
        spoiled = small_alice.bold(small, "22")
        spoiled.write_bytes(spoiled.read_bytes()[:-900])
        assert _run(small, tmp_path / "bad", *given, "--on-error", "continue") == 32
    local = shutil.copytree(made, tmp_path / "local")
    assert _run(small, local, level="group") == 0
    assert both == tree(local)
    error = capfd.readouterr().err
    assert "1 failed (22), 2 participants are done" in error
    assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_dask_run_leaves_no_worker(small, tmp_path, signum):
    pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    out = tmp_path / "out"
    run = start(*arguments(small, out, "--executor", "dask", "--nprocs", "2"))
    end = time.monotonic() + 100
    while not list(out.glob("sub-*/func/*timeseries.tsv")) and time.monotonic() < end:
        time.sleep(0.05)
    workers = _workers_of(run.pid)
    assert workers
    run.send_signal(signum)
    begun = time.monotonic()
    text = _finish(run, 60)
    assert run.returncode == 130, text
    assert time.monotonic() - begun < 15
    time.sleep(1)
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []
    assert _run(small, out) == 0
    assert leftovers(out) == []


# --- Slurm --------------------------------------------------------------------------------------


def _jobs(environment: dict[str, str]) -> list[str]:
    listed = subprocess.run(
        ["squeue", "--noheader", "-o", "%i %T"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return listed.stdout.splitlines()


@pytest.mark.slow
def test_slurm_makes_the_same_files_though_a_job_is_cancelled(
    small, made, tmp_path, slurm, monkeypatch
):
    pytest.importorskip("dask_jobqueue", reason="the extra 'slurm' is not installed")
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "out"
    given = [
        "--executor",
        "slurm",
        "--nprocs",
        "2",
        "--mem-gb",
        "3",
        "--slurm-options=--partition=main --time=00:20:00",
    ]
    run = start(*arguments(small, out, *given))
    end, cancelled = time.monotonic() + 120, False
    while run.poll() is None and time.monotonic() < end and not cancelled:
        running = [line.split()[0] for line in _jobs(slurm) if line.endswith("RUNNING")]
        if running and list(out.glob("sub-*/func/*timeseries.tsv")):
            subprocess.run(["scancel", "--signal=KILL", "--full", running[0]], check=True)
            cancelled = True
        time.sleep(0.05)
    text = _finish(run)
    assert run.returncode == 0, text
    assert cancelled
    assert "2 jobs of 3.0 GB are asked for" in text
    assert same(out, made) == []
    assert list((out / "logs" / "slurm").iterdir())
    end = time.monotonic() + 30
    while _jobs(slurm) and time.monotonic() < end:
        time.sleep(0.5)
    assert [line for line in _jobs(slurm) if "RUNNING" in line or "PENDING" in line] == []


@pytest.mark.slow
def test_slurm_refuses_a_partition_that_is_not_there(small, tmp_path, slurm, monkeypatch, capsys):
    pytest.importorskip("dask_jobqueue", reason="the extra 'slurm' is not installed")
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    given = ["--executor", "slurm", "--slurm-options=--partition=nowhere"]
    assert _run(small, tmp_path / "out", *given) == 64
    error = capsys.readouterr().err
    assert "Slurm takes no jobs of this kind" in error
    assert "--slurm-options" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_plain_job_array_into_one_folder(small, made, tmp_path, slurm):
    """One participant command a task; the first to come makes the story."""
    participants = small_alice.PARTICIPANTS
    out = tmp_path / "out"
    command = " ".join(small_alice.command(*arguments(small, out, "--participant-label", "$LABEL")))
    script = tmp_path / "array.sh"
    script.write_text(
        f"#!/bin/bash\n#SBATCH --array=0-{len(participants) - 1}\n#SBATCH --mem=2G\n"
        f"#SBATCH --output={tmp_path}/%a.out\nlabels=({' '.join(participants)})\n"
        f"LABEL=${{labels[$SLURM_ARRAY_TASK_ID]}}\n{command}\n"
    )
    done = subprocess.run(
        ["sbatch", "--wait", str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**small_alice.environment(), **slurm},
        timeout=300,
    )
    texts = "".join(p.read_text() for p in tmp_path.glob("*.out"))
    assert done.returncode == 0, done.stderr + texts
    assert tree(out) == tree(made)


# --- many processes, one folder -----------------------------------------------------------------


@pytest.mark.slow
def test_eight_processes_in_one_folder(small, made, tmp_path):
    """Same and different participants, all at once, first run of the story."""
    out = tmp_path / "out"
    groups = [("18",), ("22",), ("23",), ("18", "22"), ("22", "23"), ("23", "18"), (), ()]
    runs = [
        start(*arguments(small, out, *(["--participant-label", *g] if g else []))) for g in groups
    ]
    for run in runs:
        text = _finish(run, 400)
        assert run.returncode == 0, text
        assert "Traceback" not in text
    assert tree(out) == tree(made)
    assert leftovers(out) == []
