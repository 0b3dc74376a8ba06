"""``bids_brainlm-jobs``: write job scripts, one task a participant, for the queue of a cluster."""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from bids_brainlm import __version__, cli, config, queues
from bids_brainlm.bidsio import write
from bids_brainlm.config import Config
from bids_brainlm.errors import BrainLMError, ConfigError, OutputError, SelectionError
from bids_brainlm.plan import cost, fit, participant
from bids_brainlm.plan.records import Plan
from bids_brainlm.queues import QUEUES, Request

HELP = ("-h", "--help", "--version")
LABELS = ("--participant-label", "--participant_label")
SPARE_MEMORY = 1.25  # of what the model of memory says
SPARE_TIME = 3.0  # of what the model of time says: nodes differ, and disks are shared
LEAST_GB = 2.0

EPILOG = """\
Writes into JOBS_DIR: participants.txt, job.sh (what every job runs), submit.sh (hands in the
stories, an array with one task a participant, and the group, in this order) and commands.txt (one
command a participant). Nothing is handed in. Memory and time limits follow from the plan, with room
to spare. Options of this program stand before QUEUE, those of bids_brainlm after OUTPUT_DIR.

example:
  bids_brainlm-jobs --image brainlm.sif --cores 4 slurm jobs BIDS OUT --model minilm
  jobs/submit.sh
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises this package's error instead of leaving."""

    def error(self, message: str) -> NoReturn:
        """Turn a usage error into exit code 64."""
        raise ConfigError(f"{message}.", hint="See bids_brainlm-jobs --help.")


def parser() -> argparse.ArgumentParser:
    """Make the argument parser."""
    made = _Parser(
        prog="bids_brainlm-jobs",
        description=__doc__,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "queue",
        choices=tuple(QUEUES),
        metavar="QUEUE",
        help="; ".join(f"{name}: {queue.title}" for name, queue in QUEUES.items()),
    )
    made.add_argument("jobs_dir", metavar="JOBS_DIR", type=Path, help="gets the scripts and logs")
    made.add_argument("bids_dir", metavar="BIDS_DIR", type=Path, help="the BIDS dataset")
    made.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="results of all jobs")
    made.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="...", help="options of bids_brainlm"
    )
    made.add_argument("--version", action="version", version=f"bids_brainlm {__version__}")
    made.add_argument("--image", type=Path, metavar="FILE", help="run this Apptainer image")
    made.add_argument("--cores", type=int, default=1, metavar="N", help="of each job (default: 1)")
    made.add_argument("--hours", type=int, metavar="N", help="time limit (default: from the plan)")
    made.add_argument(
        "--memory-gb", type=int, metavar="N", help="of each job (default: from the plan)"
    )
    made.add_argument(
        "--concurrent", type=int, default=0, metavar="N", help="tasks at once (default: no limit)"
    )
    made.add_argument(
        "--directive",
        action="append",
        default=[],
        metavar="OPTION",
        help="further option of the queue, such as --directive=--partition=main; may be repeated",
    )
    made.add_argument("--overwrite", action="store_true", help="replace scripts in JOBS_DIR")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Write the scripts and tell what they ask for; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        _run(parser().parse_args(arguments))
    except SystemExit as stop:  # argparse leaves after --help and --version
        return int(stop.code or 0)
    except BrainLMError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    return 0


def _run(given: argparse.Namespace) -> None:
    """Plan, write, and say what was written."""
    words = [word for word in given.options if word != "--"]
    call = [str(given.bids_dir), str(given.output_dir), "participant", *words]
    settings = cli.parse(call)
    _check(given, settings)
    plan = participant.plan(settings)
    if not plan.participants:
        raise SelectionError("There is no participant to make jobs for.")
    request = _request(given, settings, plan, _without_labels(words))
    files = {
        "participants.txt": "".join(f"{label}\n" for label in plan.participants),
        "commands.txt": queues.commands(request),
        "job.sh": queues.job_script(given.queue, request),
        "submit.sh": queues.submit_script(given.queue, request),
    }
    there = [name for name in files if (request.folder / name).exists()]
    if there and not given.overwrite:
        raise OutputError(
            f"{request.folder} has {', '.join(there)} already.",
            hint="Choose another JOBS_DIR, or replace them with --overwrite before QUEUE.",
        )
    write.probe_write(request.folder / "logs")  # queues lose the output of jobs without it
    for name, text in files.items():
        write.write_text(request.folder / name, text)
        if name.endswith(".sh"):
            (request.folder / name).chmod(0o755)
    sys.stdout.write(_summary(given.queue, request, plan))


def _check(given: argparse.Namespace, settings: Config) -> None:
    """Refuse what makes no sense in a job."""
    execution = settings.execution
    for flag, wrong in (
        (f"--executor {execution.executor}", execution.executor != "local"),
        ("--dry-run", execution.dry_run),
        ("--reports-only", execution.reports_only),
    ):
        if wrong:
            raise ConfigError(
                f"{flag} is among the options, found where each job is a call of its own.",
                hint=f"Leave {flag.split()[0]} out, or call bids_brainlm with it.",
            )
    for name in ("cores", "hours", "memory_gb"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}, expected 1 or more.")
    if given.concurrent < 0:
        raise ConfigError(f"--concurrent is {given.concurrent}, expected 0 or more.")
    words = [*map(str, (given.jobs_dir, given.output_dir)), *given.directive, *given.options]
    if any(char in word for word in words for char in "\n\r\0"):
        raise ConfigError("Found a line break in an argument, expected one line.")
    if any(char.isspace() for char in str(given.jobs_dir.resolve())):
        raise ConfigError(f"JOBS_DIR {given.jobs_dir} has a space in it, which queues do not take.")
    if given.image is not None and not given.image.exists():
        raise ConfigError(f"--image {given.image} is not there.")


def _without_labels(words: Sequence[str]) -> tuple[str, ...]:
    """Return options without the selection of participants, which each job has its own of."""
    kept: list[str] = []
    inside = False
    for word in words:
        if word.startswith("-"):
            inside = word.partition("=")[0] in LABELS
        if not inside:
            kept.append(word)
    return tuple(kept)


def _request(
    given: argparse.Namespace, settings: Config, plan: Plan, flags: tuple[str, ...]
) -> Request:
    """Return what the jobs ask for: the largest participant's needs, with room to spare."""
    needs = SPARE_MEMORY * fit.peak_gb(plan.jobs, settings, given.cores)
    mem_gb = settings.execution.mem_gb or math.ceil(2 * max(LEAST_GB, needs)) / 2
    if given.memory_gb and not settings.execution.mem_gb:
        mem_gb = 0.9 * given.memory_gb
    hours = math.ceil(SPARE_TIME * _seconds(plan, settings) / 3600)
    people = settings.inputs.participant_label
    return Request(
        folder=given.jobs_dir.resolve(),
        cwd=Path.cwd(),
        arguments=(given.bids_dir.resolve(), given.output_dir.resolve()),
        flags=flags,
        people=tuple(plan.participants) if people else (),
        n_participants=len(plan.participants),
        image=None if given.image is None else given.image.resolve(),
        binds=tuple(dict.fromkeys(_folders(settings))),
        cores=given.cores,
        mem_gb=mem_gb,
        memory_gb=given.memory_gb or math.ceil(1.1 * mem_gb),
        hours=given.hours or max(1, hours),
        concurrent=given.concurrent,
        options=tuple(given.directive),
    )


def _seconds(plan: Plan, settings: Config) -> float:
    """Return the core time of the stories, or of the participant with most to do.

    Jobs that share a call share its time, as if each participant were alone with a fraction of
    it; what the first of a story has to do comes on top for all.
    """
    own: Counter[str | None] = Counter()
    for jobs in cost.calls_of(plan.jobs):
        for person in {job.unit.participant for job in jobs}:
            mine = [job for job in jobs if job.unit.participant == person]
            own[person] += cost.estimate(jobs[0].step, cost.size_of(mine, settings)).seconds
    stories = own.pop(None, 0.0)
    return stories + max(own.values(), default=0.0)


def _folders(settings: Config) -> Iterator[Path]:
    """Yield folders that an image must see: the working directory and what settings name."""
    yield Path.cwd()
    for section in config.SECTIONS:
        if section == "execution":
            continue
        for item in fields(getattr(settings, section)):
            value = getattr(getattr(settings, section), item.name)
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, str) and one:
                    path = Path(one.rpartition("=")[2])
                    if len(path.parts) > 1 and path.exists():
                        yield path.resolve() if path.is_dir() else path.resolve().parent
    if settings.execution.models_dir:
        yield Path(settings.execution.models_dir).resolve()


def _summary(queue: str, request: Request, plan: Plan) -> str:
    """Say what was written, what it asks for and what comes next."""
    skipped = len({skip.participant for skip in plan.skipped} - {None})
    lines = [
        f"{request.folder}: job.sh, submit.sh, commands.txt, participants.txt",
        f"{request.n_participants} participants, {skipped} skipped; a task has "
        f"{request.cores} cores, {request.memory_gb} GB and {request.hours} h",
        f"{'Run' if queue == 'list' else 'Hand in'} with: {request.folder / 'submit.sh'}",
    ]
    return "\n".join(lines) + "\n"
