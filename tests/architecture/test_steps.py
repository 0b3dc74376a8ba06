"""Every step declares exactly the settings that it reads."""

from __future__ import annotations

import ast
from dataclasses import fields, replace
from pathlib import Path

import pytest
from source_tree import PACKAGE, tree

from bids_brainlm import config
from bids_brainlm.executors import work

HELPERS = ("__init__", "base", "reports", "encoding_sidecar", "encoding_columns",
           "encoding_runs", "encoding_tables", "run_maps", "story_blocks", "stories",
           "stimulus_files", "predictions", "regions", "group_files",
           "group_tables", "intact", "significance", "run_checks", "report_sidecars")
STEPS = sorted(p.stem for p in (PACKAGE / "steps").glob("*.py") if p.stem not in HELPERS)
NOT_YET = {
    "skip_bids_validation": "the input's names are checked leniently, there is nothing to skip yet",
}


def _module(name: str):
    return work.step_module(name)


def _base() -> config.Config:
    return config.Config(Path("in"), Path("out"), "participant")


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_found_by_its_name(name):
    assert name == _module(name).NAME
    assert isinstance(_module(name).VERSION, int)


@pytest.mark.parametrize("name", STEPS)
def test_every_declared_setting_is_read(name):
    """A field that is never read makes results look stale without a reason."""
    own = {f.name for f in fields(_module(name).Params)}
    read = {
        node.attr
        for node in ast.walk(tree(PACKAGE / "steps" / f"{name}.py"))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "settings"
        and isinstance(node.ctx, ast.Load)
    }
    assert sorted(own - read) == []
    assert sorted(read - own) == []


@pytest.mark.parametrize("name", STEPS)
def test_params_takes_every_field_from_the_config(name):
    """Changing a setting that a step declares changes its Params, and no other setting does."""
    module = _module(name)
    own = {f.name for f in fields(module.Params)}
    declared = config.declared()
    assert own <= set(declared)
    before = module.params(_base())
    for setting, (section, item) in declared.items():
        part = getattr(_base(), section)
        other = "changed" if not isinstance(item.default, tuple) else ("changed",)
        changed = replace(_base(), **{section: replace(part, **{setting: other})})
        after = module.params(changed)
        differing = {f for f in own if getattr(before, f) != getattr(after, f)}
        assert differing == ({setting} & own), setting


@pytest.mark.parametrize("name", STEPS)
def test_no_step_sees_settings_of_execution(name):
    execution = {f.name for f in fields(config.Execution)}
    assert not execution & {f.name for f in fields(_module(name).Params)}


@pytest.mark.parametrize("name", STEPS)
def test_steps_have_the_same_parts(name):
    module = _module(name)
    for part in ("params", "outputs", "record", "run"):
        assert callable(getattr(module, part))


def test_every_setting_that_changes_results_is_used_somewhere():
    """A flag that no one reads would promise something that does not happen."""
    used = {f.name for name in STEPS for f in fields(_module(name).Params)}
    text = "".join(p.read_text("utf-8") for p in (PACKAGE / "plan").glob("*.py"))
    text += (PACKAGE / "runner.py").read_text("utf-8") + (PACKAGE / "cli.py").read_text("utf-8")
    text += (PACKAGE / "pages.py").read_text("utf-8")
    text += "".join(p.read_text("utf-8") for p in (PACKAGE / "executors").glob("*.py"))
    unused = [name for name, (section, _) in config.declared().items()
              if name not in {*used, *NOT_YET} and f".{name}" not in text]
    assert unused == []
