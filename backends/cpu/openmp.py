"""The OpenMP runtime that threaded kernels call: found in this process, or loaded into it.

A runtime that is there already is preferred, since two of them in one process would each keep a
pool of threads and compete for the cores.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Generator, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from gemmir import threads
from gemmir.errors import MissingError

ENTRY: Final = "GOMP_parallel"
"""Every threaded kernel calls it; libgomp has it, and so have LLVM's and Intel's runtimes."""

SYMBOLS: Final = (ENTRY, "omp_get_max_threads", "omp_get_num_threads", "omp_get_thread_num")
"""All that a kernel calls."""

PROCESSORS: Final = "omp_get_num_procs"
"""How many CPUs the process may use; every runtime has it."""

NAMES: Final = ("libgomp.so.1", "libomp.so.5", "libomp.so", "libiomp5.so", "libomp.dylib")
"""What the runtimes are called where the dynamic linker looks."""

WAITING: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables by which a user says how threads wait for work."""

BRIEFLY: Final = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "0"}
"""How they wait otherwise: GNU's for some 30 us in place of 5 ms, LLVM's and Intel's not at all.

Kernels that follow one another find the threads awake, and what follows a kernel, such as NumPy's
own threads, has the cores for itself.
"""

PAUSE_HARD: Final = 2
"""omp_pause_hard of OpenMP 5.0: give everything back."""

MAPS: Final = Path("/proc/self/maps")
"""Where Linux lists the files mapped into this process."""


def is_needed(object_bytes: bytes) -> bool:
    """Whether an object file calls the runtime: its symbol table then holds the name."""
    return ENTRY.encode() in object_bytes


def addresses() -> Mapping[str, int]:
    """The address of each symbol that kernels call; `MissingError` GEM0604 without a runtime."""
    library = runtime()
    found = ((name, ctypes.cast(library[name], ctypes.c_void_p).value) for name in SYMBOLS)
    return {name: address for name, address in found if address is not None}


@cache
def runtime() -> ctypes.CDLL:
    """The OpenMP runtime; `MissingError` GEM0604 says what to install where there is none."""
    for candidate in _candidates():
        with contextlib.suppress(OSError), _waiting_briefly():
            library = ctypes.CDLL(candidate)
            if all(hasattr(library, name) for name in (*SYMBOLS, PROCESSORS)):
                library.omp_get_max_threads()  # LLVM's and Intel's read the environment now
                _make_forks_safe(library)
                threads.RUNTIMES.append(library[PROCESSORS])
                return library
    raise MissingError(
        "GEM0604",
        "threaded kernels need an OpenMP runtime and none was found",
        "install gemmir[openmp], or the system's libgomp1 (Debian) or libgomp (Fedora), "
        "or compile for one thread",
    )


@contextlib.contextmanager
def _waiting_briefly() -> Generator[None]:
    """Let a runtime that is loaded now have its threads sleep soon after a kernel.

    Nothing is changed where the environment says how they wait, nor in a runtime that is there
    already.
    """
    if any(name in os.environ for name in WAITING):
        yield
        return
    os.environ.update(BRIEFLY)
    try:
        yield
    finally:
        for name in BRIEFLY:
            os.environ.pop(name, None)


def _make_forks_safe(library: ctypes.CDLL) -> None:
    """End the threads of GNU's runtime before this process is forked.

    A child has none of them, and would wait for them for ever; the others look after that
    themselves. The next kernel starts them again.
    """
    if not hasattr(library, "__kmpc_fork_call") and hasattr(library, "omp_pause_resource_all"):
        os.register_at_fork(before=lambda: library.omp_pause_resource_all(PAUSE_HARD))


def _candidates() -> Iterator[str | None]:
    """Libraries to try in order; None stands for what the process has loaded for all to see."""
    yield None
    with contextlib.suppress(OSError):
        yield from mapped(MAPS.read_text())
    yield from NAMES
    from ctypes.util import find_library  # slow to import, and seldom needed

    for name in ("gomp", "omp", "iomp5"):
        found = find_library(name)
        if found is not None:
            yield found
    yield from map(str, sorted(Path(sys.prefix, "lib").glob("libiomp5.*")))


def mapped(maps: str) -> list[str]:
    """The OpenMP runtimes among the mapped files that `maps` lists, as /proc/self/maps does."""
    pattern = re.compile(r"(/\S*/lib(?:gomp|iomp5|omp)\b[^/\s]*\.so[^/\s]*)$", re.MULTILINE)
    return list(dict.fromkeys(pattern.findall(maps)))
