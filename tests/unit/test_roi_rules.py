import dataclasses
import json
import re

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.bidsio import roi_images, roi_rules, roi_surface, rois, write
from bids_brainlm.bidsio.atlas import resolve_atlas
from bids_brainlm.bidsio.maps import MapSet
from bids_brainlm.errors import ConfigError, DataError

PAPER = roi_rules.Rules(medial_mm=0, posterior_mm=99)


def span(text):
    """Read '254b 352-356': the numbers, and those that the paper's analysis calls borderline."""
    sure, maybe = set(), set()
    for part in text.split():
        low, _, high = part.rstrip("b").partition("-")
        (maybe if part.endswith("b") else sure).update(range(int(low), int(high or low) + 1))
    return sure, maybe


# Candidates of the paper's rules, from published centroids (numbers of the release v0.14.3).
PAPER_LISTS = {
    "vmPFC": "254b 327b 352-356 411 413 415-418 420 775b 782 886-892 938 940-943 944b 945",
    "dmPFC": "255 256b 257 385 445b 446-450 452b 776 777 778b 779 921 947 955-959",
    "PMC": "389-410 471-478 926-937 971-974",
}


@pytest.fixture(scope="module")
def schaefer1000(shared_data, tmp_path_factory):
    """Schaefer-1000, 17 networks, numbers and names of v0.14.3, FSL MNI 2 mm."""
    folder = tmp_path_factory.mktemp("atlas")
    source = shared_data / "atlases"
    image = "DERIVED_Schaefer2018_1000Parcels_17Networks_order_FSLMNI152_2mm.nii.gz"
    (folder / "S1000.nii.gz").write_bytes((source / image).read_bytes())
    table = write.read_tsv(source / "atlas-Schaefer2018v0143_desc-1000ParcelsAllNetworks_dseg.tsv")
    rows = sorted(zip(map(int, table["index_17network"]), table["label_17network"], strict=True))
    write.write_tsv(folder / "S1000.tsv",
                    {"index": [i for i, _ in rows], "name": [n for _, n in rows]})
    return resolve_atlas(str(folder / "S1000.nii.gz"), None)


@pytest.fixture(scope="module")
def evlab(shared_data):
    return roi_images.read_roi_image(
        shared_data / "atlases" / "evlab_langParcels_symmetrical.nii.gz"
    )


@pytest.fixture(scope="module")
def surfaces(shared_data):
    folder = shared_data / "atlases"
    return [[folder / f"tpl-fsaverage6_hemi-{h}_desc-{what}.label.gii" for h in "LR"]
            for what in ("EAC_mask", "Schaefer1000_dseg")]


@pytest.fixture(scope="module")
def places(schaefer1000):
    return roi_rules.geometry(schaefer1000)


@pytest.fixture(scope="module")
def heschl(schaefer1000, places, surfaces):
    return roi_surface.surface_shares(
        *surfaces, list(places.sides), schaefer1000.index, places.centres
    )


@pytest.fixture(scope="module")
def built(schaefer1000, evlab, heschl):
    return roi_rules.build(schaefer1000, [evlab], roi_rules.Rules(), heschl=heschl[0])


def numbers(built, name, side="LR"):
    rows = zip(built.columns["index"], built.columns["roi"], built.columns["hemisphere"],
               strict=True)
    return {index for index, roi, where in rows if roi == name and where in side}


def centroid(built, places, name, side):
    rows = np.array(sorted(numbers(built, name, side))) - 1
    return places.centres[rows].mean(axis=0)


@pytest.mark.parametrize("name", PAPER_LISTS)
def test_the_papers_candidates_are_reproduced(schaefer1000, places, name):
    sure, maybe = span(PAPER_LISTS[name])
    found = roi_rules.candidates(schaefer1000.names, places.centres, PAPER)[name]
    found = set(schaefer1000.index[found].tolist())
    assert sure <= found
    assert found - sure <= maybe
    if name != "PMC":
        edge = places.centres[np.array(sorted(maybe ^ (found & maybe)), int) - 1]
        assert (np.abs(edge[:, 1] - 41.5) < 1.5).all()


def test_the_prefrontal_parcels_are_those_of_the_release(schaefer1000):
    frontal = {int(i) for i, n in zip(schaefer1000.index, schaefer1000.names, strict=True)
               if "PFC" in n}
    left = "253-259 269-272 316-331 346-358 385-388 411-422 445-467"
    right = "775-782 792-796 843-854 874-895 921-925 938-947 955-968"
    assert frontal == span(left)[0] | span(right)[0]


def test_v1_is_the_papers(built):
    assert numbers(built, "V1", "L") == {3, 38, 42}
    assert numbers(built, "V1", "R") == {502, 558}


def test_the_defaults_leave_out_lateral_and_midcingulate_parcels(built, places):
    for name in ("vmPFC", "dmPFC"):
        rows = np.array(sorted(numbers(built, name))) - 1
        assert np.abs(places.centres[rows, 0]).max() < 18
        assert {352, 355, 889, 255} & numbers(built, name) == set()
    assert {403, 935} & numbers(built, "PMC") == set()
    assert {404, 933, 409, 477} <= numbers(built, "PMC")


def test_no_tested_parcel_is_near_the_default_medial_limit(schaefer1000, places):
    found = roi_rules.candidates(schaefer1000.names, places.centres, PAPER)
    x = np.abs(places.centres[found["vmPFC"] | found["dmPFC"], 0])
    assert np.abs(x - roi_rules.Rules().medial_mm).min() > 0.5


def test_each_roi_lies_where_anatomy_says(built, places):
    expected = {  # centres in MNI space (left), from anatomy
        "PostTemp": (-57, -44, 6), "AntTemp": (-53, 0, -18), "AngG": (-47, -65, 27),
        "IFG": (-49, 17, 20), "IFGorb": (-45, 29, -5), "MFG": (-43, -1, 48), "vmPFC": (-7, 53, 0),
        "dmPFC": (-8, 53, 32), "PMC": (-8, -53, 27), "HG": (-46, -22, 8), "V1": (-7, -92, 1),
    }
    for name, place in expected.items():
        for side, sign in (("L", 1), ("R", -1)):
            found = centroid(built, places, name, side)
            assert np.linalg.norm(found - np.array(place) * (sign, 1, 1)) < 9, (name, side, found)


def test_mfg_lies_above_ifgorb_and_labels_are_not_swapped(built, places):
    for side in "LR":
        mfg, orb, ifg = (centroid(built, places, n, side) for n in ("MFG", "IFGorb", "IFG"))
        assert mfg[2] > ifg[2] + 15 > orb[2] + 30
        assert orb[1] > mfg[1] + 20


def test_language_shares_equal_a_count_by_hand(built, evlab, schaefer1000):
    """Atlas and EvLab's image have one grid here, so voxels can be compared directly."""
    np.testing.assert_array_equal(evlab.affine, schaefer1000.affine)
    k = evlab.names.index("IFG") + 1
    for index in sorted(numbers(built, "IFG"))[:5]:
        own = schaefer1000.labels == index
        share = (evlab.labels[own] == k).mean()
        assert built.columns["overlap"][index - 1] == pytest.approx(share)
        assert share >= 0.4
    rois_here = {roi for roi in built.columns["roi"] if roi}
    assert rois_here == set(roi_images.roi_table().names)


def test_unlabelled_rule(schaefer1000, evlab, built):
    frontal = {"vmPFC", "dmPFC", "PMC"}
    rows = [k for k, roi in enumerate(built.columns["roi"]) if roi in frontal]
    names = [evlab.names.index(n) + 1 for n in roi_rules.LANGUAGE if n in evlab.names]
    for k in rows:
        free = 1 - np.isin(evlab.labels[schaefer1000.labels == k + 1], names).mean()
        assert free >= 0.7 - 1e-12
    strict = roi_rules.build(
        schaefer1000, [evlab], dataclasses.replace(PAPER, unlabelled=1.0)
    )
    loose = roi_rules.build(schaefer1000, [evlab], PAPER)
    for name in frontal:
        assert numbers(strict, name) <= numbers(loose, name)


def test_both_generations_of_names_give_the_same_parcels(schaefer1000, evlab, built, heschl, rng):
    """Old names (PCC, ExStr) and another order of the numbers, as before v0.14.3."""
    order = rng.permutation(1000)  # new number - 1 of each parcel
    lookup = np.r_[0, order + 1]
    old = [""] * 1000
    for k, name in enumerate(schaefer1000.names):
        name = name.replace("pCunPCC", "PCC")
        old[order[k]] = re.sub("_(Striate|StriCal|ExStrInf|ExStrSup)_", "_ExStr_", name)
    atlas = dataclasses.replace(
        schaefer1000, labels=lookup[schaefer1000.labels].astype(np.int32), names=tuple(old),
        hemispheres=tuple(name.split("_")[1][0] for name in old),
    )
    shares = np.empty(1000)
    shares[order] = heschl[0]
    again = roi_rules.build(atlas, [evlab], roi_rules.Rules(), heschl=shares)
    for name in roi_images.roi_table().names:
        assert {order[i - 1] + 1 for i in numbers(built, name)} == numbers(again, name)
    assert "as since" in roi_rules.generation(schaefer1000.names)
    assert "as before" in roi_rules.generation(old)
    assert roi_rules.generation(["Precentral_L", "Vis"]) == ""


def test_a_table_of_this_release_does_not_fit_templateflows(schaefer1000, built, shared_data,
                                                            tmp_path):
    """The trap: TemplateFlow's Schaefer-1000 has the numbers of before v0.14.3."""
    path = tmp_path / "rois.tsv"
    rois.write_rois(path, built.columns, {})
    old = write.read_tsv(shared_data / "templateflow" / "tpl-MNI152NLin2009cAsym" / (
        "tpl-MNI152NLin2009cAsym_atlas-Schaefer2018_desc-1000Parcels17Networks_dseg.tsv"
    ))
    index = tuple(map(int, old["index"]))
    labels = np.asarray(schaefer1000.labels)
    maps = MapSet(index, tuple(old["name"]), labels, schaefer1000.affine)
    with pytest.raises(DataError, match="another release"):
        rois.read_rois(path, maps)
    only_names = {"name": built.columns["name"], "roi": built.columns["roi"]}
    write.write_tsv(path, only_names)
    with pytest.raises(DataError, match="another release"):
        rois.read_rois(path, maps)
    same = MapSet(index, schaefer1000.names, labels, schaefer1000.affine)
    found = rois.read_rois(path, same)
    assert found.names == roi_images.roi_table().names
    assert [len(m) for m in found.members] == [left + right for _, left, right, _ in
                                               built.summary()]


def test_surface_labels_in_another_order_are_matched_by_position(built, places, heschl):
    assert len(heschl[1]) == 2
    assert "another order" in heschl[1][0]
    for side, x in (("L", -48), ("R", 48)):
        rows = np.array(sorted(numbers(built, "HG", side))) - 1
        assert len(rows) >= 5
        assert (np.linalg.norm(places.centres[rows] - (x, -22, 8), axis=1) < 25).all()


def test_surface_labels_in_the_same_order_are_taken_by_number(places, schaefer1000, surfaces,
                                                              tmp_path):
    """Nearest parcels painted on the vertices: numbers agree, and shares are a plain count."""
    files = []
    for k, side in enumerate("LR"):
        xyz = roi_surface._coordinates(side)
        rows = np.flatnonzero(places.sides == side)
        near = np.concatenate([
            np.linalg.norm(part[:, None] - places.centres[rows][None], axis=2).argmin(axis=1)
            for part in np.array_split(xyz, 20)
        ])
        labels = schaefer1000.index[rows[near]]
        mask = np.linalg.norm(xyz - ((-46, -22, 8) if k == 0 else (46, -22, 8)), axis=1) < 15
        for name, values in (("a", labels), ("m", mask)):
            data = nib.gifti.GiftiDataArray(values.astype(np.int32), datatype="NIFTI_TYPE_INT32")
            nib.save(nib.gifti.GiftiImage(darrays=[data]), tmp_path / f"{name}{side}.label.gii")
        files.append((labels, mask))
    found, warnings = roi_surface.surface_shares(
        [tmp_path / f"m{s}.label.gii" for s in "LR"], [tmp_path / f"a{s}.label.gii" for s in "LR"],
        list(places.sides), schaefer1000.index, places.centres,
    )
    assert warnings == ()
    for labels, mask in files:
        for number in np.unique(labels[mask])[:10]:
            assert found[number - 1] == pytest.approx(mask[labels == number].mean())


def test_another_surface_atlas_is_refused(shared_data, surfaces, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(shared_data / "templateflow"))
    atlas = resolve_atlas("Schaefer2018_100Parcels17Networks", "MNI152NLin2009cAsym")
    places = roi_rules.geometry(atlas)
    with pytest.raises(DataError, match="500 labels, the atlas has 50"):
        roi_surface.surface_shares(*surfaces, list(places.sides), atlas.index, places.centres)
    with pytest.raises(DataError, match="GIFTI"):
        roi_surface.surface_shares([atlas.path] * 2, surfaces[1], list(places.sides),
                                   atlas.index, places.centres)


@pytest.mark.parametrize("n", [100, 200, 400])
def test_seven_and_seventeen_networks_agree(shared_data, evlab, n, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(shared_data / "templateflow"))
    images = []
    for networks in (7, 17):
        name = f"Schaefer2018_{n}Parcels{networks}Networks"
        atlas = resolve_atlas(name, "MNI152NLin2009cAsym")
        made = roi_rules.build(atlas, [evlab], roi_rules.Rules())
        lookup = np.zeros(n + 1, int)
        known = roi_images.roi_table().names
        for index, roi in zip(made.columns["index"], made.columns["roi"], strict=True):
            lookup[index] = known.index(roi) + 1 if roi else 0
        images.append(lookup[atlas.labels])
    pmc = known.index("PMC") + 1
    seven, seventeen = (np.where(im == pmc, 0, im) for im in images)
    np.testing.assert_array_equal(seven, seventeen)
    # The default network is not quite the same with 7 networks.
    both = ((images[0] == pmc) & (images[1] == pmc)).sum()
    assert 2 * both / ((images[0] == pmc).sum() + (images[1] == pmc).sum()) > 0.85


def test_v1_mask_by_share(schaefer1000, evlab, places):
    mask = np.zeros(schaefer1000.labels.shape, int)
    own = np.argwhere(schaefer1000.labels == 38)
    mask[tuple(own[: int(np.ceil(0.25 * len(own)))].T)] = 1
    other = np.argwhere(schaefer1000.labels == 42)
    mask[tuple(other[: int(0.24 * len(other))].T)] = 1
    share = roi_rules.mask_shares(places, mask, schaefer1000.affine)
    made = roi_rules.build(schaefer1000, [evlab], roi_rules.Rules(), v1=share)
    assert numbers(made, "V1") == {38}


def test_angular_gyrus_of_the_image_wins_over_the_split(schaefer1000, evlab):
    has = dataclasses.replace(
        evlab, names=tuple("AngG" if n == "temporal pole" else n for n in evlab.names)
    )
    made = roi_rules.build(schaefer1000, [has], roi_rules.Rules())
    split = roi_rules.build(schaefer1000, [evlab], roi_rules.Rules())
    assert numbers(split, "AngG") <= numbers(made, "PostTemp") | numbers(split, "AngG")
    assert len(numbers(made, "PostTemp")) > len(numbers(split, "PostTemp"))
    assert not numbers(made, "AngG") & numbers(split, "AngG")


@pytest.mark.parametrize("wrong", [
    {"overlap": 0}, {"unlabelled": 1.1}, {"medial_mm": -1}, {"boundary_mm": float("nan")},
    {"v1_overlap": float("nan")},
])
def test_rules_out_of_range(wrong):
    with pytest.raises(ConfigError):
        roi_rules.Rules(**wrong).check()


def test_an_image_elsewhere_is_refused(schaefer1000, evlab):
    moved = np.array(evlab.affine)
    moved[2, 3] += 500
    with pytest.raises(DataError, match="language ROI"):
        roi_rules.build(schaefer1000, [dataclasses.replace(evlab, affine=moved)],
                        roi_rules.Rules())


def test_rules_are_plain_json(built):
    assert json.loads(json.dumps(write.plain(built.rules)))["medial_mm"] == 18
