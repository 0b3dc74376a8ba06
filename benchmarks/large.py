"""A voxelwise study through the app: 80,000 voxels of a participant, and a group of 345.

    python -m benchmarks.large participant     within --mem-gb 8
    python -m benchmarks.large group           within --mem-gb 24; needs the above

One participant is simulated on a 3 mm grid, with a brain of 80,000 voxels and one story of 400
volumes, and the app is run on it. For the group its results are taken 345 times: series and maps
in eight variants, as hard links. Core seconds and the largest memory are those of the whole
command, as the system counts them. Goes to ``results/scale.json``, under ``large``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import xarray

from benchmarks.people import seal, variants
from benchmarks.scale import keep, stored
from bids_brainlm.bidsio import write
from bids_brainlm.simulate import images

N_VOXELS, N_PARCELS = 80_000, 100
N_PEOPLE, N_VARIANTS = 345, 8
VOXEL_SIZE, RUN_SECONDS = 3.0, 600
MEM_GB = {"participant": 8.0, "group": 24.0}
MODEL = "minilm"
FLAGS = (
    "--voxelwise", "--model", MODEL, "--features", "embeddings", "--layers", "6", "--ladder",
    "none", "--across", "none", "--offline", "--nprocs", "1",
)  # fmt: skip
VARIED = ("stat-r_boldmap.tsv", "stat-rjoint_boldmap.tsv", "stat-unique_boldmap.tsv")
READ = (*VARIED, "stat-r2_boldmap.tsv", "_timeseries.nc", "stat-label_")  # by the group level


def brain() -> np.ndarray:
    """Return labels of 100 parcels on the grid of the images: an ellipsoid of 80,000 voxels."""
    shape, _ = images.mni_grid(VOXEL_SIZE)
    places = np.indices(shape).reshape(3, -1)
    centre = (np.array(shape)[:, None] - 1) / 2
    radius = (((places - centre) / centre) ** 2).sum(axis=0)
    inside = np.sort(np.argsort(radius, kind="stable")[:N_VOXELS])
    labels = np.zeros(np.prod(shape), np.int16)
    labels[inside] = 1 + np.arange(N_VOXELS) * N_PARCELS // N_VOXELS
    return labels.reshape(shape)


def simulate(folder: Path) -> Path:
    """Make the dataset of one participant; return its folder."""
    bids, atlas = folder / "sim", folder / "atlas-Brain_dseg.nii.gz"
    if (bids / "dataset_description.json").is_file():
        return bids
    nibabel.save(nibabel.Nifti1Image(brain(), images.mni_grid(VOXEL_SIZE)[1]), atlas)
    numbers = range(1, N_PARCELS + 1)
    table = {"index": list(numbers), "name": [f"P{n:03d}" for n in numbers]}
    write.write_tsv(atlas.with_name("atlas-Brain_dseg.tsv"), table)
    call = [sys.executable, "-m", "bids_brainlm.simulate.cli", str(bids), "--participants", "001"]
    call += ["--stories", "rabbithole", "--atlas", str(atlas), "--run-seconds", str(RUN_SECONDS)]
    call += ["--voxel-size", str(VOXEL_SIZE), "--model", "random:tiny-bert", "--context-trs", "0"]
    subprocess.run(call, check=True)
    return bids


def variants_of_series(path: Path, folder: Path) -> list[Path]:
    """Return copies of voxelwise series with noise of their own."""
    with xarray.open_dataset(path, engine="h5netcdf") as given:
        series = given.load()
    made = []
    for number in range(N_VARIANTS):
        rng = np.random.default_rng(number)
        noise = rng.standard_normal(series["series"].shape, dtype=np.float32)
        made.append(folder / f"{number}-{path.name}")
        write.write_netcdf(made[-1], series.assign(series=series["series"] + noise))
    return made


def clone(source: Path, to: Path, scratch: Path, n_people: int) -> None:
    """Make the results of many of those of one."""
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        name = path.relative_to(source).as_posix()
        if name.startswith("logs/") or name.endswith((".html", ".svg")):
            continue
        if "sub-001" not in name:
            links, people = [path], [""]
        elif path.suffix == ".json" or name.endswith(READ) or "stat-label_" in name:
            links = variants(path, scratch) if name.endswith(VARIED) else [path]
            links = variants_of_series(path, scratch) if path.suffix == ".nc" else links
            people = [f"sub-{k + 1:03d}" for k in range(n_people)]
        else:
            continue
        for number, person in enumerate(people):
            new = to / name.replace("sub-001", person)
            new.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".json":
                new.write_text(path.read_text("utf-8").replace("sub-001", person), "utf-8")
            else:
                os.link(links[number % len(links)], new)
    seal(to)


def measured(arguments: list[str], mem_gb: float) -> dict[str, float]:
    """Run the app; return seconds, core seconds and the largest memory (GB) of the command."""
    begun = time.monotonic()
    call = [sys.executable, "-m", "bids_brainlm", *arguments, "--mem-gb", f"{mem_gb:g}"]
    child = subprocess.Popen(call)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(call)} ended with {child.returncode}")
    return {
        "mem_gb": mem_gb,
        "seconds": round(time.monotonic() - begun, 1),
        "core_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 3),
    }


def steps(out: Path) -> dict[str, float]:
    """Return the core seconds of each step of the last command."""
    log = max((out / "logs").glob("*.jsonl"), key=os.path.getmtime)
    found: Counter[str] = Counter()
    for line in log.read_text("utf-8").splitlines():
        record = json.loads(line)
        found[record["step"]] += record.get("core_seconds", 0.0)
    return {step: round(seconds, 1) for step, seconds in found.items() if seconds}


def participant(folder: Path, more: list[str], mem_gb: float) -> dict[str, object]:
    """Measure the participant level."""
    out = folder / "made"
    shutil.rmtree(out, ignore_errors=True)
    row = measured([str(simulate(folder)), str(out), "participant", *FLAGS, *more], mem_gb)
    image = nibabel.load(next((folder / "sim").rglob("*_desc-preproc_bold.nii.gz")))
    sizes = {"n_voxels": N_VOXELS, "n_volumes": image.shape[3], "flags": " ".join(more)}
    return {**sizes, **row, "steps": steps(out)}


def group(folder: Path, more: list[str], mem_gb: float, n_people: int) -> dict[str, object]:
    """Measure the group level."""
    out, scratch = folder / f"out{n_people}", folder / "scratch"
    for place in (out, scratch):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    clone(folder / "made", out, scratch, n_people)
    row = measured([str(folder / "sim"), str(out), "group", *more], mem_gb)
    sizes = {"n_participants": n_people, "n_voxels": N_VOXELS, "flags": " ".join(more)}
    found = {**sizes, **row, "steps": steps(out)}
    for place in (out, scratch):
        shutil.rmtree(place)
    return found


def main() -> None:
    """Measure what is asked for; further options go to the app."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("what", choices=("participant", "group"))
    made.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "brainlm-large")
    made.add_argument("--memory-gb", type=float, help="default: 8, and 24 for the group")
    made.add_argument("--people", type=int, default=N_PEOPLE)
    given, more = made.parse_known_args()
    folder, mem_gb = given.folder.resolve(), given.memory_gb or MEM_GB[given.what]
    folder.mkdir(parents=True, exist_ok=True)
    if given.what == "participant":
        row = participant(folder, more, mem_gb)
    else:
        row = group(folder, more, mem_gb, given.people)
    print(json.dumps(row, indent=1))
    if given.people == N_PEOPLE:
        keep("large", {**dict(stored().get("large") or {}), given.what: row})


if __name__ == "__main__":
    main()
