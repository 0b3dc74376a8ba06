"""How planning and the group level grow with participants: 20 to 345 of them, 18 stories each.

    python -m benchmarks.people

A simulated participant with one story is run once. Trees of N participants and 18 stories are
made of it: inputs as hard links, series and maps in eight variants. Measured, each in a process
of its own: planning a participant call on an empty output folder, planning it when everything is
done (all outputs are hashed), planning a group call, and running it. Images are small here; the
two MiB that are read and hashed of a large image are measured apart. Goes to
``results/scale.json``, under ``people``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.scale import _peak_of, keep
from bids_brainlm import cli, runner
from bids_brainlm.bidsio import write
from bids_brainlm.config import Config
from bids_brainlm.plan import group, participant
from bids_brainlm.plan.records import Plan
from bids_brainlm.steps import base

SEED_STORY = "rabbithole"
N_STORIES = 18
SIZES = (20, 60, 180, 345)
N_VARIANTS = 8
N_PARCELS = 100
FLAGS = (
    "--model", "random:tiny-bert", "--features", "embeddings", "--layers", "1", "--n-iter", "2",
    "--alphas", "1", "100", "--context-trs", "0", "--cv", "3", "--inner-cv", "2", "--gap", "4",
    "--trim", "2", "2", "--ladder", "none", "--across", "none", "--offline", "--nprocs", "1",
)  # fmt: skip
DRAWS = ("--n-permutations", "1000", "--n-bootstraps", "1000")
CEILINGS = ("--ceilings", "isc")  # the others fit models of participants to each other
READ = ("stat-r_", "stat-unique_", "stat-mean_timeseries", "stat-label_")  # by the group level
VARIED = ("stat-r_boldmap.tsv", "stat-mean_timeseries.tsv")


def seed(folder: Path) -> tuple[Path, Path]:
    """Simulate one participant with one story, and run the app on it."""
    bids, out = folder / "sim", folder / "made"
    made = [sys.executable, "-m", "bids_brainlm.simulate.cli", str(bids), "--participants", "001"]
    made += ["--stories", SEED_STORY, "--atlas", f"blocks:{N_PARCELS}", "--run-seconds", "300"]
    made += ["--voxel-size", "8", "--model", "random:tiny-bert", "--context-trs", "0"]
    subprocess.run(made, check=True, stderr=subprocess.DEVNULL)
    call = [sys.executable, "-m", "bids_brainlm", *arguments(bids, out, "participant")]
    subprocess.run(call, check=True, stderr=subprocess.DEVNULL)
    return bids, out


def arguments(bids: Path, out: Path, level: str) -> list[str]:
    """Return a call."""
    atlas = next((bids / "derivatives" / "atlas").glob("*_dseg.nii.gz"))
    given = [str(bids), str(out), level, *DRAWS, *CEILINGS]
    return given if level == "group" else [*given, "--atlas", str(atlas), *FLAGS]


def variants(path: Path, folder: Path) -> list[Path]:
    """Return copies of a table whose numbers differ."""
    lines = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
    first = 2 if lines[0][:2] == ["index", "name"] else 0
    values = np.array([[float(c) for c in line[first:]] for line in lines[1:]])
    made = []
    for number in range(N_VARIANTS):
        rng = np.random.default_rng(number)
        scale = 0.1 if first else 1.0
        other = values + scale * rng.standard_normal(values.shape)
        rows = zip(lines[1:], other, strict=True)
        text = ["\t".join([*line[:first], *(f"{v:.9g}" for v in row)]) for line, row in rows]
        made.append(folder / f"{number}-{path.name}")
        made[-1].write_text("\n".join(["\t".join(lines[0]), *text]) + "\n", "utf-8")
    return made


def cloned(source: Path, to: Path, n_people: int, scratch: Path) -> int:
    """Make a tree of N participants and 18 stories; return its number of files."""
    stories = [f"story{k:02d}" for k in range(N_STORIES)]
    count = 0
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        name = path.relative_to(source).as_posix()
        if name.startswith("logs/") or name.endswith((".html", ".svg")):
            continue
        image = name.endswith(".nii.gz") and "stat-label_" not in name
        if "_stat-" in name and (image or not any(stat in name for stat in READ)):
            continue
        text = path.read_text("utf-8") if name.endswith((".json", ".tsv")) else None
        people = [f"{k + 1:03d}" for k in range(n_people)] if "sub-001" in name else [""]
        others = variants(path, scratch) if name.endswith(VARIED) else []
        of_story = SEED_STORY in name or (text is not None and SEED_STORY in text)
        for story in stories if of_story and SEED_STORY in name else [""]:
            for number, person in enumerate(people):
                new = to / name.replace("sub-001", f"sub-{person}").replace(SEED_STORY, story)
                new.parent.mkdir(parents=True, exist_ok=True)
                if others:
                    os.link(others[number % N_VARIANTS], new)
                elif text is None or not (story or person):
                    os.link(path, new)
                else:
                    given = text.replace("sub-001", f"sub-{person}").replace(SEED_STORY, story)
                    new.write_text(given, "utf-8")
                count += 1
    lines = [f"sub-{k + 1:03d}" for k in range(n_people)]
    table = to / "participants.tsv"
    if table.exists():
        table.unlink()
        table.write_text("\n".join(["participant_id", *lines]) + "\n", "utf-8")
    seal(to)
    return count


def seal(folder: Path) -> None:
    """Give all records below a folder the sums of the files as they are now."""
    known: dict[int, str] = {}
    for path in sorted(folder.rglob("*.json")):
        record = write.read_json(path)
        if "Checksum" not in record:
            continue
        for name in record["Outputs"]:
            output = path.parent / name
            if output.is_file():
                place = output.stat().st_ino
                known[place] = known.get(place) or write.sha256_file(output)
                record["Outputs"][name] = known[place]
        record["Checksum"] = base._checksum(record)
        write.write_json(path, record)


def in_process(work: Callable[[], object]) -> dict[str, float]:
    """Return the seconds that pass and the largest memory of a call in a forked process."""
    begun = time.monotonic()
    core_seconds, peak = _peak_of(work)
    return {
        "seconds": round(time.monotonic() - begun, 2),
        "core_seconds": round(core_seconds, 2),
        "peak_gb": round(peak, 3),
    }


def planned(plan: Callable[[Config], Plan], settings: Config) -> None:
    """Plan, and look for what is done, as a call does."""
    with runner._no_collection():
        runner._states(plan(settings), settings)


def measure(folder: Path, bids: Path, made: Path, n_people: int) -> dict[str, object]:
    """Measure everything for one number of participants."""
    tree, out, scratch = (folder / f"{what}{n_people}" for what in ("raw", "out", "scratch"))
    for place in (tree, out, scratch):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    cloned(bids, tree, n_people, scratch)
    first = cli.parse(arguments(tree, folder / "empty", "participant"))
    row: dict[str, object] = {"n_participants": n_people, "n_runs": n_people * N_STORIES}
    row["n_jobs"] = len(participant.plan(first).jobs)
    row["plan"] = in_process(lambda: planned(participant.plan, first))
    row["n_files"] = cloned(made, out, n_people, scratch)
    last = cli.parse(arguments(tree, out, "group"))
    row["group_plan"] = in_process(lambda: group.plan(last))
    codes = folder / "code"
    call = arguments(tree, out, "group")
    row["group"] = in_process(lambda: codes.write_text(str(cli.main(call))))
    if codes.read_text() != "0":
        raise SystemExit(f"the group ended with {codes.read_text()}")
    row["group_steps"] = steps(out)
    row["group_again"] = in_process(lambda: planned(group.plan, last))
    for place in (tree, out, scratch):
        shutil.rmtree(place)
    return row


def steps(out: Path) -> dict[str, float]:
    """Return the core seconds of each step of the group."""
    found: Counter[str] = Counter()
    for line in next((out / "logs").glob("*.jsonl")).read_text("utf-8").splitlines():
        record = json.loads(line)
        found[record["step"]] += record.get("core_seconds", 0.0)
    return {step: round(seconds, 2) for step, seconds in found.items()}


def of_large_image(folder: Path) -> float:
    """Return the seconds of the fingerprint of one image above 8 MiB."""
    path = folder / "large"
    path.write_bytes(os.urandom(20 * 2**20))
    begun = time.perf_counter()
    for _ in range(20):
        write.fingerprint(path)
    return (time.perf_counter() - begun) / 20


def exponents(rows: list[dict[str, object]]) -> dict[str, float]:
    """Return the slope of log(core seconds) on log(participants), of all and of the last two."""
    found = {}
    for name in ("plan", "group_plan", "group", "group_again"):
        logs = np.log([[row["n_participants"], row[name]["core_seconds"]] for row in rows])
        found[name] = round(float(np.polyfit(*logs.T, 1)[0]), 2)
        found[f"{name}, last two"] = round(float(np.polyfit(*logs[-2:].T, 1)[0]), 2)
    return found


def main() -> None:
    """Measure all sizes."""
    made = argparse.ArgumentParser(description=__doc__)
    default = Path(tempfile.gettempdir()) / "brainlm-people"
    made.add_argument("--folder", type=Path, default=default, help="emptied at the start")
    made.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    given = made.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    bids, out = seed(given.folder)
    rows = []
    for n_people in given.sizes:
        rows.append(measure(given.folder, bids, out, n_people))
        print(json.dumps(rows[-1]), flush=True)
    found = {
        "n_stories": N_STORIES,
        "n_parcels": N_PARCELS,
        "rows": rows,
        "exponents": exponents(rows) if len(rows) > 1 else {},
        "fingerprint_seconds_of_a_large_image": round(of_large_image(given.folder), 4),
    }
    print(json.dumps(found["exponents"]))
    keep("people", found)
    shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
