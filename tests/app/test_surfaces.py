"""Whole runs on surfaces and CIFTI, checked with numpy, Workbench and the BIDS validator."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import narratives_tree
import nibabel
import numpy as np
import pytest
import surface_data as data
from surface_data import maps, values_of, workbench

from bids_brainlm import boutiques

pytestmark = pytest.mark.thorough

SPACE = "fsaverage5"
WALL = 872  # of the 10,242 vertices of a hemisphere, the share that fsaverage6 has in Narratives
DESC = "randomTinyBertEmbeddings"
LITTLE = ("--layers", "2", "--n-iter", "1", "--alphas", "10", "--n-permutations", "20")


def table(path: Path) -> dict[str, list[str]]:
    with path.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {name: [row[name] for row in rows] for name in rows[0]}


def template(name: str) -> str:
    """Return the pattern that the Boutiques descriptor has for an output."""
    outputs = {o["id"]: o["path-template"] for o in boutiques.descriptor()["output-files"]}
    return outputs[f"output_{name}"].removeprefix("[OUTPUT_DIR]/")


def numbers(cells: list[str]) -> np.ndarray:
    return np.array([np.nan if cell == "n/a" else float(cell) for cell in cells])


@pytest.fixture(scope="module")
def bids(tmp_path_factory) -> Path:
    """Return a dataset on fsaverage5: two people, 12 parcels, NaN medial wall."""
    folder = tmp_path_factory.mktemp("surfaces") / "bids"
    return data.make(folder, "--space", SPACE, "--n-parcels", "12")


@pytest.fixture(scope="module")
def made(bids) -> Path:
    """Return what the participant and the group level make of it."""
    out = bids.parent / "out"
    atlas = str(data.blocks(bids, SPACE, 12))
    assert data.run(bids, out, "participant", "--space", SPACE, "--atlas", atlas) == 0
    assert data.run(bids, out, "group") == 0
    return out


def copy(bids: Path, to: Path) -> Path:
    """Return a copy that a test may spoil."""
    shutil.copytree(bids, to)
    return to


def test_series_equal_brute_force(bids, made):
    """Confounds out, vertices z-scored, averaged over each parcel, z-scored: vertex by vertex."""
    path = maps(made, "sub-02_*stat-mean_timeseries.json")
    meta = json.loads(path.read_text())
    found = table(path.with_suffix(".tsv"))
    confounds = table(next(bids.rglob("sub-02_*desc-confounds_timeseries.tsv")))
    design = np.column_stack(
        [np.ones(meta["NumberOfVolumesInRun"])]
        + [np.nan_to_num(numbers(confounds[c])) for c in meta["Denoising"]["Columns"]]
    )
    assert design.shape[1] > 6
    first = round(meta["StartTime"] * meta["SamplingFrequency"])
    window = slice(first, first + meta["NumberOfVolumes"])
    for side in "LR":
        series = values_of(data.bold(bids, "02", side, SPACE)).astype(float)
        atlas = data.blocks(bids, SPACE, 12)
        labels = values_of(atlas.with_name(atlas.name.replace("hemi-L", f"hemi-{side}")))[0]
        assert np.isnan(series[0]).sum() == WALL
        inside = np.isfinite(series[0])
        assert (labels[~inside] == 0).all()
        for label in np.unique(labels[labels > 0]):
            own = series[:, inside & (labels == label)]
            own = (own - design @ np.linalg.lstsq(design, own, rcond=None)[0])[window]
            mean = ((own - own.mean(0)) / own.std(0, ddof=1)).mean(axis=1)
            expected = (mean - mean.mean()) / mean.std(ddof=1)
            name = list(found)[label - 1]
            np.testing.assert_allclose(numbers(found[name]), expected, atol=2e-4)


def test_maps_hold_the_table_on_every_vertex(bids, made):
    """Participant and group, both hemispheres; the medial wall has no value."""
    atlas = data.blocks(bids, SPACE, 12)
    stats = {f"sub-01_*desc-{DESC}_stat-r_boldmap": 5, f"task-*desc-{DESC}_stat-mean_boldmap": 5}
    for pattern, n_columns in stats.items():
        start, _, rest = pattern.partition("*")
        rows = table(maps(made, f"{pattern}.tsv"))
        layers = [c for c in rows if c.startswith("layer")]
        assert len(layers) == n_columns
        by_parcel = np.column_stack([numbers(rows[c]) for c in layers])
        for side in "LR":
            found = maps(made, f"{start}*hemi-{side}_space-{SPACE}_atlas-Blocks12_{rest}.func.gii")
            painted = values_of(found)
            labels = values_of(atlas.with_name(atlas.name.replace("hemi-L", f"hemi-{side}")))[0]
            expected = np.vstack([np.full(n_columns, np.nan), by_parcel])[labels].T
            np.testing.assert_allclose(painted, expected, rtol=2e-6)
            assert np.isnan(painted[0]).sum() == WALL


def test_every_table_has_both_hemispheres(made):
    """And nothing is left from volumes."""
    tables = list(made.rglob("*_boldmap.tsv"))
    assert len(tables) > 40
    for path in tables:
        kind = "label" if "stat-label" in path.name else "func"
        for side in "LR":
            name = path.name.replace("_space-", f"_hemi-{side}_space-")
            assert path.with_name(name.replace(".tsv", f".{kind}.gii")).is_file()
    assert not list(made.rglob("*.nii.gz"))
    assert len(list(made.glob(template("surface_maps")))) > 80


def test_workbench_opens_maps_and_labels(made):
    said = workbench(
        "-file-information", maps(made, f"task-*hemi-R*desc-{DESC}_stat-mean_boldmap.func.gii")
    )
    for expected in ("Type:                     Metric", "CortexRight", "10242", "layer00"):
        assert expected in said
    assert str(WALL) in said.splitlines()[-3]
    said = workbench("-file-information", maps(made, "sub-01_*hemi-L*stat-label_boldmap.label.gii"))
    for expected in ("Type:                   Label", "CortexLeft", "LBlock01", "LBlock06"):
        assert expected in said


def test_the_validator_passes(made):
    program = Path(sys.executable).with_name("bids-validator-deno")
    if not program.is_file():
        pytest.skip("bids-validator-deno is not installed")
    done = subprocess.run([program, made, "--format", "json"], capture_output=True, check=False)
    if not done.stdout:
        pytest.skip(f"bids-validator-deno cannot run here: {done.stderr[-300:]!r}")
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [i for i in issues if i["severity"] == "error"] == []


def test_blocks_are_not_drawn_on_a_brain(made):
    """The generated atlas says that it means nothing; its page shows scores by parcel."""
    pages = [made / "sub-01.html", made / "group.html"]
    assert all(page.is_file() for page in pages)
    assert not list(made.rglob("figures/*_map.png"))
    assert list(made.rglob(f"figures/*{DESC}_parcels.svg"))


# What cannot be used


def call(bids: Path, tmp_path: Path, capsys, *more: str) -> tuple[int, str]:
    given = ("--space", SPACE, "--atlas", str(data.blocks(bids, SPACE, 12)), *more)
    code = data.run(bids, tmp_path / "out", "participant", *given)
    return code, capsys.readouterr().err


def test_a_missing_hemisphere_is_named(bids, tmp_path, capsys):
    spoilt = copy(bids, tmp_path / "bids")
    data.bold(spoilt, "02", "R", SPACE).unlink()
    code, said = call(spoilt, tmp_path, capsys, "--participant-label", "02")
    assert code == 66
    assert "one hemisphere is missing: found no sub-02" in said
    assert f"hemi-R_space-{SPACE}" in said


def test_an_atlas_without_right_hemisphere_is_refused(bids, tmp_path, capsys):
    spoilt = copy(bids, tmp_path / "bids")
    atlas = data.blocks(spoilt, SPACE, 12)
    atlas.with_name(atlas.name.replace("hemi-L", "hemi-R")).unlink()
    code, said = call(spoilt, tmp_path, capsys)
    assert code == 66
    assert "hemi-R" in said


def test_a_volume_atlas_is_refused(bids, tmp_path, capsys):
    code, said = call(bids, tmp_path, capsys, "--atlas", "folder/atlas_dseg.nii.gz")
    assert code == 64
    assert "label GIFTI" in said


def test_other_meshes_and_lengths_are_refused(bids, tmp_path, capsys):
    """Each of one person only; the code is that of the first error, nothing of it is written."""
    spoilt = copy(bids, tmp_path / "bids")
    right = data.bold(spoilt, "01", "R", SPACE)
    image = nibabel.load(right)
    image.darrays = image.darrays[:-1]
    nibabel.save(image, right)
    both = [data.bold(spoilt, "02", side, SPACE) for side in "LR"]
    for path in both:
        image = nibabel.load(path)
        for array in image.darrays:
            array.data = array.data[:2562]
            array.dims = [2562]
        nibabel.save(image, path)
    for person, expected in (
        ("01", "time points, the other hemisphere"),
        ("02", "found 2562 vertices, fsaverage5 has 10242"),
    ):
        code, said = call(spoilt, tmp_path, capsys, "--participant-label", person)
        assert code == 65
        assert expected in said
        assert not list((tmp_path / "out").rglob("sub-*_timeseries.*"))


def test_a_space_that_is_not_there_is_named(bids, tmp_path, capsys):
    code, said = call(bids, tmp_path, capsys, "--space", "fsaverage6")
    assert code == 66
    assert "in space fsaverage6" in said


# Longer runs


def planted(bids: Path, out: Path, place: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean r at the planted layer for parcels with an embedding, and for noise parcels."""
    truth = table(bids / "derivatives" / "simulation" / "truth.tsv")
    rows = table(maps(out, f"task-*{place}_desc-{DESC}_stat-mean_boldmap.tsv"))
    at = {name: k for k, name in enumerate(rows["name"])}
    signal, noise = [], []
    for name, kind, column in zip(truth["name"], truth["kind"], truth["column"], strict=True):
        layers = [float(rows[c][at[name]]) for c in rows if c.startswith("layer")]
        if kind == "embedding":
            signal.append(float(rows[column][at[name]]))
        elif kind == "noise":
            noise.append(np.mean(layers))
    return np.array(signal), np.array(noise)


@pytest.mark.slow
def test_planted_signal_is_found_where_it_is_on_fsaverage6(tmp_path):
    """The real mesh and wall; series of a parcel are those of the same parcel in a volume."""
    common = ("--n-parcels", "40", "--noise-share", "0.5", "--head-share", "0")
    bids = data.make(tmp_path / "s", "--space", "fsaverage6", *common, participants=5, seconds=330)
    left = values_of(data.bold(bids, "01", "L", "fsaverage6"))
    assert left.shape[1] == 40962
    assert np.isnan(left).sum(axis=1).tolist() == [3486] * len(left)
    atlas = str(data.blocks(bids, "fsaverage6", 40))
    out = tmp_path / "out"
    given = ("--space", "fsaverage6", "--atlas", atlas)
    assert data.run(bids, out, "participant", *given) == 0
    assert data.run(bids, out, "group") == 0
    signal, noise = planted(bids, out, "_atlas-Blocks40")
    assert signal.mean() > noise.mean() + 4 * noise.std() / np.sqrt(len(noise))
    assert signal.mean() > 0.05
    assert abs(noise.mean()) < 0.05
    volumes = data.make(tmp_path / "v", *common, participants=5, seconds=330)
    dseg = next((volumes / "derivatives" / "atlas").glob("*dseg.nii.gz"))
    assert data.run(volumes, tmp_path / "outv", "participant", "--atlas", str(dseg)) == 0
    for person in ("01", "05"):
        one = table(maps(out, f"sub-{person}_*timeseries.tsv"))
        other = table(maps(tmp_path / "outv", f"sub-{person}_*timeseries.tsv"))
        assert list(one) == list(other)
        r = [np.corrcoef(numbers(one[name]), numbers(other[name]))[0, 1] for name in one]
        assert min(r) > 0.9


@pytest.mark.slow
def test_vertexwise_and_tfce(tmp_path, capsys):
    """Vertices without data are left out; parcels' vertices carry what their parcel carries."""
    bids = data.make(tmp_path / "b", "--space", SPACE, "--n-parcels", "12", participants=4)
    out = tmp_path / "out"
    flags = ("--space", SPACE, "--voxelwise", *LITTLE, "--layers", "1", "3")
    assert data.run(bids, out, "participant", *flags) == 0
    assert data.run(bids, out, "group", "--tfce") == 0
    said = capsys.readouterr().err
    assert f"{2 * WALL} of 20484 vertices have no data and are left out" in said
    rows = table(maps(out, f"task-*atlas-vertices_desc-{DESC}_stat-mean_boldmap.tsv"))
    assert len(rows["name"]) == 2 * (10242 - WALL)
    enhanced = table(maps(out, f"task-*atlas-vertices_desc-{DESC}_stat-ptfce_boldmap.tsv"))
    p = numbers(enhanced["layer03"])
    assert len(p) == len(rows["name"])
    assert ((p >= 1 / 16) & (p <= 1)).all()  # four people: 16 sign patterns
    assert p.min() < 1
    right = values_of(maps(out, f"task-*hemi-R*desc-{DESC}_stat-mean_boldmap.func.gii"))
    assert right.shape == (2, 10242)
    at = {name: k for k, name in enumerate(rows["name"])}
    for vertex in (0, 77, 9000):
        expected = float(rows["layer03"][at[f"R_{vertex}"]])
        assert right[1, vertex] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(right[0]).sum() == WALL
    assert (out / "group.html").is_file()
    assert list(out.rglob(f"group/figures/*{DESC}_map.png"))


@pytest.mark.slow
def test_some_people_lack_other_vertices(bids, tmp_path):
    """The group has the vertices that all have."""
    spoilt = copy(bids, tmp_path / "bids")
    path = data.bold(spoilt, "02", "L", SPACE)
    image = nibabel.load(path)
    for array in image.darrays:
        array.data[:100] = np.nan
        array.data[100:120] = 5.0  # constant
    nibabel.save(image, path)
    out = tmp_path / "out"
    flags = ("--space", SPACE, "--voxelwise", *LITTLE)
    assert data.run(spoilt, out, "participant", *flags) == 0
    assert data.run(spoilt, out, "group") == 0
    rows = table(maps(out, "task-*atlas-vertices_stat-isc_boldmap.tsv"))
    assert rows["name"][0] == "L_120"
    assert len(rows["name"]) == 2 * (10242 - WALL) - 120
    left = values_of(maps(out, "task-*hemi-L*atlas-vertices_stat-isc_boldmap.func.gii"))[0]
    assert np.isnan(left).sum() == WALL + 120


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parcellated", "dense", "grayordinates"])
def test_cifti(bids, tmp_path, kind, capsys):
    copied = copy(bids, tmp_path / "bids")
    people = ("01", "02")
    dlabel = data.rewrite_as_cifti(copied, SPACE, 1.5, people, parcellated=kind == "parcellated")
    flags = {
        "parcellated": (),
        "dense": ("--atlas", str(dlabel)),
        "grayordinates": ("--voxelwise", *LITTLE),
    }[kind]
    out = tmp_path / "out"
    assert data.run(copied, out, "participant", *flags) == 0
    assert data.run(copied, out, "group") == 0
    capsys.readouterr()
    assert data.run(copied, out, "participant", *flags, "--participant-label", "02") == 0
    assert " 0 of " in capsys.readouterr().err.split("level:")[1]  # whoever else is there
    atlas, ending = (
        ("grayordinates", "dscalar") if kind == "grayordinates" else ("Blocks", "pscalar")
    )
    found = maps(out, f"task-*space-fsLR_atlas-{atlas}_desc-{DESC}_stat-mean_boldmap.{ending}.nii")
    image = nibabel.load(found)
    assert found in out.glob(template("cifti_maps"))
    rows = table(found.with_name(found.name.replace(f".{ending}.nii", ".tsv")))
    layers = [c for c in rows if c.startswith("layer")]
    expected = np.stack([numbers(rows[c]) for c in layers])
    np.testing.assert_allclose(np.asarray(image.dataobj), expected, rtol=2e-6)
    locations = image.header.get_axis(1)
    assert list(image.header.get_axis(0).name) == layers
    if kind == "grayordinates":
        assert len(locations) == 29696 + 29716 + 36
    else:
        assert list(locations.name) == rows["name"]
        assert sum(map(len, (v for one in locations.vertices for v in one.values()))) > 59000
    means = workbench("-cifti-stats", found, "-reduce", "MEAN").split()
    np.testing.assert_allclose(np.array(means, float), expected.mean(axis=1), rtol=1e-4)
    said = workbench("-file-information", maps(out, f"sub-01_*stat-label_boldmap.{ending}.nii"))
    assert "CortexLeft" in said


@pytest.mark.slow
def test_dense_and_parcellated_series_are_the_same(bids, tmp_path):
    """Averages made by this package of dense data against those that another program made."""
    series = {}
    for kind in ("dense", "parcellated"):
        copied = copy(bids, tmp_path / kind)
        dlabel = data.rewrite_as_cifti(
            copied, SPACE, 1.5, ("01", "02"), parcellated=kind == "parcellated"
        )
        flags = ("--atlas", str(dlabel), "--voxel-scaling", "none") if kind == "dense" else ()
        out = tmp_path / f"out-{kind}"
        given = ("--participant-label", "01", "--features", "magnitudes")
        assert data.run(copied, out, "participant", *flags, *given) == 0
        series[kind] = table(maps(out, "sub-01_*atlas-Blocks_stat-mean_timeseries.tsv"))
    assert list(series["dense"]) == list(series["parcellated"])
    for name, cells in series["dense"].items():
        np.testing.assert_allclose(numbers(cells), numbers(series["parcellated"][name]), atol=1e-3)


@pytest.mark.slow
def test_schaefer_is_drawn_with_its_medial_wall(shared_data, tmp_path):
    """The real atlas of fsaverage6 as the user gives it, and regions made of its parcels."""
    left = shared_data / "atlases/tpl-fsaverage6_hemi-L_desc-Schaefer1000_dseg.label.gii"
    bids = data.make(tmp_path / "b", "--space", "fsaverage6", "--atlas", str(left), participants=2)
    out = tmp_path / "out"
    assert data.run(bids, out, "participant", "--space", "fsaverage6", "--atlas", str(left)) == 0
    lines = [f"{side}_parcel{k}\tA" for side in "LR" for k in (1, 2, 3)]
    (tmp_path / "rois.tsv").write_text("\n".join(["name\troi", *lines, "R_parcel9\tB"]) + "\n")
    rois = ("--rois", str(tmp_path / "rois.tsv"), "--roi-hemispheres", "separate")
    assert data.run(bids, out, "group", *rois) == 0
    regions = table(maps(out, f"task-*atlas-Schaefer1000Rois_desc-{DESC}_stat-mean_boldmap.tsv"))
    assert regions["name"] == ["AL", "AR", "BR"]
    painted = values_of(
        maps(out, f"task-*hemi-R*atlas-Schaefer1000Rois_desc-{DESC}_stat-mean_boldmap.func.gii")
    )
    labels = values_of(left.with_name(left.name.replace("hemi-L", "hemi-R")))[0]
    np.testing.assert_array_equal(np.isfinite(painted[0]), np.isin(labels, (1, 2, 3, 9)))
    for folder in ("sub-01", "group"):
        (picture,) = (out / folder / "figures").glob(f"*{DESC}_map.png")
        assert picture.stat().st_size > 30_000
    page = (out / "sub-01.html").read_text()
    assert "on the inflated cortex (fsaverage5)" in page
    assert "axial slices" not in page


@pytest.mark.slow
def test_the_narratives_tree_with_surfaces(shared_data, tmp_path):
    """Real tree and names of the release: the clean surfaces of AFNI, TR of the task's sidecar."""
    root = narratives_tree.unpack(shared_data, tmp_path)
    given = ("--stories", "black", "--flavour", "both", "--space", SPACE, "--atlas", "blocks:8")
    given += ("--model", "random:tiny-bert", "--context-trs", "0")
    narratives_tree.fill(root, shared_data, ("265", "267"), *given)
    names = {p.name for p in root.rglob("sub-265*.func.gii")}
    for side in "LR":
        assert f"sub-265_task-black_space-{SPACE}_hemi-{side}.func.gii" in names
        assert f"sub-265_task-black_space-{SPACE}_hemi-{side}_desc-clean.func.gii" in names
    flags = ["--space", SPACE, "--atlas", str(data.blocks(root, SPACE, 8)), "--task-label", "black"]
    flags += ["--participant-label", "265", "--context-trs", "0", "--layers", "1"]
    fmriprep = ("--derivatives", str(root / "derivatives" / "fmriprep"))
    for more, expected in (((), "clean"), (fmriprep, "preproc")):
        out = tmp_path / expected
        assert data.run(root, out, "participant", *flags, *more) == 0
        meta = json.loads(maps(out, "sub-265_*timeseries.json").read_text())
        assert meta["Denoising"]["ImageDescription"] == expected
        assert bool(meta["Denoising"]["Columns"]) == (expected == "preproc")
        assert 1 / meta["SamplingFrequency"] == pytest.approx(1.5)
