"""Compare two outputs of bids_brainlm file by file; exit 1 where they differ.

``python compare.py FIRST SECOND [--place FIRST_PATH=SECOND_PATH ...]``

Files must be equal byte for byte. Allowed differences: logs of runs (they hold times), the
container's entry in dataset_description.json, and the paths that ``--place`` pairs, in pages.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = "dataset_description.json"
RUN_LOGS = (".log", ".jsonl", ".toml")


def files_of(folder: Path) -> set[str]:
    """Return the relative paths of all files but the logs of single runs."""
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return {p.as_posix() for p in found if not (p.parts[0] == "logs" and p.suffix in RUN_LOGS)}


def without_container(data: bytes) -> object:
    """Return dataset_description.json without what tells where it was made."""
    content = json.loads(data)
    for maker in content.get("GeneratedBy", []):
        maker.pop("Container", None)
    return content


def largest_difference(first: Path, second: Path) -> str:
    """Tell by how much the numbers of two tables differ."""

    def cells(path: Path) -> list[list[str]]:
        return list(csv.reader(path.read_text("utf-8").splitlines(), delimiter="\t"))

    one, other = cells(first), cells(second)
    if [len(row) for row in one] != [len(row) for row in other]:
        return "other rows or columns"
    largest, texts = 0.0, 0
    for a, b in (
        (a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    ):
        if a == b:
            continue
        try:
            largest = max(largest, abs(float(a) - float(b)))
        except ValueError:
            texts += 1
    return f"numbers differ by up to {largest:.3g}" + (f", {texts} texts" if texts else "")


def difference(
    name: str, first: Path, second: Path, places: Sequence[tuple[bytes, bytes]]
) -> str | None:
    """Return how a file differs: empty where the difference is allowed, None where none is."""
    one, other = (first / name).read_bytes(), (second / name).read_bytes()
    if one == other:
        return None
    if name == DESCRIPTION:
        return "" if without_container(one) == without_container(other) else "other content"
    if name.endswith(".html"):
        for old, new in places:
            one = one.replace(old, new)
        return "" if one == other else "other content"
    if name.endswith(".tsv"):
        return largest_difference(first / name, second / name)
    return f"{len(one)} and {len(other)} bytes"


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and report; return 0 where all is equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--place", action="append", default=[], metavar="FIRST=SECOND")
    given = parser.parse_args(argv)
    places = [tuple(part.encode() for part in pair.split("=", 1)) for pair in given.place]
    one, other = files_of(given.first), files_of(given.second)
    lines = [f"only in {given.first}: {name}" for name in sorted(one - other)]
    lines += [f"only in {given.second}: {name}" for name in sorted(other - one)]
    same = allowed = 0
    for name in sorted(one & other):
        found = difference(name, given.first, given.second, places)
        same += found is None
        allowed += found == ""
        if found:
            lines.append(f"differs: {name}: {found}")
    if not one and not other:
        lines.append("both folders are empty")
    head = f"{same} files equal byte for byte, {allowed} but for places, {len(lines)} not"
    sys.stdout.write("\n".join([*lines, head]) + "\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
