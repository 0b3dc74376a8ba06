"""Run a plan: skip what is done, make what is missing, keep errors to their participant."""

from __future__ import annotations

import gc
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from bids_brainlm import __version__, config, logs
from bids_brainlm.bidsio import describe, temporary, write
from bids_brainlm.bidsio.names import Names
from bids_brainlm.config import Config
from bids_brainlm.errors import (
    BrainLMError,
    ConfigError,
    OutputError,
    PartialFailureError,
    ReadWriteError,
)
from bids_brainlm.executors import choose
from bids_brainlm.executors.work import Done, Executor, Task
from bids_brainlm.plan import cost, fit
from bids_brainlm.plan.records import Plan
from bids_brainlm.steps import base
from bids_brainlm.steps.base import Job

_N_READERS = 4  # threads that read earlier results: they wait for the disk most of the time
_AT_ONCE = 32  # jobs that such a thread takes


def run(settings: Config, run_id: str, print_out: Callable[[str], None]) -> int:
    """Do what a call asks for.

    Parameters
    ----------
    settings : Config
    run_id : str
        Name of this call's log files.
    print_out : callable
        Receives the text of a dry run.

    Returns
    -------
    int
        0.

    Raises
    ------
    BrainLMError
        As the contract's exit codes say; `PartialFailureError` when some participants failed.
    """
    _check_folders(settings)
    names = Names(settings.output_dir)
    describe.check_output(names, __version__)
    with _no_collection():
        plan = _plan(settings)
        states = _states(plan, settings)
    todo = [job for job in plan.jobs if states[job.record] != "done"]
    if not settings.execution.reports_only:
        fit.refuse_what_cannot_fit(todo, settings)
    if settings.execution.dry_run:
        print_out(cost.text(plan, states, settings))
        return 0
    if todo and not settings.execution.reports_only:
        choose.check(settings, fit.largest_gb(todo, settings))
    write.probe_write(settings.output_dir)
    temporary.sweep(settings.output_dir)
    describe.describe_output(
        names,
        __version__,
        sources=plan.sources,
        links=plan.links,
        descriptions=plan.descriptions,
        image=describe.container(os.environ),
    )
    text = names.path("run_log", {"run_id": run_id})
    records = names.path("run_records", {"run_id": run_id})
    write.write_text(names.path("run_settings", {"run_id": run_id}), config.to_toml(settings))
    with logs.kept(text, records, verbose=settings.verbose) as log:
        return _Run(settings, plan, states, names, log).go()


def _plan(settings: Config) -> Plan:
    """Plan a level; the other one's steps are not loaded."""
    if settings.level == "group":
        from bids_brainlm.plan import group

        return group.plan(settings)
    from bids_brainlm.plan import participant

    return participant.plan(settings)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Do not look for cycles among the hundred thousands of objects of a plan while it grows."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_folders(settings: Config) -> None:
    """Refuse to write into the input."""
    out, bids = settings.output_dir.resolve(), settings.bids_dir.resolve()
    if out == bids or bids.is_relative_to(out):
        raise ConfigError(
            f"OUTPUT_DIR {settings.output_dir} is or contains BIDS_DIR {settings.bids_dir}; the "
            "input is never written to.",
            hint=f"Use for example {settings.bids_dir / 'derivatives' / 'bids_brainlm'}.",
        )


def _states(plan: Plan, settings: Config) -> dict[Path, str]:
    """Tell of every job whether it is done; refuse results of other settings."""
    jobs = plan.jobs
    parts = [jobs[k : k + _AT_ONCE] for k in range(0, len(jobs), _AT_ONCE)]
    found = base.each(_states_of, parts, _N_READERS, writes=False)
    states = {record: state for part in found for record, state in part}
    others = [job for job in jobs if states[job.record] == "other"]
    if others and not settings.execution.overwrite and not settings.execution.reports_only:
        job = others[0]
        raise OutputError(
            f"{job.record} was made with other settings ({base.difference(job)}); "
            f"{len(others)} of {len(jobs)} results differ like this."
        )
    return states


def _states_of(jobs: Sequence[Job]) -> list[tuple[Path, str]]:
    """Return record and state of some jobs."""
    return [(job.record, base.state(job)) for job in jobs]


class _Run:
    """One call on its way through the plan."""

    def __init__(
        self,
        settings: Config,
        plan: Plan,
        states: dict[Path, str],
        names: Names,
        log: logs.RunLog,
    ) -> None:
        self.settings, self.plan, self.states, self.names, self.log = (
            settings,
            plan,
            states,
            names,
            log,
        )
        self.errors: dict[Path, BrainLMError] = {}
        self.failed: list[tuple[Job, BrainLMError]] = []
        self.number = 0

    def go(self) -> int:
        """Work through all stages, then write the reports."""
        todo = [job for job in self.plan.jobs if self.states[job.record] != "done"]
        self.log.say(
            f"{self.settings.level} level: {len(todo)} of {len(self.plan.jobs)} units to make, "
            f"{len(self.plan.jobs) - len(todo)} are done already."
        )
        for skip in self.plan.skipped:
            self.log.say(f"Skipped {skip.what}: {skip.why}")
        self.total = len(todo)
        if not self.settings.execution.reports_only:
            for job in self.plan.jobs:
                if self.states[job.record] == "done":
                    self.log.record({"step": job.step, "unit": str(job.unit), "skipped": True})
            if todo:
                self._work(todo)
        self._pages()
        return self._end()

    def _work(self, todo: Sequence[Job]) -> None:
        """Make what is not done: stage by stage, or in waves of what can run at once."""
        self.executor: Executor = choose.choose(
            self.settings, fit.largest_gb(todo, self.settings), self.log.say, self.log.tick
        )
        try:
            stages = [jobs for _, jobs in self.plan.stages]
            for jobs in _waves(self.plan.jobs) if self.executor.distributed else stages:
                for done in self.executor.perform(self._tasks(jobs)):
                    self._note_all(done)
        finally:
            self.executor.close()
            if self.executor.distributed:  # what workers that died left behind
                temporary.sweep(self.settings.output_dir)

    def _tasks(self, jobs: Sequence[Job]) -> Iterator[Task]:
        """Yield the work on jobs that can be done and are not, when its turn has come."""
        groups: dict[object, list[Job]] = defaultdict(list)
        for job in jobs:
            if self.states[job.record] == "done":
                continue
            broken = next((u for u in job.upstream if u.record in self.errors), None)
            if broken is not None:
                self.errors[job.record] = self.errors[broken.record]
                self.number += 1
                continue
            groups[job.step, job.group if job.group is not None else job.record].append(job)
        for (step, _), several in groups.items():
            for part in self._parts(several):
                missing = self._still_missing(step, part)
                if missing:
                    yield self._task(step, missing)

    def _parts(self, jobs: list[Job]) -> list[list[Job]]:
        """Divide jobs that share work among the workers of a cluster; results are the same."""
        if not self.executor.distributed:
            return [jobs]
        size = -(-len(jobs) // (2 * self.executor.n_workers))
        return [jobs[k : k + size] for k in range(0, len(jobs), size)]

    def _still_missing(self, step: str, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs that no other process has done since this call began."""
        missing = []
        for job in jobs:
            if self.states[job.record] == "missing" and base.state(job) == "done":
                self.states[job.record] = "done"
                self.number += 1
                self.log.record({"step": step, "unit": str(job.unit), "skipped": True})
            else:
                missing.append(job)
        return missing

    def _task(self, step: str, jobs: Sequence[Job]) -> Task:
        """Take away other makings of jobs that share work, and say what comes."""
        self.number += len(jobs)
        who = str(jobs[0].unit) if len(jobs) == 1 else f"{_common(jobs)} ({len(jobs)} units)"
        self.log.say(f"[{self.number}/{self.total}] {step}: {who}")
        for job in jobs:
            if self.states[job.record] == "other":
                _forget(job)
        n_workers, mem_gb = self.executor.shape(fit.need_gb(jobs, self.settings))
        return Task(step, tuple(jobs), self.settings, n_workers, mem_gb, Path.cwd())

    def _note_all(self, done: Done) -> None:
        """Keep what became of a task; end the call at the first failure, unless told otherwise."""
        for outcome in done.outcomes:
            self._note(outcome, done)
        self._warn([w for outcome in done.outcomes for w in outcome.warnings])
        if self.failed and self.settings.execution.on_error == "stop":
            raise self.failed[0][1]

    def _note(self, outcome: base.Outcome, done: Done) -> None:
        """Keep the outcome of a job; jobs that share work share its time."""
        job = outcome.job
        error = outcome.error
        self.log.record(
            {
                "step": done.task.step,
                "unit": str(job.unit),
                "key": job.key,
                "outputs": sorted(self.names.relative(p) for p in job.outputs.values()),
                "seconds": round(done.seconds / len(done.task.jobs), 3),
                "core_seconds": round(done.core_seconds / len(done.task.jobs), 3),
                "peak_gb": round(done.peak_gb, 3),
                "error": None if error is None else str(error),
                "skipped": False,
            }
        )
        if error is None:
            return
        known = error if isinstance(error, BrainLMError) else ReadWriteError(str(error))
        self.errors[job.record] = known
        self.failed.append((job, known))
        self.log.say(f"  Failed {job.unit}: {known.message}")
        logging.getLogger(__name__).debug("failed", exc_info=known)

    def _warn(self, warnings: Sequence[str]) -> None:
        """Tell each kind of warning once, with the number of runs it is about."""
        kinds = Counter(w.split(": ", 1)[-1] for w in warnings)
        for warning in warnings:
            kind = warning.split(": ", 1)[-1]
            count = kinds.pop(kind, 0)
            if count:
                self.log.say(f"  Warning: {warning if count == 1 else f'{count} runs: {kind}'}")

    def _pages(self) -> None:
        """Write reports and the methods section."""
        from bids_brainlm import pages

        failed = [(job.unit, str(error)) for job, error in self.failed]
        pages.write_pages(self.settings, self.plan, failed, self.names, self.log)

    def _end(self) -> int:
        """Say what became of the call."""
        if self.failed:
            self._raise_failures()
        if (
            self.settings.level == "group"
            and self.plan.skipped
            and any(s.participant for s in self.plan.skipped)
        ):
            raise PartialFailureError(
                f"Done without {', '.join(s.what for s in self.plan.skipped if s.participant)}."
            )
        self.log.say("Done.")
        return 0

    def _raise_failures(self) -> NoReturn:
        """Raise the only error there is, or say who failed and who is done."""
        bad = {j.unit.participant for j in self.plan.jobs if j.record in self.errors} - {None}
        good = [p for p in self.plan.participants if p not in bad]
        if self.settings.level == "participant" and not good:
            raise self.failed[0][1]
        what = sorted(bad) or sorted(str(job.unit) for job, _ in self.failed)
        raise PartialFailureError(
            f"{len(what)} failed ({', '.join(what)}), {len(good)} participants are done. "
            f"First: {self.failed[0][1].message}"
        )


def _waves(jobs: Sequence[Job]) -> list[list[Job]]:
    """Put jobs into waves: each job comes after all jobs that it builds on."""
    depth: dict[Path, int] = {}
    waves: list[list[Job]] = []
    for job in jobs:
        depth[job.record] = 1 + max((depth.get(u.record, -1) for u in job.upstream), default=-1)
        if depth[job.record] == len(waves):
            waves.append([])
        waves[depth[job.record]].append(job)
    return waves


def _common(jobs: Sequence[Job]) -> str:
    """Name what the jobs of a group share."""
    unit = jobs[0].unit
    same = [
        value
        for value in (unit.story, unit.model, unit.feature)
        if value and all(value in (j.unit.story, j.unit.model, j.unit.feature) for j in jobs)
    ]
    return " ".join(same) or "all stories"


def _forget(job: Job) -> None:
    """Take away another making: its record, and files that the new one does not make.

    Files of both are never taken for the new one's without a record, and are replaced. A
    record with the same key stays, since another process may be reading it.
    """
    old = base.outputs_of_record(job)
    job.record.unlink(missing_ok=True)
    for path in old - set(job.outputs.values()) - {job.record}:
        path.unlink(missing_ok=True)
