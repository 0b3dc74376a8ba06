"""Random commands, kills, damage and reruns on a small study for a long time; then look.

    python -m benchmarks.soak --minutes 60 --folder FOLDER --seed 1

Makes a simulated study (three participants, two stories) and, undisturbed, a reference. Then
random commands run on one output folder: levels, subsets, other settings, two at once, Dask
workers, a damaged or deleted file before. Many are killed, at a random time or at a random
operation on files. Every code that comes back must be one that the contract allows for it.
Now and then, and at the end, one participant and one group command must end in the reference
byte by byte, with nothing left over; at the end the BIDS validator looks at the tree as well.
Prints one line a command, and a summary as JSON (also FOLDER/summary.json); leaves with 1 when
anything was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bids_brainlm import cli
from bids_brainlm.bidsio import write

PEOPLE = ("01", "02", "03")
STORIES = ("rabbithole", "goldenkey")
SIMULATED = (
    "--participants", *PEOPLE, "--stories", *STORIES, "--atlas", "blocks:8",
    "--run-seconds", "120", "--voxel-size", "14", "--model", "random:tiny-bert",
    "--context-trs", "0",
)  # fmt: skip
RANDOM = ("--n-permutations", "100", "--n-bootstraps", "100")
FITTED = (
    "--model", "random:tiny-bert", "--features", "embeddings", "magnitudes", "position",
    "--layers", "1", "--ladder", "asked", "--context-trs", "0", "--n-iter", "2",
    "--alphas", "1", "100", "--cv", "3", "--inner-cv", "2", "--gap", "4", "--trim", "2", "2",
    "--nprocs", "1", "--offline", *RANDOM,
)  # fmt: skip
HEAVY = ("torch", "transformers", "h5netcdf", "xarray", "nibabel", "matplotlib.figure", "jinja2")
INTERRUPTED, OTHER_SETTINGS, KILLED = 130, 73, -signal.SIGKILL


@dataclass
class Study:
    """Where things lie, and what happened so far."""

    folder: Path
    moments: random.Random
    counts: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    n_operations: dict[str, int] = field(default_factory=dict)

    @property
    def bids(self) -> Path:
        """The simulated dataset."""
        return self.folder / "sim"

    @property
    def out(self) -> Path:
        """The output folder that suffers."""
        return self.folder / "out"

    def arguments(self, level: str, *more: str, out: Path | None = None) -> list[str]:
        """Return a call; all of it decides the bytes of the pages, so it never varies."""
        atlas = os.path.relpath(next((self.bids / "derivatives" / "atlas").glob("*_dseg.nii.gz")))
        given = RANDOM if level == "group" else ("--atlas", atlas, *FITTED)
        return [str(self.bids), str(out or self.out), level, *given, *more]


def tree(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file outside ``logs/``."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "logs"
    }


# --- processes ----------------------------------------------------------------------------------


def at_operations(do: Callable[[], None]) -> None:
    """Call ``do`` in the midst of each operation on files of this process."""
    whole, sync, rename = write._write, os.fsync, os.replace

    def half(path: Path, data: bytes) -> None:
        path.write_bytes(data[: len(data) // 2])
        do()
        whole(path, data)

    def synced(fd: int) -> None:
        do()
        sync(fd)

    def renamed(old: Path, new: Path) -> None:
        do()
        rename(old, new)

    write._write, os.fsync, os.replace = half, synced, renamed


def fork(arguments: list[str], log: Path, prepare: Callable[[], None] | None = None) -> int:
    """Run the app in a copy of this process, which has everything imported; return its id."""
    child = os.fork()
    if child:
        return child
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    code = 1
    try:
        if prepare is not None:
            prepare()
        code = cli.main(arguments)
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait; return the exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def alive_after(child: int, seconds: float) -> bool:
    """Wait some time, or until the process has ended; tell whether it lives."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        time.sleep(0.02)
    return True


def counted(study: Study, name: str, arguments: list[str]) -> int:
    """Run undisturbed, and note how long it takes and how many operations on files it needs."""
    reading, writing = os.pipe()
    begun = time.monotonic()
    note = lambda: at_operations(lambda: os.write(writing, b"."))  # noqa: E731
    child = fork(arguments, study.folder / "log.txt", note)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        study.n_operations[name] = len(stream.read())
    code = ended(child)
    study.seconds[name] = time.monotonic() - begun
    return code


def die_at(number: int) -> None:
    """Kill this process at the n-th operation on files."""
    left = [number]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    at_operations(count)


# --- what happens -------------------------------------------------------------------------------


def command(study: Study) -> tuple[str, list[str], set[int]]:
    """Draw a command: its name, its arguments and the codes that are right for it."""
    some = study.moments.sample(PEOPLE, study.moments.randint(1, 2))
    kinds: list[tuple[int, str, list[str], set[int]]] = [
        (6, "participant", study.arguments("participant"), {0}),
        (6, "participant subset",
         study.arguments("participant", "--participant-label", *some), {0}),
        (2, "participant story",
         study.arguments("participant", "--task-label", study.moments.choice(STORIES)),
         {0, 65, 74}),  # a page shows all stories, and one of another story may be damaged
        (1, "stimulus", study.arguments("stimulus"), {0}),
        (3, "overwrite", study.arguments("participant", "--overwrite"), {0}),
        (2, "other settings", study.arguments("participant", "--gap", "6"), {0, OTHER_SETTINGS}),
        (1, "other settings, overwrite",
         study.arguments("participant", "--gap", "6", "--overwrite",
                         "--participant-label", *some), {0}),
        (2, "continue", study.arguments("participant", "--on-error", "continue"), {0}),
        (2, "reports only", study.arguments("participant", "--reports-only"), {0, 18, 65, 74}),
        (2, "group reports only", study.arguments("group", "--reports-only"),
         {0, 18, 32, 65, 66, 74}),
        (1, "threads", study.arguments("participant", "--nprocs", "2", "--mem-gb", "3"), {0}),
        (1, "dry run", study.arguments("participant", "--dry-run"), {0, OTHER_SETTINGS}),
        # A group needs what participants made; results of unlike settings are not pooled.
        (6, "group", study.arguments("group"), {0, 18, 32, 65, 66, OTHER_SETTINGS}),
        (3, "group overwrite", study.arguments("group", "--overwrite"), {0, 18, 32, 65, 66}),
    ]  # fmt: skip
    weights = [weight for weight, *_ in kinds]
    _, name, arguments, codes = study.moments.choices(kinds, weights)[0]
    if "participant" in arguments and "--overwrite" not in arguments:
        codes = codes | {OTHER_SETTINGS}  # an earlier command may have had other settings
    return name, arguments, codes


def damage(study: Study) -> str:
    """Spoil or delete a file of an earlier result."""
    files = sorted(tree(study.out)) if study.out.exists() else []
    if not files:
        return "nothing"
    name = study.moments.choice(files)
    path, kind = study.out / name, study.moments.choice(["cut", "flip", "delete", "folder"])
    data = bytearray(path.read_bytes())
    if kind == "cut":
        path.write_bytes(data[: study.moments.randrange(len(data) + 1)])
    elif kind == "flip" and data:
        data[study.moments.randrange(len(data))] ^= 1 << study.moments.randrange(8)
        path.write_bytes(data)
    elif kind == "folder" and path.parent != study.out:
        shutil.rmtree(path.parent)
    else:
        path.unlink()
    return f"{kind} {name}"


def disturbed(study: Study, name: str, arguments: list[str], codes: set[int]) -> tuple[str, int]:
    """Run a command and maybe kill or end it; return what was done and the code."""
    kind = "group" if "group" in name else "participant"
    how = study.moments.choices(["leave", "time", "operation", "term"], [4, 3, 3, 1])[0]
    log = study.folder / "log.txt"
    if how == "operation":
        # Most runs have little to do: early operations are drawn as often as late ones by size.
        number = int(study.n_operations[kind] ** study.moments.random())
        child = fork(arguments, log, lambda: die_at(number))
        codes.add(KILLED)
    else:
        child = fork(arguments, log)
    if how in ("time", "term"):
        # For the same reason half of the times fall into the first tenth of a whole run.
        share = study.moments.choice([0.1, 1.0]) * study.moments.uniform(0.02, 1)
        if alive_after(child, share * study.seconds[kind]):
            os.kill(child, signal.SIGKILL if how == "time" else signal.SIGTERM)
        codes |= {KILLED} if how == "time" else {INTERRUPTED, -signal.SIGTERM}
    return how, ended(child)


def two_at_once(study: Study) -> tuple[str, int]:
    """Run two participant commands at once; return the worse code."""
    log = study.folder / "log.txt"
    some = study.moments.sample(PEOPLE, 2)
    children = [
        fork(study.arguments("participant", "--overwrite"), log),
        fork(study.arguments("participant", "--overwrite", "--participant-label", *some), log),
    ]
    return "leave", max(map(ended, children), key=abs)


def with_dask(study: Study) -> tuple[str, int]:
    """Run with two worker processes of Dask, in a process of its own."""
    more = ("--overwrite", "--executor", "dask", "--nprocs", "2", "--mem-gb", "6")
    given = [sys.executable, "-m", "bids_brainlm", *study.arguments("participant", *more)]
    with (study.folder / "log.txt").open("ab") as log:
        return "leave", subprocess.run(given, stdout=log, stderr=log, check=False).returncode


def settle(study: Study) -> None:
    """Two commands that nobody disturbs must end in the reference."""
    log = study.folder / "log.txt"
    for level in ("participant", "group"):
        code = ended(fork(study.arguments(level, "--overwrite"), log))
        if code:
            study.wrong.append(f"settling: {level} ended with {code}")
    wanted, found = tree(study.folder / "reference"), tree(study.out)
    differing = sorted(n for n in {*wanted, *found} if wanted.get(n) != found.get(n))
    if differing:
        study.wrong.append(f"settled tree differs: {differing[:20]}")
        shutil.copytree(study.out, study.folder / f"differs-{len(study.wrong)}")
    left = [p.name for p in study.out.rglob("*") if p.name.startswith(".tmp")]
    if left:
        study.wrong.append(f"left over: {left[:5]}")
    study.counts["settled"] += 1


def validated(study: Study) -> str:
    """Let the BIDS validator look at the tree, where it is installed."""
    beside = Path(sys.executable).with_name("bids-validator-deno")
    program = str(beside) if beside.is_file() else shutil.which("bids-validator-deno")
    if program is None:
        return "not run: bids-validator-deno is not installed"
    done = subprocess.run(
        [program, str(study.out), "--format", "json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    errors = sorted({i["code"] for i in issues if i["severity"] == "error"})
    if errors or done.returncode:
        study.wrong.append(f"validator: {errors}, code {done.returncode}")
    return f"{len(errors)} errors"


def prepare(study: Study) -> None:
    """Simulate the study and make the reference."""
    for name in HEAVY:
        importlib.import_module(name)
    shutil.rmtree(study.folder, ignore_errors=True)
    study.folder.mkdir(parents=True)
    os.chdir(study.folder)
    made = [sys.executable, "-m", "bids_brainlm.simulate.cli", str(study.bids), *SIMULATED]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for level in ("participant", "group"):  # under the name that later runs have
        code = counted(study, level, study.arguments(level))
        if code:
            raise SystemExit(f"the reference ended with {code}, see {study.folder / 'log.txt'}")
    study.out.rename(study.folder / "reference")


def step(study: Study, number: int) -> None:
    """Do one thing, and note what is wrong with it."""
    begun = time.monotonic()
    spoiled = damage(study) if study.moments.random() < 0.5 else ""
    what = study.moments.random()
    if what < 0.05:
        (how, code), name, codes = two_at_once(study), "two at once", {0}
    elif what < 0.07:
        (how, code), name, codes = with_dask(study), "dask", {0}
    else:
        name, arguments, codes = command(study)
        how, code = disturbed(study, name, arguments, codes)
    study.counts[name] += 1
    study.counts["damaged"] += bool(spoiled)
    study.counts["killed"] += code == KILLED
    study.counts["interrupted"] += code in (INTERRUPTED, -signal.SIGTERM)
    line = f"{number} {name} [{how}] after {spoiled or 'no damage'}: {code}"
    if code not in codes:
        study.wrong.append(line)
        shutil.copy(study.folder / "log.txt", study.folder / f"log-{number}.txt")
    print(f"{line}, {time.monotonic() - begun:.1f} s", flush=True)


def main() -> int:
    """Soak as long as asked for; return 1 when anything was wrong."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--minutes", type=float, default=60.0)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--settle-every", type=int, default=12, metavar="COMMANDS")
    default = Path(tempfile.gettempdir()) / "brainlm-soak"
    made.add_argument("--folder", type=Path, default=default, help="emptied at the start")
    given = made.parse_args()
    study = Study(given.folder.resolve(), random.Random(given.seed))
    prepare(study)
    begun, number = time.monotonic(), 0
    while time.monotonic() - begun < 60 * given.minutes:
        number += 1
        step(study, number)
        if number % given.settle_every == 0:
            settle(study)
            if study.moments.random() < 0.5:
                shutil.rmtree(study.out)
    settle(study)
    summary = {
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "seed": given.seed,
        "commands": number,
        "counts": dict(sorted(study.counts.items())),
        "n_files": len(tree(study.out)),
        "validator": validated(study),
        "wrong": study.wrong,
    }
    text = json.dumps(summary, indent=1)
    (study.folder / "summary.json").write_text(text + "\n", "utf-8")
    print(text)
    return bool(study.wrong)


if __name__ == "__main__":
    sys.exit(main())
