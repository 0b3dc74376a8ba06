"""Output names come from one file; nothing of the workshop stands in the repository."""

from __future__ import annotations

import ast
import json
import re
import subprocess

import pytest
from source_tree import FILES, PACKAGE, REPOSITORY, short, tree

from bids_brainlm.bidsio.names import templates

ENDINGS = re.compile(r"_(boldmap|timeseries|words|features|stim)\.|\.jsonl$|"
                     r"^(dataset_description\.json|descriptions\.tsv|.*CITATION\.md)$")
READERS = {
    "bids_brainlm/bidsio/dataset.py": "reads the raw dataset",
    "bids_brainlm/bidsio/bold.py": "reads derivatives",
    "bids_brainlm/bidsio/confounds.py": "reads derivatives",
    "bids_brainlm/bidsio/transcript_files.py": "looks for transcripts",
    "bids_brainlm/bidsio/atlas.py": "reads atlases",
    "bids_brainlm/boutiques.py": "tells platforms which files come out",
    "bids_brainlm/report/html.py": "shortens names for display",
    "bids_brainlm/bidsio/describe.py": "writes the list of ignored names",
}
PLACES = ("/wor" + "k/", "/tm" + "p/bl", "/ro" + "ot/", "/ho" + "me/")


def _tracked() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True,
        text=True, check=False,
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [line for line in done.stdout.splitlines() if (REPOSITORY / line).is_file()]


def test_templates_are_well_formed():
    for logical, template in templates().items():
        assert re.fullmatch(r"\w+", logical)
        assert template.count("[") == template.count("]")
        assert not template.startswith("/")
        assert "sub-" not in template or "{participant}" in template


@pytest.mark.parametrize("path", [p for p in FILES if "simulate" not in p.parts], ids=short)
def test_no_module_spells_output_names(path):
    """Text that would build an output name stands in data/outputs.json only."""
    if short(path) in READERS:
        return
    docstrings = {
        id(n.body[0].value) for n in ast.walk(tree(path))
        if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef) and n.body
        and isinstance(n.body[0], ast.Expr)
    }
    found = []
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if id(node) in docstrings or " " in node.value.strip():
            continue
        entities = re.search(r"(sub|task|space|atlas|stat|ses)-", node.value)
        if (entities and "_" in node.value) or ENDINGS.search(node.value):
            found.append(f"{node.lineno}: {node.value!r}")
    assert found == []


def test_no_machine_paths_and_no_leftovers_in_tracked_files():
    found = []
    for name in _tracked():
        path = REPOSITORY / name
        binary = path.suffix in (".gz", ".png", ".nii", ".safetensors", ".nc", ".svg", ".ico")
        if binary or path.name in (".gitignore", ".dockerignore"):
            continue
        text = path.read_text("utf-8", errors="replace")
        found += [f"{name}: {place}" for place in PLACES if place in text]
    assert found == []


def test_no_caches_are_tracked():
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    assert [n for n in done.stdout.splitlines()
            if re.search(r"__pycache__|\.pyc$|_cache/|\.hypothesis/|\.tmp-", n)] == []


def test_data_files_are_valid():
    for path in (PACKAGE / "data").glob("**/*.json"):
        json.loads(path.read_text("utf-8"))


def test_presets_are_data_and_no_code_asks_which_is_on():
    """The only reader of the preset's name lays it over the defaults and repeats the call."""
    from bids_brainlm import config

    assert config.presets() == ["default", "paper"]
    found = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Compare):
                text = ast.unparse(node)
                if "preset" in text and short(path) != "bids_brainlm/config.py":
                    found.append(f"{short(path)}:{node.lineno} {text}")
                values = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                if "paper" in values:
                    found.append(f"{short(path)}:{node.lineno} {text}")
    assert found == []
