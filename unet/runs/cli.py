"""The decorator of a command, which runs it with Hydra, and helpers for its arguments.

Nothing here imports torch, so that ``--help``, ``--cfg job`` and shell completion answer at once.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from unet.errors import UserError
from unet.io.config_keys import CONFIGS
from unet.io.default_weights import checkpoint_path
from unet.io.plugins import load_plugins
from unet.runs.error_messages import exit_with_error, several_values
from unet.runs.run_names import as_override, parse, quote_path, quote_words

# On a busy machine OpenMP threads that spin at every barrier slow each other down, and sleeping ones wake late: a short
# spin (tens of microseconds) is near the best of both. OpenMP reads the variable when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
"""Whether the user asked for tracebacks; read before this module sets the variable for Hydra itself."""


def program_name(command: str) -> str:
    """Return how a command is called in this process: ``unet-lab train``, or ``python train.py``."""
    program = Path(sys.argv[0])
    if program.stem == "unet-lab" or program.parts[-2:] == ("unet", "__main__.py"):
        return f"unet-lab {command}"
    return (
        "python train.py"
        if command == "train"
        else f"python scripts/{'check_data' if command == 'check' else command}.py"
    )


OmegaConf.register_new_resolver("program_name", program_name, replace=True)


class RefuseSweep(Callback):
    """A Hydra callback that exits with status 2 where a command other than ``train`` is started as a sweep."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        print(f"error: -m, --multirun: only train runs sweeps: {program_name('train')} -m KEY=A,B", file=sys.stderr)
        sys.exit(2)


def hydra_script(
    config_name: str, positional: str = "", several: bool = False
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Decorate a command, a function of the config that Hydra composes.

    An error becomes a message of one line and exit status 1, wrong usage exit status 2. ``HYDRA_FULL_ERROR=1`` brings
    the traceback back. The first argument may be the value of the key ``positional``: ``report outputs/SWEEP``; with
    ``several``, the first arguments may be a list of values.
    """

    def decorate(main: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(main)
        def report_error(config: DictConfig) -> Any:
            try:
                if config.get("plugins") and not runs_in_subprocess(config):
                    load_plugins(config.plugins)
                return main(config)
            except Exception as error:  # here, as Hydra adds lines to it
                if FULL_ERROR or HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise
                exit_with_error(error, config_name)

        configured = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(report_error)

        @functools.wraps(main)
        def run() -> None:
            is_value = [not word.startswith("-") and ("=" not in word or os.path.exists(word)) for word in sys.argv[1:]]
            values = sys.argv[1 : 1 + [*is_value, False].index(False)][: None if several else 1] if positional else []
            if len(values) == 1:
                sys.argv[1] = as_override(positional, values[0])
            elif values:
                quoted = [as_override(positional, value).partition("=")[2] for value in values]
                sys.argv[1 : 1 + len(values)] = [f"{positional}=[{','.join(quoted)}]"]
            sys.argv[1:] = [quote_words(quote_path(argument)) for argument in sys.argv[1:]]
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and the message is written here
            try:
                configured()
                sys.stdout.flush()  # here, where its error can still be reported
            except Exception as error:
                if FULL_ERROR:
                    raise
                exit_with_error(error, config_name)
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                sys.exit(128 + signal.SIGINT)
            finally:
                os.environ["HYDRA_FULL_ERROR"] = str(int(FULL_ERROR))

        return run

    return decorate


def runs_in_subprocess(config: DictConfig) -> bool:
    """Return whether this process only starts the jobs of a sweep, each in its own process."""
    return HydraConfig.get().mode == RunMode.MULTIRUN and config.subprocess_per_job


def require_keys(config: DictConfig, keys: Sequence[str], command: str) -> None:
    """Raise UserError unless every one of ``keys`` has a value."""
    for key in keys:
        if config[key] is None:
            raise UserError(f"{key}: is required; see {program_name(command)} --help")


def check_single_values(overrides: Sequence[str]) -> None:
    """Raise UserError where an override that Hydra does not compose has several values, such as ``data.root=a,b``."""
    for override in parse(overrides, None):
        if override.is_sweep_override():
            raise UserError(several_values(str(override.input_line)))


def as_path(value: Any) -> Path | None:
    """Return a config's value as a path, ``~`` expanded; None stays None."""
    return None if value is None else Path(str(value)).expanduser()


def as_checkpoints(value: Any) -> list[Path]:
    """Return a config's ``ckpt``, one or a list, as a list of paths."""
    return [checkpoint_path(str(one)) for one in (value if OmegaConf.is_list(value) else [value])]


def parse_size(key: str, value: Any, example: str) -> list[int]:
    """Return the numbers of a size: ``3x361x481`` -> [3, 361, 481]. Raises UserError."""
    numbers = str(value).lower().split("x")
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise UserError(f"{key}={value}: expected positive numbers joined by x, such as {example}")
    return [int(number) for number in numbers]
