"""Fixtures for whole runs of the app on a small copy of Alice."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_alice

from bids_brainlm import cli

SLURM = Path(__file__).parents[1] / "clusters" / "slurm.sh"


@pytest.fixture
def small(tmp_path: Path, alice: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of three participants that a test may spoil; work beside it."""
    monkeypatch.chdir(tmp_path)
    return small_alice.copy(alice, tmp_path / "bids")


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory, alice: Path) -> tuple[Path, Path]:
    """Return a small dataset and what an undisturbed participant run makes of it."""
    folder = tmp_path_factory.mktemp("good")
    bids = small_alice.copy(alice, folder / "bids")
    with contextlib.chdir(folder):
        assert cli.main(small_alice.arguments(bids, folder / "out")) == 0
    return bids, folder / "out"


@pytest.fixture
def made(good: tuple[Path, Path]) -> Path:
    """Return what an undisturbed run on `small` makes; not to be changed."""
    return good[1]


@pytest.fixture
def done(small: Path, made: Path) -> tuple[Path, Path]:
    """Return `small` and a copy of what an undisturbed run makes of it."""
    out = small.parent / "out"
    shutil.copytree(made, out)
    return small, out


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start a one-node Slurm, or skip with the reason."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "munge"))):
        pytest.skip("a test Slurm needs root and Debian's packages slurm-wlm and munge")
    if (
        shutil.which("squeue")
        and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0
    ):
        pytest.skip("a Slurm runs here already; this test starts its own")
    folder = tmp_path_factory.mktemp("slurm")
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    with (folder / "start.log").open("w") as log:
        begun = subprocess.run(
            [str(SLURM), "start", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
            env=environment,
            timeout=60,
        )
    if begun.returncode != 0:
        pytest.skip("Slurm does not start here: " + (folder / "start.log").read_text()[-300:])
    yield {"SLURM_CONF": str(folder / "slurm.conf"), "DASK_JOBQUEUE__SLURM__INTERFACE": "lo"}
    subprocess.run([str(SLURM), "stop", str(folder)], check=False, timeout=60)
