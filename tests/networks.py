"""Single operators, and small networks saved as a training saves them."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from unet import CONTEXT, DOWN, UP, load
from unet.inference.segmenter import Segmenter

SHARED = {"norm": "batch", "act": "relu"}


def down(spec, channels: int = 1, stride: tuple[int, ...] = (2, 2), **shared: str) -> nn.Module:
    return DOWN.build(spec, SHARED | shared, channels=channels, spatial_dims=len(stride), stride=stride)


def up(spec, in_channels: int = 1, out_channels: int = 1, stride: tuple[int, ...] = (2, 2)) -> nn.Module:
    return UP.build(
        spec, SHARED, in_channels=in_channels, out_channels=out_channels, spatial_dims=len(stride), stride=stride
    )


def context(spec, channels: int = 6, spatial_dims: int = 2) -> nn.Module:
    return CONTEXT.build(spec, SHARED, channels=channels, spatial_dims=spatial_dims)


def fine_size(coarse: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n * r for n, r in zip(coarse, stride, strict=True))


def checkpoint(folder: Path, spatial_dims: int = 2, channels: int = 3, **description: Any) -> Path:
    """Write the checkpoint of a random network with three classes that are about equally frequent on noise."""
    torch.manual_seed(0)
    description = {
        "model": {"in_channels": channels, "num_classes": 3, "width": 4, "depth": 2, "spatial_dims": spatial_dims},
        "classes": ["sky", "sea", "land"],
        "colors": [[9, 8, 7], [0, 0, 255], [0, 255, 0]],
        "mean": [128.0] * channels,
        "std": [64.0] * channels,
        **description,
    }
    path, model = folder / "best.ckpt", Segmenter(description).eval()
    model.net._warned = True  # small bottlenecks are intended here
    with torch.no_grad():
        noise = torch.randint(0, 256, (1, channels, *[{1: 256, 2: 64, 3: 24}[spatial_dims]] * spatial_dims))
        model.net.head.bias -= model(noise).flatten(2).median(2).values[0]
    torch.save({"description": description, "state_dict": model.state_dict()}, path)
    return path


def network(folder: Path, *arguments: Any, **description: Any) -> Segmenter:
    return load(checkpoint(folder, *arguments, **description))
