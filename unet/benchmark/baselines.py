"""The networks whose speed is compared: this project's, in two forms, and optional ones of other packages."""

import copy
import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unet import UNet
from unet.benchmark.forms import PLAIN, Form, trained_form
from unet.errors import UserError
from unet.hardware import to_memory_format

IN_CHANNELS, NUM_CLASSES = 3, 12
MONAI_DEPTH = 4
"""The only depth of MONAI's BasicUNet."""
REFERENCE = "this project"


@dataclass(frozen=True)
class Problem:
    """The input of every network: images (batch, 3, *size) on ``device``, 12 classes."""

    width: int = 32
    depth: int = 4
    batch: int = 4
    size: tuple[int, int] = (192, 256)
    device: str = "cpu"

    def image(self) -> Tensor:
        return torch.randn(self.batch, IN_CHANNELS, *self.size, device=self.device)

    def target(self) -> Tensor:
        return torch.randint(NUM_CLASSES, (self.batch, *self.size), device=self.device)


@dataclass(frozen=True)
class BenchmarkNetwork:
    """A network, its dtype and memory layout, and whether AdamW is fused (None: the default of torch)."""

    name: str
    network: nn.Module
    form: Form = PLAIN
    fused: bool | None = None

    def placed(self, device: torch.device, training: bool) -> nn.Module:
        """Return a copy of the network on ``device``, in this form, in training or evaluation mode."""
        return to_memory_format(copy.deepcopy(self.network).to(device), self.form.lay).train(training)


def this_project(problem: Problem) -> BenchmarkNetwork:
    """Return the network of this project as the project trains it."""
    return as_trained(own_network(problem), problem.device)


def as_trained(network: nn.Module, device: str) -> BenchmarkNetwork:
    """Return a network in the form this project trains in, with a fused optimizer on a GPU."""
    return BenchmarkNetwork(REFERENCE, network, trained_form(device), fused=device == "cuda" or None)


def plain_form(problem: Problem) -> BenchmarkNetwork:
    """Return the same network in fp32 and contiguous."""
    return BenchmarkNetwork("this network, plain", own_network(problem))


def own_network(problem: Problem) -> UNet:
    return UNet(IN_CHANNELS, NUM_CLASSES, width=problem.width, depth=problem.depth)


def monai_basic_unet(problem: Problem) -> BenchmarkNetwork:
    """Return the BasicUNet of MONAI with its defaults, at the widths of this project's network.

    ``features`` are the five widths of the encoder, fine to coarse, and the width after the last upsampling. (Its last
    upsampling keeps 2 ``width`` channels where the others halve them, hence somewhat more FLOPs at equal widths.)
    """
    if problem.depth != MONAI_DEPTH:
        raise UserError(f"MONAI's BasicUNet is left out: its depth is always {MONAI_DEPTH}, not {problem.depth}")
    features = [problem.width * 2**level for level in range(MONAI_DEPTH + 1)] + [problem.width]
    nets = import_optional("monai.networks.nets", "MONAI's BasicUNet")
    network = nets.BasicUNet(
        spatial_dims=2, in_channels=IN_CHANNELS, out_channels=NUM_CLASSES, features=tuple(features)
    )
    return BenchmarkNetwork("MONAI BasicUNet", network)


def smp_unet(problem: Problem) -> BenchmarkNetwork:
    """Return the U-Net of segmentation_models.pytorch with its defaults; its widths are always those of ResNet-34."""
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


NETWORKS = (this_project, plain_form, monai_basic_unet, smp_unet)


def available_networks(problem: Problem) -> tuple[list[BenchmarkNetwork], list[str]]:
    """Return the networks that can run here, this project's first, and a message for each that cannot."""
    networks, messages = [], []
    for build in NETWORKS:
        try:
            networks.append(build(problem))
        except UserError as error:
            if build in (this_project, plain_form):
                raise
            messages.append(str(error))
    return networks, messages
