"""bids_brainlm-rois on real atlases, EvLab's parcels and surface masks."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm import rois as command
from bids_brainlm.bidsio import roi_images, rois, write
from bids_brainlm.bidsio.atlas import resolve_atlas
from bids_brainlm.bidsio.maps import MapSet

ATLAS = "Schaefer2018_400Parcels17Networks"


@pytest.fixture
def given(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(shared_data / "templateflow"))
    language = shared_data / "atlases" / "evlab_langParcels_symmetrical.nii.gz"
    return ["--atlas", ATLAS, "--language", str(language), "--output", str(tmp_path / "rois.tsv")]


def test_help_and_wrong_usage(capsys):
    assert command.main(["--help"]) == 0
    said = capsys.readouterr().out
    for flag in ("--overlap", "--unlabelled", "--medial-limit", "--heschl-surface", "--overwrite"):
        assert flag in said
    assert command.main([]) == 64
    assert command.main(["--atlas", "x", "--language", "y", "--output", "z.tsv", "--no"]) == 64
    assert "bids_brainlm-rois --help" in capsys.readouterr().err


def test_the_table_is_written_once_and_can_be_read(given, tmp_path, capsys):
    assert command.main(given) == 0
    said = capsys.readouterr()
    assert "400 parcels" in said.out
    assert "names as before v0.14.3" in said.out
    rows = [line.split() for line in said.out.splitlines()[2:]]
    assert [row[0] for row in rows] == list(roi_images.roi_table().names)
    assert "--heschl" in said.err
    path = tmp_path / "rois.tsv"
    table = write.read_tsv(path)
    assert list(table) == ["index", "name", "hemisphere", "roi", "overlap"]
    assert len(table["roi"]) == 400
    for name, n_left, n_right, _ in rows:
        sides = [h for r, h in zip(table["roi"], table["hemisphere"], strict=True) if r == name]
        assert (sides.count("L"), sides.count("R")) == (int(n_left), int(n_right))

    before = path.read_bytes()
    assert command.main(given) == 73
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert command.main([*given, "--overwrite"]) == 0
    assert path.read_bytes() == before

    atlas = resolve_atlas(ATLAS, "MNI152NLin2009cAsym")
    maps = MapSet(tuple(atlas.index.tolist()), atlas.names, atlas.labels, atlas.affine)
    left = rois.read_rois(path, maps, hemispheres="left")
    assert all("_LH_" in name for own in left.members for name in own)
    assert left.names == tuple(n for n in roi_images.roi_table().names if n != "HG")


def test_the_volume_is_that_of_the_voxels(given, tmp_path, capsys):
    assert command.main(given) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    atlas = resolve_atlas(ATLAS, "MNI152NLin2009cAsym")
    table = write.read_tsv(tmp_path / "rois.tsv")
    for name, _, _, mm3 in rows:
        own = [int(i) for i, r in zip(table["index"], table["roi"], strict=True) if r == name]
        assert int(mm3) == np.isin(atlas.labels, own).sum() * 8


def test_the_sidecar_states_rules_and_sources_without_folders(given, tmp_path, shared_data):
    assert command.main([*given, "--medial-limit", "0", "--angular-limits", "-55", "20"]) == 0
    text = (tmp_path / "rois.json").read_text()
    sidecar = json.loads(text)
    assert sidecar["Rules"]["medial_mm"] == 0
    assert sidecar["Rules"]["angular_mm"] == [-55, 20]
    assert sidecar["Atlas"]["Name"] == ATLAS
    assert sidecar["Atlas"]["NumberOfParcels"] == 400
    assert str(shared_data) not in text
    by_file = {item["File"]: item["SHA256"] for item in sidecar["Sources"]}
    name = "evlab_langParcels_symmetrical.nii.gz"
    assert by_file[name] == write.sha256_file(shared_data / "atlases" / name)
    assert sum(item["Role"] == "atlas" for item in sidecar["Sources"]) == 2
    assert sidecar["GeneratedBy"]["Version"]


def test_limits_change_the_result(given, tmp_path):
    def lateral():
        table = write.read_tsv(tmp_path / "rois.tsv")
        return sum("PFCl" in name for name, roi in zip(table["name"], table["roi"], strict=True)
                   if roi in ("vmPFC", "dmPFC"))

    assert command.main(given) == 0
    assert lateral() == 0
    assert command.main([*given, "--medial-limit", "0", "--overwrite"]) == 0
    assert lateral() > 5


def test_masks_of_heschl_and_v1(given, tmp_path, capsys):
    atlas = resolve_atlas(ATLAS, "MNI152NLin2009cAsym")
    auditory = [i for i, n in zip(atlas.index, atlas.names, strict=True) if "SomMotB_Aud_3" in n]
    visual = [i for i, n in zip(atlas.index, atlas.names, strict=True) if "VisCent_ExStr_7" in n]
    data = np.isin(atlas.labels, auditory) * 45 + np.isin(atlas.labels, visual) * 2
    path = tmp_path / "masks.nii.gz"
    nib.save(nib.Nifti1Image(data.astype(np.int16), atlas.affine), path)
    masks = ["--heschl", str(path), "--v1", str(path)]
    assert command.main([*given, *masks]) == 65
    assert "--heschl-label" in capsys.readouterr().err
    assert command.main([*given, *masks, "--heschl-label", "45", "--v1-label", "2"]) == 0
    table = write.read_tsv(tmp_path / "rois.tsv")
    for roi, wanted in (("HG", auditory), ("V1", visual)):
        own = {int(i) for i, r in zip(table["index"], table["roi"], strict=True) if r == roi}
        assert own == set(wanted)


@pytest.mark.parametrize(("more", "code", "words"), [
    (["--overlap", "0"], 64, "--overlap"),
    (["--overlap", "half"], 64, "--overlap"),
    (["--heschl-surface", "a", "b"], 64, "go together"),
    (["--output", "rois.csv"], 64, "--output"),
    (["--atlas", "Schaefer2018_150Parcels17Networks"], 66, "bids_brainlm-fetch"),
    (["--language", "gone.nii.gz"], 66, "gone.nii.gz"),
    (["--v1", "gone.nii.gz"], 66, "gone.nii.gz"),
])
def test_exit_codes(given, more, code, words, tmp_path, capsys):
    assert command.main([*given, *more]) == code
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_atlas_without_names_gives_language_rois_and_says_what_is_lacking(
    given, shared_data, tmp_path, capsys
):
    image = "DERIVED_Schaefer2018_1000Parcels_17Networks_order_FSLMNI152_2mm.nii.gz"
    assert command.main([*given, "--atlas", str(shared_data / "atlases" / image)]) == 0
    said = capsys.readouterr().err
    assert "no table of names" in said
    for name in ("vmPFC", "dmPFC", "PMC"):
        assert f"{name}: no parcel has a name" in said
    assert "PFC" not in set(write.read_tsv(tmp_path / "rois.tsv")["roi"])


def test_schaefer_1000_with_surface_masks(given, shared_data, tmp_path, capsys):
    source = shared_data / "atlases"
    image = "DERIVED_Schaefer2018_1000Parcels_17Networks_order_FSLMNI152_2mm.nii.gz"
    (tmp_path / "S1000.nii.gz").write_bytes((source / image).read_bytes())
    table = write.read_tsv(source / "atlas-Schaefer2018v0143_desc-1000ParcelsAllNetworks_dseg.tsv")
    write.write_tsv(tmp_path / "S1000.tsv",
                    {"index": table["index_17network"], "name": table["label_17network"]})
    pairs = {flag: [str(source / f"tpl-fsaverage6_hemi-{h}_desc-{what}.label.gii") for h in "LR"]
             for flag, what in (("--heschl-surface", "EAC_mask"),
                                ("--atlas-surface", "Schaefer1000_dseg"))}
    more = [text for flag, files in pairs.items() for text in (flag, *files)]
    assert command.main([*given, "--atlas", str(tmp_path / "S1000.nii.gz"), *more]) == 0
    said = capsys.readouterr()
    assert "names as since v0.14.3" in said.out
    assert "matched by position" in said.err
    rows = {line.split()[0]: line.split()[1:3] for line in said.out.splitlines()[2:]}
    assert all(int(n) > 0 for counts in rows.values() for n in counts)
    assert rows["V1"] == ["3", "2"]
    assert json.loads((tmp_path / "rois.json").read_text())["Warnings"]
