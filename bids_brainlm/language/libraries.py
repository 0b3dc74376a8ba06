"""Keep other libraries in their place."""

from __future__ import annotations

import logging
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
