"""The machines that gemmir compiles for, and the target strings that name them.

`cpu` is the CPU of this computer; `cpu:NAME` is a named one, `cuda:NAME` a GPU of that compute
capability, `tpu:NAME` a TPU of that generation.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator

from gemmir.errors import MissingError
from gemmir.machine.cpu import SHIPPED, CpuMachine
from gemmir.machine.gpu import SHIPPED_GPUS, GpuMachine
from gemmir.machine.tpu import OTHER_NAMES, SHIPPED_TPUS, TpuMachine

__all__ = ["HOST", "CpuMachine", "GpuMachine", "Machine", "TpuMachine", "machine_for", "targets"]

Machine = CpuMachine | GpuMachine | TpuMachine
"""Any machine."""

HOST = "cpu"
"""The target string of this computer's CPU."""


def _named() -> dict[str, Machine]:
    return {machine.target: machine for machine in (*SHIPPED, *SHIPPED_GPUS, *SHIPPED_TPUS)}


def _host() -> CpuMachine:
    from gemmir.machine.host import host_machine

    return host_machine()


def machine_for(target: str) -> Machine:
    """The machine that `target` names.

    Raises `MissingError`: GEM0602 with the nearest target where there is no such machine, GEM0605
    where the host's CPU has no vector FMA.
    """
    if target == HOST:
        return _host()
    named = _named()
    if target in named:
        return named[target]
    known = [HOST, *named]
    meant = OTHER_NAMES.get(target.lower().replace(" ", ""))
    nearest = meant or difflib.get_close_matches(target, known, n=1, cutoff=0.0)[0]
    raise MissingError(
        "GEM0602",
        f"there is no target {target!r}; the targets are {', '.join(known)}",
        f"use {nearest}",
    )


def targets() -> Iterator[tuple[str, Machine]]:
    """Every target string with its machine, the host first.

    The host is left out where `machine_for` would refuse it.
    """
    with contextlib.suppress(MissingError):
        yield HOST, _host()
    yield from _named().items()
