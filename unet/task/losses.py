"""Losses by name, of logits (B, K, *S) and target (B, *S) without ``IGNORE_INDEX``, computed in float32.

``weight`` are the weights of the classes (K,) or None. Nothing reads a value of a tensor, so a GPU is not waited for.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unet.errors import UserError, did_you_mean
from unet.labels import IGNORE_INDEX

POOLS = (F.max_pool1d, F.max_pool2d, F.max_pool3d)


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None, *, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy, averaged over labelled pixels by their class weights; 0 without labelled pixels.

    Args:
        label_smoothing: the share of the target that is spread evenly over all classes (Szegedy et al. 2016,
            arXiv:1512.00567).
    """
    total = F.cross_entropy(
        logits, target, weight, ignore_index=IGNORE_INDEX, reduction="sum", label_smoothing=label_smoothing
    )
    known = target != IGNORE_INDEX
    mass = known.sum() if weight is None else weight[target.where(known, 0)].where(known, 0).sum()
    return total / mass.clamp(min=torch.finfo(total.dtype).tiny)


def focal(logits: Tensor, target: Tensor, weight: Tensor | None, *, gamma: float = 2.0) -> Tensor:
    """Return the cross-entropy scaled by ``(1 - p)^gamma``: easy pixels count less (Lin 2017, arXiv:1708.02002)."""
    known = target != IGNORE_INDEX
    label = target.where(known, 0)
    log_p = logits.log_softmax(1).gather(1, label.unsqueeze(1)).squeeze(1)
    mass = known.to(log_p.dtype) if weight is None else weight[label] * known
    return -(mass * (1 - log_p.exp()) ** gamma * log_p).sum() / mass.sum().clamp(min=torch.finfo(log_p.dtype).tiny)


def tversky(
    logits: Tensor, target: Tensor, weight: Tensor | None, *, alpha: float = 0.3, beta: float = 0.7, gamma: float = 1.0
) -> Tensor:
    """Return one minus the soft Tversky index of each class over the batch, averaged over the classes in the batch.

    Salehi et al. 2017, https://arxiv.org/abs/1706.05721. ``weight``: weights of the classes in the mean.

    Args:
        alpha, beta: weights of false positives and of false negatives.
        gamma: exponent of each class's loss: the focal Tversky loss (Abraham and Khan 2018, arXiv:1810.07842).
    """
    known = target != IGNORE_INDEX
    label = target.where(known, 0)
    probs = logits.softmax(1) * known.unsqueeze(1)
    hits = probs.gather(1, label.unsqueeze(1))  # a one-hot target would cost several times the cross-entropy
    overlap = probs.new_zeros(logits.shape[1]).index_add(0, label.flatten(), hits.flatten())
    # A mask or bincount would synchronise with the GPU.
    count = label.new_zeros(logits.shape[1]).index_add(0, label.flatten(), known.flatten().long())
    predicted = probs.sum((0, *range(2, logits.ndim)))
    size = (1 - alpha - beta) * overlap + (alpha * predicted + beta * count)
    score = (overlap + 0.5) / (size + 0.5)  # the 0.5 bounds the gradient of a class of few pixels
    loss = 1 - score
    return mean_of_present(loss if gamma == 1 else loss.clamp(min=1e-6) ** gamma, count > 0, weight)


def dice(logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return one minus the soft Dice of each class over the batch, averaged over the classes in the batch.

    Milletari et al. 2016, https://arxiv.org/abs/1606.04797. ``weight``: weights of the classes in the mean.
    """
    return tversky(logits, target, weight, alpha=0.5, beta=0.5)


def cross_entropy_dice(logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the weighted cross-entropy plus the unweighted Dice loss, as in nnU-Net (arXiv:1904.08128)."""
    return cross_entropy(logits, target, weight) + dice(logits, target, None)


def lovasz(logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the Lovasz extension of one minus the IoU of each class over the batch, averaged as in :func:`tversky`.

    Berman et al. 2018, https://arxiv.org/abs/1705.08790. It needs several times the memory of the logits.
    """
    probs, truth = probabilities_and_one_hot(logits, target)
    probs, truth = probs.transpose(0, 1).flatten(1), truth.transpose(0, 1).flatten(1)
    errors, order = (truth - probs).abs().sort(1, descending=True)  # 0 where unlabelled: last, without a gradient
    hit = truth.gather(1, order)
    count = hit.sum(1, keepdim=True)
    iou_loss = 1 - (count - hit.cumsum(1)) / (count + (1 - hit).cumsum(1))  # of the pixels with the largest errors
    steps = iou_loss.diff(dim=1, prepend=iou_loss.new_zeros(len(iou_loss), 1))
    return mean_of_present((errors * steps).sum(1), count.squeeze(1) > 0, weight)


def cldice(logits: Tensor, target: Tensor, weight: Tensor | None, *, iterations: int = 5) -> Tensor:
    """Return one minus the soft clDice of each class over the batch, averaged as in :func:`tversky`.

    clDice compares the skeleton of each mask with the other mask, so that a gap in a thin structure costs as much as
    one in a wide structure (Shit et al. 2021, https://arxiv.org/abs/2003.07311). Add it to another loss:
    ``[cross_entropy_dice, cldice]``.

    Args:
        iterations: the largest half width, in pixels, of structures that are reduced to a skeleton.
    """
    probs, truth = probabilities_and_one_hot(logits, target)
    over = (0, *range(2, logits.ndim))
    skeletons = soft_skeleton(probs, iterations), soft_skeleton(truth, iterations)
    precision, recall = (
        ((skeleton * mask).sum(over) + 1) / (skeleton.sum(over) + 1)
        for skeleton, mask in zip(skeletons, (truth, probs), strict=True)
    )
    return mean_of_present(1 - 2 * precision * recall / (precision + recall), truth.sum(over) > 0, weight)


def soft_skeleton(mask: Tensor, iterations: int) -> Tensor:
    """Return the soft skeleton of masks (B, K, *S) of 0 to 1: what each erosion leaves that an opening removes."""
    axes = mask.ndim - 2
    pool = partial(POOLS[axes - 1], stride=1)

    def erode(x: Tensor) -> Tensor:
        along = [[3 if axis == other else 1 for other in range(axes)] for axis in range(axes)]
        pooled = [-pool(-x, kernel_size=size, padding=[n // 2 for n in size]) for size in along]
        return torch.stack(pooled).amin(0)

    skeleton = torch.zeros_like(mask)
    for _ in range(iterations + 1):
        eroded = erode(mask)
        rest = F.relu(mask - pool(eroded, kernel_size=3, padding=1))
        skeleton = skeleton + F.relu(rest - skeleton * rest)
        mask = eroded
    return skeleton


def probabilities_and_one_hot(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities and one-hot target (B, K, *S), both 0 in unlabelled pixels."""
    known = (target != IGNORE_INDEX).unsqueeze(1)
    truth = torch.zeros_like(logits).scatter(1, target.unsqueeze(1).where(known, 0), 1.0)
    return logits.softmax(1) * known, truth * known


def mean_of_present(losses: Tensor, present: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean of the losses (K,) of the classes that are present, by their weights; 0 without any."""
    mass = present.to(losses.dtype) if weight is None else present * weight
    return (mass * losses).sum() / mass.sum().clamp(min=torch.finfo(losses.dtype).tiny)


Loss = Callable[..., Tensor]
LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "dice": dice,
    "cross_entropy_dice": cross_entropy_dice,
    "focal": focal,
    "tversky": tversky,
    "lovasz": lovasz,
    "cldice": cldice,
}
"""Losses by name, each a function of (logits, target, weight) whose options are keyword arguments with defaults."""


OPTION_MAXIMA = {"label_smoothing": 1}
"""The largest valid value of an option; 100 for all others."""


def make_loss(spec: Any, weights: Sequence[float] | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss as a function of (logits, target).

    Args:
        spec: the value of ``loss.name``: a name, ``{name: focal, gamma: 3}``, or a list of either, which are added.
        weights: one per class.

    Raises:
        UserError: see :func:`parse_loss`.
    """
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float32)
    is_list = isinstance(spec, Sequence) and not isinstance(spec, str) and len(spec) > 0
    terms = [parse_loss(term) for term in (spec if is_list else [spec])]

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        device_weight = None if weight is None else weight.to(logits.device, non_blocking=True)
        return torch.stack([term(logits.float(), target, device_weight) for term in terms]).sum()

    return loss


def deep_loss(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Sequence[Tensor], target: Tensor, strides: Sequence[Sequence[int]]
) -> Tensor:
    """Return the mean loss of the logits of several levels, fine to coarse, with the weights 1, 1/2, 1/4 and so on.

    Logits of level k, (B, K, *S'), are compared with the labels at the centers of their cells. The target (B, *S) is
    padded as the network pads its input. Source: Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z.

    Args:
        strides: those of the network's stages, fine to coarse.
    """
    losses = [loss(logits[0], target)]
    for level, coarse in enumerate(logits[1:], start=1):
        factor = [math.prod(axis) for axis in zip(*strides[:level], strict=True)]
        losses.append(loss(coarse, coarse_labels(target, coarse.shape[2:], factor)))
    weights = [0.5**level for level in range(len(losses))]
    return torch.stack([weight * value for weight, value in zip(weights, losses, strict=True)]).sum() / sum(weights)


def coarse_labels(target: Tensor, size: Sequence[int], factor: Sequence[int]) -> Tensor:
    """Return the labels (B, *size) of a target (B, *S) at the centers of cells of ``factor`` samples.

    The cells cover the target and its padding to a multiple, with an odd sample after it, where they are ignored.
    """
    for axis, (m, r) in enumerate(zip(size, factor, strict=True), start=1):
        n = target.shape[axis]
        index = torch.arange(m, device=target.device) * r + r // 2 - (m * r - n) // 2
        outside = ((index < 0) | (index >= n)).view(-1, *[1] * (target.ndim - 1 - axis))
        target = target.index_select(axis, index.clamp(0, n - 1)).masked_fill(outside, IGNORE_INDEX)
    return target


def parse_loss(spec: Any) -> Loss:
    """Return the loss of a name, or of a mapping with options.

    Raises:
        UserError: the name or an option is unknown, or an option is no number in its range.
    """
    options = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in LOSSES:
        hint = did_you_mean(name, LOSSES) if isinstance(name, str) else ""
        raise UserError(f"loss.name: unknown {name!r}{hint} (valid: {', '.join(LOSSES)})")
    parameters = inspect.signature(LOSSES[name]).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for option, value in options.items():
        if option not in defaults:
            valid = ", ".join(defaults) or "none"
            raise UserError(f"loss.name={name}: no option {option!r}{did_you_mean(option, defaults)} (valid: {valid})")
        kind = type(defaults[option])
        most = OPTION_MAXIMA.get(option, 100)
        if isinstance(value, bool) or not isinstance(value, int | kind) or not 0 <= value <= most:
            noun = "an integer" if kind is int else "a number"
            raise UserError(f"loss.name={name}: {option}: expected {noun} of 0 to {most}, found {value!r}")
    return partial(LOSSES[name], **options)
