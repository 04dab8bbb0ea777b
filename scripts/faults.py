"""Is anything lost when a training is killed? SIGKILL at random moments, the same command again, and a comparison.

    python scripts/faults.py                      30 trainings, some minutes on a CPU
    python scripts/faults.py --trainings 3 --seed 1

A small training on drawn cells is run once undisturbed. Then, each time in a new folder, it is killed once to three
times, either from outside after a random time or while it is writing a random part of a random checkpoint, and begun
again each time with the same command (resume=auto). After every kill each checkpoint file in the folder must load; at
the end weights, optimiser and scores must be those of the undisturbed run, bit for bit. Every other training loads its
data in a process of its own. Exit status 1 where one of them fails.
"""

import argparse
import io
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import UserError
from unet.record import CHECKPOINTS, LAST, METRICS, ROOT

TRAINING = (
    "data=folder",
    "data.source.classes=[background,cell]",
    "data.crop.picture=32",
    "data.batch_size=4",
    "data.samples_per_epoch=16",
    "model.width=8",
    "model.depth=2",
    "model.dropout=0.1",
    "trainer.max_epochs=4",
    "trainer.accelerator=cpu",
    "threads=1",
    "pictures=0",
    "feature_maps=0",
    "diagnostics=false",
    "resume=auto",
)
WRITES = 6
"""The training writes at least as many checkpoints: the last of each of its epochs, and the best."""
LATEST = 0.9
"""Share of the undisturbed run's seconds after which no kill from outside is planned."""
KEPT = ("state_dict", "optimizer_states")
SCORES = ("test/", "best/", "steps")


@dataclass(frozen=True)
class Kill:
    """When a process is to die: after some seconds, or in the middle of its n-th checkpoint.

    Attributes:
        seconds: from its start; None where it dies writing.
        write: which of the checkpoints it writes, from 1; 0 where it dies by the clock.
        share: how much of that one is written by then, 0 to 1; at 1 only the new name is missing.
    """

    seconds: float | None = None
    write: int = 0
    share: float = 0.0

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"after {self.seconds:.2f} s"
        return f"{self.share:.0%} into writing checkpoint {self.write}"


@dataclass
class Outcome:
    """What became of one training.

    Attributes:
        kills: those that came before the training had ended.
        unreadable: checkpoint files that did not load after a kill.
        differing: what was not as in the undisturbed run.
    """

    kills: list[Kill] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return bool(self.kills) and not self.unreadable and not self.differing


def draw_cells(root: Path, count: int = 12, side: int = 48) -> None:
    """Pictures of dark cells on a bright ground, with their masks of 0 and 1."""
    from PIL import Image

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        mask = np.zeros((side, side), bool)
        for cy, cx, radius in zip(*rng.uniform(0, side, (2, 5)), rng.uniform(4, 9, 5), strict=True):
            mask |= (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        grey = np.clip(190 - 110 * mask + rng.normal(0, 12, mask.shape), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(root / "images" / f"{index}.png")
        Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / f"{index}.png")


def train(overrides: Sequence[str], log: Path, kill: Kill) -> None:
    """``train.py`` in this process, which is a new one; what it prints goes to ``log``."""
    with log.open("a") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    multiprocessing.set_start_method(None, force=True)  # loader processes start as they do elsewhere
    if kill.write:
        die_writing(kill.write, kill.share)
    sys.argv = [str(ROOT / "train.py"), *overrides]
    runpy.run_path(sys.argv[0], run_name="__main__")


def die_writing(write: int, share: float) -> None:
    """Let this process end by SIGKILL once it has written ``share`` of its ``write``-th checkpoint."""
    import torch

    save, left = torch.save, [write]

    def dying(checkpoint: Any, file: Any) -> None:
        left[0] -= 1
        if left[0]:
            return save(checkpoint, file)
        buffer = io.BytesIO()
        save(checkpoint, buffer)
        file.write(buffer.getbuffer()[: round(share * buffer.tell())])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = dying


class Trainings:
    """Processes that train, started from one that has torch loaded already: a start takes no seconds.

    Args:
        data: the folder of the drawn cells.
    """

    def __init__(self, data: Path):
        self.data = data
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["unet.training"])

    def run(self, folder: Path, workers: int, kill: Kill) -> int:
        """One process's exit status, negative where a signal ended it."""
        overrides = (*TRAINING, f"data.root={self.data}", f"data.num_workers={workers}", f"hydra.run.dir={folder}")
        process = self.context.Process(target=train, args=(overrides, folder.with_suffix(".log"), kill))
        process.start()
        process.join(kill.seconds)
        if process.is_alive():
            process.kill()
            process.join()
        assert process.exitcode is not None
        return process.exitcode


def planned(rng: np.random.Generator, seconds: float) -> Kill:
    """A random kill of a run that takes so many seconds."""
    if rng.random() < 0.5:
        return Kill(seconds=float(rng.uniform(0, LATEST * seconds)))
    return Kill(write=int(rng.integers(1, WRITES)), share=float(rng.uniform(0, 1)))


def disturbed(trainings: Trainings, folder: Path, whole: Path, rng: np.random.Generator, seconds: float) -> Outcome:
    """Kill a training as often as is drawn, let it end, and compare."""
    outcome, workers = Outcome(), int(rng.integers(2))
    wanted = int(rng.integers(1, 4))
    while len(outcome.kills) < wanted:
        kill = planned(rng, seconds)
        status = trainings.run(folder, workers, kill)
        if status == 0 and outcome.kills:
            break  # it was faster than its next kill
        if status == 0:  # and than its first: once more, killed earlier
            shutil.rmtree(folder)
            seconds /= 2
            continue
        if status != -signal.SIGKILL:
            raise UserError(f"a training ended with status {status}: {folder.with_suffix('.log').read_text()[-2000:]}")
        outcome.kills.append(kill)
        outcome.unreadable += unreadable(folder)
    if trainings.run(folder, workers, Kill()) != 0:
        raise UserError(f"a training did not end: {folder.with_suffix('.log').read_text()[-2000:]}")
    outcome.differing = differences(whole, folder)
    return outcome


def unreadable(folder: Path) -> list[str]:
    """The checkpoint files of a run that cannot be loaded."""
    from unet import load

    found = []
    for path in sorted((folder / CHECKPOINTS).glob("*.ckpt")):
        try:
            load(path)
        except UserError as error:
            found.append(str(error))
    return found


def differences(whole: Path, other: Path) -> list[str]:
    """What is not equal in two finished runs: weights and optimiser of either checkpoint, scores."""
    import torch

    found = []
    for name in ("best.ckpt", LAST):
        paths = (folder / CHECKPOINTS / name for folder in (whole, other))
        saved = (torch.load(path, weights_only=True) for path in paths)
        first, second = (dict(tensors({key: values[key] for key in KEPT})) for values in saved)
        names = first.keys() | second.keys()
        same = {key for key in first.keys() & second.keys() if torch.equal(first[key], second[key])}
        found += [f"{name}{key}" for key in sorted(names - same)]
    first, second = (json.loads((folder / METRICS).read_text()) for folder in (whole, other))
    return found + [key for key in first if key.startswith(SCORES) and first[key] != second.get(key)]


def tensors(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Name and tensor of all in nested mappings and lists."""
    import torch

    if isinstance(values, torch.Tensor):
        yield name, values
    elif isinstance(values, Mapping | list):
        for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
            yield from tensors(value, f"{name}.{key}")


def told(number: int, outcome: Outcome) -> str:
    """One line on a training."""
    kills = ", ".join(map(str, outcome.kills))
    wrong = [*(f"does not load: {sentence}" for sentence in outcome.unreadable), *outcome.differing[:3]]
    return f"{number:3}  {'same' if outcome.sound else 'FAILED'}  killed {kills}{'; '.join(['', *wrong])}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=int, default=30, help="how many are killed (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    options = parser.parse_args(arguments)
    if options.trainings < 1 or options.seed < 0:
        parser.error("--trainings is at least 1, --seed at least 0")
    try:
        outcomes = torment(options.trainings, options.seed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sound = sum(outcome.sound for outcome in outcomes)
    kills = [kill for outcome in outcomes for kill in outcome.kills]
    print(
        f"{sound} of {len(outcomes)} trainings ended in the weights, optimiser and scores of the undisturbed one; "
        f"{len(kills)} kills, {sum(kill.write > 0 for kill in kills)} of them in the middle of a checkpoint; "
        f"{sum(len(outcome.unreadable) for outcome in outcomes)} unreadable checkpoints"
    )
    return int(sound < len(outcomes))


def torment(count: int, seed: int) -> list[Outcome]:
    """Kill ``count`` trainings, print a line on each, and return what became of them."""
    with tempfile.TemporaryDirectory(prefix="faults_") as name:
        root = Path(name)
        draw_cells(root / "data")
        trainings = Trainings(root / "data")
        trainings.run(root / "first", 0, Kill(seconds=0.0))  # loads torch, which no other start has to wait for
        begin = time.perf_counter()
        if trainings.run(root / "whole", 0, Kill()) != 0:
            raise UserError(f"the undisturbed training failed: {(root / 'whole.log').read_text()[-2000:]}")
        seconds = time.perf_counter() - begin
        print(f"undisturbed: {seconds:.1f} s", flush=True)
        outcomes = []
        for number in range(1, count + 1):
            rng = np.random.default_rng([seed, number])
            outcomes.append(disturbed(trainings, root / f"{number:03}", root / "whole", rng, seconds))
            print(told(number, outcomes[-1]), flush=True)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
