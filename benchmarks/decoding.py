"""Labels decoded from heads, nested 5 x 5, against loops of scikit-learn's liblinear."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.signal import lfilter

from benchmarks.common import Peer, Result, in_turn, peak_mib
from bids_brainlm.numerics import blas, decoding

N_HEADS, N_LABELS, N_ROWS, HEAD_DIM = 144, 48, 490, 64
GAP = 10


def simulate(n_heads: int, n_labels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heads with autocorrelation and decaying variance; labels of 3 to 70 % of the rows."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(534)[:N_ROWS])
    noise = rng.standard_normal((n_heads, N_ROWS + 50, HEAD_DIM))
    sources = lfilter([0.9], [1, -0.45], noise, axis=1)[:, 50:]
    decay = np.arange(1, HEAD_DIM + 1) ** -0.6
    X = np.stack([(s * decay) @ rng.standard_normal((HEAD_DIM, HEAD_DIM)) for s in sources])
    labels = np.empty((N_ROWS, n_labels), bool)
    for label, rate in enumerate(np.geomspace(0.03, 0.7, n_labels)):
        z = X[rng.integers(n_heads)]
        z = (z - z.mean(0)) / z.std(0)
        values = z @ rng.standard_normal(HEAD_DIM) / 8 * rng.uniform()
        values += rng.standard_normal(N_ROWS)
        labels[:, label] = values > np.quantile(values, 1 - rate)
    return X, labels, rows


def loop(features: np.ndarray, label: np.ndarray, plan: decoding.Plan) -> np.ndarray:
    """One head and label: fit, predict and score every C in every inner fold, then refit.

    The published procedure with liblinear's defaults, on our folds, features and values of C.
    Returns held-out decision values.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.preprocessing import StandardScaler

    decisions = np.full(len(label), np.nan)
    for outer, inner in zip(plan.outer, plan.inner, strict=True):
        x, y = features[outer.train], label[outer.train]
        scores = np.zeros(len(decoding.C_GRID))
        for fold in inner:
            scaler = StandardScaler().fit(x[fold.train])
            train, test = scaler.transform(x[fold.train]), scaler.transform(x[fold.test])
            if len(set(y[fold.train])) < 2 or len(set(y[fold.test])) < 2:
                continue
            for number, C in enumerate(decoding.C_GRID):
                model = LogisticRegression(solver="liblinear", class_weight="balanced", C=C)
                model.fit(train, y[fold.train])
                scores[number] += balanced_accuracy_score(y[fold.test], model.predict(test))
        scaler = StandardScaler().fit(x)
        best = decoding.C_GRID[int(np.argmax(np.round(scores, 10)))]
        model = LogisticRegression(solver="liblinear", class_weight="balanced", C=best)
        model.fit(scaler.transform(x), y)
        test = scaler.transform(features[outer.test])
        decisions[outer.test] = model.decision_function(test)
    return decisions


def same_predictions(
    X: np.ndarray, labels: np.ndarray, plan: decoding.Plan, found: decoding.Decoding
) -> tuple[float, int]:
    """Share of held-out classes that scikit-learn's models predict, at the C that we chose.

    Its solver without a penalty of the intercept, as ours has none, at a strict tolerance.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    same = []
    for head in range(len(X)):
        for k, outer in enumerate(plan.outer):
            scaler = StandardScaler().fit(X[head][outer.train])
            train, test = (scaler.transform(X[head][part]) for part in (outer.train, outer.test))
            for label in np.flatnonzero(found.C_index[head, k] >= 0):
                model = LogisticRegression(
                    solver="newton-cholesky", class_weight="balanced", tol=1e-10, max_iter=1000,
                    C=decoding.C_GRID[found.C_index[head, k, label]],
                ).fit(train, labels[outer.train, label])  # fmt: skip
                ours = found.decision[head, outer.test, label] > 0
                same += (model.predict(test) == ours).tolist()
    return float(np.mean(same)), len(same)


def decoding_row(quick: bool) -> Result:
    """Decode 48 labels from 144 heads; the loops for some labels, ours for some heads."""
    warnings.simplefilter("ignore")
    n_heads, n_peer, repeats = (1, 2, 1) if quick else (3, 8, 3)
    X, labels, rows = simulate(n_heads, N_LABELS)
    plan = decoding.make_plan(rows, 5, 5, GAP)
    some = np.linspace(0, N_LABELS - 1, n_peer).round().astype(int)

    def ours() -> decoding.Decoding:
        """All labels of the heads."""
        return decoding.decode(X, labels, plan, n_permutations=0, keep_decisions=True)

    with blas.single_threaded():
        same, n_same = same_predictions(X, labels, plan, ours())
        times = in_turn(
            {
                "ours": ours,
                "peer": lambda: [loop(X[0], labels[:, label], plan) for label in some],
            },
            repeats,
        )
        memory = peak_mib(ours)
    seconds = times["ours"] * N_HEADS / n_heads
    peer = times["peer"] / n_peer * N_HEADS * N_LABELS
    return Result(
        work="decoding, nested 5 x 5, 7 values of C",
        shapes=f"{N_HEADS} heads x {N_LABELS} labels, {N_ROWS} rows x {HEAD_DIM} "
        f"(from {n_heads} heads)",
        seconds=seconds,
        peers=(
            Peer(
                "scikit-learn, liblinear", peer, peer / seconds, 60.0,
                f"from {n_peer} labels of one head",
            ),
        ),
        same=f"{same:.4%} of {n_same} held-out classes as scikit-learn's at a strict tolerance",
        peak_mib=memory,
        repeats=repeats,
    )  # fmt: skip
