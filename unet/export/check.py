"""Is what was written what was trained? Held against torch at other sizes, and tiled prediction against whole."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from unet.errors import UserError
from unet.export.deployed import Given
from unet.export.formats import Program
from unet.export.recipe import Recipe
from unet.finite import is_finite
from unet.geometry import times
from unet.inference import sliding_window, stitch

TOLERANCE = 1e-4
"""Of a probability."""
BATCHES = (1, 2)


def odd_sizes(stride: Sequence[int]) -> list[tuple[int, ...]]:
    """Three sizes, odd along every axis, unlike each other: two to four total strides and some."""
    return [
        tuple((2 + (place + axis) % 3) * n + 1 + 2 * place | 1 for axis, n in enumerate(stride)) for place in range(3)
    ]


def traced_size(stride: Sequence[int]) -> tuple[int, ...]:
    """The size at which a network is traced: not the smallest, nor the same along two axes, and even."""
    return tuple((3 + axis) * 2 * n for axis, n in enumerate(stride))


@torch.no_grad()
def parity(program: Program, net: Program, images: Given) -> dict[str, Any]:
    """Hold a program against the network it was made from, at three odd sizes and at the smallest, one image and two.

    Args:
        program: gives probabilities (B, K, *S) or labels (B, *S).
        net: gives probabilities.
        images: what both take.

    Returns:
        The sizes, the tolerance, and how far the two are apart. Labels differ only at near ties, where the label the
        program gives is no more than twice the tolerance less probable than the other.

    Raises:
        UserError: what differed, where, and by how much.
    """
    largest, ties, seen, gave_probabilities = 0.0, 0, 0, False
    for place, found, expected in side_by_side(program, net, images):
        gave_probabilities = found.ndim == expected.ndim
        if gave_probabilities:
            apart = (found - expected).abs().max().item()
            if not apart <= TOLERANCE:  # NaN is not
                raise UserError(f"{place} probabilities are up to {apart:.2g} apart (at most {TOLERANCE:g})")
            largest = max(largest, apart)
        different, gap = labels_apart(found, expected)
        if gap > 2 * TOLERANCE:
            raise UserError(f"{place} {different} labels differ, of probabilities up to {gap:.2g} apart")
        ties += different
        seen += expected[:, 0].numel()
    return {
        "sizes": [list(size) for size in sizes(images)],
        "batches": list(BATCHES),
        "tolerance": TOLERANCE,
        "largest_difference": largest if gave_probabilities else None,
        "labels": seen,
        "labels_differing_at_near_ties": ties,
    }


@torch.no_grad()
def side_by_side(program: Program, net: Program, images: Given) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Where, in words; what a program gives there; and what the network does, at every size and batch that is checked.

    Raises:
        UserError: something of another shape, or that is not finite where the network's is.
    """
    for seed, (size, batch) in enumerate(product(sizes(images), BATCHES)):
        image = images.sample(batch, size, seed)
        expected, found, place = net(image), program(image), f"at {times(size)}, batch {batch}"
        whole = expected.shape if found.ndim == expected.ndim else expected[:, 0].shape
        if found.shape != whole:
            raise UserError(f"{place} it gives {tuple(found.shape)}, torch gives {tuple(whole)}")
        if not is_finite(found) and is_finite(expected):
            raise UserError(f"{place} it gives numbers that are not finite, torch does not")
        yield place, found, expected


def sizes(images: Given) -> list[tuple[int, ...]]:
    return [*odd_sizes(images.stride), images.smallest]


def labels_apart(found: Tensor, expected: Tensor) -> tuple[int, float]:
    """How many labels of ``found``, labels or probabilities, are others, and by how much less probable at most."""
    labels = found.argmax(1) if found.ndim == expected.ndim else found.long()
    top, best = expected.max(1)
    gap = top - expected.gather(1, labels[:, None])[:, 0]
    return int((labels != best).sum()), gap.max().item()


@torch.no_grad()
def seam(program: Program, image: Tensor, recipe: Recipe) -> dict[str, Any]:
    """Tiled against whole prediction of an image that takes several tiles; ``program`` gives probabilities.

    ``score`` is the share of labels that tiling leaves as they are: 1 without any seam. A network whose context or norm
    looks at the whole image sees another one in every tile.
    """

    def logarithms(image: Tensor) -> Tensor:
        return program(image).clamp_min(torch.finfo(torch.float32).tiny).log()

    whole, size = program(image), tuple(image.shape[2:])
    tiles = sliding_window(logarithms, lambda window: image[:, :, *window], recipe.tiles(size))
    tiled = stitch(tiles, size).softmax(1)
    apart = (whole - tiled).abs()
    return {
        "score": (whole.argmax(1) == tiled.argmax(1)).float().mean().item(),
        "mean_difference": apart.mean().item(),
        "largest_difference": apart.max().item(),
        "size": list(image.shape[2:]),
    }
