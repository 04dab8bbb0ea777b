"""What is timed of a network: one training step and one inference, on a fixed batch."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from unet.benchmark.contenders import Contender
from unet.labels import IGNORE_INDEX


def training_step(contender: Contender, image: Tensor, target: Tensor) -> Callable[[], Tensor]:
    """One step on a fixed batch: forward, cross entropy in fp32, backward, AdamW; returns the loss.

    image (B, C, *S) float, target (B, *S) int64.
    """
    network = contender.placed(image.device, training=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=contender.fused)
    image = contender.form.lay(image)

    def step() -> Tensor:
        optimizer.zero_grad()
        with contender.form.autocast(image.device):
            logits = network(image)
        loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_INDEX)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def inference(contender: Contender, image: Tensor) -> Callable[[], Tensor]:
    """One forward pass in evaluation mode, without gradients; returns the logits (B, K, *S)."""
    network = contender.placed(image.device, training=False)
    image = contender.form.lay(image)

    def infer() -> Tensor:
        with torch.inference_mode(), contender.form.autocast(image.device):
            return network(image)

    return infer
