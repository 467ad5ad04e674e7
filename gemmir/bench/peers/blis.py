"""BLIS, as the system's loader finds it."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from ctypes.util import find_library
from typing import Final

from gemmir.bench.entrant import Settings, UnableError
from gemmir.bench.peers.cblas import Cblas, gemm_addresses
from gemmir.machine.host import host_cpu

GENERIC: Final = "generic"
"""BLIS's name of the kernels in plain C, which it takes for a CPU that it does not know."""

LIKE: Final = "zen3"
"""The kernels to take then, on an x86-64 that has AVX2 and FMA."""

CHOICE: Final = "BLIS_ARCH_TYPE"
"""The variable by which BLIS is told which kernels to take: a number, by its own list of names."""

ASK: Final = """
import ctypes, json, sys
library = ctypes.CDLL(sys.argv[1])
library.bli_arch_string.restype = ctypes.c_char_p
chosen = library.bli_arch_query_id()
print(json.dumps([chosen, [library.bli_arch_string(i).decode() for i in range(chosen + 1)]]))
"""
"""What BLIS chooses by itself, which it does once in a process, and the names up to that one."""


def find(settings: Settings) -> Cblas:
    """The library; where it does not know this CPU, with its kernels for Zen 3."""
    file = find_library("blis")
    if file is None:
        raise UnableError("the system has no libblis")
    told = "" if CHOICE in os.environ else _tell(file)
    library = ctypes.CDLL(file)
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


def _tell(file: str) -> str:
    """Choose the kernels for Zen 3 where BLIS would take the generic ones."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, file], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UnableError(f"{file} does not tell its kernels: {done.stderr.strip()[-200:]}")
    chosen, names = json.loads(done.stdout)
    features = host_cpu().features
    if names[chosen] != GENERIC or not (features.get("avx2") and features.get("fma")):
        return ""
    os.environ[CHOICE] = str(names.index(LIKE))
    return f", by {CHOICE}: it does not know this CPU"
