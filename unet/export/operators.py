"""Which operator is to blame where an export fails or differs: each alone, in a network of one stage."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from unet.export.check import odd_sizes, traced_size
from unet.export.formats import Format
from unet.model import UNet, per_stage
from unet.registry import Spec

INSTEAD = {"down": "max", "up": "transposed", "context": "none"}
"""Operators every exporter knows, by the key that chooses them."""


def culprit(model: Mapping[str, Any], format: Format) -> str | None:
    """The first operator of ``UNet(**model)`` that alone cannot be exported or differs once it is, and what to do."""
    for key, spec, stride in operators(model):
        alone = {**INSTEAD, key: spec, "stride": [stride]}
        kept = {name: model[name] for name in ("spatial_dims", "norm", "act") if name in model}
        reason = refusal(UNet(1, 2, width=4, depth=1, **alone, **kept).eval(), format)
        if reason is not None:
            name = spec if isinstance(spec, str) else spec["name"]
            return (
                f"the operator model.{key}={name} {reason}; train with model.{key}={INSTEAD[key]} instead, or with "
                f"another whose export is tested (docs/export.md)"
            )
    return None


def operators(model: Mapping[str, Any]) -> Iterator[tuple[str, Spec, Any]]:
    """Key, choice and stride of every operator of ``UNet(**model)``, the same choice once."""
    depth, seen = model.get("depth", 4), []
    strides = per_stage("stride", model.get("stride", 2), depth)
    for key in ("down", "up"):
        for spec, stride in zip(per_stage(key, model.get(key, INSTEAD[key]), depth), strides, strict=True):
            seen.append((key, spec, stride))
    seen.append(("context", model.get("context", "none"), 2))
    for place, found in enumerate(seen):
        if found not in seen[:place]:
            yield found


@torch.no_grad()
def refusal(net: UNet, format: Format) -> str | None:
    """What is wrong with the export of a network of one channel, in words; None where nothing is."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"model{format.suffix}"
        try:
            format.write(net, torch.randn(2, 1, *traced_size(net.total_stride)), "logits", path)
            program = format.open(path)
        except Exception as error:
            return f"cannot be exported ({first_line(error)})"
        for size in odd_sizes(net.total_stride):
            image = torch.randn(1, 1, *size)
            try:
                found = program(image)
            except Exception as error:
                return f"once exported does not run at another size than the traced one ({first_line(error)})"
            expected = net(image)
            if found.shape != expected.shape or not torch.allclose(found, expected, atol=1e-3, rtol=1e-3):
                return "once exported gives other numbers at another size than the traced one"
    return None


def first_line(error: Exception, most: int = 200) -> str:
    """The first telling line of an exporter's message, which may have hundreds."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
    return text if len(text) <= most else f"{text[:most]}..."
