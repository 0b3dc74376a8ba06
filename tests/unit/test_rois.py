import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.bidsio import roi_images, rois, write
from bids_brainlm.bidsio.maps import MapSet
from bids_brainlm.errors import ConfigError, DataError, MissingInputError, OutputError

MM2 = np.array([[-2.0, 0, 0, 20], [0, 2, 0, -20], [0, 0, 2, -20], [0, 0, 0, 1]])


def box(affine, shape, low, high):
    """Voxels whose centre lies in a box in mm."""
    ijk = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    xyz = ijk @ affine[:3, :3].T + affine[:3, 3]
    return ((xyz >= low) & (xyz <= high)).all(axis=-1)


@pytest.fixture
def maps():
    """Four parcels of 10 x 10 x 10 mm on a grid of 2 mm whose x runs to the left."""
    labels = np.zeros((21, 21, 21), np.int32)
    corners = [(-11, 1, 1), (2, 1, 1), (-11, -11, 1), (2, -11, 1)]
    for k, low in enumerate(corners, start=1):
        labels[box(MM2, labels.shape, low, np.add(low, 9))] = k
    names = ("LH_a", "RH_a", "b", "c")
    return MapSet((11, 12, 13, 14), names, labels, MM2)


def image(tmp_path, boxes, names, affine=None, shape=(40, 40, 40)):
    """Write a label image on another grid (1.5 mm, x to the right), and its table."""
    if affine is None:
        affine = np.diag([1.5, 1.5, 1.5, 1.0])
        affine[:3, 3] = -29.0
    data = np.zeros(shape, np.int16)
    for value, (low, high) in boxes.items():
        data[box(affine, shape, low, high)] = value
    path = tmp_path / "roi.nii.gz"
    nib.save(nib.Nifti1Image(data, affine), path)
    if names:
        write.write_tsv(tmp_path / "roi.tsv",
                        {"index": list(names), "name": list(names.values())})
    return path


def test_the_table_is_whole_and_its_colours_differ_for_all_eyes():
    table = roi_images.roi_table()
    assert table.names == ("PostTemp", "AntTemp", "AngG", "IFG", "IFGorb", "MFG", "vmPFC",
                           "dmPFC", "PMC", "HG", "V1")
    assert all(len(text) > 10 or text == "Angular gyrus" for text in table.descriptions)
    rgb = np.array([[int(c[i:i + 2], 16) / 255 for i in (1, 3, 5)] for c in table.colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    # Machado et al. 2009, severity 1: normal, without red, without green cones.
    for matrix in (
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]],
    ):
        seen = np.clip(linear @ np.transpose(matrix), 0, 1)
        xyz = seen @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722],
                               [0.0193, 0.1192, 0.9505]]).T / [0.9505, 1, 1.089]
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]),
                        200 * (f[:, 1] - f[:, 2])], axis=1)
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1e3 * np.eye(len(lab))
        assert apart.min() > 15


@pytest.mark.parametrize(("name", "wanted"), [
    ("posterior temporal", "PostTemp"), ("MFG / PrecG ", "MFG"), ("IFG orbitalis", "IFGorb"),
    ("IFG", "IFG"), ("LH_IFGorb", "IFGorb"), ("right hg", "HG"), ("temporal pole", "temporal pole"),
])
def test_names_of_image_labels_become_ours(name, wanted):
    assert roi_images.roi_table().canonical(name) == wanted


def test_overlap_counts_voxels_by_their_place_in_mm(tmp_path, maps):
    """The ROI covers 3 of the 5 columns of parcel 1 and 2 of those of parcel 2 in x."""
    path = image(tmp_path, {7: ((-7.1, 0, 0), (5.1, 11, 11))}, {7: "HG"})
    data, affine = nib.load(path).get_fdata(), nib.load(path).affine
    inside = {}
    for k in range(1, 5):
        hits = []
        for voxel in np.argwhere(maps.labels == k):
            mm = maps.affine @ [*voxel, 1]
            near = np.floor(np.linalg.solve(affine, mm)[:3] + 0.5).astype(int)
            hits.append(data[tuple(near)] == 7)
        inside[k] = np.mean(hits)
    low, high = sorted((inside[1], inside[2]))
    assert 0 < low < high < 1
    assert inside[3] == inside[4] == 0
    read = rois.read_rois(path, maps, overlap=high)
    assert read.members == ((maps.names[0 if inside[1] > inside[2] else 1],),)
    assert rois.read_rois(path, maps, overlap=low).members == (("LH_a", "RH_a"),)
    with pytest.raises(DataError, match="none of the 4 parcels") as raised:
        rois.read_rois(path, maps, overlap=min(1.0, high + 0.01))
    assert "--rois" in raised.value.hint
    assert "--roi-overlap" in raised.value.hint


def test_the_largest_share_wins_and_the_order_is_the_tables(tmp_path, maps):
    boxes = {1: ((-12, 0, 0), (-6, 12, 12)), 2: ((-5.9, 0, 0), (12, 12, 12)),
             3: ((-12, -12, 0), (12, -0.5, 12))}
    path = image(tmp_path, boxes, {1: "V1", 2: "PostTemp", 3: "mine"})
    read = rois.read_rois(path, maps, overlap=0.3)
    assert read.names == ("PostTemp", "V1", "mine")
    assert read.members == (("RH_a",), ("LH_a",), ("b", "c"))
    assert read.hemispheres == ("R", "L", "LR")
    assert read.colours[:2] == ("#0072B2", "#C8C8C8")
    assert read.colours[2] not in roi_images.roi_table().colours


def test_hemispheres(tmp_path, maps):
    path = tmp_path / "parcels.tsv"
    write.write_tsv(path, {"index": [11, 12, 13, 14], "name": list(maps.names),
                           "roi": ["IFG", "IFG", "PostTemp", "PostTemp"]})
    both = rois.read_rois(path, maps)
    assert (both.names, both.hemispheres) == (("PostTemp", "IFG"), ("LR", "LR"))
    assert both.members == (("b", "c"), ("LH_a", "RH_a"))
    assert rois.read_rois(path, maps, hemispheres="left").members == (("b",), ("LH_a",))
    assert rois.read_rois(path, maps, hemispheres="right").members == (("c",), ("RH_a",))
    separate = rois.read_rois(path, maps, hemispheres="separate")
    assert separate.names == ("PostTempL", "PostTempR", "IFGL", "IFGR")
    assert separate.members == (("b",), ("c",), ("LH_a",), ("RH_a",))
    with pytest.raises(ConfigError, match="hemispheres"):
        rois.read_rois(path, maps, hemispheres="up")
    with pytest.raises(ConfigError, match="overlap"):
        rois.read_rois(path, maps, overlap=0)
    with pytest.raises(MissingInputError):
        rois.read_rois(tmp_path / "gone.tsv", maps)


def test_the_side_comes_from_the_table_then_the_name_then_the_place():
    names = ["LH_Vis_1", "7Networks_RH_Vis_1", "LATL", "x", "y", "mid"]
    x = np.array([5.0, -5.0, 4.0, -3.0, np.nan, 0.0])
    assert rois.parcel_hemispheres(names, x) == ["L", "R", "R", "L", "", "R"]
    stated = ["right", "n/a", "", "R", "lh", "n/a"]
    assert rois.parcel_hemispheres(names, x, stated) == ["R", "R", "R", "R", "L", "R"]


@pytest.mark.parametrize("columns", [("name",), ("index",), ("index", "name")])
def test_tables_by_name_by_number_or_both(tmp_path, maps, columns):
    table = {"index": [12, 13], "name": ["RH_a", "b"]}
    path = tmp_path / "t.tsv"
    write.write_tsv(path, {c: table[c] for c in columns} | {"roi": ["HG", "n/a"]})
    read = rois.read_rois(path, maps)
    assert read.members == (("RH_a",),)
    assert any("number only" in w for w in read.warnings) == (columns == ("index",))


def test_a_table_of_another_release_is_refused(tmp_path, maps):
    path = tmp_path / "t.tsv"
    write.write_tsv(path, {"index": [11, 12, 13, 14], "name": ["LH_a", "b", "RH_a", "c"],
                           "roi": ["HG"] * 4})
    with pytest.raises(DataError, match=r"found 2 of 4 .* 2 numbers .*12 b, 13 RH_a") as raised:
        rois.read_rois(path, maps)
    assert "--rois" in raised.value.hint
    write.write_tsv(path, {"name": ["LH_a", "RH_b", "z", "c"], "roi": ["HG"] * 4})
    with pytest.raises(DataError, match=r"found 2 of 4 .*RH_b, z"):
        rois.read_rois(path, maps)


def test_parcels_outside_the_mask_may_be_missing(tmp_path, maps):
    path = tmp_path / "t.tsv"
    write.write_tsv(path, {"index": [11, 12, 13, 14], "name": list(maps.names),
                           "roi": ["HG", "HG", "V1", "IFG"]})
    kept = maps.restrict(["LH_a", "RH_a", "c"])
    read = rois.read_rois(path, kept)
    assert read.members == (("LH_a", "RH_a"), ("c",))[::-1]
    assert any("1 of 4 parcels" in w for w in read.warnings)
    assert any("V1 has no parcel" in w for w in read.warnings)
    with pytest.raises(DataError, match="another atlas"):
        rois.read_rois(path, maps.restrict(["c"]))


@pytest.mark.parametrize(("columns", "words"), [
    ({"name": ["LH_a", "LH_a"], "roi": ["HG", "V1"]}, "twice"),
    ({"name": ["LH_a"], "region": ["HG"]}, "columns roi"),
    ({"roi": ["HG"]}, "columns roi"),
    ({"index": ["one"], "roi": ["HG"]}, "integers"),
    ({"name": ["LH_a"], "roi": ["n/a"]}, "none of the 4"),
])
def test_wrong_tables_are_refused(tmp_path, maps, columns, words):
    write.write_tsv(tmp_path / "t.tsv", columns)
    with pytest.raises(DataError, match=words):
        rois.read_rois(tmp_path / "t.tsv", maps)


def test_swapped_frontal_names_are_refused(tmp_path, maps):
    boxes = {5: ((-12, 0, 6), (12, 12, 12)), 6: ((-12, 0, -6), (12, 12, 2))}
    path = image(tmp_path, boxes, {5: "MFG", 6: "IFGorb"})
    assert roi_images.read_roi_image(path).names == ("MFG", "IFGorb")
    path = image(tmp_path, boxes, {5: "IFGorb", 6: "MFG"})
    with pytest.raises(DataError, match="swapped"):
        roi_images.read_roi_image(path)


def test_images_need_names_that_fit(tmp_path, maps):
    boxes = {1: ((-12, 0, 0), (12, 12, 12)), 2: ((-12, -12, 0), (12, -1, 12))}
    path = image(tmp_path, boxes, {})
    with pytest.raises(DataError, match="no table"):
        roi_images.read_roi_image(path)
    path = image(tmp_path, boxes, {9: "HG"})
    with pytest.raises(DataError, match="lists none"):
        roi_images.read_roi_image(path)
    path = image(tmp_path, boxes, {1: "HG"})
    assert "1 labels have no name" in rois.read_rois(path, maps).warnings[0]


def test_evlab_numbers_of_the_right_hemisphere(shared_data):
    """The text file says 14 to 26, the image 19 to 31."""
    path = shared_data / "atlases" / "evlab_langParcels_symmetrical.nii.gz"
    found = roi_images.read_roi_image(path)
    values = np.asanyarray(nib.load(path).dataobj)
    for name, left, right in [("PostTemp", 6, 24), ("AntTemp", 4, 22), ("IFG", 2, 20),
                              ("IFGorb", 1, 19), ("MFG", 3, 21)]:
        own = found.labels == found.names.index(name) + 1
        np.testing.assert_array_equal(own, np.isin(values, (left, right)))


def test_evlab_rows_on_the_wrong_side_are_refused(shared_data, tmp_path):
    folder = shared_data / "atlases"
    path = tmp_path / "e.nii.gz"
    path.write_bytes((folder / "evlab_langParcels_symmetrical.nii.gz").read_bytes())
    text = (folder / "evlab_langParcels_symmetrical_labels.txt").read_text()
    swapped = text.replace("left", "x").replace("right", "left").replace("x\t", "right\t")
    (tmp_path / "e_labels.txt").write_text(swapped)
    with pytest.raises(DataError, match="called"):
        roi_images.read_roi_image(path)


def test_masks(tmp_path):
    path = image(tmp_path, {3: ((-12, 0, 0), (0, 12, 12)), 5: ((2, 0, 0), (12, 12, 12))}, {})
    with pytest.raises(DataError, match="2 different values"):
        roi_images.read_mask(path)
    mask, _ = roi_images.read_mask(path, 5)
    np.testing.assert_array_equal(mask, np.asanyarray(nib.load(path).dataobj) == 5)
    with pytest.raises(DataError, match="no voxel with the label 4"):
        roi_images.read_mask(path, 4)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_values_are_those_of_the_nearest_voxel(seed):
    draw = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = draw.normal(size=(3, 3)) + 3 * np.diag(draw.choice([-1, 1], 3))
    affine[:3, 3] = draw.normal(size=3) * 10
    volume = draw.integers(1, 100, (4, 5, 6))
    ijk = draw.uniform(-1.4, 6.4, (50, 3))
    found = roi_images.values_at(volume, affine, ijk @ affine[:3, :3].T + affine[:3, 3])
    for place, value in zip(ijk, found, strict=True):
        near = tuple(np.rint(place).astype(int))
        inside = all(0 <= a < b for a, b in zip(near, volume.shape, strict=True))
        assert value == (volume[near] if inside else 0)


def test_writing_refuses_to_replace(tmp_path, maps):
    path = tmp_path / "out.tsv"
    columns = {"index": [11, 12], "name": ["LH_a", "RH_a"], "hemisphere": ["L", "R"],
               "roi": ["HG", None], "overlap": np.array([0.5, np.nan])}
    rois.write_rois(path, columns, {"Rules": {"overlap": 0.4}})
    assert path.read_text().splitlines()[1:] == ["11\tLH_a\tL\tHG\t0.5", "12\tRH_a\tR\tn/a\tn/a"]
    assert json.loads(path.with_suffix(".json").read_text())["Rules"] == {"overlap": 0.4}
    assert rois.read_rois(path, maps).members == (("LH_a",),)
    with pytest.raises(OutputError, match="there already"):
        rois.write_rois(path, columns, {})
    rois.write_rois(path, columns, {}, overwrite=True)
    with pytest.raises(ConfigError, match="no table"):
        rois.write_rois(tmp_path / "out.csv", columns, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.tsv"]
