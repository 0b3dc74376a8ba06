"""What holds on every page of a report, looked at in a browser."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from browser import Tab

WIDTHS = (1280, 390)
A4 = 718  # CSS pixels of an A4 page between margins of 1 cm
SCRIPT = Path(__file__).with_suffix(".js")
COUNTED = re.compile(r"\bn = \d|\d (participants|parcels|TRs|heads|labels)|parcels × outer folds")


def opened(tab: Tab, page: Path) -> None:
    """Open a page, put the checks into it, and start its interactive views."""
    tab.open(page)
    tab.run(SCRIPT.read_text("utf-8"))
    for k in range(int(tab.run("document.querySelectorAll('.brainview').length"))):
        view = f"document.querySelectorAll('.brainview')[{k}]"
        tab.run(f"{view}.scrollIntoView()")
        tab.wait(f"{view}.hasAttribute('data-ready')")
    tab.run("scrollTo(0, 0)")


def laid_out(tab: Tab, page: Path, width: int, scheme: str) -> None:
    """Check that a page is whole, fits into the window and can be read."""
    tab.look(width, scheme=scheme)
    opened(tab, page)
    where = f"{page.name} {width} {scheme}"
    assert not tab.problems, where
    for check in ("images", "wide", "contrast"):
        assert not tab.run(f"checks.{check}()"), where


def works(tab: Tab, page: Path) -> None:
    """Check links, contents, captions and tables."""
    tab.look(1280)
    opened(tab, page)
    assert not tab.run("checks.twice()")
    assert not tab.run("checks.navigation()")
    for link in tab.run("checks.links()"):
        if link.startswith("https://"):
            assert link.startswith("https://doi.org/10."), link
        elif not link.startswith("#"):
            assert (page.parent / unquote(link)).is_file(), f"{page.name} links to {link}"
    for caption in tab.run("checks.captions()"):
        assert "How to read it:" in caption
        assert COUNTED.search(caption), caption
    for one in tab.run("checks.sorting()"):
        _sorted(one)
    assert not tab.problems


def _sorted(one: dict) -> None:
    """Check one column: numbers by value with blanks last, other columns turned around."""
    where = f"{one['table']}, {one['column']}"
    before, first = one["before"], ["ascending", "descending"]
    assert one["said"] == (first[::-1] if one["is_number"] else first), where
    for after, said in zip(one["after"], one["said"], strict=True):
        assert sorted(after) == sorted(before), where
        if one["is_number"]:
            known = [float(v) for v in after if v != ""]
            assert after[len(known):] == [""] * (len(after) - len(known)), where
            assert known == sorted(known, reverse=said == "descending"), where
    if not one["is_number"] and len(set(before)) == len(before) and "" not in before:
        assert one["after"][0] == one["after"][1][::-1], where


def prints(tab: Tab, page: Path, to: Path) -> None:
    """Check the page as it is printed: black on white, nothing to click, nothing cut off."""
    tab.look(A4, scheme="dark", media="print")
    tab.open(page)
    tab.run(SCRIPT.read_text("utf-8"))
    where = f"{page.name}, printed"
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not tab.run("checks.drawn('nav, .copy, .here, .controls, .views')"), where
    assert not tab.run(f"checks.beyond({A4})"), where
    assert tab.pdf(to).read_bytes().startswith(b"%PDF")
