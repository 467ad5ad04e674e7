"""Processes of trials, from outside: started, asked, and ended."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gemmir.search.trials.memory import new_file

SCRIPT: Final = Path(__file__).parent / "template.py"

READY_SECONDS: Final = 120.0
"""The compiler is imported in half a second; so long is waited on a computer that is busy."""

ANSWER_BYTES: Final = 1 << 16

MOST_WORDS: Final = 4096
"""Bytes of the end of what a process has written that are read for its last line."""


class GoneError(Exception):
    """A process has ended; `status` is what with, a signal as a negative number."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"its process ended {ending(status)}" + (f": {words}" if words else ""))
        self.status = status


class LateError(Exception):
    """A process has not answered in its time, and is ended."""


class TemplateError(Exception):
    """The template of all processes is gone; another one has to be started."""


def ending(status: int) -> str:
    """What a process ended with, in words."""
    if status >= 0:
        return f"with status {status}"
    with suppress(ValueError):
        return f"by {signal.Signals(-status).name}"
    return f"by signal {-status}"


class Template:
    """The process of which all trials of one environment are forks; ended by `close`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        own, other = socket.socketpair()
        self._errors = new_file(0)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT)],
            stdin=other.fileno(),
            stdout=self._errors,
            stderr=self._errors,
            env={**os.environ, **environment},
        )
        other.close()
        self._socket = own
        self._lines = _Lines(own)
        self._is_ready = False

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def fork(self, spec: Mapping[str, Any], memory: int) -> Child:
        """A new process for the trial that `spec` describes."""
        self.wait()
        own, other = socket.socketpair()
        errors = new_file(0)
        line = json.dumps({"do": "fork", "spec": spec}).encode()
        try:
            socket.send_fds(self._socket, [line], [other.fileno(), memory, errors])
            pid = self._answer()["pid"]
        except BaseException:
            own.close()
            os.close(errors)
            raise
        finally:
            other.close()
        return Child(self, pid, own, errors)

    def end(self, pid: int) -> int:
        """Kill one of its processes; the status with which it ended."""
        self._socket.sendall(json.dumps({"do": "end", "pid": pid}).encode())
        return self._answer()["status"]

    def wait(self) -> None:
        """Wait until it has imported everything."""
        if not self._is_ready:
            self._answer()
            self._is_ready = True

    def close(self) -> None:
        """End it, and with it all of its processes."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._socket.close()
        os.close(self._errors)

    def _answer(self) -> dict[str, Any]:
        line = self._lines.read(time.monotonic() + READY_SECONDS)
        if not line:
            raise TemplateError(f"the process of which trials are forks is gone: {self._words()}")
        return json.loads(line)

    def _words(self) -> str:
        return _last_words(self._errors) or "it said nothing"


class Child:
    """The process of one trial."""

    def __init__(self, template: Template, pid: int, own: socket.socket, errors: int) -> None:
        self.pid = pid
        self._template = template
        self._socket = own
        self._lines = _Lines(own)
        self._errors = errors
        self._has_ended = False

    def ask(self, do: str, *, until: float, **given: Any) -> dict[str, Any]:
        """The answer to one question, as `answer` gives it."""
        self.say(do, **given)
        return self.answer(until=until)

    def say(self, do: str, **given: Any) -> None:
        """Ask one question, and do not wait for the answer."""
        with suppress(OSError):  # no answer will come either
            self._socket.sendall(json.dumps({"do": do, "with": given}).encode() + b"\n")

    def answer(self, *, until: float) -> dict[str, Any]:
        """The answer to the question, until a moment of the monotonic clock.

        `LateError` where there is none by then, `GoneError` where there never will be one.
        """
        try:
            line = self._lines.read(until)
        except TimeoutError:
            self.end()
            raise LateError from None
        except OSError:
            line = b""
        if not line:
            words = _last_words(self._errors)
            raise GoneError(self.end(), words)
        return json.loads(line)

    def end(self) -> int:
        """End it, if it has not ended; with what it did."""
        if self._has_ended:
            return 0
        self._has_ended = True
        self._socket.close()
        try:
            return self._template.end(self.pid)
        except OSError as error:
            raise TemplateError(str(error)) from error
        finally:
            os.close(self._errors)


class _Lines:
    """Lines that come through a socket."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._rest = b""

    def read(self, until: float) -> bytes:
        """The next line; b"" where the other side is gone, `TimeoutError` after `until`."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._source], [], [], max(until - time.monotonic(), 0.0))
            if not ready:
                raise TimeoutError
            try:
                found = self._source.recv(ANSWER_BYTES)
            except ConnectionError:
                found = b""
            if not found:
                return b""
            self._rest += found
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def _last_words(errors: int) -> str:
    """The last line of what a process has written."""
    written = os.pread(errors, MOST_WORDS, max(os.fstat(errors).st_size - MOST_WORDS, 0))
    lines = written.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
