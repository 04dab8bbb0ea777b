"""Run commands in processes of their own that are forked from a server which has loaded torch already.

``python train.py ...`` takes some six seconds to load its libraries, for which dozens of tests would wait. Here a new
process is forked from one that has loaded them, and gets its own session, folder, arguments, environment and output.
The tests that call ``subprocess`` themselves show how the program behaves from the start of Python on.
"""

import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import psutil

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["unet.training.train", "unet.commands.train", "hydra.main", "torch.utils.tensorboard"])


def stop_all() -> None:
    """Kill the server and all processes forked from it, which could wait forever and keep output pipes open."""
    server = forkserver._forkserver
    if server._forkserver_pid is None:
        return
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(server._forkserver_pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        os.kill(server._forkserver_pid, signal.SIGKILL)
    server._stop()


def run_script(words: Sequence[str], cwd: Path, stdout: Connection, stderr: str) -> None:
    """Run ``python WORDS`` in this process and in ``cwd``, with output to a pipe and to a file."""
    gc.freeze()  # garbage collection of the libraries would take a third of a short training
    os.setsid()
    os.chdir(cwd)
    os.dup2(stdout.fileno(), 1)
    stdout.close()
    with open(stderr, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    multiprocessing.set_start_method(None, force=True)  # loader processes start as they do elsewhere
    sys.argv = [str(word) for word in words]
    runpy.run_path(sys.argv[0], run_name="__main__")


class Command:
    """A running command, which leads a session and process group of its own, like ``subprocess.Popen``."""

    def __init__(self, words: Sequence[str], cwd: Path):
        reader, writer = CONTEXT.Pipe(duplex=False)
        self.stderr: IO[bytes] = tempfile.NamedTemporaryFile()  # noqa: SIM115  (open until communicate)
        self.process = CONTEXT.Process(target=run_script, args=(words, cwd, writer, self.stderr.name))
        self.process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        reader.close()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end, with SIGKILL after ``timeout`` seconds; return the rest of its output and its errors."""
        timer = threading.Timer(timeout, lambda: os.killpg(self.pid, signal.SIGKILL))
        timer.start()
        with self.stdout, self.stderr:
            output = self.stdout.read()
            self.process.join()
            timer.cancel()
            return output, self.stderr.read().decode()


def run(words: Sequence[str], cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run a command and return its exit status and output."""
    command = Command(words, cwd)
    output, errors = command.communicate(timeout)
    return subprocess.CompletedProcess(list(words), command.returncode or 0, output, errors)
