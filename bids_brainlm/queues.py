"""Job scripts for the queues of clusters: what differs between Slurm, Grid Engine, PBS and none."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """What the jobs of a study are, and what each of them asks for.

    ``cwd`` is where relative paths begin, ``arguments`` are BIDS_DIR and OUTPUT_DIR, ``flags`` go
    to all levels, ``people`` to the group (none: all that are there). ``memory_gb`` is asked of
    the queue, ``mem_gb`` is for the app; ``hours`` is the time limit. ``concurrent`` (0: no
    limit) is how many tasks run at once. ``options`` are further directives of the queue.
    """

    folder: Path
    cwd: Path
    arguments: tuple[Path, Path]
    flags: tuple[str, ...]
    people: tuple[str, ...]
    n_participants: int
    image: Path | None
    binds: tuple[Path, ...]
    cores: int
    mem_gb: float
    memory_gb: int
    hours: int
    concurrent: int
    options: tuple[str, ...]


@dataclass(frozen=True)
class Queue:
    """A kind of queue.

    ``title`` is for people, ``head`` gives the directives of a job script, ``task`` and ``job``
    are the variables with the numbers of a task (from 1) and of a job, ``submit`` gives the
    script that hands everything in.
    """

    title: str
    head: Callable[[Request], list[str]]
    task: str
    job: str
    submit: Callable[[Request], str]


# --- Slurm --------------------------------------------------------------------------------------


def _slurm_head(request: Request) -> list[str]:
    """Return directives of sbatch."""
    return [
        "#SBATCH --job-name=bids_brainlm",
        f"#SBATCH --cpus-per-task={request.cores}",
        f"#SBATCH --mem={request.memory_gb}G",
        f"#SBATCH --time={request.hours:02d}:00:00",
        f"#SBATCH --output={request.folder}/logs/%x-%j.log",
        *(f"#SBATCH {option}" for option in request.options),
    ]


def _slurm_submit(request: Request) -> str:
    """Return what hands the jobs to Slurm."""
    limit = f"%{request.concurrent}" if request.concurrent else ""
    return f"""\
stimulus=$(sbatch --parsable "$here/job.sh" stimulus)
array=$(sbatch --parsable --dependency="afterok:${{stimulus%%;*}}" --kill-on-invalid-dep=yes \\
    --array="1-{request.n_participants}{limit}" "$here/job.sh" participant)
group=$(sbatch --parsable --dependency="afterany:${{array%%;*}}" "$here/job.sh" group)
echo "stimulus ${{stimulus%%;*}}, participants ${{array%%;*}}, group ${{group%%;*}}"
"""


# --- Grid Engine --------------------------------------------------------------------------------


def _sge_head(request: Request) -> list[str]:
    """Return directives of qsub; memory counts for each core there."""
    each = -(-1000 * request.memory_gb // request.cores)
    return [
        "#$ -N bids_brainlm",
        "#$ -S /bin/bash",
        "#$ -V",
        *([f"#$ -pe smp {request.cores}"] if request.cores > 1 else []),
        f"#$ -l h_vmem={each}M",
        f"#$ -l h_rt={request.hours:02d}:00:00",
        "#$ -j y",
        f"#$ -o {request.folder}/logs",
        *(f"#$ {option}" for option in request.options),
    ]


def _sge_submit(request: Request) -> str:
    """Return what hands the jobs to Grid Engine; it has no condition on success."""
    limit = f" -tc {request.concurrent}" if request.concurrent else ""
    return f"""\
stimulus=$(qsub -terse "$here/job.sh" stimulus)
array=$(qsub -terse -hold_jid "$stimulus" -t 1-{request.n_participants}{limit} \\
    "$here/job.sh" participant)
array=${{array%%.*}}
group=$(qsub -terse -hold_jid "$array" "$here/job.sh" group)
echo "stimulus $stimulus, participants $array, group $group"
"""


# --- PBS ----------------------------------------------------------------------------------------


def _pbs_head(request: Request) -> list[str]:
    """Return directives of qsub of PBS Professional and OpenPBS."""
    return [
        "#PBS -N bids_brainlm",
        "#PBS -S /bin/bash",
        "#PBS -V",
        f"#PBS -l select=1:ncpus={request.cores}:mem={request.memory_gb}gb",
        f"#PBS -l walltime={request.hours:02d}:00:00",
        "#PBS -j oe",
        f"#PBS -o {request.folder}/logs/",
        *(f"#PBS {option}" for option in request.options),
    ]


def _pbs_submit(request: Request) -> str:
    """Return what hands the jobs to PBS, whose arrays have two tasks or more."""
    n_tasks = request.n_participants
    limit = f"%{request.concurrent}" if request.concurrent else ""
    array = f"-J 1-{n_tasks}{limit} " if n_tasks > 1 else ""
    level = "LEVEL=participant" + ("" if n_tasks > 1 else ",BRAINLM_TASK=1")
    return f"""\
stimulus=$(qsub -v LEVEL=stimulus "$here/job.sh")
array=$(qsub -v {level} -W depend=afterok:"$stimulus" {array}"$here/job.sh")
group=$(qsub -v LEVEL=group -W depend=afterany:"$array" "$here/job.sh")
echo "stimulus $stimulus, participants $array, group $group"
"""


# --- no queue -----------------------------------------------------------------------------------


def _list_submit(request: Request) -> str:
    """Return what runs everything on this machine; ``commands.txt`` is for other tools."""
    return f"""\
mkdir -p "$here/logs"
"$here/job.sh" stimulus
failed=0
seq {request.n_participants} | xargs -P {request.concurrent or 1} -I {{}} sh -c \\
    'BRAINLM_TASK={{}} "$0" participant > "$1/logs/participant-{{}}.log" 2>&1' \\
    "$here/job.sh" "$here" || failed=$?
"$here/job.sh" group
[ "$failed" = 0 ] || {{ echo "some participants failed, see $here/logs" >&2; exit 32; }}
"""


QUEUES: Mapping[str, Queue] = {
    "slurm": Queue(
        "Slurm",
        _slurm_head,
        "SLURM_ARRAY_TASK_ID",
        "SLURM_JOB_ID",
        _slurm_submit,
    ),
    "sge": Queue("Grid Engine", _sge_head, "SGE_TASK_ID", "JOB_ID", _sge_submit),
    "pbs": Queue(
        "PBS Professional and OpenPBS",
        _pbs_head,
        "PBS_ARRAY_INDEX",
        "PBS_JOBID",
        _pbs_submit,
    ),
    "list": Queue("no queue", lambda request: [], "BRAINLM_TASK", "BRAINLM_JOB", _list_submit),
}


def job_script(name: str, request: Request) -> str:
    """Return the script of every job.

    Parameters
    ----------
    name : str
        Name of the queue.
    request : Request

    Returns
    -------
    str
        Its first word is the level (or LEVEL is set); the participant is the line of
        ``participants.txt`` with the number of the task.
    """
    queue = QUEUES[name]
    bids, out = (shlex.quote(str(path)) for path in request.arguments)
    own = ("--nprocs", str(request.cores), "--mem-gb", f"{request.mem_gb:g}")
    flags = "\n".join(f"    {shlex.quote(word)}" for word in (*own, *request.flags))
    people = " ".join(map(shlex.quote, ("--participant-label", *request.people)))
    lines = [
        "#!/bin/bash",
        f"# One level, or one participant, of bids_brainlm; for {queue.title}.",
        "# Written by bids_brainlm-jobs, which may be called again; edit it as you like.",
        *queue.head(request),
        "set -euo pipefail",
        f"here={shlex.quote(str(request.folder))}",
        f"cd {shlex.quote(str(request.cwd))}",
        "level=${1:-${LEVEL:?stimulus, participant or group}}",
        f"task=${{BRAINLM_TASK:-${{{queue.task}:-}}}}",
        f"scratch=${{TMPDIR:-/tmp}}/bids_brainlm-${{{queue.job}:-$$}}_${{task:-0}}",
        "scratch=${scratch//[][]/}",
        "flags=(",
        flags,
        ")",
        "case $level in",
        '    participant) label=$(sed -n "${task:?number of a line}p" "$here/participants.txt")',
        '        flags+=(--participant-label "${label:?no such line in participants.txt}") ;;',
        f"    group) {f'flags+=({people})' if request.people else ':'} ;;",
        "esac",
        f'mkdir -p {out} "$scratch"',
        "trap 'rm -rf \"$scratch\"' EXIT",
        _call(request, bids, out),
    ]
    return "\n".join(lines) + "\n"


def _call(request: Request, bids: str, out: str) -> str:
    """Return the call of the app, in the image if there is one."""
    tail = f'{bids} {out} "$level" --work-dir "$scratch" "${{flags[@]}}"'
    if request.image is None:
        return f"{shlex.quote(sys.executable)} -m bids_brainlm {tail}"
    image = shlex.quote(str(request.image))
    more = " ".join(f"-B {shlex.quote(str(p))}:{shlex.quote(str(p))}:ro" for p in request.binds)
    cwd = shlex.quote(str(request.cwd))
    return (
        f"${{APPTAINER:-apptainer}} run --containall --cleanenv --no-home \\\n"
        f'    {more} -B {bids}:{bids}:ro -B {out} -B "$scratch" --pwd {cwd} \\\n'
        f"    {image} {tail}"
    )


def submit_script(name: str, request: Request) -> str:
    """Return the script that hands everything to a queue; arguments as `job_script`."""
    return (
        "#!/bin/bash\n"
        f"# Stories once, then {request.n_participants} participants, then the group.\n"
        "set -euo pipefail\n"
        f"here={shlex.quote(str(request.folder))}\n" + QUEUES[name].submit(request)
    )


def commands(request: Request) -> str:
    """Return one command a participant, for GNU parallel, disBatch and the like."""
    job = shlex.quote(str(request.folder / "job.sh"))
    return "".join(
        f"BRAINLM_TASK={k} {job} participant\n" for k in range(1, request.n_participants + 1)
    )
