"""``bids_brainlm-fetch``: models, atlases and spaCy pipelines ahead of time."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bids_brainlm import __version__
from bids_brainlm.errors import BrainLMError, ConfigError, MissingInputError


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises this package's error instead of leaving."""

    def error(self, message: str) -> NoReturn:
        """Turn a usage error into exit code 64."""
        raise ConfigError(f"{message}.", hint="See bids_brainlm-fetch --help.")


def parser() -> argparse.ArgumentParser:
    """Make the argument parser (imports nothing heavy)."""
    made = _Parser(prog="bids_brainlm-fetch", description=__doc__, allow_abbrev=False)
    made.add_argument("--version", action="version", version=f"bids_brainlm {__version__}")
    made.add_argument("--model", nargs="+", default=[], metavar="NAME", help="language models")
    made.add_argument("--models-dir", metavar="PATH", help="where models are kept")
    made.add_argument("--atlas", nargs="+", default=[], metavar="NAME", help="TemplateFlow atlases")
    made.add_argument("--space", default="MNI152NLin2009cAsym", help="template of the atlases")
    made.add_argument("--spacy", nargs="+", default=[], metavar="NAME", help="spaCy pipelines")
    made.add_argument("--check", action="store_true", help="only tell what is at hand; no network")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch, or check, what is named; return the exit code."""
    try:
        given = parser().parse_args(argv)
    except SystemExit as stop:  # argparse leaves after --help and --version
        return int(stop.code or 0)
    except BrainLMError as error:
        return _report(error)
    try:
        if not (given.model or given.atlas or given.spacy):
            raise ConfigError(
                "Nothing to fetch, expected --model, --atlas or --spacy.",
                hint="For example: bids_brainlm-fetch --model google-bert/bert-base-uncased",
            )
        for name in given.model:
            _say(_model(name, given.models_dir, check=given.check))
        for name in given.atlas:
            _say(_atlas(name, given.space, check=given.check))
        for name in given.spacy:
            _say(_pipeline(name, check=given.check))
    except BrainLMError as error:
        return _report(error)
    return 0


def _say(text: str) -> None:
    """Write one line to stdout."""
    sys.stdout.write(text + "\n")


def _report(error: BrainLMError) -> int:
    """Tell an error in words and return its exit code."""
    sys.stderr.write(f"Error: {error}\n")
    return error.exit_code


def _model(name: str, models_dir: str | None, *, check: bool) -> str:
    """Make sure that a model is at hand."""
    from bids_brainlm.language import models, sources

    found = sources.resolve(name, models_dir, offline=check)
    if found.needs_download:
        folder = models.download(found.name, models_dir)
    else:
        folder = found.path or Path("built in")
    return f"model {name}: {folder}"


def _atlas(name: str, space: str, *, check: bool) -> str:
    """Make sure that an atlas is at hand."""
    from bids_brainlm.bidsio import atlas

    found = atlas.resolve_atlas(name, space, offline=check)
    return f"atlas {name} ({found.n_parcels} parcels): {found.path}"


def _pipeline(name: str, *, check: bool) -> str:
    """Make sure that a spaCy pipeline is at hand."""
    from bids_brainlm.language import pipelines

    try:
        folder = pipelines.find(name)
    except MissingInputError:
        if check or not pipelines.PACKAGE_NAME.fullmatch(name) or Path(name).exists():
            raise
        _download_pipeline(name)
        importlib.invalidate_caches()
        folder = pipelines.find(name)
    return f"spaCy pipeline {name}: {folder}"


def _download_pipeline(name: str) -> None:
    """Let spaCy download a pipeline with pip; it leaves the program when it cannot."""
    from spacy.cli import download

    try:
        download(name)
    except (SystemExit, OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise MissingInputError(
            f"The spaCy pipeline {name} could not be downloaded ({reason}).",
            hint="Check the name and the network, or install it by hand: python -m spacy "
            f"download {name}",
        ) from error
