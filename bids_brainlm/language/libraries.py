"""Keep other libraries in their place."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from writing progress bars, reports and deprecation warnings.

    Yields
    ------
    None
        What is set is put back afterwards.
    """
    from transformers.utils import logging as reports

    level, has_bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity(logging.CRITICAL)
    reports.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        reports.set_verbosity(level)
        if has_bars:
            reports.enable_progress_bar()


def import_torch() -> None:
    """Import torch; Ctrl-C and SIGTERM wait until it is there.

    An exception in the middle of the start of its C++ part would abort the process.
    """
    with _interrupts_wait():
        import torch
    del torch


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold interrupts back, and let them through at the end (only the main thread gets any)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if held:
        signal.raise_signal(held[0])
