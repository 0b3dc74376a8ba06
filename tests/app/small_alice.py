"""A small copy of the Alice dataset that tests may spoil, and calls that take a second."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

PARTICIPANTS = ("18", "22", "23")
SPACE = "MNI152NLin2009cAsym"
FAST = (
    "--model", "random:tiny-bert", "--features", "magnitudes", "--n-iter", "2",
    "--alphas", "1", "100", "--n-permutations", "100", "--n-bootstraps", "100",
    "--context-trs", "0", "--nprocs", "1", "--cv", "3", "--inner-cv", "2", "--gap", "4",
    "--ladder", "none",
)
STORY_SECONDS = 220.0  # from -20 s: 100 of the run's 362 volumes


def copy(alice: Path, to: Path, participants: tuple[str, ...] = PARTICIPANTS) -> Path:
    """Copy some participants; files are plain copies, so that tests may change them."""
    def wanted(folder: str, names: list[str]) -> set[str]:
        return {n for n in names if n.startswith("sub-") and n[4:6] not in participants}

    shutil.copytree(alice, to, ignore=wanted)
    for path in to.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in to.glob("sub-*/func/*_events.tsv"):
        path.write_text(path.read_text("utf-8").replace("763.6", f"{STORY_SECONDS:g}"), "utf-8")
    lines = (to / "participants.tsv").read_text("utf-8").splitlines()
    kept = [line for line in lines[1:] if line.split("\t")[0][4:] in participants]
    (to / "participants.tsv").write_text("\n".join([lines[0], *kept]) + "\n", "utf-8")
    return to


def func(bids: Path, participant: str) -> Path:
    return bids / "derivatives" / "fmriprep" / f"sub-{participant}" / "func"


def bold(bids: Path, participant: str) -> Path:
    return func(bids, participant) / (
        f"sub-{participant}_task-alice_space-{SPACE}_desc-preproc_bold.nii.gz"
    )


def confounds(bids: Path, participant: str) -> Path:
    return func(bids, participant) / f"sub-{participant}_task-alice_desc-confounds_timeseries.tsv"


def events(bids: Path, participant: str) -> Path:
    return bids / f"sub-{participant}" / "func" / f"sub-{participant}_task-alice_events.tsv"


def atlas(bids: Path) -> Path:
    return bids / "derivatives" / "atlas" / f"tpl-{SPACE}_atlas-Alice6_dseg.nii.gz"


def arguments(bids: Path, out: Path, *more: str, level: str = "participant") -> list[str]:
    """Return a fast call; later flags of ``more`` win.

    The atlas is given relative to the working directory, since pages show the command.
    """
    given = [] if level == "group" else ["--atlas", os.path.relpath(atlas(bids))]
    return [str(bids), str(out), level, *given, *FAST, *more]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bids_brainlm", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(),
    )


def tree(folder: Path, *, logs: bool = False) -> dict[str, str]:
    """Return the sha256 of every file by its path; ``logs/`` only if wanted."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (logs or path.relative_to(folder).parts[0] != "logs")
    }


def stamps(folder: Path) -> dict[str, int]:
    """Return the time of change of every file outside ``logs/``."""
    return {name: (folder / name).stat().st_mtime_ns for name in tree(folder)}


def leftovers(folder: Path) -> list[str]:
    return [str(p) for p in folder.rglob("*") if p.name.startswith(".tmp")]
