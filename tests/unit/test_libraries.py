"""Interrupts wait while a library starts, and are never lost."""

from __future__ import annotations

import signal
import threading

import pytest

from bids_brainlm.language import libraries


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_comes_after_the_body_is_done(number):
    def handler(signum, frame):
        raise KeyboardInterrupt

    def interrupted():
        signal.raise_signal(number)
        done.append(True)

    before = signal.signal(number, handler)
    done = []
    try:
        with pytest.raises(KeyboardInterrupt), libraries._interrupts_wait():
            interrupted()
        assert done == [True]
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def test_errors_of_the_body_come_through_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ImportError), libraries._interrupts_wait():
        raise ImportError("no such library")
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_left_alone():
    found = []

    def work():
        with libraries._interrupts_wait():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]


def test_torch_is_imported():
    import sys

    libraries.import_torch()
    assert "torch" in sys.modules
