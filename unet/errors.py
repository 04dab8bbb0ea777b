"""The exceptions whose messages are written for the user."""

import difflib
import signal
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """An error of the user's input; the message of one line has file or key, found, expected, and what to do."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))  # a file's name or a library's message may have several


class DataUnavailable(UserError):
    """An error for a file that was readable when the run started and no longer is."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return ``'; did you mean strided?'`` where a valid name is similar, else an empty string."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else ""


class Interrupted(Exception):
    """The end of a training by a signal, between two steps and after ``last.ckpt``, the checkpoint, was saved."""

    def __init__(self, signum: int, step: int, checkpoint: Path):
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.signum, self.checkpoint = signum, checkpoint
