"""Statistics over participants: leave-one-out ISC, bootstrap, sign flips."""

from __future__ import annotations

import numpy as np

from benchmarks.common import Peer, Result, cpu_seconds, in_turn, peak_mib
from bids_brainlm.numerics import blas, isc, resampling

N_PARTICIPANTS = 42
N_TRS = 534


def simulated_series(n_parcels: int) -> np.ndarray:
    """Series with a shared part, (n_participants, n_trs, n_parcels), float32, time contiguous."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((n_parcels, N_TRS), dtype=np.float32)
    series = rng.standard_normal((N_PARTICIPANTS, n_parcels, N_TRS), dtype=np.float32)
    series += 0.3 * shared
    return series.transpose(0, 2, 1)


def leave_one_out_loop(data: np.ndarray) -> np.ndarray:
    """BrainIAK's leave-one-out algorithm; it needs MPI and is not installed.

    ``data`` is (n_trs, n_voxels, n_participants), as BrainIAK stacks it. For each participant:
    a copy without it, ``nanmean`` over the others, and r of all columns at once.
    """
    found = []
    for left_out in range(data.shape[2]):
        others = np.nanmean(np.delete(data, left_out, axis=2), axis=2)
        own = data[:, :, left_out] - data[:, :, left_out].mean(axis=0)
        others = others - others.mean(axis=0)
        size = np.sqrt((own**2).sum(axis=0) * (others**2).sum(axis=0))
        found.append((own * others).sum(axis=0) / size)
    return np.array(found)


def _isc(n_parcels: int, n_peer: int, asked: float, repeats: int) -> Result:
    """Compare on as many parcels as the peer can do, and time ours on all."""
    series = simulated_series(n_parcels)
    series -= series.mean(axis=1, keepdims=True)
    series /= series.std(axis=1, keepdims=True)
    some = np.ascontiguousarray(np.moveaxis(series[:, :, :n_peer], 0, 2))
    flat = series.transpose(0, 2, 1).reshape(-1)
    with blas.single_threaded():
        expected = leave_one_out_loop(some)
        found = isc.leave_one_out(series)
        times = in_turn(
            {
                "ours": lambda: isc.leave_one_out(series),
                "peer": lambda: leave_one_out_loop(some),
                "sum": lambda: flat.sum(),
                "dot": lambda: flat @ flat,
            },
            repeats,
        )
        by_parcel = np.ascontiguousarray(series[:, :, : min(n_parcels, 5000)])
        other = cpu_seconds(lambda: isc.leave_one_out(by_parcel)) * n_parcels / by_parcel.shape[2]
        memory = peak_mib(lambda: isc.leave_one_out(series))
    peer = times["peer"] * n_parcels / n_peer
    how = "run in full" if n_peer == n_parcels else f"from {n_peer} parcels"
    return Result(
        work="leave-one-out ISC",
        shapes=f"{N_PARTICIPANTS} x {N_TRS} x {n_parcels}, float32",
        seconds=times["ours"],
        peers=(Peer("BrainIAK's algorithm", peer, peer / times["ours"], asked, how),),
        same=f"r to {np.abs(found[:, :n_peer] - expected).max():.0e}",
        floor=f"{times['ours'] / times['sum']:.1f} x summing the data, "
        f"{times['ours'] / times['dot']:.1f} x their dot product",
        peak_mib=memory,
        repeats=repeats,
        notes={"seconds_with_parcels_contiguous": round(other, 4), **times},
    )


def isc_parcels(quick: bool) -> Result:
    """ISC of 1000 parcels."""
    return _isc(200 if quick else 1000, 100 if quick else 1000, 200.0, 3)


def isc_voxels(quick: bool) -> Result:
    """ISC of 50,000 voxels."""
    return _isc(5000 if quick else 50_000, 500, 200.0, 3)


def bootstrap_loop(groups: list[np.ndarray], n_bootstraps: int, rng: np.random.Generator):
    """The paper's way: parcel by parcel, draw by draw; the mean of two group means."""
    p = []
    for parcel in range(groups[0].shape[1]):
        columns = [group[:, parcel] for group in groups]
        observed = np.mean(np.concatenate(columns))
        null = []
        for _ in range(n_bootstraps):
            means = [np.mean(rng.choice(column - observed, size=len(column))) for column in columns]
            null.append(np.mean(means))
        p.append(np.mean(np.array(null) >= observed))
    return np.array(p)


def bootstrap(quick: bool) -> Result:
    """Bootstrap of 59 participants, 10,000 draws x 1000 parcels."""
    rng = np.random.default_rng(0)
    n_draws, n_parcels = (1000, 100) if quick else (10_000, 1000)
    values = 0.1 * rng.standard_normal((59, n_parcels)) + rng.uniform(0, 0.04, n_parcels)
    groups = [values[:42], values[42:]]
    few, draws = 8, 2000

    def ours() -> resampling.Resampled:
        """All draws of all parcels."""
        return resampling.bootstrap_test(values, n_bootstraps=n_draws, rng=np.random.default_rng(1))

    with blas.single_threaded():
        found = ours().p[:few]
        expected = bootstrap_loop([values[:, :few]], 4000, rng)
        error = np.sqrt(expected * (1 - expected) / 4000 + found * (1 - found) / n_draws)
        times = in_turn(
            {
                "ours": ours,
                "peer": lambda: bootstrap_loop([g[:, :few] for g in groups], draws, rng),
            },
            5,
        )
        memory = peak_mib(ours)
    peer = times["peer"] * (n_draws / draws) * (n_parcels / few)
    return Result(
        work="bootstrap",
        shapes=f"{n_draws} draws x {n_parcels} parcels, 59 participants",
        seconds=times["ours"],
        peers=(
            Peer(
                "the paper's loop", peer, peer / times["ours"], 5000.0,
                f"from {draws} draws x {few} parcels",
            ),
        ),
        same=f"p of {few} parcels within {np.max(np.abs(found - expected) / error):.1f} standard "
        "errors of a loop with the same statistic",
        peak_mib=memory,
        repeats=5,
    )  # fmt: skip


def sign_flip_loop(values: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Studentised sign flips with the largest t, one pattern at a time."""
    n = len(values)
    observed = values.mean(0) / (values.std(0, ddof=1) / np.sqrt(n))
    count, largest = np.zeros(values.shape[1]), np.empty(len(signs))
    for number, sign in enumerate(signs):
        flipped = values * sign[:, None]
        t = flipped.mean(0) / (flipped.std(0, ddof=1) / np.sqrt(n))
        count += t >= observed
        largest[number] = t.max()
    p_fwe = (largest[:, None] >= observed).sum(0)
    return (count + 1) / (len(signs) + 1), (p_fwe + 1) / (len(signs) + 1)


def sign_flips(quick: bool) -> Result:
    """Sign flips with the largest statistic, 10,000 x 1000."""
    rng = np.random.default_rng(0)
    n_flips, n_parcels = (1000, 200) if quick else (10_000, 1000)
    values = 0.1 * rng.standard_normal((59, n_parcels)) + rng.uniform(0, 0.04, n_parcels)
    signs = np.random.default_rng(1).integers(0, 2, size=(n_flips, 59)) * 2.0 - 1.0

    def ours() -> resampling.Resampled:
        """All patterns."""
        return resampling.sign_flip_test(
            values, n_permutations=n_flips, rng=np.random.default_rng(1)
        )

    with blas.single_threaded():
        found, expected = ours(), sign_flip_loop(values, signs)
        same = np.array_equal(found.p, expected[0]) and np.array_equal(found.p_fwe, expected[1])
        times = in_turn({"ours": ours, "peer": lambda: sign_flip_loop(values, signs)}, 5)
        memory = peak_mib(ours)
    return Result(
        work="sign flips, largest t",
        shapes=f"{n_flips} patterns x {n_parcels} parcels, 59 participants",
        seconds=times["ours"],
        peers=(Peer("NumPy loop", times["peer"], times["peer"] / times["ours"], 30.0),),
        same="p and corrected p equal" if same else "p differ",
        peak_mib=memory,
        repeats=5,
    )
