"""Banded ridge against himalaya: the same folds, band weights, penalties and choices.

Each row is one outer fold: search, refit and predictions of each band. Procedures take turns
in one process with one BLAS thread; the figures are medians of CPU seconds. himalaya's times
are measured with a few band weightings and continued along a straight line to 100 where the
table says so (its time is one cost per weighting plus a constant).

    python -m benchmarks.encoding                    all rows
    python -m benchmarks.encoding --rows one alice   some rows
    python -m benchmarks.encoding --quick            smaller shapes, one repetition
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.signal import lfilter

from benchmarks.common import Peer as Peer_
from benchmarks.common import Result
from bids_brainlm.numerics import blas, crossval, design, ridge

HERE = Path(__file__).parent
DELAYS = (2, 3, 4, 5)
ONE = (1.0,)
NINE = tuple(float(10.0**e) for e in range(-2, 7))
TWENTY = tuple(np.logspace(-4, 15, 20).tolist())
N_GAMMAS = 100


@dataclass(frozen=True)
class Peer:
    """A way of calling himalaya; ``n_iter`` are the counts of band weightings that are run."""

    name: str
    n_iter: tuple[int, ...]
    model: str = "kernels"
    dtype: str = "float64"
    batch: int | None = None


@dataclass(frozen=True)
class Row:
    """Shapes of a row: columns of the bands before delays, participants, targets of each."""

    name: str
    columns: tuple[int, ...] = (1, 2, 40, 768)
    n_trs: int = 534
    tr: float = 1.5
    n_outer: int = 3
    n_inner: int = 3
    n_people: int = 1
    n_targets: int = 1000
    alphas: tuple[float, ...] = ONE
    score: str = "r2"
    peers: tuple[Peer, ...] = ()
    repeats: int = 3
    quick: dict = field(default_factory=dict)


ROWS = {
    "one": Row(
        "one alpha, one participant", score="r",
        peers=(
            Peer("GroupRidgeCV, as the paper calls it", (3, 9), "features"),
            Peer("MultipleKernelRidgeCV, float64", (100,)),
        ),
    ),
    "all": Row(
        "one alpha, all participants stacked", n_people=42, repeats=1,
        peers=(
            Peer("MultipleKernelRidgeCV, float64", (100,), batch=4000),
            Peer("MultipleKernelRidgeCV, float32", (100,), dtype="float32", batch=4000),
        ),
        quick={"n_people": 5},
    ),
    "alphas20": Row(
        "20 alphas, one participant", alphas=TWENTY, repeats=3,
        peers=(Peer("MultipleKernelRidgeCV, float64", (3, 9)),),
    ),
    "alphas20-shared": Row(
        "20 alphas, 10 participants together", alphas=TWENTY, n_people=10, repeats=1,
        peers=(Peer("MultipleKernelRidgeCV, float64", (4, 12), batch=2000),),
        quick={"n_people": 3},
    ),
    "defaults": Row(
        "defaults of the app (9 alphas, 5 x 4 folds)", alphas=NINE, n_outer=5, n_inner=4,
        peers=(Peer("MultipleKernelRidgeCV, float64", (3, 9)),),
    ),
    "no-phonemes": Row(
        "defaults, without phonemes", (1, 2, 768), alphas=NINE, n_outer=5, n_inner=4,
        peers=(Peer("MultipleKernelRidgeCV, float64", (3, 9)),),
    ),
    "alice": Row(
        "Alice: 18 participants x 6 parcels, defaults", (1, 2, 384), 362, 2.0, 5, 4, 18, 6,
        alphas=NINE,
        peers=(Peer("MultipleKernelRidgeCV, float64, stacked", (10, 40)),),
    ),
    "alice-phonemes": Row(
        "the same with phonemes", (1, 2, 40, 384), 362, 2.0, 5, 4, 18, 6, alphas=NINE,
        peers=(Peer("MultipleKernelRidgeCV, float64, stacked", (10, 40)),),
    ),
    "voxels": Row(
        "voxelwise, one alpha", n_targets=80_000, repeats=1,
        peers=(Peer("MultipleKernelRidgeCV, float32", (10, 40), dtype="float32", batch=10_000),),
        quick={"n_targets": 12_000},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One outer fold."""

    train: list[np.ndarray]
    test: list[np.ndarray]
    targets: list[np.ndarray]
    gammas: np.ndarray
    alphas: np.ndarray
    inner: list
    score: str

    def some(self, n_gammas: int) -> Problem:
        """Keep the first band weights."""
        return replace(self, gammas=self.gammas[:n_gammas])


def autocorrelated(rng: np.random.Generator, n_trs: int, n_columns: int) -> np.ndarray:
    """Draw AR(1) series of unit variance."""
    noise = rng.standard_normal((n_trs + 50, n_columns))
    return lfilter([0.8], [1.0, -0.6], noise, axis=0)[50:]


def simulate(row: Row) -> Problem:
    """Draw features with a power-law spectrum and targets that follow them in part."""
    rng = np.random.default_rng(0)
    names = ("silence", "counts", "phonemes", "model")
    names = names if len(row.columns) == 4 else ("silence", "counts", "model")
    bands = []
    for name, size in zip(names, row.columns, strict=True):
        sources = autocorrelated(rng, row.n_trs, min(size, 300))
        decay = np.arange(1, sources.shape[1] + 1) ** -0.6
        features = (sources * decay) @ rng.standard_normal((sources.shape[1], size))
        if name != "model":
            features = rng.poisson(np.exp(0.5 * features / features.std(0))).astype(float)
        bands.append(design.Band(name, features, np.ones(row.n_trs, bool)))
    plan = crossval.make_plan(
        np.arange(10, row.n_trs - 10), n_folds=row.n_outer, n_inner=row.n_inner,
        gap=round(15 / row.tr) if row.n_outer > 3 else 0, n_bands=len(bands),
        n_gammas=N_GAMMAS, alphas=row.alphas, delays=DELAYS, seed=0, score=row.score,
    )  # fmt: skip
    fold = plan.outer[0]
    designs = [design.fold_design(band, fold, DELAYS) for band in bands]
    targets = []
    for _ in range(row.n_people):
        y = autocorrelated(rng, row.n_trs, row.n_targets)
        for band in bands[-2:]:
            z = (band.features - band.features.mean(0)) / band.features.std(0)
            weights = rng.standard_normal((z.shape[1], row.n_targets)) / np.sqrt(z.shape[1])
            y += rng.uniform(0, 0.5, row.n_targets) * np.roll(z @ weights, 3, axis=0)
        targets.append(y[fold.train] - y[fold.train].mean(axis=0))
    return Problem(
        [train for train, _, _ in designs], [test for _, test, _ in designs], targets,
        plan.gammas[0], plan.alphas, plan.inner[0], row.score,
    )  # fmt: skip


def ours(problem: Problem) -> list[ridge.FoldResult]:
    """Fit and predict one outer fold."""
    return ridge.encode(
        problem.train,
        problem.test,
        problem.targets,
        problem.gammas,
        problem.alphas,
        problem.inner,
        score=problem.score,
    )


class Given:
    """A splitter for himalaya with folds that are given."""

    def __init__(self, inner: list) -> None:
        self.inner = inner

    def get_n_splits(self, *_: object) -> int:
        """Count the folds."""
        return len(self.inner)

    def split(self, *_: object):
        """Give training and validation rows."""
        return iter([(fold.train, fold.test) for fold in self.inner])


def himalaya(problem: Problem, peer: Peer) -> tuple[np.ndarray, np.ndarray]:
    """Fit and predict with himalaya; return log(gamma / alpha) and the score of each target."""
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import MultipleKernelRidgeCV
    from himalaya.ridge import GroupRidgeCV
    from himalaya.scoring import correlation_score, r2_score

    set_backend("numpy")
    dtype = np.dtype(peer.dtype)
    targets = np.concatenate(problem.targets, axis=1).astype(dtype)
    solver = {
        "n_iter": problem.gammas.astype(dtype),
        "alphas": problem.alphas.astype(dtype) if len(problem.alphas) > 1 else 1.0,
        "score_func": {"r2": r2_score, "r": correlation_score}[problem.score],
        "progress_bar": False,
        "n_targets_batch": peer.batch,
    }
    if peer.model == "features":
        train = [band.astype(dtype) for band in problem.train]
        model = GroupRidgeCV(
            groups="input", fit_intercept=False, cv=Given(problem.inner), solver_params=solver
        )
        model.fit(train, targets)
        model.predict([band.astype(dtype) for band in problem.test], split=True)
        return model.deltas_, model.cv_scores_.max(axis=0)
    if peer.batch is not None:
        solver["n_targets_batch_refit"] = peer.batch
    model = MultipleKernelRidgeCV(
        kernels="precomputed", cv=Given(problem.inner), solver_params=solver
    )
    model.fit(ridge.linear_kernels(problem.train).astype(dtype), targets)
    across = ridge.linear_kernels(problem.test, problem.train).astype(dtype)
    step = peer.batch or targets.shape[1]
    dual, deltas = model.dual_coef_, model.deltas_
    for start in range(0, targets.shape[1], step):  # otherwise memory grows with all targets
        some = slice(start, start + step)
        parts = np.einsum("bvn,nt->bvt", across, dual[:, some], optimize=True)
        parts *= np.exp(deltas[:, some])[:, None]
    return deltas, model.cv_scores_.max(axis=0)


def seconds(run: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    gc.collect()
    start = time.process_time()
    run()
    return time.process_time() - start


def sgemm_peak() -> float:
    """Return the measured rate of a large float32 product, GFLOP/s."""
    a = np.random.default_rng(0).standard_normal((2048, 2048)).astype(np.float32)
    return max(2 * 2048**3 / seconds(lambda: a @ a) / 1e9 for _ in range(6))


def continued(counts: tuple[int, ...], medians: list[float]) -> float:
    """Continue a straight line to 100 weightings."""
    if len(counts) == 1:
        return medians[0]
    slope = (medians[-1] - medians[0]) / (counts[-1] - counts[0])
    return medians[0] + slope * (N_GAMMAS - counts[0])


def compare(problem: Problem, deltas: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Tell for how many targets we take himalaya's gamma and alpha, and how scores differ."""
    found = ours(problem)
    gamma = np.concatenate([f.gamma_index for f in found])
    alpha = np.concatenate([f.alpha_index for f in found])
    with np.errstate(divide="ignore"):
        expected = np.log(problem.gammas[gamma].T / problem.alphas[alpha])
    same = np.isclose(deltas, expected, atol=1e-4).all(axis=0)
    difference = np.abs(np.concatenate([f.cv_score for f in found]) - scores)
    return {
        "same_choice": float(same.mean()),
        "largest_score_difference": float(difference.max()),
        "largest_score_difference_where_choice_differs": float(difference[~same].max(initial=0.0)),
    }


def against(row: Row, median: dict[str, float], agree: dict[str, dict]) -> list[dict]:
    """Describe the peers of a row: their time for all draws, the ratio, and how far they agree."""
    peers = []
    for peer in row.peers:
        total = continued(peer.n_iter, [median[f"{peer.name}/{count}"] for count in peer.n_iter])
        peers.append(
            {
                "name": peer.name,
                "n_iter_run": peer.n_iter,
                "cpu_s": round(total, 2),
                "ratio": round(total / median["ours"], 1),
                **agree[peer.name],
            }
        )
    return peers


def measure(row: Row) -> dict:
    """Run one row."""
    problem = simulate(row)
    search = lambda: ridge.search(  # noqa: E731
        kernels, problem.targets, problem.gammas, problem.alphas, problem.inner, score=row.score
    )
    kernels = ridge.linear_kernels(problem.train)
    times: dict[str, list[float]] = {"ours": [], "search": []}
    gemm = []
    agree = {}
    ours(problem.some(2))
    for _ in range(row.repeats):
        gemm.append(sgemm_peak())
        times["ours"].append(seconds(lambda: ours(problem)))
        times["search"].append(seconds(search))
        for peer in row.peers:
            for count in peer.n_iter:
                part = problem.some(count)
                kept: dict[str, tuple] = {}
                spent = seconds(lambda p=part, k=kept, q=peer: k.update(d=himalaya(p, q)))
                times.setdefault(f"{peer.name}/{count}", []).append(spent)
            if peer.name not in agree:
                agree[peer.name] = compare(part, *kept["d"])
    median = {name: statistics.median(values) for name, values in times.items()}
    n_train, n_validation = zip(*((len(f.train), len(f.test)) for f in problem.inner), strict=True)
    n_targets = row.n_people * row.n_targets
    products = sum(a * b for a, b in zip(n_train, n_validation, strict=True))
    flops = 2.0 * products * n_targets * N_GAMMAS * len(row.alphas)
    peak = statistics.median(gemm)
    return {
        "row": row.name,
        "n_rows": len(problem.targets[0]),
        "n_inner_train": n_train,
        "n_inner_validation": n_validation,
        "columns": [band.shape[1] for band in problem.train],
        "n_targets": n_targets,
        "n_participants": row.n_people,
        "n_alphas": len(row.alphas),
        "n_gammas": N_GAMMAS,
        "score": row.score,
        "repeats": row.repeats,
        "ours_cpu_s": round(median["ours"], 3),
        "ours_cpu_s_each": [round(value, 3) for value in times["ours"]],
        "search_cpu_s": round(median["search"], 3),
        "plain_search_gflops": round(flops / median["search"] / 1e9, 1),
        "sgemm_gflops": round(peak, 1),
        "share_of_sgemm": round(flops / median["search"] / 1e9 / peak, 2),
        "peak_mib_above_data": round(peak_memory(problem) / 2**20),
        "peers": against(row, median, agree),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def peak_memory(problem: Problem) -> int:
    """Return the most bytes that a search with 60 weightings holds beside its input."""
    kernels = ridge.linear_kernels(problem.train)
    some = problem.some(60)
    tracemalloc.start()
    ridge.search(kernels, some.targets, some.gammas, some.alphas, some.inner, score=some.score)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def markdown(table: dict) -> str:
    """Return the table as Markdown."""
    lines = [
        "| work (one outer fold, 100 gammas) | inner rows | targets | alphas | ours, CPU s | peer "
        "| peer, CPU s | ratio | same choice | scores differ by | search, % of sgemm | peak, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table["rows"]:
        for number, peer in enumerate(row["peers"]):
            scaled = "" if peer["n_iter_run"][-1] == N_GAMMAS else (
                f" (from {' and '.join(map(str, peer['n_iter_run']))} gammas)"
            )  # fmt: skip
            own = (
                f"{row['row']} | {row['n_inner_train'][0]} + {row['n_inner_validation'][0]} | "
                f"{row['n_targets']} | {row['n_alphas']} | {row['ours_cpu_s']:.2f}"
            )
            tail = f"{row['share_of_sgemm']:.0%} | {row['peak_mib_above_data']}"
            lines.append(
                f"| {own if not number else ' | | | |'} | {peer['name']}{scaled} | "
                f"{peer['cpu_s']:.1f} | **{peer['ratio']:.1f}** | {peer['same_choice']:.1%} | "
                f"{peer['largest_score_difference']:.0e} | "
                f"{tail if not number else ' |'} |"
            )
    facts = table["machine"]
    lines += [
        "",
        f"{facts['cpu']}, numpy {facts['numpy']}, himalaya {facts['himalaya']}, one BLAS thread; "
        f"load {min(r['load'][0] for r in table['rows'])} to "
        f"{max(r['load'][0] for r in table['rows'])}. The share of sgemm counts the operations of "
        "a plain search; it passes 100 % where candidates are ruled out before they are predicted.",
    ]
    return "\n".join(lines) + "\n"


def machine() -> dict:
    """Describe where this ran."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line for line in lines if "model name" in line]
    return {
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "n_cpus": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scipy", "himalaya")},
    }


def as_result(name: str, asked: tuple[float, ...], quick: bool) -> Result:
    """Run one row for the table of all rows."""
    row = ROWS[name]
    row = replace(row, repeats=1, **row.quick) if quick else row
    with blas.single_threaded():
        found = measure(row)
    ran = [peer["n_iter_run"] for peer in found["peers"]]
    peers = tuple(
        Peer_(
            peer["name"], peer["cpu_s"], peer["ratio"], number,
            "run in full" if counts[-1] == N_GAMMAS else
            f"from {' and '.join(map(str, counts))} gammas",
        )
        for peer, number, counts in zip(found["peers"], asked, ran, strict=True)
    )  # fmt: skip
    same = [
        f"choice {peer['same_choice']:.1%}, scores to {peer['largest_score_difference']:.0e}"
        for peer in found["peers"]
    ]
    return Result(
        work=f"banded ridge, {found['row']} (one outer fold)",
        shapes=f"{found['n_rows']} rows, {sum(found['columns'])} columns, {found['n_targets']} "
        f"targets, {found['n_alphas']} alphas, {N_GAMMAS} gammas",
        seconds=found["ours_cpu_s"],
        peers=peers,
        same="; ".join(same),
        floor=f"search at {found['share_of_sgemm']:.0%} of sgemm",
        peak_mib=found["peak_mib_above_data"],
        repeats=row.repeats,
        notes=found,
    )


def one(quick: bool) -> Result:
    """One alpha, one participant."""
    return as_result("one", (55.0, 7.0), quick)


def all_participants(quick: bool) -> Result:
    """One alpha, all participants stacked."""
    return as_result("all", (4.0, 2.4), quick)


def alphas20(quick: bool) -> Result:
    """20 alphas, participants shared."""
    return as_result("alphas20-shared", (8.0,), quick)


def voxels(quick: bool) -> Result:
    """One alpha, 80,000 voxels."""
    return as_result("voxels", (4.0,), quick)


def main() -> None:
    """Run the rows and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--to", type=Path, default=HERE / "results", metavar="FOLDER")
    given = parser.parse_args()
    table = {"machine": machine(), "quick": given.quick, "rows": []}
    with blas.single_threaded():
        for name in given.rows:
            row = ROWS[name]
            if given.quick:
                row = replace(row, repeats=1, **row.quick)
            table["rows"].append(measure(row))
            print(json.dumps(table["rows"][-1]), flush=True)
            rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            table["peak_rss_gib"] = round(rss / 2**20, 2)
            given.to.mkdir(parents=True, exist_ok=True)
            (given.to / "encoding.json").write_text(json.dumps(table, indent=2) + "\n")
            (given.to / "encoding.md").write_text(markdown(table))
            gc.collect()
    print(markdown(table))


if __name__ == "__main__":
    main()
