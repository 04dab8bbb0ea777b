"""The networks whose speed is compared: this project's, in two formats, and those of optional packages."""

import copy
import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet import UNet
from unet.benchmark.tensor_format import PLAIN, TensorFormat, training_format
from unet.errors import UserError
from unet.hardware import to_memory_format
from unet.labels import IGNORE_INDEX
from unet.network.registry import Spec

IN_CHANNELS, NUM_CLASSES = 3, 12
MONAI_DEPTH = 4
"""The only depth of MONAI's BasicUNet."""
REFERENCE = "this project"


@dataclass(frozen=True)
class Workload:
    """The input of every network: images (batch, 3, *size) on ``device``, 12 classes.

    ``down`` and ``up`` are the operators of this project's network.
    """

    width: int = 32
    depth: int = 4
    batch: int = 4
    size: tuple[int, int] = (192, 256)
    device: str = "cpu"
    down: Spec | Sequence[Spec] = "max"
    up: Spec | Sequence[Spec] = "transposed"

    def image(self) -> Tensor:
        """Return a random image."""
        return torch.randn(self.batch, IN_CHANNELS, *self.size, device=self.device)

    def target(self) -> Tensor:
        """Return random labels."""
        return torch.randint(NUM_CLASSES, (self.batch, *self.size), device=self.device)

    def network(self) -> UNet:
        """Return the network of this project."""
        return UNet(IN_CHANNELS, NUM_CLASSES, self.width, self.depth, self.down, self.up)


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """Forward, cross entropy in fp32, backward and optimizer on a fixed batch; a call runs all and returns the loss."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    image: Tensor
    target: Tensor
    format: TensorFormat

    def loss(self) -> Tensor:
        """Run the forward pass and return the loss."""
        with self.format.autocast(self.image.device):
            logits = self.network(self.image)
        return F.cross_entropy(logits.float(), self.target, ignore_index=IGNORE_INDEX)

    def __call__(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


@dataclass(frozen=True)
class BenchmarkNetwork:
    """A network, its format, and whether AdamW is fused (None: torch's default)."""

    name: str
    network: nn.Module
    format: TensorFormat = PLAIN
    fused: bool | None = None

    def copy_to(self, device: torch.device, training: bool) -> nn.Module:
        """Return a copy of the network on ``device``, in its format, in training or evaluation mode."""
        return to_memory_format(copy.deepcopy(self.network).to(device), self.format.to_memory_format).train(training)

    def training_step(self, image: Tensor, target: Tensor) -> TrainingStep:
        """Return a training step on a fixed batch. image (B, C, *S) float, target (B, *S) int64."""
        network = self.copy_to(image.device, training=True)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=self.fused)
        return TrainingStep(network, optimizer, self.format.to_memory_format(image), target, self.format)

    def inference(self, image: Tensor) -> Callable[[], Tensor]:
        """Return a function that runs a forward pass in evaluation mode and returns the logits (B, K, *S)."""
        network = self.copy_to(image.device, training=False)
        image = self.format.to_memory_format(image)

        def infer() -> Tensor:
            with torch.inference_mode(), self.format.autocast(image.device):
                return network(image)

        return infer


def in_training_format(network: nn.Module, device: str, tensor_format: TensorFormat | None = None) -> BenchmarkNetwork:
    """Return a network as this project trains it: in its format, unless another is given, with a fused optimizer."""
    return BenchmarkNetwork(REFERENCE, network, tensor_format or training_format(device), fused=True)


def monai_basic_unet(workload: Workload) -> BenchmarkNetwork:
    """Return MONAI's BasicUNet at the widths of this project's network; the last one is that of the last upsampling."""
    if workload.depth != MONAI_DEPTH:
        raise UserError(f"MONAI's BasicUNet is left out: its depth is always {MONAI_DEPTH}, not {workload.depth}")
    features = (*(workload.width * 2**level for level in range(MONAI_DEPTH + 1)), workload.width)
    nets = import_optional("monai.networks.nets", "MONAI's BasicUNet")
    network = nets.BasicUNet(spatial_dims=2, in_channels=IN_CHANNELS, out_channels=NUM_CLASSES, features=features)
    return BenchmarkNetwork("MONAI BasicUNet", network)


def smp_unet(workload: Workload) -> BenchmarkNetwork:
    """Return the U-Net of segmentation_models.pytorch with its defaults and the widths of ResNet-34."""
    smp = import_optional("segmentation_models_pytorch", "smp's Unet")
    network = smp.Unet("resnet34", encoder_weights=None, in_channels=IN_CHANNELS, classes=NUM_CLASSES)
    return BenchmarkNetwork("smp Unet resnet34", network)


def import_optional(module: str, name: str) -> Any:
    """Import an optional package without its warnings. Raises UserError if it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{name} is left out: it is not installed; pip install -e '.[bench]'") from error


PEERS = (monai_basic_unet, smp_unet)


def available_networks(workload: Workload) -> tuple[list[BenchmarkNetwork], list[str]]:
    """Return the available networks, this project's first, and an error message for each unavailable one."""
    plain, messages = BenchmarkNetwork("this network, plain", workload.network()), []  # in fp32 and contiguous
    networks = [in_training_format(workload.network(), workload.device), plain]
    for build in PEERS:
        try:
            networks.append(build(workload))
        except UserError as error:
            messages.append(str(error))
    return networks, messages
