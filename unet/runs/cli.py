"""Around a Hydra command: clear errors, exit statuses, and folder names made from what was chosen.

Nothing here imports torch, so that ``--help``, ``--cfg job`` and shell completion answer at once.
"""

import functools
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unet.errors import UserError, did_you_mean
from unet.failures import classify_failure, one_line
from unet.io.config_keys import RENAMED_KEYS, RENAMED_VALUES, flatten
from unet.runs.run_names import as_override, parse

# OpenMP threads that spin at every barrier stand in each other's way on a busy machine, and sleeping ones wake late: a
# short spin (tens of microseconds) is near the best of both. Read by OpenMP when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
"""Whether the user asked for tracebacks; read before this module sets the variable for Hydra itself."""


PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = next(path for path in (PACKAGE / "configs", PACKAGE.parent / "configs") if path.is_dir())
"""Where the configs are: in an installed package, or at the top of a clone."""


def program_name(command: str) -> str:
    """Return how a command is called here: ``unet-lab train``, or ``python train.py``."""
    if Path(sys.argv[0]).stem in ("unet-lab", "__main__"):
        return f"unet-lab {command}"
    return "python train.py" if command == "train" else f"python scripts/{SCRIPTS.get(command, command)}.py"


SCRIPTS = {"check": "check_data"}
"""Commands whose script has another name."""

OmegaConf.register_new_resolver("program_name", program_name, replace=True)


class RefuseSweep(Callback):
    """End a command that runs once, where it is asked to run as a sweep."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        print(f"error: -m, --multirun: only a training is swept: {program_name('train')} -m KEY=A,B", file=sys.stderr)
        sys.exit(2)


def hydra_script(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Decorate a command, a function of its config: Hydra composes it, an error becomes one sentence and exit status 1.

    Wrong usage is exit status 2. ``HYDRA_FULL_ERROR=1`` brings the traceback back.
    """

    def decorate(main: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(main)
        def report_error(config: DictConfig) -> Any:
            try:
                return main(config)
            except Exception as error:  # here, as Hydra adds lines to it
                if FULL_ERROR or HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise
                exit_with_error(error, config_name)

        configured = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(report_error)

        @functools.wraps(main)
        def run() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and the sentence is made here
            try:
                configured()
                sys.stdout.flush()  # here, where an error of it is still heard
            except Exception as error:
                if FULL_ERROR:
                    raise
                exit_with_error(error, config_name)
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                sys.exit(signal_status(signal.SIGINT))
            finally:
                os.environ["HYDRA_FULL_ERROR"] = str(int(FULL_ERROR))

        return run

    return decorate


def name_first_word(key: str) -> None:
    """Let the first word of a command line stand for ``key=word``: ``report outputs/SWEEP``."""
    word = sys.argv[1] if len(sys.argv) > 1 else "-"
    if not word.startswith("-") and ("=" not in word or Path(word).exists()):
        sys.argv[1] = as_override(key, word)


def require_keys(config: DictConfig, keys: Sequence[str], command: str) -> None:
    """Raise UserError unless every one of ``keys`` was given."""
    for key in keys:
        if config[key] is None:
            raise UserError(f"{key}: is required; see {program_name(command)} --help")


def check_single_values(overrides: Sequence[str]) -> None:
    """Raise UserError where an override that Hydra does not compose has several values, as ``data.root=a,b``."""
    for override in parse(overrides, None):
        if override.is_sweep_override():
            raise UserError(several_values(str(override.input_line)))


def as_path(value: Any) -> Path | None:
    """Return a config's value as a path, ``~`` expanded; None stays None."""
    return None if value is None else Path(str(value)).expanduser()


def parse_size(key: str, value: Any, example: str) -> list[int]:
    """Return the numbers of a size: ``3x361x481`` -> [3, 361, 481]. Raises UserError."""
    numbers = str(value).lower().split("x")
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise UserError(f"{key}={value}: expected positive numbers joined by x, such as {example}")
    return [int(number) for number in numbers]


def exit_with_error(error: Exception, config_name: str = "train") -> NoReturn:
    """Print what went wrong and exit; where the reader of a pipe has left (``| head``), exit without a word."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        sys.exit(128 + getattr(signal, "SIGPIPE", 13))
    sys.stdout.flush()
    print(f"error: {explain(error, config_name)}", file=sys.stderr)
    sys.exit(2 if isinstance(error, OverrideParseException) else 1)


def explain(error: Exception, config_name: str = "train") -> str:
    """One sentence for the person at the terminal."""
    found = classify_failure(error)
    if found is not None:
        return found.sentence
    if isinstance(error, UserError):
        return one_line(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        return f"{group}={name}: no such choice{did_you_mean(name, options)} (valid: {', '.join(options)})"
    if isinstance(error, ConfigCompositionException):
        ambiguous = re.match(r"Ambiguous value for argument '(.*)'$", error_line(error))
        if ambiguous:
            return several_values(ambiguous[1])
        found = re.search(r"Could not override '([^']+)'|key '([^']+)'", str(error))
        if found:
            return unknown_key(next(filter(None, found.groups())), error, config_name)
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} is no KEY=VALUE that Hydra reads: {error_line(error)}{quoting_hint(error.override)}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return " ".join(str(error).split())
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return (
        f"{type(error).__name__}: {' '.join(str(error).split())} (at {place}; HYDRA_FULL_ERROR=1 shows the way there)"
    )


def error_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return str(error).partition("\n")[0]


def several_values(override: str) -> str:
    """Say what to do about a comma where one value is expected."""
    return f"{override}: several values, which only a sweep takes (-m){quoting_hint(override)}"


def quoting_hint(override: str) -> str:
    """Say how a value that Hydra cannot take as it stands is quoted, once for Hydra and once for the shell."""
    key, equals, value = override.partition("=")
    return f"; if that is one text or path, quote it twice: {shlex.quote(as_override(key, value))}" if equals else ""


def unknown_key(key: str, error: Exception, config_name: str) -> str:
    """Say which keys there are where ``key`` was looked for; or why a key that exists refused its value."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(config_name)
    keys = all_keys(config)
    if key in keys:
        return f"{key}: {' '.join(str(error.__cause__ or error).split())}"
    if RENAMED_KEYS.get(key) in keys:
        return f"{key}: renamed; use {RENAMED_KEYS[key]} instead{renamed_values(RENAMED_KEYS[key])}"
    parent = key.rpartition(".")[0]
    siblings = [name for name in keys if name.rpartition(".")[0] == parent]
    listed = f" (valid: {', '.join(siblings)})" if siblings else ""
    return f"{key}: no such key{did_you_mean(key, keys)}{listed}"


def renamed_values(key: str) -> str:
    """Return ``' (evenly is now uniform, ...)'`` for a key whose values have new names, else an empty string."""
    values = RENAMED_VALUES.get(key, {})
    return f" ({', '.join(f'{old} is now {new}' for old, new in values.items())})" if values else ""


def all_keys(config: DictConfig) -> list[str]:
    """Return every dotted key of a config, those of whole sections included."""
    values: Any = OmegaConf.to_container(config)
    parts = [key.split(".") for key in flatten(values)]
    return list(dict.fromkeys(".".join(words[:end]) for words in parts for end in range(1, len(words) + 1)))


def signal_status(signum: int) -> int:
    """The exit status a shell expects of a process that a signal stopped: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + signal.Signals(signum)
