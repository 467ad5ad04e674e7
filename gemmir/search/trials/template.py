"""The process that every trial is a fork of: it has imported the compiler, and does nothing else.

A trial begins in a hundredth of a second so, in a process of its own which may crash, hang or be
killed. A line of JSON on the control socket asks for one thing:

    fork     a process that talks over the socket that comes with the line; its id
    end      kill a process; what it ended with, a signal as a negative number

Everything ends with the process that started it, at the latest when its end of the socket closes.
This file is run as a script.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from gemmir.bench.worker import end_with_parent

CONTROL: Final = 0
"""The file descriptor of the control socket."""

STATIC: Final = "static"
"""In place of the module of a contestant: nothing of it is timed."""

LINE_BYTES: Final = 1 << 20
FILES: Final = 3
"""What comes with a fork: the socket, the memory of the arrays, and where errors are written."""

PRELOADED: Final = (
    "gemmir.compiler",
    "gemmir.backends.cpu.emit",
    "gemmir.backends.cpu.load",
    "gemmir.backends.cpu.assemble",
    "gemmir.search.trials.candidate",
    "gemmir.search.trials.gpu_candidate",
    "gemmir.search.trials.static_candidate",
)


def serve(control: socket.socket) -> None:
    """Fork and end processes until the other side is gone."""
    children: set[int] = set()
    while True:
        line, files, _, _ = socket.recv_fds(control, LINE_BYTES, FILES)
        if not line:
            break
        asked = json.loads(line)
        if asked["do"] == "fork":
            pid = os.fork()
            if pid == 0:
                control.close()
                be_candidate(files, asked["spec"])
            children.add(pid)
            for file in files:
                os.close(file)
            answer = {"pid": pid}
        else:
            children.discard(asked["pid"])
            answer = {"status": ended(asked["pid"])}
        control.sendall(json.dumps(answer).encode() + b"\n")
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def ended(pid: int) -> int:
    """Kill a process that has not ended yet, and what it started; the status with which it did."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def be_candidate(files: Sequence[int], spec: Mapping[str, Any]) -> None:
    """Answer as a candidate, and never return."""
    from gemmir.search.trials.candidate import Candidate, talk
    from gemmir.search.trials.gpu_candidate import GPU, GpuCandidate
    from gemmir.search.trials.static_candidate import StaticCandidate

    status = 1
    try:
        end_with_parent()
        os.setpgid(0, 0)
        other, memory, errors = files
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        limit(spec["memory_bytes"])
        if spec["cpus"] and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, spec["cpus"])
        if spec["peer"] == STATIC:
            candidate = StaticCandidate(spec)
        elif spec["peer"] == GPU:
            candidate = GpuCandidate(spec, memory)
        else:
            candidate = Candidate(spec, memory)
        talk(candidate, socket.socket(fileno=other))
        status = 0
    finally:
        os._exit(status)


def limit(more_bytes: int) -> None:
    """Let this process have so much memory beside what it has, and leave no core behind."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = address_space_bytes()
    if used:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + more_bytes, hard))


def address_space_bytes() -> int:
    """What this process has, where Linux tells; 0 elsewhere."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def main() -> None:
    """Import everything, say so, and serve."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in PRELOADED:
        importlib.import_module(name)
    from gemmir.passes import pass_class, pass_names

    for name in pass_names():
        pass_class(name)
    gc.freeze()
    control = socket.socket(fileno=os.dup(CONTROL))
    os.dup2(os.open(os.devnull, os.O_RDONLY), CONTROL)
    control.sendall(b'{"ready": true}\n')
    serve(control)


if __name__ == "__main__":
    main()
    sys.exit(0)
