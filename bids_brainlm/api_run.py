"""Run the app from Python: settings in a mapping, errors as exceptions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bids_brainlm import caches, cli, config
from bids_brainlm.errors import AnalysisLevelError, ConfigError


def run(
    bids_dir: str | Path,
    out_dir: str | Path,
    level: str,
    settings: Mapping[str, object] | None = None,
    *,
    preset: str = "default",
    config_file: str | Path | None = None,
) -> int:
    """Run one level, as the command line does.

    Parameters
    ----------
    bids_dir, out_dir : path-like
        The BIDS dataset and the output dataset.
    level : {"stimulus", "participant", "group"}
    settings : mapping of str to object, optional
        Settings by the names of their flags, with dashes or underscores:
        ``{"participant_label": ["18"], "n_permutations": 1000, "dry_run": True}``. Paths may
        be `pathlib.Path`.
    preset : str
        Named set of settings.
    config_file : path-like, optional
        Settings in TOML; those of ``settings`` win.

    Returns
    -------
    int
        0.

    Raises
    ------
    BrainLMError
        What ends the command line with an exit code; the error has it as ``exit_code``. It is
        a `PartialFailureError` where some participants failed and the others are done.

    Notes
    -----
    Worker processes are started afresh (spawn): in a script, call this below
    ``if __name__ == "__main__":``. Notebooks need nothing of the kind.

    Examples
    --------
    >>> bids_brainlm.run("bids", "out", "group", {"n_bootstraps": 2000})  # doctest: +SKIP
    0
    """
    known = config.declared()
    flags: dict[str, object] = {}
    for given, value in (settings or {}).items():
        name = given.removeprefix("--").replace("-", "_")
        if name not in known:
            raise ConfigError(f"There is no setting {given!r}.{config.suggest(name, known)}")
        flags[name] = config.check(name, _as_text(value), given)
    if level not in cli.LEVELS:
        raise AnalysisLevelError(
            f"Analysis level is {level!r}, expected stimulus, participant or group."
            f"{config.suggest(level, cli.LEVELS)}"
        )
    base = config.Config(
        bids_dir=Path(bids_dir),
        output_dir=Path(out_dir).absolute(),
        level=cli.LEVELS[level],
        preset=preset,
        verbose=False,
    )
    stored = config.read_file(Path(config_file)) if config_file else {}
    return _run(config.build(base, config.read_preset(preset), stored, flags))


def _run(settings: config.Config) -> int:
    """Call the runner; the environment is afterwards as it was."""
    execution = settings.execution
    with (
        _environment_kept(),
        caches.settled(execution.work_dir, offline=execution.offline) as offline,
    ):
        cli.set_environment(settings)
        from bids_brainlm import runner

        settings = replace(settings, execution=replace(execution, offline=offline))
        return runner.run(settings, cli.run_id(), cli.print_out)


def _as_text(value: object) -> object:
    """Give paths as text, also those in a list."""
    if isinstance(value, (list, tuple)):
        return [_as_text(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Bring the environment variables back in the end."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
