"""The locks of a run's folder: no two processes run one job."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from unet.errors import UserError

LOCKED_BY = "UNET_FOLDER_LOCKED_BY"
"""Environment variable of a job's own process: the process that locked its folder, see :func:`process_key`."""


@contextmanager
def lock_folder(folder: Path, wait: bool = False) -> Iterator[FileLock]:
    """Lock a run's folder, so that no two processes run one job, and yield the lock ``.running``. Raises UserError.

    There are two locks. A process has ``.lock`` from reading the state to the end of the job, and the process that runs
    the job has ``.running``. A sweep takes the first, releases the second for the process of its job, and passes
    its own id to that process. If the sweep is killed, its job has the second until it ends. The system releases both
    when a process ends; filelock closes them in forked processes, such as those of a data loader.
    """
    holder = os.environ.get(LOCKED_BY, "")
    is_locked_by_sweep = bool(holder) and process_key(int(holder.partition(" ")[0])) == holder  # the sweep is alive
    locks = [FileLock(folder / name) for name in (".lock", ".running")][is_locked_by_sweep:]
    with ExitStack() as stack:
        for lock in locks:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if not wait:
                    raise UserError(f"{folder}: another process is running this job; wait for it, or stop it") from None
                print(f"{folder}: waiting for the process that is running this job", file=sys.stderr, flush=True)
                lock.acquire()
            stack.callback(lock.release)
        yield locks[-1]


def process_key(pid: int) -> str:
    """Return what identifies a process, also after its id is used again: ``PID TIME``. Empty if there is no process."""
    with suppress(psutil.NoSuchProcess):
        return f"{pid} {psutil.Process(pid).create_time()}"
    return ""
