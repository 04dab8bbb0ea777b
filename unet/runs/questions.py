"""The questions of a sweep: which level of a factor all others are compared with, named before the runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unet.errors import UserError, did_you_mean
from unet.io.config_keys import all_keys


def read_questions(config: DictConfig, jobs: Sequence[DictConfig]) -> dict[str, Any]:
    """Return the reference level by key, empty if the config names none.

    Raises:
        UserError: it is no mapping, has an unknown key, or a level that this command sweeps without.
    """
    named = config.get("questions")
    if named is None:
        return {}
    if not OmegaConf.is_dict(named):
        raise UserError(f"questions={named}: expected a mapping of keys to levels, such as {{model.up: transposed}}")
    questions: Any = OmegaConf.to_container(named)
    for key, level in questions.items():
        levels = [plain(OmegaConf.select(job, str(key))) for job in jobs]
        if all(value is None for value in levels):
            keys = all_keys(config)
            raise UserError(f"questions: {key} is no key of the configuration{did_you_mean(str(key), keys)}")
        if len({str(value) for value in levels}) > 1 and level not in levels:
            names = list(dict.fromkeys(map(str, levels)))
            raise UserError(
                f"questions: {key}={level} is not in this sweep{did_you_mean(str(level), names)}; expected one of "
                f"{', '.join(names)}"
            )
    return {str(key): level for key, level in questions.items()}


def plain(value: Any) -> Any:
    """Return a config's value without OmegaConf's containers."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def keep_questions(
    saved: Mapping[str, Any], questions: dict[str, Any], has_results: bool, folder: Path
) -> dict[str, Any]:
    """Return the questions of a sweep; a command that names none keeps those of earlier commands.

    Raises:
        UserError: the sweep has results already, and the command names other questions.
    """
    earlier = saved.get("questions", {})
    if has_results and questions and earlier != questions:
        raise UserError(
            f"questions={questions}: {folder} has results already, and questions={earlier or 'null'}, which cannot "
            f"change afterwards; name the same ones or none, or choose another hydra.sweep.dir"
        )
    return questions or earlier
