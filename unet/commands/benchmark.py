"""Time this project's network and its peers, its layers, its growth, the data loader, or every operator alone.

All networks are timed in one process, in turns: each round times one training step and one inference of every network.
Ratios are computed within a round, then their median: if the machine slows down for a while, all networks of that round
slow down and their ratios do not change.
"""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from unet.errors import UserError
from unet.io.atomic import write_json
from unet.runs.cli import as_path, hydra_script, parse_size

if TYPE_CHECKING:
    from unet.benchmark.baselines import Workload
    from unet.benchmark.tensor_format import TensorFormat

WORKLOADS = {"network": (32, 4, "192x256"), "layers": (16, 8, "128x128"), "growth": (16, 8, "128x128")}
"""Default width, batch and image size: those of the README's comparison, and those of ``configs/train.yaml``."""
OPERATOR_BATCH = 4
"""Default batch of the operators."""
PLOT_FORMATS = (".png", ".svg", ".pdf")
SIZES = {1: (12288,), 2: (96, 128), 3: (16, 24, 32)}
"""Default sizes of an operator's fine map, by axes; in 2-D that of the second level of the compared networks."""


@hydra_script("benchmark", positional="what")
def main(config: DictConfig) -> None:
    """Measure ``what``, print it, and write every number where a file is named."""
    from unet.benchmark.tensor_format import DTYPES
    from unet.training.config_limits import check_values, integer_range, one_of, or_null

    limits = {
        "what": or_null(one_of("network", "layers", "growth", "loader", "operators")),
        "threads": or_null(integer_range(1)),
        **dict.fromkeys(("width", "batch"), or_null(integer_range(1))),
        "dims": one_of(*SIZES),
        "precision": or_null(one_of(*DTYPES.values())),
        "memory_format": or_null(one_of("contiguous", "channels_last")),
    }
    counts = dict.fromkeys(("rounds", "depth", "channels"), integer_range(1))
    check_values(config, counts | limits)
    for key in ("json", "plot"):  # checked before minutes of measuring
        if (file := as_path(config[key])) and (file.is_dir() or not file.parent.is_dir()):
            raise UserError(f"{key}={file}: expected a file in a folder that exists")
    if (file := as_path(config.plot)) and file.suffix not in PLOT_FORMATS:
        raise UserError(f"plot={file}: expected a name that ends in {', '.join(PLOT_FORMATS)}")
    results = measure(config)
    if file := as_path(config.json):
        write_json(file, results)


def build_workload(config: DictConfig, device: str) -> "Workload":
    """Return the network and its input. Raises UserError."""
    from unet.benchmark.baselines import Workload

    width, batch, default = WORKLOADS.get(config.what, WORKLOADS["network"])
    size = parse_size("size", config.size or default, default)
    least = max(64, 4 * 2**config.depth)  # more than one pixel is left after the five downsamplings of smp's networks
    if len(size) != 2:
        raise UserError(f"size={config.size}: expected HEIGHTxWIDTH, such as {default}")
    if min(size) < least:
        raise UserError(f"size={config.size} is too small for depth={config.depth}: give {least}x{least} or more")
    operators: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, ["down", "up"]))
    width, batch = config.width or width, config.batch or batch
    workload = Workload(width, config.depth, batch, (size[0], size[1]), device, **operators)
    workload.network()  # its error message about an operator, before anything is measured
    return workload


def map_size(config: DictConfig) -> tuple[int, ...]:
    """Return the size of the operators' fine map. Raises UserError."""
    from unet.analysis.single_operator import STRIDE

    size = parse_size("size", config.size or "x".join(map(str, SIZES[config.dims])), "96x128")
    if len(size) != config.dims:
        raise UserError(f"size={config.size} has {len(size)} axes: give {config.dims} numbers for dims={config.dims}")
    if any(n % STRIDE for n in size):
        raise UserError(f"size={config.size} cannot be halved: give an even number for every axis")
    if config.dims == 1 and config.memory_format == "channels_last":
        raise UserError("memory_format=channels_last: torch has no such layout in 1-D; leave it out")
    return tuple(size)


def measure(config: DictConfig) -> dict[str, Any]:
    """Measure and print what the config asks for; return every number."""
    import torch

    from unet.benchmark.timing import environment
    from unet.hardware import keep_freed_memory

    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()  # as in a training
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if config.what == "operators":
        return measure_operators(config, device)
    workload = build_workload(config, device)
    results: dict[str, Any] = {"environment": environment(), "problem": asdict(workload)}
    print_facts(results["environment"])
    if config.what != "loader":
        print_facts(results["problem"])
    if config.what == "layers":
        results["layers"] = measure_layers(config, workload)
    if config.what == "growth":
        results["growth"] = measure_step_growth(config, workload)
    if config.what in (None, "network"):
        results |= measure_networks(config, workload)
    if config.what in (None, "loader"):
        results["loader"] = measure_loader(config, device)
    return results


def measure_networks(config: DictConfig, workload: "Workload") -> dict[str, Any]:
    """Time the network and its peers."""
    from unet.benchmark.baselines import available_networks
    from unet.benchmark.networks import compare_networks
    from unet.benchmark.tables import network_table

    networks, messages = available_networks(workload)
    print(*messages, sep="\n", end="\n" if messages else "", file=sys.stderr)
    speeds, peaks = compare_networks(workload, networks, config.rounds)
    print(network_table(speeds, peaks))
    return {"networks": [asdict(s) for s in speeds], "peaks": [asdict(p) for p in peaks]}


def measure_layers(config: DictConfig, workload: "Workload") -> dict[str, Any]:
    """Time every layer of a training step."""
    from unet.benchmark.baselines import in_training_format
    from unet.benchmark.layer_table import layer_table
    from unet.benchmark.layers import compare_layers

    network = in_training_format(workload.network(), workload.device, tensor_format(config, workload.device))
    print(f"format: {network.format}")
    step = compare_layers(workload, network, config.rounds)
    print(layer_table(step))
    return asdict(step) | {"format": str(network.format)}


def measure_step_growth(config: DictConfig, workload: "Workload") -> list[dict[str, Any]]:
    """Measure time and memory of a training step against pixels, batch and width."""
    from unet.benchmark.growth import measure_growth
    from unet.benchmark.growth_report import growth_table, plot_growth

    growths = measure_growth(workload, tensor_format(config, workload.device), config.rounds)
    print(growth_table(growths))
    if file := as_path(config.plot):
        plot_growth(growths, file)
    return [asdict(growth) for growth in growths]


def measure_loader(config: DictConfig, device: str) -> dict[str, Any]:
    """Time the data loader and the training step that uses its batches."""
    from unet.benchmark.loader import compare_loader, default_training
    from unet.benchmark.tables import loader_line

    speed = compare_loader(*default_training(), config.rounds, device)
    print(loader_line(speed))
    return asdict(speed)


def measure_operators(config: DictConfig, device: str) -> dict[str, Any]:
    """Time every operator of these dimensions between a fine map and one of half its size."""
    from unet.benchmark.operators import OperatorShape, compare_operators
    from unet.benchmark.tables import operator_table
    from unet.benchmark.timing import environment

    batch = config.batch or OPERATOR_BATCH
    shape = OperatorShape(config.channels, map_size(config), batch, tensor_format(config, device), device)
    facts = asdict(shape) | {"format": str(shape.format)}
    results = {"environment": environment(), "stage": facts}
    print_facts(results["environment"])
    print_facts(facts)
    costs = compare_operators(shape, config.rounds)
    print(operator_table(costs))
    return results | {"operators": [asdict(c) for c in costs]}


def tensor_format(config: DictConfig, device: str) -> "TensorFormat":
    """Return the requested format; by default that of a training."""
    from unet.benchmark.tensor_format import DTYPES, TensorFormat, training_format

    dtypes = {name: dtype for dtype, name in DTYPES.items()}
    dtype = dtypes.get(config.precision, training_format(device).dtype)
    return TensorFormat(dtype, config.dims > 1 and config.memory_format != "contiguous")


def print_facts(facts: dict[str, Any]) -> None:
    """Print names and values on one line."""
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
