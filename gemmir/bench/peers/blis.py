"""BLIS, as the system's loader finds it."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from ctypes.util import find_library
from typing import Final

from gemmir.bench.contestants import AVX512_BYTES
from gemmir.bench.entrant import Settings, UnableError
from gemmir.bench.peers.cblas import Cblas, gemm_addresses
from gemmir.machine import CpuMachine, machine_for

GENERIC: Final = "generic"
"""BLIS's name of the kernels in plain C, which it takes for a CPU that it does not know."""

WIDE: Final = ("skx", "zen3", "haswell")
NARROW: Final = ("zen3", "haswell")
"""The kernels to take then, the first that it has: with AVX-512, and with AVX2 and FMA."""

CHOICE: Final = "BLIS_ARCH_TYPE"
"""The variable by which BLIS is told which kernels to take: a number, by its own list of names."""

ASK: Final = """
import ctypes, json, sys
library = ctypes.CDLL(sys.argv[1])
library.bli_arch_string.restype = ctypes.c_char_p
library.bli_init()
names = [library.bli_arch_string(i) for i in range(24)]
print(json.dumps([library.bli_arch_query_id(), [(name or b"").decode() for name in names]]))
"""
"""What BLIS chooses, once in a process, and its names; kernels that it lacks end the process."""


def find(settings: Settings) -> Cblas:
    """The library; where it does not know this CPU, with kernels that the target can run."""
    file = find_library("blis")
    if file is None:
        raise UnableError("the system has no libblis")
    told = "" if CHOICE in os.environ else _tell(file, settings.target)
    library = ctypes.CDLL(file)
    library.bli_init()
    library.bli_thread_set_num_threads(ctypes.c_long(settings.threads))
    for name in ("bli_info_get_version_str", "bli_arch_string"):
        getattr(library, name).restype = ctypes.c_char_p
    version: bytes = library.bli_info_get_version_str()
    code_path: bytes = library.bli_arch_string(library.bli_arch_query_id())
    return Cblas(
        about={"version": version.decode(), "file": file, "code_path": code_path.decode() + told},
        integer="i32",
        addresses=gemm_addresses(library, "{}"),
        batched={},
    )


def _tell(file: str, target: str) -> str:
    """Choose better kernels where BLIS would take the generic ones; "" where it would not."""
    found = _asked(file)
    if found is None:
        raise UnableError(f"{file} does not tell its kernels")
    chosen, names = found
    machine = machine_for(target)
    assert isinstance(machine, CpuMachine)
    if chosen < len(names) and names[chosen] != GENERIC:
        return ""
    for name in WIDE if machine.vector_bytes == AVX512_BYTES else NARROW:
        if name in names and _asked(file, str(names.index(name))) is not None:
            os.environ[CHOICE] = str(names.index(name))
            return f", by {CHOICE}: it does not know this CPU"
    return ""


def _asked(file: str, choice: str | None = None) -> tuple[int, list[str]] | None:
    """The number of the kernels that BLIS takes, and its names; None where it ends itself."""
    told = {} if choice is None else {CHOICE: choice}
    done = subprocess.run(
        [sys.executable, "-c", ASK, file],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **told},
    )
    return None if done.returncode else tuple(json.loads(done.stdout))
