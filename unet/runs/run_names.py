"""The folder names of runs, jobs and sweeps, derived from overrides and configuration."""

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from unet.io.atomic import sha256
from unet.io.config_keys import FOLD, LATER_VALUES, flatten, is_runtime_key
from unet.io.default_weights import checkpoint_path

AUTO = "auto"
"""The value of ``resume`` with which the same command resumes its run."""

PATH_KEYS = (
    *("ckpt", "ckpt_path", "init", "input", "output", "images", "fix", "folder", "calibration", "json", "data.root"),
    *("hydra.run.dir", "hydra.sweep.dir", "data.source.image", "data.source.mask", "data.source.mask_stem"),
)
"""Keys of all commands whose values are paths, or patterns of them."""

INIT_SHA256 = "init_sha256"
"""The key of a run's config that has the SHA-256 of the file of ``init``."""

WORD = r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\s,:=\[\]{}()"'](?:[^,:=\[\]{}()"']*[^\s,:=\[\]{}()"'])?"""
"""A text in quotes, or a word without, which may have blanks inside."""

UNSAFE = r"[^A-Za-z0-9._-]+"
"""Characters that a folder name does not contain: Hydra takes all others unquoted."""


def override_slug(prefix: str, overrides: Sequence[str]) -> str:
    """Return overrides as part of a folder name, which Hydra takes unquoted; at most 150 characters.

    ``["model.down=max", "ckpt_path=..."]`` -> ``model.down-max``; a resumed run is not a new run.
    """
    names = [
        re.sub(UNSAFE, "-", truncate_with_hash(override, 48)).strip("-")
        for override in overrides
        if not override.startswith("ckpt_path=")
    ]
    return prefix * bool(names) + truncate_with_hash("_".join(names), 150)


def truncate_with_hash(text: str, limit: int) -> str:
    """Return ``text``, or where it is longer than ``limit`` its beginning and a hash of all of it."""
    return text if len(text) <= limit else f"{text[: limit - 9]}_{short_hash(text)}"


def short_hash(value: Any) -> str:
    """Return eight hexadecimal digits of the SHA-256 of a text, or of plain values in JSON."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def swept_keys(overrides: Sequence[str], parameters: Mapping[str, str] | None) -> list[str]:
    """Return the keys that a sweep varies, from its command line and its config.

    A job's own overrides do not show which keys are swept. So this is resolved once, in the sweep's config, and the
    jobs read the resolver's cache.
    """
    parsed = parse(overrides, parameters)
    return list(dict.fromkeys(override.get_key_element() for override in parsed if override.is_sweep_override()))


def parse(overrides: Sequence[str], parameters: Mapping[str, str] | None) -> list[Override]:
    """Parse a sweep's overrides: those of its config (``hydra.sweeper.params``), then those of its command line."""
    words = [*(f"{key}={value}" for key, value in (parameters or {}).items()), *overrides]
    return OverridesParser.create().parse_overrides(words)


def sweep_name(overrides: Sequence[str]) -> str:
    """Return a sweep's folder name: its swept overrides and a hash of the others; seeds and folds are not part of it.

    ``["sweep=up", "model.down=max,avg", "seed=0,1"]`` -> ``up_model.down-max-avg``. Overrides whose slugs could be
    equal, such as ``[1,2],3`` and ``1,2,3``, are part of the hash too.
    """
    if isinstance(overrides, ListConfig):
        words: Any = OmegaConf.to_container(overrides)  # not resolved: ${seed} differs between jobs
        overrides = words
    overrides = [
        override
        for override in overrides
        if not is_runtime_key(key := override_key(override)) and key not in ("seed", FOLD)
    ]
    keys = ("sweep", *swept_keys(overrides, None))
    sweep_overrides = [override for override in overrides if override.partition("=")[0] in keys]
    hashed = [word for word in overrides if word not in sweep_overrides or re.search(r"[^\w.,=-]", word)]
    name = override_slug("", [override.removeprefix("sweep=") for override in sweep_overrides]) or "seeds"
    return f"{name}_{short_hash(sorted(hashed))}" if hashed else name


def override_key(override: str) -> str:
    """Return the key of an override: ``++a.b=1`` -> ``a.b``."""
    return override.lstrip("+").partition("=")[0]


def job_name(overrides: Sequence[str], keys: Sequence[str], *, _root_: DictConfig) -> str:
    """Return a job's folder name: the swept overrides, which people read, and a hash of the configuration.

    The same configuration has the same folder, however it is written and whenever it is run.
    """
    sweep_overrides = [override for override in overrides if override.partition("=")[0] in keys]
    return run_folder_name(Path(_root_.hydra.sweep.dir), sweep_overrides, _root_)


def run_folder_name(parent: Path, overrides: Sequence[str], config: DictConfig) -> str:
    """Return the name of this configuration's folder in ``parent``: the existing one, or the overrides and a hash."""
    digest = short_hash(stringify_keys(identity_config(config)))
    existing = next(parent.glob(f"*{digest}"), None)
    return existing.name if existing else "_".join(filter(None, [override_slug("", overrides), digest]))


def stringify_keys(values: Any) -> Any:
    """Return nested values with every key as text: keys of different types cannot be sorted."""
    if isinstance(values, dict):
        return {str(key): stringify_keys(value) for key, value in values.items()}
    return [stringify_keys(value) for value in values] if isinstance(values, list) else values


def identity_config(config: DictConfig) -> dict[str, Any]:
    """Return the resolved values that identify a run by dotted key: all but runtime keys, and the file of ``init``."""
    values: Any = OmegaConf.masked_copy(config, [str(key) for key in config if not is_runtime_key(str(key))])
    values = OmegaConf.to_container(values, resolve=True)
    if values.get("init") is not None and values.get(INIT_SHA256) is None:
        values[INIT_SHA256] = init_digest(values["init"])
    return {
        key: value
        for key, value in flatten(values).items()
        if not is_runtime_key(key) and (key not in LATER_VALUES or value != LATER_VALUES[key])
    }


def init_digest(path: str) -> str | None:
    """Return the SHA-256 of the file of ``init``: another file at its place makes another run. None without a file."""
    try:
        file = checkpoint_path(str(path))
        return cached_sha256(file, file.stat().st_mtime_ns)
    except (OSError, RuntimeError):  # ~NAME of an unknown user
        return None


@functools.cache
def cached_sha256(path: Path, modified: int) -> str:
    """Return the SHA-256 of a file, computed once: Hydra resolves the name of a folder repeatedly."""
    return sha256(path)


def as_override(key: str, value: Any) -> str:
    """Return ``key=value`` for Hydra's command line; a text that Hydra would read as another value is quoted.

    ``a/b.ckpt`` -> ``key=a/b.ckpt``; ``a, b.ckpt`` -> ``key="a, b.ckpt"``.
    """
    if not isinstance(value, str) or parsed_value(f"{key}={value}") == value:
        return f"{key}={value}"
    return f"{key}={QuotedString(value, Quote.double).with_quotes()}"


def quote_path(argument: str) -> str:
    """Return an argument of a path key such that Hydra reads the path as it is, with ``~`` expanded.

    ``data.root=my data [1]`` -> ``data.root="my data [1]"``. Lists and sweeps (``a,b``) of paths that do not exist as
    one file stay as they are, as does an argument of another key.
    """
    key, _, value = argument.partition("=")
    if value in ("", "null") or override_key(argument) not in PATH_KEYS:
        return argument
    parsed = parsed_value(f"{key}={value}")
    if isinstance(parsed, str):
        return as_override(key, expand_home(parsed))
    words = ",".join(map(expand_home, value.split(",")))
    is_value = parsed is not None or is_sweep(f"{key}={words}")
    return f"{key}={words}" if is_value and not os.path.exists(words) else as_override(key, expand_home(value))


def quote_words(argument: str) -> str:
    """Return an argument with its words that have other than ASCII letters in quotes, where Hydra reads it only so.

    ``classes=[Haus,Gebäude]`` -> ``classes=[Haus,"Gebäude"]``.
    """
    key, equals, value = argument.partition("=")
    if not equals or value.isascii() or not key.isascii() or is_readable(argument):
        return argument
    quoted = re.sub(WORD, lambda word: word[0] if word[0].isascii() or word[0][0] in "\"'" else f'"{word[0]}"', value)
    return f"{key}={quoted}" if is_readable(f"{key}={quoted}") else argument


def expand_home(path: str) -> str:
    """Return a path with ``~`` expanded where the user's folder is known."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:  # ~NAME of an unknown user
        return path


def is_sweep(argument: str) -> bool:
    """Return whether Hydra reads an argument as several values."""
    return is_readable(argument) and parse([argument], None)[0].is_sweep_override()


def is_readable(argument: str) -> bool:
    """Return whether an argument follows Hydra's grammar."""
    try:
        parse([argument], None)
    except HydraException:
        return False
    return True


def parsed_value(argument: str) -> Any:
    """Return the value that Hydra reads from one argument; None where it is invalid."""
    try:
        return parse([argument], None)[0].value()
    except HydraException:
        return None


def run_dir(
    ckpt_path: str | None, new: str, resume: str | None = None, overrides: Sequence[str] = (), *, _root_: DictConfig
) -> str:
    """Return the folder of a single run.

    A resumed run has the folder that holds ``checkpoints/<file>``. With ``resume=auto`` the configuration determines
    the folder, beside ``new``, so that the same command finds it again. Any other run gets ``new``.
    """
    path = Path(expand_home(ckpt_path or ""))
    if ckpt_path and path.parent.name == "checkpoints":
        return str(path.parent.parent)
    if resume == AUTO:
        overrides = [override for override in overrides if not is_runtime_key(override_key(override))]
        return str(Path(new).parent / run_folder_name(Path(new).parent, overrides, _root_))
    return new


OmegaConf.register_new_resolver("override_slug", override_slug, replace=True)
OmegaConf.register_new_resolver("swept_keys", swept_keys, replace=True, use_cache=True)
OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True, use_cache=True)
OmegaConf.register_new_resolver("job_name", job_name, replace=True)
OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
