"""How often the right head is found, with correct columns and with the paper's wrong stride.

Each simulated parcel follows one planted head (through a haemodynamic response) plus
autocorrelated noise. One model is fitted on all heads; every head's part is scored with its
own columns, and with the columns that the paper's script keeps: delay d of head h at
``d * (n_features + 43) + head_dim * h``, where the fitted band has a stride of ``n_features``.
Both read the same fit, so that nothing but the index differs.

    python -m benchmarks.heads            BERT-base layout, and real MiniLM heads
    python -m benchmarks.heads --quick    one seed each
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from scipy.signal import lfilter
from scipy.stats import gamma

from bids_brainlm.numerics import blas, crossval, design, heads, resampling
from bids_brainlm.numerics.scores import pearson

HERE = Path(__file__).parent
DELAYS = (2, 3, 4, 5)
EXTRA = 43  # nuisance columns that the paper's stride counts but the band does not hold
SHARES = (0.1, 0.2, 0.3, 0.5)
ALPHAS = tuple(float(10.0**e) for e in range(-2, 7))


def kept_by_wrong_stride(
    head: int, n_heads: int, head_dim: int, n_delays: int = len(DELAYS), extra: int = EXTRA
) -> np.ndarray:
    """Rows of the band's weights that are not zeroed when all other heads are, as in the paper."""
    n_features = n_heads * head_dim
    kept = np.ones(n_delays * n_features, bool)
    for other in range(n_heads):
        for d in range(n_delays):
            start = d * (n_features + extra) + other * head_dim
            if other != head:
                kept[start : start + head_dim] = False
    return np.flatnonzero(kept)


def autocorrelated(rng: np.random.Generator, n_trs: int, n_columns: int, rho: float) -> np.ndarray:
    """Draw AR(1) series with unit variance."""
    noise = rng.standard_normal((n_trs + 50, n_columns))
    return lfilter([np.sqrt(1 - rho**2)], [1.0, -rho], noise, axis=0)[50:]


def simulated_heads(
    rng: np.random.Generator, n_trs: int, n_layers: int, n_heads: int, head_dim: int
) -> np.ndarray:
    """Draw head outputs: half of the variance their own, a quarter each of layer and model."""
    rank = max(2, head_dim // 4)
    features = np.empty((n_trs, n_layers, n_heads, head_dim))
    whole = autocorrelated(rng, n_trs, rank, 0.45)
    for layer in range(n_layers):
        shared = autocorrelated(rng, n_trs, rank, 0.45)
        for head in range(n_heads):
            own = autocorrelated(rng, n_trs, rank, 0.45)
            sources = np.hstack([whole / 2, shared / 2, own / np.sqrt(2)])
            features[:, layer, head] = sources @ rng.standard_normal((3 * rank, head_dim))
    return features.reshape(n_trs, -1)


def planted_targets(
    rng: np.random.Generator,
    features: np.ndarray,
    valid: np.ndarray,
    planted: np.ndarray,
    head_dim: int,
    shares: np.ndarray,
    tr: float,
) -> np.ndarray:
    """Make a series for each planted head; the signal has the given share of the variance."""
    n_trs = len(features)
    t = np.arange(0, 25, tr)
    response = gamma.pdf(t, 6) - gamma.pdf(t, 16) / 6
    scaled = (features - features[valid].mean(0)) / features[valid].std(0)
    scaled[~valid] = 0.0
    targets = autocorrelated(rng, n_trs, len(planted), 0.4)
    for number, (head, share) in enumerate(zip(planted, shares, strict=True)):
        columns = scaled[:, head * head_dim : (head + 1) * head_dim]
        signal = lfilter(response, [1.0], columns @ rng.standard_normal(head_dim))
        signal /= signal.std()
        targets[:, number] = np.sqrt(share) * signal + np.sqrt(1 - share) * targets[:, number]
    return targets


def wrong_scores(
    bands: list[design.Band],
    targets: np.ndarray,
    plan: crossval.Plan,
    n_heads: int,
    head_dim: int,
    extra: int = EXTRA,
) -> np.ndarray:
    """Score heads of the last band with the paper's rows, (n_targets, n_heads)."""
    scores = []
    for number, fitted in enumerate(crossval.fit_folds(bands, [targets], plan)):
        train, test, _ = design.fold_design(
            bands[-1], plan.outer[number], plan.delays, centre=plan.centre
        )
        found, y = fitted.found[0], fitted.observed[0]
        dual = found.dual * plan.gammas[number][found.gamma_index, -1]
        of_fold = []
        for head in range(n_heads):
            kept = kept_by_wrong_stride(head, n_heads, head_dim, len(plan.delays), extra)
            of_fold.append(pearson(test[:, kept] @ (train[:, kept].T @ dual), y))
        scores.append(np.nan_to_num(of_fold))
    return np.mean(scores, axis=0).T


def minilm_heads() -> np.ndarray:
    """Return real head outputs of MiniLM, (n_trs, 72 * 32); 0 in TRs without words."""
    from benchmarks.features import rows_of_story
    from bids_brainlm.language import measures, models

    model = models.load(models.resolve("minilm", offline=True), seed=0)
    found = measures.extract(model, rows_of_story()[1], want=("transformations",))
    return found.transformations.reshape(len(found.transformations), -1).astype(float)


def compare(
    features: np.ndarray | None, n_layers: int, n_heads: int, head_dim: int, seed: int, tr: float
) -> tuple[list[dict], dict]:
    """Plant every head once at each share of variance, and score both ways."""
    rng = np.random.default_rng([seed, n_layers, n_heads])
    n_total = n_layers * n_heads
    if features is None:
        features = simulated_heads(rng, 534, n_layers, n_heads, head_dim)
    valid = np.isfinite(features).all(axis=1)
    features = np.where(valid[:, None], features, 0.0)
    planted = np.tile(np.arange(n_total), len(SHARES))
    shares = np.repeat(SHARES, n_total)
    targets = planted_targets(rng, features, valid, planted, head_dim, shares, tr)
    counts = rng.poisson(4, (len(features), 2)).astype(float)
    bands = [
        design.Band("counts", counts, np.ones(len(counts), bool)),
        design.Band("model", features, valid),
    ]
    plan = crossval.make_plan(
        np.arange(10, len(features) - 10), n_folds=5, n_inner=4, gap=round(15 / tr), n_bands=2,
        n_gammas=20, alphas=ALPHAS, delays=DELAYS, seed=seed,
    )  # fmt: skip
    groups = np.arange(n_total * head_dim).reshape(n_total, head_dim)
    found = heads.headwise(bands, groups, [targets], plan, main="model")[0]
    right = found.r
    wrong = wrong_scores(bands, targets, plan, n_total, head_dim)
    rows = []
    for share in SHARES:
        some = shares == share
        rows.append(
            {
                "seed": seed,
                "share": share,
                "band_r": float(found.model.r[some].mean()),
                **_summary("right", right[some], planted[some], n_heads),
                **_summary("wrong", wrong[some], planted[some], n_heads),
            }
        )
    return rows, {"n_trs": len(features), "n_tested": len(plan.rows)}


def _summary(name: str, scores: np.ndarray, planted: np.ndarray, n_heads: int) -> dict:
    """Count how often the planted head has the largest r."""
    best = scores.argmax(axis=1)
    own = np.take_along_axis(scores, planted[:, None], axis=1)[:, 0]
    rank = 1 + (scores > own[:, None]).sum(axis=1)
    shift = best - planted
    return {
        f"{name}_found": float((shift == 0).mean()),
        f"{name}_layer": float((best // n_heads == planted // n_heads).mean()),
        f"{name}_one_to_three_before": float(np.isin(shift, (-1, -2, -3)).mean()),
        f"{name}_rank": float(np.median(rank)),
        f"{name}_r_planted": float(own.mean()),
    }


def cost(n_folds: int, n_inner: int, alphas: tuple[float, ...]) -> dict:
    """Time one participant with 1000 targets and 36,864 columns, one thread."""
    rng = np.random.default_rng(0)
    features = simulated_heads(rng, 534, 12, 12, 64)
    sizes = {"silence": 1, "counts": 2, "phonemes": 40}
    valid = np.ones(len(features), bool)
    bands = [
        design.Band(name, rng.standard_normal((534, size)), valid) for name, size in sizes.items()
    ]
    bands.append(design.Band("model", features, valid))
    planted = rng.integers(0, 144, 1000)
    targets = planted_targets(rng, features, valid, planted, 64, np.full(1000, 0.1), 1.5)
    plan = crossval.make_plan(
        np.arange(10, 524), n_folds=n_folds, n_inner=n_inner, gap=10, n_bands=4, n_gammas=100,
        alphas=alphas, delays=DELAYS, seed=0,
    )  # fmt: skip
    found = {"n_folds": n_folds, "n_inner": n_inner, "n_alphas": len(alphas)}
    started = time.process_time()
    fit = heads.fit_heads(bands, [targets], plan, main="model")
    found["fit_s"] = time.process_time() - started
    started = time.process_time()
    parts = []
    for columns in np.arange(144 * 64).reshape(144, 64):
        part = heads.read_head(fit, columns)[0]
        crossval.mean_r(part.prediction, fit.observed[0])
        parts = [part]
    found["heads_s"] = time.process_time() - started
    started = time.process_time()
    resampling.block_permutation_test(
        np.concatenate(parts[0].prediction), fit.models[0].observed, block_length=15,
        n_permutations=10_000, rng=rng, segments=plan.segments,
    )  # fmt: skip
    found["test_s"] = 144 * (time.process_time() - started)
    found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {name: round(value, 2) for name, value in found.items()}


def main() -> None:
    """Run everything and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    seeds = range(1 if given.quick else 3)
    real = minilm_heads()
    cases = [
        ("simulated heads, 12 x 12 x 64", None, 12, 12, 64, 1.5),
        ("real MiniLM heads, 6 x 12 x 32", real, 6, 12, 32, 1.5),
    ]
    table = {"cases": []}
    with blas.single_threaded():
        table["cost"] = [cost(3, 3, (1.0,)), cost(5, 4, ALPHAS)]
        print(table["cost"], flush=True)
        for name, *layout, tr in cases:
            rows = []
            for seed in seeds:
                found, facts = compare(*layout, seed, tr)
                rows += found
            n_total = layout[1] * layout[2]
            table["cases"].append(
                {"name": name, "n_seeds": len(seeds), "n_heads": n_total, **facts, "rows": rows}
            )
            print(markdown(table), flush=True)
    folder = HERE / "results"
    (folder / "heads.json").write_text(json.dumps(table, indent=2) + "\n")
    (folder / "heads.md").write_text(markdown(table))


def markdown(table: dict) -> str:
    """Return the table as Markdown."""
    lines = [
        "| heads | share of variance | parcels | r of the band | right head, correct columns "
        "| right head, wrong stride | head 1 to 3 before, wrong stride | right layer, correct "
        "| right layer, wrong |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in table["cases"]:
        for share in SHARES:
            rows = [row for row in case["rows"] if row["share"] == share]
            mean = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
            lines.append(
                f"| {case['name']} | {share:.0%} | {case['n_heads'] * case['n_seeds']} | "
                f"{mean['band_r']:.2f} | **{mean['right_found']:.1%}** | "
                f"**{mean['wrong_found']:.1%}** | {mean['wrong_one_to_three_before']:.1%} | "
                f"{mean['right_layer']:.1%} | {mean['wrong_layer']:.1%} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
