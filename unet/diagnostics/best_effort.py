"""Skip a diagnostic that cannot be computed."""

from collections.abc import Iterator
from contextlib import contextmanager

from unet.errors import UserError


@contextmanager
def skip_on_error(name: str) -> Iterator[None]:
    """Print the reason if the block raises an exception, and continue: a failed diagnostic must not fail the run."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        print(f"diagnostics: {name} skipped: {kind}{' '.join(str(error).split())}", flush=True)
