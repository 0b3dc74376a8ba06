"""Command line: arguments to settings, settings to the runner, errors to exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn

from bids_brainlm import __version__, caches, config
from bids_brainlm.errors import AnalysisLevelError, BrainLMError, ConfigError, ReadWriteError

LEVELS = {
    "participant": "participant",
    "subject": "participant",
    "group": "group",
    "dataset": "group",
    "stimulus": "stimulus",
}
INTERRUPTED = 130

DESCRIPTION = """\
Model brain activity during stories with language models.

  stimulus     features that belong to the stories; no participant is read
  participant  features, encoding maps, significance and a report for each participant
  group        ceilings, group maps, statistics and a report, from OUTPUT_DIR alone
"""
EPILOG = """\
examples:
  bids_brainlm BIDS OUT participant --participant-label 001 --model minilm
  bids_brainlm BIDS OUT participant --dry-run
  bids_brainlm BIDS OUT group
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises this package's error instead of leaving."""

    def error(self, message: str) -> NoReturn:
        """Turn a usage error into exit code 64."""
        unknown = message.removeprefix("unrecognized arguments: ")
        close = ""
        if unknown != message:
            flags = [f for action in self._actions for f in action.option_strings]
            close = config.suggest(unknown.split()[0], flags)
        raise ConfigError(f"{message}.{close}")


def parser() -> argparse.ArgumentParser:
    """Make the argument parser from the declared settings (imports nothing heavy)."""
    made = _Parser(
        prog="bids_brainlm",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("bids_dir", metavar="BIDS_DIR", type=Path, help="the BIDS dataset")
    made.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="results; also the cache")
    made.add_argument("level", metavar="{participant,group,stimulus}", help="what to compute")
    made.add_argument("--version", action="version", version=f"bids_brainlm {__version__}")
    made.add_argument("-v", "--verbose", action="store_true", help="also show details")
    made.add_argument(
        "--preset",
        metavar="{" + ",".join(config.presets()) + "}",
        default="default",
        help="named set of settings; 'paper' is Kumar, Sumers et al. (2024)",
    )
    made.add_argument("--config-file", metavar="FILE.toml", type=Path, help="settings in TOML")
    for section, kind in config.SECTIONS.items():
        group = made.add_argument_group((kind.__doc__ or section).rstrip("."))
        for item in fields(kind):
            _add_setting(group, item)
    return made


def _add_setting(group: Any, item: Any) -> None:
    """Add the flag of one declared setting."""
    meta = item.metadata
    flags = [*meta["flags"], "--" + item.name.replace("_", "-")]
    text = meta["help"].replace("%", "%%")
    default = config.default_of(item)
    if default not in ("", (), False, 0, 0.0) or item.name in ("gap",):
        shown = (
            " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in default)
            if (isinstance(default, tuple))
            else default
        )
        text += f" (default: {shown}{' ' + meta['unit'] if meta['unit'] else ''})"
    if isinstance(default, bool):
        group.add_argument(*flags, dest=item.name, action="store_true", default=None, help=text)
        return
    metavar = meta["metavar"] or (
        "{" + ",".join(meta["choices"]) + "}" if meta["choices"] else item.name.upper()
    )
    group.add_argument(
        *flags,
        dest=item.name,
        default=None,
        nargs="+" if meta["many"] else None,
        metavar=metavar,
        help=text,
    )


def parse(argv: Sequence[str]) -> config.Config:
    """Turn arguments into checked settings.

    Parameters
    ----------
    argv : sequence of str
        Arguments without the program's name. ``--participant_label`` and
        ``--participant-label`` are the same.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        A flag or a value is wrong (64).
    AnalysisLevelError
        The level is unknown (17).
    """
    spelled = [_dashes(a) for a in argv]
    values = vars(parser().parse_args(spelled))
    level = values.pop("level")
    if level not in LEVELS:
        raise AnalysisLevelError(
            f"Analysis level is {level!r}, expected stimulus, participant or group."
            f"{config.suggest(level, LEVELS)}"
        )
    base = config.Config(
        bids_dir=values.pop("bids_dir"),
        output_dir=values.pop("output_dir").absolute(),
        level=LEVELS[level],
        preset=values.pop("preset"),
        verbose=values.pop("verbose"),
    )
    file = values.pop("config_file")
    flags = {
        name: config.check(name, value, "--" + name.replace("_", "-"))
        for name, value in values.items()
        if value is not None
    }
    stored = config.read_file(file) if file else {}
    return config.build(base, config.read_preset(base.preset), stored, flags)


def _dashes(argument: str) -> str:
    """Spell a flag with dashes; leave values alone."""
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app and return its exit code; never raises and never leaves by itself."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["-v"]:  # BIDS-Apps print their version for a lone -v
        arguments = ["--version"]
    try:
        settings = parse(arguments)
    except SystemExit as stop:  # argparse leaves after --help and --version
        return int(stop.code or 0)
    except BrainLMError as error:
        return _report(error)
    return _run(settings)


def print_out(text: str) -> None:
    """Write a result, such as a dry run's plan, to stdout."""
    sys.stdout.write(text + "\n")


def run_id() -> str:
    """Return a name for a call's log files that no other call has, not even of this process."""
    now = time.time_ns()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.localtime(now // 10**9))
    return f"{stamp}{now // 10**6 % 1000:03d}p{os.getpid()}"


def set_environment(settings: config.Config) -> None:
    """Set what libraries read when they are imported: threads."""
    threads = str(settings.execution.omp_nthreads)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = threads
    # Threads that wait must sleep: on a shared node spinning ones slow all processes down.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _run(settings: config.Config) -> int:
    """Call the runner and turn what it raises into a number."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        set_environment(settings)
        execution = settings.execution
        with caches.settled(execution.work_dir, offline=execution.offline) as offline:
            from bids_brainlm import runner

            settings = replace(settings, execution=replace(execution, offline=offline))
            return runner.run(settings, run_id(), print_out)
    except BrainLMError as error:
        return _report(error)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. Finished results are kept; the same command goes on.\n")
        return INTERRUPTED
    except OSError as error:
        return _report(ReadWriteError(f"{error.filename or 'A file'}: {error.strerror or error}."))
    except Exception:  # noqa: BLE001  a bug: say so, with the traceback
        sys.stderr.write(traceback.format_exc())
        sys.stderr.write(f"This is a bug of bids_brainlm {__version__}. Please report it.\n")
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(signum: int, frame: object) -> NoReturn:
    """Let SIGTERM end the run as Ctrl-C does."""
    raise KeyboardInterrupt


def _report(error: BrainLMError) -> int:
    """Tell a user's error in words and return its exit code."""
    sys.stderr.write(f"Error: {error}\n")
    return error.exit_code


def entry() -> NoReturn:
    """Console script: leave at once after an interruption, without waiting for threads."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if code == INTERRUPTED:
        os._exit(code)
    sys.exit(code)
