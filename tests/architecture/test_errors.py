"""Every error has a number, a next action, and a line in the reference."""

from __future__ import annotations

import pickle
import re

import pytest
from source_tree import REPOSITORY

from bids_brainlm import errors

CODES = {
    "DatasetError": 16, "AnalysisLevelError": 17, "SelectionError": 18,
    "PartialFailureError": 32, "ConfigError": 64, "DataError": 65, "TimingError": 65,
    "TranscriptError": 65, "NumericalError": 65, "MissingInputError": 66,
    "ModelUnavailableError": 66, "OutputError": 73, "ReadWriteError": 74,
}
ALL = sorted(
    (c for c in vars(errors).values()
     if isinstance(c, type) and issubclass(c, errors.BrainLMError)
     and c is not errors.BrainLMError),
    key=lambda c: c.__name__,
)


def test_the_family_is_complete():
    assert {c.__name__ for c in ALL} == set(CODES)


@pytest.mark.parametrize("kind", ALL, ids=lambda c: c.__name__)
def test_each_class_has_code_hint_and_reference(kind):
    assert kind.exit_code == CODES[kind.__name__]
    assert len(kind.hint) > 10
    assert kind.__doc__
    page = (REPOSITORY / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if f"`{kind.__name__}`" in line]
    assert len(rows) == 1
    assert rows[0].startswith(f"| {kind.exit_code} |")


@pytest.mark.parametrize("kind", ALL, ids=lambda c: c.__name__)
def test_errors_cross_processes_with_their_hint(kind):
    back = pickle.loads(pickle.dumps(kind("what", hint="do this")))
    assert type(back) is kind
    assert (back.message, back.hint, back.exit_code) == ("what", "do this", kind.exit_code)
    assert str(back) == "what\nWhat to do: do this"
    assert str(kind("what")).endswith(f"What to do: {kind.hint}")


def test_the_reference_lists_the_contract():
    page = (REPOSITORY / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
    listed = [int(n) for n in re.findall(r"^\| (\d+) \|", page, re.M)]
    assert listed == [0, 1, 16, 17, 18, 32, 64, 65, 66, 73, 74, 130]
