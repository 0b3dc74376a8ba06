"""Fixtures for whole runs of the app on a small copy of Alice."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
import small_alice

from bids_brainlm import cli


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
