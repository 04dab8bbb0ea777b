"""File formats of an exported network: how they are written and opened."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from unet.errors import UserError
from unet.network.geometry import count_parameters

Program = Callable[[Tensor], Tensor]
"""The function of a model file: image as stored (B, C, *S) -> its output, for every batch and size."""

INPUT = "image"


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        suffix: of the file.
        write: (network, image to trace it with, name of the output, file).
        open: file -> program, on one thread where the runtime has its own.
        single: whether a bottleneck of a single sample along an axis works. torch.export specialises a size of one.
        needs: packages beyond the dependencies of this project.
        runs_on: packages that run the file; their versions are recorded.
    """

    suffix: str
    write: Callable[[nn.Module, Tensor, str, Path], None]
    open: Callable[[Path], Program]
    single: bool
    needs: tuple[str, ...]
    runs_on: tuple[str, ...]


def traced(net: nn.Module, image: Tensor) -> torch.export.ExportedProgram:
    """Return the graph of a network for every batch and every spatial size."""
    auto = torch.export.Dim.AUTO
    free = dict.fromkeys((0, *range(2, image.ndim)), auto)
    return torch.export.export(net, (image,), dynamic_shapes=(free,))


def write_onnx(net: nn.Module, image: Tensor, output: str, path: Path) -> None:
    if 4 * count_parameters(net) >= 2**31:
        raise UserError("a file holds at most 2 GiB and the weights are larger")
    torch.onnx.export(
        traced(net, image),
        (image,),
        path,
        input_names=[INPUT],
        output_names=[output],
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def open_onnx(path: Path) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {INPUT: image.numpy()})[0])


def write_pt2(net: nn.Module, image: Tensor, output: str, path: Path) -> None:
    torch.export.save(traced(net, image), path)


def open_pt2(path: Path) -> Program:
    return torch.export.load(path).module()


FORMATS = {
    "onnx": Format(".onnx", write_onnx, open_onnx, True, ("onnx", "onnxscript", "onnxruntime"), ("onnxruntime",)),
    "pt2": Format(".pt2", write_pt2, open_pt2, False, (), ("torch",)),
}


def require(name: str) -> None:
    """Raise UserError where a package that format ``name`` needs is missing."""
    missing = [package for package in FORMATS[name].needs if find_spec(package) is None]
    if missing:
        raise UserError(f"format={name} needs {', '.join(missing)}; run: pip install -e '.[export]', or use format=pt2")
