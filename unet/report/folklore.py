"""What is said about resampling, held against the runs: a table of sayings, and one way to judge them all."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unet.report.arms import RESAMPLING, Arm
from unet.report.comparison import Contrast, contrast, family
from unet.report.measures import OVERFITTING, SMALLEST_OBJECTS, title
from unet.report.study import Study

Array = np.ndarray
Chooser = Callable[[Sequence[Arm]], Array]
"""Weights (W, A) of the arms whose weighted sums a saying speaks of, a row a setting of all else."""

DOWN, UP = RESAMPLING
HIGHER, LOWER, EQUAL = 1, -1, 0


@dataclass(frozen=True)
class Saying:
    """A sentence and what would show it.

    Attributes:
        number, sentence: as it is taught.
        contrast: which arms against which, in words; ``arms``: their weights.
        metric: what is compared; a pattern is averaged over the keys that match.
        direction: how the sentence expects the first arms to be: ``HIGHER``, ``LOWER``, or ``EQUAL`` to the second.
            A test can contradict that two are equal; it cannot support it.
    """

    number: int
    sentence: str
    contrast: str
    arms: Chooser
    metric: str
    direction: int


@dataclass(frozen=True)
class Judged:
    """A saying, what came out, and what that says of it."""

    saying: Saying
    found: Contrast
    verdict: str

    @property
    def metric(self) -> str:
        return title(self.saying.metric)


def base(value: str) -> str:
    """An operator's name without its options."""
    return value.partition("(")[0]


def unlike(key: str, first: Sequence[str], second: Sequence[str]) -> Chooser:
    """Arms with a value of ``first`` against those with one of ``second``, wherever all else is the same.

    Within each setting of the other factors the means of the two groups are compared; the settings count alike.
    """

    def weights(arms: Sequence[Arm]) -> Array:
        settings: dict[tuple[str, ...], list[int]] = {}
        for index, arm in enumerate(arms):
            settings.setdefault(tuple(v for k, v in arm.values.items() if k != key), []).append(index)
        rows = []
        for members in settings.values():
            groups = [[i for i in members if base(arms[i].values.get(key, "")) in names] for names in (first, second)]
            if all(groups):
                row = np.zeros(len(arms))
                row[groups[0]], row[groups[1]] = 1 / len(groups[0]), -1 / len(groups[1])
                rows.append(row)
        return np.array(rows).reshape(-1, len(arms))

    return weights


def extremes(key: str) -> Chooser:
    """Arms with the largest value of a number against those with its smallest, wherever all else is the same."""

    def weights(arms: Sequence[Arm]) -> Array:
        values = {arm.values[key] for arm in arms if number_in(arm.values.get(key, "")) is not None}
        ordered = sorted(values, key=float)
        return unlike(key, ordered[-1:], ordered[:1])(arms) if len(ordered) > 1 else np.zeros((0, len(arms)))

    return weights


def number_in(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def mirrored(pairs: Mapping[str, Sequence[str]]) -> Chooser:
    """Arms whose up operator undoes their down operator, against the same operators crosswise.

    For two matched arms (a, A) and (b, B): their mean minus that of (a, B) and (b, A), so that how good an operator is
    by itself cancels out.
    """

    def weights(arms: Sequence[Arm]) -> Array:
        place = {tuple(arm.values.items()): index for index, arm in enumerate(arms)}
        matched = [arm.values for arm in arms if undone(arm.values)]
        rows = []
        for one, other in itertools.combinations(matched, 2):
            crossed = [one | {UP: other[UP]}, other | {UP: one[UP]}]
            found = [place.get(tuple(values.items())) for values in (one, other, *crossed)]
            elsewhere = {key for key in one if one[key] != other[key]} - set(RESAMPLING)
            if None not in found and not elsewhere and not any(map(undone, crossed)):
                row = np.zeros(len(arms))
                row[np.array(found, int)] = 0.5, 0.5, -0.5, -0.5
                rows.append(row)
        return np.array(rows).reshape(-1, len(arms))

    def undone(values: Mapping[str, str]) -> bool:
        return base(values.get(UP, "")) in pairs.get(base(values.get(DOWN, "")), ())

    return weights


POOLING, KEEPING = ("max", "avg"), ("strided", "pixel_unshuffle", "haar")
INTERPOLATION = ("nearest", "linear", "bilinear", "trilinear", "bicubic")
LINEAR = ("linear", "bilinear", "trilinear")
LEARNT_UP = ("transposed", "pixel_shuffle")
MIRRORS = {
    "max": ("unpool",),
    "avg": ("nearest", *LINEAR),
    "strided": ("transposed",),
    "pixel_unshuffle": ("pixel_shuffle",),
    "haar": ("haar",),
}

pooling = ("pooling against convolutions that shrink", unlike(DOWN, POOLING, KEEPING))
strided = ("strided convolution against pooling", unlike(DOWN, ("strided",), POOLING))
max_average = ("max against average pooling", unlike(DOWN, ("max",), ("avg",)))
bilinear = ("linear against nearest and cubic", unlike(UP, LINEAR, ("nearest", "bicubic")))
bilinear_transposed = ("linear interpolation against transposed", unlike(UP, LINEAR, ("transposed",)))
unpooling = ("max-unpooling against the other ways up", unlike(UP, ("unpool",), (*INTERPOLATION, *LEARNT_UP)))
transposed = ("transposed convolution against interpolation", unlike(UP, ("transposed",), INTERPOLATION))
skips = ("skips against none", unlike("model.skip", ("concat", "add"), ("none",)))
deep = ("deepest against shallowest", extremes("model.depth"))
symmetric = ("up undoes down, against the same crosswise", mirrored(MIRRORS))

SAYINGS = (
    Saying(1, "Pooling costs nothing,", *pooling, "model/parameters", LOWER),
    Saying(1, "but loses position.", *pooling, "boundary/iou", LOWER),
    Saying(2, "Strided convolution learns better features,", *strided, "miou", HIGHER),
    Saying(2, "at a price.", *strided, "time/train_seconds", HIGHER),
    Saying(3, "Max keeps texture and salient features, average smooths.", *max_average, "thin/*", HIGHER),
    Saying(3, "Max keeps texture and salient features, average smooths.", *max_average, "boundary/iou", HIGHER),
    Saying(4, "Bilinear is the best interpolation,", *bilinear, "miou", HIGHER),
    Saying(4, "and its cost does not matter.", *bilinear_transposed, "time/train_seconds", EQUAL),
    Saying(5, "Unpooling is fast,", *unpooling, "time/samples_per_second", HIGHER),
    Saying(5, "needs few parameters,", *unpooling, "model/parameters", LOWER),
    Saying(5, "and restores boundaries.", *unpooling, "boundary/iou", HIGHER),
    Saying(6, "Transposed convolution recovers detail", *transposed, "boundary/iou", HIGHER),
    Saying(6, "(and makes checkerboards).", *transposed, "checkerboard/imbalance", HIGHER),
    Saying(7, "Skip connections repair what downsampling lost.", *skips, "boundary/iou", HIGHER),
    Saying(7, "Skip connections repair what downsampling lost.", *skips, "miou", HIGHER),
    Saying(8, "Too much downsampling loses small objects.", *deep, SMALLEST_OBJECTS, LOWER),
    Saying(9, "Pooling makes the network robust to small shifts.", *pooling, "shift/agreement", HIGHER),
    Saying(10, "Downsampling prevents overfitting.", *deep, OVERFITTING, LOWER),
    Saying(11, "Encoder and decoder should be symmetric.", *symmetric, "miou", HIGHER),
)


def judge(study: Study) -> list[Judged]:
    """Every saying that the sweep has arms for. All that is tested is one family."""
    spoken = [(saying, weights) for saying in SAYINGS if len(weights := saying.arms(study.arms))]
    found = [
        contrast(study.scores if saying.metric == study.metric else study.of(saying.metric), weights, saying.contrast)
        for saying, weights in spoken
    ]
    tested = [index for index, (saying, _) in enumerate(spoken) if not is_exact(saying)]
    corrections = family([found[index] for index in tested], [spoken[index][0].metric for index in tested])
    for index, corrected in zip(tested, corrections, strict=True):
        found[index] = corrected
    return [Judged(saying, seen, verdict(saying, seen)) for (saying, _), seen in zip(spoken, found, strict=True)]


def is_exact(saying: Saying) -> bool:
    """Counts of the network itself, which no seed changes, need no test."""
    return saying.metric.startswith("model/")


def verdict(saying: Saying, found: Contrast) -> str:
    """``supported``, ``contradicted``, ``not decided``, or ``not measured`` where no seed has the metric in both."""
    if not found.seeds:
        return "not measured"
    if not (is_exact(saying) or found.claimed):
        return "not decided"
    return "supported" if np.sign(found.difference) == saying.direction else "contradicted"
