"""One word per concept, in every public signature."""

from __future__ import annotations

import pytest
import yaml
from source_tree import FILES, REPOSITORY, parameters, public_functions, short

GLOSSARY = yaml.safe_load((REPOSITORY / "docs" / "reference" / "glossary.yml").read_text("utf-8"))
BANNED = {banned: good for good, entry in GLOSSARY.items() for banned in entry["not"]}


def test_the_glossary_is_well_formed():
    for word, entry in GLOSSARY.items():
        assert set(entry) == {"means", "not"}, word
        assert entry["means"]
        assert all(isinstance(banned, str) for banned in entry["not"]), word
    assert not set(BANNED) & set(GLOSSARY)


@pytest.mark.parametrize("path", FILES, ids=short)
def test_public_signatures_use_the_glossary(path):
    wrong = [
        f"{name}({parameter}): say {BANNED[parameter.lower()]}"
        for name, node in public_functions(path)
        for parameter in parameters(node)
        if parameter.lower() in BANNED
    ]
    assert wrong == []


def test_settings_use_the_glossary():
    from bids_brainlm import config

    assert [name for name in config.declared() if name in BANNED] == []
