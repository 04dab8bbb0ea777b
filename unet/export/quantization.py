"""An ONNX file in 8-bit integers, and the accuracy it loses."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from unet.export.calibration import LabelledImage
from unet.export.check import compare_labels
from unet.export.formats import INPUT, Program
from unet.task.metrics import ConfusionMatrix

CONVOLUTIONS = ("Conv", "ConvTranspose")


class Calibration:
    """Images one by one, as the calibration of onnxruntime reads them (``CalibrationDataReader``)."""

    def __init__(self, images: Sequence[LabelledImage]):
        self.images: Iterator[LabelledImage] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        item = next(self.images, None)
        return None if item is None else {INPUT: item.image.numpy()}


def write_int8(path: Path, images: Sequence[LabelledImage]) -> None:
    """Quantise the ONNX file ``path`` in place: weights, and activations by their range on the images.

    The last convolution, which makes the logits, stays float32: it is small and decides. Source of the scheme: Jacob et
    al. 2018, Quantization and training of neural networks for integer-arithmetic-only inference,
    https://arxiv.org/abs/1712.05877; as onnxruntime.quantization does it (QDQ, per channel).
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    CalibrationDataReader.register(Calibration)
    graph = onnx.load(path).graph
    convolutions = [node.name for node in graph.node if node.op_type in CONVOLUTIONS]
    logging.disable(logging.WARNING)  # it advises to fold batch norms, which the exporter has done
    try:
        quantize_static(
            path,
            path,
            Calibration(images),  # type: ignore[arg-type]
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*CONVOLUTIONS, "MaxPool", "Concat", "Relu"],
            nodes_to_exclude=convolutions[-1:],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)


@torch.no_grad()
def quantization_error(
    program: Program, net: Program, images: Sequence[LabelledImage], num_classes: int
) -> dict[str, Any]:
    """Compare a quantised program with the float32 network on images it was not calibrated on.

    Args:
        program: gives probabilities or labels.
        net: gives probabilities.
        images: if any has a mask, mIoU is compared as well.
        num_classes: K.
    """
    different, count = 0, 0
    confusions = {"float32": ConfusionMatrix(num_classes), "variant": ConfusionMatrix(num_classes)}
    for item in images:
        expected, output = net(item.image), program(item.image)
        different += compare_labels(output, expected)[0]
        count += expected[:, 0].numel()
        if item.target is not None:
            labels = output.argmax(1) if output.ndim == expected.ndim else output.long()
            confusions["float32"].update(expected.argmax(1), item.target)
            confusions["variant"].update(labels, item.target)
    accuracy: dict[str, Any] = {"images": len(images), "label_agreement": 1 - different / count}
    if any(item.target is not None for item in images):
        names = [str(label) for label in range(num_classes)]
        accuracy |= {f"miou_{name}": confusion.scores(names)["miou"] for name, confusion in confusions.items()}
    return accuracy
