"""The keys of a config that identify a run, and those that do not."""

from collections.abc import Mapping
from typing import Any

RUNTIME_KEYS = (
    *("ckpt_path", "resume", "threads", "isolate", "retry_failed", "diagnostics", "pictures", "feature_maps", "hydra"),
    "halve_batch",  # of older runs
    *("trainer.default_root_dir", "trainer.log_every_n_steps", "trainer.enable_progress_bar"),
    *("trainer.enable_model_summary", "trainer.profiler", "trainer.model_registry"),
)
"""Config keys that say how a run is launched, logged and shown. They are no part of what is trained: two runs that
differ in these alone are the same run, and no report compares them."""


def is_runtime_key(key: str) -> bool:
    """Return whether a dotted config key, or one above it, is one of :data:`RUNTIME_KEYS`."""
    return any(f"{key}.".startswith(f"{name}.") for name in RUNTIME_KEYS)


def flatten(config: Mapping[Any, Any], operators: bool = False, prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted key; an empty mapping is a value.

    Args:
        config: plain containers.
        operators: keep a mapping with a ``name`` below the top level as one value, such as an operator's options.
        prefix: what every key begins with.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value and not (operators and prefix and "name" in value):
            flat |= flatten(value, operators, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
