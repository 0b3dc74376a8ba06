"""The documentation says what the package does: reference, links, commands, code blocks."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
sys.path.insert(0, str(DOCS))

import generate  # noqa: E402

from bids_brainlm import (  # noqa: E402
    __version__,
    boutiques,
    cli,
    config,
    errors,
    fetch,
    jobs,
    plot_cli,
    rois,
)
from bids_brainlm.bidsio.names import templates  # noqa: E402
from bids_brainlm.presets import cli as presets  # noqa: E402
from bids_brainlm.simulate import cli as simulate  # noqa: E402

PAGES = sorted(
    path
    for path in DOCS.rglob("*.md")
    if not {"_build", "generated"} & set(path.relative_to(DOCS).parts)
)
TEXTS = [REPOSITORY / "README.md", *PAGES]
NOTEBOOK = DOCS / "tutorials" / "alice.ipynb"
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(<!-- run -->\n)?```(\w+)\n(.*?)^```$", re.M | re.S)
PROGRAMS = {
    "bids_brainlm": cli.parse,
    "bids_brainlm-fetch": lambda words: fetch.parser().parse_args(words),
    "bids_brainlm-simulate": simulate.parse,
    "bids_brainlm-rois": lambda words: rois.parser().parse_args(words),
    "bids_brainlm-plot": lambda words: plot_cli.parser().parse_args(words),
    "bids_brainlm-jobs": lambda words: jobs.parser().parse_args(words),
    "bids_brainlm-presets": lambda words: presets.parser().parse_known_args(words),
}
FAST = (
    "--model random:tiny-bert --n-iter 2 --alphas 1 100 --n-permutations 100 --n-bootstraps 100 "
    "--context-trs 0 --cv 3 --inner-cv 2 --gap 4 --nprocs 1 --layers 3 --participant-label 18 22"
)
PARTICIPANTS = ("18", "22")


def short(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    return generate.pages()


def option(page: str, name: str) -> str:
    """Return the block of one setting."""
    flag = "--" + name.replace("_", "-")
    found = re.search(rf"^::::{{option}} (?:-\w \S+, )?{flag}[ ,\n].*?^::::$", page, re.M | re.S)
    assert found is not None, f"{flag} is not on the page of settings"
    return found[0]


@pytest.mark.parametrize("name", config.declared())
def test_every_setting_is_in_the_reference(reference, name):
    section, item = config.declared()[name]
    block = option(reference["settings.md"], name)
    assert f"[{section}] {name}" in block
    meta = item.metadata
    assert all(f"`{choice}`" in block for choice in (*(meta["choices"] or ()), *meta["known"]))
    assert meta["unit"] is None or f"unit {meta['unit']}" in block
    if isinstance(item.default, (int, float)) and not isinstance(item.default, bool):
        assert f"`{item.default:g}`" in block or f"`{item.default}`" in block
    assert ("`--preset paper`" in block) == (
        config.read_preset("paper").get(name, item.default) != item.default
    )


def test_settings_that_steps_read_name_the_steps():
    """Compared with the records of the steps themselves."""
    from bids_brainlm.steps import encoding, words

    readers = generate.readers_of_settings()
    for module in (encoding, words):
        for item in fields(module.Params):
            assert f"`{module.NAME}`" in readers[item.name]
    assert all(readers.values()), [name for name, found in readers.items() if not found]


def test_every_error_and_exit_code_is_in_the_reference(reference):
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.BrainLMError)
    ]
    for kind in set(kinds) - {errors.BrainLMError}:
        assert f"| {kind.exit_code} | `{kind.__name__}` |" in reference["errors.md"]
    page = (DOCS / "reference" / "exit-codes.md").read_text("utf-8")
    for code in boutiques.ERROR_CODES:
        assert f"| {code} |" in page
        assert f"| {code} |" in reference["errors.md"]


def test_every_output_is_in_the_reference_and_has_a_line():
    page = generate.outputs()
    for logical, template in templates().items():
        assert logical in generate.OUTPUTS, f"say what {logical} is in docs/generate.py"
        assert f"`{template}`" in page
    assert not generate.OUTPUTS.keys() - templates().keys()


def test_statistics_of_the_steps_are_in_the_reference(reference):
    from bids_brainlm.steps import encoding_sidecar

    tables = [encoding_sidecar.STATISTICS]
    for path in sorted((REPOSITORY / "bids_brainlm" / "steps").glob("*.py")):
        module = importlib.import_module(f"bids_brainlm.steps.{path.stem}")
        tables.append(getattr(module, "DESCRIPTIONS", {}))
    assert sum(map(len, tables)) > 30
    for texts in tables:
        assert all(f"`{name}`\n: " in reference["outputs.md"] for name in texts)


def test_every_word_of_the_glossary_is_in_the_reference(reference):
    words = yaml.safe_load((DOCS / "reference" / "glossary.yml").read_text("utf-8"))
    assert all(f"\n{word}\n" in reference["glossary.md"] for word in words)


def test_every_program_is_in_the_reference(reference):
    for program in PROGRAMS:
        assert f"## {program}\n" in reference["commands.md"]
        assert f"usage: {program}" in reference["commands.md"]


def test_every_module_of_numerics_has_a_page(reference):
    modules = [p.stem for p in (REPOSITORY / "bids_brainlm" / "numerics").glob("[!_]*.py")]
    assert modules
    assert all(f"api/numerics.{module}.md" in reference for module in modules)


def test_generated_pages_are_shown_somewhere(reference):
    included = "".join(page.read_text("utf-8") for page in PAGES)
    for name in reference:
        if not name.startswith("api/"):
            assert re.search(rf"{{include}} \S*generated/{name}", included), name


def test_rewriting_touches_nothing_and_old_pages_go(tmp_path):
    written = generate.write(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in written}
    (tmp_path / "api" / "numerics.gone.md").write_text("old", "utf-8")
    assert generate.write(tmp_path) == written
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")} == before


@pytest.mark.parametrize("page", TEXTS, ids=short)
def test_links_between_files_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
    lost = []
    for target in LINK.findall(text):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", target) or (not path and anchor):
            continue
        if not (page.parent / path).exists():
            lost.append(target)
    assert lost == []


def commands(page: Path) -> list[list[str]]:
    """Return the calls of our programs in the code blocks of a page."""
    found = []
    for _, _, block in FENCE.findall(page.read_text("utf-8")):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            line = line.strip().removeprefix("$ ")
            if line.split(" ")[0] in PROGRAMS and not set("<{[|") & set(line):
                found.append(shlex.split(line, comments=True))
    return found


@pytest.mark.parametrize("page", TEXTS, ids=short)
def test_commands_that_are_shown_can_be_parsed(page):
    for program, *words in commands(page):
        if {"-h", "--help", "--version"} & set(words):
            continue
        words = [word for word in words if word not in ("&", "...")]
        PROGRAMS[program](words)


def test_there_are_commands_to_parse():
    assert sum(len(commands(page)) for page in TEXTS) > 20


def test_citation_and_changelog_name_this_version():
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == __version__
    assert {"cff-version", "message", "title", "authors", "license"} <= cited.keys()
    assert cited["license"] == "Apache-2.0"
    changes = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## {re.escape(__version__)}\b", changes, re.M)


def runnable(page: Path, language: str) -> list[str]:
    blocks = FENCE.findall(page.read_text("utf-8"))
    return [text for mark, kind, text in blocks if mark and kind == language]


def lines_of(page: Path) -> list[str]:
    """Return the commands of the marked console blocks of a page."""
    text = re.sub(r"\\\n\s*", " ", "\n".join(runnable(page, "console")))
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


def run_fast(page: Path, folder: Path) -> str:
    """Run the commands of a page in this process, ours with fast settings."""
    known: dict[str, str] = {}
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        for line in lines_of(page):
            line = string.Template(line).safe_substitute(known)
            name, sign, value = line.partition("=")
            if sign and name.isidentifier():
                known[name] = value
            elif line.startswith("bids_brainlm "):
                code = cli.main([*shlex.split(line)[1:], *FAST.split()])
                assert code == 0, line
            else:
                done = subprocess.run(
                    ["bash", "-c", line], capture_output=True, text=True, check=True
                )
                printed.write(done.stdout)
    return printed.getvalue()


def run_as_typed(page: Path, folder: Path) -> None:
    """Run the commands of a page with bash in a folder."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(["set -euo pipefail", *lines_of(page)])],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def check_python(page: Path, folder: Path, monkeypatch) -> int:
    """Run the marked Python blocks of a page as one doctest; return how many lines there were."""
    monkeypatch.chdir(folder)
    text = "\n".join(runnable(page, "python"))
    test = doctest.DocTestParser().get_doctest(text, {}, short(page), short(page), 0)
    runner = doctest.DocTestRunner(verbose=False)
    report: list[str] = []
    runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)
    return len(test.examples)


@pytest.fixture(scope="module")
def first_run(alice, tmp_path_factory) -> Path:
    """Follow the first tutorial with fast settings, on the first minutes of the story."""
    folder = tmp_path_factory.mktemp("docs")
    copy = folder / "bids_brainlm" / "data" / "alice"

    def others(_: str, names: list[str]) -> set[str]:
        return {n for n in names if n.startswith("sub-") and n[4:6] not in PARTICIPANTS}

    shutil.copytree(alice, copy, ignore=others)
    for path in copy.glob("sub-*/func/*_events.tsv"):
        path.chmod(0o644)
        path.write_text(path.read_text("utf-8").replace("763.6", "220"), "utf-8")
    printed = run_fast(DOCS / "tutorials" / "first-run.md", folder)
    (folder / "printed.txt").write_text(printed, "utf-8")
    return folder


def test_first_run_works_as_told(first_run):
    printed = (first_run / "printed.txt").read_text("utf-8")
    assert "dataset_description.json" in printed  # ls
    assert "core time" in printed  # the plan
    assert "LATL" in printed  # the group map
    assert (first_run / "out" / "group.html").is_file()


def test_python_tutorial_works_as_told(first_run, monkeypatch):
    assert check_python(DOCS / "tutorials" / "python.md", first_run, monkeypatch) > 15


def cells(path: Path) -> list[str]:
    """Return the code of a notebook, which is kept without results."""
    found = json.loads(path.read_text("utf-8"))["cells"]
    code = [cell for cell in found if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    return ["".join(cell["source"]) for cell in code]


def test_notebook_works_as_told(first_run, monkeypatch, capsys):
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    monkeypatch.chdir(first_run)
    known: dict[str, object] = {}
    for code in cells(NOTEBOOK):
        exec(compile(code, NOTEBOOK.name, "exec"), known)
    plt.close("all")
    assert len(shown) == 2
    assert "There is no brain map" in capsys.readouterr().out


@pytest.mark.slow
def test_notebook_shows_its_figures_in_jupyter(first_run, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="the extra 'test' is not installed")
    nbclient = pytest.importorskip("nbclient", reason="the extra 'test' is not installed")
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    shutil.copytree(first_run / "out", tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of Jupyter about itself
        nbclient.NotebookClient(
            notebook, timeout=600, kernel_name="python3",
            resources={"metadata": {"path": str(tmp_path)}},
        ).execute()  # fmt: skip
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    kinds = [kind for o in outputs for kind in o.get("data", {})]
    assert kinds.count("image/png") == 4
    assert kinds.count("text/html") >= 2
    assert not [o.text for o in outputs if o.get("name") == "stderr"]


@pytest.mark.slow
def test_tutorials_work_as_typed(alice, minilm, tmp_path, monkeypatch):
    (tmp_path / "bids_brainlm" / "data").mkdir(parents=True)
    (tmp_path / "bids_brainlm" / "data" / "alice").symlink_to(alice)
    run_as_typed(DOCS / "tutorials" / "first-run.md", tmp_path)
    assert check_python(DOCS / "tutorials" / "python.md", tmp_path, monkeypatch) > 15


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module, reason="the extra 'docs' is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-b", "html",
         "-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "html")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    outside = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']https?:""")
    pages = list((tmp_path / "html").rglob("*.html"))
    assert len(pages) > 40
    assert [p.name for p in pages if outside.search(p.read_text("utf-8"))] == []
