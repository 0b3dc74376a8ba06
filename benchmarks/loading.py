"""Loading one 3 mm run and averaging 1000 parcels."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.common import Peer, Result, in_turn, peak_mib
from bids_brainlm.bidsio import images
from bids_brainlm.numerics import blas

SHAPE = (61, 73, 61)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


def simulate(folder: Path, n_volumes: int, n_parcels: int) -> tuple[Path, Path, np.ndarray]:
    """Write a run (float32, zero outside of a brain) and an atlas."""
    rng = np.random.default_rng(0)
    centre = (np.array(SHAPE) - 1) / 2
    where = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    radius = np.linalg.norm((where - centre) / (centre * 0.85), axis=-1)
    brain, cortex = radius < 1, (radius < 1) & (radius > 0.45)
    seeds = rng.permutation(np.flatnonzero(cortex))[:n_parcels]
    from scipy.spatial import cKDTree

    tree = cKDTree(np.argwhere(cortex)[np.searchsorted(np.flatnonzero(cortex), np.sort(seeds))])
    labels = np.zeros(SHAPE, np.int16)
    labels[cortex] = tree.query(np.argwhere(cortex))[1] + 1
    data = np.zeros((*SHAPE, n_volumes), np.float32)
    for volume in range(n_volumes):
        noise = gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), 0.6)
        data[..., volume][brain] = 10_000 + 100 * noise[brain]
    run, atlas = folder / "run_bold.nii.gz", folder / "atlas.nii.gz"
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_zooms((3, 3, 3, 1.5))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, run)
    nib.save(nib.Nifti1Image(labels, AFFINE), atlas)
    return run, atlas, labels


def paper(run: Path, labels: np.ndarray) -> np.ndarray:
    """All data as float64, every voxel z-scored, one mask a parcel."""
    from scipy.stats import zscore

    data = zscore(nib.load(run).get_fdata(), axis=3)
    numbers = range(1, labels.max() + 1)
    return np.array([data[np.where(labels == number)].mean(axis=0) for number in numbers])


def masker(run: Path, atlas: Path) -> np.ndarray:
    """Average raw voxels with the masker of nilearn, then z-score: another order than ours."""
    from nilearn.maskers import NiftiLabelsMasker

    made = NiftiLabelsMasker(atlas, standardize="zscore_sample", resampling_target=None)
    return made.fit_transform(run).T


def decompress(run: Path) -> int:
    """Do nothing but decompress."""
    engine, total = zlib.decompressobj(31), 0
    with run.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            total += len(engine.decompress(chunk))
    return total


def loading(quick: bool) -> Result:
    """One run of 550 volumes."""
    n_volumes, n_parcels = (60, 200) if quick else (550, 1000)
    with tempfile.TemporaryDirectory() as name, blas.single_threaded():
        run, atlas, labels = simulate(Path(name), n_volumes, n_parcels)
        size = run.stat().st_size

        def ours() -> np.ndarray:
            """As the parcels step does, without confounds."""
            image = images.load_run(run, 1.5)
            return images.parcel_series(image, labels, n_parcels, slice(0, n_volumes)).series.T

        with np.errstate(all="ignore"):
            expected = paper(run, labels)
            times = in_turn(
                {
                    "ours": ours,
                    "paper": lambda: paper(run, labels),
                    "nilearn": lambda: masker(run, atlas),
                    "zlib": lambda: decompress(run),
                },
                1 if quick else 3,
            )
        found = np.asarray(ours())
        memory = peak_mib(ours)
    expected = (expected - expected.mean(1, keepdims=True)) / expected.std(1, ddof=1, keepdims=True)
    return Result(
        work="loading and parcels of one run",
        shapes=f"{' x '.join(map(str, SHAPE))} x {n_volumes} float32, {size / 1e6:.0f} MB, "
        f"{n_parcels} parcels",
        seconds=times["ours"],
        peers=(
            Peer("the paper's way", times["paper"], times["paper"] / times["ours"], 8.0),
            Peer(
                "nilearn's masker",
                times["nilearn"],
                times["nilearn"] / times["ours"],
                3.0,
            ),
        ),
        same=f"series to {np.abs(found - expected).max():.0e} of the paper's",
        floor=f"{times['ours'] / times['zlib']:.1f} x decompression (zlib)",
        peak_mib=memory,
        repeats=1 if quick else 3,
    )
