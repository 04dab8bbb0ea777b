"""The folder names of runs, jobs and sweeps, made from their overrides and configuration."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from unet.io.config_keys import flatten, is_runtime_key

AUTO = "auto"
"""The value of ``resume`` with which a command finds the run that it began."""


UNSAFE = r"[^A-Za-z0-9._-]+"
"""What a folder's name has none of: Hydra takes the rest unquoted, so no ``=`` either."""


def override_slug(prefix: str, overrides: Sequence[str]) -> str:
    """Return what was chosen as part of a folder's name, which Hydra takes unquoted; at most 150 characters.

    ``["model.down=max", "ckpt_path=..."]`` -> ``model.down-max``: a resumed run is not another run.
    """
    chosen = [override for override in overrides if not override.startswith("ckpt_path=")]
    names = [re.sub(UNSAFE, "-", truncate_with_hash(override, 48)).strip("-") for override in chosen]
    return prefix * bool(names) + truncate_with_hash("_".join(names), 150)


def truncate_with_hash(text: str, limit: int) -> str:
    """Return ``text``, or where it is longer than ``limit`` its beginning and a hash of the whole."""
    return text if len(text) <= limit else f"{text[: limit - 9]}_{short_hash(text)}"


def short_hash(value: Any) -> str:
    """Return eight hexadecimal digits of the SHA-256 of a text, or of plain values in JSON."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def swept_keys(overrides: Sequence[str], parameters: Mapping[str, str] | None) -> list[str]:
    """Return the keys that a sweep varies, from its command line and its config.

    A job's own overrides no longer tell them from those that all jobs share. So this is asked once, of the whole
    sweep's config, and the jobs get the answer from the resolver's cache.
    """
    parsed = parse(overrides, parameters)
    return list(dict.fromkeys(override.get_key_element() for override in parsed if override.is_sweep_override()))


def parse(overrides: Sequence[str], parameters: Mapping[str, str] | None) -> list[Override]:
    """Parse a sweep's overrides: those of its config (``hydra.sweeper.params``), then those of its command line."""
    chosen = [*(f"{key}={value}" for key, value in (parameters or {}).items()), *overrides]
    return OverridesParser.create().parse_overrides(chosen)


def sweep_name(overrides: Sequence[str]) -> str:
    """Name a sweep by what it varies and a hash of what else was chosen; more seeds belong to the same sweep.

    ``["sweep=up", "model.down=max,avg", "seed=0,1"]`` -> ``up_model.down-max-avg``. What the name cannot tell apart, as
    ``[1,2],3`` from ``1,2,3``, goes into the hash too.
    """
    keyed = [(override.lstrip("+").partition("=")[0], override) for override in overrides]
    chosen = [override for key, override in keyed if key != "seed" and not is_runtime_key(key)]
    varied = [override for override in chosen if override.partition("=")[0] in ("sweep", *swept_keys(chosen, None))]
    hashed = [override for override in chosen if override not in varied or re.search(r"[^\w.,=-]", override)]
    named = [override.removeprefix("sweep=") for override in varied]
    parts = [override_slug("", named) or "seeds", short_hash(sorted(hashed)) if hashed else ""]
    return "_".join(filter(None, parts))


def job_name(overrides: Sequence[str], keys: Sequence[str], *, _root_: DictConfig) -> str:
    """Name a job's folder by what the sweep varied, for people, and a hash of the whole configuration, which decides.

    The same configuration has the same folder, however it is written and whenever it is run.
    """
    chosen = [override for override in overrides if override.partition("=")[0] in keys]
    return run_folder_name(Path(_root_.hydra.sweep.dir), chosen, _root_)


def run_folder_name(parent: Path, chosen: Sequence[str], config: DictConfig) -> str:
    """Return the folder in ``parent`` of just this configuration: the one that is there, or ``chosen`` and a hash."""
    digest = short_hash(stringify_keys(identity_config(config)))
    existing = next(parent.glob(f"*{digest}"), None)
    return existing.name if existing else "_".join(filter(None, [override_slug("", chosen), digest]))


def stringify_keys(values: Any) -> Any:
    """Return nested values with text for every key: numbers and words have no order among each other."""
    if isinstance(values, dict):
        return {str(key): stringify_keys(value) for key, value in values.items()}
    return [stringify_keys(value) for value in values] if isinstance(values, list) else values


def identity_config(config: DictConfig) -> dict[str, Any]:
    """Return the resolved values that identify a run by dotted key: all but runtime keys."""
    kept = OmegaConf.masked_copy(config, [str(key) for key in config if not is_runtime_key(str(key))])
    values: Any = OmegaConf.to_container(kept, resolve=True)
    return {key: value for key, value in flatten(values).items() if not is_runtime_key(key)}


def as_override(key: str, value: Any) -> str:
    """Return ``key=value`` as Hydra's command line takes it; a text that Hydra would read as something else is quoted.

    ``a/b.ckpt`` -> ``key=a/b.ckpt``; ``a, b.ckpt`` -> ``key="a, b.ckpt"``.
    """
    if not isinstance(value, str) or parsed_value(f"{key}={value}") == value:
        return f"{key}={value}"
    return f"{key}={QuotedString(value, Quote.double).with_quotes()}"


def parsed_value(argument: str) -> Any:
    """Return the value that Hydra reads from one argument; None where it reads none."""
    try:
        return parse([argument], None)[0].value()
    except HydraException:
        return None


def run_dir(
    ckpt_path: str | None, new: str, resume: str | None = None, overrides: Sequence[str] = (), *, _root_: DictConfig
) -> str:
    """Return the folder of a single run.

    A resumed run goes on in its own, the one that holds ``checkpoints/<file>``. With ``resume=auto`` the configuration
    decides, so that the same command finds it again, beside ``new``. Any other gets ``new``.
    """
    path = Path(ckpt_path or "")
    if ckpt_path and path.parent.name == "checkpoints":
        return str(path.parent.parent)
    if resume == AUTO:
        chosen = [override for override in overrides if not is_runtime_key(override.lstrip("+").partition("=")[0])]
        return str(Path(new).parent / run_folder_name(Path(new).parent, chosen, _root_))
    return new


OmegaConf.register_new_resolver("override_slug", override_slug, replace=True)
OmegaConf.register_new_resolver("swept_keys", swept_keys, replace=True, use_cache=True)
OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True, use_cache=True)
OmegaConf.register_new_resolver("job_name", job_name, replace=True)
OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
