"""The error message of a command: one line on stderr, then exit status 1, or 2 for wrong usage."""

import os
import re
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from unet.errors import UserError, did_you_mean
from unet.failures import classify_failure, one_line
from unet.io.config_keys import (
    CONFIGS,
    FIXED_TRAINER_KEYS,
    RENAMED_KEYS,
    RENAMED_VALUES,
    all_keys,
    fixed_trainer_key,
)
from unet.runs.run_names import as_override

HYDRA_PLUGINS = {"optuna": "search", "submitit_slurm": "slurm"}
"""The extras of Hydra's plugins, by the names of their configs, which a config of this project includes."""


def exit_with_error(error: Exception, config_name: str = "train") -> NoReturn:
    """Print the error message and exit; print nothing where the reader of a pipe has ended (``| head``)."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the output that is not flushed yet
        sys.exit(128 + getattr(signal, "SIGPIPE", 13))
    sys.stdout.flush()
    print(f"error: {format_error(error, config_name)}", file=sys.stderr)
    sys.exit(2 if isinstance(error, OverrideParseException) else 1)


def format_error(error: Exception, config_name: str = "train") -> str:
    """Return the message of an error in one line; ``config_name`` is the config of the command that failed."""
    failure = classify_failure(error)
    if failure is not None:
        return failure.message
    if isinstance(error, UserError):
        return one_line(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        return f"{group}={name}: no such choice{did_you_mean(name, options)} (valid: {', '.join(options)})"
    missing = re.search(r"Could not (?:load|find) '(hydra/(?:launcher|sweeper)/(\w+))'", str(error))
    if missing and missing[2] in HYDRA_PLUGINS:
        return f"{missing[1]} is not installed; run: pip install -e '.[{HYDRA_PLUGINS[missing[2]]}]'"
    first_line = str(error).partition("\n")[0]
    if isinstance(error, ConfigCompositionException):
        if ambiguous := re.match(r"Ambiguous value for argument '(.*)'$", first_line):
            return several_values(ambiguous[1])
        if match := re.search(r"Could not override '([^']+)'|key '([^']+)'", str(error)):
            return unknown_key(match[1] or match[2], error, config_name)
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} is not a KEY=VALUE that Hydra reads: {first_line}{quoting_hint(error.override)}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return " ".join(str(error).split())
    frame = traceback.extract_tb(error.__traceback__)[-1]
    location = f"{Path(frame.filename).name}:{frame.lineno}"
    text = " ".join(str(error).split())
    is_of_lightning = "/lightning/pytorch/" in Path(frame.filename).as_posix()
    if is_of_lightning and type(error).__name__ in ("MisconfigurationException", "ValueError"):  # without an import
        return f"trainer: Lightning refuses the settings: {text}"
    return f"{type(error).__name__}: {text} (at {location}; HYDRA_FULL_ERROR=1 shows the traceback)"


def several_values(override: str) -> str:
    """Return the message for a comma where one value is expected."""
    return f"{override}: several values, which only a sweep takes (-m){quoting_hint(override)}"


def quoting_hint(override: str) -> str:
    """Return how to quote a value that Hydra does not take unquoted: once for Hydra and once for the shell."""
    key, equals, value = override.partition("=")
    if not equals:
        return ""
    if value.startswith(("[", "{")):
        example = '{0: "a b", 255: c}' if value.startswith("{") else '["a b",c]'
        whole = "" if value.endswith(("]", "}")) else "put all of it into single quotes, and "
        return f"; {whole}texts with special characters into double quotes: {shlex.quote(f'{key}={example}')}"
    return f"; if that is one text or path, quote it twice: {shlex.quote(as_override(key, value))}"


def unknown_key(key: str, error: Exception, config_name: str) -> str:
    """Return the message for a key that does not exist, with the valid ones, or for one that refused its value."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        keys = all_keys(compose(config_name))
    if key in keys:
        return f"{key}: {' '.join(str(error.__cause__ or error).split())}"
    new_key = RENAMED_KEYS.get(key, "")
    if new_key in keys or new_key.startswith("data.source."):  # of another data set than the default
        values = ", ".join(f"{old} is now {new}" for old, new in RENAMED_VALUES.get(new_key, {}).items())
        return f"{key}: renamed; use {new_key} instead" + (f" ({values})" if values else "")
    parent, _, name = key.rpartition(".")
    if parent == "trainer" and name in FIXED_TRAINER_KEYS:
        return fixed_trainer_key(key)
    siblings = [other for other in keys if other.rpartition(".")[0] == parent]
    valid = f" (valid: {', '.join(siblings)})" if siblings else ""
    return f"{key}: no such key{did_you_mean(key, keys)}{valid}"
