"""Test common claims about resampling on the runs of a sweep."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unet.report.analysis import SweepAnalysis
from unet.report.arms import RESAMPLING, Arm
from unet.report.comparison import Contrast, correct_family, estimate_contrast
from unet.report.metrics import OVERFITTING, SMALLEST_OBJECTS

Array = np.ndarray
Chooser = Callable[[Sequence[Arm]], Array]
"""Returns weights (W, A) of the arms that a claim compares, one row per setting of the other factors."""

DOWN, UP = RESAMPLING
HIGHER, LOWER, EQUAL = 1, -1, 0


@dataclass(frozen=True)
class Claim:
    """A common claim and the comparison that tests it.

    Several entries may share a number. A metric that is a pattern is averaged over the keys that match. The first arms
    are expected to be ``HIGHER``, ``LOWER``, or ``EQUAL``; a test can contradict equality but never support it.
    """

    number: int
    sentence: str
    comparison: str
    weights: Chooser
    metric: str
    direction: int


@dataclass(frozen=True)
class EvaluatedClaim:
    """A claim, the observed difference, and the verdict."""

    claim: Claim
    contrast: Contrast
    verdict: str


def operator_name(value: str) -> str:
    """Return an operator's name without its options."""
    return value.partition("(")[0]


def compare_levels(key: str, first: Sequence[str], second: Sequence[str]) -> Chooser:
    """Return a chooser that compares values of ``first`` with values of ``second``, all else equal.

    The means of the two groups are compared within each setting of the other factors; all settings weigh the same.
    """

    def weights(arms: Sequence[Arm]) -> Array:
        settings: dict[tuple[str, ...], list[int]] = {}
        for index, arm in enumerate(arms):
            settings.setdefault(tuple(v for k, v in arm.values.items() if k != key), []).append(index)
        rows = []
        for members in settings.values():
            groups = [
                [i for i in members if operator_name(arms[i].values.get(key, "")) in names] for names in (first, second)
            ]
            if all(groups):
                row = np.zeros(len(arms))
                row[groups[0]], row[groups[1]] = 1 / len(groups[0]), -1 / len(groups[1])
                rows.append(row)
        return np.array(rows).reshape(-1, len(arms))

    return weights


def largest_vs_smallest(key: str) -> Chooser:
    """Return a chooser that compares the largest value of a whole number with the smallest, all else equal."""

    def weights(arms: Sequence[Arm]) -> Array:
        ordered = sorted({v for a in arms if (v := a.values.get(key, "")).isdecimal()}, key=lambda v: int(v))
        return compare_levels(key, ordered[-1:], ordered[:1])(arms) if len(ordered) > 1 else np.zeros((0, len(arms)))

    return weights


def matched_vs_crossed(pairs: Mapping[str, Sequence[str]]) -> Chooser:
    """Return a chooser that compares arms of matched up and down operators with the same operators crossed.

    For two matched arms (a, A) and (b, B): the mean of both minus the mean of (a, B) and (b, A), so that the quality of
    each operator cancels out.
    """

    def weights(arms: Sequence[Arm]) -> Array:
        index_of = {tuple(arm.values.items()): index for index, arm in enumerate(arms)}
        matched = [arm.values for arm in arms if matches(arm.values)]
        rows = []
        for first, second in itertools.combinations(matched, 2):
            crossed = [first | {UP: second[UP]}, second | {UP: first[UP]}]
            indices = [index_of.get(tuple(values.items())) for values in (first, second, *crossed)]
            other_keys = {key for key in first if first[key] != second[key]} - set(RESAMPLING)
            if None not in indices and not other_keys and not any(map(matches, crossed)):
                row = np.zeros(len(arms))
                row[np.array(indices, int)] = 0.5, 0.5, -0.5, -0.5
                rows.append(row)
        return np.array(rows).reshape(-1, len(arms))

    def matches(values: Mapping[str, str]) -> bool:
        return operator_name(values.get(UP, "")) in pairs.get(operator_name(values.get(DOWN, "")), ())

    return weights


POOLING, LEARNED_DOWN = ("max", "avg"), ("strided", "pixel_unshuffle", "haar")
INTERPOLATION = ("nearest", "linear", "bilinear", "trilinear", "bicubic")
LINEAR = ("linear", "bilinear", "trilinear")
LEARNED_UP = ("transposed", "pixel_shuffle")
MATCHING_UP = {
    "max": ("unpool",),
    "avg": ("nearest", *LINEAR),
    "strided": ("transposed",),
    "pixel_unshuffle": ("pixel_shuffle",),
    "haar": ("haar",),
}

POOLING_VS_LEARNED = ("pooling vs learned downsampling", compare_levels(DOWN, POOLING, LEARNED_DOWN))
STRIDED_VS_POOLING = ("strided convolution vs pooling", compare_levels(DOWN, ("strided",), POOLING))
MAX_VS_AVERAGE = ("max vs average pooling", compare_levels(DOWN, ("max",), ("avg",)))
LINEAR_VS_OTHERS = ("linear vs nearest and cubic", compare_levels(UP, LINEAR, ("nearest", "bicubic")))
LINEAR_VS_TRANSPOSED = ("linear interpolation vs transposed", compare_levels(UP, LINEAR, ("transposed",)))
UNPOOL_VS_OTHERS = ("max-unpooling vs other upsampling", compare_levels(UP, ("unpool",), (*INTERPOLATION, *LEARNED_UP)))
TRANSPOSED_VS_INTERPOLATION = (
    "transposed convolution vs interpolation",
    compare_levels(UP, ("transposed",), INTERPOLATION),
)
SKIPS_VS_NONE = ("skips vs none", compare_levels("model.skip", ("concat", "add"), ("none",)))
DEEPEST_VS_SHALLOWEST = ("deepest vs shallowest", largest_vs_smallest("model.depth"))
MATCHED_VS_CROSSED = ("matched up and down operators vs crossed ones", matched_vs_crossed(MATCHING_UP))

CLAIMS = (
    Claim(1, "Pooling costs nothing,", *POOLING_VS_LEARNED, "model/parameters", LOWER),
    Claim(1, "but loses position.", *POOLING_VS_LEARNED, "boundary/iou", LOWER),
    Claim(2, "Strided convolution learns better features,", *STRIDED_VS_POOLING, "miou", HIGHER),
    Claim(2, "at a price.", *STRIDED_VS_POOLING, "time/train_seconds", HIGHER),
    Claim(3, "Max keeps texture and salient features, average smooths.", *MAX_VS_AVERAGE, "thin/*", HIGHER),
    Claim(3, "Max keeps texture and salient features, average smooths.", *MAX_VS_AVERAGE, "boundary/iou", HIGHER),
    Claim(4, "Bilinear is the best interpolation,", *LINEAR_VS_OTHERS, "miou", HIGHER),
    Claim(4, "and its cost does not matter.", *LINEAR_VS_TRANSPOSED, "time/train_seconds", EQUAL),
    Claim(5, "Unpooling is fast,", *UNPOOL_VS_OTHERS, "time/samples_per_second", HIGHER),
    Claim(5, "needs few parameters,", *UNPOOL_VS_OTHERS, "model/parameters", LOWER),
    Claim(5, "and restores boundaries.", *UNPOOL_VS_OTHERS, "boundary/iou", HIGHER),
    Claim(6, "Transposed convolution recovers detail", *TRANSPOSED_VS_INTERPOLATION, "boundary/iou", HIGHER),
    Claim(6, "(and makes checkerboards).", *TRANSPOSED_VS_INTERPOLATION, "checkerboard/imbalance", HIGHER),
    Claim(7, "Skip connections repair what downsampling lost.", *SKIPS_VS_NONE, "boundary/iou", HIGHER),
    Claim(7, "Skip connections repair what downsampling lost.", *SKIPS_VS_NONE, "miou", HIGHER),
    Claim(8, "Too much downsampling loses small objects.", *DEEPEST_VS_SHALLOWEST, SMALLEST_OBJECTS, LOWER),
    Claim(9, "Pooling makes the network robust to small shifts.", *POOLING_VS_LEARNED, "shift/agreement", HIGHER),
    Claim(10, "Downsampling prevents overfitting.", *DEEPEST_VS_SHALLOWEST, OVERFITTING, LOWER),
    Claim(11, "Encoder and decoder should be symmetric.", *MATCHED_VS_CROSSED, "miou", HIGHER),
)


def evaluate_claims(analysis: SweepAnalysis) -> list[EvaluatedClaim]:
    """Test every claim that the sweep has arms for, with p corrected over all of them."""
    claims, contrasts = [], []
    for claim in CLAIMS:
        weights = claim.weights(analysis.arms)
        if len(weights):
            scores = analysis.scores if claim.metric == analysis.metric else analysis.scores_of(claim.metric)
            claims.append(claim)
            contrasts.append(estimate_contrast(scores, weights, claim.comparison))
    tested = [index for index, claim in enumerate(claims) if not is_exact(claim)]
    corrected = correct_family([contrasts[index] for index in tested], [claims[index].metric for index in tested])
    for index, contrast in zip(tested, corrected, strict=True):
        contrasts[index] = contrast
    return [EvaluatedClaim(c, d, verdict(c, d)) for c, d in zip(claims, contrasts, strict=True)]


def is_exact(claim: Claim) -> bool:
    """Return whether the metric is an exact property of the network, which needs no test."""
    return claim.metric.startswith("model/")


def verdict(claim: Claim, contrast: Contrast) -> str:
    """Return ``supported``, ``contradicted``, ``not decided``, or ``not measured``."""
    if not contrast.seeds:
        return "not measured"
    if not (is_exact(claim) or contrast.is_claimed):
        return "not decided"
    return "supported" if np.sign(contrast.difference) == claim.direction else "contradicted"
