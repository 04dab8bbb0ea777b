"""The calls that are timed: one training step and one inference of a network, on a fixed batch."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from unet.benchmark.baselines import BenchmarkNetwork
from unet.labels import IGNORE_INDEX


def training_step(benchmarked: BenchmarkNetwork, image: Tensor, target: Tensor) -> Callable[[], Tensor]:
    """Return a training step on a fixed batch: forward, cross entropy in fp32, backward, AdamW; returns the loss.

    image (B, C, *S) float, target (B, *S) int64.
    """
    network = benchmarked.placed(image.device, training=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=benchmarked.fused)
    image = benchmarked.form.lay(image)

    def step() -> Tensor:
        optimizer.zero_grad()
        with benchmarked.form.autocast(image.device):
            logits = network(image)
        loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_INDEX)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def inference(benchmarked: BenchmarkNetwork, image: Tensor) -> Callable[[], Tensor]:
    """Return a forward pass in evaluation mode, without gradients, which returns the logits (B, K, *S)."""
    network = benchmarked.placed(image.device, training=False)
    image = benchmarked.form.lay(image)

    def infer() -> Tensor:
        with torch.inference_mode(), benchmarked.form.autocast(image.device):
            return network(image)

    return infer
