"""The processes of a sweep's jobs, forked from a server that has imported everything and trained nothing.

A job thus shares no state with another one, and does not spend seconds on imports. One server serves all processes of
a sweep. That of ``multiprocessing`` does not fit: it is in the terminal's session, so that Ctrl-C would reach a job
twice, it imports from the current folder, it runs the main script again in every process, and it ends a process
without its exit handlers.
"""

import atexit
import gc
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NamedTuple

CAN_FORK = sys.platform == "linux"
"""Whether jobs are forked. The system libraries of macOS do not support it after imports; Windows has no fork."""

STOPS = {signal.SIGINT, signal.SIGTERM}
STOP = "stop"
"""What the process of a sweep sends to the server at its end, unless it is killed."""
ADDRESS = "UNET_JOB_SERVER"
"""Environment variable of the server's address, for the processes that a launcher starts."""


class Request(NamedTuple):
    """The job that a process of the sweep requests: the function ``main`` of a module.

    Attributes:
        data: passed to ``preload``; None: nothing is preloaded.
    """

    module: str
    arguments: list[str]
    environment: dict[str, str]
    data: Any = None


class JobServer:
    """The server of a sweep. It ends with the process that started it, after the jobs that are running.

    Args:
        module: a module with the function ``preload``, which is called in the server at its start, and before a job if
            no other one is running.
        environment: the environment variables of the server.
        data: passed to ``preload`` at the start.
    """

    def __init__(self, module: str, environment: Mapping[str, str], data: Any):
        self.address = f"unet-{uuid.uuid4()}"
        theirs, self.control = Pipe(duplex=False)
        with socket.socket(socket.AF_UNIX) as listener, theirs:
            listener.bind(f"\0{self.address}")  # an abstract address, which needs no file
            listener.listen()
            descriptors = listener.fileno(), theirs.fileno()
            code = f"from {__name__} import serve; serve({module!r}, *{descriptors})"
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", code], env=environment, pass_fds=descriptors, start_new_session=True
            )
        self.control.send(data)
        atexit.register(self.close)

    def close(self) -> None:
        """End the server; jobs that are running get SIGTERM, unless they had a signal before, and are waited for."""
        atexit.unregister(self.close)
        with self.control, suppress(ConnectionError):
            self.control.send(STOP)
        self.process.terminate()
        self.process.wait()


class Job:
    """A job, with the methods of ``subprocess.Popen`` that a sweep needs. Killing the sweep does not end it."""

    def __init__(self, connection: Connection, request: Request):
        self.connection = connection
        self.has_started = False
        with suppress(ConnectionError):  # the server has ended, which wait() finds
            connection.send(request)

    def send_signal(self, signum: int) -> None:
        """Send a signal to the job; a job that has not started never will: imports and reading may take long."""
        with suppress(OSError):  # the server has ended
            self.connection.send(signum)
            if not self.has_started:  # wait() then returns at once
                with socket.socket(fileno=os.dup(self.connection.fileno())) as client:
                    client.shutdown(socket.SHUT_RD)

    def wait(self) -> int | None:
        """Wait for the end of the job and return its exit code; None if it never started, or the server has ended."""
        with self.connection, suppress(EOFError, ConnectionError):
            self.has_started = self.connection.recv()
            return self.connection.recv()
        return None


_servers: list[JobServer] = []
"""The server that this process started, if there is one."""


def start_server(module: str, environment: Mapping[str, str], data: Any) -> None:
    """Start the server of this process and of those that a launcher starts, unless there is one."""
    if not has_server():
        while _servers:
            _servers.pop().close()
        _servers.append(JobServer(module, environment, data))
    os.environ[ADDRESS] = _servers[0].address


def has_server() -> bool:
    """Return whether this process started a server that is running."""
    return bool(_servers) and _servers[0].process.poll() is None


def fork_job(module: str, arguments: Sequence[str], data: Any, environment: Mapping[str, str]) -> Job:
    """Start a job in a process forked from the server, which is started if there is none.

    Args:
        module: a module with the function ``main``, which runs the job from ``sys.argv``, and ``preload``, see
            :class:`JobServer`. ``data`` is passed to ``preload``.
        environment: the environment variables of the job.
    """
    connection = connect(os.environ.get(ADDRESS, ""))
    if connection is None:
        start_server(module, environment, data)
        connection = connect(os.environ[ADDRESS])
    if connection is None:
        raise ConnectionError("the server of the jobs ended as soon as it was started")
    variables = {key: environment[key] for key in environment if key != ADDRESS}
    return Job(connection, Request(module, [sys.argv[0], *arguments], variables, data))


def connect(address: str) -> Connection | None:
    """Connect to a server; return None where there is none, such as on another machine."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{address}")
        return own_connection(client)
    return None


def own_connection(peer: socket.socket) -> Connection:
    """Return the connection of a socket. Raises PermissionError if the process at its other end is of another user."""
    with peer:
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, user, _ = struct.unpack("3i", credentials)
        if user != os.geteuid():
            raise PermissionError(f"the process at the other end is of user {user}")
        return Connection(peer.detach())


@dataclass(eq=False)
class RunningJob:
    """A process of a job in the server.

    Attributes:
        connection: to the process that requested it and waits for its end.
        has_requester: whether that process is alive.
        has_signal: whether a signal was sent to the job.
    """

    pid: int
    connection: Connection
    has_requester: bool = True
    has_signal: bool = False

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)  # the process exists until the server waits for it
        self.has_signal = True


def serve(module: str, listener: int, control: int) -> None:
    """Fork a process for every requested job; ``module`` preloads what they use."""
    jobs: list[RunningJob] = []
    stopped = threading.Event()

    def stop(signum: int, frame: Any) -> None:
        stopped.set()
        if not jobs:
            os._exit(0)

    # A job scheduler may send these to all processes, and the server must still report how the jobs have ended.
    handlers = {signum: signal.signal(signum, stop) for signum in STOPS}
    handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    preload = import_module(module).preload
    woken, wakes = socket.socketpair()
    woken.setblocking(False)
    wakes.setblocking(False)
    with woken, wakes, socket.socket(fileno=listener) as requests, Connection(control, writable=False) as sweep:
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        request = fork_jobs(jobs, requests, sweep, woken, stopped, preload)
        signal.set_wakeup_fd(-1)
    if request is not None:
        for job in jobs:
            job.connection.close()
        sys.argv = request.arguments
        os.environ.clear()
        os.environ.update(request.environment)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        import_module(request.module).main()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)  # Python would destroy the objects of all libraries one by one, which takes half a second


def fork_jobs(
    jobs: list[RunningJob],
    requests: socket.socket,
    sweep: Connection,
    woken: socket.socket,
    stopped: threading.Event,
    preload: Callable[[Any], None],
) -> Request | None:
    """Fork a process for every request; return the request in that process, and None in the server at the end.

    Args:
        jobs: filled with the jobs that are running.
        sweep: has the data to preload, then ``STOP``, or nothing if the process of the sweep was killed.
        woken: can be read after a signal.
        stopped: set if no further job is to be started.
    """
    with suppress(EOFError):
        preload(sweep.recv())
    while jobs or not stopped.is_set():
        watched = {job.connection: job for job in jobs if job.has_requester}
        ready = wait([woken, requests, *watched] if sweep.closed else [sweep, woken, requests, *watched])
        if woken in ready:
            woken.recv(4096)
            report_ended(jobs)
        for job in [job for connection, job in watched.items() if connection in ready and job in jobs]:
            forward_signal(job, is_ignored=sweep.closed)  # at the end of the sweep each job had its signal
        if sweep in ready:
            stopped.set()
            with sweep, suppress(EOFError):
                sweep.recv()
                for job in jobs:
                    if not job.has_signal:
                        job.send_signal(signal.SIGTERM)
        if requests in ready and not stopped.is_set():
            request = fork_requested(jobs, requests, preload)
            if request is not None:
                return request
    return None


def fork_requested(jobs: list[RunningJob], requests: socket.socket, preload: Callable[[Any], None]) -> Request | None:
    """Fork a process for the next request; return the request in that process, else None."""
    try:
        connection = own_connection(requests.accept()[0])
        request: Request = connection.recv()
    except (EOFError, OSError):  # the process has ended, or is of another user
        return None
    # While jobs run, reading would delay the report of their end; a job with other data reads them itself.
    if request.data is not None and not jobs:
        preload(request.data)
    if connection.poll():  # the job was stopped before its start
        connection.close()
        return None
    gc.collect()
    gc.freeze()  # collections in a job would otherwise visit, and so copy, the objects of all libraries
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until the job has its own handlers, and is in the list
    pid = os.fork()
    if pid == 0:
        connection.close()
        return request
    jobs.append(RunningJob(pid, connection))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    with suppress(ConnectionError):
        connection.send(True)
    return None


def forward_signal(job: RunningJob, is_ignored: bool) -> None:
    """Send the signal that was requested to a job, or note that the requester has ended."""
    try:
        signum = job.connection.recv()
    except (EOFError, ConnectionError):
        job.has_requester = False
    else:
        if not is_ignored:
            job.send_signal(signum)


def report_ended(jobs: list[RunningJob]) -> None:
    """Remove the jobs whose process has ended, and send their exit codes."""
    for job in list(jobs):
        pid, status = os.waitpid(job.pid, os.WNOHANG)
        if pid:
            jobs.remove(job)
            with job.connection, suppress(ConnectionError):  # the requester was killed
                job.connection.send(os.waitstatus_to_exitcode(status))
