"""Checks of an exported network: against torch at several sizes, and tiled against full prediction."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from unet.analysis.nonfinite import is_finite
from unet.errors import UserError
from unet.export.deployed import InputSpec
from unet.export.formats import Program
from unet.export.tiles import TileSpec
from unet.inference.tiling import sliding_window, stitch
from unet.network.geometry import times

TOLERANCE = 1e-4
"""Largest difference of a probability."""
BATCHES = (1, 2)


def odd_sizes(stride: Sequence[int]) -> list[tuple[int, ...]]:
    """Return three different sizes, odd along every axis, of two to four total strides and a few samples."""
    return [
        tuple((2 + (place + axis) % 3) * n + 1 + 2 * place | 1 for axis, n in enumerate(stride)) for place in range(3)
    ]


def traced_size(stride: Sequence[int]) -> tuple[int, ...]:
    """Return the size to trace a network with: not the smallest, different along every axis, and even."""
    return tuple((3 + axis) * 2 * n for axis, n in enumerate(stride))


def checked_sizes(images: InputSpec) -> list[tuple[int, ...]]:
    """Return the sizes at which a program is checked: three odd ones and the smallest."""
    return [*odd_sizes(images.total_stride), images.min_size]


@torch.no_grad()
def parity(program: Program, net: Program, images: InputSpec) -> dict[str, Any]:
    """Compare a program with the network it was made from, at every checked size, one image and two.

    Args:
        program: gives probabilities (B, K, *S) or labels (B, *S).
        net: gives probabilities.
        images: the images both take.

    Returns:
        The sizes, the tolerance, and the largest difference. Labels differ only at near ties, where the label of the
        program is no more than twice the tolerance less probable than the other.

    Raises:
        UserError: what differed, where, and by how much.
    """
    largest, ties, count, gave_probabilities = 0.0, 0, 0, False
    for place, output, expected in side_by_side(program, net, images):
        gave_probabilities = output.ndim == expected.ndim
        if gave_probabilities:
            difference = (output - expected).abs().max().item()
            if not difference <= TOLERANCE:  # NaN is not
                raise UserError(f"{place} probabilities differ by up to {difference:.2g} (at most {TOLERANCE:g})")
            largest = max(largest, difference)
        different, gap = compare_labels(output, expected)
        if gap > 2 * TOLERANCE:
            raise UserError(f"{place} {different} labels differ, with probabilities that differ by up to {gap:.2g}")
        ties += different
        count += expected[:, 0].numel()
    return {
        "sizes": [list(size) for size in checked_sizes(images)],
        "batches": list(BATCHES),
        "tolerance": TOLERANCE,
        "largest_difference": largest if gave_probabilities else None,
        "labels": count,
        "labels_differing_at_near_ties": ties,
    }


@torch.no_grad()
def side_by_side(program: Program, net: Program, images: InputSpec) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield size and batch in words, the output of a program, and that of the network, for every checked size.

    Raises:
        UserError: an output of another shape, or one that is not finite where the network's is.
    """
    for seed, (size, batch) in enumerate(product(checked_sizes(images), BATCHES)):
        image = images.random_image(batch, size, seed)
        expected, output, place = net(image), program(image), f"at {times(size)}, batch {batch}"
        shape = expected.shape if output.ndim == expected.ndim else expected[:, 0].shape
        if output.shape != shape:
            raise UserError(f"{place} its output is {tuple(output.shape)}, that of torch is {tuple(shape)}")
        if not is_finite(output) and is_finite(expected):
            raise UserError(f"{place} its output is not finite, that of torch is")
        yield place, output, expected


def compare_labels(output: Tensor, expected: Tensor) -> tuple[int, float]:
    """Return how many labels of ``output`` (labels or probabilities) differ, and how much less probable they are."""
    labels = output.argmax(1) if output.ndim == expected.ndim else output.long()
    top, best = expected.max(1)
    gap = top - expected.gather(1, labels[:, None])[:, 0]
    return int((labels != best).sum()), gap.max().item()


@torch.no_grad()
def tiling_error(program: Program, image: Tensor, tiles: TileSpec) -> dict[str, Any]:
    """Compare tiled with full prediction of an image; ``program`` gives probabilities."""

    def log_probabilities(image: Tensor) -> Tensor:
        return program(image).clamp_min(torch.finfo(torch.float32).tiny).log()

    full, size = program(image), tuple(image.shape[2:])
    windows = sliding_window(log_probabilities, lambda window: image[:, :, *window], tiles.tiling(size))
    tiled = stitch(windows, size).softmax(1)
    difference = (full - tiled).abs()
    return {
        "label_agreement": (full.argmax(1) == tiled.argmax(1)).float().mean().item(),
        "mean_difference": difference.mean().item(),
        "largest_difference": difference.max().item(),
        "size": list(size),
    }
