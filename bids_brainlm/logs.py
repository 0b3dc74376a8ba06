"""What people read on stderr, and what is kept in ``logs/``."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bids_brainlm.errors import BrainLMError


class RunLog:
    """The log of one call: a text for people and one JSON line per job.

    Parameters
    ----------
    text : Path or None
        File for everything at DEBUG level; None keeps no files (dry run).
    records : Path or None
        File with one JSON object a job.
    """

    def __init__(self, text: Path | None, records: Path | None) -> None:
        self.text, self._records = text, records
        self._started = time.monotonic()
        self._last = 0.0

    def say(self, message: str) -> None:
        """Tell people something on stderr, with the time since the start."""
        seconds = time.monotonic() - self._started
        sys.stderr.write(f"[{int(seconds // 60):3d}:{seconds % 60:04.1f}] {message}\n")
        sys.stderr.flush()
        logging.getLogger("bids_brainlm").debug(message)

    def tick(self, message: str) -> None:
        """Tell about progress within a job, at most every two seconds."""
        now = time.monotonic()
        if now - self._last >= 2:
            self._last = now
            self.say("  " + message)

    def record(self, content: Mapping[str, object]) -> None:
        """Append one JSON line; a full disk must not end a run here."""
        if self._records is None:
            return
        try:
            with self._records.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(content, default=str) + "\n")
        except OSError as error:
            logging.getLogger(__name__).debug("record not kept: %s", error)


class _FileHandler(logging.FileHandler):
    """A log file that a full disk does not turn into a traceback on stderr."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the base's name
        """Lose the line."""


@contextmanager
def kept(text: Path | None, records: Path | None, *, verbose: bool) -> Iterator[RunLog]:
    """Attach handlers for one call and take them away afterwards."""
    logger = logging.getLogger("bids_brainlm")
    before = logger.level
    handlers: list[logging.Handler] = []
    if text is not None:
        handlers.append(_FileHandler(text, encoding="utf-8"))
        handlers[-1].setLevel(logging.DEBUG)
    if verbose:
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[-1].setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    log = RunLog(text, records)
    try:
        yield log
    except BrainLMError as error:
        logger.debug("%s", error, exc_info=True)
        raise
    except Exception:
        logger.debug("unexpected", exc_info=True)
        if text is not None:
            log.say(f"The log of this call is {text}")
        raise
    finally:
        logger.setLevel(before)
        logger.propagate = True
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
