#!/usr/bin/env python
"""How fast is this project's network, beside its peers on the same machine, and does the data loader keep up?

    python scripts/benchmark.py                      both comparisons, at the defaults
    python scripts/benchmark.py network --width 64   the networks alone
    python scripts/benchmark.py loader               the data loader alone, as configs/train.yaml sets it
    python scripts/benchmark.py operators            every operator alone; its options: operators --help

Every network is timed in one process, in turns: each round times one training step and one inference of every
network, and ratios are taken within a round before their median is. A machine that slows down for a while slows
all networks of that round alike and leaves the ratios as they were.

The peers are optional: ``pip install -e '.[bench]'``.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone, uninstalled

import torch

from unet.benchmark.baselines import Problem, available_networks
from unet.benchmark.forms import DTYPES, Form, trained_form
from unet.benchmark.loader import compare_loader, default_training
from unet.benchmark.machine import environment
from unet.benchmark.networks import compare_networks
from unet.benchmark.operators import OperatorShape, compare_operators
from unet.benchmark.tables import loader_line, network_table, operator_table
from unet.errors import UserError
from unet.stage import STRIDE

SMALLEST = 64
"""Samples along an axis that leave smp's five halvings more than one."""
STAGES = {1: (12288,), 2: (96, 128), 3: (16, 24, 32)}
"""Fine sizes by default, of as many samples each; in 2-D the second level of the networks compared."""
OPERATORS = "operators"
OPERATORS_HELP = """What does each down, up and context operator cost, alone, forward and with the backward pass?

All operators that serve the dimensions are timed in turns in one process, at one stage between a fine map and one half
its size: a down operator keeps the channels, an up operator brings twice as many to them, a context has them at the
coarse size.
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    given = sys.argv[1:] if arguments is None else arguments
    return parse_operators(given) if OPERATORS in given else parse_networks(given)


def parse_networks(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whats = ("network", "loader", OPERATORS)
    parser.add_argument("what", nargs="?", choices=whats, help="what to compare (default: network and loader)")
    parser.add_argument("--width", type=positive, default=32, help="channels at full resolution (default: 32)")
    parser.add_argument("--depth", type=positive, default=4, help="halvings; MONAI's is always 4 (default: 4)")
    parser.add_argument("--batch", type=positive, default=4, help="images a step (default: 4)")
    parser.add_argument("--size", type=image_size, default=(192, 256), help="HEIGHTxWIDTH (default: 192x256)")
    add_common(parser)
    options = parser.parse_args(arguments)
    least = max(SMALLEST, 4 * 2**options.depth)
    if min(options.size) < least:
        size = "x".join(map(str, options.size))
        parser.error(f"--size {size} is too small at --depth {options.depth}: give {least}x{least} or more")
    return options


def parse_operators(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"{Path(__file__).name} {OPERATORS}",
        description=OPERATORS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(what=OPERATORS)
    parser.add_argument("--dims", type=int, choices=tuple(STAGES), default=2, help="spatial axes (default: 2)")
    parser.add_argument("--channels", type=positive, default=64, help="channels of the fine map (default: 64)")
    sizes = ", ".join(f"{'x'.join(map(str, size))} in {dims}-D" for dims, size in STAGES.items())
    parser.add_argument("--size", type=sizes_of_axes, help=f"of the fine map, even numbers (default: {sizes})")
    parser.add_argument("--batch", type=positive, default=4, help="images a call (default: 4)")
    parser.add_argument("--precision", choices=tuple(DTYPES.values()), help="(default: bf16 where it is native)")
    parser.add_argument(
        "--memory-format",
        choices=("contiguous", "channels_last"),
        help="(default: channels_last; in 1-D there is only contiguous)",
    )
    add_common(parser)
    options = parser.parse_args([argument for argument in arguments if argument != OPERATORS])
    options.size = options.size or STAGES[options.dims]
    size = "x".join(map(str, options.size))
    if len(options.size) != options.dims:
        parser.error(
            f"--size {size} has {len(options.size)} axes: give {options.dims} numbers for --dims {options.dims}"
        )
    if any(n % STRIDE for n in options.size):
        parser.error(f"--size {size} cannot be halved: give an even number for every axis")
    if options.dims == 1 and options.memory_format == "channels_last":
        parser.error("--memory-format channels_last: torch has no such layout in 1-D; leave the option out")
    return options


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=positive, default=20, help="timings of each network (default: 20)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: torch's choice)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="also write every number here")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, found {text!r}")
    return int(text)


def image_size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH such as 192x256, found {text!r}")
    return int(parts[0]), int(parts[1])


def sizes_of_axes(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected a number for every axis such as 96x128, found {text!r}")
    return tuple(map(int, parts))


def output_file(text: str) -> Path:
    """A file that can be written: found out before the minutes of measuring, not after."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that exists, found {text!r}")
    return path


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure and print what was asked for; return every number."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results: dict[str, Any] = {"environment": environment()}
    print_facts(results["environment"])
    if arguments.what == OPERATORS:
        return results | run_operators(arguments, device)
    problem = Problem(arguments.width, arguments.depth, arguments.batch, arguments.size, device)
    results["problem"] = asdict(problem)
    if arguments.what in (None, "network"):
        print_facts(results["problem"])
        results |= run_networks(problem, arguments.rounds)
    if arguments.what in (None, "loader"):
        speed = compare_loader(*default_training(), arguments.rounds, device)
        print(loader_line(speed))
        results["loader"] = asdict(speed)
    return results


def run_networks(problem: Problem, rounds: int) -> dict[str, Any]:
    present, notes = available_networks(problem)
    print(*notes, sep="\n", end="\n" if notes else "", file=sys.stderr)
    rows, peaks = compare_networks(problem, present, rounds)
    print(network_table(rows, peaks))
    return {"networks": [asdict(r) for r in rows], "peaks": [asdict(p) for p in peaks]}


def run_operators(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    trained = trained_form(device)
    form = Form(
        {name: dtype for dtype, name in DTYPES.items()}.get(arguments.precision, trained.dtype),
        arguments.dims > 1 and arguments.memory_format != "contiguous",
    )
    place = OperatorShape(arguments.channels, arguments.size, arguments.batch, form, device)
    facts = {"channels": place.channels, "size": place.size, "batch": place.batch, "form": str(form), "device": device}
    print_facts(facts)
    costs = compare_operators(place, arguments.rounds)
    print(operator_table(costs))
    return {"stage": facts, "operators": [asdict(c) for c in costs]}


def print_facts(facts: dict[str, Any]) -> None:
    print(", ".join(f"{key} {value}" for key, value in facts.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        results = run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
