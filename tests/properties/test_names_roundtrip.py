"""Output names parse back to what they were made of."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm.bidsio.names import Names, parse_entities, templates

LABELS = st.text(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12
)
SPECIAL = {
    "ext": st.sampled_from(["tsv", "json", "nii.gz", "tsv.gz", "nc", "svg"]),
    "run_id": st.from_regex(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{4}", fullmatch=True),
}


@st.composite
def outputs(draw):
    logical = draw(st.sampled_from(sorted(templates())))
    template = templates()[logical]
    fields = sorted(set(re.findall(r"\{(\w+)\}", template)))
    required = set(re.findall(r"\{(\w+)\}", re.sub(r"\[[^\]]*\]", "", template)))
    entities = {}
    for name in fields:
        if name in required or draw(st.booleans()):
            entities[name] = draw(SPECIAL.get(name, LABELS))
    return logical, entities


@settings(max_examples=200, deadline=None)
@given(outputs())
def test_parse_is_the_inverse_of_path(made):
    logical, entities = made
    names = Names("/out")
    path = names.path(logical, entities)
    assert names.parse(path) == (logical, entities)
    assert "__" not in path.name
    assert "[" not in str(path)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["ses", "task", "run", "space", "res", "desc"]), LABELS),
    LABELS,
)
def test_parse_entities_reads_what_was_joined(entities, participant):
    labels = {"sub": participant, **entities}
    name = "_".join(f"{key}-{value}" for key, value in labels.items()) + "_bold.nii.gz"
    parsed = parse_entities(f"somewhere/{name}")
    assert (parsed.entities, parsed.suffix, parsed.extension) == (labels, "bold", ".nii.gz")
