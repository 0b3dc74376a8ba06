"""How time and memory grow: participants, parcels, TRs, columns, gammas, alphas.

    python -m benchmarks.growth            all curves
    python -m benchmarks.growth --quick    smaller shapes

Each point is one outer fold of a layer (search, refit, predictions). The exponent is the slope
of log(time) on log(size) over the whole curve, and over its last two points.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import encoding
from benchmarks.common import cpu_seconds, machine, peak_mib
from bids_brainlm.numerics import blas

HERE = Path(__file__).parent
BASE = encoding.Row("base", alphas=tuple(np.logspace(0, 6, 5)), n_targets=500)
N_GAMMAS = 50
CURVES = {
    "participants": (1, 2, 4, 8, 16),
    "parcels": (250, 500, 1000, 2000, 4000, 8000),
    "TRs": (200, 400, 800, 1600),
    "columns": (192, 768, 3072, 9216),
    "gammas": (10, 25, 50, 100),
    "alphas": (1, 2, 5, 10, 20),
}


def problem_of(curve: str, size: int) -> encoding.Problem:
    """Return the base problem with one of its sizes changed."""
    changed = {
        "participants": {"n_people": size},
        "parcels": {"n_targets": size},
        "TRs": {"n_trs": size},
        "columns": {"columns": (1, 2, 40, size)},
        "gammas": {},
        "alphas": {"alphas": tuple(np.logspace(0, 6, size))},
    }[curve]
    return encoding.simulate(replace(BASE, **changed)).some(size if curve == "gammas" else N_GAMMAS)


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Return the slope of log(time) on log(size)."""
    return round(float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]), 2)


def measure(curve: str, sizes: tuple[int, ...], repeats: int) -> dict[str, object]:
    """Run one curve; the points take turns."""
    problems = {size: problem_of(curve, size) for size in sizes}
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size, problem in problems.items():
            times[size].append(cpu_seconds(lambda p=problem: encoding.ours(p)))
    seconds = [statistics.median(times[size]) for size in sizes]
    memory = [peak_mib(lambda p=problem: encoding.ours(p)) for problem in problems.values()]
    return {
        "sizes": list(sizes),
        "cpu_seconds": [round(value, 3) for value in seconds],
        "peak_mib": [round(value) for value in memory],
        "exponent": exponent(list(sizes), seconds),
        "exponent_at_the_end": exponent(list(sizes[-2:]), seconds[-2:]),
        "load": round(os.getloadavg()[0], 1),
    }


def markdown(table: dict[str, object]) -> str:
    """Return the table as Markdown."""
    lines = ["| by | sizes | CPU s | MiB | exponent | at the end |", "|---|---|---|---|---|---|"]
    for name, curve in table["curves"].items():
        cells = (", ".join(map(str, curve[key])) for key in ("sizes", "cpu_seconds", "peak_mib"))
        lines.append(
            f"| {name} | {' | '.join(cells)} | **{curve['exponent']}** | "
            f"{curve['exponent_at_the_end']} |"
        )
    n = len(BASE.alphas)
    lines += [
        "",
        f"Others at 1 participant x {BASE.n_targets} parcels, {BASE.n_trs} TRs, bands of "
        f"{', '.join(str(4 * c) for c in BASE.columns)} columns, {N_GAMMAS} gammas, {n} alphas, "
        f"{BASE.n_outer} x {BASE.n_inner} folds; one BLAS thread; {table['machine']['cpu']}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the curves and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the first three points, once")
    parser.add_argument("--to", type=Path, default=HERE / "results", metavar="FOLDER")
    given = parser.parse_args()
    table = {"machine": machine(), "quick": given.quick, "curves": {}}
    with blas.single_threaded():
        for name, sizes in CURVES.items():
            some = sizes[:3] if given.quick else sizes
            table["curves"][name] = measure(name, some, 1 if given.quick else 3)
            print(name, json.dumps(table["curves"][name]), flush=True)
            given.to.mkdir(parents=True, exist_ok=True)
            (given.to / "growth.json").write_text(json.dumps(table, indent=1) + "\n")
            (given.to / "growth.md").write_text(markdown(table))


if __name__ == "__main__":
    main()
