"""Verify an exported network against torch at several sizes, and measure the error of tiling."""

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
"""Largest allowed difference of a probability."""
BATCHES = (1, 2)


def odd_sizes(stride: Sequence[int]) -> list[tuple[int, ...]]:
    """Return three different sizes, odd along every axis, of two to four total strides and a few pixels."""
    return [
        tuple((2 + (index + axis) % 3) * n + 1 + 2 * index | 1 for axis, n in enumerate(stride)) for index in range(3)
    ]


def trace_size(stride: Sequence[int]) -> tuple[int, ...]:
    """Return an even size to trace a network with: not the smallest, and different along every axis."""
    return tuple((3 + axis) * 2 * n for axis, n in enumerate(stride))


def parity_sizes(spec: InputSpec) -> list[tuple[int, ...]]:
    """Return the sizes at which a program is verified: three odd ones and the smallest, or the only one."""
    return [spec.size] if spec.size else [*odd_sizes(spec.total_stride), spec.min_size]


def parity_batches(spec: InputSpec) -> tuple[int, ...]:
    """Return the batch sizes at which a program is verified."""
    return (1,) if spec.size else BATCHES


@torch.no_grad()
def check_parity(program: Program, net: Program, spec: InputSpec) -> dict[str, Any]:
    """Compare a program with the network it was made from, and return sizes, tolerance and largest difference.

    The program returns probabilities (B, K, *S) or labels (B, *S). Labels differ only at near ties, where the label of
    the program is at most twice the tolerance less probable than that of the network.

    Raises:
        UserError: outputs differ; the message has the size and the difference.
    """
    largest, ties, count, has_probabilities = 0.0, 0, 0, False
    for case, output, expected in output_pairs(program, net, spec):
        has_probabilities = output.ndim == expected.ndim
        if has_probabilities:
            difference = (output - expected).abs().max().item()
            if not difference <= TOLERANCE:  # false for NaN
                raise UserError(f"{case} probabilities differ by up to {difference:.2g} (at most {TOLERANCE:g})")
            largest = max(largest, difference)
        num_different, margin = compare_labels(output, expected)
        if margin > 2 * TOLERANCE:
            raise UserError(f"{case} {num_different} labels differ, their probabilities by up to {margin:.2g}")
        ties += num_different
        count += expected[:, 0].numel()
    return {
        "sizes": [list(size) for size in parity_sizes(spec)],
        "batches": list(parity_batches(spec)),
        "tolerance": TOLERANCE,
        "largest_difference": largest if has_probabilities else None,
        "labels": count,
        "labels_differing_at_near_ties": ties,
    }


@torch.no_grad()
def output_pairs(program: Program, net: Program, spec: InputSpec) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield a description, the output of a program, and that of the network, for every test size and batch size.

    Raises:
        UserError: the shapes differ, or only the output of the program is not finite.
    """
    for seed, (size, batch) in enumerate(product(parity_sizes(spec), parity_batches(spec))):
        image = spec.random_image(batch, size, seed)
        expected, output, case = net(image), program(image), f"at {times(size)}, batch {batch}"
        shape = expected.shape if output.ndim == expected.ndim else expected[:, 0].shape
        if output.shape != shape:
            raise UserError(f"{case} the output has shape {tuple(output.shape)}, in torch {tuple(shape)}")
        if not is_finite(output) and is_finite(expected):
            raise UserError(f"{case} the output is not finite, in torch it is")
        yield case, output, expected


def to_labels(output: Tensor, expected: Tensor) -> Tensor:
    """Return the labels (B, *S) of an output that is labels or, like ``expected``, probabilities (B, K, *S)."""
    return output.argmax(1) if output.ndim == expected.ndim else output.long()


def compare_labels(output: Tensor, expected: Tensor) -> tuple[int, float]:
    """Return the number of labels that differ, and the largest difference of the probabilities of two labels."""
    labels = to_labels(output, expected)
    top, best = expected.max(1)
    margin = top - expected.gather(1, labels[:, None])[:, 0]
    return int((labels != best).sum()), margin.max().item()


@torch.no_grad()
def tiling_error(program: Program, image: Tensor, tiles: TileSpec) -> dict[str, Any]:
    """Compare tiled with full prediction of an image by a program that returns probabilities."""

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
