"""Test common claims about resampling on the runs of a sweep."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unet.report.analysis import SweepAnalysis
from unet.report.arms import RESAMPLING, Arm
from unet.report.comparison import EQUAL, Contrast, estimate_contrast, with_joint_intervals
from unet.report.metrics import OVERFITTING, SMALL_OBJECTS
from unet.report.questions import contrast_levels

Array = np.ndarray
Chooser = Callable[[Sequence[Arm]], Array]
"""Returns weights (W, A) of the arms that a claim compares, one row per setting of the other factors."""

DOWN, UP = RESAMPLING
HIGHER, LOWER = 1, -1


@dataclass(frozen=True)
class Claim:
    """A common claim and the comparison that tests it.

    Several entries may share a number. A metric that is a pattern is averaged over the keys that match. The first arms
    are expected to be ``HIGHER`` or ``LOWER``.
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
    """Return a chooser that compares the operators ``first`` with ``second``, all else equal."""

    def weights(arms: Sequence[Arm]) -> Array:
        return contrast_levels(
            arms, key, lambda value: operator_name(value) in first, lambda value: operator_name(value) in second
        )

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
UNPOOL_VS_TRANSPOSED = ("max-unpooling vs transposed convolution", compare_levels(UP, ("unpool",), ("transposed",)))
INTERPOLATION_VS_LEARNED = (
    "interpolation vs other upsampling",
    compare_levels(UP, INTERPOLATION, ("unpool", *LEARNED_UP)),
)
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
    Claim(2, "keeps spatial information better,", *STRIDED_VS_POOLING, "information/*", HIGHER),
    Claim(2, "at a price.", *STRIDED_VS_POOLING, "model/flops", HIGHER),
    Claim(3, "Max keeps texture and salient features, average smooths.", *MAX_VS_AVERAGE, "thin/*", HIGHER),
    Claim(3, "Max keeps texture and salient features, average smooths.", *MAX_VS_AVERAGE, "boundary/iou", HIGHER),
    Claim(4, "Bilinear is the best interpolation,", *LINEAR_VS_OTHERS, "miou", HIGHER),
    Claim(4, "and costs no more than transposed convolution.", *LINEAR_VS_TRANSPOSED, "model/flops", LOWER),
    Claim(
        5,
        "Unpooling needs fewer parameters than transposed convolution,",
        *UNPOOL_VS_TRANSPOSED,
        "model/parameters",
        LOWER,
    ),
    Claim(5, "and restores boundaries.", *UNPOOL_VS_OTHERS, "boundary/iou", HIGHER),
    Claim(6, "Transposed convolution recovers detail", *TRANSPOSED_VS_INTERPOLATION, "boundary/iou", HIGHER),
    Claim(6, "(and makes checkerboards).", *TRANSPOSED_VS_INTERPOLATION, "checkerboard/imbalance", HIGHER),
    Claim(7, "Skip connections repair what downsampling lost.", *SKIPS_VS_NONE, "boundary/iou", HIGHER),
    Claim(7, "Skip connections repair what downsampling lost.", *SKIPS_VS_NONE, "miou", HIGHER),
    Claim(8, "Too much downsampling loses small objects.", *DEEPEST_VS_SHALLOWEST, SMALL_OBJECTS, LOWER),
    Claim(9, "Pooling makes the network robust to small shifts.", *POOLING_VS_LEARNED, "shift/agreement", HIGHER),
    Claim(9, "Interpolation makes it robust to small shifts.", *INTERPOLATION_VS_LEARNED, "shift/agreement", HIGHER),
    Claim(10, "Downsampling prevents overfitting.", *DEEPEST_VS_SHALLOWEST, OVERFITTING, LOWER),
    Claim(11, "Encoder and decoder should be symmetric.", *MATCHED_VS_CROSSED, "miou", HIGHER),
)


def evaluate_claims(analysis: SweepAnalysis) -> list[EvaluatedClaim]:
    """Compute every claim that the sweep has arms for, with intervals that hold together for all of them."""
    claims, contrasts = [], []
    for claim in CLAIMS:
        weights = claim.weights(analysis.arms)
        if len(weights):
            scores = analysis.scores if claim.metric == analysis.metric else analysis.scores_of(claim.metric)
            claims.append(claim)
            contrasts.append(estimate_contrast(scores, weights, claim.comparison))
    tested = [index for index, claim in enumerate(claims) if not is_exact(claim)]
    for index, contrast in zip(tested, with_joint_intervals([contrasts[i] for i in tested]), strict=True):
        contrasts[index] = contrast
    return [EvaluatedClaim(c, d, verdict(c, d, analysis)) for c, d in zip(claims, contrasts, strict=True)]


def is_exact(claim: Claim) -> bool:
    """Return whether the metric is an exact property of the network, which needs no test."""
    return claim.metric.startswith("model/")


def verdict(claim: Claim, contrast: Contrast, analysis: SweepAnalysis) -> str:
    """Return ``supported``, ``contradicted``, ``practically equal``, ``not decided``, or ``not measured``."""
    if not contrast.seeds:
        return "not measured"
    if claim.metric == analysis.metric and contrast.verdict(analysis.margin) == EQUAL:
        return EQUAL
    if not (is_exact(claim) or contrast.differs):
        return "not decided"
    return "supported" if np.sign(contrast.difference) == claim.direction else "contradicted"
