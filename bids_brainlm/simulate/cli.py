"""The console script ``bids_brainlm-simulate``."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bids_brainlm import __version__
from bids_brainlm.errors import BrainLMError, ConfigError, ReadWriteError
from bids_brainlm.simulate.settings import (
    FLAVOURS,
    RAW_BOLD,
    SNR_LEVELS,
    SPACES,
    SimulationSettings,
)

INTERRUPTED = 130

DESCRIPTION = """\
Write a dataset in the shape of Narratives whose BOLD is made from the features of a language
model: every signal parcel has a planted layer (or head), the others are noise. The truth is
written to derivatives/simulation/.
"""
EPILOG = """\
examples:
  bids_brainlm-simulate OUT
  bids_brainlm-simulate OUT --participants 8 --stories rabbithole --atlas blocks:40 --snr low
  bids_brainlm-simulate --into ds002345 --participants 127 265 --stories black \\
      --transcripts GENTLE_DIR --atlas Schaefer2018_100Parcels17Networks --flavour clean
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises this package's error instead of leaving."""

    def error(self, message: str) -> NoReturn:
        """Turn a usage error into exit code 64."""
        raise ConfigError(f"{message}.", hint="See bids_brainlm-simulate --help.")


def parser() -> argparse.ArgumentParser:
    """Make the argument parser (imports nothing heavy)."""
    made = _Parser(
        prog="bids_brainlm-simulate",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"bids_brainlm {__version__}")
    made.add_argument("out", metavar="OUT", nargs="?", type=Path, help="an empty or new folder")
    made.add_argument("-v", "--verbose", action="store_true", help="show a traceback on bugs")
    made.add_argument("--overwrite", action="store_true", help="write over what is in OUT")
    _add_content(made.add_argument_group("what is simulated"))
    _add_signal(made.add_argument_group("signal and noise"))
    _add_files(made.add_argument_group("files"))
    return made


def _add_content(group: argparse._ArgumentGroup) -> None:
    """Add the flags about participants, stories and the model."""
    group.add_argument(
        "--participants",
        nargs="+",
        default=None,
        metavar="N|LABEL",
        help="how many (one number below 1000 without leading zero), or labels (default: 4; with "
        "--into, always labels, default all)",
    )
    group.add_argument(
        "--stories",
        nargs="+",
        default=[],
        metavar="NAME",
        help="task labels; pieces of 'Alice in Wonderland' unless --transcripts is given "
        "(default: rabbithole goldenkey; with --into: all tasks)",
    )
    group.add_argument(
        "--into", type=Path, metavar="TREE", help="fill this raw dataset instead of making one"
    )
    group.add_argument(
        "--transcripts", type=Path, metavar="DIR", help="Gentle alignments, <story>/align.csv|json"
    )
    group.add_argument(
        "--model", metavar="NAME_OR_PATH", help="default: minilm if installed, else a random model"
    )
    group.add_argument("--models-dir", type=Path, metavar="DIR", help="where weights lie")
    group.add_argument(
        "--network", action="store_true", help="allow downloads (default: never touch the network)"
    )
    group.add_argument("--context-trs", type=int, default=20, metavar="N", help="default: 20")
    group.add_argument(
        "--run-seconds", type=float, metavar="S", help="length of each story (default: 360 at most)"
    )
    group.add_argument("--n-words", type=int, metavar="N", help="words of each story instead")
    group.add_argument("--tr", type=float, default=1.5, metavar="S", help="default: 1.5")
    group.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")


def _add_signal(group: argparse._ArgumentGroup) -> None:
    """Add the flags about signal and noise."""
    levels = ", ".join(f"{name} {share:g}" for name, share in SNR_LEVELS.items())
    group.add_argument(
        "--snr",
        default="standard",
        metavar="LEVEL|SHARE",
        help=f"share of the planted feature in a signal parcel's variance ({levels})",
    )
    group.add_argument(
        "--noise-share", type=float, default=0.3, metavar="X", help="pure-noise parcels, 0.3"
    )
    group.add_argument(
        "--head-share", type=float, default=0.15, metavar="X", help="heads among the others, 0.15"
    )
    group.add_argument(
        "--word-share", type=float, default=0.3, metavar="X", help="word-rate responses, 0.3"
    )


def _add_files(group: argparse._ArgumentGroup) -> None:
    """Add the flags about images."""
    group.add_argument(
        "--atlas",
        default="blocks:24",
        metavar="NAME|PATH|blocks:N",
        help="TemplateFlow name, label image, or cubes that are made here (default: blocks:24)",
    )
    group.add_argument("--n-parcels", type=int, metavar="N", help="short for --atlas blocks:N")
    group.add_argument(
        "--space",
        default=SPACES[0],
        metavar="{" + ",".join(SPACES) + "}",
        help="volumes, or pairs of GIFTI files on a mesh of fsaverage (default: " + SPACES[0] + ")",
    )
    group.add_argument(
        "--voxel-size", type=float, default=8.0, metavar="MM", help="grid of the images, 8 mm"
    )
    group.add_argument(
        "--flavour",
        default="preproc",
        metavar="{" + ",".join(FLAVOURS) + "}",
        help="fMRIPrep style with confounds, cleaned as in Narratives, or both (default: preproc)",
    )
    group.add_argument(
        "--raw-bold",
        default="tiny",
        metavar="{" + ",".join(RAW_BOLD) + "}",
        help="raw images: eight voxels, dangling links, or none (default: tiny)",
    )


def parse(argv: Sequence[str]) -> tuple[Path, SimulationSettings, bool]:
    """Turn arguments into checked settings.

    Parameters
    ----------
    argv : sequence of str
        Arguments without the program's name.

    Returns
    -------
    out_dir : Path
        The dataset.
    settings : SimulationSettings
        Checked.
    verbose : bool
        Whether tracebacks are wanted.

    Raises
    ------
    ConfigError
        A flag or a value is wrong (64).
    """
    values = vars(parser().parse_args(list(argv)))
    out, into = values.pop("out"), values["into"]
    if (out is None) == (into is None):
        raise ConfigError(
            "Found neither OUT nor --into TREE, or both; expected one of them.",
            hint="Give OUT to make a dataset, or --into TREE to fill one.",
        )
    n_parcels = values.pop("n_parcels")
    if n_parcels is not None:
        values["atlas"] = f"blocks:{n_parcels}"
    values["participants"] = _participants(values["participants"], into=into is not None)
    values["stories"] = tuple(label.removeprefix("task-") for label in values["stories"])
    values["story_seconds"] = values.pop("run_seconds")
    values["offline"] = not values.pop("network")
    verbose = values.pop("verbose")
    home = os.environ.get("TEMPLATEFLOW_HOME")
    settings = SimulationSettings(**values, templateflow_home=Path(home) if home else None)
    return Path(into or out), settings, verbose


def _participants(given: list[str] | None, *, into: bool) -> tuple[str, ...]:
    """Return labels; a single count makes as many labels in a new dataset."""
    if given is None:
        given = [] if into else ["4"]
    if not into and len(given) == 1 and given[0].isdigit() and not given[0].startswith("0"):
        count = int(given[0])
        if count > 999:
            raise ConfigError(f"--participants {count}: expected 1 to 999.")
        return tuple(f"{i:02d}" for i in range(1, count + 1))
    return tuple(label.removeprefix("sub-") for label in given)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console script.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; default those of the process.

    Returns
    -------
    int
        Exit code.
    """
    verbose = False
    try:
        out_dir, settings, verbose = parse(sys.argv[1:] if argv is None else argv)
        from bids_brainlm.simulate import dataset

        made = dataset.write_dataset(out_dir, settings, progress=_tell)
        _tell(f"{made.n_runs} runs in {made.root}; the truth is in {made.truth_tsv}")
    except SystemExit as leaving:  # --help and --version
        return int(leaving.code or 0)
    except KeyboardInterrupt:
        _tell("Interrupted.")
        return INTERRUPTED
    except BrainLMError as error:
        return _report(error)
    except OSError as error:
        return _report(ReadWriteError(f"{error.filename or out_dir}: {error.strerror or error}."))
    except Exception as error:  # noqa: BLE001
        if verbose:
            traceback.print_exc()
        _tell(f"Error: unexpected {type(error).__name__}: {error}")
        return 1
    return 0


def _report(error: BrainLMError) -> int:
    """Tell an error and return its exit code."""
    _tell(f"Error: {error}")
    return error.exit_code


def _tell(line: str) -> None:
    """Write a line for people."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
