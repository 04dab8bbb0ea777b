"""The keys of a config that identify a run, and those that do not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = next(path for path in (PACKAGE / "configs", PACKAGE.parent / "configs") if path.is_dir())
"""The folder of the configs: in an installed package, or at the top of a clone."""

RUNTIME_KEYS = (
    *("ckpt_path", "resume", "threads", "subprocess_per_job", "retry_failed", "diagnostics", "num_logged_images"),
    *("feature_maps", "logger", "questions", "hydra"),
    *("isolate", "pictures", "halve_batch"),  # of version 0.1
    *("trainer.default_root_dir", "trainer.log_every_n_steps", "trainer.enable_progress_bar"),
    *("trainer.enable_model_summary", "trainer.profiler", "trainer.model_registry"),
)
"""Config keys that only launch, log or display a run and do not change what is trained.

Two runs that differ in these alone are the same run, and no report compares them.
"""

FIXED_TRAINER_KEYS = {"logger", "default_root_dir", "use_distributed_sampler", "enable_autolog_hparams"}
"""Arguments of Lightning's Trainer that this project sets itself."""

SPLIT_SEED = "data.source.split_seed"
"""The key that seeds the division of images into splits; it may follow the run's seed."""
FOLD = "data.source.fold"
"""The key of a cross-validation's fold; like ``seed`` it distinguishes the replicates of an arm."""

RENAMED_KEYS = {
    "data.draw": "data.sampling",
    "pictures": "num_logged_images",
    "isolate": "subprocess_per_job",
    "agreement": "min_label_agreement",
    "data.source.mask_stem": "data.source.mask",
}
"""New names of the keys that version 0.1 had."""
RENAMED_VALUES = {
    "data.sampling": {"evenly": "uniform", "by_class": "class_balanced", "by_foreground": "foreground"},
    "data.source.mask": {"{stem}": "masks/{id}.*", "{stem}_mask": "masks/{id}_mask.*"},
}
"""New names of the values that version 0.1 had, by key; of a pattern, examples."""


ADDED_KEYS = {
    "unet.data.folder.Folder": {"image": "images/{id}.*", "folds": 5, "split_seed": 0},
    "unet.data.blue_marble.BlueMarble": {"split_seed": 15},
    "unet.data.blue_marble_lines.BlueMarbleLines": {"split_seed": 0},
    "unet.data.isbi2012.Isbi2012": {"split_seed": 0},
}
"""Keys of ``data.source`` that older versions did not have, and the values that divide images as they did."""
FIRST_VALUES = {
    "optim.name": "adamw",
    "model.block": "plain",
    "model.encoder": "none",
    "model.deep_supervision": False,
}
"""Keys that older versions did not have, and the values that train as they did."""
LATER_VALUES = {
    "prune": False,
    "model.checkpointing": False,
    "trainer.callbacks": None,
    "data.source.window_size": None,
}
"""The same for keys whose values here are left out of a run's identity, so that folders keep their names."""


def is_runtime_key(key: str) -> bool:
    """Return whether a dotted config key, or one above it, is one of :data:`RUNTIME_KEYS`."""
    return any(f"{key}.".startswith(f"{name}.") for name in RUNTIME_KEYS)


def fixed_trainer_key(key: str) -> str:
    """Return the message for a key of :data:`FIXED_TRAINER_KEYS`."""
    hint = "set the key logger instead" if key == "trainer.logger" else "leave the key out"
    return f"{key}: cannot be changed, as a run has its own logger, folder and sampler; {hint}"


def rename_old_keys(config: DictConfig) -> None:
    """Rename the keys and values of a config of an older version in place, and add those that it did not have."""
    for old, new in RENAMED_KEYS.items():
        value = OmegaConf.select(config, old)
        if value is not None and OmegaConf.select(config, new) is None:
            OmegaConf.update(config, new, rename_value(new, value), force_add=True)
            parent, _, name = old.rpartition(".")
            del (OmegaConf.select(config, parent) if parent else config)[name]
    source = OmegaConf.select(config, "data.source") or {}
    for key, default in ADDED_KEYS.get(str(source.get("_target_")), {}).items():
        if key not in source:
            OmegaConf.update(config, f"data.source.{key}", default, force_add=True)
    for key, value in (FIRST_VALUES | LATER_VALUES).items():
        section, _, name = key.rpartition(".")
        parent = OmegaConf.select(config, section) if section else config
        if parent is not None and name not in parent and section != "data.source":  # which has defaults
            OmegaConf.update(config, key, value, force_add=True)


def rename_value(key: str, value: Any) -> Any:
    """Return the value that a key has today for a value of version 0.1."""
    if key == "data.source.mask":  # was the stem of the file in masks/
        return f"masks/{str(value).replace('{stem}', '{id}')}.*"
    return RENAMED_VALUES.get(key, {}).get(value, value)


def flatten(config: Mapping[Any, Any], operators: bool = False, prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted key; an empty mapping is a value.

    With ``operators`` a mapping with a ``name`` below the top level is one value, such as an operator's options.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value and not (operators and prefix and "name" in value):
            flat |= flatten(value, operators, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def all_keys(config: DictConfig) -> list[str]:
    """Return every dotted key of a config, sections included."""
    values: Any = OmegaConf.to_container(config)
    words = [key.split(".") for key in flatten(values)]
    return list(dict.fromkeys(".".join(key[:end]) for key in words for end in range(1, len(key) + 1)))
