"""A whole participant run whose search goes through a device writes the same bytes."""

from __future__ import annotations

import sys

import pytest
import small_alice

from bids_brainlm import cli, devices

FITS = {"encoding", "heads", "ladder"}  # the steps that fit models of one story
CALL = ("--features", "embeddings", "heads", "--layers", "1", "--ladder", "auto",
        "--alphas", "1", "10", "100", "1000", "--n-iter", "6", "--participant-label", "18")


@pytest.mark.thorough
def test_a_device_changes_no_byte(alice, tmp_path, monkeypatch):
    """torch on the processor stands for the device; every step has to ask for it and to use it."""
    bids = small_alice.copy(alice, tmp_path / "bids")
    monkeypatch.chdir(tmp_path)
    assert cli.main(small_alice.arguments(bids, tmp_path / "host", *CALL)) == 0
    used: set[str] = set()

    class Device(devices.TorchScreening):
        """Notes for which step it worked."""

        def __init__(self, step: str) -> None:
            super().__init__("cpu")
            self.step = step

        def candidates(self, *given):
            used.add(self.step)
            return super().candidates(*given)

    monkeypatch.setattr(
        devices, "screening", lambda device: Device(sys._getframe(1).f_globals["NAME"])
    )
    assert cli.main(small_alice.arguments(bids, tmp_path / "device", *CALL)) == 0
    one, other = (small_alice.tree(tmp_path / name) for name in ("host", "device"))
    pages = {name for name in one if name.endswith(".html")}  # these show the command
    assert {n: s for n, s in one.items() if n not in pages} == {
        n: s for n, s in other.items() if n not in pages
    }
    assert used == FITS
