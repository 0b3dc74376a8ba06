"""Work in jobs of Slurm, each of which is a worker of a Dask cluster.

Needs sbatch, scancel and sinfo, no accounting.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from bids_brainlm.config import Config
from bids_brainlm.errors import ConfigError, MissingInputError
from bids_brainlm.executors.clusters import (
    LEAVE_SECONDS,
    WAIT_SECONDS,
    Cluster,
    extra,
    import_dask,
    made,
)

SLURM_WORKERS = 8
HINT = "Use --executor slurm on a node from which sbatch works, or --executor local."


def check(config: Config, need_gb: float) -> None:
    """Make sure that Slurm answers and takes jobs of this kind; writes nothing.

    Parameters
    ----------
    config : Config
    need_gb : float
        Memory of the largest task.

    Raises
    ------
    ConfigError, MissingInputError
        As `slurm_cluster`.
    """
    import_dask("slurm")
    jobqueue = extra("dask_jobqueue.slurm", "slurm", "slurm")
    wanted = _wanted(config, need_gb)
    _slurm_answers()
    _try_out(jobqueue.SLURMJob("tcp://127.0.0.1:1", "check", **wanted).job_script())


def _wanted(config: Config, need_gb: float) -> dict[str, Any]:
    """Return what a job is to have; the rest comes from the site's files."""
    execution = config.execution
    try:
        options = shlex.split(execution.slurm_options)
    except ValueError as error:
        raise ConfigError(f"--slurm-options {execution.slurm_options!r}: {error}.") from error
    times = [o.partition("=")[2] for o in options if o.startswith("--time=")]
    return {
        "cores": 1,
        "processes": 1,
        "job_cpu": execution.omp_nthreads,
        "memory": f"{_each_gb(config, need_gb):.2f}GB",
        "walltime": times[-1] if times else None,
        "job_extra_directives": [o for o in options if not o.startswith("--time=")],
        "python": sys.executable,
    }


def _each_gb(config: Config, need_gb: float) -> float:
    """Return the memory of a worker, GB."""
    return config.execution.mem_gb or max(2.0, 1.5 * need_gb)


def slurm_cluster(config: Config, need_gb: float, say: Callable[[str], None]) -> Cluster:
    """Let Slurm start workers, one a job; jobs that end early are replaced.

    Parameters
    ----------
    config : Config
        ``nprocs`` is the number of workers (0: 8), ``mem_gb`` the memory of each,
        ``slurm_options`` goes to sbatch.
    need_gb : float
        Memory of the largest task.
    say : callable

    Returns
    -------
    Cluster

    Raises
    ------
    ConfigError
        ``slurm_options`` cannot be split into words.
    MissingInputError
        dask-jobqueue or Slurm is not installed, or sbatch refuses the job.

    Notes
    -----
    Settings of a site (interface, prologue, defaults) come from the files of dask-jobqueue,
    such as ``~/.config/dask/jobqueue.yaml``.
    """
    _, distributed = import_dask("slurm")
    jobqueue = extra("dask_jobqueue", "slurm", "slurm")
    execution = config.execution
    each, wanted = _each_gb(config, need_gb), _wanted(config, need_gb)
    logs = Path(execution.work_dir or config.output_dir / "logs").absolute() / "slurm"
    logs.mkdir(parents=True, exist_ok=True)
    cluster = jobqueue.SLURMCluster(
        **wanted,
        log_directory=str(logs),
        local_directory=str(logs),
        scheduler_options={"dashboard_address": ":0"},
    )
    n_workers = execution.nprocs or SLURM_WORKERS
    try:
        _try_out(cluster.job_script())
        client = distributed.Client(cluster, set_as_default=False)
        cluster.adapt(minimum=n_workers, maximum=n_workers)
        say(f"Slurm: {n_workers} jobs of {each:.1f} GB are asked for; waiting for the first.")
        _first_worker(client, say)
    except BaseException:
        cluster.close(timeout=LEAVE_SECONDS)
        raise
    done = made(Cluster(client, say, each, cluster), cluster.dashboard_link, say)
    done.n_workers = n_workers
    return done


def _try_out(script: str) -> None:
    """Let Slurm check a job script without running it."""
    with NamedTemporaryFile("w", suffix=".sh", encoding="utf-8") as stream:
        stream.write(script)
        stream.flush()
        tried = _called("sbatch", "--test-only", stream.name)
    if tried.returncode != 0:
        raise ConfigError(
            f"Slurm takes no jobs of this kind: {' '.join(tried.stderr.split())[-300:]}",
            hint="Check --slurm-options (partition, account, time), --mem-gb and --omp-nthreads.",
        )


def _slurm_answers() -> None:
    """Ask Slurm for its partitions."""
    found = _called("sinfo", "--noheader")
    if found.returncode != 0:
        what = " ".join(found.stderr.split())[-300:]
        raise MissingInputError(f"Slurm does not answer: {what}", hint=HINT)


def _called(*command: str) -> subprocess.CompletedProcess[str]:
    """Call one of Slurm's commands."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        raise MissingInputError(
            f"--executor slurm needs Slurm's commands, found no {command[0]} here.", hint=HINT
        ) from error
    except subprocess.TimeoutExpired as error:
        raise MissingInputError("Slurm does not answer within 60 s.", hint=HINT) from error


def _first_worker(client: Any, say: Callable[[str], None]) -> None:
    """Wait for a worker as long as the queue takes."""
    begun = time.monotonic()
    while True:
        try:
            client.wait_for_workers(1, timeout=WAIT_SECONDS)
        except OSError:
            minutes = (time.monotonic() - begun) / 60
            say(f"  Waiting for the first Slurm job since {minutes:.0f} min.")
        else:
            return
