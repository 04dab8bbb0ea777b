"""The one exception whose message is written for the person at the terminal."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input, said in one sentence: the file or key, what was found, what was expected, what to do."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """``'; did you mean strided?'`` when a valid name is near, else an empty string."""
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
