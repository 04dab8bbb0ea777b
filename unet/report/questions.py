"""Define the questions of a sweep: which levels of a factor are compared, and what the runs answer.

A sweep names them before it runs (``questions={model.up: transposed}``: every other up operator against transposed).
Without names every pair of levels of every factor is one. All questions are one family of comparisons.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unet.report.arms import REPEAT, Arm
from unet.report.comparison import Contrast, Scores, estimate_contrast, with_joint_intervals

Array = np.ndarray


@dataclass(frozen=True)
class Question:
    """Two levels of a factor and their difference, first minus second, where all other factors agree.

    Attributes:
        weights: (A,) of the arms, positive for the first level; the mean over all settings of the other factors.
    """

    key: str
    first: str
    second: str
    weights: Array
    contrast: Contrast


def contrast_levels(
    arms: Sequence[Arm], key: str, is_first: Callable[[str], bool], is_second: Callable[[str], bool]
) -> Array:
    """Return weights (W, A) that compare two groups of values of ``key``, a row per setting of the other factors.

    The means of both groups are compared within each setting that has both; all settings weigh the same.
    """
    settings: dict[tuple[str, ...], list[int]] = {}
    for index, arm in enumerate(arms):
        settings.setdefault(tuple(value for other, value in arm.values.items() if other != key), []).append(index)
    rows = []
    for members in settings.values():
        first, second = ([i for i in members if test(arms[i].values.get(key, ""))] for test in (is_first, is_second))
        if first and second:
            row = np.zeros(len(arms))
            row[first], row[second] = 1 / len(first), -1 / len(second)
            rows.append(row)
    return np.array(rows).reshape(-1, len(arms))


def answer_questions(
    scores: Scores, arms: Sequence[Arm], factors: Sequence[str], named: Mapping[str, str], sign: int, alpha: float
) -> list[Question]:
    """Return the questions that the arms can answer, with intervals that hold together at ``1 - alpha``.

    Args:
        named: the reference level by key. Without any, all pairs of levels of every factor are compared, the better
            level first.
        sign: 1 if a larger value is better, else -1.
    """
    pairs = []
    for key in factors:
        levels = list(dict.fromkeys(arm.values[key] for arm in arms))
        if named:
            pairs += [(key, level, named[key]) for level in levels if key in named and level != named[key]]
        elif key != REPEAT:
            pairs += [(key, first, second) for first, second in itertools.combinations(levels, 2)]
    questions = []
    for key, first, second in pairs:
        question = ask(scores, arms, key, first, second)
        if question is not None and not named and question.contrast.difference * sign < 0:
            question = ask(scores, arms, key, second, first)
        questions += [] if question is None else [question]
    joint = with_joint_intervals([question.contrast for question in questions], alpha)
    return [replace(question, contrast=contrast) for question, contrast in zip(questions, joint, strict=True)]


def ask(scores: Scores, arms: Sequence[Arm], key: str, first: str, second: str) -> Question | None:
    """Return the difference of two levels with its interval alone; None if no arms differ in these levels only."""
    weights = contrast_levels(arms, key, first.__eq__, second.__eq__)
    if not len(weights):
        return None
    return Question(key, first, second, weights.mean(0), estimate_contrast(scores, weights, f"{first} vs {second}"))
