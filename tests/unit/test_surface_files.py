"""Surfaces: names, GIFTI files as they come, parcel means against numpy, atlases, damaged files."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.bidsio import fsaverage5, grids, spaces, surface_atlas, surfaces
from bids_brainlm.bidsio.bold import find_bold
from bids_brainlm.bidsio.images import load_run, parcel_series
from bids_brainlm.bidsio.maps import MapSet, write_map
from bids_brainlm.bidsio.placing import place_atlas
from bids_brainlm.bidsio.rois import read_rois
from bids_brainlm.errors import ConfigError, DataError, MissingInputError, TimingError
from bids_brainlm.simulate import meshes
from bids_brainlm.simulate.settings import SimulationSettings

N, T = 642, 40  # fsaverage3
WINDOW = slice(4, 36)


def gii(path: Path, arrays: np.ndarray, encoding: str = "GIFTI_ENCODING_B64GZ") -> Path:
    """Write a GIFTI file with nibabel, one data array a row."""
    kinds = {"float32": "NIFTI_TYPE_FLOAT32", "int32": "NIFTI_TYPE_INT32"}
    made = [
        nib.gifti.GiftiDataArray(row, encoding=encoding, datatype=kinds[str(arrays.dtype)])
        for row in arrays
    ]
    nib.save(nib.gifti.GiftiImage(darrays=made), path)
    return path


def label_gii(path: Path, labels: np.ndarray, names: dict[int, str]) -> Path:
    table = nib.gifti.GiftiLabelTable()
    for key, name in names.items():
        one = nib.gifti.GiftiLabel(key, 0.5, 0.5, 0.5, 1.0)
        one.label = name
        table.labels.append(one)
    array = nib.gifti.GiftiDataArray(labels.astype(np.int32), intent="NIFTI_INTENT_LABEL")
    nib.save(nib.gifti.GiftiImage(darrays=[array], labeltable=table), path)
    return path


def bold_names(folder: Path, space: str = "fsaverage3") -> list[Path]:
    return [folder / f"sub-1_task-a_hemi-{s}_space-{space}_bold.func.gii" for s in "LR"]


@pytest.fixture
def pair(tmp_path, rng):
    """Return both files and their values, shape (n_trs, 2 N); NaN at the medial wall."""
    values = (500 + 10 * rng.standard_normal((T, 2 * N))).astype(np.float32)
    values[:, :50] = np.nan
    values[:, N : N + 60] = np.nan
    left, right = bold_names(tmp_path)
    return gii(left, values[:, :N]), gii(right, values[:, N:]), values


def brute_force(values, labels, n_labels, confounds):
    """Return parcel means as the definition reads, float64, vertex by vertex."""
    design = np.column_stack([np.ones(len(values)), confounds])
    found = []
    for label in range(1, n_labels + 1):
        members = []
        for vertex in np.flatnonzero(labels == label):
            one = values[:, vertex].astype(float)
            if not np.isfinite(one).all():
                continue
            one = (one - design @ np.linalg.lstsq(design, one, rcond=None)[0])[WINDOW]
            members.append((one - one.mean()) / one.std(ddof=1))
        mean = np.mean(members, axis=0)
        found.append((mean - mean.mean()) / mean.std(ddof=1))
    return np.column_stack(found)


def test_parcel_means_equal_brute_force(pair, rng):
    left, right, values = pair
    labels = rng.integers(0, 9, 2 * N)
    confounds = rng.standard_normal((T, 3))
    image = load_run(left, 1.5, right)
    assert (image.shape, image.n_volumes, image.tr) == ((2 * N,), T, 1.5)
    found = parcel_series(image, labels, 8, WINDOW, confounds)
    expected = brute_force(values, labels, 8, confounds)
    np.testing.assert_allclose(found.series, expected, atol=1e-9)
    dead = np.isnan(values[0])
    for label in range(1, 9):
        assert found.n_dropped[label - 1] == (dead & (labels == label)).sum()
        assert found.n_voxels[label - 1] == (~dead & (labels == label)).sum()


@pytest.mark.parametrize(
    "encoding", ["GIFTI_ENCODING_ASCII", "GIFTI_ENCODING_B64BIN", "GIFTI_ENCODING_B64GZ"]
)
def test_vertices_are_read_from_every_encoding(tmp_path, rng, encoding):
    values = rng.standard_normal((35, 30)).astype(np.float32)  # more than one block of 16
    path = gii(tmp_path / "a.func.gii", values, encoding)
    rows = np.array([29, 0, 7])
    found = surfaces.read_vertices(path, rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values.T[rows], rtol=1e-5)
    packed = tmp_path / "b.func.gii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(surfaces.read_vertices(packed, rows), found)


def test_one_array_of_all_time_points_is_read(tmp_path, rng):
    values = rng.standard_normal((30, 7)).astype(np.float32)
    array = nib.gifti.GiftiDataArray(values, datatype="NIFTI_TYPE_FLOAT32")
    nib.save(nib.gifti.GiftiImage(darrays=[array]), tmp_path / "a.func.gii")
    assert surfaces.size_of(tmp_path / "a.func.gii") == (30, 7)
    np.testing.assert_array_equal(
        surfaces.read_vertices(tmp_path / "a.func.gii", np.arange(30)), values
    )


def test_wrong_files_are_told(tmp_path, rng, pair):
    left, right, values = pair
    other = tmp_path / "other"
    other.mkdir()
    names = bold_names(other)
    short = gii(names[1], values[:-1, N:])
    with pytest.raises(DataError, match=r"found 40 time points, the other hemisphere .* has 39"):
        load_run(left, 1.5, short)
    coarse = gii(bold_names(other, "fsaverage6")[0], values[:, :N])
    with pytest.raises(DataError, match="found 642 vertices, fsaverage6 has 40962"):
        load_run(coarse, 1.5, right)
    with pytest.raises(MissingInputError, match="left hemisphere only"):
        load_run(left, 1.5)
    with pytest.raises(MissingInputError, match="does not exist"):
        load_run(left, 1.5, other / "none_hemi-R.func.gii")
    with pytest.raises(TimingError, match="no repetition time"):
        load_run(left, None, right)
    cut = other / "cut_hemi-L.func.gii"
    cut.write_bytes(left.read_bytes()[:-4000])
    labels = np.ones(2 * N, int)
    with pytest.raises(DataError, match="no GIFTI file that can be read"):
        parcel_series(load_run(cut, 1.5, right), labels, 1, WINDOW)
    for content in (b"", b"no GIFTI at all", b"\x1f\x8bnothing"):
        cut.write_bytes(content)
        with pytest.raises((DataError, MissingInputError)):
            load_run(cut, 1.5, right)
    with pytest.raises(DataError, match="the atlas has"):
        parcel_series(load_run(left, 1.5, right), labels[1:], 1, WINDOW)


def test_the_other_hemisphere_is_found_by_its_name():
    known = {
        "s_hemi-L_space-fsaverage6_bold.func.gii": "s_hemi-R_space-fsaverage6_bold.func.gii",
        "space-x_hemi-L_desc-clean.func.gii": "space-x_hemi-R_desc-clean.func.gii",
        "a_space-fsaverage6_hemi-L.func.gii": "a_space-fsaverage6_hemi-R.func.gii",
        "lh.aparc.annot": "rh.aparc.annot",
        "S1200.L.parcels.label.gii": "S1200.R.parcels.label.gii",
        "atlas_L.label.gii": "atlas_R.label.gii",
    }
    for left, right in known.items():
        assert surfaces.right_of(Path(left)) == Path(right)
        assert surfaces.left_of(Path(right)) == Path(left)
        assert surfaces.left_of(Path(left)) is None
    assert surfaces.right_of(Path("fsaverage.label.gii")) is None


def derivatives(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / "sub-001" / "func" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 2000)
    return root


AFNI = "sub-001_task-pieman_run-1_space-fsaverage6_hemi-{}{}.func.gii"
VOLUME = "sub-001_task-pieman_run-1_space-MNI152NLin2009cAsym_res-native_desc-clean_bold.nii.gz"


def test_names_of_narratives_are_found(tmp_path):
    """The names of the release: fMRIPrep 20.0.5 and AFNI, without suffix."""
    fmriprep = derivatives(tmp_path / "fmriprep", [AFNI.format(s, "") for s in "LR"])
    smooth = derivatives(tmp_path / "smooth", [AFNI.format(s, "_desc-sm6") for s in "LR"])
    clean = derivatives(
        tmp_path / "clean", [*(AFNI.format(s, "_desc-clean") for s in "LR"), VOLUME]
    )
    table = derivatives(
        tmp_path / "fmriprep", ["sub-001_task-pieman_run-1_desc-confounds_regressors.tsv"]
    )
    (run,) = find_bold([fmriprep], space="fsaverage6")
    assert (run.desc, run.space, run.run) == ("preproc", "fsaverage6", "1")
    assert [p.name for p in run.files] == [AFNI.format(s, "") for s in "LR"]
    assert run.confounds_tsv.parent.parent.parent == table
    (run,) = find_bold([smooth], space="fsaverage6")
    assert run.desc == "smoothed"
    (run,) = find_bold([fmriprep, smooth, clean], space="fsaverage6")
    assert run.desc == "clean"
    (run,) = find_bold([fmriprep, smooth, clean], space="fsaverage6", denoise="narratives")
    assert run.desc == "preproc"
    (run,) = find_bold([fmriprep, clean])  # volumes come first where no space is asked for
    assert run.path.name == VOLUME


def test_the_real_names_of_the_release_count(shared_data):
    import gzip as gz

    from bids_brainlm.bidsio.candidates import candidate_state
    from bids_brainlm.bidsio.names import parse_entities

    rows = gz.decompress((shared_data / "narratives/derivative_filenames.tsv.gz").read_bytes())
    table = [line.split("\t") for line in rows.decode().splitlines()[1:]]
    states = {"preproc": "preproc", "sm6": "smoothed"}
    for row in table:
        if row[3] == "fsaverage6":
            assert candidate_state(parse_entities(row[5])) == states[row[4]]
    assert sum(row[3] == "fsaverage6" for row in table) > 3000


def test_names_of_fmriprep_are_found_and_a_missing_hemisphere_is_named(tmp_path):
    name = "sub-001_task-a_hemi-{}_space-fsaverage5_bold.func.gii"
    for sides in ("L", "R"):
        root = derivatives(tmp_path / sides, [name.format(sides)])
        (run,) = find_bold([root], space="fsaverage5")
        missing = name.format("R" if sides == "L" else "L")
        assert not run.present
        assert missing in run.why_absent
        assert run.path.name == name.format("L")


def test_other_spaces_have_no_surfaces(tmp_path):
    root = derivatives(
        tmp_path,
        [
            "sub-001_task-a_hemi-L_space-MNI152_bold.func.gii",
            "sub-001_task-a_space-fsaverage6_hemi-L_isc.gii",
        ],
    )
    assert find_bold([root]) == []


# Atlases


def annot(path: Path, labels: np.ndarray, names: list[str]) -> Path:
    colours = np.array([[20 * k + 5, 30, 40 + k, 0] for k in range(len(names))])
    nib.freesurfer.write_annot(path, labels, colours, names, fill_ctab=True)
    return path


def image_of(pair) -> object:
    return load_run(pair[0], 1.5, pair[1])


def test_label_gifti_pair_with_equal_keys(tmp_path, pair):
    """Both hemispheres count from 1: the right ones get other numbers; ??? is outside."""
    left = np.arange(N) % 4
    right = (np.arange(N) // 7) % 3
    first = label_gii(
        tmp_path / "tpl-x_hemi-L_atlas-Toy_dseg.label.gii",
        left,
        {0: "???", 1: "V1", 2: "V2", 3: "Medial_Wall"},
    )
    label_gii(
        tmp_path / "tpl-x_hemi-R_atlas-Toy_dseg.label.gii", right, {0: "???", 1: "V1", 2: "V2"}
    )
    found = surface_atlas.find_atlas(str(first), pair[0], "fsaverage3")
    assert found.label == "Toy"
    assert found.names == ("L_V1", "L_V2", "R_V1", "R_V2")
    assert found.hemispheres == ("L", "L", "R", "R")
    assert len(set(found.index.tolist())) == 4
    placed = place_atlas(found, image_of(pair))
    expected = np.concatenate([np.where(left == 3, 0, left), np.where(right > 0, right + 2, 0)])
    np.testing.assert_array_equal(placed.labels, expected)
    by_right = surface_atlas.find_atlas(
        str(tmp_path / "tpl-x_hemi-R_atlas-Toy_dseg.label.gii"), pair[0], "fsaverage3"
    )
    assert by_right.paths == found.paths


def test_annot_pair(tmp_path, pair):
    labels = np.arange(N) % 3
    labels[:10] = -1
    names = ["unknown", "17Networks_LH_Vis_1", "17Networks_LH_Aud_1"]
    left = annot(tmp_path / "lh.Schaefer_2.annot", labels, names)
    annot(tmp_path / "rh.Schaefer_2.annot", labels, [n.replace("LH", "RH") for n in names])
    found = surface_atlas.find_atlas(str(left), pair[0], "fsaverage3")
    assert found.label == "Schaefer2"
    assert found.names == (*names[1:], *(n.replace("LH", "RH") for n in names[1:]))
    assert found.networks == ("Vis", "Aud", "Vis", "Aud")
    placed = place_atlas(found, image_of(pair)).labels
    np.testing.assert_array_equal(placed[:N], np.where(labels > 0, labels, 0))
    np.testing.assert_array_equal(placed[N:], np.where(labels > 0, labels + 2, 0))
    both = f"{left},{tmp_path / 'rh.Schaefer_2.annot'}"
    assert surface_atlas.find_atlas(both, pair[0], "fsaverage3").names == found.names


def test_a_table_beside_the_files_wins(tmp_path, pair):
    for side, first in (("L", 1), ("R", 3)):
        label_gii(
            tmp_path / f"tpl-x_hemi-{side}_atlas-T_dseg.label.gii",
            first + np.arange(N) % 2,
            {k: f"n{k}" for k in range(5)},
        )
    (tmp_path / "tpl-x_atlas-T_dseg.tsv").write_text(
        "index\tname\themisphere\n1\ta\tL\n2\tb\tL\n3\tc\tR\n4\td\tR\n5\tempty\tR\n"
    )
    name = str(tmp_path / "tpl-x_hemi-L_atlas-T_dseg.label.gii")
    found = surface_atlas.find_atlas(name, pair[0], "fsaverage3")
    assert found.names == ("a", "b", "c", "d", "empty")
    placed = place_atlas(found, image_of(pair))
    assert placed.n_voxels.tolist() == [321, 321, 321, 321, 0]


def test_a_finer_mesh_is_cut_and_a_coarser_one_refused(tmp_path, pair, rng):
    labels = rng.integers(1, 5, 2562)
    for side in "LR":
        label_gii(tmp_path / f"hemi-{side}.label.gii", labels, {})
    found = surface_atlas.find_atlas(str(tmp_path / "hemi-L.label.gii"), pair[0], "fsaverage3")
    placed = place_atlas(found, image_of(pair)).labels
    np.testing.assert_array_equal(found.index[placed[:N] - 1], labels[:N])
    for side in "LR":
        label_gii(tmp_path / f"hemi-{side}.label.gii", labels[:600], {})
    found = surface_atlas.find_atlas(str(tmp_path / "hemi-L.label.gii"), pair[0], "fsaverage3")
    with pytest.raises(DataError, match=r"found 600 vertices .* has 642"):
        place_atlas(found, image_of(pair))


def test_atlases_that_cannot_be_used(tmp_path, pair):
    left = label_gii(tmp_path / "a_hemi-L.label.gii", np.ones(N), {1: "x"})
    with pytest.raises(MissingInputError, match="a_hemi-R"):
        surface_atlas.find_atlas(str(left), pair[0], "fsaverage3")
    with pytest.raises(ConfigError, match="no atlas for images in fsaverage3"):
        surface_atlas.find_atlas("atlas/volume.nii.gz", pair[0], "fsaverage3")
    nameless = label_gii(tmp_path / "a.label.gii", np.ones(N), {})
    with pytest.raises(ConfigError, match="no hemisphere in the name"):
        surface_atlas.find_atlas(str(nameless), pair[0], "fsaverage3")
    label_gii(tmp_path / "a_hemi-R.label.gii", np.zeros(N), {})
    label_gii(tmp_path / "a_hemi-L.label.gii", np.zeros(N), {})
    with pytest.raises(DataError, match="no labelled vertex"):
        surface_atlas.find_atlas(str(left), pair[0], "fsaverage3")
    gii(left, np.linspace(0, 1, N, dtype=np.float32)[None])
    with pytest.raises(DataError, match="no labels"):
        surface_atlas.find_atlas(str(left), pair[0], "fsaverage3")
    with pytest.raises(MissingInputError, match="spells Schaefer2018100Parcels7Networks"):
        surface_atlas.find_atlas(
            "Schaefer2018_100Parcels7Networks", pair[0], "fsaverage3", home=tmp_path
        )


def test_a_table_of_very_many_labels(tmp_path, pair):
    """The data array begins far behind the start of the file."""
    names = {k: f"a name that takes some room in the file, number {k}" for k in range(1, 4001)}
    for side in "LR":
        label_gii(tmp_path / f"a_hemi-{side}.label.gii", 1 + np.arange(N), names)
    found = surface_atlas.find_atlas(str(tmp_path / "a_hemi-L.label.gii"), pair[0], "fsaverage3")
    assert found.n_parcels == 2 * N
    assert found.names[0] == "L_a name that takes some room in the file, number 1"


def test_templateflow_names_take_the_right_mesh(tmp_path, pair):
    folder = tmp_path / "tpl-fsaverage"
    folder.mkdir()
    for density, n_vertices in (("164k", 163842), ("3k", 2562)):
        for side in "LR":
            name = f"tpl-fsaverage_hemi-{side}_den-{density}_atlas-Toy_seg-7n_dseg.label.gii"
            label_gii(folder / name, 1 + np.arange(n_vertices) % 3, {})
    found = surface_atlas.find_atlas("Toy_7n", pair[0], "fsaverage3", home=tmp_path)
    assert "den-3k" in found.path.name  # the coarsest that is fine enough
    assert found.label == "Toy7n"


def test_real_schaefer_on_fsaverage6(shared_data, tmp_path):
    """Its label table is of another atlas and must not name the parcels."""
    left = shared_data / "atlases/tpl-fsaverage6_hemi-L_desc-Schaefer1000_dseg.label.gii"
    found = surface_atlas.find_atlas(str(left), tmp_path / "x.func.gii", "fsaverage6")
    assert found.n_parcels == 1000
    assert found.names[0] == "L_parcel1"
    assert found.names[-1] == "R_parcel500"
    assert "lacks" in found.warnings[0]
    assert [(found.labels[found.grid.part(s)] == 0).sum() for s in "LR"] == [3486, 3491]


# Maps


def test_maps_are_written_and_read_back(tmp_path, rng):
    grid = surfaces.Surfaces(5, 4)
    labels = np.array([0, 1, 1, 2, 2, 3, 0, 3, 1])
    table = {"index": [11, 12, 40], "name": ["a", "b", "c"]}
    paths = {f"{s}.label.gii": tmp_path / f"x_hemi-{s}_stat-label.label.gii" for s in "LR"}
    grids.write_labels(grid, paths, labels, table)
    (tmp_path / "x.tsv").write_text("index\tname\n11\ta\n12\tb\n40\tc\n")
    maps = MapSet.read(paths["L.label.gii"], tmp_path / "x.tsv")
    np.testing.assert_array_equal(maps.labels, labels)
    assert maps.grid == grid
    values = np.array([[0.1, 1.0], [np.nan, 2.0], [0.3, 3.0]])
    made = {"tsv": tmp_path / "m.tsv"}
    made |= {f"{s}.func.gii": tmp_path / f"m_hemi-{s}.func.gii" for s in "LR"}
    write_map(maps, made, ["layer00", "layer01"], values)
    painted = np.vstack([np.full(2, np.nan), values])[labels].astype(np.float32)
    for side in "LR":
        image = nib.load(made[f"{side}.func.gii"])
        assert image.meta["AnatomicalStructurePrimary"] == surfaces.STRUCTURES[side]
        assert [array.meta["Name"] for array in image.darrays] == ["layer00", "layer01"]
        found = np.stack([array.data for array in image.darrays], axis=1)
        np.testing.assert_array_equal(found, painted[grid.part(side)])
    before = made["L.func.gii"].read_bytes()
    write_map(maps, made, ["layer00", "layer01"], values)
    assert made["L.func.gii"].read_bytes() == before


def test_maps_of_vertices_are_read_back(tmp_path):
    grid = surfaces.Surfaces(5, 4)
    kept = [1, 2, 4, 5, 8]
    labels = np.zeros(9, int)
    labels[kept] = np.arange(1, 6)
    table = {name: [column[k] for k in kept] for name, column in grid.table().items()}
    assert table["name"] == ["L_1", "L_2", "L_4", "R_0", "R_3"]
    paths = {f"{s}.func.gii": tmp_path / f"x_hemi-{s}_stat-label.func.gii" for s in "LR"}
    grids.write_labels(grid, paths, labels, table)
    rows = "\n".join(f"{i}\t{n}" for i, n in zip(table["index"], table["name"], strict=True))
    (tmp_path / "x.tsv").write_text(f"index\tname\n{rows}\n")
    np.testing.assert_array_equal(
        MapSet.read(paths["L.func.gii"], tmp_path / "x.tsv").labels, labels
    )


def test_rois_of_surfaces_know_their_hemisphere(tmp_path):
    grid = surfaces.Surfaces(4, 4)
    maps = MapSet((1, 2, 3), ("x", "y", "z"), np.array([1, 1, 2, 0, 3, 3, 0, 0]), None, grid)
    (tmp_path / "rois.tsv").write_text("name\troi\nx\tA\ny\tA\nz\tA\n")
    found = read_rois(tmp_path / "rois.tsv", maps, hemispheres="separate")
    assert dict(zip(found.names, found.members, strict=True)) == {"AL": ("x", "y"), "AR": ("z",)}
    (tmp_path / "rois.nii.gz").write_bytes(b"x")
    with pytest.raises(DataError, match="image of ROIs in the volume"):
        read_rois(tmp_path / "rois.nii.gz", maps)


def test_extensions_by_space():
    extensions = spaces.image_extensions
    assert extensions("fsaverage6", "vertices", "label") == ["L.func.gii", "R.func.gii"]
    assert extensions("fsaverage6", "Toy", "label") == ["L.label.gii", "R.label.gii"]
    assert extensions("fsLR", "grayordinatesRois") == ["dscalar.nii"]
    assert extensions("MNI152NLin6Asym", "voxels", "label") == ["nii.gz"]
    assert extensions("func", "Toy") == ["nii.gz"]


# The mesh that pictures are drawn on


def test_fsaverage5_has_the_first_vertices_of_finer_meshes(rng):
    n_vertices = spaces.MESHES["fsaverage6"]
    values = rng.integers(0, 99, 2 * n_vertices)
    found = fsaverage5.on_fsaverage5(values, surfaces.Surfaces(n_vertices, n_vertices))
    np.testing.assert_array_equal(found[:10242], values[:10242])
    np.testing.assert_array_equal(found[10242:], values[n_vertices : n_vertices + 10242])


def test_coarser_meshes_give_their_nearest_vertex(rng):
    values = rng.integers(0, 99, 2 * N)
    found = fsaverage5.on_fsaverage5(values, surfaces.Surfaces(N, N))
    np.testing.assert_array_equal(found[:N], values[:N])  # shared vertices
    sphere = fsaverage5._sphere("R")
    for vertex in (700, 5000, 10241):
        nearest = np.linalg.norm(sphere[:N] - sphere[vertex], axis=1).argmin()
        assert found[10242 + vertex] == values[N + nearest]
    assert fsaverage5.on_fsaverage5(np.zeros(20, int), surfaces.Surfaces(10, 10)) is None


# Simulated surfaces


def test_simulated_parcels_lie_on_the_mesh_with_a_medial_wall():
    settings = SimulationSettings(space="fsaverage6", atlas="blocks:7")
    made = meshes.on_mesh(settings)
    left, right = np.split(made.labels, 2)
    assert len(left) == 40962
    assert [(half == 0).sum() for half in (left, right)] == [3486, 3486]
    assert made.names == tuple(f"LBlock0{k}" for k in range(1, 5)) + tuple(
        f"RBlock0{k}" for k in range(1, 4)
    )
    assert np.unique(left).tolist() == [0, 1, 2, 3, 4]
    assert np.unique(right).tolist() == [0, 5, 6, 7]
    values = np.arange(2 * (81924 - 2 * 3486), dtype=np.float32).reshape(2, -1)
    halves = [meshes.map_bytes(values, made, side) for side in "LR"]
    read = [nib.gifti.GiftiImage.from_bytes(half) for half in halves]
    whole = np.hstack([np.stack([a.data for a in image.darrays]) for image in read])
    np.testing.assert_array_equal(whole[:, made.labels > 0], values)
    assert np.isnan(whole[:, made.labels == 0]).all()


def test_simulated_parcels_that_do_not_fit(tmp_path):
    with pytest.raises(ConfigError, match="expected 2 to"):
        meshes.on_mesh(SimulationSettings(space="fsaverage5", atlas="blocks:1"))
    with pytest.raises(ConfigError, match="--space fsnative"):
        SimulationSettings(space="fsnative")
    for side in "LR":
        label_gii(tmp_path / f"hemi-{side}.label.gii", np.ones(N), {})
    name = str(tmp_path / "hemi-L.label.gii")
    with pytest.raises(ConfigError, match="coarser"):
        meshes.on_mesh(SimulationSettings(space="fsaverage5", atlas=name))
