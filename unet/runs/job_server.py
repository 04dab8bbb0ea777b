"""The processes of a sweep's jobs, forked from a server that has imported everything and trained nothing.

A job thus shares no state with another one, and does not spend seconds on imports. The server of ``multiprocessing``
does not fit: it is in the terminal's session, so that Ctrl-C would reach a job twice, it imports from the current
folder, it runs the main script again in every process, and it ends a process without its exit handlers.
"""

import atexit
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from typing import Any

CAN_FORK = sys.platform == "linux"
"""Whether jobs are forked. The system libraries of macOS do not support it after imports; Windows has no fork."""

STOPS = {signal.SIGINT, signal.SIGTERM}


class JobServer:
    """A server and its current job, with the methods of ``subprocess.Popen`` that a sweep needs.

    The server ends with the sweep's process, after the current job; killing the sweep does not end the job.

    Args:
        module: a module with the function ``main``, which runs a job from ``sys.argv``, and ``preload``, which is
            called in the server before every job.
        environment: the environment variables of the server and all its jobs.
    """

    def __init__(self, module: str, environment: Mapping[str, str]):
        self.environment = dict(environment)
        self.connection, theirs = Pipe()
        code = f"from {__name__} import serve; serve({theirs.fileno()}, {module!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code], env=environment, pass_fds=[theirs.fileno()], start_new_session=True
        )
        theirs.close()
        self.pid: int | None = None
        atexit.register(self.close)

    def start(self, arguments: Sequence[str], data: Any) -> None:
        """Request a job with these arguments; ``data`` is passed to ``preload``."""
        with suppress(ConnectionError):  # the server has ended, which wait() finds
            self.connection.send(([sys.argv[0], *arguments], data))

    def send_signal(self, signum: int) -> None:
        """Send a signal to the job, or end the server if the job has not started: imports and reading may take long."""
        if self.pid is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, signum)

    def wait(self) -> int:
        """Wait for the end of the job and return its exit code, or that of the server if the server has ended."""
        try:
            self.pid = self.connection.recv()
            return self.connection.recv()
        except (EOFError, ConnectionError):
            return self.process.wait()
        finally:
            self.pid = None

    def close(self) -> None:
        """End the server, and not a job that is still running."""
        self.connection.close()
        self.process.kill()
        self.process.wait()
        atexit.unregister(self.close)


_servers: list[JobServer] = []
"""The server of this process, if one is running."""


def fork_job(module: str, arguments: Sequence[str], data: Any, environment: Mapping[str, str]) -> JobServer:
    """Start a job in a process forked from the server; see :class:`JobServer`.

    A new server is started for the first job, after the server has ended, and for another environment.
    """
    if _servers and (_servers[0].process.poll() is not None or _servers[0].environment != environment):
        _servers.pop().close()
    if not _servers:
        _servers.append(JobServer(module, environment))
    _servers[0].start(arguments, data)
    return _servers[0]


def serve(descriptor: int, module: str) -> None:
    """Fork a process for every requested job, and in that process run the function ``main`` of ``module``."""
    # The sweep forwards these to the job. A job scheduler may send them to all processes, and the server must still
    # report how the job has ended.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    command = import_module(module)
    with Connection(descriptor) as connection:
        arguments = fork_jobs(connection, command.preload)
    if arguments is not None:
        sys.argv = arguments
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        command.main()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)  # Python would destroy the objects of all libraries one by one, which takes half a second


def fork_jobs(connection: Connection, preload: Callable[[Any], None]) -> list[str] | None:
    """Return the arguments of a job in the process forked for it, and None in the server at the end of the sweep."""
    with suppress(EOFError, ConnectionError):
        while True:
            arguments, data = connection.recv()
            preload(data)
            gc.collect()
            gc.freeze()  # collections in a job would otherwise visit, and so copy, the objects of all libraries
            pid = os.fork()
            if pid == 0:
                return arguments
            connection.send(pid)
            connection.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return None
