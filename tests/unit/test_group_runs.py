"""Voxels of a group are correlated in pieces, with the same bytes as all at once."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import xarray

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.steps import ceilings, group_files
from bids_brainlm.steps.base import Job, Resources, Unit

SHAPE, N_TRS = (12, 10, 8), (40, 40, 43, 40, 41)
UNIT = Unit(story="story", space="MNI152NLin2009cAsym", atlas="voxels")


def _person(folder, number, mask, series):
    """Write the series and labels of one run; ``mask`` are numbers of voxels."""
    files = {name: folder / f"sub-{number}{end}" for name, end in
             (("series", ".nc"), ("tsv", ".tsv"), ("image", ".nii.gz"))}
    made = xarray.Dataset({"series": (("tr", "index"), series.astype("float32"))},
                          coords={"index": np.arange(1, len(mask) + 1)})
    write.write_netcdf(files["series"], made)
    names = [f"v{n:03d}" for n in mask]
    write.write_tsv(files["tsv"], {"index": np.arange(1, len(mask) + 1), "name": names})
    labels = np.zeros(np.prod(SHAPE), np.int32)
    labels[mask] = np.arange(1, len(mask) + 1)
    write.write_nifti(files["image"], nibabel.Nifti1Image(labels.reshape(SHAPE), np.eye(4)))
    return files


@pytest.fixture
def people(tmp_path, rng):
    """Five people of one story with unlike masks and lengths; a voxel of one is constant."""
    common = rng.standard_normal((max(N_TRS), np.prod(SHAPE)))
    found = []
    for number, n_trs in enumerate(N_TRS):
        mask = np.flatnonzero(rng.random(np.prod(SHAPE)) > 0.02)
        series = common[:n_trs, mask] + rng.standard_normal((n_trs, len(mask)))
        series[:, 300] += 5 * (number == 2)
        if number == 1:
            series[:, 500] = 1.0
        found.append((mask, series, _person(tmp_path, number, mask, series)))
    return found


def _job(people, names):
    files = {"label_tsv": people[0][2]["tsv"], "label_nii": people[0][2]["image"]}
    for number, (_, _, own) in enumerate(people):
        files[f"series:{number}:None:None"] = own["series"]
        files[f"labels:{number}:None:None"] = own["tsv"]
    return Job("ceilings", 1, UNIT, ceilings.record(UNIT, names), ceilings.outputs(UNIT, names),
               files=files)


def _made(people, out, mem_gb):
    job = _job(people, Names(out))
    settings = ceilings.Params("others", 1, (2, 2))
    (outcome,) = ceilings.run([job], settings, Resources(out, out, mem_gb=mem_gb))
    assert outcome.error is None
    return {name: path.read_bytes() for name, path in [*job.outputs.items(), ("", job.record)]}


def test_pieces_change_no_byte(people, tmp_path):
    runs = group_files.find_runs(_job(people, Names(tmp_path)))
    assert 512 < len(runs.names) < 960
    sizes = [some.stop - some.start for some in runs.pieces(1.0)]
    assert sizes == [256] * (len(runs.names) // 256) + [len(runs.names) % 256]
    assert len(runs.pieces(1e9)) == 1
    little, much = (_made(people, tmp_path / f"{gb}", gb) for gb in (1e-6, 8.0))
    assert little == much


def test_values_are_those_of_the_voxels_in_all_masks(people, tmp_path):
    made = _made(people, tmp_path / "out", 1e-6)
    lines = [line.split("\t") for line in made["participants.tsv"].decode().splitlines()]
    table = {row[1]: [float(v.replace("n/a", "nan")) for v in row[2:]] for row in lines[1:]}
    everywhere = set.intersection(*(set(mask) for mask, _, _ in people))
    assert list(table) == [f"v{n:03d}" for n in sorted(everywhere)]
    for voxel in sorted(everywhere)[::53]:
        own = [s[: min(N_TRS), np.searchsorted(mask, voxel)][2:-2] for mask, s, _ in people]
        if any(np.ptp(one) == 0 for one in own):
            continue
        z = np.array([(one - one.mean()) / one.std() for one in own])
        for number in range(len(z)):
            others = np.delete(z, number, axis=0).mean(axis=0)
            wanted = np.corrcoef(z[number], others)[0, 1]
            assert table[f"v{voxel:03d}"][number] == pytest.approx(wanted, abs=1e-5)
