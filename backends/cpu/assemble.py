"""LLVM text to object files, assembly, shared libraries and C headers.

LLVM's code generator runs at its highest level and its optimisation passes not at all: the loops
are already scheduled and the accumulators are phis, so the passes would only cost time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final

from gemmir.backend import Artifact, threads_variable
from gemmir.backends.cpu import openmp
from gemmir.backends.cpu.elf import elf_architecture
from gemmir.errors import BackendError, MissingError
from gemmir.llvm import LOCK, Module, TargetMachine, binding_for_all
from gemmir.machine.host import architecture, feature_string, host_cpu, triple_for
from gemmir.signature import Argument, Pack, Signature
from gemmir.sizes import Unknown

COMPILERS: Final = ("cc", "gcc", "clang")
"""C compilers that can link, in the order in which they are looked for."""

CROSS_COMPILERS: Final = {
    "aarch64": ("aarch64-linux-gnu-gcc",),
    "x86_64": ("x86_64-linux-gnu-gcc",),
}
"""Those for another architecture than this computer's, by the names that Debian and Fedora have."""

C_TYPES: Final = {
    "f32": "float",
    "f64": "double",
    "i32": "int32_t",
    "i16": "int16_t",
    "i8": "int8_t",
    "u8": "uint8_t",
    "i4": "uint8_t",
    "f16": "uint16_t",
    "bf16": "uint16_t",
}
"""The C type of an element of an array; C has no portable names for floats of 16 bits: these are
their bits. Of i4 it is the byte of two elements, the first one low."""

RESERVED: Final = """
alignas alignof asm auto bool break case catch char class const constexpr continue default delete
do double else enum export extern false float for friend goto if inline int int32_t long namespace
new nullptr operator private protected public register restrict return short signed sizeof static
struct switch template this throw true try typedef typename union unsigned using virtual void
volatile while
"""
"""Words that cannot name a parameter in a header for C and C++."""


@cache
def target_machine(cpu: str) -> TargetMachine:
    """LLVM's code generator for `cpu`, position-independent, at its highest level."""
    target = binding_for_all().Target.from_triple(triple_for(cpu))
    return target.create_target_machine(
        cpu=cpu, features=feature_string(cpu), opt=3, reloc="pic", codemodel="default"
    )


def assemble(artifact: Artifact) -> bytes:
    """The object file of `artifact`; `BackendError` GEM0401 where LLVM refuses its text."""
    with LOCK:
        machine = target_machine(artifact.cpu)
        return machine.emit_object(_parsed(artifact, machine))


def assembly(artifact: Artifact) -> str:
    """The assembly text of `artifact`; `BackendError` GEM0401 where LLVM refuses its text."""
    with LOCK:
        machine = target_machine(artifact.cpu)
        return machine.emit_assembly(_parsed(artifact, machine))


def _parsed(artifact: Artifact, machine: TargetMachine) -> Module:
    llvm = binding_for_all()
    try:
        module = llvm.parse_assembly(artifact.text, llvm.create_context())
        module.triple = triple_for(artifact.cpu)
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BackendError("GEM0401", f"LLVM refuses the emitted text: {reason}") from error
    return module


def shared_library(
    *objects: bytes, exported: Sequence[str] = (), heap: Mapping[str, str] | None = None
) -> bytes:
    """Object files of `assemble` as one shared library, linked by the C compiler found on PATH.

    It exports the symbols `exported`, by default all. Functions of the C library that `heap` names
    are called by the name that it gives them, and have the prefix `__real_` themselves. For another
    architecture it takes a cross compiler. Raises `MissingError` GEM0603 without a compiler, and
    `BackendError` GEM0402 where it cannot link.
    """
    own = architecture(host_cpu().triple)
    compiler = compiler_for(elf_architecture(objects[0]) or own)
    with tempfile.TemporaryDirectory(prefix="gemmir-") as folder:
        result, script = Path(folder, "kernel.so"), Path(folder, "kernel.map")
        sources = [Path(folder, f"kernel{number}.o") for number in range(len(objects))]
        for source, data in zip(sources, objects, strict=True):
            source.write_bytes(data)
        threads = ["-lgomp"] if any(map(openmp.is_needed, objects)) else []
        script.write_text(_version_script(exported))
        limits = [f"-Wl,--version-script={script}"] if exported else []
        for name, own in (heap or {}).items():
            limits.append(f"-Wl,--wrap={name},--defsym=__wrap_{name}={own}")
        _link([compiler, "-shared", "-o", str(result), *map(str, sources), *limits, *threads])
        return result.read_bytes()


def _version_script(exported: Sequence[str]) -> str:
    """What tells the linker to export these symbols and no other."""
    return f"{{ global: {' '.join(f'{name};' for name in exported)} local: *; }};\n"


def compiler_for(wanted: str) -> str:
    """The C compiler on PATH that links for an architecture; `MissingError` GEM0603 if none."""
    own = architecture(host_cpu().triple)
    names = COMPILERS if wanted == own else CROSS_COMPILERS[wanted]
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        raise MissingError(
            "GEM0603",
            f"linking a shared library needs a C compiler, and none of {', '.join(names)} "
            "is on PATH",
            "install one, or write the object file and link it elsewhere",
        )
    return compiler


def _link(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())
        raise BackendError(
            "GEM0402",
            f"{command[0]} cannot link the object file: {reason}",
            "link it with a compiler for the target's architecture",
        )


def header(signature: Signature, *, is_threaded: bool = False, has_tiles: bool = False) -> str:
    """The C and C++ header of a compiled function, with its variable if it runs on threads.

    Where it uses matrix tiles it says what a process has to do first.

    Raises `BackendError` GEM0404 where the symbol is not a C identifier.
    """
    if not _is_identifier(signature.symbol):
        raise BackendError(
            "GEM0404",
            f"the symbol {signature.symbol!r} is not a C identifier",
            "name the function with letters, digits and underscores",
        )
    names = parameter_names(signature.arguments)
    sizes = [f"int64_t {name}" for name in signature.sizes]
    return HEADER.format(
        guard=f"GEMMIR_{signature.symbol.upper()}_H",
        title=f"one GEMM of any {', '.join(signature.sizes)}"
        if sizes
        else "one GEMM of fixed shape",
        symbol=signature.symbol,
        operands="\n".join(map(_operand_comment, names, signature.arguments)),
        parameters=",\n    ".join([*map(_parameter, names, signature.arguments), *sizes]),
        packs="".join(map(partial(_pack_declarations, signature), signature.packs)),
        threads=THREADS.format(name=threads_variable(signature.symbol)) if is_threaded else "",
        tiles=PERMISSION if has_tiles else "",
    )


PACKS: Final = """
/* Packs {operand} into {elements} elements, {layout}. Returns 0. */
int32_t {symbol}(
    {pack});

/* The same as {whole}, with {operand} as {symbol} has packed it. */
int32_t {compute}(
    {parameters});
"""

THREADS: Final = """
/* On how many threads it runs; 0, as it is at first, for as many as OpenMP says. */
extern int32_t {name};
"""

PERMISSION: Final = """ *
 * It uses matrix tiles (Intel AMX), whose registers a process has to ask Linux for, once before the
 * first call: syscall(SYS_arch_prctl, 0x1023, 18) returns 0 where it gets them.
"""

HEADER: Final = """\
/* Generated by gemmir: {title}.
 *
 * Operands (strides in elements, each array aligned to its element):
{operands}
 *
 * Returns 0 when the output is written, or 1 when memory for packed operands could not be
 * allocated; the output is then untouched. The output must not overlap any other operand.
 * The function may be called from several threads at once.
{tiles} */
#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

int32_t {symbol}(
    {parameters});
{packs}{threads}
#ifdef __cplusplus
}}
#endif

#endif /* {guard} */
"""


def _pack_declarations(signature: Signature, pack: Pack) -> str:
    """The two functions of an operand that may be packed before a call."""
    filled, compute = (
        ",\n    ".join(map(_parameter, parameter_names(f.arguments), f.arguments))
        for f in (signature.of_pack(pack), signature.of_compute(pack))
    )
    return PACKS.format(
        operand=pack.operand,
        elements=pack.elements,
        layout=pack.layout,
        symbol=pack.symbol,
        compute=pack.compute,
        whole=signature.symbol,
        pack=filled,
        parameters=compute,
    )


def parameter_names(arguments: Sequence[Argument]) -> tuple[str, ...]:
    """A C name for each argument: its own where C allows, and otherwise its place."""
    own = [argument.name for argument in arguments]
    fit = all(map(_is_identifier, own)) and len(set(own)) == len(own)
    return tuple(own) if fit else tuple(f"operand{i}" for i in range(len(own)))


def _is_identifier(name: str) -> bool:
    return (
        re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None and name not in RESERVED.split()
    )


def _operand_comment(name: str, argument: Argument) -> str:
    shape = " x ".join(map(_number, argument.stored_shape)) or "scalar"
    strides = ", ".join(map(_number, argument.stored_strides))
    use = {"read": "read", "write": "written", "readwrite": "read and written"}[argument.access]
    return f" *   {name}: {C_TYPES[argument.dtype]}, {shape}, strides ({strides}), {use}"


def _number(value: int) -> str:
    return value.name if isinstance(value, Unknown) else str(value)


def _parameter(name: str, argument: Argument) -> str:
    const = "const " if argument.access == "read" else ""
    return f"{const}{C_TYPES[argument.dtype]} *__restrict {name}"
