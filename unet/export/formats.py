"""Write and open the file formats of an exported network."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from unet.errors import UserError
from unet.network.geometry import count_parameters

Program = Callable[[Tensor], Tensor]
"""A function: image as on disk (B, C, *S) -> output, for every batch size and image size."""

INPUT = "image"


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        suffix: file name extension.
        write: function of (network, example image, name of the output, path).
        open: function of (path) that returns a program.
        allows_size_one: whether a bottleneck may have size 1 along an axis, which torch.export specialises on.
        requires: packages beyond the dependencies of this project.
        runtime: packages that run the file.
    """

    suffix: str
    write: Callable[[nn.Module, Tensor, str, Path], None]
    open: Callable[[Path], Program]
    allows_size_one: bool
    requires: tuple[str, ...]
    runtime: tuple[str, ...]


def trace(net: nn.Module, image: Tensor) -> torch.export.ExportedProgram:
    """Return the graph of a network with a dynamic batch size and dynamic spatial sizes."""
    dynamic = dict.fromkeys((0, *range(2, image.ndim)), torch.export.Dim.AUTO)
    return torch.export.export(net, (image,), dynamic_shapes=(dynamic,))


def write_onnx(net: nn.Module, image: Tensor, output: str, path: Path) -> None:
    """Write a network as an ONNX file with its weights."""
    if 4 * count_parameters(net) >= 2**31:
        raise UserError("the weights exceed 2 GiB, the maximum of an ONNX file")
    torch.onnx.export(
        trace(net, image), (image,), path, input_names=[INPUT], output_names=[output], dynamo=True,
        external_data=False, verbose=False,
    )  # fmt: skip


def open_onnx(path: Path) -> Program:
    """Open an ONNX file in onnxruntime, with as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {INPUT: image.numpy()})[0])


def write_pt2(net: nn.Module, image: Tensor, output: str, path: Path) -> None:
    """Write a network as a program of torch.export."""
    torch.export.save(trace(net, image), path)


def open_pt2(path: Path) -> Program:
    """Open a program of torch.export."""
    return torch.export.load(path).module()


FORMATS = {
    "onnx": Format(".onnx", write_onnx, open_onnx, True, ("onnx", "onnxscript", "onnxruntime"), ("onnxruntime",)),
    "pt2": Format(".pt2", write_pt2, open_pt2, False, (), ("torch",)),
}


def require_packages(name: str) -> None:
    """Raise UserError if a package that the format requires is missing."""
    missing = [package for package in FORMATS[name].requires if find_spec(package) is None]
    if missing:
        raise UserError(f"format={name} needs {', '.join(missing)}; run: pip install -e '.[export]', or use format=pt2")
