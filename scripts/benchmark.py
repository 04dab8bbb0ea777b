#!/usr/bin/env python
"""How fast is this project's network, beside its peers on the same machine, and does the data loader keep up?

    python scripts/benchmark.py                      both comparisons, at the defaults
    python scripts/benchmark.py network --width 64   the networks alone
    python scripts/benchmark.py loader               the data loader alone, as configs/train.yaml sets it

Every contender is timed in one process, in turns: each round times one training step and one inference of every
contender, and ratios are taken within a round before their median is. A machine that slows down for a while slows
all contenders of that round alike and leaves the ratios as they were.

The peers are optional: ``pip install -e '.[bench]'``.
"""

import argparse
import contextlib
import copy
import importlib
import itertools
import json
import logging
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone, uninstalled

from unet import UNet
from unet.errors import UserError
from unet.geometry import count_flops, count_parameters
from unet.hardware import native_bf16
from unet.labels import IGNORE_INDEX

IN_CHANNELS, NUM_CLASSES = 3, 12
MONAI_DEPTH = 4
"""The only depth of MONAI's BasicUNet."""
SMALLEST = 64
"""Samples along an axis that leave smp's five halvings more than one."""
SAMPLE_MS = 50.0
"""A timing repeats its call until it lasts about this long: the clock and a GPU's launch queue need it."""
BUSY = 1.3
LOADER_SECONDS = 10.0
REFERENCE = "this project"
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}

Key = TypeVar("Key", bound=Hashable)
Timings = dict[Key, list[float]]
"""Milliseconds per call, one entry a round; entry i of every key belongs to round i."""


# ---------------------------------------------------------------------------------------------------- the problem


@dataclass(frozen=True)
class Problem:
    """What every contender is given: images (batch, 3, *size) on ``device``, 12 classes."""

    width: int = 32
    depth: int = 4
    batch: int = 4
    size: tuple[int, int] = (192, 256)
    device: str = "cpu"

    def image(self) -> Tensor:
        return torch.randn(self.batch, IN_CHANNELS, *self.size, device=self.device)

    def target(self) -> Tensor:
        return torch.randint(NUM_CLASSES, (self.batch, *self.size), device=self.device)


@dataclass(frozen=True)
class Contender:
    """A network and the form it is run in. The weights are always fp32; ``dtype`` bf16 means autocast."""

    name: str
    network: nn.Module
    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format

    fused: bool | None = None
    """AdamW in one kernel; None leaves the choice to torch."""

    @property
    def form(self) -> str:
        layout = "channels_last" if self.memory_format == torch.channels_last else "contiguous"
        return f"{DTYPES[self.dtype]} {layout}"

    def placed(self, device: torch.device, training: bool) -> nn.Module:
        """A copy of the network on ``device``, in this form, in the mode asked for."""
        network = copy.deepcopy(self.network).to(device).to(memory_format=self.memory_format)
        return network.train(training)

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)


# ------------------------------------------------------------------------------------------------- the contenders


def this_project(problem: Problem) -> Contender:
    """This project's network as the project trains it."""
    return as_trained(own_network(problem), problem.device)


def as_trained(network: nn.Module, device: str) -> Contender:
    """The project's form: channels_last, bf16 where the hardware computes in it, a fused optimizer on a GPU."""
    dtype = torch.bfloat16 if native_bf16(device) else torch.float32
    return Contender(REFERENCE, network, dtype, torch.channels_last, fused=device == "cuda" or None)


def plain_form(problem: Problem) -> Contender:
    """The very same network without the two: fp32, contiguous."""
    return Contender("this network, plain", own_network(problem))


def own_network(problem: Problem) -> UNet:
    return UNet(IN_CHANNELS, NUM_CLASSES, width=problem.width, depth=problem.depth)


def monai_basic_unet(problem: Problem) -> Contender:
    """MONAI's BasicUNet with its defaults, at the widths of this project's network.

    ``features`` are the five widths of the encoder, fine to coarse, and the width after the last upsampling. (Its last
    upsampling keeps 2 ``width`` channels where the others halve them, hence somewhat more FLOPs at equal widths.)
    """
    if problem.depth != MONAI_DEPTH:
        raise UserError(f"MONAI's BasicUNet is left out: its depth is always {MONAI_DEPTH}, not {problem.depth}")
    features = [problem.width * 2**level for level in range(MONAI_DEPTH + 1)] + [problem.width]
    nets = peer("monai.networks.nets", "MONAI's BasicUNet")
    network = nets.BasicUNet(
        spatial_dims=2, in_channels=IN_CHANNELS, out_channels=NUM_CLASSES, features=tuple(features)
    )
    return Contender("MONAI BasicUNet", network)


def smp_unet(problem: Problem) -> Contender:
    """The U-Net of segmentation_models.pytorch with its defaults; its widths are ResNet-34's, whatever --width says."""
    smp = peer("segmentation_models_pytorch", "smp's Unet")
    network = smp.Unet("resnet34", encoder_weights=None, in_channels=IN_CHANNELS, classes=NUM_CLASSES)
    return Contender("smp Unet resnet34", network)


def peer(module: str, what: str) -> Any:
    """Import an optional package, quietly; where it is missing, say how to get it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a peer's deprecations are not this user's business
            return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{what} is left out: it is not installed; pip install -e '.[bench]'") from error


CONTENDERS = (this_project, plain_form, monai_basic_unet, smp_unet)


def contenders(problem: Problem) -> tuple[list[Contender], list[str]]:
    """The contenders that can run here, this project's first, and a line for each that cannot."""
    present, notes = [], []
    for build in CONTENDERS:
        try:
            present.append(build(problem))
        except UserError as error:
            if build in (this_project, plain_form):
                raise
            notes.append(str(error))
    return present, notes


# ------------------------------------------------------------------------------------------------- what is timed


def training_step(contender: Contender, image: Tensor, target: Tensor) -> Callable[[], Tensor]:
    """One step on a fixed batch: forward, cross entropy in fp32, backward, AdamW; returns the loss.

    image (B, C, *S) float, target (B, *S) int64.
    """
    network = contender.placed(image.device, training=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=contender.fused)
    image = image.to(memory_format=contender.memory_format)

    def step() -> Tensor:
        optimizer.zero_grad()
        with contender.autocast(image.device):
            logits = network(image)
        loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_INDEX)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def inference(contender: Contender, image: Tensor) -> Callable[[], Tensor]:
    """One forward pass in evaluation mode, without gradients; returns the logits (B, K, *S)."""
    network = contender.placed(image.device, training=False)
    image = image.to(memory_format=contender.memory_format)

    def infer() -> Tensor:
        with torch.inference_mode(), contender.autocast(image.device):
            return network(image)

    return infer


@dataclass(frozen=True)
class Convolution:
    """A 3x3 convolution of the network's decoder or encoder, the yardstick of what the machine can do."""

    in_channels: int
    out_channels: int
    size: tuple[int, int]

    def flops(self, batch: int) -> int:
        """Floating-point operations of one call on ``batch`` images; a multiply-add counts two."""
        return 2 * 9 * self.in_channels * self.out_channels * math.prod(self.size) * batch

    def call(self, problem: Problem, dtype: torch.dtype) -> Callable[[], Tensor]:
        place: dict[str, Any] = {"device": problem.device, "dtype": dtype}
        image = torch.randn(problem.batch, self.in_channels, *self.size, **place)
        weight = torch.randn(self.out_channels, self.in_channels, 3, 3, **place)
        image, weight = (x.to(memory_format=torch.channels_last) for x in (image, weight))

        def convolve() -> Tensor:
            with torch.inference_mode():
                return F.conv2d(image, weight, padding=1)

        return convolve

    def __str__(self) -> str:
        return f"{self.in_channels} to {self.out_channels} channels at {self.size[0]}x{self.size[1]}"


def network_convolutions(problem: Problem) -> list[Convolution]:
    """The two kinds of 3x3 convolution at every level: width to width, and the decoder's twice the width to width."""
    levels = range(problem.depth + 1)
    return [
        Convolution(
            factor * problem.width * 2**level,
            problem.width * 2**level,
            (max(1, problem.size[0] >> level), max(1, problem.size[1] >> level)),
        )
        for level, factor in itertools.product(levels, (1, 2))
    ]


def fastest_convolution(problem: Problem, dtype: torch.dtype) -> Convolution:
    """The network's 3x3 convolution that reaches the most GFLOP/s, forward, channels_last, in ``dtype``."""

    def rate(convolution: Convolution) -> float:
        key = str(convolution)
        timings = measure({key: convolution.call(problem, dtype)}, rounds=3)
        return convolution.flops(problem.batch) / min(timings[key])

    return max(network_convolutions(problem), key=rate)


# ------------------------------------------------------------------------------------------------------ measuring


def synchronize() -> None:
    """Wait for the device: a GPU's calls return before its work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_call(call: Callable[[], object], repeats: int) -> float:
    """Milliseconds per call over ``repeats`` calls."""
    synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize()
    return 1e3 * (time.perf_counter() - start) / repeats


def measure(calls: Mapping[Key, Callable[[], object]], rounds: int, say: bool = False) -> Timings[Key]:
    """Time every call once a round, in turns; each round starts one further on, so none always follows the same one.

    Two calls of each warm up; the second says how often a short call must be repeated to be timed well.
    """
    keys = list(calls)
    for call in calls.values():
        call()
    warm = {key: time_call(call, 1) for key, call in calls.items()}
    repeats = {key: max(1, math.ceil(SAMPLE_MS / max(ms, 1e-3))) for key, ms in warm.items()}
    if say:
        seconds = rounds * sum(warm[key] * repeats[key] for key in keys) / 1e3
        print(f"{rounds} rounds, about {seconds:.0f} s ...", file=sys.stderr, flush=True)
    timings: Timings[Key] = {key: [] for key in keys}
    for start in range(rounds):
        for place in range(len(keys)):
            key = keys[(start + place) % len(keys)]
            timings[key].append(time_call(calls[key], repeats[key]))
    return timings


def median_ratio(timings: Sequence[float], reference: Sequence[float]) -> float:
    """How many times as long as the reference: the median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(timings, reference, strict=True))


# ---------------------------------------------------------------------------------------------- networks compared


@dataclass(frozen=True)
class Speed:
    """One contender doing one thing: the median in ms, that over this project's, and what it made of the machine.

    ``share_of_peak`` is of the convolution peak in the contender's own dtype, 0 to 1.
    """

    ms: float
    ratio: float
    gflops_per_s: float
    share_of_peak: float
    rounds_ms: list[float]


@dataclass(frozen=True)
class Row:
    """One contender's line of the table. ``gflops`` of one forward pass on one image; training counts as three."""

    name: str
    form: str
    parameters: int
    gflops: float
    training: Speed
    inference: Speed


@dataclass(frozen=True)
class Peak:
    """The convolution peak measured in one dtype: where, and the median GFLOP/s."""

    dtype: str
    convolution: str
    gflops_per_s: float


def compare_networks(problem: Problem, present: Sequence[Contender], rounds: int) -> tuple[list[Row], list[Peak]]:
    """Time all contenders, and the convolutions that mark the peak, in the same rounds."""
    yardsticks = {dtype: fastest_convolution(problem, dtype) for dtype in sorted({c.dtype for c in present}, key=str)}
    image, target = problem.image(), problem.target()
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for contender in present:
        calls[contender.name, "inference"] = inference(contender, image)
        calls[contender.name, "training"] = training_step(contender, image, target)
    for dtype, convolution in yardsticks.items():
        calls[DTYPES[dtype], "peak"] = convolution.call(problem, dtype)
    timings = measure(calls, rounds, say=True)
    rows = [row(contender, problem, timings, yardsticks[contender.dtype]) for contender in present]
    peaks = [
        Peak(DTYPES[dtype], str(c), gflops_per_s(c.flops(problem.batch), timings[DTYPES[dtype], "peak"]))
        for dtype, c in yardsticks.items()
    ]
    return rows, peaks


def row(contender: Contender, problem: Problem, timings: Timings[tuple[str, str]], yardstick: Convolution) -> Row:
    """A contender's numbers from the timings of all."""
    forward = count_flops(contender.network, (problem.batch, IN_CHANNELS, *problem.size))
    peak_ms = timings[DTYPES[contender.dtype], "peak"]

    def speed(what: str, flops: float) -> Speed:
        own = timings[contender.name, what]
        peak_per_own = median_ratio(peak_ms, own)  # seconds at the peak per second here, for the yardstick's FLOPs
        return Speed(
            ms=statistics.median(own),
            ratio=median_ratio(own, timings[REFERENCE, what]),
            gflops_per_s=gflops_per_s(flops, own),
            share_of_peak=peak_per_own * flops / yardstick.flops(problem.batch),
            rounds_ms=own,
        )

    return Row(
        contender.name,
        contender.form,
        count_parameters(contender.network),
        forward / problem.batch / 1e9,
        speed("training", 3 * forward),
        speed("inference", forward),
    )


def gflops_per_s(flops: float, timings_ms: Sequence[float]) -> float:
    """``flops`` a call at the median time, in GFLOP/s."""
    return flops / statistics.median(timings_ms) / 1e6


def busy_line(timings: Sequence[float]) -> str | None:
    """A caution where the quartiles of one contender's rounds (ms) lie further apart than ``BUSY`` times."""
    if len(timings) < 4:
        return None
    low, _, high = statistics.quantiles(timings, n=4)
    if high <= BUSY * low:
        return None
    return (
        f"the machine was busy: half of {REFERENCE}'s steps took less than {low:.0f} or more than {high:.0f} ms; "
        f"before quoting any number, run again at a quiet moment"
    )


MEASURED = ("ratio", "GFLOP/s", "of peak")
HEADER = ("network", "form", "params", "GFLOP", "step ms", *MEASURED, "infer ms", *MEASURED)


def network_table(rows: Sequence[Row], peaks: Sequence[Peak]) -> str:
    """The comparison as text, with what each column means."""
    lines: list[tuple[str, ...]] = [HEADER]
    for r in rows:
        speeds = [
            cell
            for speed in (r.training, r.inference)
            for cell in (
                f"{speed.ms:.1f}",
                f"{speed.ratio:.2f}",
                f"{speed.gflops_per_s:,.0f}",
                f"{speed.share_of_peak:.0%}",
            )
        ]
        lines.append((r.name, r.form, f"{r.parameters / 1e6:.1f} M", f"{r.gflops:.1f}", *speeds))
    legend = [
        "ms: median of the rounds. ratio: time over this project's, median of the ratios within a round.",
        "GFLOP: one forward pass on one image (a multiply-add counts two); a training step counts as three.",
        *(f"peak of {p.dtype}: {p.gflops_per_s:,.0f} GFLOP/s, a 3x3 convolution, {p.convolution}." for p in peaks),
    ]
    return "\n".join([aligned(lines), "", *legend])


def aligned(lines: Sequence[Sequence[str]], text_columns: int = 2) -> str:
    """Columns of equal width: text to the left, numbers to the right, a rule under the header."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(n) if i < text_columns else cell.rjust(n)
            for i, (cell, n) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


# ----------------------------------------------------------------------------------------------------- the loader


@dataclass(frozen=True)
class LoaderSpeed:
    """Samples per second the loader gives alone, and that a training step takes."""

    samples_per_s: float
    needed_per_s: float
    image_shape: tuple[int, ...]
    num_workers: int


def loader_rate(source: Any, seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Samples per second of a loader on its own, for about ``seconds``, epoch after epoch.

    Args:
        source: a DataLoader (any iterable of ``{"image": (B, C, *S), ...}``) or a data module that makes one.
        seconds: how long to count. What starting the workers and filling their queues takes comes on top.
        clock: seconds, monotonic.
    """
    loader = training_loader(source)
    batches = endless(loader)
    for _ in range(1 + queue_length(loader)):
        next(batches)
    samples, start = 0, clock()
    while (elapsed := clock() - start) < seconds:
        samples += len(next(batches)["image"])
    return samples / elapsed


def training_loader(source: Any) -> Iterable[Mapping[str, Any]]:
    """The loader itself, or the training loader of a data module once it is set up."""
    if not hasattr(source, "train_dataloader"):
        return source
    source.prepare_data()
    source.setup("fit")
    return source.train_dataloader()


def queue_length(loader: object) -> int:
    """Batches that workers prepare ahead: counting must not begin before these have been used up."""
    return getattr(loader, "num_workers", 0) * (getattr(loader, "prefetch_factor", 0) or 0)


def endless(loader: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The loader's batches, epoch after epoch."""
    while True:
        batch = None
        for batch in loader:
            yield batch
        if batch is None:
            raise UserError("the loader gives no batch: its split is empty or smaller than one batch")


def compare_loader(source: Any, network: nn.Module, rounds: int, device: str) -> LoaderSpeed:
    """The loader's rate beside what a training step of ``network`` takes in, on one of the loader's own batches."""
    loader = training_loader(source)
    rate = loader_rate(loader, LOADER_SECONDS)
    batch = next(iter(loader))
    image, target = batch["image"].to(device).float(), batch["target"].to(device).long()
    step = training_step(as_trained(network, device), image, target)
    step_ms = statistics.median(measure({"step": step}, rounds)["step"])
    return LoaderSpeed(rate, 1e3 * len(image) / step_ms, tuple(image.shape), getattr(loader, "num_workers", 0))


def default_training() -> tuple[Any, nn.Module]:
    """The data module and the network of ``configs/train.yaml`` as it stands."""
    from hydra import compose, initialize_config_dir
    from lightning import Trainer

    from unet.command import CONFIGS
    from unet.training import build_data, build_task

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train")
    data = build_data(config)
    data.trainer = Trainer(devices=1, logger=False, enable_checkpointing=False)  # by its device, workers are chosen
    data.scan()
    return data, build_task(config, data).net


def loader_line(speed: LoaderSpeed) -> str:
    """The loader's result in words: without workers loading adds to every step, with them it happens meanwhile."""
    share = speed.needed_per_s / speed.samples_per_s
    if speed.num_workers == 0:
        verdict = f"without workers, loading adds {share:.1%} to the time of a step"
    elif share <= 1:
        verdict = f"{1 / share:.1f} times what is needed"
    else:
        verdict = f"too slow: only {1 / share:.0%} of what is needed"
    return (
        f"data loader of configs/train.yaml, {speed.num_workers} workers, batches of "
        f"{' x '.join(map(str, speed.image_shape))}, alone: {speed.samples_per_s:,.0f} samples/s; "
        f"its training step takes in {speed.needed_per_s:,.0f} samples/s: {verdict}"
    )


# ----------------------------------------------------------------------------------------------- the command line


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whats = ("network", "loader")
    parser.add_argument("what", nargs="?", choices=whats, help="what to compare (default: both)")
    parser.add_argument("--width", type=positive, default=32, help="channels at full resolution (default: 32)")
    parser.add_argument("--depth", type=positive, default=4, help="halvings; MONAI's is always 4 (default: 4)")
    parser.add_argument("--batch", type=positive, default=4, help="images a step (default: 4)")
    parser.add_argument("--size", type=image_size, default=(192, 256), help="HEIGHTxWIDTH (default: 192x256)")
    parser.add_argument("--rounds", type=positive, default=20, help="timings of each contender (default: 20)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: torch's choice)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="also write every number here")
    options = parser.parse_args(arguments)
    least = max(SMALLEST, 4 * 2**options.depth)
    if min(options.size) < least:
        size = "x".join(map(str, options.size))
        parser.error(f"--size {size} is too small at --depth {options.depth}: give {least}x{least} or more")
    return options


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, found {text!r}")
    return int(text)


def image_size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH such as 192x256, found {text!r}")
    return int(parts[0]), int(parts[1])


def output_file(text: str) -> Path:
    """A file that can be written: found out before the minutes of measuring, not after."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that exists, found {text!r}")
    return path


def environment() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    gpu = torch.cuda.is_available()
    return {
        "machine": torch.cuda.get_device_name() if gpu else cpu_name(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def cpu_name() -> str:
    """The processor's name, from where Linux tells it, or how torch sees it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return f"CPU ({torch.backends.cpu.get_cpu_capability()})"


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure and print what was asked for; return every number."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    problem = Problem(arguments.width, arguments.depth, arguments.batch, arguments.size, device)
    results: dict[str, Any] = {"environment": environment(), "problem": asdict(problem)}
    print(", ".join(f"{key} {value}" for key, value in results["environment"].items()))
    if arguments.what in (None, "network"):
        print(", ".join(f"{key} {value}" for key, value in results["problem"].items()))
        present, notes = contenders(problem)
        print(*notes, sep="\n", end="\n" if notes else "", file=sys.stderr)
        rows, peaks = compare_networks(problem, present, arguments.rounds)
        print(network_table(rows, peaks))
        if busy := busy_line(rows[0].training.rounds_ms):
            print(busy, file=sys.stderr)
        results |= {"networks": [asdict(r) for r in rows], "peaks": [asdict(p) for p in peaks]}
    if arguments.what in (None, "loader"):
        speed = compare_loader(*default_training(), arguments.rounds, device)
        print(loader_line(speed))
        results["loader"] = asdict(speed)
    return results


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
