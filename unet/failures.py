"""What the machine does to a run, in one sentence: a full disk, memory that ran out, a loader process that was killed.

Nothing here imports torch, so that a command without it can say these things too: its errors are known by their names
and words.
"""

import errno
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from unet.errors import DataUnavailable, UserError

MEMORY = re.compile(
    r"can't allocate memory|out of memory|ALLOC_FAILED|Cannot allocate memory|"
    r"could not create a primitive(?! descriptor)",
    re.IGNORECASE,
)
"""Words of torch, CUDA, the system and oneDNN; torch says so in a plain RuntimeError on the CPU."""
WORKER = re.compile(r"DataLoader worker \(pid.*\) (is killed by signal: (?P<signal>[\w ]+)|exited unexpectedly)")
IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker process")
WRITER = "PytorchStreamWriter"


class Failure(NamedTuple):
    """What happened and what to do.

    Attributes:
        message: one line for the user.
        overrides: what would avert it; no part of the same run.
    """

    message: str
    overrides: tuple[str, ...] = ()


def classify_failure(
    error: BaseException, config: DictConfig | None = None, folder: Path | None = None
) -> Failure | None:
    """The machine's fault behind ``error``, or behind what it was raised from; None where it is another's.

    Args:
        error: what ended a run or a command.
        config: the training's, where it is one: what it asks of memory.
        folder: where the run writes, in case that an error names no file.
    """
    for cause in cause_chain(error):
        if isinstance(cause, DataUnavailable):
            return Failure(one_line(cause))
        if isinstance(cause, UserError):
            return None  # it says itself what was wrong
        if is_out_of_memory(cause):
            return memory_failure(cause, config)
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return Failure(f"{cause.filename or folder or 'writing'}: the disk is full; free some space")
        if isinstance(cause, OSError) and cause.strerror and cause.filename:
            return Failure(f"{cause.filename}: {cause.strerror}")
        if WRITER in str(cause):  # torch has swallowed the system's reason
            return Failure(
                f"{folder or 'writing'}: cannot be written ({one_line(cause)}); see that the disk is not full"
            )
        if found := WORKER.search(str(cause)):
            return Failure(worker_failure(found["signal"]))
    return None


def cause_chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def one_line(error: BaseException) -> str:
    """The words of an error in one line; of one that a loader process had, its own without the traceback."""
    lines = str(error).strip().splitlines()
    if lines and IN_WORKER.match(lines[0]):
        return lines[-1].partition(": ")[2]
    return " ".join(str(error).split())


def is_out_of_memory(error: BaseException) -> bool:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"MemoryError", "OutOfMemoryError"} or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and MEMORY.search(str(error)) is not None


def memory_failure(error: BaseException, config: DictConfig | None) -> Failure:
    """Halve what is in memory at once: of a training batch with as many samples to a step, or of an evaluation."""
    said = re.sub(r"^\[.*?\] (\. |err == 0\. )?", "", one_line(error)).split(". ")[0] or type(error).__name__
    if config is None:
        return Failure(f"memory ran out ({said}); try smaller batches, tiles or files")
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    predicting = [frame for frame in frames if frame.f_code.co_name == "predict"]
    if predicting:  # every evaluation calls it, no training step does
        image = next((frame.f_locals["image"] for frame in predicting if "image" in frame.f_locals), None)
        if config.data.eval_batch_size > 1:
            smaller = ("data.eval_batch_size=1",)
        elif image is not None:
            size = tuple(image.shape[2:])  # of the whole image, which is (B, C, *S)
            tile = [max(1, min(sizes) // 2) for sizes in zip(size, config.data.eval_tile or size, strict=True)]
            smaller = (f"data.eval_tile=[{','.join(map(str, tile))}]",)
        else:
            smaller = ()
        needed = smaller[0] if smaller else "a smaller data.eval_tile"
        return Failure(f"memory ran out in evaluation ({said}); {needed} needs less memory", smaller)
    parts = smallest_factor(config.data.batch_size)
    if parts is None:
        return Failure(
            f"memory ran out in training ({said}), with one sample a batch: take smaller crops "
            f"(data.train_transforms) or a smaller model.width for a new run"
        )
    batch, steps = config.data.batch_size // parts, config.trainer.accumulate_grad_batches * parts
    return Failure(
        f"memory ran out in training ({said}): a new run with data.batch_size={batch} "
        f"trainer.accumulate_grad_batches={steps} needs less memory and has as many samples in every optimizer step; "
        f"if another program had taken the memory, change nothing"
    )


def smallest_factor(number: int) -> int | None:
    """2 for an even number, 3 for 9, None for 1."""
    return next((factor for factor in range(2, number + 1) if number % factor == 0), None)


def worker_failure(signal: str | None) -> str:
    if signal and "Bus error" in signal:
        return "a loader process found no shared memory (/dev/shm is full); enlarge it, or set data.num_workers=0"
    how = f"killed ({signal.strip()})" if signal else "ended"
    return f"a loader process was {how} from outside, most often for its memory; data.num_workers=0 does without"
