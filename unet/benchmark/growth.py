"""Measure how time and peak memory of a training step grow with pixels, batch and width."""

import math
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context

import torch

from unet.analysis.activation_memory import cuda_peak_bytes, saved_tensor_bytes
from unet.benchmark.baselines import TrainingStep, Workload, in_training_format
from unet.benchmark.tensor_format import TensorFormat
from unet.benchmark.timing import measure
from unet.errors import UserError
from unet.hardware import keep_freed_memory
from unet.io.provenance import peak_memory_bytes, reset_peak_memory
from unet.network.geometry import count_flops, count_parameters, times
from unet.network.model import SMALL_BOTTLENECK

FACTORS = {"pixels": (1, 2, 4, 8), "batch": (1, 2, 4, 8), "width": (1, 2, 4)}
"""What is varied, and by which factors; the width by fewer, as the FLOPs grow with its square."""
MEMORY_STEPS = 3
"""Steps whose peak memory is measured: the first makes gradients and optimizer state, which later ones hold."""
GRADIENT_BYTES, MOMENT_BYTES = 4, 8
"""Bytes per parameter of the gradient and of the two moments of AdamW, in fp32."""


@dataclass(frozen=True)
class StepCost:
    """Median time in ms and peak memory in bytes of a training step, its FLOPs, and the bytes it has to hold.

    ``held_bytes``: see :func:`held_bytes`.
    """

    ms: float
    peak_bytes: int
    flops: int
    held_bytes: int


@dataclass(frozen=True)
class Growth:
    """The costs of a step for some values of ``varied``, and the exponent with which each of them grows."""

    varied: str
    factors: Sequence[int]
    values: list[str]
    costs: list[StepCost]

    def exponent(self, cost: str) -> float:
        """Return the slope of the line through log(cost) against log(factor)."""
        logs = [math.log(getattr(step, cost)) for step in self.costs]
        return statistics.linear_regression([math.log(factor) for factor in self.factors], logs).slope


def vary(workload: Workload, varied: str, factor: int) -> tuple[Workload, str]:
    """Return a workload with ``factor`` (a power of 2) times the pixels, batch or width, and its value as text."""
    if varied == "pixels":
        doublings = factor.bit_length() - 1
        height, width = workload.size
        size = (height << doublings // 2, width << (doublings + 1) // 2)
        return replace(workload, size=size), times(size)
    value = factor * getattr(workload, varied)
    return replace(workload, **{varied: value}), str(value)


def measure_growth(workload: Workload, tensor_format: TensorFormat, rounds: int) -> list[Growth]:
    """Measure the memory of every variation of ``workload`` alone, then time all of them in the same rounds."""
    variations = {key: [vary(workload, key, factor) for factor in factors] for key, factors in FACTORS.items()}
    workloads = {str(varied): varied for values in variations.values() for varied, _ in values}  # equal ones once
    peaks = {key: step_peak_bytes(varied, tensor_format) for key, varied in workloads.items()}
    steps = {key: build_step(varied, tensor_format) for key, varied in workloads.items()}
    held = {key: held_bytes(step) for key, step in steps.items()}
    timings = measure(steps, rounds, verbose=True)
    costs = {
        key: StepCost(
            ms=statistics.median(timings[key]),
            peak_bytes=peaks[key],
            flops=3 * count_flops(step.network, step.image.shape),
            held_bytes=held[key],
        )
        for key, step in steps.items()
    }
    return [
        Growth(key, FACTORS[key], [value for _, value in values], [costs[str(varied)] for varied, _ in values])
        for key, values in variations.items()
    ]


def build_step(workload: Workload, tensor_format: TensorFormat) -> TrainingStep:
    """Return a training step of this project's network."""
    network = in_training_format(workload.network(), workload.device, tensor_format)
    return network.training_step(workload.image(), workload.target())


def held_bytes(step: TrainingStep) -> int:
    """Return the bytes that a step has to hold at the same time besides the weights and the input.

    These are the optimizer's state, and the larger of what the forward pass saves for the backward pass, which needs no
    gradients yet, and the gradients, which remain after it.
    """
    known = [*step.network.parameters(), *step.network.buffers(), step.image, step.target]
    parameters = count_parameters(step.network)
    return MOMENT_BYTES * parameters + max(saved_tensor_bytes(step.loss, known), GRADIENT_BYTES * parameters)


def step_peak_bytes(workload: Workload, tensor_format: TensorFormat) -> int:
    """Return the peak memory of a step less what was used before its first one.

    On a CPU this is resident memory, measured in a new process: a process reuses the memory of earlier steps.
    """
    if workload.device == "cuda":
        return cuda_peak_bytes(lambda: run_steps(build_step(workload, tensor_format)))
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(resident_peak_bytes, workload, tensor_format, torch.get_num_threads()).result()
    except BrokenProcessPool:
        raise UserError(
            f"the process that runs a step of width {workload.width} on {workload.batch} images of "
            f"{times(workload.size)} was killed: there may be too little memory; use a smaller width, batch or size"
        ) from None


def resident_peak_bytes(workload: Workload, tensor_format: TensorFormat, threads: int) -> int:
    """Return the peak resident memory of a step in this process less what was used before."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # as in a training
    small = replace(workload, width=4, batch=1, size=(SMALL_BOTTLENECK << workload.depth,) * 2)
    build_step(small, tensor_format)()  # loads the code of the kernels
    step = build_step(workload, tensor_format)
    reset_peak_memory()
    before = peak_memory_bytes()
    run_steps(step)
    return peak_memory_bytes() - before


def run_steps(step: TrainingStep) -> None:
    """Run as many steps as the memory needs to reach its peak."""
    for _ in range(MEMORY_STEPS):
        step()
