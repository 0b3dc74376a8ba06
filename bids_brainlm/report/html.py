"""From the blocks of a page to one self-contained HTML file."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import quote

import numpy as np

from bids_brainlm.report.common import number
from bids_brainlm.report.content import Column, Page, Picture

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
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bids_brainlm.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        data_uri=_data_uri, link=_link, cell=_cell, sort_key=_sort_key, labelled=_labelled
    )
    return environment.get_template("page.html").render(page=page)


def _data_uri(picture: Picture) -> str:
    """Embed a picture."""
    kind = _TYPES[picture.path.rsplit(".", 1)[-1]]
    return f"data:{kind};base64,{base64.b64encode(picture.data).decode('ascii')}"


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
    return pairs


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
