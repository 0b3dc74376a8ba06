"""The interactive brain view of the group page as a page of its own, for notebooks and sites."""

from __future__ import annotations

import html as text
from dataclasses import dataclass
from pathlib import Path

from bids_brainlm.bidsio.names import Names
from bids_brainlm.errors import MissingInputError, ReadWriteError
from bids_brainlm.report import brainview, html
from bids_brainlm.report.content import GroupStory, Text
from bids_brainlm.steps import reports

HEIGHT = 860
"""Pixels of the frame in a notebook."""


@dataclass(frozen=True)
class BrainPage:
    """A page with one view; a notebook shows it where it is the last line of a cell.

    Attributes
    ----------
    story, space, atlas : str
    content : str
        HTML5 that loads nothing from elsewhere.
    """

    story: str
    space: str
    atlas: str
    content: str

    def __repr__(self) -> str:
        return f"BrainPage(story={self.story!r}, space={self.space!r}, atlas={self.atlas!r})"

    def _repr_html_(self) -> str:
        """Return a frame that holds the whole page, for notebooks."""
        return (
            f'<iframe title="Brain view of {text.escape(self.story)}" width="100%" '
            f'height="{HEIGHT}" style="border:0" srcdoc="{text.escape(self.content)}"></iframe>'
        )

    def save(self, path: str | Path) -> Path:
        """Write the page.

        Parameters
        ----------
        path : path-like
            A file; its folder is made where it is missing.

        Returns
        -------
        Path

        Raises
        ------
        ReadWriteError
            The file cannot be written.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.content, encoding="utf-8")
        except OSError as error:
            raise ReadWriteError(
                f"{path} cannot be written ({error.strerror}).", hint="Choose another file."
            ) from None
        return path


def view(out_dir: str | Path, *, story: str | None = None, atlas: str | None = None) -> BrainPage:
    """Make the interactive view of group maps on the cortex.

    Parameters
    ----------
    out_dir : path-like
        The output dataset; nothing is written to it.
    story, atlas : str, optional
        Which one; may be left out where there is one.

    Returns
    -------
    BrainPage
        Shown by notebooks; ``save`` writes a file that opens offline in any browser.

    Raises
    ------
    MissingInputError
        There are no group maps, several, or none of an atlas that lies in a template brain.

    Examples
    --------
    >>> bids_brainlm.view("out", story="black").save("black.html")  # doctest: +SKIP
    """
    found = [s for s in reports.group_stories(Names(out_dir)) if story in (None, s.story)]
    found = [s for s in found if atlas in (None, s.atlas)]
    one = _only(found, out_dir)
    made = brainview.block(one, "brain")
    if isinstance(made, Text):
        raise MissingInputError(
            f"{out_dir}: {made.text}", hint="Draw the scores by parcel: plot(out_dir, 'parcels')."
        )
    content = html.render_view(made, f"{one.story}, {one.atlas} in {one.space}")
    return BrainPage(one.story, one.space, one.atlas, content)


def _only(found: list[GroupStory], out_dir: str | Path) -> GroupStory:
    """Return the one story that is meant."""
    if len(found) == 1:
        return found[0]
    there = "; ".join(f"story {s.story} with {s.atlas}" for s in found) or "none"
    raise MissingInputError(
        f"{out_dir} has {len(found)} sets of group maps that fit: {there}.",
        hint="Name one with story and atlas (--story, --atlas), or run the group level.",
    )
