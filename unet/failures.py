"""Failures of the machine and their error messages: a full disk, memory that ran out, a killed loader process.

Nothing here imports torch, so that commands without it use these messages too: torch's errors are recognized by their
names and texts.
"""

import errno
import re
import traceback
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from unet.errors import DataUnavailable, UserError

MEMORY = re.compile(
    r"can't allocate memory|out of memory|ALLOC_FAILED|Cannot allocate memory|"
    r"could not create a primitive(?! descriptor)",
    re.IGNORECASE,
)
"""Messages of torch, CUDA, the system and oneDNN; on the CPU torch raises them as a plain RuntimeError."""
WORKER = re.compile(r"DataLoader worker \(pid.*\) (is killed by signal: (?P<signal>[\w ]+)|exited unexpectedly)")


class Failure(NamedTuple):
    """A failure of the machine: its message of one line, and overrides that would avert it in a new run."""

    message: str
    overrides: tuple[str, ...] = ()


def classify_failure(
    error: BaseException, config: DictConfig | None = None, folder: Path | None = None
) -> Failure | None:
    """Return the failure that caused ``error``, or an error it was raised from; None where the machine did not fail.

    From the config of a training the message takes smaller values; the run's folder is for errors that name no file.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DataUnavailable):
            return Failure(one_line(cause))
        if isinstance(cause, UserError):
            return None  # its message is complete
        if is_out_of_memory(cause):
            return memory_failure(cause, config)
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return Failure(f"{cause.filename or folder or 'writing'}: the disk is full; free some space")
        if isinstance(cause, OSError) and cause.strerror and cause.filename:
            return Failure(f"{cause.filename}: {cause.strerror}")
        if "PytorchStreamWriter" in str(cause):  # torch does not pass on the system's reason
            return Failure(f"{folder or 'writing'}: cannot be written ({one_line(cause)}); check the disk's space")
        if match := WORKER.search(str(cause)):
            if match["signal"] and "Bus error" in match["signal"]:
                return Failure(
                    "a loader process had no shared memory (/dev/shm is full); enlarge it, or set data.num_workers=0"
                )
            end = f"was killed ({match['signal'].strip()})" if match["signal"] else "ended"
            return Failure(
                f"a loader process {end}, most often because memory ran out; set data.num_workers=0 to use none"
            )
        cause = cause.__cause__ or cause.__context__
    return None


def one_line(error: BaseException) -> str:
    """Return an error's message in one line; of an error in a loader process, without its traceback."""
    text = " ".join(str(error).split())
    if re.match(r"Caught \w+ in DataLoader worker process", text):
        return text.rpartition(f"{type(error).__name__}: ")[2]
    return text


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on the CPU or a GPU."""
    names = {base.__name__ for base in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"} or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and MEMORY.search(str(error)) is not None


def memory_failure(error: BaseException, config: DictConfig | None) -> Failure:
    """Return the failure with a smaller batch at an equal number of samples per step, or a smaller evaluation tile."""
    reason = re.sub(r"^\[.*?\] (\. |err == 0\. )?", "", one_line(error)).split(". ")[0] or type(error).__name__
    if config is None:
        return Failure(f"memory ran out ({reason}); try smaller batches, tiles or files")
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    predicting = [frame for frame in frames if frame.f_code.co_name == "predict"]
    if predicting:  # every evaluation calls it, no training step does
        image = next((frame.f_locals["image"] for frame in predicting if "image" in frame.f_locals), None)
        overrides = ()
        if config.data.eval_batch_size > 1:
            overrides = ("data.eval_batch_size=1",)
        elif image is not None:
            size = tuple(image.shape[2:])  # of the whole image (B, C, *S)
            tile = [max(1, min(axis) // 2) for axis in zip(size, config.data.eval_tile or size, strict=True)]
            overrides = (f"data.eval_tile=[{','.join(map(str, tile))}]",)
        change = overrides[0] if overrides else "a smaller data.eval_tile"
        return Failure(f"memory ran out in evaluation ({reason}); {change} needs less memory", overrides)
    if config.data.batch_size == 1:
        return Failure(
            f"memory ran out in training ({reason}), with one image in a batch: start a new run with smaller crops "
            f"(data.train_transforms) or a smaller model.width"
        )
    size = config.data.batch_size
    factor = next(factor for factor in range(2, size + 1) if size % factor == 0)
    batch, steps = size // factor, config.trainer.accumulate_grad_batches * factor
    return Failure(
        f"memory ran out in training ({reason}): a new run with data.batch_size={batch} "
        f"trainer.accumulate_grad_batches={steps} needs less memory for as many images in every optimizer step; "
        f"if another program used the memory, change nothing"
    )
