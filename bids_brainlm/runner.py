"""Run a plan: skip what is done, make what is missing, keep errors to their participant."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from bids_brainlm import __version__, config, logs, pages
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
from bids_brainlm.plan import cost, group, participant
from bids_brainlm.plan.records import Plan
from bids_brainlm.steps import (
    alignment,
    attention,
    base,
    ceilings,
    comparison,
    controls,
    correspondence,
    decoding,
    encoding,
    features,
    heads,
    ladder,
    ladder_group,
    layers,
    linguistic,
    parcels,
    partial,
    pooled,
    reliability,
    representations,
    specialization,
    static,
    surprisal,
    words,
)
from bids_brainlm.steps import group as group_step
from bids_brainlm.steps.base import Job, Resources

STEPS: Mapping[str, ModuleType] = {
    "words": words,
    "features": features,
    "attention": attention,
    "surprisal": surprisal,
    "representations": representations,
    "linguistic": linguistic,
    "decoding": decoding,
    "static": static,
    "controls": controls,
    "parcels": parcels,
    "encoding": encoding,
    "heads": heads,
    "partial": partial,
    "ladder": ladder,
    "ceilings": ceilings,
    "reliability": reliability,
    "alignment": alignment,
    "group": group_step,
    "ladder_group": ladder_group,
    "correspondence": correspondence,
    "layers": layers,
    "comparison": comparison,
    "specialization": specialization,
    "pooled": pooled,
}


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
    level = group if settings.level == "group" else participant
    plan = level.plan(settings)
    states = _states(plan, settings)
    if settings.execution.dry_run:
        print_out(cost.text(plan, states, settings))
        return 0
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
    states = {job.record: base.state(job) for job in plan.jobs}
    others = [job for job in plan.jobs if states[job.record] == "other"]
    if others and not settings.execution.overwrite and not settings.execution.reports_only:
        job = others[0]
        raise OutputError(
            f"{job.record} was made with other settings ({base.difference(job)}); "
            f"{len(others)} of {len(plan.jobs)} results differ like this."
        )
    return states


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
            for step, jobs in self.plan.stages:
                self._stage(step, jobs)
        self._pages()
        return self._end()

    def _stage(self, step: str, jobs: Sequence[Job]) -> None:
        """Run the jobs of a stage that are not done, group by group."""
        groups: dict[object, list[Job]] = defaultdict(list)
        for job in jobs:
            if self.states[job.record] == "done":
                self.log.record({"step": step, "unit": str(job.unit), "skipped": True})
                continue
            broken = next((u for u in job.upstream if u.record in self.errors), None)
            if broken is not None:
                self.errors[job.record] = self.errors[broken.record]
                self.number += 1
                continue
            groups[job.group if job.group is not None else job.record].append(job)
        for several in groups.values():
            missing = self._still_missing(step, several)
            if missing:
                self._group(step, missing)

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

    def _group(self, step: str, jobs: Sequence[Job]) -> None:
        """Run jobs that share work; keep what failed."""
        module = STEPS[step]
        started = time.monotonic()
        self.number += len(jobs)
        who = str(jobs[0].unit) if len(jobs) == 1 else f"{_common(jobs)} ({len(jobs)} units)"
        self.log.say(f"[{self.number}/{self.total}] {step}: {who}")
        for job in jobs:
            if self.states[job.record] == "other":
                _forget(job)
        outcomes = module.run(jobs, module.params(self.settings), self._resources())
        seconds = time.monotonic() - started
        for outcome in outcomes:
            self._note(step, outcome, seconds / len(jobs))
        self._warn([w for outcome in outcomes for w in outcome.warnings])
        if self.failed and self.settings.execution.on_error == "stop":
            raise self.failed[0][1]

    def _note(self, step: str, outcome: base.Outcome, seconds: float) -> None:
        """Keep the outcome of a job."""
        job = outcome.job
        error = outcome.error
        self.log.record(
            {
                "step": step,
                "unit": str(job.unit),
                "key": job.key,
                "outputs": sorted(self.names.relative(p) for p in job.outputs.values()),
                "seconds": round(seconds, 3),
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

    def _resources(self) -> Resources:
        """Return what steps may use."""
        execution = self.settings.execution
        return Resources(
            out_dir=self.settings.output_dir,
            bids_dir=self.settings.bids_dir,
            nprocs=execution.nprocs or os.cpu_count() or 1,
            mem_gb=execution.mem_gb,
            device=execution.device,
            offline=execution.offline,
            models_dir=Path(execution.models_dir) if execution.models_dir else None,
            progress=self.log.tick,
        )

    def _pages(self) -> None:
        """Write reports and the methods section."""
        failed = [(job.unit, error.message) for job, error in self.failed]
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
