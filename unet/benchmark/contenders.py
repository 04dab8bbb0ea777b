"""Whose speed is compared: this project's network, in its own form and plainly, and its peers of other packages.

The peers are optional: ``pip install -e '.[bench]'``.
"""

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
from unet.hardware import lay

IN_CHANNELS, NUM_CLASSES = 3, 12
MONAI_DEPTH = 4
"""The only depth of MONAI's BasicUNet."""
REFERENCE = "this project"


@dataclass(frozen=True)
class Problem:
    """What every contender is given: images (batch, 3, *size) on ``device``, 12 classes."""

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
class Contender:
    """A network, the form it is run in, and whether AdamW is one kernel (None leaves that to torch)."""

    name: str
    network: nn.Module
    form: Form = PLAIN
    fused: bool | None = None

    def placed(self, device: torch.device, training: bool) -> nn.Module:
        """A copy of the network on ``device``, in this form, in the mode asked for."""
        return lay(copy.deepcopy(self.network).to(device), self.form.lay).train(training)


def this_project(problem: Problem) -> Contender:
    """This project's network as the project trains it."""
    return as_trained(own_network(problem), problem.device)


def as_trained(network: nn.Module, device: str) -> Contender:
    """The project's form, and a fused optimizer on a GPU."""
    return Contender(REFERENCE, network, trained_form(device), fused=device == "cuda" or None)


def plain_form(problem: Problem) -> Contender:
    """The very same network without the two: fp32, contiguous."""
    return Contender("this network, plain", own_network(problem))


def own_network(problem: Problem) -> UNet:
    return UNet(IN_CHANNELS, NUM_CLASSES, width=problem.width, depth=problem.depth)


def monai_basic_unet(problem: Problem) -> Contender:
    """MONAI's BasicUNet with its defaults, at the widths of this project's network.

    ``features`` are the five widths of the encoder, fine to coarse, and the width after the last upsampling. (Its last
    upsampling keeps 2 ``width`` channels where the others halve them, hence somewhat more FLOPs at equal widths.)
    """
    if problem.depth != MONAI_DEPTH:
        raise UserError(f"MONAI's BasicUNet is left out: its depth is always {MONAI_DEPTH}, not {problem.depth}")
    features = [problem.width * 2**level for level in range(MONAI_DEPTH + 1)] + [problem.width]
    nets = peer("monai.networks.nets", "MONAI's BasicUNet")
    network = nets.BasicUNet(
        spatial_dims=2, in_channels=IN_CHANNELS, out_channels=NUM_CLASSES, features=tuple(features)
    )
    return Contender("MONAI BasicUNet", network)


def smp_unet(problem: Problem) -> Contender:
    """The U-Net of segmentation_models.pytorch with its defaults; its widths are ResNet-34's, whatever the width."""
    smp = peer("segmentation_models_pytorch", "smp's Unet")
    network = smp.Unet("resnet34", encoder_weights=None, in_channels=IN_CHANNELS, classes=NUM_CLASSES)
    return Contender("smp Unet resnet34", network)


def peer(module: str, what: str) -> Any:
    """Import an optional package, quietly; where it is missing, say how to get it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a peer's deprecations are not this user's business
            return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{what} is left out: it is not installed; pip install -e '.[bench]'") from error


CONTENDERS = (this_project, plain_form, monai_basic_unet, smp_unet)


def contenders(problem: Problem) -> tuple[list[Contender], list[str]]:
    """The contenders that can run here, this project's first, and a line for each that cannot."""
    present, notes = [], []
    for build in CONTENDERS:
        try:
            present.append(build(problem))
        except UserError as error:
            if build in (this_project, plain_form):
                raise
            notes.append(str(error))
    return present, notes
