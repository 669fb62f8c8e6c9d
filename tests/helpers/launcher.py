"""The real composer launcher and the real scripts, started without importing torch anew each time.

Imports take 12 CPU seconds of the launcher and as many of each rank, more than most runs of the tests. Here they
happen once, in the fork server of :mod:`multiprocessing`; the launcher is a fork of it, and its ranks are forks of the
launcher. Everything else is as in a job: a process each, the launcher's own code, signals, environment, exit codes,
and nothing open that a program started afresh would not have open. What a warm start cannot show is what happens
while modules are imported, and another seed of Python's string hashes: ``THEWORLD_TESTS_COLD=1`` starts every program
afresh, as the tests of the job scripts always do.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import forkserver, process, resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import IO, Any

import pytest

ROOT = Path(__file__).parents[2]
COMPOSER = str(Path(sys.executable).with_name("composer"))
LONGEST = 240.0
"""Seconds after which a run counts as hanging."""

IMPORTED = [
    "composer.cli.launcher",
    "streaming",
    "theworld.train.run",
    "transformers.models.gemma3.modeling_gemma3",
    "transformers.models.gemma3.processing_gemma3",
    "transformers.models.gemma3.image_processing_gemma3",
    "diffusers.models.autoencoders.autoencoder_kl_wan",
    "torch.utils.tensorboard",
    "tests.helpers.launcher",
]
NAME = "a start of a test"
READ_AT_IMPORT = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TORCH", "PYTORCH_", "OMP_", "PYTHON", "MPL", "NO_PROXY")
"""Variables that modules may read when they are imported: starts that differ in one have fork servers of their own."""
READ_EACH_TIME = ("HF_TOKEN",)
"""Those among them that are read when they are needed."""
MOST_SERVERS = 2
"""Fork servers that a process of the tests keeps, some hundred megabytes each."""

_servers: dict[frozenset[tuple[str, str]], forkserver.ForkServer] = {}
"""By the variables that were set when the modules were imported, the one used last at the end."""


class Started:
    """A program that runs: what the tests use of ``subprocess.Popen``."""

    def __init__(self, program: Any, args: Sequence[str]) -> None:
        self.program = program
        self.args = args
        self.pid: int = program.pid

    @property
    def returncode(self) -> int | None:
        return self.program.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self.program.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


@atexit.register
def _kill_what_is_left() -> None:
    """Where a test has failed, its run may stand still: :mod:`multiprocessing` would wait for it for ever."""
    for program in multiprocessing.active_children():
        if program.pid is not None and program.name == NAME:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)


Process = Started | subprocess.Popen


def start(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, errors: Path | None = None
) -> Process:
    """Start ``composer ...`` or ``python script ...`` in a session of its own, in the repo's root.

    Args:
        log: file that what it prints is appended to.
        environment: all its variables; those of the tests if None.
        errors: file for what it writes to standard error; None: ``log``.
    """
    variables = dict(os.environ if environment is None else environment)
    if os.environ.get("THEWORLD_TESTS_COLD") or command[1] == "-c":
        with log.open("ab") as output, (errors or log).open("ab") as other:
            return subprocess.Popen(
                command, cwd=ROOT, env=variables, stdout=output, stderr=other, start_new_session=True
            )
    context = multiprocessing.get_context("forkserver")
    program = context.Process(
        target=_begin, args=(list(command), log, errors or log, variables), daemon=True, name=NAME
    )
    with _server_for(variables):
        program.start()
    return Started(program, command)


def run(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> int:
    """Start it and wait for its end. Returns the exit code."""
    return ended(start(command, log, environment))


def ended(program: Process) -> int:
    """Wait for the end of a program; one that hangs is killed with its children. Returns the exit code."""
    try:
        return program.wait(LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        raise


class Script:
    """Python code, which may import ``tests``, in a process of its own; what it prints is in a folder of its own."""

    def __init__(self, code: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = TemporaryDirectory()
        self.program, self.log, self.errors = (Path(self.folder.name) / name for name in ("code.py", "log", "errors"))
        self.program.write_text(f"import sys\nsys.path.insert(1, {str(ROOT)!r})\n{code}")
        command = [sys.executable, str(self.program), *arguments]
        self.process = start(command, self.log, environment, self.errors)

    def end(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end, as :func:`ended` does."""
        with self.folder:
            returncode = ended(self.process)
            printed = self.log.read_text(), self.errors.read_text()
            return subprocess.CompletedProcess(self.process.args, returncode, *printed)


def composer(ranks: int, *arguments: str) -> list[str]:
    """The command that trains with so many ranks through the launcher; without the page at the end, which takes
    seconds, unless ``report=true`` is among the arguments."""
    return [COMPOSER, "-n", str(ranks), "recipes/train.py", *arguments[:1], "report=false", *arguments[1:]]


@contextmanager
def _server_for(variables: Mapping[str, str]) -> Iterator[None]:
    """While a program starts: the fork server whose modules were imported with these variables is the one that serves.

    :mod:`multiprocessing` knows one server of a process, and reaches it through a function of its module.
    """
    read = {name: text for name, text in variables.items() if name.startswith(READ_AT_IMPORT)}
    key = frozenset((name, text) for name, text in read.items() if name not in READ_EACH_TIME)
    server = _servers.pop(key, None) or forkserver.ForkServer()
    _servers[key] = server
    while len(_servers) > MOST_SERVERS:
        _servers.pop(next(iter(_servers)))._stop()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(forkserver, "connect_to_new_process", server.connect_to_new_process)
        for name in [name for name in os.environ if name.startswith(READ_AT_IMPORT)]:
            patched.delenv(name)
        for name, text in read.items():
            patched.setenv(name, text)
        server.set_forkserver_preload(IMPORTED)
        server.ensure_running()
        yield


class _Rank:
    """What the launcher takes for ``subprocess.Popen``: a fork of it that runs the script."""

    def __init__(
        self, args: list[str], text: bool, stdout: IO[str] | None = None, stderr: IO[str] | int | None = None
    ) -> None:
        self.args = args
        self.stdout, self.stderr = stdout, None if isinstance(stderr, int) else stderr
        sys.stdout.flush()
        self.program = multiprocessing.get_context("fork").Process(
            target=_begin_rank, args=(args, stdout, stdout if isinstance(stderr, int) else stderr)
        )
        self.program.start()
        self.pid = self.program.pid

    @property
    def returncode(self) -> int | None:
        return self.program.exitcode

    def poll(self) -> int | None:
        return self.returncode


def _begin(command: list[str], log: Path, errors: Path, variables: dict[str, str]) -> None:
    """In the fork of the server: become a session, with these variables and this output, and run the program."""
    os.setsid()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(variables)
    _redirect(*(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666) for file in (log, errors)))
    if command[0] == COMPOSER:
        launcher: Any = import_module("composer.cli.launcher")
        launcher.subprocess = SimpleNamespace(
            Popen=_Rank, STDOUT=subprocess.STDOUT, CalledProcessError=subprocess.CalledProcessError
        )
        _run(command, launcher.main)
    else:
        _run(command[1:])


def _begin_rank(args: list[str], stdout: IO[str] | None, stderr: IO[str] | None) -> None:
    _redirect(stdout.fileno() if stdout else 1, stderr.fileno() if stderr else 2)
    logging.root.handlers.clear()  # the launcher's own
    _run(args[1:])


def _redirect(stdout: int, stderr: int) -> None:
    """Standard output and error go to these; whatever else a fresh program would not inherit is closed."""
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and not _kept(number):
            os.close(number)


def _kept(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:  # the listing's own
        return True


def _run(command: list[str], main: Any = None) -> None:
    """Run a program's main function, or its script, as if this process had been started for it."""
    for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    # What importing Composer does in a program started afresh: by it the launcher ends its ranks before itself.
    engine: Any = import_module("composer.core.engine")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, engine.sigterm_handler)
    own: Any = process.current_process()
    own.name, own._config["daemon"], process._parent_process = "MainProcess", False, None  # pyright: ignore
    tracker: Any = resource_tracker._resource_tracker
    tracker._fd = tracker._pid = None
    multiprocessing.set_start_method("fork", force=True)  # the default, which the fork server has replaced by itself
    tempfile.tempdir = None
    random.seed()
    sys.argv = command
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        if main is not None:
            sys.exit(main())
        sys.path[0] = str(Path(command[0]).resolve().parent)
        runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
