"""``bids_brainlm-plot``: figures of the reports again, for a paper or a poster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bids_brainlm import __version__, brain, figures
from bids_brainlm.errors import BrainLMError, ConfigError, ReadWriteError
from bids_brainlm.report import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "pdf", "png")
VIEW = "view"
FIGURE_HELP = "name of the figure, as --list shows it; or view: the brain to turn, as a web page"
EPILOG = """\
examples:
  bids_brainlm-plot OUT --list
  bids_brainlm-plot OUT paired --format pdf --width 3.5 --height 5
  bids_brainlm-plot OUT map --desc minilmEmbeddings --column 3 --view surface --threshold q
  bids_brainlm-plot OUT layers --participant-label 18 -o sub-18_layers.svg
  bids_brainlm-plot OUT view -o brain.html
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises this package's error instead of leaving."""

    def error(self, message: str) -> NoReturn:
        """Turn a usage error into exit code 64."""
        raise ConfigError(f"{message}.", hint="See bids_brainlm-plot --help.")


def parser() -> argparse.ArgumentParser:
    """Make the argument parser."""
    made = _Parser(
        prog="bids_brainlm-plot",
        description=__doc__,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("output_dir", metavar="OUT", type=Path, help="results of bids_brainlm; nothing is changed")
    add("figure", metavar="FIGURE", nargs="?", help=FIGURE_HELP)
    add("--version", action="version", version=f"bids_brainlm {__version__}")
    add("--list", action="store_true", help="list the figures and leave")
    which = made.add_argument_group("which one, where there are several")
    which.add_argument("--story", metavar="STORY")
    which.add_argument("--desc", metavar="DESC", help="feature space or model; its end is enough")
    which.add_argument("--participant-label", metavar="LABEL", help="of this participant's page")
    which.add_argument("--session", metavar="LABEL")
    which.add_argument("--run", metavar="LABEL")
    which.add_argument("--atlas", metavar="LABEL")
    which.add_argument("--regions", action="store_true", help="regions of interest, not parcels")
    which.add_argument("--rois", metavar="NAME", nargs="+", default=[], help="only these")
    maps = made.add_argument_group("of the figure 'map'")
    maps.add_argument("--stat", metavar="STAT", help="statistic as in file names (default: mean)")
    maps.add_argument("--column", metavar="NAME", help="layer or head (default: highest mean)")
    maps.add_argument("--view", metavar="{all,slices,glass,surface}", default="all")
    maps.add_argument("--threshold", metavar="q|VALUE", help="leave out what does not reach this")
    looks = made.add_argument_group("looks")
    looks.add_argument("--format", choices=FORMATS, help="default: by the name of the file, or svg")
    looks.add_argument("--width", metavar="IN", type=float, help="inches")
    looks.add_argument("--height", metavar="IN", type=float, help="inches")
    looks.add_argument(
        "--dpi", metavar="N", type=int, default=300, help="of bitmaps (default: 300)"
    )
    looks.add_argument("--cmap", metavar="NAME", help="matplotlib colour map")
    looks.add_argument("--limit", metavar="X", type=float, help="end of the colour scale")
    looks.add_argument("-o", "--output", metavar="FILE", type=Path, help="default: FIGURE.svg here")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Draw one figure, or list them; return the exit code."""
    try:
        given = parser().parse_args(argv)
    except SystemExit as stop:  # argparse leaves after --help and --version
        return int(stop.code or 0)
    except BrainLMError as error:
        return _report(error)
    try:
        if given.list:
            _list(given)
        elif given.figure is None:
            raise ConfigError("Expected FIGURE.", hint="See bids_brainlm-plot OUT --list.")
        elif given.figure == VIEW:
            _view(given)
        else:
            _draw(given)
    except BrainLMError as error:
        return _report(error)
    return 0


def _report(error: BrainLMError) -> int:
    """Tell an error in words and return its exit code."""
    sys.stderr.write(f"Error: {error}\n")
    return error.exit_code


def _list(given: argparse.Namespace) -> None:
    """Write one line a figure."""
    found = figures.list_figures(
        given.output_dir,
        story=given.story,
        participant=given.participant_label,
        regions=given.regions,
    )
    for one in found:
        flags = [("story", one.story), ("desc", one.desc), ("atlas", one.atlas)]
        flags += [("session", one.session), ("run", one.run)]
        words = " ".join(f"--{flag} {value}" for flag, value in flags if value)
        sys.stdout.write(f"{one.figure:<24} {words}\n")


def _draw(given: argparse.Namespace) -> None:
    """Draw a figure and write it."""
    ending, path = _target(given)
    made = figures.plot(
        given.output_dir,
        given.figure,
        story=given.story,
        desc=given.desc,
        participant=given.participant_label,
        session=given.session,
        run=given.run,
        atlas=given.atlas,
        regions=given.regions,
        rois=given.rois,
        stat=given.stat,
        column=given.column,
        view=given.view,
        threshold=given.threshold,
        width=given.width,
        height=given.height,
        cmap=given.cmap,
        limit=given.limit,
    )
    _write(path, _bytes(made, ending, given.dpi))
    sys.stdout.write(f"{path}\n")


def _view(given: argparse.Namespace) -> None:
    """Write the interactive brain view; it has its own choice of maps and looks."""
    path = given.output or Path(f"{VIEW}.html")
    plain = parser().parse_args([str(given.output_dir), VIEW])
    kept = {"story", "atlas", "output", "list"}
    others = [k for k, v in vars(plain).items() if k not in kept and getattr(given, k) != v]
    if others:
        flags = ", ".join(f"--{k.replace('_', '-')}" for k in others)
        raise ConfigError(
            f"The figure view takes --story, --atlas and -o, not {flags}.",
            hint="Choose maps, thresholds and surfaces on the page itself.",
        )
    if path.suffix.lower() != ".html":
        raise ConfigError(f"{path} is no web page.", hint="End the name with .html.")
    made = brain.view(given.output_dir, story=given.story, atlas=given.atlas).save(path)
    sys.stdout.write(f"{made}\n")


def _target(given: argparse.Namespace) -> tuple[str, Path]:
    """Return the format and the file to write."""
    if not 30 <= given.dpi <= 2400:
        raise ConfigError(f"--dpi is {given.dpi}, expected 30 to 2400.")
    path = given.output
    if path is None:
        ending = given.format or "svg"
        return ending, Path(f"{''.join(c for c in given.figure if c.isalnum())}.{ending}")
    ending = given.format or path.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise ConfigError(
            f"{path} says no format, expected one of {', '.join(FORMATS)}.",
            hint="End the name with .svg, .pdf or .png, or give --format.",
        )
    return ending, path


def _bytes(made: Figure, ending: str, dpi: int) -> bytes:
    """Save a figure; equal data give equal bytes."""
    with style.drawing():
        if ending == "png":
            return style.png(made, dpi)
        if ending == "pdf":
            return style.pdf(made, dpi)
        if made.get_dpi() == figures.DPI:  # has parts that are bitmaps
            made.set_dpi(dpi)
        return style.svg(made)


def _write(path: Path, data: bytes) -> None:
    """Write the file, and the folder where it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ReadWriteError(
            f"{path} cannot be written ({error.strerror}).", hint="Choose another file with -o."
        ) from None
