"""Figures of regions, heads and components: valid, stable, and they show what they are given."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from bids_brainlm.report import (
    figures_comparison,
    figures_correspondence,
    figures_heat,
    figures_regions,
    figures_specialization,
    figures_surface,
)
from bids_brainlm.report.content import Labels

SMALL, LARGE = (3, 2, 6), (22, 48, 21)  # regions, layers, heads in a layer
NAMES = ["L PostTemp", "R_a$b$", "7Networks_LH_SalVentAttn_FrOperIns_12", "IFG"]


def is_svg(data: bytes) -> bool:
    assert b"<dc:date>" not in data
    return ET.fromstring(data).tag.endswith("svg")


def numbers(*shape, holes=True):
    values = np.random.default_rng(len(shape) + sum(shape)).normal(0.02, 0.05, shape)
    if holes:
        values.flat[1] = np.nan
    return values


def names(n):
    return [f"{NAMES[k % len(NAMES)]}{k}" for k in range(n)]


def interval(*shape):
    mean = numbers(*shape)
    return mean, mean - 0.02, mean + 0.03


def q_like(values):
    return np.where(np.abs(values) > 0.08, 0.01, np.where(np.isfinite(values), 0.5, np.nan))


def head_layers(n_layers, n_each):
    return np.repeat(np.arange(1, n_layers + 1), n_each).tolist()


def curves(n_regions, n_layers, n_each):
    layers = {"e": range(n_layers + 1), "t": range(1, n_layers + 1)}
    parts = {k: interval(n_regions, len(v)) for k, v in layers.items()}
    return figures_regions.layer_curves(
        parts, layers, names(n_regions), ["#123456"] * n_regions, ylabel="r"
    )


def partial(n_regions, n_layers, n_each):
    layers = {"e given t": range(1, n_layers + 1), "t given e": range(1, n_layers + 1)}
    return figures_regions.partial({k: interval(n_layers) for k in layers}, layers)


def head_matrix(n_regions, n_layers, n_each):
    values = numbers(n_regions, n_layers * n_each)
    return figures_regions.head_matrix(
        values, q_like(values), names(n_regions), head_layers(n_layers, n_each), label="r"
    )


def single_features(n_regions, n_layers, n_each):
    values, low, high = interval(n_layers, n_regions)
    values[-1] = np.nan
    return figures_regions.single_features(
        values, low, high, q_like(values), names(n_layers), names(n_regions)
    )


def comparison_bridges(n_regions, n_layers, n_each):
    found = [(0, 0, 1), (1, 1, 0), (n_regions - 1, 0, 2)]
    return figures_comparison.comparison(
        ["a", "b", "c"], names(n_regions), *interval(3, n_regions), found, ylabel="r"
    )


def comparison_rows(n_regions, n_layers, n_each):
    pairs = [(0, i, j) for i in range(4) for j in range(i + 1, 4)]
    return figures_comparison.comparison(
        list("abcd"), names(n_regions), *interval(4, n_regions), pairs, ylabel="r"
    )


def paired(n_regions, n_layers, n_each):
    values = numbers(n_layers, n_regions)
    pairs = [("a" * (k + 1), "b") for k in range(n_layers)]
    return figures_comparison.paired(pairs, names(n_regions), values, q_like(values))


def matrix(n_regions, n_layers, n_each):
    rho = numbers(n_layers, n_regions)
    return figures_correspondence.matrix(
        rho, q_like(rho), names(n_layers), names(n_regions),
        label_marginal=interval(n_layers), region_marginal=interval(n_regions),
    )


def scatters(n_regions, n_layers, n_each):
    layers = head_layers(n_layers, n_each)
    one = figures_correspondence.Example(
        "a$b$", "x" * 50, numbers(len(layers)), numbers(len(layers), 1)[:, 0], -0.2, np.nan
    )
    return figures_correspondence.scatters([one] * min(n_regions, 8), layers)


def best_heads(n_regions, n_layers, n_each):
    return figures_correspondence.best_heads(
        names(n_layers), ["L01H02"] * n_layers, np.full(n_layers, 0.6),
        numbers(n_layers, n_regions), names(n_regions),
    )


def scree(n_regions, n_layers, n_each):
    share = np.linspace(0.5, 0, n_layers)
    return figures_specialization.scree(share, np.full(n_layers, 0.1), np.full(n_layers, 0.05))


def scatter(n_regions, n_layers, n_each):
    layers = head_layers(n_layers, n_each)
    distances = np.exp(numbers(len(layers)))
    distances[2] = 0.0
    return figures_specialization.scatter(
        numbers(len(layers), 3), layers, distances, names(len(layers)), [0, 1, 2, 3], (0, 2)
    )


def associations(n_regions, n_layers, n_each):
    rho = numbers(n_layers, n_regions)
    return figures_specialization.associations(rho, q_like(rho), names(n_regions))


FIGURES = [
    curves, partial, head_matrix, single_features, comparison_bridges, comparison_rows, paired,
    matrix, scatters, best_heads, scree, scatter, associations,
]


@pytest.mark.parametrize("draw", FIGURES)
def test_figures_are_valid_and_stable(draw):
    first = draw(*SMALL)
    assert is_svg(first)
    assert draw(*SMALL) == first


@pytest.mark.parametrize("draw", FIGURES)
def test_figures_of_many_regions_layers_and_heads(draw):
    assert is_svg(draw(*LARGE))


def test_figures_without_any_value_can_be_drawn():
    empty = np.full((3, 4), np.nan)
    regions = names(4)
    assert is_svg(figures_comparison.paired([("a", "b")] * 3, regions, empty, empty))
    assert is_svg(figures_regions.head_matrix(empty, None, names(3), [1, 1, 2, 2], label="r"))
    layers = {"e": [1, 2, 3, 4]}
    parts = {"e": (empty, empty, empty)}
    assert is_svg(figures_regions.layer_curves(parts, layers, names(3), ylabel="r"))
    assert is_svg(
        figures_comparison.comparison(list("abc"), regions, empty, empty, empty, ylabel="r")
    )
    assert is_svg(
        figures_correspondence.matrix(
            empty, empty, names(3), regions,
            label_marginal=(empty[:, 0],) * 3, region_marginal=(empty[0],) * 3,
        )
    )
    assert is_svg(figures_regions.single_features(empty, empty, empty, empty, names(3), regions))


def test_marks_stand_on_small_q_and_tell_the_sign():
    values = np.array([[0.5, -0.5], [0.1, np.nan]])
    q = np.array([[0.05, 0.01], [0.051, 0.01]])
    axes = Figure().subplots()
    figures_heat.draw_heat(axes, values, q, scale=(-1, 1))
    marks = {(int(m.get_xdata()[0]), int(m.get_ydata()[0])): m for m in axes.lines}
    assert set(marks) == {(0, 0), (1, 0)}
    assert marks[1, 0].get_markerfacecolor() == "none"
    assert marks[0, 0].get_markerfacecolor() != "none"


def test_key_explains_only_what_is_there():
    def entries(values, q):
        fig = Figure(layout="constrained")
        figures_heat.draw_key(fig, np.array(values), None if q is None else np.array(q))
        return [t.get_text() for legend in fig.legends for t in legend.get_texts()]

    assert entries([[0.1, -0.2]], [[0.9, np.nan]]) == []
    assert entries([[0.1, 0.2]], [[0.01, 0.9]]) == ["q ≤ 0.05"]
    assert entries([[0.1, -0.2]], [[0.01, 0.01]]) == ["q ≤ 0.05, above 0", "q ≤ 0.05, below 0"]
    assert entries([[np.nan, 0.2]], None) == ["no value"]


def test_layer_names_stand_over_their_heads():
    axes = Figure().subplots()
    figures_regions.layer_axis(axes, [3, 3, 4, 4, 4, 7])
    assert axes.get_xticks().tolist() == [0.5, 3.0, 5.0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["3", "4", "7"]
    assert [line.get_xdata()[0] for line in axes.lines] == [1.5, 4.5]


@pytest.mark.parametrize(("n_spaces", "n_regions"), [(2, 3), (5, 22), (7, 22), (3, 11), (90, 4)])
def test_tiers_hold_every_region_once(n_spaces, n_regions):
    tiers = figures_comparison._tiers(n_spaces, n_regions)
    assert [k for tier in tiers for k in tier] == list(range(n_regions))
    assert max(map(len, tiers)) == len(tiers[0])


def test_pair_rows_show_the_higher_space():
    axes = Figure().subplots()
    mean = np.array([[0.1, 0.4], [0.3, 0.2]])
    figures_comparison._pair_rows(axes, [(0, 1)], {0: [(0, 1)], 1: [(0, 1)]}, mean, range(2))
    inside = [m for m in axes.lines if m.get_transform() == axes.transData]
    shown = [(m.get_xdata()[0], m.get_marker()) for m in inside if m.get_marker() != "None"]
    markers = [figures_regions.space_look(k)[1] for k in (0, 1)]
    assert shown == [(0, markers[1]), (1, markers[0])]


@given(st.integers(0, 10_000), st.integers(1, 25))
@settings(max_examples=25, deadline=None)
def test_names_of_heads_cover_neither_points_nor_each_other(seed, n_names):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 250, (60, 2))
    box = np.array([0, 0, 250, 250])
    found = figures_specialization.free_places(
        points, points[:n_names], ["L01H01"] * n_names, box
    )
    half = np.array([4.6 * 6 / 2, 4.0])
    middles = [p + o for p, o in zip(points, found, strict=False) if o is not None]
    assert middles
    for k, middle in enumerate(middles):
        assert not (np.abs(points - middle) < half).all(axis=1).any()
        assert (middle - half >= box[:2]).all()
        assert (middle + half <= box[2:]).all()
        for other in middles[:k]:
            assert not (np.abs(other - middle) < 2 * half - 1e-9).all()


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 100.0), (2.2, 2.9), (0.3, 4000.0), (5.0, 6.0), (7.1, 7.3)]
)
def test_ticks_of_distances_are_inside_and_ascend(low, high):
    ticks = figures_specialization._log_ticks(low, high)
    assert len(ticks) >= 3
    assert min(ticks) >= low * 0.99
    assert max(ticks) <= high * 1.01
    assert (np.diff(ticks) > 0).all()


def test_short_names_keep_both_ends():
    assert figures_heat.short_name("a$b$") == r"a\$b\$"
    short = figures_heat.short_name("7Networks_LH_SalVentAttn_FrOperIns_12", 20)
    assert len(short) <= 20
    assert re.fullmatch(r"7Networks_…\w*Ins_12", short)


# Surfaces


def boxes() -> tuple[Labels, tuple[int, ...]]:
    """Return a head-sized box: parcel 5 is the left half, parcel 9 the right half's front."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-100, -130, -90)
    x, y, _ = np.indices((50, 60, 50))
    image = np.where(x * 4 - 100 < 0, 5, np.where(y * 4 - 130 > 0, 9, 0))
    return Labels("x", "MNI152NLin2009cAsym", image, affine, {}), (5, 9)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_vertices_take_the_parcel_they_lie_in():
    labels, index = boxes()
    assert (figures_surface.project(labels, index, "left") == 0).mean() > 0.95
    right = figures_surface.project(labels, index, "right")
    front = figures_surface.hemisphere("right").samples[2, :, 1] > 8
    back = figures_surface.hemisphere("right").samples[2, :, 1] < -8
    assert (right[front] == 1).mean() > 0.95
    assert (right[back] == 1).sum() == 0


def test_most_frequent_leaves_out_zeros():
    votes = np.array([[0, 3, 0, 2], [0, 4, 0, 3], [7, 4, 0, 2]])
    assert figures_surface._most_frequent(votes).tolist() == [7, 4, 0, 2]


def test_projection_agrees_with_the_surface_atlas(shared_data):
    import nibabel

    folder = shared_data / "templateflow" / "tpl-MNI152NLin2009cAsym"
    name = "tpl-MNI152NLin2009cAsym_res-02_atlas-Schaefer2018_desc-400Parcels7Networks_dseg"
    image = nibabel.load(folder / f"{name}.nii.gz")
    labels = Labels("x", "MNI152NLin2009cAsym", np.asarray(image.dataobj), image.affine, {})
    truth = np.loadtxt(shared_data / "atlases" / "schaefer_400_fsa5.csv").astype(int)
    index = tuple(range(1, 401))
    sides = [figures_surface.project(labels, index, side) for side in figures_surface.SIDES]
    found = np.concatenate(sides) + 1
    cortex = truth > 0
    assert (found[cortex] > 0).mean() > 0.97
    assert (found[~cortex] > 0).mean() < 0.05
    same_side = (found <= 200) == (truth <= 200)
    assert same_side[cortex & (found > 0)].mean() > 0.995
    assert (found == truth)[cortex & (found > 0)].mean() > 0.7


def test_triangles_take_a_parcel_of_their_corners():
    faces = np.array([[0, 1, 2], [3, 0, 1], [0, 3, 4]])
    parcels = figures_surface._face_parcels(np.array([4, 4, 6, 7, 8]), faces)
    assert parcels.tolist() == [4, 4, 4]


def test_surface_colours_left_and_right_and_leaves_gaps_grey():
    labels, index = boxes()
    data = figures_surface.surface(labels, index, np.array([1.0, np.nan]), label="r", limit=1.0)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data == figures_surface.surface(
        labels, index, np.array([1.0, np.nan]), label="r", limit=1.0
    )
    picture = pixels(data)[: int(1.5 * 200)]
    is_red = picture[..., 0] - picture[..., 2] > 40
    half = picture.shape[1] // 2
    assert is_red[:, :half].mean() > 0.2
    assert is_red[:, half:].mean() < 0.001


def test_front_is_left_from_the_left_and_right_from_the_right():
    mesh = figures_surface.hemisphere("left")
    front, top = mesh.places[:, 1].argmax(), mesh.places[:, 2].argmax()
    for from_left, end in ((True, np.argmin), (False, np.argmax)):
        flat, order = figures_surface._view(mesh, from_left=from_left)
        assert end(flat[:, 0]) == front
        assert flat[:, 1].argmax() == top
        near = mesh.places[mesh.faces[order[-1]], 0].mean()
        assert near == pytest.approx(
            mesh.places[:, 0].min() if from_left else mesh.places[:, 0].max(), abs=5
        )


def test_preferred_layers_have_the_colours_of_their_steps():
    import matplotlib as mpl

    labels, index = boxes()
    data = figures_surface.preferred(labels, index, np.array([1.0, 12.0]), range(1, 13))
    picture = pixels(data)[: int(1.5 * 200)]
    for place, layer in ((0.125, 0), (0.875, 11)):
        wanted = 255 * np.array(mpl.colormaps["viridis"](np.linspace(0, 1, 12))[layer][:3])
        column = int(place * picture.shape[1])
        area = picture[:, column - 150 : column + 150].reshape(-1, 3)
        assert (np.abs(area - wanted).max(axis=1) < 34).mean() > 0.05


def test_regions_can_be_drawn_with_gaps():
    labels, index = boxes()
    for members in (np.array([1.0, np.nan]), np.array([-1, 0])):
        data = figures_surface.regions(
            labels, index, members, ["A", "B" * 40], ["#0072B2", "#E69F00"]
        )
        assert Image.open(io.BytesIO(data)).size[0] == 1680
