"""Ahead-of-time compilation for a TPU by libtpu, which needs no TPU, in a process of its own.

libtpu can end the process that it is in, and compiles for one topology in each; so it never runs in
this one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gemmir.backends.pallas.profile import worker
from gemmir.backends.pallas.profile.hlo import ops, vmem_bytes
from gemmir.backends.pallas.profile.program import Program
from gemmir.errors import MissingError, ProfileError

if TYPE_CHECKING:
    from gemmir.machine.tpu import TpuMachine

LIMIT_SECONDS: Final = 600.0
"""How long one compilation may take, where nothing else is asked for."""

MAX_WORD: Final = 200
"""Characters of the last word of libtpu that are passed on."""

NEEDED: Final = ("jax", "libtpu")
"""The packages that compile for a TPU."""

_FATAL: Final = re.compile(r"^F\d{4} .*?\] (.*)$", re.MULTILINE)
_VMEM: Final = re.compile(r"Scoped allocation with size (\S+) and limit (\S+) exceeded")


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What libtpu compiled: the HLO as it is scheduled, and the bytes of VMEM and of code."""

    hlo: str
    vmem_bytes: int
    code_bytes: int


class EndedError(Exception):
    """libtpu came to no end: `reason` is its last word, or how long it took where it is `late`."""

    def __init__(self, reason: str, *, late: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.late = late


def require_libtpu() -> None:
    """Raise `MissingError` GEM0630 where jax or libtpu is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingError(
            "GEM0630",
            f"compiling for a TPU without one needs {' and '.join(NEEDED)}: there is no "
            f"{' and no '.join(missing)}",
            "pip install gemmir[tpu-aot]",
        )


def versions() -> Mapping[str, str]:
    """The versions of what compiles, which decide what comes of it."""
    return {name: version(name) for name in ("jax", "jaxlib", "libtpu")}


def compile_for(
    machine: TpuMachine, program: Program, *, limit_seconds: float = LIMIT_SECONDS
) -> Compiled:
    """Compile `program` for `machine`.

    Raises `MissingError`: GEM0630 where jax or libtpu is not installed, GEM0631 where this libtpu
    does not know the machine. Raises `ProfileError`: GEM1100 where the file cannot be run, GEM1101
    where JAX cannot lower the function, GEM1102 where libtpu refuses it, GEM1103 where it needs
    more VMEM than it may have, GEM1104 where libtpu ends its process, GEM1105 after
    `limit_seconds`.
    """
    with compiled(machine, program, (), limit_seconds=limit_seconds) as (_, result):
        hlo = result["hlo"]
        return Compiled(hlo=hlo, vmem_bytes=vmem_bytes(ops(hlo)), code_bytes=result["code_bytes"])


@contextmanager
def compiled(
    machine: TpuMachine, program: Program, flags: Sequence[str], *, limit_seconds: float
) -> Generator[tuple[Path, dict[str, Any]]]:
    """A folder with what libtpu dumped, and the worker's result, until the end of the block.

    A `{folder}` in a flag of libtpu stands for that folder. Raises as `compile_for` does.
    """
    try:
        with attempted(machine, program, flags, limit_seconds=limit_seconds) as found:
            yield found
    except EndedError as error:
        what = f"{program.function} for {machine.target}"
        if error.late:
            raise ProfileError(
                "GEM1105",
                f"libtpu has not compiled {what}: {error.reason}",
                "allow more time, or give a smaller problem",
            ) from error
        raise ProfileError(
            "GEM1104", f"libtpu ended its process over {what}: {error.reason}"
        ) from error


@contextmanager
def attempted(
    machine: TpuMachine, program: Program, flags: Sequence[str], *, limit_seconds: float
) -> Generator[tuple[Path, dict[str, Any]]]:
    """As `compiled`, but raises `EndedError` where libtpu ends its process, or is not done."""
    require_libtpu()
    with tempfile.TemporaryDirectory(prefix="gemmir-tpu-") as name:
        folder = Path(name)
        (folder / worker.PROGRAM).write_text(program.to_json())
        (folder / worker.TOPOLOGY).write_text(machine.topology)
        said = _run(folder, flags, limit_seconds)
        path = folder / worker.RESULT
        if not path.is_file():
            raise EndedError(_last_word(said))
        result: dict[str, Any] = json.loads(path.read_text())
        if "failed" in result:
            raise _refusal(machine, program, result["failed"], result["message"])
        yield folder, result


def environment(folder: Path, flags: Sequence[str]) -> dict[str, str]:
    """The environment of the worker.

    JAX stays on the CPU and libtpu asks no metadata server; it need not be the only process that
    has libtpu open.
    """
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "LIBTPU_INIT_ARGS": " ".join(flag.format(folder=folder) for flag in flags),
    }


def _run(folder: Path, flags: Sequence[str], limit: float) -> str:
    """Run the worker to its end; what it wrote on its outputs."""
    command = [sys.executable, "-m", worker.__name__, str(folder)]
    try:
        done = subprocess.run(
            command,
            env=environment(folder, flags),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EndedError(f"it was not done in {limit:g} s", late=True) from error
    return done.stdout.decode(errors="replace")


def _last_word(said: str) -> str:
    """The message of a failed check, or the last line."""
    fatal = _FATAL.search(said)
    lines = [line for line in said.splitlines() if line.strip()]
    found = fatal[1] if fatal else lines[-1] if lines else "it said nothing"
    return found if len(found) <= MAX_WORD else f"{found[:MAX_WORD]}…"


def _refusal(machine: TpuMachine, program: Program, step: str, message: str) -> Exception:
    """The error for a step of the worker that failed."""
    what = f"{program.function} for {machine.target}"
    if step == "topology":
        return MissingError(
            "GEM0631",
            f"libtpu {version('libtpu')} does not know {machine.topology}: {message}",
            "pip install --upgrade gemmir[tpu-aot]",
        )
    if step == "load":
        return ProfileError("GEM1100", f"the file that defines {what} cannot be run: {message}")
    if step == "lower":
        return ProfileError("GEM1101", f"JAX does not lower {what}: {message}")
    if over := _VMEM.search(message):
        return ProfileError(
            "GEM1103",
            f"{what} needs {over[1]}iB of VMEM and may have {over[2]}iB",
            f"use smaller blocks, or allow up to {machine.vmem_bytes_per_core >> 20}MiB",
        )
    return ProfileError("GEM1102", f"libtpu does not compile {what}: {message}")
