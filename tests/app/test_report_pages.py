"""Participant and group pages made from an output folder alone."""

from __future__ import annotations

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from report_outputs import Fake

from bids_brainlm.errors import BrainLMError
from bids_brainlm.steps import reports

pytestmark = pytest.mark.thorough

CALL = {
    "settings": {"encoding": {"delays": (2, 3, 4, 5), "gap": 15.0}, "stats": {"fdr": 0.05}},
    "command": "bids_brainlm /data /out participant --model fake <&>",
    "version": "0.1.0",
}
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """Collects links, images and ids, and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.scripts = 0
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
        if tag == "img":
            self.images.append(found)
        self.scripts += tag == "script" and found.get("type") != "application/json"

    def handle_endtag(self, tag):
        assert self.open, f"stray </{tag}>"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Six regions without anatomy, as in the Alice dataset."""
    return Fake(tmp_path_factory.mktemp("small")).write()


@pytest.fixture(scope="module")
def pages(small) -> dict[str, bytes | str]:
    more = {
        "warnings": ["12 of 1000 parcels are empty."],
        "skipped": [("sub-01 black", "no image")],
        "failed": [("sub-01 pieman", "TR 1.52 s found, 1.5 s expected")],
    }
    found = reports.participant_report(small, "01", **more, **CALL)
    return found | reports.group_report(small, **CALL) | reports.citation(small, version="0.1.0")


def test_pages_hold_what_was_promised(pages):
    text = " ".join("".join(read(pages["sub-01.html"]).text).split())
    for part in ("Timing check", "Words per TR", "Outer folds", "Penalties chosen",
                 "Scores by layer", "Scores by attention head", "Best parcels", "Methods",
                 "What failed and why", "TR 1.52 s found", "What was skipped and why", "no image",
                 "12 of 1000 parcels", "1 parcel without signal", "--model fake <&>",
                 "First word", "weights sha256"):
        assert part in text, part
    group = " ".join("".join(read(pages["group.html"]).text).split())
    for part in ("Ceilings by parcel", "Scores by layer", "Significant parcels",
                 "What the features add", "adds nothing that can be told from chance",
                 "Best parcels", "Participants", "Nothing failed", "parcels of one column",
                 "There is no brain map: the images of atlas Alice6 do not say where"):
        assert part in group, part
    assert 'id="brain-mesh"' not in pages["group.html"]


@pytest.mark.parametrize("name", ["sub-01.html", "group.html"])
def test_page_is_self_contained_and_links_lead_somewhere(pages, small, name):
    page = pages[name]
    reader = read(page)
    assert reader.scripts == 1, "a word of the story became a script"
    assert len(reader.ids) == len(set(reader.ids))
    assert reader.images
    for image in reader.images:
        assert image["alt"]
        kind, _, data = image["src"].partition(";base64,")
        assert kind in ("data:image/svg+xml", "data:image/png")
        assert base64.b64decode(data)
    for link in reader.links:
        if link.startswith("#"):
            assert link[1:] in reader.ids
        elif link.startswith("https://"):
            assert link.startswith("https://doi.org/10.")
        else:
            path = unquote(link)
            assert path in pages or (small / path).is_file(), path
    loads = re.findall(r'(?:src|url\(|@import)\s*=?\s*["\']?\s*(https?:|//)', page)
    assert not loads
    assert "default-src 'none'" in page


def test_every_figure_has_a_caption_that_teaches(pages):
    for name in ("sub-01.html", "group.html"):
        captions = re.findall(r"<figcaption>(.*?)</figcaption>", pages[name], re.S)
        assert len(captions) == pages[name].count("<figure>")
        for caption in captions:
            assert "How to read it:" in caption
            assert re.search(r"n = \d+|parcels × outer folds", caption)


def test_a_hostile_word_stays_text(pages):
    assert "<script>alert" not in pages["sub-01.html"]
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in pages["sub-01.html"]


def test_bytes_are_stable(pages, small):
    again = reports.group_report(small, **CALL)
    for path, content in again.items():
        assert content == pages[path], path


def test_figures_are_files_of_the_contract(pages):
    figures = [p for p in pages if p.endswith((".svg", ".png"))]
    assert figures
    for path in figures:
        assert path.startswith(("sub-01/figures/sub-01_", "group/figures/group_"))


def test_anatomical_atlas_is_drawn_on_a_brain(tmp_path):
    root = Fake(tmp_path, n_people=3, n_parcels=40).write()
    found = reports.participant_report(root, "02", **CALL)
    maps = [p for p in found if p.endswith("_map.png")]
    assert len(maps) == 3
    assert all(found[p].startswith(b"\x89PNG") for p in maps)
    assert "glass brain" in found["sub-02.html"]
    # an edge of the grid: 3 of 30 choices at the strongest penalty
    assert "10.0 % of choices sit at the strongest penalty" in found["sub-02.html"]


def test_empty_output_still_gives_pages_that_say_so(tmp_path):
    page = reports.participant_report(tmp_path, "09", failed=[("sub-09", "why")], **CALL)
    assert "There are no results of this participant." in page["sub-09.html"]
    assert "why" in page["sub-09.html"]
    assert "There are no group results." in reports.group_report(tmp_path, **CALL)["group.html"]


def test_a_damaged_table_is_named(small, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(small, root)
    path = next((root / "sub-01" / "func").glob("*fakeEmbeddings_stat-r_boldmap.tsv"))
    path.write_text("index\tname\tlayer00\n1\tLATL\tmany\n")
    with pytest.raises(BrainLMError, match=path.name):
        reports.participant_report(root, "01", **CALL)


def test_citation_states_numbers_and_references(pages):
    text = pages["logs/CITATION.md"]
    assert text.startswith("# Methods\n")
    for part in ("5 participants", "376 time-aligned words", "2, 3, 4 and 5 TRs", "5 contiguous",
                 "8 TRs (15 s)", "10000", "q < 0.05", "10.1038/s41467-024-49173-5",
                 "10.1016/j.neuroimage.2022.119728", "10.1016/j.neuroimage.2014.01.060",
                 "10.1038/s41597-021-01033-3"):
        assert part in text, part
    assert "cercor" not in text


def test_two_atlases_in_one_folder_do_not_mix(tmp_path):
    fake = Fake(tmp_path, n_people=3)
    fake.write()
    fake.atlas = "Other6"
    fake.write()
    found = reports.participant_report(tmp_path, "02", **CALL) | reports.group_report(
        tmp_path, **CALL
    )
    for name in ("sub-02.html", "group.html"):
        reader = read(found[name])
        assert len(reader.ids) == len(set(reader.ids))
    assert any("layersMNI152NLin2009cAsymOther6" in path for path in found)
