"""The exceptions whose messages are written for the person at the terminal."""

import difflib
import signal
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """Bad input, said in one sentence: the file or key, what was found, what was expected, what to do.

    One line, whatever a file's name or a library's message brings along.
    """

    def __init__(self, sentence: str):
        super().__init__(" ".join(sentence.splitlines()))


class DataUnavailable(UserError):
    """A file that could be read when the run began cannot be read any more."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """``'; did you mean strided?'`` when a valid name is near, else an empty string."""
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


class Interrupted(Exception):
    """A training that a signal stopped between two steps, its ``last.ckpt`` saved.

    Attributes:
        signum: the signal.
        checkpoint: where the run can go on.
    """

    def __init__(self, signum: int, step: int, checkpoint: Path):
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.signum, self.checkpoint = signum, checkpoint
