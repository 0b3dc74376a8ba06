"""Names: labels to paths and back, BIDS names to entities."""

from __future__ import annotations

import gzip

import pytest

from bids_brainlm.bidsio.names import Names, alphanumeric, parse_entities, templates
from bids_brainlm.errors import ConfigError, OutputError

MAP = {
    "participant": "18",
    "story": "alice",
    "space": "MNI152NLin2009cAsym",
    "atlas": "Alice6",
    "desc": "minilmEmbeddings",
    "stat": "r",
    "ext": "nii.gz",
}


def test_boldmap_as_in_the_contract(tmp_path):
    names = Names(tmp_path)
    path = names.path("boldmap", MAP | {"session": None, "run": "1"})
    assert names.relative(path) == (
        "sub-18/func/sub-18_task-alice_run-1_space-MNI152NLin2009cAsym_atlas-Alice6"
        "_desc-minilmEmbeddings_stat-r_boldmap.nii.gz"
    )
    assert names.parse(path) == ("boldmap", MAP | {"run": "1"})


def test_session_appears_in_folder_and_name(tmp_path):
    labels = {key: MAP[key] for key in ("participant", "story", "space", "atlas")}
    path = Names(tmp_path).path("timeseries", labels | {"session": "2", "ext": "tsv"})
    assert path.parent == tmp_path / "sub-18" / "ses-2" / "func"
    assert path.name.startswith("sub-18_ses-2_task-alice_space-")


@pytest.mark.parametrize("label", ["a-b", "a_b", "../x", "", "é", "sub-18"])
def test_bad_labels_are_refused(tmp_path, label):
    with pytest.raises(ConfigError, match="letters and digits"):
        Names(tmp_path).path("participant_report", {"participant": label})


def test_programming_errors_are_value_errors(tmp_path):
    names = Names(tmp_path)
    with pytest.raises(ValueError, match="unknown output"):
        names.path("nothing")
    with pytest.raises(ValueError, match="no entity"):
        names.path("readme", {"participant": "1"})
    with pytest.raises(ValueError, match="needs"):
        names.path("words", {"story": "alice"})


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "sub-1/func/sub-2_task-a_space-b_atlas-c_stat-r_boldmap.tsv",
        "sub-1/ses-2/func/sub-1_task-a_space-b_atlas-c_stat-r_boldmap.tsv",
        "sub-1/func/sub-1_ses-2_task-a_space-b_atlas-c_stat-r_boldmap.tsv",
        "stimuli/task-a/task-b_words.tsv",
        "sub-1/func/.tmp-0123",
    ],
)
def test_foreign_names_are_refused(tmp_path, name):
    with pytest.raises(OutputError, match="not a name"):
        Names(tmp_path).parse(name)


def test_uri_and_find(tmp_path):
    names = Names(tmp_path)
    for story in ("pieman", "piemanpni"):
        for desc in (None, "x"):
            entities = {"story": story, "desc": desc, "space": "s", "atlas": "a", "stat": "r"}
            path = names.path("group_boldmap", entities | {"ext": "tsv"})
            path.parent.mkdir(exist_ok=True)
            path.touch()
    (path.parent / "group_notes.tsv").touch()
    assert names.uri(path).startswith("bids::group/task-piemanpni_space-s")
    assert names.uri("sub-1/x.tsv", "fmriprep") == "bids:fmriprep:sub-1/x.tsv"
    assert len(names.find("group_boldmap")) == 4
    assert len(names.find("group_boldmap", {"story": "pieman"})) == 2
    found = names.find("group_boldmap", {"story": "pieman", "desc": None})
    assert [item.name for item in found] == ["task-pieman_space-s_atlas-a_stat-r_boldmap.tsv"]
    assert names.find("boldmap") == []


def test_find_with_and_without_sessions(tmp_path):
    names = Names(tmp_path)
    for session in (None, "1"):
        path = names.path("boldmap", MAP | {"session": session})
        path.parent.mkdir(parents=True)
        path.touch()
    assert len(names.find("boldmap", {"participant": "18"})) == 2
    assert len(names.find("boldmap", {"session": None})) == 1
    assert len(names.find("boldmap", {"session": "1"})) == 1


def test_every_template_is_used_once(tmp_path):
    assert len(set(templates().values())) == len(templates())


def test_alphanumeric():
    assert alphanumeric("google-bert/bert-base_uncased") == "googlebertbertbaseuncased"


def test_entities_of_odd_names():
    parsed = parse_entities("sub-001/func/sub-001_task-pieman_hemi-L_desc-sm6.func.gii")
    assert parsed.suffix is None
    assert parsed.extension == ".func.gii"
    assert parsed.entities == {"sub": "001", "task": "pieman", "hemi": "L", "desc": "sm6"}
    assert parse_entities("README").suffix == "README"


@pytest.mark.peer
def test_entities_agree_with_pybids_on_real_names(shared_data):
    layout = pytest.importorskip("bids.layout")
    table = shared_data / "narratives" / "derivative_filenames.tsv.gz"
    rows = gzip.decompress(table.read_bytes()).decode().splitlines()[1:]
    assert len(rows) == 6111
    annexed = (shared_data / "narratives" / "ds002345_annexed_paths.tsv").read_text()
    paths = [row.split("\t")[-1] for row in rows[::40]]
    paths += [line.split("\t")[0] for line in annexed.splitlines()[40::20]]
    short = {"subject": "sub", "session": "ses", "hemi": "hemi", "resolution": "res"}
    short |= {key: key for key in ("task", "run", "space", "desc", "suffix", "extension")}
    checked = 0
    for path in paths:
        if path.startswith("stimuli/"):
            continue
        ours = parse_entities(path)
        flat = ours.entities | {"suffix": ours.suffix, "extension": ours.extension}
        for key, value in layout.parse_file_entities(f"/{path}").items():
            if key in short and (key != "suffix" or ours.suffix is not None):
                assert str(flat[short[key]]) == str(value), (path, key)
                checked += 1
    assert checked > 800
