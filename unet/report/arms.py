"""Arms: what a sweep varied, and which runs share a setting of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unet.record import is_runtime_key
from unet.report.runs import Run

RESAMPLING = ("model.down", "model.up")
REPEAT = "arm"
"""A config key that marks repeats: arms that differ in it alone are the same configuration, and show the noise."""


@dataclass(frozen=True)
class Arm:
    """One setting of the factors.

    Attributes:
        label: short, for people.
        values: of every factor, as text.
        runs: those with this setting, finished or not.
    """

    label: str
    values: dict[str, str]
    runs: list[Run]

    def differs_from(self, other: "Arm") -> set[str]:
        """The factors in which two arms differ."""
        return {key for key, value in self.values.items() if other.values[key] != value}


def text(value: Any) -> str:
    """A config value for people: ``max``, ``0.001``, ``null``, ``[max, strided]``, ``max(kernel_size=3)``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return format(value, "g")
    if isinstance(value, Mapping):
        options = ", ".join(f"{key}={text(inner)}" for key, inner in value.items() if key != "name")
        return f"{value.get('name', '')}({options})" if options else str(value.get("name", "{}"))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(text, value))}]"
    return str(value)


def is_bookkeeping(key: str) -> bool:
    """Does the key say where and how a run was kept, not what was trained?"""
    return key == "seed" or key.endswith(".root") or is_runtime_key(key)


def factors(runs: Sequence[Run]) -> tuple[list[str], dict[str, str]]:
    """The keys that make the arms, and those that move with one of them, each with the one it follows.

    A key that the commands name is a factor wherever it varies. One that they do not name (the ``lr`` that a choice of
    data brings along) is left out where another varying key tells its value. Where the commands name none of the
    varying keys, every one that is not told by another is a factor.
    """
    known = [run for run in runs if run.config]
    keys = list(dict.fromkeys(key for run in known for key in run.config if not is_bookkeeping(key)))
    columns = {key: tuple(text(run.config.get(key)) for run in known) for key in keys}
    seeds = tuple(text(run.seed) for run in known)
    varying = {key: column for key, column in columns.items() if len(set(column)) > 1 and column != seeds}
    named = {name for run in runs for name in run.overrides}
    chosen = {key for key in varying if any(key == name or key.startswith(f"{name}.") for name in named)}
    exact = {key for key in varying if key in named or (not chosen and key in RESAMPLING)}

    def tells(teller: str, key: str) -> bool:
        """Is the value of ``key`` a function of the value of ``teller``, and ``teller`` the one to keep?"""
        pairs = len(set(zip(varying[teller], varying[key], strict=True)))
        if pairs > len(set(varying[teller])):
            return False
        return len(set(varying[key])) < pairs or preference(teller) < preference(key)

    def preference(key: str) -> tuple[bool, bool, bool, int, str]:
        return key not in exact, key not in chosen, not key.endswith("name"), len(key), key

    followers: dict[str, str] = {}
    for key in varying:
        if key not in exact:
            tellers = sorted((other for other in varying if other != key and tells(other, key)), key=preference)
            followers |= {key: tellers[0]} if tellers else {}
    return [key for key in varying if key not in followers], followers


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest ends of dotted keys that tell them apart: ``optim.lr`` -> ``lr``."""

    def end(key: str, parts: int) -> str:
        return ".".join(key.split(".")[-parts:])

    shortest: dict[str, str] = {}
    for key in keys:
        lengths = range(1, key.count(".") + 2)
        shortest[key] = next(
            (end(key, n) for n in lengths if sum(end(other, n) == end(key, n) for other in keys) == 1), key
        )
    return shortest


def label(values: Mapping[str, str]) -> str:
    """``max + transposed`` where nothing but the resampling varies, else ``lr=0.01, skip=add``."""
    if not values:
        return "all runs"
    if set(values) <= set(RESAMPLING):
        return " + ".join(values[key] for key in RESAMPLING if key in values)
    names = short_names(list(values))
    return ", ".join(f"{names[key]}={value}" for key, value in values.items())


def arms_of(runs: Sequence[Run], keys: Sequence[str]) -> list[Arm]:
    """Runs by their setting of ``keys``, in the order of first appearance; runs that do not tell it are left out.

    A repeat's label ends in its mark, ``max + transposed (again)``; the mark that most runs have goes without saying.
    """
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if run.config or all(key in run.overrides for key in keys):
            found.setdefault(tuple(text(run.setting(key)) for key in keys), []).append(run)
    settings = [(dict(zip(keys, setting, strict=True)), members) for setting, members in found.items()]
    usual = usual_mark([arm for arm, members in settings for _ in members])
    arms = []
    for values, members in settings:
        mark = values.get(REPEAT, usual)
        told = label({key: value for key, value in values.items() if key != REPEAT})
        arms.append(Arm(told if mark == usual else f"{told} ({mark})", values, members))
    return arms


def usual_mark(settings: Sequence[Mapping[str, str]]) -> str:
    """The value of ``arm`` that most of them have; nothing where it does not vary."""
    counted = Counter(values.get(REPEAT, "") for values in settings)
    return counted.most_common(1)[0][0] if counted else ""


def missing_seeds(arms: Sequence[Arm]) -> list[tuple[Arm, int]]:
    """Seeds that other arms have and an arm does not; a repeat of an arm may have seeds of its own."""
    gaps = []
    for arm in arms:
        peers = [other for other in arms if other.values.get(REPEAT) == arm.values.get(REPEAT)]
        wanted = {run.seed for peer in peers for run in peer.runs if run.seed is not None}
        had = {run.seed for run in arm.runs}
        if None not in had:  # a planned run that left no config may be the one
            gaps += [(arm, seed) for seed in sorted(wanted - had)]
    return gaps
