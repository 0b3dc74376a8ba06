"""The import direction, and what a cold start loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import FILES, REPOSITORY, short, tree

HEAVY = ("torch", "transformers", "nilearn", "spacy", "bids", "nibabel", "pandas", "matplotlib",
         "jinja2", "xarray", "scipy", "sklearn", "h5netcdf", "tokenizers", "huggingface_hub")


def test_import_contracts_hold():
    program = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=REPOSITORY, capture_output=True,
        text=True, check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize("flag", ["--help", "--version", "-v", "no-such-level"])
def test_a_cold_start_loads_nothing_heavy(flag):
    program = (
        "import sys\n"
        "from bids_brainlm.cli import main\n"
        f"code = main({[flag] if flag.startswith('-') else ['a', 'b', flag]!r})\n"
        "loaded = sorted({m.partition('.')[0] for m in sys.modules})\n"
        "sys.stderr.write('loaded: ' + ' '.join(loaded))\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == (0 if flag.startswith("-") else 17), done.stderr
    loaded = set(done.stderr.partition("loaded: ")[2].split())
    assert "bids_brainlm" in loaded
    assert sorted(loaded & {*HEAVY, "numpy"}) == []


def test_help_names_every_setting_and_its_levels():
    from bids_brainlm import config

    done = subprocess.run(
        [sys.executable, "-m", "bids_brainlm", "--help"], capture_output=True, text=True, check=True
    )
    for name in config.declared():
        assert "--" + name.replace("_", "-") in done.stdout
    assert "{participant,group,stimulus}" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("level", ["group", "participant"])
def test_planning_loads_neither_torch_nor_plots(level):
    program = (
        "import sys\n"
        "from bids_brainlm import runner\n"
        f"from bids_brainlm.plan import {level}\n"
        "heavy = ('torch', 'transformers', 'nilearn', 'spacy', 'bids', 'pandas', 'xarray',"
        " 'matplotlib', 'scipy.stats', 'bids_brainlm.report')\n"
        f"heavy += ('scipy.interpolate',) if {level != 'group'} else ()\n"
        "sys.exit(' '.join(m for m in heavy if m in sys.modules) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr


DELAYED = {
    "bids_brainlm/__init__.py": {"bids_brainlm"},  # the functions for Python, when asked for
    "bids_brainlm/api_run.py": {"bids_brainlm"},  # as cli.py
    "bids_brainlm/cli.py": {"bids_brainlm"},  # the runner: a fast --help
    "bids_brainlm/fetch.py": {"bids_brainlm.language", "bids_brainlm.bidsio"},
    "bids_brainlm/presets/cli.py": {"bids_brainlm.presets"},  # NumPy, after threads are set
    "bids_brainlm/simulate/cli.py": {"bids_brainlm.simulate"},
    "bids_brainlm/simulate/images.py": {"bids_brainlm.bidsio"},
    "bids_brainlm/runner.py": {"bids_brainlm", "bids_brainlm.plan"},  # one level, pages when due
    "bids_brainlm/steps/run_checks.py": {"bids_brainlm.numerics"},  # SciPy's splines: no plan's
    "bids_brainlm/report/common.py": {"bids_brainlm.report", "bids_brainlm.report.content"},
}


def test_imports_of_the_own_package_stay_at_the_top():
    """An import inside a function hides a cycle; drawing is delayed since matplotlib is slow."""
    found = set()
    for path in FILES:
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for inner in ast.walk(node):
                module = inner.module if isinstance(inner, ast.ImportFrom) else None
                if not module or not module.startswith("bids_brainlm"):
                    continue
                draws = all(name.name.startswith("figures_") for name in inner.names)
                if not draws and module not in DELAYED.get(short(path), ()):
                    found.add(f"{short(path)}:{inner.lineno} {module}")
    assert sorted(found) == []


def test_no_function_of_the_core_reads_the_environment_or_the_clock():
    """Only the command line may; results must not depend on either."""
    found = []
    for path in FILES:
        if Path(short(path)).parts[1] not in ("numerics", "bidsio", "records.py", "config.py"):
            continue
        for node in ast.walk(tree(path)):
            text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if text in ("os.environ", "time.time", "datetime.now", "datetime.datetime.now"):
                found.append(f"{short(path)}:{node.lineno} {text}")
    allowed = (
        "bids_brainlm/bidsio/atlas.py",  # TEMPLATEFLOW_HOME, as TemplateFlow itself reads it
        "bids_brainlm/bidsio/temporary.py",  # the age of files that killed runs left
    )
    assert [f for f in found if not f.startswith(allowed)] == []
