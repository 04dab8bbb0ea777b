"""Handlers of signals that are replaced for a while."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], Any], *signums: int) -> Iterator[None]:
    """Call ``handler`` on these signals; the previous handlers are restored at the end."""
    handlers = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        yield
    finally:
        for signum, previous in handlers.items():
            signal.signal(signum, previous)


def exit_on_signal(signum: int, frame: FrameType | None) -> NoReturn:
    """Exit as on an error, so that child processes are ended."""
    sys.exit(128 + signum)
