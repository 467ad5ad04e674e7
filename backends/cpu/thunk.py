"""The functions of CPython that stand before kernels: thunk.ll, compiled and linked.

They serve every kernel of the process, whatever it takes: what differs is in their tables. This
file knows LLVM and the addresses in this process; `gemmir.thunk` knows the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from gemmir.backend import Artifact
from gemmir.backends.cpu.load import link
from gemmir.llvm import Library
from gemmir.machine.host import host_cpu
from gemmir.signature import Signature

TEXT: Final = Path(__file__).with_suffix(".ll")
"""The functions, but for the one that calls a kernel."""

MOST: Final = 16
"""Arguments that a kernel may have; one with more is called from Python."""

SYMBOLS: Final = ("gemmir_call", "gemmir_bound", "gemmir_matmul")
"""What thunk.ll defines for CPython to call."""

SIGNATURE: Final = Signature(symbol=SYMBOLS[0], arguments=())
"""What the object cache keeps beside the code."""


def text() -> str:
    """LLVM text of all functions."""
    return TEXT.read_text() + _jump(range(1, MOST + 1))


def assemble() -> bytes:
    """The object file of `text` for this computer."""
    from gemmir.backends.cpu.assemble import assemble as assemble_artifact

    artifact = Artifact(kind="llvm", text=text(), signature=SIGNATURE, cpu=host_cpu().name)
    return assemble_artifact(artifact)


def link_thunk(object_bytes: bytes, imports: Mapping[str, int]) -> Library:
    """The functions in this process; `imports` are those of CPython and NumPy that they call."""
    return link(object_bytes, SYMBOLS, imports)


def _jump(counts: Iterable[int]) -> str:
    """A function that calls another with so many addresses as it is told."""
    counts = list(counts)
    cases = " ".join(f"i64 {n}, label %call{n}" for n in counts)
    lines = [
        "define internal i32 @jump(ptr %entry, i64 %count, ptr %addresses) {",
        f"  switch i64 %count, label %none [ {cases} ]",
    ]
    for n in counts:
        lines.append(f"call{n}:")
        for i in range(n):
            lines.append(f"  %p{n}.{i} = getelementptr ptr, ptr %addresses, i64 {i}")
            lines.append(f"  %a{n}.{i} = load ptr, ptr %p{n}.{i}")
        arguments = ", ".join(f"ptr %a{n}.{i}" for i in range(n))
        lines.append(f"  %status{n} = call i32 %entry({arguments})")
        lines.append(f"  ret i32 %status{n}")
    lines += ["none:", "  unreachable", "}", ""]
    return "\n".join(lines)
