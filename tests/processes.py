"""Commands run as their users run them, in processes of their own, but from a server that has loaded torch already.

``python train.py ...`` takes some six seconds to load its libraries, which dozens of tests would wait for. Here a new
process is forked from one that has done so, and gets its own session, folder, arguments, environment and output. How
the program behaves from Python's start on is shown by the tests that call ``subprocess`` themselves.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["unet.training.train"])


def become(words: Sequence[str], cwd: Path, stdout: Connection, stderr: str) -> None:
    """Be ``python WORDS`` in ``cwd``, with output to a pipe and to a file."""
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
    """A running command, with what the tests use of ``subprocess.Popen``: its leader of a session of its own.

    Attributes:
        pid: of the process, and of its process group.
        stdout: what it prints, line by line.
        returncode: its exit status once it has ended, negative where a signal ended it.
    """

    def __init__(self, words: Sequence[str], cwd: Path):
        reader, writer = CONTEXT.Pipe(duplex=False)
        self.stderr: IO[bytes] = tempfile.NamedTemporaryFile()  # noqa: SIM115  (open until communicate)
        self.process = CONTEXT.Process(target=become, args=(words, cwd, writer, self.stderr.name))
        self.process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        reader.close()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def terminate(self) -> None:
        self.process.terminate()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """The rest of its output and all its errors, once it has ended; SIGKILL ends it after ``timeout`` seconds."""
        late = threading.Timer(timeout, lambda: os.killpg(self.pid, signal.SIGKILL))
        late.start()
        with self.stdout, self.stderr:
            said = self.stdout.read()
            self.process.join()
            late.cancel()
            return said, self.stderr.read().decode()


def run(words: Sequence[str], cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """A command's exit status and output."""
    command = Command(words, cwd)
    said, errors = command.communicate(timeout)
    return subprocess.CompletedProcess(list(words), command.returncode or 0, said, errors)
