"""Time, memory and disk of real calls beside what the cost model says, and growth curves.

    python -m benchmarks.scale units      calls on Alice and on simulated participants
    python -m benchmarks.scale growth     the fit by voxels, rows, layers and participants
    python -m benchmarks.scale group      group statistics of 345 x 80,000 voxels

Results go to ``benchmarks/results/scale.json``; a test holds the cost model against them.
``BRAINLM_SPACY`` is the spaCy pipeline of the call that decodes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bids_brainlm import cli
from bids_brainlm.plan import cost, fit, group, participant

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "scale.json"
ALICE = HERE.parent / "bids_brainlm" / "data" / "alice"
ALICE_ATLAS = "derivatives/atlas/tpl-MNI152NLin2009cAsym_atlas-Alice6_dseg.nii.gz"


def stored() -> dict[str, object]:
    """Return the results so far."""
    return json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}


def keep(name: str, content: object) -> None:
    """Add results."""
    made = {**stored(), name: content}
    made["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    RESULTS.write_text(json.dumps(made, indent=1) + "\n", "utf-8")


def simulated(
    folder: Path, stories: tuple[str, ...] = ("rabbithole",), n_parcels: int = 400
) -> tuple[Path, Path]:
    """Make two participants in the shape of Narratives: 3 mm, 400 volumes a story."""
    bids = folder / f"sim{len(stories)}"
    if not (bids / "dataset_description.json").is_file():
        subprocess.run(
            [
                sys.executable,
                "-m",
                "bids_brainlm.simulate.cli",
                str(bids),
                "--participants",
                "2",
                "--stories",
                *stories,
                "--atlas",
                f"blocks:{n_parcels}",
                "--run-seconds",
                "600",
                "--voxel-size",
                "3",
                "--model",
                "random:tiny-bert",
                "--context-trs",
                "0",
            ],
            check=True,
        )
    return bids, next(bids.rglob("*_dseg.nii.gz"))


def cases(folder: Path) -> dict[str, list[str]]:
    """Return calls by name, without the output folder."""
    bids, atlas = simulated(folder)
    two, atlas_of_two = simulated(folder, ("rabbithole", "goldenkey"), 100)
    model = ("--model", "minilm", "--offline", "--nprocs", "1")
    alice = (str(ALICE), "participant", "--atlas", str(ALICE / ALICE_ATLAS), *model)
    pipeline = ("--spacy-pipeline", os.environ.get("BRAINLM_SPACY", "en_core_web_lg"))
    two_layers = ("--features", "embeddings", "--layers", "3", "6", "--ladder", "none")
    heads = ("--features", "embeddings", "transformations", "heads", "--ladder", "none")
    more = ("--predictions", "--decoding", *pipeline, "--participant-label", "18", "22")
    by_voxel = ("--voxelwise", "--participant-label", "01", "--mem-gb", "8")
    of_one = [str(bids), "participant", *model]
    return {
        "alice": [*alice, "--participant-label", "18", "22", "23"],
        "parcels": [*of_one, "--atlas", str(atlas), "--features", "embeddings", "magnitudes"],
        "voxels": [*of_one, *two_layers, *by_voxel],
        "heads": [*alice, *heads, *more],
        "stories": [str(two), "participant", "--atlas", str(atlas_of_two), *model, *two_layers],
        "alice group": [str(ALICE), "group"],
    }


def units(folder: Path, only: str | None) -> None:
    """Measure each call of a step, in a process of its own for each case."""
    found = dict(stored().get("units") or {})
    for name, (bids, *rest) in cases(folder).items():
        if only and only != name:
            continue
        out = folder / name.partition(" ")[0]
        given = [bids, str(out), *rest]
        settings = cli.parse(given)
        level = group if settings.level == "group" else participant
        calls = cost.calls_of(level.plan(settings).jobs)
        subprocess.run([sys.executable, "-m", "bids_brainlm", *given], check=True)
        records = _records(max((out / "logs").glob("*.jsonl"), key=os.path.getmtime))
        rows = []
        for jobs in calls:
            own = [records[str(job.key)] for job in jobs if str(job.key) in records]
            if len(own) != len(jobs) or jobs[0].step == "linguistic":  # any pipeline may be given
                continue
            paths = [p for job in jobs for p in (job.record, *job.outputs.values())]
            rows.append(
                {
                    "step": jobs[0].step,
                    "unit": str(jobs[0].unit),
                    "size": asdict(cost.size_of(jobs, settings)),
                    "core_seconds": round(sum(r["core_seconds"] for r in own), 3),
                    "disk": sum(p.stat().st_size for p in paths),
                }
            )
        peak = max(r["peak_gb"] for r in records.values())
        found[name] = {
            "rows": rows,
            "peak_gb": peak,
            "need_gb": round(fit.peak_gb([j for c in calls for j in c], settings, 1), 3),
        }
        keep("units", found)
        report(name, found[name])


def report(name: str, case: dict[str, object]) -> None:
    """Print measured and estimated side by side."""
    print(f"{name}: memory {case['peak_gb']:.2f} GB, model {case['need_gb']:.2f} GB")
    for row in case["rows"]:
        said = cost.estimate(row["step"], cost.Size(**row["size"]))
        print(
            f"  {row['step']:<14} {row['core_seconds']:8.1f} s, model {said.seconds:8.1f} s; "
            f"{row['disk'] / 1e6:8.2f} MB, model {said.disk / 1e6:8.2f} MB  {row['unit']}"
        )


def _records(path: Path) -> dict[str, dict[str, object]]:
    """Return the log's lines by key."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {line["key"]: line for line in lines if not line.get("skipped")}


def _peak_of(function, *arguments) -> tuple[float, float]:
    """Return core seconds and largest memory (GB) of a call in a forked process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        begun = time.process_time()
        function(*arguments)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        os.write(write, json.dumps([time.process_time() - begun, peak]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return tuple(json.loads(text))


def _fit(n_rows: int, n_targets: int, n_columns: int, mem_gb: float) -> None:
    """Fit columns for one participant as the encoding step does, in pieces."""
    from bids_brainlm.numerics import blas, crossval, design, resampling
    from bids_brainlm.steps import encoding_runs

    rng = np.random.default_rng(1)
    plan = crossval.make_plan(
        np.arange(n_rows),
        n_folds=5,
        n_inner=3,
        gap=4,
        n_bands=2,
        n_gammas=10,
        alphas=np.logspace(0, 5, 8),
        delays=(2, 3, 4, 5),
        seed=1,
    )
    y = rng.standard_normal((n_rows, n_targets), dtype=np.float32).astype(np.float64)
    bands = [
        design.Band("counts", rng.standard_normal((n_rows, 2)), np.ones(n_rows, bool)),
        design.Band("model", rng.standard_normal((n_rows, 384)), np.ones(n_rows, bool)),
    ]
    pieces = encoding_runs.pieces([n_targets], n_rows, 2, n_workers=1, mem_gb=mem_gb)
    with blas.single_threaded():
        for _ in range(n_columns):
            for piece in pieces:
                ((_, some),) = piece
                (found,) = crossval.crossvalidate(bands, [y[:, some]], plan, main="model")
                resampling.block_permutation_test(
                    found.prediction,
                    found.observed,
                    block_length=15,
                    n_permutations=100,
                    rng=np.random.default_rng(1),
                    segments=plan.segments,
                )


def growth() -> None:
    """Measure the fit at several sizes and fit exponents."""
    curves = {
        "voxels": [((300, n, 1, 8.0), n) for n in (1000, 4000, 16_000)],
        "rows": [((n, 1000, 1, 8.0), n) for n in (200, 400, 800)],
        "layers": [((300, 1000, n, 8.0), n) for n in (1, 2, 4)],
    }
    made = {}
    for name, points in curves.items():
        rows = []
        for arguments, size in points:
            seconds, peak = _peak_of(_fit, *arguments)
            rows.append(
                {"size": size, "core_seconds": round(seconds, 2), "peak_gb": round(peak, 3)}
            )
            print(name, rows[-1])
        logs = np.log([[r["size"], r["core_seconds"]] for r in rows])
        made[name] = {"rows": rows, "exponent": round(float(np.polyfit(*logs.T, 1)[0]), 2)}
        keep("growth", made)


def voxels() -> None:
    """80,000 voxels x 1,000 rows within 8 GB."""
    seconds, peak = _peak_of(_fit, 1000, 80_000, 1, 8.0)
    keep(
        "voxelwise",
        {
            "n_voxels": 80_000,
            "n_trs": 1000,
            "mem_gb": 8.0,
            "core_seconds": round(seconds, 1),
            "peak_gb": round(peak, 2),
        },
    )
    print(stored()["voxelwise"])


def _group() -> None:
    """Sign flips and bootstrap of 345 participants x 80,000 voxels."""
    from bids_brainlm.numerics import resampling

    values = np.random.default_rng(1).standard_normal((345, 80_000), dtype=np.float32) * 0.1
    rng = np.random.default_rng(2)
    resampling.sign_flip_test(values.astype(np.float64), n_permutations=1000, rng=rng)


def grouped() -> None:
    """Measure `_group`."""
    seconds, peak = _peak_of(_group)
    keep(
        "group",
        {
            "n_participants": 345,
            "n_voxels": 80_000,
            "n_permutations": 1000,
            "core_seconds": round(seconds, 1),
            "peak_gb": round(peak, 2),
        },
    )
    print(stored()["group"])


def main() -> None:
    """Run what is asked for."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("what", choices=("units", "growth", "voxels", "group", "report"))
    made.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "brainlm-scale")
    made.add_argument("--only")
    given = made.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.what == "units":
        units(given.folder, given.only)
    elif given.what == "report":
        for name, case in dict(stored()["units"]).items():
            report(name, case)
    else:
        {"growth": growth, "voxels": voxels, "group": grouped}[given.what]()


if __name__ == "__main__":
    main()
