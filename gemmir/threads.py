"""On how many threads a kernel runs: what the caller says, the environment and the system allow.

The environment is read when this is asked, never at import.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from typing import Final, SupportsIndex

from gemmir.errors import CallError

VARIABLES: Final = ("GEMMIR_NUM_THREADS", "OMP_NUM_THREADS")
"""Environment variables that say it, the first that is set."""


BINDING: Final = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
"""Environment variables with which an OpenMP runtime gives each thread CPUs of its own, that which
loads it too: its affinity mask then says no more what the process may use."""

RUNTIMES: Final[list[Callable[[], int]]] = []
"""The omp_get_num_procs of the runtime that kernels call, once there is one."""


def allowed() -> int:
    """CPUs that this process may run on: its affinity mask, where the system has one.

    Where OpenMP binds threads, its runtime knows what the mask was.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    found = len(os.sched_getaffinity(0))
    if any(name in os.environ for name in BINDING):
        return max([found, *(count() for count in RUNTIMES)])
    return found


def from_environment() -> int | None:
    """What the environment says, None where it says nothing.

    OMP_NUM_THREADS may be a list, of which the first number counts. Raises `CallError` GEM1340
    where the variable is not a number of threads.
    """
    for name in VARIABLES:
        said = os.environ.get(name, "").strip()
        if said:
            first = said.split(",")[0].strip() if name.startswith("OMP") else said
            if not (first.isascii() and first.isdigit() and int(first) > 0):
                raise CallError(
                    "GEM1340",
                    f"{name}={said} is not a number of threads",
                    f"set it to {_choices()}, or unset it",
                )
            return int(first)
    return None


def _choices() -> str:
    most = allowed()
    return "1" if most == 1 else f"1 to {most}"


def asked(threads: int | None) -> int | None:
    """`threads`, or what the environment says; raises as that and as `checked` do."""
    return from_environment() if threads is None else checked(threads)


def checked(threads: object) -> int:
    """`threads` that a caller asks for; `CallError` GEM1341 where it is no number from 1 on."""
    whole = operator.index(threads) if isinstance(threads, SupportsIndex) else 0
    if whole < 1 or isinstance(threads, bool):
        raise CallError(
            "GEM1341",
            f"threads={threads!r}: a whole number, and at least one",
            f"use {_choices()}",
        )
    return whole


def planned(threads: int | None) -> int:
    """For how many threads a schedule is chosen: those that the caller asks for, or as many of
    those that the environment says as are allowed; one where neither says anything.
    """
    found = asked(threads)
    if threads is None and found is not None:
        return min(found, allowed())
    return found or 1


def running(threads: int | None) -> int:
    """On how many threads code runs here: never more than are allowed.

    0, which is for the OpenMP runtime to decide, where neither caller nor environment says it.
    """
    found = asked(threads)
    return 0 if found is None else min(found, allowed())
