"""Figures: bytes that are valid, stable and say what they should."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bids_brainlm.report import figures_brain, figures_encoding, figures_timing, style
from bids_brainlm.report.content import Labels
from bids_brainlm.report.figures_encoding import Curve, CurvePanel, Dots


def is_svg(data: bytes) -> bool:
    assert b"<dc:date>" not in data
    return ET.fromstring(data).tag.endswith("svg")


def timing(counts=(0, 1, 3, 0, 2)):
    return figures_timing.words_per_tr(
        np.array(counts), tr=1.5, start=12.0, first_word=13.6, last_word=19.0, audio_onset=12.5
    )


def folds():
    parts = [{"Train": [[6, 9]], "Test": [[1, 3]]}, {"Train": [[1, 4]], "Test": [[7, 9]]}]
    return figures_timing.fold_map(parts, 12, (1, 2))


def alphas():
    return figures_encoding.alphas([0.1, 1.0, 30.0], {"layer00": [1, 2, 0], "layer01": [0, 0, 0]})


def one_alpha_column():
    return figures_encoding.alphas([0.1, 1.0], {"value": [1, 2]})


def curves():
    values = np.array([0.1, np.nan, 0.3])
    panel = CurvePanel(
        "a", "r",
        (Curve("x $ y", values, values - 0.1, values + 0.1), Curve("b", values, None, None, True)),
        0.2, "reference",
    )
    return figures_encoding.layer_curves(("layer00", "layer01", "layer02"), [panel, panel])


def heads():
    return figures_encoding.heads(np.array([[0.1, np.nan], [0.0, -0.2]]))


def dots():
    values = np.array([0.1, np.nan])
    series = [
        Dots("a", values, values - 0.1, values + 0.1, np.array([True, False]), np.zeros((2, 3))),
        Dots("b", values),
    ]
    return figures_encoding.parcel_dots(["a_$b$", "n" * 90], series, xlabel="r")


def quantiles():
    return figures_encoding.p_values(np.array([0.01, 0.5, np.nan, 1.0]), "p")


@pytest.mark.parametrize(
    "draw", [timing, folds, alphas, one_alpha_column, curves, heads, dots, quantiles]
)
def test_figures_are_valid_and_stable(draw):
    first = draw()
    assert is_svg(first)
    assert draw() == first


def test_all_silent_or_one_word_can_be_drawn():
    assert is_svg(timing((0, 0, 0)))
    assert is_svg(timing((1,)))


def test_drawing_leaves_global_settings_alone():
    import matplotlib as mpl

    before = mpl.rcParams["font.size"], mpl.rcParams["svg.hashsalt"]
    timing()
    assert (mpl.rcParams["font.size"], mpl.rcParams["svg.hashsalt"]) == before


def test_users_style_does_not_change_bytes():
    import matplotlib as mpl

    plain = timing()
    with mpl.rc_context({"font.size": 31, "axes.grid": True, "lines.linewidth": 9}):
        assert timing() == plain


@pytest.mark.parametrize("numbers", [(1, 2, 3), (10, 20, 30)])
def test_paint_puts_values_on_parcels(numbers):
    image = np.array([0, *numbers]).reshape(2, 2, 1)
    labels = Labels("x", "MNI152NLin2009cAsym", image, np.eye(4), {})
    painted = figures_brain.paint(labels, numbers, np.array([0.5, np.nan, -1.0]))
    assert painted.ravel().tolist() == [0, 0.5, 0, -1.0]


def test_paint_understands_rows_in_place_of_parcel_numbers():
    labels = Labels("x", "MNI", np.array([0, 1, 2]).reshape(3, 1, 1), np.eye(4), {})
    painted = figures_brain.paint(labels, (7, 9), np.array([0.5, -1.0]))
    assert painted.ravel().tolist() == [0, 0.5, -1.0]


def test_only_real_atlases_are_anatomical():
    big = np.ones((11, 10, 10))
    assert Labels("x", "MNI152NLin6Asym", big, np.eye(4), {}).is_anatomical
    assert not Labels("x", "T1w", big, np.eye(4), {}).is_anatomical
    assert not Labels("x", "MNI152NLin6Asym", big[:5], np.eye(4), {}).is_anatomical


def test_short_column():
    assert style.short_column("layer07") == "7"
    assert style.short_column("value") == "value"


def test_curves_stand_at_their_own_layers():
    from matplotlib.figure import Figure

    layers = ("layer01", "layer02", "layer03")
    axes = Figure().subplots()
    panel = CurvePanel("t", "r", (figures_encoding.Curve("a", np.arange(3.0), layers=layers),))
    figures_encoding._curve_panel(axes, panel, {}, ["a"], ("layer00", *layers))
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3]
