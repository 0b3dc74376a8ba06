"""Run all rows, or some, each in a process of its own, and write one table.

    python -m benchmarks                         everything
    python -m benchmarks --rows decoding isc     some rows
    python -m benchmarks --quick                 smaller shapes
    python -m benchmarks --rows gpu              the search on a GPU
    python -m benchmarks --list                  names of rows

The table is ``benchmarks/results/table.md`` (and ``.json``). Rows that were measured before
stay in it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# name of the row: module and function
ROWS = {
    "one": "benchmarks.encoding:one",
    "all": "benchmarks.encoding:all_participants",
    "alphas20": "benchmarks.encoding:alphas20",
    "heads": "benchmarks.headwise:heads_row",
    "voxels": "benchmarks.encoding:voxels",
    "gpu": "benchmarks.gpu:voxels_many_alphas",
    "loading": "benchmarks.loading:loading",
    "bert": "benchmarks.features:bert_base",
    "isc": "benchmarks.group:isc_parcels",
    "isc-voxels": "benchmarks.group:isc_voxels",
    "bootstrap": "benchmarks.group:bootstrap",
    "sign-flips": "benchmarks.group:sign_flips",
    "decoding": "benchmarks.decoding:decoding_row",
    "study": "benchmarks.study:study",
    "help": "benchmarks.calls:help_text",
    "dry-run": "benchmarks.calls:dry_run",
    "resume": "benchmarks.calls:resume",
}
ON_REQUEST = {"gpu"}  # rows that need what not every machine has
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def measure(name: str, quick: bool) -> None:
    """Run one row here and print it as JSON."""
    module, _, function = ROWS[name].partition(":")
    result = getattr(importlib.import_module(module), function)(quick)
    print(json.dumps(result.as_dict(), default=str))


def main() -> int:
    """Run the rows and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    everywhere = [name for name in ROWS if name not in ON_REQUEST]
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=everywhere, metavar="ROW")
    parser.add_argument("--quick", action="store_true", help="smaller shapes, fewer repetitions")
    parser.add_argument("--to", type=Path, default=HERE / "results", metavar="FOLDER")
    parser.add_argument("--list", action="store_true", help="print the names of rows")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.list:
        print("\n".join(ROWS))
        return 0
    if given.here:
        measure(given.rows[0], given.quick)
        return 0
    from benchmarks import common

    path = given.to / "table.json"
    before = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    kept = before.get("rows", {}) if before.get("quick") == given.quick else {}
    table = {"machine": common.machine(), "quick": given.quick, "rows": kept}
    failed = []
    for name in given.rows:
        command = [sys.executable, "-m", "benchmarks", "--here", "--rows", name]
        done = subprocess.run(
            [*command, *(["--quick"] if given.quick else [])],
            env={**os.environ, **ONE_THREAD},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            failed.append(name)
            continue
        table["rows"][name] = json.loads(done.stdout.splitlines()[-1])
        table["rows"] = {n: table["rows"][n] for n in ROWS if n in table["rows"]}
        common.write(table, given.to)
        print(f"{name}: {json.dumps(table['rows'][name])}", flush=True)
    if (given.to / "table.md").is_file():
        print((given.to / "table.md").read_text("utf-8"))
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
