"""A model file in fewer bits, and what that costs."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unet.errors import UserError
from unet.export.check import labels_apart
from unet.export.formats import INPUT, Program
from unet.export.pictures import Picture
from unet.metrics import ConfusionMatrix


@dataclass(frozen=True)
class Variant:
    """What a file may compute in.

    Attributes:
        format: the only one it can be written in here; None: every one.
        what: in words, for the bundle.
    """

    format: str | None
    what: str


VARIANTS = {
    "float32": Variant(None, "weights and arithmetic in float32"),
    "bf16": Variant("pt2", "weights in float32, convolutions in bfloat16 as in training with bf16-mixed"),
    "int8": Variant("onnx", "convolutions in 8-bit integers, weights per channel, calibrated; the last one in float32"),
}
CONVOLUTIONS = ("Conv", "ConvTranspose")


class Calibration:
    """Images one by one, as onnxruntime's calibration asks for them (``CalibrationDataReader``)."""

    def __init__(self, pictures: Sequence[Picture]):
        self.images: Iterator[Picture] = iter(pictures)

    def get_next(self) -> dict[str, Any] | None:
        picture = next(self.images, None)
        return None if picture is None else {INPUT: picture.image.numpy()}


def write_int8(path: Path, pictures: Sequence[Picture]) -> None:
    """Quantise the ONNX file ``path`` in place: weights and the activations between, from their range on the pictures.

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
            Calibration(pictures),  # type: ignore[arg-type]
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
def cost(program: Program, net: Program, pictures: Sequence[Picture], num_classes: int) -> dict[str, Any]:
    """What a variant's program loses against the float32 network, on pictures it was not calibrated on.

    Args:
        program: gives probabilities or labels.
        net: gives probabilities.
        pictures: one mask or more among them give mIoU as well.
        num_classes: K.
    """
    differing, seen = 0, 0
    confusions = {"float32": ConfusionMatrix(num_classes), "variant": ConfusionMatrix(num_classes)}
    for picture in pictures:
        expected, found = net(picture.image), program(picture.image)
        differing += labels_apart(found, expected)[0]
        seen += expected[:, 0].numel()
        if picture.target is not None:
            confusions["float32"].update(expected.argmax(1), picture.target)
            confusions["variant"].update(
                found.argmax(1) if found.ndim == expected.ndim else found.long(), picture.target
            )
    measured: dict[str, Any] = {"images": len(pictures), "label_agreement": 1 - differing / seen}
    if any(picture.target is not None for picture in pictures):
        names = [str(label) for label in range(num_classes)]
        measured |= {f"miou_{name}": confusion.scores(names)["miou"] for name, confusion in confusions.items()}
    return measured


def check_variant(name: str, format: str, calibration: Path | None, agreement: float) -> None:
    """Raise UserError where a variant cannot be written in ``format``, or not be measured."""
    only = VARIANTS[name].format
    if only not in (None, format):
        reason = {
            "bf16": "onnxruntime has no bfloat16 convolution on a CPU to check it with",
            "int8": "torch's own quantisation is not offered here",
        }[name]
        raise UserError(f"variant={name} format={format}: {reason}; take format={only}")
    if only is not None and calibration is None:
        raise UserError(
            f"variant={name}: add calibration=FOLDER of images like those of the training (with images/ and masks/ in "
            f"it mIoU is measured as well); without it nothing says what the variant costs"
        )
    if not isinstance(agreement, int | float) or isinstance(agreement, bool) or not 0 <= agreement <= 1:
        raise UserError(f"agreement: expected a share of 0 to 1, found {agreement!r}")
