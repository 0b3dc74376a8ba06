"""Public functions say what they take, give and refuse."""

from __future__ import annotations

import ast
import re

import pytest
from source_tree import FILES, PACKAGE, functions, parameters, public_functions, short, tree

CORE = [p for p in FILES if p.parent in (PACKAGE / "numerics", PACKAGE / "language")]


@pytest.mark.parametrize("path", FILES, ids=short)
def test_everything_public_has_a_docstring(path):
    lacking = [name for name, node in public_functions(path)
               if ast.get_docstring(node) is None and "property" not in _decorators(node)]
    lacking += [n.name for n in ast.walk(tree(path)) if isinstance(n, ast.ClassDef)
                and not n.name.startswith("_") and ast.get_docstring(n) is None]
    if ast.get_docstring(tree(path)) is None:
        lacking.append("module")
    assert lacking == []


def _decorators(node: ast.FunctionDef) -> list[str]:
    return [ast.unparse(d) for d in node.decorator_list]


@pytest.mark.parametrize("path", FILES, ids=short)
def test_private_functions_say_one_line(path):
    lacking = [name for name, node in functions(path)
               if "<locals>" not in name and ast.get_docstring(node) is None
               and not name.rpartition(".")[2].startswith("__")
               and "property" not in _decorators(node)]
    assert lacking == []


def _documented(docstring: str) -> set[str]:
    section = re.search(r"\nParameters\n-+\n(.*?)(?=\n\w[\w ]*\n-{3,}\n|\Z)", docstring, re.S)
    if section is None:
        return set()
    heads = re.findall(r"^([*\w][*\w, ]*?)(?: : .*)?$", section.group(1), re.M)
    return {name.strip("* ") for head in heads for name in head.split(",")}


def _raised(node: ast.FunctionDef) -> bool:
    return any(isinstance(n, ast.Raise) and n.exc is not None for n in ast.walk(node))


@pytest.mark.parametrize("path", CORE, ids=short)
def test_core_functions_list_all_parameters(path):
    """One-line docstrings are enough for functions of at most two parameters."""
    wrong = []
    for name, node in public_functions(path):
        docstring = ast.get_docstring(node) or ""
        wanted = set(parameters(node))
        if "\n" not in docstring and len(wanted) <= 2:
            continue
        lacking = sorted(wanted - _documented(docstring))
        if lacking and wanted:
            wrong.append(f"{name}: {', '.join(lacking)}")
    assert wrong == []


@pytest.mark.parametrize("path", CORE, ids=short)
def test_core_functions_that_raise_say_so(path):
    wrong = [name for name, node in public_functions(path)
             if _raised(node) and "\nRaises\n---" not in (ast.get_docstring(node) or "")]
    assert wrong == []


@pytest.mark.parametrize("path", CORE, ids=short)
def test_arrays_have_shapes(path):
    """Where a parameter or result is an array, its shape or kind is stated."""
    wrong = []
    for name, node in public_functions(path):
        for line in (ast.get_docstring(node) or "").splitlines():
            if re.match(r"\s*(\w[\w, ]* : )?array\s*$", line):
                wrong.append(f"{name}: {line.strip()}")
    assert wrong == []
