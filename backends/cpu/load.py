"""Object files into this process, through LLVM's ORC linker.

One linker serves the whole process; every object file becomes a library of its own in it, which
is unloaded when the last `Loaded` of it is collected. Loading takes about 0.1 ms, a fraction of
what an MCJIT engine for each object takes.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Final

from gemmir.backend import Loaded, threads_variable, tiles_constant
from gemmir.backends.cpu import openmp, pool
from gemmir.backends.cpu.elf import ELF_MACHINES, elf_machine
from gemmir.backends.cpu.permission import ask_for_tiles
from gemmir.errors import BackendError
from gemmir.llvm import LOCK, Jit, Library, TargetMachine, binding
from gemmir.machine.host import architecture, feature_string, host_cpu
from gemmir.signature import Signature

_numbers: Final[Iterator[int]] = itertools.count()


@cache
def _machine() -> TargetMachine:
    host = host_cpu()
    target = binding().Target.from_triple(host.triple)
    return target.create_target_machine(
        cpu=host.name,
        features=feature_string(host.name),
        opt=3,
        reloc="pic",
        codemodel="default",
    )


@cache
def _jit() -> Jit:
    """The linker: JITLink, which asks the system for one piece of memory for each object file.

    RuntimeDyld, the other one, asks for code and constants apart. In a process with little room
    between its mappings they come to lie over 2 GiB from each other, which code cannot span, and
    LLVM ends the process.
    """
    return binding().create_lljit_compiler(_machine(), use_jit_link=True, suppress_errors=True)


@cache
def pool_library() -> Library:
    """The heap of all kernels of this process: see `pool`."""
    text = pool.text(huge_pages=sys.platform == "linux")
    return link(assembled(text), tuple(pool.SYMBOLS.values()), {})


def assembled(text: str) -> bytes:
    """The object file for this computer of LLVM text, which is taken as it stands."""
    llvm = binding()
    with LOCK:
        module = llvm.parse_assembly(text, llvm.create_context())
        module.triple, module.data_layout = host_cpu().triple, str(_machine().target_data)
        module.verify()
        return _machine().emit_object(module)


def load(object_bytes: bytes, signature: Signature) -> Loaded:
    """The function `signature.symbol` of an object file, ready to be called with addresses.

    It does not check that this computer has the instructions that the code uses: see
    `gemmir.machine.host.missing_features`. Raises `BackendError` GEM0403 where the file is for
    another architecture or cannot be linked, and `MissingError` GEM0604 where it needs an OpenMP
    runtime and there is none, GEM0632 where it uses matrix tiles and Linux gives none.
    """
    if tiles_constant(signature.symbol).encode() in object_bytes:
        ask_for_tiles()
    imports = dict(openmp.addresses()) if openmp.is_needed(object_bytes) else {}
    if pool.is_needed(object_bytes):
        with LOCK:
            imports |= {name: pool_library()[symbol] for name, symbol in pool.SYMBOLS.items()}
    variable = threads_variable(signature.symbol)
    variables = (variable,) if variable.encode() in object_bytes else ()
    functions = [
        f for p in signature.packs for f in (signature.of_pack(p), signature.of_compute(p))
    ]
    symbols = (signature.symbol, *variables, *(f.symbol for f in functions))
    linked = link(object_bytes, symbols, imports)
    threads = ctypes.c_int32.from_address(linked[variables[0]]) if variables else None
    return replace(
        _loaded(linked, signature),
        threads=threads,
        others={f.symbol: replace(_loaded(linked, f), threads=threads) for f in functions},
    )


def _loaded(linked: Library, signature: Signature) -> Loaded:
    address = linked[signature.symbol]
    pointers = [ctypes.c_void_p] * len(signature.arguments)
    sizes = [ctypes.c_int64] * len(signature.sizes)
    prototype = ctypes.CFUNCTYPE(ctypes.c_int32, *pointers, *sizes)
    return Loaded(entry=prototype(address), owner=(linked, _jit()), address=address)


def link(object_bytes: bytes, symbols: Sequence[str], imports: Mapping[str, int]) -> Library:
    """An object file that defines `symbols`, linked with what the process and `imports` have.

    Raises `BackendError` GEM0403 as `load` does.
    """
    _require_own_architecture(object_bytes)
    library = binding().JITLibraryBuilder().add_object_img(object_bytes).add_current_process()
    for symbol in symbols:
        library = library.export_symbol(symbol)
    for name, address in imports.items():
        library = library.import_symbol(name, address)
    with LOCK:
        try:
            return library.link(_jit(), f"gemmir-{next(_numbers)}")
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise BackendError(
                "GEM0403",
                f"the object file cannot be loaded: {reason}",
                f"it must define {', '.join(symbols)} and call only what this process has",
            ) from error


def _require_own_architecture(object_bytes: bytes) -> None:
    """LLVM ends the process when it is given an object file for another architecture."""
    number = elf_machine(object_bytes)
    if number is None:
        if object_bytes[:4] == b"\xcf\xfa\xed\xfe":  # Mach-O, which one computer has one kind of
            return
        raise BackendError("GEM0403", f"these {len(object_bytes)} bytes are not an object file")
    own = architecture(host_cpu().triple)
    if ELF_MACHINES.get(number) != own:
        raise BackendError(
            "GEM0403",
            f"the object file is for {ELF_MACHINES.get(number, f'machine {number}')}, "
            f"and this computer is {own}",
            "run it on such a computer",
        )
