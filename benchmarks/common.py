"""What all rows share: turns in one process, medians, peak memory, tables."""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

PACKAGES = (
    "numpy", "scipy", "himalaya", "scikit-learn", "nilearn", "nibabel", "torch", "transformers",
)  # fmt: skip


@dataclass(frozen=True)
class Peer:
    """Another way of doing the same: its time, the ratio to ours, and what is asked for."""

    name: str
    seconds: float
    ratio: float
    asked: float | None = None
    how: str = "run in full"


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    work: str
    shapes: str
    seconds: float
    peers: tuple[Peer, ...]
    same: str = ""  # how far results agree
    floor: str = ""  # time in units of what cannot be avoided
    peak_mib: float | None = None  # memory above the data
    repeats: int = 1
    notes: Mapping[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return plain data, with the load and the largest memory of the process."""
        return {
            **asdict(self),
            "load": [round(value, 2) for value in os.getloadavg()],
            "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        }


def cpu_seconds(run: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    gc.collect()
    start = time.process_time()
    run()
    return time.process_time() - start


def in_turn(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Call procedures one after the other, several times; medians of CPU seconds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(cpu_seconds(run))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_mib(run: Callable[[], object]) -> float:
    """Return the most memory that a call holds at a time, beside what is there before, MiB."""
    gc.collect()
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def straight(counts: tuple[int, int], seconds: tuple[float, float], whole: int) -> float:
    """Continue a straight line through two measurements."""
    slope = (seconds[1] - seconds[0]) / (counts[1] - counts[0])
    return seconds[0] + slope * (whole - counts[0])


def sgemm_gflops() -> float:
    """Return the measured rate of a large float32 product."""
    a = np.random.default_rng(0).standard_normal((2048, 2048)).astype(np.float32)
    return max(2 * 2048**3 / cpu_seconds(lambda: a @ a) / 1e9 for _ in range(4))


def machine() -> dict[str, object]:
    """Describe where this runs."""
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "cpu": names[0] if names else platform.processor(),
        "n_cpus": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "kernels": kernels(),
        "sgemm_gflops": round(sgemm_gflops(), 1),
    }


def kernels() -> list[str]:
    """Name the kernels of numpy's and scipy's BLAS; they decide the rate of products."""
    from threadpoolctl import threadpool_info

    return sorted({str(i["architecture"]) for i in threadpool_info() if "architecture" in i})


def short(seconds: float) -> str:
    """Write a time with three digits."""
    if seconds >= 3600:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{seconds * 1e3:.3g} ms"


def markdown(table: Mapping[str, object]) -> str:
    """Return the table as Markdown."""
    lines = [
        "| work | shapes | here | against | there | ratio | asked | same results | floor "
        "| memory above data |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table["rows"].values():
        memory = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f} MiB"
        start = f"{row['work']} | {row['shapes']} | {short(row['seconds'])}"
        for number, peer in enumerate(row["peers"] or [None]):
            own = start if not number else " | | "
            tail = f"{row['same']} | {row['floor']} | {memory}" if not number else " | | "
            if peer is None:
                lines.append(f"| {own} | | | | | {tail} |")
                continue
            asked = "" if peer["asked"] is None else f"{peer['asked']:g}x"
            how = "" if peer["how"] == "run in full" else f" ({peer['how']})"
            lines.append(
                f"| {own} | {peer['name']}{how} | {short(peer['seconds'])} | "
                f"**{peer['ratio']:.3g}x** | {asked} | {tail} |"
            )
    facts = table["machine"]
    loads = [row["load"][0] for row in table["rows"].values()] or [0]
    names = ", ".join(f"{name} {number}" for name, number in facts["versions"].items() if number)
    lines += [
        "",
        f"CPU seconds, medians, procedures in turn in one process, one BLAS thread; "
        f"{facts['cpu']}, {facts['n_cpus']} CPUs, BLAS kernels {', '.join(facts['kernels'])}, "
        f"sgemm {facts['sgemm_gflops']} GFLOP/s; "
        f"Python {facts['python']}, {names}; load {min(loads)} to {max(loads)}."
        + (" Smaller shapes (--quick)." if table["quick"] else ""),
    ]
    return "\n".join(lines) + "\n"


def write(table: Mapping[str, object], folder: Path) -> None:
    """Write JSON and Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.json").write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    (folder / "table.md").write_text(markdown(table), "utf-8")
