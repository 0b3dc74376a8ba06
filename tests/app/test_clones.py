"""Datasets as they come: clones without content, links, stray files; and what comes out of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import pytest
import small_alice
from small_alice import arguments, bold, confounds, events, leftovers, tree

from bids_brainlm import cli

pytestmark = pytest.mark.thorough

ANNEX = ".git/annex/objects/Xx/Yy/MD5E-s1--0/MD5E-s1--0"


def dangle(path: Path, root: Path) -> None:
    """Replace a file by the link that git-annex leaves where there is no content."""
    path.unlink()
    ups = "../" * (len(path.relative_to(root).parts) - 1)
    path.symlink_to(ups + ANNEX)


def annexed(path: Path, root: Path) -> None:
    """Move a file's content into the annex and leave a link, as after ``datalad get``."""
    key = f"MD5E-s{path.stat().st_size}--{abs(hash(path.name))}{''.join(path.suffixes)}"
    target = root / ".git" / "annex" / "objects" / key / key
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    target.chmod(0o444)
    path.symlink_to("../" * (len(path.relative_to(root).parts) - 1) + str(target.relative_to(root)))


def images_of_others(bids: Path, person: str) -> list[Path]:
    return [p for p in bids.rglob("sub-*/func/*")
            if not p.name.startswith((f"sub-{person}_", "._")) and not p.name.endswith(".json")]


def alike(found: dict[str, str], reference: dict[str, str], person: str) -> set[str]:
    """Return the files of a participant and of the stories that are not as expected."""
    def of(names: dict[str, str]) -> set[str]:
        return {n for n in names if n.startswith((f"sub-{person}/func", "stimuli/", "task-"))}

    return {n for n in of(found) | of(reference) if found.get(n) != reference.get(n)}


@pytest.mark.parametrize("texts_too", [False, True])
def test_one_participant_s_clone(small, made, tmp_path, texts_too):
    """As in a BABS job: one participant's content is there, everybody else's links dangle."""
    for path in images_of_others(small, "18"):
        if texts_too or path.name.endswith(".nii.gz"):
            dangle(path, small)
    out = tmp_path / "out"
    assert cli.main(arguments(small, out, "--participant-label", "18")) == 0
    assert alike(tree(out), tree(made), "18") == set()
    assert not list(out.glob("sub-2*"))
    assert leftovers(out) == []


@pytest.mark.slow
def test_everybody_by_links_into_a_read_only_annex(small, made, tmp_path):
    for path in [p for p in small.rglob("*") if p.is_file() and p.suffix not in (".json",)]:
        annexed(path, small)
    out = tmp_path / "out"
    assert cli.main(arguments(small, out)) == 0
    reference, found = tree(made), tree(out)
    differing = {n for n in {*reference, *found} if reference.get(n) != found.get(n)}
    assert {n for n in differing if not n.endswith(".html")} == set()


@pytest.mark.slow
def test_derivatives_by_a_link_to_elsewhere(small, made, tmp_path):
    """Symlinked derivatives, inside the dataset and by the flag."""
    elsewhere = tmp_path / "store" / "fmriprep"
    shutil.move(small / "derivatives" / "fmriprep", elsewhere)
    (small / "derivatives" / "fmriprep").symlink_to(elsewhere)
    for out, more in (("a", []), ("b", ["--derivatives", str(elsewhere)])):
        assert cli.main(arguments(small, tmp_path / out, *more)) == 0
        assert alike(tree(tmp_path / out), tree(made), "18") == set()


DANGLING = {
    "BOLD": lambda b: bold(b, "18"),
    "confounds": lambda b: confounds(b, "18"),
    "events": lambda b: events(b, "18"),
    "transcript": lambda b: b / "stimuli" / "alice_audio.TextGrid",
    "atlas": lambda b: small_alice.atlas(b),
}


@pytest.mark.parametrize("what", DANGLING)
def test_a_link_without_content_names_the_command(small, tmp_path, capsys, what):
    path = DANGLING[what](small)
    call = arguments(small, tmp_path / "out", "--participant-label", "18")
    dangle(path, small)
    assert cli.main(call) == 66
    error = capsys.readouterr().err
    assert "datalad get" in error
    assert path.name in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_files_of_a_mac_are_ignored(small, made, tmp_path):
    for path in [p for p in small.rglob("*") if p.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\x05\x16\x07 not what the name says")
    (small / ".DS_Store").write_bytes(b"\0")
    out = tmp_path / "out"
    assert cli.main(arguments(small, out)) == 0
    reference, found = tree(made), tree(out)
    differing = {n for n in {*reference, *found} if reference.get(n) != found.get(n)}
    assert {n for n in differing if not n.endswith(".html")} == set()


# --- what comes out -----------------------------------------------------------------------------


def validate(out: Path) -> None:
    pytest.importorskip("bids_validator_deno", reason="the extra 'test' brings it")
    program = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run(
        [str(program), str(out), "--format", "json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [i for i in issues if i["severity"] == "error"] == []
    assert done.returncode == 0
    known = {"TOO_FEW_AUTHORS", "SIDECAR_KEY_RECOMMENDED", "JSON_KEY_RECOMMENDED",
             "SUBJECT_FOLDERS"}  # the last one: the stimulus level makes none
    assert {i["code"] for i in issues} <= known


def test_the_validator_passes_stimulus_participant_and_group(small, made, tmp_path):
    content = json.loads((small / "dataset_description.json").read_text("utf-8"))
    content["DatasetDOI"] = "doi:10.18112/openneuro.ds002345.v1.1.4"
    (small / "dataset_description.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    for level in ("stimulus", "participant", "group"):
        assert cli.main(arguments(small, out, level=level)) == 0
        validate(out)
    found = json.loads((out / "dataset_description.json").read_text("utf-8"))
    assert found["SourceDatasets"] == [{
        "URL": "https://doi.org/10.18112/openneuro.ds002345.v1.1.4",
        "DOI": "doi:10.18112/openneuro.ds002345.v1.1.4", "Version": "1.1.4",
    }]


def test_the_output_names_the_image_that_made_it(small, tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINLM_CONTAINER_TYPE", "docker")
    monkeypatch.setenv("BRAINLM_CONTAINER_TAG", "bids_brainlm:0.1.0")
    monkeypatch.setenv("BRAINLM_CONTAINER_DIGEST", "sha256:" + "0" * 64)
    out = tmp_path / "out"
    assert cli.main(arguments(small, out, level="stimulus")) == 0
    validate(out)
    found = json.loads((out / "dataset_description.json").read_text("utf-8"))
    (maker,) = found["GeneratedBy"]
    assert maker["Container"] == {
        "Type": "docker", "Tag": "bids_brainlm:0.1.0", "URI": "bids_brainlm@sha256:" + "0" * 64,
    }


@pytest.mark.slow
def test_the_validator_passes_a_run_of_which_some_failed(small, tmp_path):
    out = tmp_path / "out"
    bold(small, "22").write_bytes(bold(small, "22").read_bytes()[:-900])
    assert cli.main(arguments(small, out, "--on-error", "continue")) == 32
    validate(out)
    assert cli.main(arguments(small, out, level="group")) == 0
    validate(out)


def test_every_source_can_be_found(done):
    """``Sources`` of all sidecars are BIDS URIs whose dataset is linked and whose file is there."""
    bids, out = done
    call = arguments(bids, out)
    assert cli.main(call) == 0  # the copy now lies elsewhere: its links are made anew
    assert cli.main(arguments(bids, out, level="group")) == 0
    links = json.loads((out / "dataset_description.json").read_text("utf-8"))["DatasetLinks"]
    assert links.keys() >= {"raw", "fmriprep"}
    n_sources = 0
    for sidecar in out.rglob("*.json"):
        content = json.loads(sidecar.read_text("utf-8"))
        for uri in content.get("Sources", []):
            parts = urlparse(uri)
            assert parts.scheme == "bids", (sidecar, uri)
            dataset, _, path = parts.path.partition(":")
            root = out / links[dataset] if dataset else out
            assert (root / path).is_file(), (sidecar, uri)
            n_sources += 1
    assert n_sources > 50
    for name in out.rglob("*_boldmap.json"):
        if "_stat-label_" not in name.name:  # the atlas, which belongs to no linked dataset
            assert json.loads(name.read_text("utf-8")).get("Sources"), name
