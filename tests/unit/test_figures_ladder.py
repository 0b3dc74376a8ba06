"""The figure of control ladders."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bids_brainlm.report import figures_ladder
from bids_brainlm.report.figures_ladder import Panel

RUNGS = ("position", "word rate", "trained model")


def panel(gain=(0.01, -0.02, np.nan), *, significant=True, better=True):
    gain = np.array(gain)
    flags = np.full(3, significant)
    ends = (gain - 0.01, gain + 0.01)
    return Panel("a $ b_$", np.nancumsum(gain), gain, *ends, flags, flags & better)


@pytest.mark.parametrize("n_panels", [1, 4, 9])
def test_figures_are_valid_and_stable(n_panels):
    panels = [panel(significant=k % 2 == 0) for k in range(n_panels)]
    first = figures_ladder.ladder(panels, RUNGS)
    assert b"<dc:date>" not in first
    assert ET.fromstring(first).tag.endswith("svg")
    assert figures_ladder.ladder(panels, RUNGS) == first


def test_significance_and_values_change_the_picture():
    others = (panel(significant=False), panel(better=False), panel((0.3, 0.1, 0.0)))
    drawn = {figures_ladder.ladder([one], RUNGS) for one in (panel(), *others)}
    assert len(drawn) == 4


def test_empty_panels_are_drawn():
    nothing = np.full(3, np.nan)
    empty = Panel("none", nothing, nothing, nothing, nothing, *np.zeros((2, 3), bool))
    assert ET.fromstring(figures_ladder.ladder([empty, panel()], RUNGS)).tag.endswith("svg")
