"""From the blocks of a page to one self-contained HTML file."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from markupsafe import Markup, escape

from bids_brainlm.report import brainview
from bids_brainlm.report.common import number
from bids_brainlm.report.content import BrainView, Column, Page, Picture

if TYPE_CHECKING:
    from jinja2 import Environment

_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_TYPES = {"svg": "image/svg+xml", "png": "image/png"}


def render(page: Page) -> str:
    """Render a page; every text is escaped, every figure and style is embedded.

    Parameters
    ----------
    page : Page
        What stands on it.

    Returns
    -------
    str
        HTML5. Nothing is loaded from elsewhere: the content security policy in its head
        forbids it.
    """
    mesh = brainview.mesh() if any(isinstance(b, BrainView) for b in page.blocks()) else ""
    return _environment().get_template("page.html").render(page=page, mesh=mesh)


def render_view(block: BrainView, title: str) -> str:
    """Render a page that holds an interactive view and nothing else.

    Parameters
    ----------
    block : BrainView
    title : str

    Returns
    -------
    str
        HTML5 that loads nothing from elsewhere; its caption links to no files.
    """
    template = _environment().get_template("view.html")
    return template.render(block=replace(block, files=()), title=title, mesh=brainview.mesh())


def _environment() -> Environment:
    """Return the templates and what they call."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bids_brainlm.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        data_uri=_data_uri,
        link=_link,
        cell=_cell,
        sort_key=_sort_key,
        labelled=_labelled,
        json_script=_json_script,
        flags=_flags,
    )
    return environment


def _json_script(text: str) -> Markup:
    """Put JSON into a script element; nothing in it can end the element."""
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(safe)  # escaped above


def _data_uri(picture: Picture) -> str:
    """Embed a picture."""
    kind = _TYPES[picture.path.rsplit(".", 1)[-1]]
    return f"data:{kind};base64,{base64.b64encode(picture.data).decode('ascii')}"


def _flags(text: object) -> Markup:
    """Escape a text and keep the flags of the command line in it in one piece."""
    safe = re.sub(_FLAG, r'<span class="flag">\g<0></span>', str(escape(str(text))))
    return Markup(safe)  # escaped above


def _link(path: str) -> str:
    """Make a relative link out of a path below the output folder."""
    return quote(path)


def _labelled(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Pair each path with the part of its name that tells it from its neighbours."""
    names = [PurePosixPath(p).name for p in paths]
    labels = [re.search(r"_desc-([^_]+)", n) for n in names]
    several = len({m[1] if m else "" for m in labels}) > 1
    pairs = []
    for path, name, label in zip(paths, names, labels, strict=True):
        stat = re.search(r"_(stat-[^_.]+)_boldmap(\..+)", name)
        short = stat[1] + stat[2] if stat else name.rsplit("_", 1)[-1]
        prefix = f"{label[1]} " if label and stat and several else ""
        pairs.append((path, prefix + short))
    if len({label for _, label in pairs}) == len(pairs):
        return pairs
    told = [_place(path) for path in paths]
    return [(p, f"{place} {label}") for (p, label), place in zip(pairs, told, strict=True)]


def _place(path: str) -> str:
    """Return what tells files of one name apart: the first folder, and the atlas."""
    atlas = re.search(r"_atlas-([^_]+)", path)
    folder = PurePosixPath(path).parts[0]
    return " ".join([*([] if folder == "group" else [folder]), *([atlas[1]] if atlas else [])])


def _cell(value: object, column: Column) -> str:
    """Write a table cell."""
    return number(value, column.digits)


def _sort_key(value: object) -> str:
    """Return what a cell is sorted by: a plain number, the text, or nothing."""
    if value is None or (isinstance(value, (float, np.floating)) and not math.isfinite(value)):
        return ""
    if isinstance(value, (int, float, np.integer, np.floating)):
        return repr(float(value))
    return str(value)
