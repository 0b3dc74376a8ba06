"""Fixtures for whole runs of the app on a small copy of Alice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import small_alice

from bids_brainlm import cli


@pytest.fixture
def small(tmp_path: Path, alice: Path) -> Path:
    """Return a copy of three participants that a test may spoil."""
    return small_alice.copy(alice, tmp_path / "bids")


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory, alice: Path) -> tuple[Path, Path]:
    """Return a small dataset and what an undisturbed participant run makes of it."""
    folder = tmp_path_factory.mktemp("good")
    bids = small_alice.copy(alice, folder / "bids")
    assert cli.main(small_alice.arguments(bids, folder / "out")) == 0
    return bids, folder / "out"


@pytest.fixture
def done(good: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Return a copy of `good` that a test may spoil."""
    shutil.copytree(good[0], tmp_path / "bids")
    shutil.copytree(good[1], tmp_path / "out")
    return tmp_path / "bids", tmp_path / "out"
