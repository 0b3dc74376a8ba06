"""Every page in a real browser: whole, readable, working, at two widths, light and dark."""

from __future__ import annotations

import base64
import contextlib
import io
import shutil
from pathlib import Path

import browser
import numpy as np
import page_checks
import pytest
import small_alice
from PIL import Image
from report_outputs import Fake
from richer_outputs import REGIONS, Richer

from bids_brainlm import brain, cli, plot_cli
from bids_brainlm.bidsio import write
from bids_brainlm.presets import cli as presets
from bids_brainlm.steps import reports

pytestmark = pytest.mark.thorough

REPOSITORY = Path(__file__).resolve().parents[2]
CALL = {"settings": {"stats": {"fdr": 0.05}}, "command": "bids_brainlm data out group",
        "version": "0.1.0"}
DAMAGED = "22"


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> browser.Tab:
    """Return a tab of a browser, or skip with the reason."""
    if browser.program() is None:
        pytest.skip("no Chromium is installed; make chromium does it")
    with browser.started(tmp_path_factory.mktemp("profile")) as pipe:
        yield browser.Tab(pipe)


def _put(root: Path, files: dict[str, bytes | str]) -> None:
    for name, content in files.items():
        write.write_bytes(root / name, content if isinstance(content, bytes) else content.encode())


@pytest.fixture(scope="module")
def brains(tmp_path_factory) -> Path:
    """Return outputs with an anatomical atlas and regions of interest; numbers are invented."""
    root = Richer(tmp_path_factory.mktemp("brains")).write()
    brain.view(root).save(root / "view.html")
    return root


@pytest.fixture(scope="module")
def failed(alice, tmp_path_factory) -> Path:
    """Pages of a run in which the images of one participant were damaged."""
    folder = tmp_path_factory.mktemp("failed")
    bids, out = small_alice.copy(alice, folder / "bids"), folder / "out"
    image = small_alice.bold(bids, DAMAGED)
    image.write_bytes(image.read_bytes()[:5000])
    with contextlib.chdir(folder):
        assert cli.main(small_alice.arguments(bids, out, "--on-error", "continue")) != 0
        assert cli.main([str(bids), str(out), "group", "--n-permutations", "100",
                         "--n-bootstraps", "100"]) == 0
    return out


def _looked_at(tab: browser.Tab, page: Path, tmp_path: Path) -> None:
    """Do all checks of a page."""
    for width in page_checks.WIDTHS:
        for scheme in ("light", "dark"):
            page_checks.laid_out(tab, page, width, scheme)
    page_checks.works(tab, page)
    page_checks.prints(tab, page, tmp_path / "page.pdf")


@pytest.mark.parametrize("name", ["group.html", "sub-18.html", f"sub-{DAMAGED}.html"])
def test_pages_of_a_run_with_a_failure(tab, failed, name, tmp_path):
    _looked_at(tab, failed / name, tmp_path)


def test_the_page_of_a_failure_says_what_and_why(tab, failed):
    tab.look(1280)
    tab.open(failed / f"sub-{DAMAGED}.html")
    assert "failed" in tab.run("document.querySelector('.notice.error').textContent")
    row = tab.run("document.querySelector('#checks table tbody').textContent")
    assert small_alice.bold(Path(), DAMAGED).name in row
    assert "is damaged" in row
    heads = tab.run("document.querySelector('#checks table thead').textContent")
    assert heads.split() == ["What", "Why", "What", "to", "do"]
    assert tab.run("document.querySelector('#checks tbody td:last-child').textContent").strip()
    for other in ("sub-18.html", "group.html"):
        tab.open(failed / other)
        told = tab.run("document.querySelector('main > .notice')?.textContent ?? ''")
        assert "failed" not in told


def test_pages_come_from_the_outputs_alone(failed, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(failed, out)
    page = (out / "sub-18.html").read_bytes()
    for made in (*out.glob("*.html"), *out.rglob("figures/*")):
        made.unlink()
    bids = failed.parent / "bids"
    flags = ("--on-error", "continue")
    with contextlib.chdir(failed.parent):
        cli.main(small_alice.arguments(bids, out, *flags, "--reports-only"))
        assert cli.main([str(bids), str(out), "group", "--reports-only", "--n-permutations", "100",
                         "--n-bootstraps", "100"]) == 0
    assert (out / "sub-18.html").read_bytes().split(b"<!-- key")[0] == page.split(b"<!-- key")[0]
    assert (out / "group.html").is_file()
    for figure in failed.rglob("figures/*"):
        assert (out / figure.relative_to(failed)).read_bytes() == figure.read_bytes()


def test_methods_can_be_copied(tab, failed):
    tab.look(1280)
    tab.open(failed / "group.html")
    tab.run("document.querySelector('#methods .copy').click()")
    tab.wait("document.querySelector('#methods .copy').textContent === 'Copied'")
    paragraphs = tab.run("document.querySelectorAll('#methods p, #methods li').length")
    assert paragraphs > 8
    tab.run("document.execCommand = function () { window.byHand = "
            "document.activeElement.value; return true; };"
            "Object.defineProperty(navigator, 'clipboard', { value: undefined });"
            "document.querySelector('#settings .copy').click()")
    assert str(tab.run("window.byHand")).startswith("bids_brainlm BIDS_DIR OUTPUT_DIR group")


# --- the brain view -----------------------------------------------------------------------------

VIEW = "document.querySelector('.brainview')"
BOX = (f"(function () {{ var b = {VIEW}.querySelector('canvas').getBoundingClientRect();"
       "return [b.x, b.y, b.width, b.height]; }())")


def _choose(tab: browser.Tab, number: int, text: str) -> None:
    """Choose by text in one of the lists: rows, map, surface, hemispheres, parcel."""
    found = tab.run(
        f"(function () {{ var list = {VIEW}.querySelectorAll('select')[{number}];"
        f"var one = Array.from(list.options).find(o => o.textContent === {text!r});"
        "if (!one) { return Array.from(list.options).map(o => o.textContent); }"
        "list.value = one.value; list.dispatchEvent(new Event('change')); return ''; }())"
    )
    assert found == "", found


def _slide(tab: browser.Tab, number: int, value: float) -> None:
    tab.run(f"(function () {{ var one = {VIEW}.querySelectorAll('input[type=range]')[{number}];"
            f"one.value = {value}; one.dispatchEvent(new Event('input')); }}())")


def _told(tab: browser.Tab, part: str) -> str:
    return str(tab.run(f"{VIEW}.querySelector('.{part}').textContent")).replace("−", "-")


def _pixels(tab: browser.Tab) -> np.ndarray:
    """Return the canvas, shape (height, width, 4)."""
    data = str(tab.run(f"{VIEW}.querySelector('canvas').toDataURL('image/png')"))
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as found:
        return np.asarray(found.convert("RGBA"))


def _at(tab: browser.Tab, x: float, y: float) -> str:
    """Point at a place, given in shares of the canvas; return what is told about it."""
    box = tab.run(BOX)
    tab.mouse("mouseMoved", box[0] + x * box[2], box[1] + y * box[3])
    hidden = tab.run(f"{VIEW}.querySelector('.tip').hidden")
    return "" if hidden else _told(tab, "tip").split(":")[0]


def _near(tab: browser.Tab, x: float, heights=(0.5, 0.45, 0.55, 0.4, 0.6, 0.35, 0.65)) -> str:
    """Return the first parcel that is met on a line from top to bottom."""
    found = [name for y in heights if (name := _at(tab, x, y))]
    assert found, "no parcel there"
    return found[0]


@pytest.fixture
def shown(tab, brains):
    """Return the tab with the brain view of the group page in the window."""
    tab.look(1000, 1000)
    page_checks.opened(tab, brains / "view.html")
    tab.run(f"{VIEW}.scrollIntoView({{block: 'center'}})")
    return tab


def _map(root: Path, desc: str, stat: str) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read a map of parcels as columns."""
    path = next(root.glob(f"group/*atlas-Schaefer2018Fake{desc}_stat-{stat}_boldmap.tsv"))
    table = write.read_tsv(path)
    names = table.pop("name")
    return names, {k: np.array(v, float) for k, v in table.items() if k != "index"}


def test_values_are_those_of_the_files(shown, brains):
    desc = "_desc-fakeTransformations"
    names, means = _map(brains, desc, "mean")
    _, q = _map(brains, desc, "q")
    _choose(shown, 1, "fake transformations: mean r")
    heads = list(means)
    best = heads[int(np.argmax([means[h].mean() for h in heads]))]
    assert "highest mean" in shown.run(f"{VIEW}.querySelectorAll('label span')[2].textContent")
    for column in (heads.index(best), 0, 71):
        if heads[column] != best:
            _slide(shown, 0, column)
        head = heads[column]
        for parcel in (names[1], names[7]):
            _choose(shown, 4, parcel)
            told = _told(shown, "told")
            k = names.index(parcel)
            expected = f"mean r {means[head][k]:.3f}, q = {q[head][k]:.4f}"
            assert told.startswith(f"{parcel} ({'RL'[k % 2]}): {expected}")
            assert f"layer {int(head[1:3])} head {int(head[4:])}" in told
            assert shown.run(f"{VIEW}.querySelectorAll('.profile circle').length") == 72
    assert not shown.problems


def test_thresholds_show_the_parcels_of_the_files(shown, brains):
    names, means = _map(brains, "_desc-fakeEmbeddings", "mean")
    _, q = _map(brains, "_desc-fakeEmbeddings", "q")
    _choose(shown, 1, "fake embeddings: mean r")
    _slide(shown, 0, 2)
    assert f"{len(names)} of {len(names)} parcels shown" in _told(shown, "legend")
    whole = _pixels(shown)
    shown.run(f"{VIEW}.querySelector('input[type=checkbox]').click()")
    n = int((q["layer02"] < 0.05).sum())
    assert 0 < n < len(names)
    assert f"{n} of {len(names)} parcels shown" in _told(shown, "legend")
    assert (_pixels(shown) != whole).any()
    shown.run(f"{VIEW}.querySelector('input[type=checkbox]').click()")
    _slide(shown, 1, 40)
    limit = float(_told(shown, "ticks").split(".")[-1]) / 100  # the last tick: 0.xx
    found = float(shown.run(f"{VIEW}.querySelectorAll('label span')[3].textContent").split()[2])
    assert found == pytest.approx(0.4 * limit, abs=0.002)
    n = int((np.abs(means["layer02"]) >= 0.4 * limit).sum())
    assert f"{n} of {len(names)} parcels shown" in _told(shown, "legend")


def test_colours_are_those_of_the_static_maps(shown, brains):
    """Compared with matplotlib's colours; shading makes them darker, in equal parts."""
    import matplotlib as mpl

    names, means = _map(brains, "_desc-fakeEmbeddings", "mean")
    _choose(shown, 1, "fake embeddings: mean r")
    best = max(means, key=lambda c: means[c].mean())
    limit = float(_told(shown, "ticks").rsplit("0.", 1)[1]) / 100
    picture = _pixels(shown).astype(float)
    checked = 0
    for x in np.linspace(0.1, 0.9, 17):
        name = _at(shown, x, 0.5)
        if name not in names:
            continue
        seen = picture[picture.shape[0] // 2, int(x * picture.shape[1]), :3]
        value = means[best][names.index(name)]
        expected = np.array(mpl.colormaps["RdBu_r"]((value / limit + 1) / 2)[:3]) * 255
        scale = seen.sum() / expected.sum()
        assert 0.65 < scale < 1.02
        np.testing.assert_allclose(seen, scale * expected, atol=3)
        checked += 1
    assert checked > 8


def test_parcels_lie_where_the_atlas_has_them(shown, brains):
    """Left and right, front and back, from the voxels of the atlas."""
    import nibabel

    image = nibabel.load(next(brains.glob("sub-01/func/*_stat-label_boldmap.nii.gz")))
    data, names = np.asarray(image.dataobj), _map(brains, "", "isc")[0]

    def middle(name: str, *, left: bool) -> np.ndarray:
        places = nibabel.affines.apply_affine(
            image.affine, np.argwhere(data == names.index(name) + 1)
        )
        return places[(places[:, 0] < 0) == left].mean(axis=0)

    def click(view: str) -> None:
        shown.run(f"Array.from({VIEW}.querySelectorAll('.views button'))"
                  f".find(b => b.textContent === '{view}').click()")

    # lateral: the front is on the outside of the picture; medial: in the middle
    for view, order in (("lateral", 1), ("medial", -1)):
        click(view)
        assert shown.run(f"{VIEW}.querySelector('.side').textContent") == "left"
        for left, places in ((True, (0.1, 0.4)), (False, (0.9, 0.6))):
            outer, inner = (_near(shown, x) for x in places)
            gap = middle(outer, left=left)[1] - middle(inner, left=left)[1]
            assert order * gap > 20, (view, left, outer, inner)
    click("top")
    middles = shown.run(f"Array.from({VIEW}.querySelectorAll('.side'), s => s.style.left)")
    for at, left in zip(middles, (True, False), strict=True):
        x = float(at.removesuffix("%")) / 100
        front, back = _near(shown, x, (0.12, 0.16, 0.2)), _near(shown, x, (0.88, 0.84, 0.8))
        assert middle(front, left=left)[1] > middle(back, left=left)[1] + 20
    click("front")  # from the front, the right hemisphere is on the left
    assert shown.run(f"{VIEW}.querySelector('.side').textContent") == "right"


def test_the_brain_turns_and_parcels_can_be_kept(shown):
    first = _pixels(shown)
    shown.run(f"{VIEW}.querySelector('canvas').focus()")
    shown.press("ArrowLeft")
    shown.wait("checks.frames()")
    turned = _pixels(shown)
    assert (turned != first).mean() > 0.05
    shown.press("ArrowRight")
    shown.wait("checks.frames()")
    np.testing.assert_array_equal(_pixels(shown), first)
    x, y, width, height = shown.run(BOX)
    box = (x + width / 4, y + height / 2)
    name = _at(shown, 0.25, 0.5)
    shown.mouse("mousePressed", *box, buttons=1)
    shown.mouse("mouseReleased", *box)
    assert _told(shown, "told").startswith(f"{name} (")
    shown.mouse("mousePressed", *box, buttons=1)
    shown.mouse("mouseMoved", box[0] + 80, box[1] + 30, buttons=1)
    shown.mouse("mouseReleased", box[0] + 80, box[1] + 30)
    shown.wait("checks.frames()")
    assert (_pixels(shown)[..., 3] != first[..., 3]).any()
    assert _told(shown, "told").startswith(f"{name} (")
    for surface in ("pial", "inflated"):
        _choose(shown, 2, surface)
    _choose(shown, 3, "right")
    assert shown.run(f"{VIEW}.querySelector('.side').textContent") == "right"
    assert not shown.problems


def test_regions_of_interest_can_be_shown(shown, brains):
    _choose(shown, 0, "Regions of interest")
    _choose(shown, 1, "fake embeddings: mean r")
    assert f"{len(REGIONS)} of {len(REGIONS)} regions shown" in _told(shown, "legend")
    path = next(brains.glob("group/*FakeRois_desc-fakeEmbeddings_stat-mean_boldmap.tsv"))
    table = write.read_tsv(path)
    columns = [c for c in table if c.startswith("layer")]
    best = max(columns, key=lambda c: np.array(table[c], float).mean())
    _choose(shown, 4, "front")
    assert _told(shown, "told").startswith(f"front: mean r {float(table[best][0]):.3f}")


def test_a_preferred_layer_has_a_colour_of_its_own(shown):
    _choose(shown, 1, "fake embeddings: preferred layer")
    assert _told(shown, "ticks") == "123456"
    _choose(shown, 4, "17Networks_LH_TempPar_3")
    assert "preferred layer 3" in _told(shown, "told")


def test_the_view_is_a_page_and_a_frame_of_its_own(tab, brains, tmp_path, capsys):
    page = tmp_path / "deep" / "brain.html"
    assert plot_cli.main([str(brains), "view", "-o", str(page)]) == 0
    assert page.stat().st_size < 1.5e6
    for width in page_checks.WIDTHS:
        for scheme in ("light", "dark"):
            page_checks.laid_out(tab, page, width, scheme)
    frame = tmp_path / "notebook.html"
    made = brain.view(brains, story="tea")
    frame.write_text(f"<!DOCTYPE html><title>n</title>{made._repr_html_()}", encoding="utf-8")
    tab.look(1000)
    tab.open(frame)
    tab.wait("document.querySelector('iframe').contentDocument.querySelector("
             "'.brainview[data-ready]') !== null")
    assert not tab.problems


def test_what_has_no_place_in_a_brain_says_so(tmp_path, capsys):
    root = Fake(tmp_path, n_people=3).write()
    assert plot_cli.main([str(root), "view", "-o", str(tmp_path / "x.html")]) == 66
    assert plot_cli.main([str(root), "view", "-o", str(tmp_path / "x.svg")]) == 64
    assert plot_cli.main([str(root), "view", "--cmap", "viridis"]) == 64
    assert "--cmap" in capsys.readouterr().err


# --- real outputs, minutes ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["group.html", "sub-01.html"])
def test_pages_with_brains(tab, brains, name, tmp_path):
    """Static maps and the brain view of the group; slices, glass brains and cortex."""
    _put(brains, reports.group_report(brains, **CALL) | reports.citation(brains, version="0.1.0")
         | reports.participant_report(brains, "01", **CALL))
    _looked_at(tab, brains / name, tmp_path)


@pytest.mark.slow
def test_pages_of_the_demonstration(tab, alice, minilm, tmp_path):
    """As make demo makes them: every page is looked at."""
    out = tmp_path / "out"
    given = ["--model", "minilm", "--atlas", str(small_alice.atlas(alice)), "--offline"]
    assert cli.main([str(alice), str(out), "participant", *given]) == 0
    assert cli.main([str(alice), str(out), "group"]) == 0
    pages = sorted(out.glob("*.html"))
    assert len(pages) == 19
    for page in pages:
        _looked_at(tab, page, tmp_path)


@pytest.mark.slow
def test_pages_with_every_part(tab, alice, minilm, shared_data, tmp_path, monkeypatch):
    """Heads, decoding, single features, ladder, partial correlations, regions of interest."""
    bids, out = small_alice.copy(alice, tmp_path / "bids"), tmp_path / "out"
    rois = tmp_path / "rois.tsv"
    rois.write_text("name\troi\nLATL\tAntTemp\nRATL\tAntTemp\nLPTL\tPostTemp\nLIFG\tIFG\n")
    more = ["--model", "minilm", "--features", "embeddings", "transformations", "heads",
            "magnitudes", "attention", "linguistic-each", "position", "--predictions",
            "--decoding", "--decoding-permutations", "20", "--ladder", "--offline",
            "--spacy-pipeline", str(shared_data / "spacy" / "en_brainlm_test_sm")]
    monkeypatch.chdir(tmp_path)
    assert cli.main(small_alice.arguments(bids, out, *more)) == 0
    assert cli.main([str(bids), str(out), "group", "--rois", str(rois), "--n-permutations", "200",
                     "--n-bootstraps", "100"]) == 0
    text = (out / "group.html").read_text("utf-8")
    for part in ("Control ladder", "By region", "What heads compute", "Layer preference"):
        assert part in text, part
    for page in sorted(out.glob("*.html")):
        _looked_at(tab, page, tmp_path)


@pytest.mark.slow
def test_page_of_the_presets(tab, alice, tmp_path, monkeypatch):
    bids, out = small_alice.copy(alice, tmp_path / "bids"), tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    k = small_alice.FAST.index("--gap")
    fast = (*small_alice.FAST[:k], *small_alice.FAST[k + 2 :], "--features", "embeddings")
    given = [str(bids), str(out), "--atlas", str(small_alice.atlas(bids)), *fast]
    assert presets.main([*given, "--layers", "0", "3"]) == 0
    for page in sorted(out.rglob("*.html")):
        _looked_at(tab, page, tmp_path)
