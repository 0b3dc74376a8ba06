"""``bids_brainlm-presets``: run both presets on the same data and report every difference."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bids_brainlm import __version__, cli, config
from bids_brainlm.errors import BrainLMError, ConfigError, PartialFailureError, ReadWriteError
from bids_brainlm.presets.settings import PRESETS

LEVELS = ("participant", "group")
HELP = ("-h", "--help", "--version")
EPILOG = """\
Both levels are run with --preset default into OUT_DIR/default and with --preset paper into
OUT_DIR/paper; what is done is not done again. Then OUT_DIR/presets.html, presets.tsv,
presets.json and figures/ are written. All further options go to bids_brainlm in both presets;
a setting that is given there is the same in both.

example:
  bids_brainlm-presets BIDS OUT --model minilm --participant-label 18 22 23
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises this package's error instead of leaving."""

    def error(self, message: str) -> NoReturn:
        """Turn a usage error into exit code 64."""
        raise ConfigError(
            f"{message}.",
            hint="Give BIDS_DIR and OUT_DIR first, then options. See bids_brainlm-presets --help.",
        )


def parser() -> argparse.ArgumentParser:
    """Make the argument parser (imports nothing heavy)."""
    made = _Parser(
        prog="bids_brainlm-presets",
        description=__doc__,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("bids_dir", metavar="BIDS_DIR", help="the BIDS dataset")
    made.add_argument("out_dir", metavar="OUT_DIR", type=Path, help="gets one folder a preset")
    made.add_argument("--version", action="version", version=f"bids_brainlm {__version__}")
    made.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="...", help="options of bids_brainlm, for both"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run both presets, compare them, and return the exit code; never raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        asked = [a for a in arguments if a in HELP]
        given = parser().parse_args(asked or arguments)
        return _run(Path(given.bids_dir), given.out_dir, [o for o in given.options if o != "--"])
    except SystemExit as stop:  # argparse leaves after --help and --version
        return int(stop.code or 0)
    except BrainLMError as error:
        return _report(error)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. Finished results are kept; the same command goes on.\n")
        return cli.INTERRUPTED
    except OSError as error:
        return _report(ReadWriteError(f"{error.filename or 'A file'}: {error.strerror or error}."))


def _report(error: BrainLMError) -> int:
    """Tell an error in words and return its exit code."""
    sys.stderr.write(f"Error: {error}\n")
    return error.exit_code


def _run(bids_dir: Path, out_dir: Path, options: Sequence[str]) -> int:
    """Run all levels of all presets, then write the comparison."""
    _check(bids_dir, out_dir, options)
    lines = [
        [
            [str(bids_dir), str(out_dir / name), level, "--preset", name, *options]
            for level in LEVELS
        ]
        for name in PRESETS
    ]
    calls = [[cli.parse(line) for line in several] for several in lines]
    dry = calls[0][0].execution.dry_run
    worst = 0
    for several in lines:
        for line in several[:1] if dry else several:  # a group is planned from participants' maps
            sys.stderr.write(f"bids_brainlm {line[2]} --preset {line[4]}\n")
            code = cli.main(line)
            if code not in (0, PartialFailureError.exit_code):
                return code
            worst = max(worst, code)
    if not dry:
        sys.stderr.write(f"{_compare(out_dir, calls)}\n")
    return worst


def _compare(out_dir: Path, calls: Sequence[Sequence[config.Config]]) -> Path:
    """Write the comparison; NumPy is imported only now, when the app has set its threads."""
    from bids_brainlm.presets import compare

    return compare.write_comparison(out_dir, calls)


def _check(bids_dir: Path, out_dir: Path, options: Sequence[str]) -> None:
    """Refuse a preset among the options, and to write into the input."""
    if any(option.startswith("--preset") for option in options):
        raise ConfigError(
            "--preset is among the options, found where both presets are run.",
            hint="Leave --preset out, or run bids_brainlm with it.",
        )
    out, bids = out_dir.resolve(), bids_dir.resolve()
    if bids.is_relative_to(out):
        raise ConfigError(
            f"OUT_DIR {out_dir} is or contains BIDS_DIR {bids_dir}; the input is never written to.",
            hint=f"Use for example {bids_dir / 'derivatives' / 'presets'}.",
        )
