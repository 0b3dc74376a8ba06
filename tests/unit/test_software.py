"""Sidecars and pages name the versions of what numbers come from."""

from importlib import metadata

from bids_brainlm import __version__, software
from bids_brainlm.report.common import versions_of


def test_every_step_names_what_it_computes_with():
    assert software.versions("group") == {
        "bids_brainlm": __version__,
        "numpy": metadata.version("numpy"),
        "scipy": metadata.version("scipy"),
    }
    assert software.versions("features")["torch"] == metadata.version("torch")
    assert "spacy" in software.versions("linguistic")


def test_a_page_shows_all_versions_that_took_part():
    metas = [
        {"SoftwareVersions": {"bids_brainlm": "0.0.9", "numpy": "2.3.1"}},
        {"SoftwareVersions": {"bids_brainlm": "0.1.0", "numpy": "2.4.6", "torch": "2.13.0"}},
        {},
    ]
    shown = {"bids_brainlm": "0.1.0", "numpy": "2.3.1, 2.4.6", "torch": "2.13.0"}
    assert versions_of(metas, "0.1.0") == shown
