"""What is said of a diagnostic that cannot be computed."""

from collections.abc import Iterator
from contextlib import contextmanager

from unet.errors import UserError


def left_out(name: str, reason: str) -> None:
    """One line on the terminal."""
    print(f"diagnostics: {name} left out: {reason}", flush=True)


@contextmanager
def skip_on_error(name: str) -> Iterator[None]:
    """Whatever fails inside is left out with its reason: a run whose scores are computed does not fail any more."""
    try:
        yield
    except UserError as error:
        left_out(name, str(error))
    except Exception as error:
        left_out(name, f"{type(error).__name__}: {' '.join(str(error).split())}")
