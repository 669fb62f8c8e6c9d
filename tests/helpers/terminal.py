"""A pseudo-terminal: what a person sees of a command's standard error, or of this process's."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

WIDTH = 160


class Terminal:
    """A terminal of 24 lines that keeps all that is written to it."""

    def __init__(self) -> None:
        self.leader, self.follower = pty.openpty()
        fcntl.ioctl(self.follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
        self.written = b""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self.leader, 1 << 16)
            except OSError:  # all who wrote to it have closed it
                return
            if not chunk:
                return
            self.written += chunk

    def text(self) -> str:
        """All that was written; nobody writes any more."""
        self.reader.join()
        os.close(self.leader)
        return self.written.decode()


def on_terminal(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command with its standard error on a terminal: its exit code, and what was seen there."""
    terminal = Terminal()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=terminal.follower,
        env=None if environment is None else dict(environment),
    ) as process:
        os.close(terminal.follower)
        process.communicate()
    return process.returncode, terminal.text()


@contextmanager
def seen(shown: list[str]) -> Iterator[None]:
    """This process's standard error on a terminal while this is open; then what was seen is in ``shown``."""
    terminal, before = Terminal(), sys.stderr
    try:
        with os.fdopen(terminal.follower, "w") as sys.stderr:
            yield
    finally:
        sys.stderr = before
        shown.append(terminal.text())
