"""Figures on demand: the report's own drawings, in the sizes, colours and formats asked for."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from report_outputs import Fake
from richer_outputs import REGIONS, Richer

import bids_brainlm
from bids_brainlm import figures, plot_cli
from bids_brainlm.bidsio.names import Names
from bids_brainlm.errors import ConfigError, MissingInputError
from bids_brainlm.report import figures_brain, figures_encoding, figures_surface, remake, style
from bids_brainlm.report.content import Labels
from bids_brainlm.steps import reports

CALL = {"settings": {}, "command": "", "version": "0.1.0"}
EMBEDDINGS = ["--desc", "fakeEmbeddings"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Twelve anatomical parcels with two regions."""
    return Richer(tmp_path_factory.mktemp("richer")).write()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Six parcels that are no anatomical atlas."""
    return Fake(tmp_path_factory.mktemp("small")).write()


def drawn(out, *words):
    target = out.parent / "drawn.svg"
    target.unlink(missing_ok=True)
    code = plot_cli.main([str(out), *words, "-o", str(target)])
    return code, target.read_bytes() if target.exists() else b""


def check_all(out, files, listed, participant):
    """Draw every figure: SVG must be the bytes that the report has."""
    names = Names(out)
    same, bitmaps = set(), set()
    for one in listed:
        wanted = {"story": one.story, "desc": one.desc or None, "figure": one.figure}
        if participant:
            wanted["participant"] = participant
        kind = "participant_figure" if participant else "group_figure"
        path = names.relative(names.path(kind, {**wanted, "ext": "svg"}))
        if path not in files:
            assert path.replace(".svg", ".png") in files
            if one.figure in bitmaps:  # one of each kind is enough
                continue
            bitmaps.add(one.figure)
        made = figures.plot(out, one.figure, desc=one.desc or None, participant=participant)
        assert isinstance(made, Figure)
        if path in files:
            with style.drawing():
                assert style.svg(made) == files[path], one
            same.add(path)
    assert same == {path for path in files if path.endswith(".svg")}


@pytest.fixture
def no_brains(monkeypatch):
    """Leave brains out of the reports: they are slow, and PNG is not compared."""
    with monkeypatch.context() as patch:
        for module, names in (
            (figures_brain, ("slices", "glass")),
            (figures_surface, ("surface", "preferred", "regions")),
        ):
            for name in names:
                patch.setattr(module, name, lambda *_, **__: b"")
        yield patch


@pytest.mark.slow
def test_every_figure_of_the_group_is_as_in_the_report(out, no_brains):
    files = reports.group_report(out, **CALL)
    no_brains.undo()
    check_all(out, files, figures.list_figures(out), None)


@pytest.mark.thorough
def test_every_figure_of_a_few_parcels_is_as_in_the_report(small):
    check_all(small, reports.group_report(small, **CALL), figures.list_figures(small), None)


@pytest.mark.slow
def test_every_figure_of_a_participant_is_as_in_the_report(out, no_brains):
    files = reports.participant_report(out, "02", **CALL)
    no_brains.undo()
    check_all(out, files, figures.list_figures(out, participant="02"), "02")


def test_names_that_were_promised_are_there(out, small):
    group = {one.figure for path in (out, small) for one in figures.list_figures(path)}
    assert group >= {
        "layers", "regionlayers", "comparison", "paired", "heads", "preferredlayers",
        "preferredmap", "specialization", "specializationscree", "specializationlinks",
        "loadingsPC01", "isc", "iscmap", "map", "parcels", "regions", "unique",
    }  # fmt: skip
    person = {one.figure for one in figures.list_figures(out, participant="01")}
    assert person >= {"layers", "map", "words", "folds", "alphas"}


@pytest.mark.parametrize(("ending", "magic"), [("svg", b"<?xml"), ("pdf", b"%PDF"),
                                               ("png", b"\x89PNG")])
def test_formats_and_sizes(small, tmp_path, ending, magic, capsys):
    target = tmp_path / "new" / f"x.{ending}"
    words = [str(small), "layers", "--width", "4", "--height", "2.5", "--dpi", "100"]
    assert plot_cli.main([*words, "-o", str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    data = target.read_bytes()
    assert data.startswith(magic)
    if ending == "png":
        assert Image.open(io.BytesIO(data)).size == (400, 250)
    if ending == "svg":
        assert b'viewBox="0 0 288 180"' in data  # points
    if ending == "pdf":
        box = re.search(rb"/MediaBox \[ ?([\d. ]+)\]", data)
        assert [float(v) for v in box[1].split()] == [0, 0, 288, 180]
        assert b"CreationDate" not in data
    assert plot_cli.main([*words, "-o", str(target)]) == 0
    assert target.read_bytes() == data


def test_default_file_is_here(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plot_cli.main([str(small), "layers", "--format", "png"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["layers.png"]


def test_nothing_is_written_to_the_results(small):
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    figures.plot(small, "layers")
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*")} == before


def test_colours_and_limits_are_used(out):
    words = ["heads", "--desc", "fakeTransformations"]
    plain = drawn(out, *words)[1]
    assert drawn(out, *words, "--cmap", "PuOr")[1] not in (b"", plain)
    made = figures.plot(out, "heads", desc="fakeTransformations", limit=0.5, cmap="PuOr")
    mesh = made.axes[0].collections[0]
    assert (mesh.norm.vmin, mesh.norm.vmax, mesh.get_cmap().name) == (-0.5, 0.5, "PuOr")


@pytest.mark.parametrize("option", [["--cmap", "PuOr"], ["--limit", "0.1"]])
def test_looks_that_a_figure_has_not_are_refused(small, option, capsys):
    assert drawn(small, "layers", *option) == (64, b"")
    assert f"Leave {option[0]} out" in capsys.readouterr().err


def caught(monkeypatch, module, name):
    """Return what a drawing function is called with."""
    found = {}
    real = getattr(module, name)

    def draw(labels, index, values, *, label, limit):
        found.update(labels=labels, index=index, values=values, label=label, limit=limit)
        return real(labels, index, values, label=label, limit=limit)

    monkeypatch.setattr(module, name, draw)
    return found


@pytest.mark.parametrize("view", ["slices", "glass", "surface"])
def test_thresholds_leave_parcels_out(out, monkeypatch, view):
    module = figures_surface if view == "surface" else figures_brain
    found = caught(monkeypatch, module, view)
    mean = bids_brainlm.load_maps(out, "tea", "embeddings").sel(column="layer02")
    q = bids_brainlm.load_maps(out, "tea", "embeddings", "q").sel(column="layer02")
    shared = {"desc": "Embeddings", "column": 2, "view": view}
    figures.plot(out, "map", **shared)
    np.testing.assert_array_equal(found["values"], mean.values)
    figures.plot(out, "map", threshold="q", **shared)
    np.testing.assert_array_equal(found["values"], np.where(q < 0.05, mean, np.nan))
    figures.plot(out, "map", threshold=0.05, **shared)
    np.testing.assert_array_equal(found["values"], np.where(abs(mean) >= 0.05, mean, np.nan))
    assert np.isnan(found["values"]).any()
    assert np.isfinite(found["values"]).any()


def test_a_statistic_takes_its_own_q(out, monkeypatch):
    found = caught(monkeypatch, figures_brain, "glass")
    figures.plot(out, "map", stat="isc", view="glass", threshold="q")
    isc = bids_brainlm.load_ceilings(out, "tea")
    np.testing.assert_array_equal(found["values"], isc["isc"].where(isc["isc_q"] < 0.05))
    with pytest.raises(MissingInputError, match="no q-values"):
        figures.plot(out, "map", stat="splithalf", view="glass", threshold="q")


def test_a_map_of_all_views_is_one_figure(out):
    made = figures.plot(out, "map", desc="Embeddings", width=4)
    assert made.get_figwidth() == 4
    assert len(made.axes) >= 2
    with pytest.raises(ConfigError, match="made of"):
        figures.plot(out, "map", desc="Embeddings", height=3)


def test_regions_are_drawn_where_their_parcels_are(out, monkeypatch):
    found = caught(monkeypatch, figures_surface, "surface")
    whole = reports.group_stories(Names(out))[0].labels.image
    figures.plot(out, "map", desc="Embeddings", view="surface", regions=True)
    painted = figures_brain.paint(found["labels"], found["index"], np.array([10.0, 20.0]))
    for value, rows in zip((10, 20), REGIONS.values(), strict=True):
        np.testing.assert_array_equal(painted == value, np.isin(whole, np.array(rows) + 1))


def test_rois_leave_only_their_parcels(out, monkeypatch):
    found = caught(monkeypatch, figures_surface, "surface")
    story = reports.group_stories(Names(out))[0]
    figures.plot(out, "map", desc="Embeddings", view="surface", rois=["back"])
    rows = sorted(REGIONS["back"])
    assert found["index"] == tuple(np.array(rows) + 1)
    painted = figures_brain.paint(found["labels"], found["index"], np.array([10.0, 20.0]))
    for value, row in zip((10, 20), rows, strict=True):
        np.testing.assert_array_equal(painted == value, story.labels.image == row + 1)


def test_rois_of_figures_by_region(out, small):
    def words(made):
        return {t.get_text() for axes in made.axes for t in axes.get_xticklabels()}

    everything = words(figures.plot(out, "paired", regions=False))
    assert {"front", "back"} <= everything
    assert "front" not in words(figures.plot(out, "paired", rois=["back"]))
    with pytest.raises(ConfigError, match="Alice6 has LATL"):
        figures.plot(small, "layers", rois=["nowhere"])


def test_labels_that_count_rows_can_be_restricted(small):
    """An image may hold rows of the table in place of the atlas's numbers."""
    story = reports.group_stories(Names(small))[0]
    maps = {k: remake.replace(m, index=tuple(range(101, 107))) for k, m in story.maps.items()}
    image = np.array([0, 1, 2, 3, 4, 5, 6]).reshape(7, 1, 1)
    labels = Labels("x", "MNI", image, np.eye(4), {})
    kept = remake.restrict(remake.replace(story, maps=maps, labels=labels), ["RATL", "LIFG"])
    item = kept.maps["fakeEmbeddings", "mean"]
    painted = figures_brain.paint(kept.labels, item.index, np.array([10.0, 20.0]))
    assert painted.ravel().tolist() == [0, 0, 10, 0, 0, 0, 20]
    assert kept.scores["fakeEmbeddings", "r"].shape[1] == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["layrs"], 66, "Did you mean 'layers'?"),
        (["parcels"], 66, "--desc fakeMagnitudes"),
        (["parcels", "--desc", "nothing"], 66, "is not there for 'nothing'"),
        (["layers", "--story", "coffee"], 66, "Stories of the group: tea"),
        (["layers", "--participant-label", "99"], 66, "participant 99"),
        (["layers", "--regions"], 66, "--rois"),
        (["layers", "--cmap", "RdBlu"], 64, "RdBu"),
        (["layers", "--width", "0"], 64, "inches"),
        (["layers", "--limit", "-1"], 64, "above 0"),
        (["layers", "--stat", "q"], 64, "'map'"),
        (["map", *EMBEDDINGS], 66, "cannot be drawn on a brain"),
        (["map", *EMBEDDINGS, "--view", "upside"], 64, "surface"),
        (["map", *EMBEDDINGS, "--stat", "nostat"], 66, "cihigh"),
        (["layers", "--dpi", "3"], 64, "2400"),
        (["layers", "--format", "gif"], 64, "gif"),
        ([], 64, "--list"),
    ],
)
def test_errors_say_what_to_do(small, capsys, words, code, said):
    assert drawn(small, *words)[0] == code
    text = capsys.readouterr().err
    assert said in text
    assert "What to do:" in text


def test_columns_and_thresholds_are_checked(out):
    with pytest.raises(ConfigError, match="layer00, layer01"):
        figures.plot(out, "map", desc="Embeddings", column="99")
    with pytest.raises(ConfigError, match="expected q or a number"):
        figures.plot(out, "map", desc="Embeddings", threshold="few")


def test_a_file_says_its_format(small, tmp_path, capsys):
    assert plot_cli.main([str(small), "layers", "-o", str(tmp_path / "x.doc")]) == 64
    (tmp_path / "file").write_text("")
    assert plot_cli.main([str(small), "layers", "-o", str(tmp_path / "file" / "x.svg")]) == 74
    assert "cannot be written" in capsys.readouterr().err
    assert plot_cli.main(["--help"]) == 0


def test_list_can_be_given_back(small, capsys):
    assert plot_cli.main([str(small), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(figures.list_figures(small))
    for line in lines[:3]:
        assert drawn(small, *line.split())[0] == 0


def test_other_spellings(small, out):
    plain = drawn(small, "region-layers")[1]
    assert plain.startswith(b"<?xml")
    assert drawn(small, "layer-curves")[1] == plain


def test_reports_afterwards_are_reports(small):
    """The hook is gone when a figure was drawn, and when drawing one failed."""
    figures.plot(small, "layers", width=3)
    with pytest.raises(MissingInputError):
        figures.plot(small, "map")
    assert figures_encoding.p_values(np.array([0.5, 0.1]), "p").startswith(b"<?xml")


def test_notebooks_show_it(small):
    made = bids_brainlm.plot(small, "layers")
    assert made._repr_png_().startswith(b"\x89PNG")
