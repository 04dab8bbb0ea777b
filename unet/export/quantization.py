"""Quantize an ONNX file to 8-bit integers and measure the loss of accuracy."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unet.export.calibration import LabelledImage
from unet.export.check import compare_labels, to_labels
from unet.export.deployed import DeployedModel
from unet.export.formats import INPUT, Program
from unet.task.metrics import ConfusionMatrix

CONVOLUTIONS = ("Conv", "ConvTranspose")


def write_int8(path: Path, images: Sequence[Tensor]) -> None:
    """Quantize the ONNX file ``path`` in place: weights, and activations by their range on the images.

    The last convolution, which computes the logits, stays float32. Source: Jacob et al. 2018, Quantization and training
    of neural networks for integer-arithmetic-only inference, https://arxiv.org/abs/1712.05877; implemented by
    onnxruntime.quantization (QDQ, per channel).
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    inputs = iter([{INPUT: image.numpy()} for image in images])

    class ImageReader(CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            return next(inputs, None)

    graph = onnx.load(path).graph
    convolutions = [node.name for node in graph.node if node.op_type in CONVOLUTIONS]
    logging.disable(logging.WARNING)  # it advises to fold batch norms, as the exporter does
    try:
        quantize_static(
            path, path, ImageReader(),
            quant_format=QuantFormat.QDQ, op_types_to_quantize=[*CONVOLUTIONS, "MaxPool", "Concat", "Relu"],
            nodes_to_exclude=convolutions[-1:], per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)


@torch.no_grad()
def quantization_error(program: Program, net: DeployedModel, images: Sequence[LabelledImage]) -> dict[str, Any]:
    """Compare a program with the float32 network on test images; if any has a mask, mIoU is measured too."""
    classes, num_different, count = net.segmenter.classes, 0, 0
    confusions = {name: ConfusionMatrix(len(classes)) for name in ("float32", "variant")}
    for item in images:
        expected, output = net(item.image), program(item.image)
        num_different += compare_labels(output, expected)[0]
        count += expected[:, 0].numel()
        if item.target is not None:
            confusions["float32"].update(expected.argmax(1), item.target)
            confusions["variant"].update(to_labels(output, expected), item.target)
    accuracy: dict[str, Any] = {"images": len(images), "label_agreement": 1 - num_different / count}
    if any(item.target is not None for item in images):
        accuracy |= {f"miou_{name}": confusion.scores(classes)["miou"] for name, confusion in confusions.items()}
    return accuracy
