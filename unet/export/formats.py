"""Write and open the file formats of an exported network."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unet.errors import UserError
from unet.network.geometry import count_parameters

Program = Callable[[Tensor], Tensor]
"""A function: image as on disk (B, C, *S) -> output, for every batch size and image size."""

INPUT = "image"
AXIS_NAMES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""Names of the spatial axes in an ONNX file, by their number."""
OLDEST_OPSET = 18
"""The oldest ONNX opset that torch's exporter writes; it ignores a request for an older one."""


class UnsupportedOpset(UserError):
    """A network cannot be written in an ONNX opset."""


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        suffix: file name extension.
        write: function of (network, example image, name of the output, path, whether the sizes of batch and image are
            dynamic, ONNX opset or None).
        open: function of (path) that returns a program.
        allows_size_one: whether a bottleneck may have size 1 along an axis, which torch.export specialises on.
        requires: packages beyond the dependencies of this project.
        runtime: packages that run the file.
    """

    suffix: str
    write: Callable[[nn.Module, Tensor, str, Path, bool, int | None], None]
    open: Callable[[Path], Program]
    allows_size_one: bool
    requires: tuple[str, ...]
    runtime: tuple[str, ...]


def trace(net: nn.Module, image: Tensor, dynamic: bool) -> torch.export.ExportedProgram:
    """Return the graph of a network, with a dynamic batch size and dynamic spatial sizes or with those of ``image``."""
    axes = dict.fromkeys((0, *range(2, image.ndim)), torch.export.Dim.AUTO)
    return torch.export.export(net, (image,), dynamic_shapes=(axes,) if dynamic else None)


def write_onnx(
    net: nn.Module, image: Tensor, output: str, path: Path, dynamic: bool = True, opset: int | None = None
) -> None:
    """Write a network as an ONNX file with its weights. Raises UnsupportedOpset if ``opset`` is not possible."""
    if 4 * count_parameters(net) >= 2**31:
        raise UserError("the weights exceed 2 GiB, the maximum of an ONNX file")
    torch.onnx.export(
        trace(net, image, dynamic), (image,), path, input_names=[INPUT], output_names=[output], opset_version=opset,
        dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    if opset is not None and read_opset(path) != opset:
        raise UnsupportedOpset(
            f"opset={opset}: the exporter wrote opset {read_opset(path)} instead; choose that, or leave opset out"
        )
    if dynamic:
        name_axes(path, ("batch", "", *AXIS_NAMES[image.ndim - 2]))


def name_axes(path: Path, names: Sequence[str]) -> None:
    """Rename the dynamic sizes in an ONNX file, such as ``s73``, to the names of the axes of its input."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    dimensions = graph.input[0].type.tensor_type.shape.dim
    renamed = {dim.dim_param: name for dim, name in zip(dimensions, names, strict=True) if dim.dim_param}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:  # a name or an expression of names
                dim.dim_param = re.sub(r"\w+", lambda match: renamed.get(match[0], match[0]), dim.dim_param)
    onnx.save(model, path)


def read_opset(path: Path) -> int:
    """Return the opset of the standard operators of an ONNX file."""
    import onnx

    imports = onnx.load(path, load_external_data=False).opset_import
    return next(entry.version for entry in imports if entry.domain in ("", "ai.onnx"))


def check_opset(opset: Any) -> None:
    """Raise UserError for an ONNX opset that the exporter does not write."""
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if type(opset) is not int or not OLDEST_OPSET <= opset <= newest:
        raise UserError(
            f"opset: expected null or an integer of {OLDEST_OPSET} (the oldest that torch's exporter writes) to "
            f"{newest}, found {opset!r}"
        )


def open_onnx(path: Path) -> Program:
    """Open an ONNX file in onnxruntime, with as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {INPUT: image.numpy()})[0])


def write_pt2(
    net: nn.Module, image: Tensor, output: str, path: Path, dynamic: bool = True, opset: int | None = None
) -> None:
    """Write a network as a program of torch.export, which has neither a name of the output nor an opset."""
    torch.export.save(trace(net, image, dynamic), path)


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
