"""Group the runs of a sweep into arms: the settings of the keys that vary."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unet.io.config_keys import FOLD, is_runtime_key
from unet.report.read_sweep import Replicate, Run

RESAMPLING = ("model.down", "model.up")
REPEAT = "arm"
"""The config key that marks repeats: arms that differ in it alone are the same configuration."""


@dataclass(frozen=True)
class Arm:
    """One setting of the factors: every factor's value as text, and its runs, finished or not."""

    label: str
    values: dict[str, str]
    runs: list[Run]

    def differs_from(self, other: "Arm") -> set[str]:
        """Return the factors in which two arms differ."""
        return {key for key, value in self.values.items() if other.values[key] != value}


def format_value(value: Any) -> str:
    """Return a config value as text: ``max``, ``0.001``, ``null``, ``[max, strided]``, ``max(kernel_size=3)``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return format(value, "g")
    if isinstance(value, Mapping):
        options = ", ".join(f"{key}={format_value(inner)}" for key, inner in value.items() if key != "name")
        return f"{value.get('name', '')}({options})" if options else str(value.get("name", "{}"))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(format_value, value))}]"
    return str(value)


def find_factors(runs: Sequence[Run]) -> tuple[list[str], dict[str, str]]:
    """Return the keys that define the arms, and the keys that depend on one of them.

    A key that varies is a factor if the commands set it. Otherwise (an ``lr`` that follows from the data set) it is no
    factor if another varying key determines its value.
    """
    known = [run for run in runs if run.config]
    columns = {
        key: tuple(format_value(run.config.get(key)) for run in known)
        for key in dict.fromkeys(key for run in known for key in run.config)
        if not (key in ("seed", FOLD) or key.endswith(".root") or is_runtime_key(key))
    }
    seeds = tuple(format_value(run.seed) for run in known)
    varying = {key: column for key, column in columns.items() if len(set(column)) > 1 and column != seeds}
    named = {name for run in runs for name in run.overrides}
    selected = {key for key in varying if any(key == name or key.startswith(f"{name}.") for name in named)}
    exact = {key for key in varying if key in named or (not selected and key in RESAMPLING)}

    def determines(leader: str, key: str) -> bool:
        """Return whether ``key`` is a function of ``leader``, and ``leader`` is the preferred one of the two."""
        pairs = len(set(zip(varying[leader], varying[key], strict=True)))
        if pairs > len(set(varying[leader])):
            return False
        return len(set(varying[key])) < pairs or preference(leader) < preference(key)

    def preference(key: str) -> tuple[bool, bool, bool, int, str]:
        return key not in exact, key not in selected, not key.endswith("name"), len(key), key

    dependent_keys: dict[str, str] = {}
    for key in varying:
        if key not in exact:
            leaders = sorted((other for other in varying if other != key and determines(other, key)), key=preference)
            dependent_keys |= {key: leaders[0]} if leaders else {}
    return [key for key in varying if key not in dependent_keys], dependent_keys


def shorten_keys(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest unique ends of dotted keys that say what they are: ``optim.lr`` -> ``lr``, ``loss.name``."""
    shortest: dict[str, str] = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        unique = [end for end in ends if sum(f".{name}".endswith(f".{end}") for name in keys) == 1]
        shortest[key] = next((end for end in unique if end != "name"), key)
    return shortest


def arm_label(values: Mapping[str, str]) -> str:
    """Return ``max + transposed`` if only the operators vary, else ``lr=0.01, skip=add``."""
    if not values:
        return "all runs"
    if set(values) <= set(RESAMPLING):
        return " + ".join(values[key] for key in RESAMPLING if key in values)
    names = shorten_keys(list(values))
    return ", ".join(f"{names[key]}={value}" for key, value in values.items())


def group_runs(runs: Sequence[Run], keys: Sequence[str]) -> list[Arm]:
    """Group runs by their setting of ``keys``, in order of first appearance; runs without a setting are ignored.

    The label of a repeat ends in its value of ``arm``: ``max + transposed (again)``, except for the most frequent.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if run.config or all(key in run.overrides for key in keys):
            groups.setdefault(tuple(format_value(run.setting(key)) for key in keys), []).append(run)
    settings = [(dict(zip(keys, setting, strict=True)), members) for setting, members in groups.items()]
    usual = usual_repeat_label([arm for arm, members in settings for _ in members])
    arms = []
    for values, members in settings:
        repeat = values.get(REPEAT, usual)
        name = arm_label({key: value for key, value in values.items() if key != REPEAT})
        arms.append(Arm(name if repeat == usual else f"{name} ({repeat})", values, members))
    return arms


def usual_repeat_label(settings: Sequence[Mapping[str, str]]) -> str:
    """Return the most frequent value of ``arm``; empty if it does not vary."""
    counts = Counter(values.get(REPEAT, "") for values in settings)
    return counts.most_common(1)[0][0] if counts else ""


def replicates_without_run(arms: Sequence[Arm]) -> list[tuple[Arm, Replicate]]:
    """Return the seeds and folds that an arm lacks and other arms have; repeats have their own."""
    missing_runs = []
    for arm in arms:
        peers = [other for other in arms if other.values.get(REPEAT) == arm.values.get(REPEAT)]
        expected = {run.replicate for peer in peers for run in peer.runs if run.replicate is not None}
        existing = {run.replicate for run in arm.runs}
        if None not in existing:  # a run of unknown seed may have the missing one
            missing_runs += [(arm, replicate) for replicate in sort_replicates(expected - existing)]
    return missing_runs


def sort_replicates(replicates: Iterable[Replicate]) -> list[Replicate]:
    """Return seeds in order, then folds with their seeds."""
    return sorted(replicates, key=lambda replicate: replicate if isinstance(replicate, tuple) else (-1, replicate))


def format_replicate(replicate: Replicate | None) -> str:
    """Return ``3`` for a seed, ``fold 1, seed 3`` for a fold and a seed, a dash for None."""
    if isinstance(replicate, tuple):
        return f"fold {replicate[0]}, seed {replicate[1]}"
    return "\N{EN DASH}" if replicate is None else str(replicate)


def replicate_unit(replicates: Collection[Replicate]) -> str:
    """Return what the replicates of a sweep are: ``seed``, ``fold``, or ``replicate`` for folds with several seeds."""
    pairs = [replicate for replicate in replicates if isinstance(replicate, tuple)]
    if not pairs:
        return "seed"
    return "fold" if len(pairs) == len(replicates) and len({seed for _, seed in pairs}) == 1 else "replicate"


def name_replicates(text: str, unit: str) -> str:
    """Return a text about seeds as one about ``unit``: ``over 5 seeds`` -> ``over 5 folds``."""
    return text if unit == "seed" else re.sub(r"\bseed(s?)\b", rf"{unit}\1", text)
