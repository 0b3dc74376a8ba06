"""Calls of the command line: start-up, dry run of the real Narratives tree, resume."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.common import Result

HERE = Path(__file__).parent
DATA = Path(os.environ.get("BRAINLM_TEST_DATA", HERE.parent.parent / "shared" / "data"))
ATLAS = "Schaefer2018_100Parcels17Networks"
N_VOLUMES = 1300


def call_seconds(arguments: list[str], repeats: int) -> tuple[float, str]:
    """Return the median CPU seconds of a call in a process of its own, and what it printed."""
    times = []
    env = {**os.environ, "TEMPLATEFLOW_HOME": str(DATA / "templateflow")}
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "bids_brainlm", *arguments],
            capture_output=True, text=True, check=True, env=env,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(times), done.stdout


def help_text(quick: bool) -> Result:
    """``--help``."""
    seconds, _ = call_seconds(["--help"], 3 if quick else 7)
    return Result("--help", "asked: 0.5 s", seconds, ())


def tree(folder: Path) -> Path:
    """Unpack the real tree; its derivatives get small images without content."""
    for name in ("skeleton_regular_files", "annex_symlinks_only"):
        with tarfile.open(DATA / "narratives" / f"ds002345_v1.1.4_{name}.tar.gz") as stream:
            stream.extractall(folder, filter="tar")
    root = folder / "ds002345"
    affine = np.diag([50.0, 50.0, 50.0, 1.0])
    image = nib.Nifti1Image(np.zeros((4, 4, 4, N_VOLUMES), np.uint8), affine)
    image.header.set_zooms((50, 50, 50, 1.5))
    image.header.set_xyzt_units("mm", "sec")
    bold = gzip.compress(image.to_bytes())
    table = "framewise_displacement\n" + "0.1\n" * N_VOLUMES
    with gzip.open(DATA / "narratives" / "derivative_filenames.tsv.gz", "rt") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            path = root / row["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".tsv":
                path.write_text(table)
            else:
                path.write_bytes(bold if path.name.endswith(".nii.gz") else b"-")
    for one in (root / "derivatives").iterdir():
        content = {"Name": one.name, "BIDSVersion": "1.6.0", "DatasetType": "derivative"}
        (one / "dataset_description.json").write_text(json.dumps(content))
    return root


def arguments(root: Path, out: Path) -> list[str]:
    """All stories with a transcript, all participants."""
    return [
        str(root), str(out), "participant", "--offline", "--atlas", ATLAS, "--model", "minilm",
        "--transcripts", str(DATA / "narratives"), "--denoise", "none", "--dry-run",
    ]  # fmt: skip


def dry_run(quick: bool) -> Result:
    """``--dry-run`` on the real tree."""
    with tempfile.TemporaryDirectory() as name:
        root = tree(Path(name))
        seconds, out = call_seconds(arguments(root, Path(name) / "out"), 1 if quick else 3)
    units = sum(line.startswith("  missing") for line in out.splitlines())
    more = [line for line in out.splitlines() if "more units" in line]
    units += int(more[0].split()[2]) if more else 0
    return Result("--dry-run, real ds002345", f"{units} units; asked: 3 s", seconds, ())


def pretend(given: list[str]) -> tuple[int, int]:
    """Write the outputs that a call would make, 9 kB each; returns units and files."""
    from bids_brainlm import cli
    from bids_brainlm.plan import participant
    from bids_brainlm.steps import base

    os.environ["TEMPLATEFLOW_HOME"] = str(DATA / "templateflow")
    with contextlib.redirect_stderr(io.StringIO()):
        plan = participant.plan(cli.parse(given))
    n_files = 0
    for job in plan.jobs:
        root, sums = base._root(job), {}
        for path in job.outputs.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            content = str(path).encode() + b"0.123456\n" * 1000
            path.write_bytes(content)
            name = path.relative_to(root).as_posix()
            sums[name] = hashlib.sha256(content).hexdigest()
        job.record.parent.mkdir(parents=True, exist_ok=True)
        entries = {**base.plain(base.stamp(job)), "Outputs": dict(sorted(sums.items()))}
        record = {**entries, "Checksum": base._checksum(entries)}
        job.record.write_text(json.dumps(record, indent=2))
        n_files += len(sums)
    return len(plan.jobs), n_files


def resume(quick: bool) -> Result:
    """Find a study of all stories finished: read every record, hash every output."""
    with tempfile.TemporaryDirectory() as name:
        root, out = tree(Path(name)), Path(name) / "out"
        given = arguments(root, out)
        n_units, n_files = pretend(given)
        seconds, printed = call_seconds(given, 1 if quick else 3)
    if "missing  " in printed:
        raise RuntimeError(f"the outputs are not taken as done: {printed[:2000]}")
    whole = seconds * 345 * 27 / n_units
    return Result(
        "resume of a finished study",
        f"345 x 27 units; {seconds:.1f} s for {n_units} units with {n_files} files; asked: 10 s",
        whole,
        (),
    )
