"""Reads the package's source for the structural tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "bids_brainlm"
FILES = sorted(PACKAGE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def short(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    """Yield the qualified name and the node of every function, nested ones included."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield prefix + child.name, child
                yield from walk(child, f"{prefix}{child.name}.<locals>.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    yield from walk(tree(path), "")


def public_functions(path: Path) -> Iterator[tuple[str, Function]]:
    """Yield functions and methods that others may call."""
    if any(part.startswith("_") and part != "__init__.py" for part in path.parts[-2:]):
        return
    for name, node in functions(path):
        if "<locals>" not in name and not any(p.startswith("_") for p in name.split(".")):
            yield name, node


def parameters(node: Function) -> list[str]:
    """Return the names of all parameters but self and cls."""
    a = node.args
    names = [x.arg for x in [*a.posonlyargs, *a.args, *a.kwonlyargs]]
    names += [x.arg for x in (a.vararg, a.kwarg) if x is not None]
    return [n for n in names if n not in ("self", "cls")]


def code_lines(node: Function) -> int:
    """Count the lines from def to end without the docstring."""
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is not None:
        first = node.body[0]
        lines -= first.end_lineno - first.lineno + 1
    return lines
