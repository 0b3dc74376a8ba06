"""Writers: whole or not at all, the same bytes twice; the description of the output."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.bidsio import write
from bids_brainlm.bidsio.describe import (
    container,
    dataset_link,
    describe_output,
    source_dataset,
)
from bids_brainlm.bidsio.names import Names
from bids_brainlm.errors import DataError, MissingInputError, OutputError, ReadWriteError


def test_text_and_folders(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    write.write_text(path, "für")
    assert path.read_bytes() == "für\n".encode()
    write.write_text(path, "again\n")
    assert path.read_text() == "again\n"
    assert [item.name for item in path.parent.iterdir()] == ["c.txt"]


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "c.txt"
    write.write_text(path, "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ReadWriteError, match=r"c\.txt cannot be written: No space"):
        write.write_text(path, "new")
    assert [item.name for item in tmp_path.iterdir()] == ["c.txt"]
    assert path.read_text() == "old\n"


def test_an_interruption_leaves_no_rest(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write.write_text(tmp_path / "c.txt", "new")
    assert list(tmp_path.iterdir()) == []


def test_probe(tmp_path):
    write.probe_write(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be created"):
        write.probe_write(tmp_path / "file" / "x")
    with pytest.raises(OutputError, match="cannot be created"):
        write.write_text(tmp_path / "file" / "x" / "y.txt", "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_probe_of_a_read_only_folder(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            write.probe_write(tmp_path)
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_probe_when_writing_fails(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OutputError, match="Read-only file system"):
        write.probe_write(tmp_path)


def test_json(tmp_path):
    content = {
        "z": np.float32(0.5),
        "a": np.array([1, 2]),
        "n": float("nan"),
        "i": np.array([np.inf, 1.0]),
        "b": np.bool_(True),
        "p": Path("x/y"),
        "t": (1, {"é"}),
        3: None,
    }
    path = tmp_path / "x.json"
    write.write_json(path, content)
    read = write.read_json(path)
    assert list(read) == ["z", "a", "n", "i", "b", "p", "t", "3"]
    assert read["n"] is None
    assert read["i"] == [None, 1.0]
    assert read["b"] is True
    assert read["t"] == [1, ["é"]]
    path.write_text("[1]")
    with pytest.raises(DataError, match="object"):
        write.read_json(path)
    path.write_text("{")
    with pytest.raises(DataError, match="JSON"):
        write.read_json(path)
    with pytest.raises(MissingInputError):
        write.read_json(tmp_path / "none.json")


def test_tsv(tmp_path, rng):
    path = tmp_path / "x.tsv"
    write.write_tsv(
        path,
        {
            "index": np.arange(2),
            "name": ["a\tb", ""],
            "value": np.array([-0.0, np.nan]),
            "flag": [True, None],
            "mixed": [1.25, float("nan")],
        },
    )
    assert path.read_text() == (
        "index\tname\tvalue\tflag\tmixed\n0\ta b\t0\ttrue\t1.25\n1\tn/a\tn/a\tn/a\tn/a\n"
    )
    assert write.read_tsv(path)["name"] == ["a b", "n/a"]
    with pytest.raises(DataError, match="equal lengths"):
        write.write_tsv(path, {"a": [1], "b": [1, 2]})
    with pytest.raises(DataError, match="column a: found infinite"):
        write.write_tsv(path, {"a": np.array([np.inf])})
    with pytest.raises(DataError, match="column a: found an infinite"):
        write.write_tsv(path, {"a": [float("-inf")]})


def test_numbers_come_back(tmp_path, rng):
    matrix = rng.normal(size=(20, 3)).astype(np.float32)
    matrix[3, 1] = np.nan
    write.write_tsv(tmp_path / "x.tsv", {f"c{k}": matrix[:, k] for k in range(3)})
    columns, read = write.read_matrix_tsv(tmp_path / "x.tsv")
    assert columns == ("c0", "c1", "c2")
    np.testing.assert_array_equal(read.astype(np.float32), matrix)
    (tmp_path / "x.tsv").write_text("a\tb\n1\tx\n")
    with pytest.raises(DataError, match="numbers"):
        write.read_matrix_tsv(tmp_path / "x.tsv")
    (tmp_path / "x.tsv").write_text("a\tb\n1\t2\n3\n")
    with pytest.raises(DataError, match="numbers"):
        write.read_matrix_tsv(tmp_path / "x.tsv")
    (tmp_path / "x.tsv").write_text("")
    with pytest.raises(DataError, match="empty"):
        write.read_matrix_tsv(tmp_path / "x.tsv")
    (tmp_path / "x.tsv").write_text("a\tb\n")
    assert write.read_matrix_tsv(tmp_path / "x.tsv")[1].shape == (0, 2)


def test_stim(tmp_path, rng):
    path = tmp_path / "task-a_recording-words_stim.tsv.gz"
    matrix = rng.integers(0, 4, size=(6, 3)).astype(float)
    write.write_stim_tsv_gz(path, matrix)
    data = path.read_bytes()
    assert data[3] == 0  # no file name in the header
    assert data[4:8] == bytes(4)  # no time
    np.testing.assert_array_equal(write.read_stim_tsv_gz(path), matrix)
    write.write_stim_tsv_gz(path, matrix)
    assert path.read_bytes() == data
    path.write_bytes(data[:-9])
    with pytest.raises(DataError, match="damaged"):
        write.read_stim_tsv_gz(path)


def test_nifti(tmp_path, rng):
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    image = nib.Nifti1Image(rng.normal(size=(3, 4, 5, 6)), affine)
    paths = [tmp_path / "a.nii.gz", tmp_path / "b" / "c.nii.gz"]
    for path in paths:
        write.write_nifti(path, image, tr=1.5)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    read = nib.load(paths[0])
    assert read.get_data_dtype() == np.float32
    assert read.header.get_zooms() == (2.0, 2.0, 3.0, 1.5)
    assert read.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(read.get_fdata(), image.get_fdata(), rtol=1e-6)
    np.testing.assert_array_equal(read.affine, affine)
    write.write_nifti(paths[0], image)
    assert nib.load(paths[0]).header.get_xyzt_units() == ("mm", "unknown")


def test_netcdf(tmp_path, rng):
    xarray = pytest.importorskip("xarray")
    values = rng.normal(size=(5, 2, 3)).astype(np.float32)
    values[2] = np.nan
    dataset = xarray.Dataset(
        {"embeddings": (("tr", "layer", "unit"), values), "n_tokens": ("tr", np.arange(5))},
        coords={"layer": [0, 1]},
        attrs={"model": "toy"},
    )
    paths = [tmp_path / "a.nc", tmp_path / "b.nc"]
    for path in paths:
        write.write_netcdf(path, dataset)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.nc", "b.nc"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with xarray.open_dataset(paths[0], engine="h5netcdf") as read:
        np.testing.assert_array_equal(read["embeddings"].values, values)
        assert read["embeddings"].dtype == np.float32


def test_netcdf_has_the_same_bytes_in_threads_and_whenever_garbage_is_collected(tmp_path, rng):
    """A features file once differed in layout on a cluster; neither of these can be the cause."""
    import gc
    from concurrent.futures import ThreadPoolExecutor

    import xarray

    values = rng.standard_normal((40, 3, 8)).astype(np.float32)
    dataset = xarray.Dataset(
        {"embeddings": (("tr", "layer", "unit"), values)},
        coords={"tr": np.arange(40, dtype="int32")},
    )

    def written(number: int) -> bytes:
        path = tmp_path / f"{number}.nc"
        write.write_netcdf(path, dataset)
        return path.read_bytes()

    before = gc.get_threshold()
    found = {written(0)}
    try:
        for number, threshold in enumerate((1, 10, 100), start=1):
            gc.set_threshold(threshold, 1, 1)
            found.add(written(number))
    finally:
        gc.set_threshold(*before)
    with ThreadPoolExecutor(4) as pool:
        found.update(pool.map(written, range(10, 30)))
    assert len(found) == 1



def test_hashes(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"abc")
    assert write.sha256_file(small) == hashlib.sha256(b"abc").hexdigest()
    assert write.fingerprint(small) == f"sha256:{hashlib.sha256(b'abc').hexdigest()}"
    data = bytearray(9 * 2**20)
    seen = set()
    for place in (None, 0, len(data) - 1):
        if place is not None:
            data[place] ^= 1
        large.write_bytes(data)
        seen.add(write.fingerprint(large))
    large.write_bytes(bytes(data) + b"x")
    seen.add(write.fingerprint(large))
    assert len(seen) == 4
    assert all(item.startswith("ends:") for item in seen)
    for function in (write.sha256_file, write.fingerprint):
        with pytest.raises(MissingInputError):
            function(tmp_path / "none")


# --- the description of the output -------------------------------------------------------------


def test_describe(tmp_path):
    names = Names(tmp_path / "derivatives" / "bids_brainlm")
    (tmp_path / "raw").mkdir()
    links = {"raw": dataset_link(tmp_path / "raw", names.root)}
    assert links == {"raw": "../../raw"}
    describe_output(
        names,
        "1.2",
        sources=[{"URL": "doi:10.1"}],
        links=links,
        descriptions={"minilmEmbeddings": "all layers"},
    )
    first = {path.name: path.read_bytes() for path in names.root.iterdir()}
    assert sorted(first) == [
        ".bidsignore",
        "README.md",
        "dataset_description.json",
        "descriptions.tsv",
    ]
    content = write.read_json(names.path("dataset_description"))
    assert content["GeneratedBy"][0] == content["GeneratedBy"][0] | {
        "Name": "bids_brainlm",
        "Version": "1.2",
    }
    assert str(tmp_path) not in json.dumps(content)
    assert first[".bidsignore"].decode().split("\n") == [
        "*.html",
        "*_boldmap.*",
        "*_timeseries.*",
        "figures",
        "group",
        "",
    ]
    stamps = {path: path.stat().st_mtime_ns for path in names.root.iterdir()}
    describe_output(names, "1.2", sources=[{"URL": "doi:10.1"}], links=links)
    assert {path: path.stat().st_mtime_ns for path in names.root.iterdir()} == stamps
    describe_output(names, "1.2", links={"fmriprep": "../fmriprep"}, descriptions={"aNew": "b"})
    assert write.read_tsv(names.path("descriptions"))["desc_id"] == [
        "desc-aNew",
        "desc-minilmEmbeddings",
    ]
    content = write.read_json(names.path("dataset_description"))
    assert content["DatasetLinks"] == {"raw": "../../raw", "fmriprep": "../fmriprep"}
    assert content["SourceDatasets"] == [{"URL": "doi:10.1"}]


def test_describe_keeps_what_people_add(tmp_path):
    names = Names(tmp_path)
    describe_output(names, "1.2")
    path = names.path("dataset_description")
    edited = write.read_json(path) | {"Authors": ["A. Person"], "License": "CC0", "Name": "Ours"}
    write.write_json(path, edited)
    describe_output(names, "1.3", links={"raw": "../raw"})
    content = write.read_json(path)
    assert (content["Authors"], content["License"], content["Name"]) == (
        ["A. Person"], "CC0", "Ours"
    )
    assert content["GeneratedBy"][0]["Version"] == "1.3"
    assert content["DatasetLinks"] == {"raw": "../raw"}


def test_describe_names_no_authors_that_it_does_not_know(tmp_path, alice):
    names = Names(tmp_path / "out")
    describe_output(names, "1.2", links={"raw": dataset_link(alice, names.root)})
    assert "Authors" not in write.read_json(names.path("dataset_description"))


@pytest.mark.parametrize(("environ", "expected"), [
    ({}, {}),
    ({"BRAINLM_CONTAINER_TAG": "x:1"}, {}),
    ({"BRAINLM_CONTAINER_TYPE": "docker", "BRAINLM_CONTAINER_TAG": "x:1",
      "BRAINLM_CONTAINER_URI": ""}, {"Type": "docker", "Tag": "x:1"}),
    ({"BRAINLM_CONTAINER_TYPE": "docker", "BRAINLM_CONTAINER_TAG": "x:1",
      "BRAINLM_CONTAINER_DIGEST": "sha256:ab"},
     {"Type": "docker", "Tag": "x:1", "URI": "x@sha256:ab"}),
    ({"BRAINLM_CONTAINER_TYPE": "docker", "BRAINLM_CONTAINER_URI": "docker://r/x",
      "BRAINLM_CONTAINER_DIGEST": "sha256:ab"}, {"Type": "docker", "URI": "docker://r/x@sha256:ab"}),
    ({"BRAINLM_CONTAINER_TYPE": "docker", "BRAINLM_CONTAINER_URI": "docker://r/x@sha256:cd",
      "BRAINLM_CONTAINER_DIGEST": "sha256:ab"}, {"Type": "docker", "URI": "docker://r/x@sha256:cd"}),
])
def test_the_image_is_named(environ, expected):
    assert container(environ) == expected


def test_the_image_is_in_the_description(tmp_path):
    names = Names(tmp_path)
    image = {"Type": "apptainer", "Tag": "bids_brainlm:1.2"}
    describe_output(names, "1.2", image=image)
    (maker,) = write.read_json(names.path("dataset_description"))["GeneratedBy"]
    assert maker["Container"] == image


@pytest.mark.parametrize(("given", "expected"), [
    ({"DatasetDOI": "doi:10.18112/openneuro.ds002345.v1.1.4"},
     {"URL": "https://doi.org/10.18112/openneuro.ds002345.v1.1.4",
      "DOI": "doi:10.18112/openneuro.ds002345.v1.1.4", "Version": "1.1.4"}),
    ({"URL": "https://doi.org/10.1234/abc"},
     {"URL": "https://doi.org/10.1234/abc", "DOI": "doi:10.1234/abc"}),
    ({"DatasetDOI": "10.1234/abc"},
     {"URL": "https://doi.org/10.1234/abc", "DOI": "doi:10.1234/abc"}),
    ({"URL": "https://example.org/data"}, {"URL": "https://example.org/data"}),
    ({"DatasetDOI": "to be announced"}, {}),
    ({"Name": "raw"}, {}),
])
def test_source_datasets(given, expected):
    assert source_dataset(given) == expected


def test_linked_datasets_tell_their_doi(tmp_path):
    names = Names(tmp_path / "out")
    for name, doi in (("raw", "doi:10.1234/raw.v1.0.0"), ("fmriprep", None), ("broken", "")):
        (tmp_path / name).mkdir()
        text = "{" if name == "broken" else json.dumps({"Name": name, "DatasetDOI": doi})
        (tmp_path / name / "dataset_description.json").write_text(text)
    links = {name: f"../{name}" for name in ("raw", "fmriprep", "broken", "gone")}
    for _ in range(2):
        describe_output(names, "1.2", links=links)
        content = write.read_json(names.path("dataset_description"))
        assert content["SourceDatasets"] == [{
            "URL": "https://doi.org/10.1234/raw.v1.0.0", "DOI": "doi:10.1234/raw.v1.0.0",
            "Version": "1.0.0",
        }]


@pytest.mark.parametrize("text", ["{}", '{"Name": "raw"}', "{", '{"GeneratedBy": [{"Name": "x"}]}'])
def test_foreign_datasets_are_left_alone(tmp_path, text):
    (tmp_path / "dataset_description.json").write_text(text)
    with pytest.raises(OutputError):
        describe_output(Names(tmp_path), "1.2")
    assert [path.name for path in tmp_path.iterdir()] == ["dataset_description.json"]


def validator() -> str | None:
    beside = Path(sys.executable).parent / "bids-validator-deno"
    return str(beside) if beside.is_file() else shutil.which("bids-validator-deno")


def test_a_shell_of_the_output_validates(tmp_path):
    program = validator()
    if program is None:
        pytest.skip("bids-validator-deno is not installed")
    names = Names(tmp_path / "bids_brainlm")
    describe_output(
        names,
        "0.1.0",
        sources=[{"URL": "doi:10.18112/openneuro.ds002345.v1.1.4"}],
        links={"raw": "../raw"},
        descriptions={"minilmEmbeddings": "MiniLM, all layers"},
    )
    labels = {"story": "black", "space": "MNI152NLin2009cAsym", "atlas": "Alice6"}
    person = labels | {"participant": "265"}
    image = nib.Nifti1Image(np.ones((2, 2, 2), np.float32), np.eye(4))
    for entities in (person, person | {"session": "1", "run": "2"}):
        series = entities | {"ext": "tsv"}
        write.write_tsv(names.path("timeseries", series), {"a": [1.0]})
        write.write_json(names.path("timeseries", series | {"ext": "json"}), {"StartTime": 0})
        stat_map = entities | {"stat": "r", "desc": "minilmEmbeddings"}
        write.write_nifti(names.path("boldmap", stat_map | {"ext": "nii.gz"}), image)
        write.write_tsv(names.path("boldmap", stat_map | {"ext": "tsv"}), {"index": [1]})
    write.write_tsv(names.path("group_boldmap", labels | {"stat": "isc", "ext": "tsv"}), {"a": [1]})
    stim = {"story": "black", "recording": "words"}
    write.write_stim_tsv_gz(names.path("stim", stim | {"ext": "tsv.gz"}), np.ones((4, 1)))
    sidecar = {"SamplingFrequency": 0.5, "StartTime": 12.0, "Columns": ["n_words"]}
    write.write_json(names.path("stim", stim | {"ext": "json"}), sidecar)
    words = {"onset": [1.0], "duration": [0.2], "word": ["so"]}
    write.write_tsv(names.path("words", {"story": "black", "ext": "tsv"}), words)
    write.write_text(names.path("participant_report", {"participant": "265"}), "<html></html>")
    write.write_text(names.path("group_report"), "<html></html>")
    figure = {"participant": "265", "figure": "scores", "ext": "svg"}
    write.write_text(names.path("participant_figure", figure), "<svg/>")
    write.write_text(names.path("group_figure", {"figure": "isc", "ext": "svg"}), "<svg/>")
    write.write_text(names.path("run_log", {"run_id": "20241123T000000-abcd"}), "log")
    done = subprocess.run(
        [program, str(names.root), "--format", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [item for item in issues if item["severity"] == "error"] == []
