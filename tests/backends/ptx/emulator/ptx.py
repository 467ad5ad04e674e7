"""Small kernels around a few instructions: each thread has its own inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gemmir.backends.ptx.emulator import Report, emulate

Array = npt.NDArray[Any]

HEAD = ".version 8.0\n.target sm_90\n.address_size 64\n"

WORDS = {1: "b8", 2: "b16", 4: "b32", 8: "b64"}

REGISTERS = """
.reg .pred %p, %q, %t;
.reg .b16 %h<20>;
.reg .b32 %r<60>;
.reg .b64 %d<60>;
mov.u32 %r50, %tid.x;
"""
"""For the instructions of a test, which also find the number of their thread in %r50."""


def kernel(body: str, parameters: int = 0, shared: str = "", scalars: str = "") -> str:
    """A kernel `k` whose first `parameters` are pointers, in %d50 and after, and then `scalars`."""
    kinds = [(f"p{n}", "u64") for n in range(parameters)]
    kinds += [(f"s{n}", kind) for n, kind in enumerate(scalars.split())]
    declared = ", ".join(f".param .{kind} {name}" for name, kind in kinds)
    loads = "".join(f"ld.param.u64 %d{50 + n}, [p{n}];\n" for n in range(parameters))
    return (
        f"{HEAD}.visible .entry k({declared})\n{{\n{REGISTERS}{shared}\n{loads}{body}\nret;\n}}\n"
    )


def launch(
    text: str, arguments: Sequence[Any], threads: int = 32, blocks: int = 1, **options: Any
) -> Report:
    return emulate(text, arguments, grid=(blocks, 1, 1), block=(threads, 1, 1), **options)


def run(
    instructions: str,
    inputs: Sequence[Array],
    outputs: Sequence[tuple[str, type[np.generic]]],
    *,
    registers: Sequence[str] = (),
    threads: int = 0,
) -> list[Array]:
    """What `instructions` leave in registers, one value a thread.

    `inputs` are loaded into `registers`, by default %h, %r or %d by their width, numbered from 0.
    `outputs` name registers and the types that they are read as.
    """
    count = threads or len(inputs[0])
    names = list(registers) or [
        f"%{ {2: 'h', 4: 'r', 8: 'd'}[a.itemsize] }{n}" for n, a in enumerate(inputs)
    ]
    lines: list[str] = []
    for number, (name, array) in enumerate(zip(names, inputs, strict=True)):
        lines.append(f"mad.wide.u32 %d49, %r50, {array.itemsize}, %d{50 + number};")
        lines.append(f"ld.global.{WORDS[array.itemsize]} {name}, [%d49];")
    lines.append(instructions)
    results: list[Array] = []
    for number, (name, kind) in enumerate(outputs):
        results.append(np.zeros(count, kind))
        width = results[-1].itemsize
        lines.append(f"mad.wide.u32 %d49, %r50, {width}, %d{50 + len(inputs) + number};")
        lines.append(f"st.global.{WORDS[width]} [%d49], {name};")
    text = kernel("\n".join(lines), len(inputs) + len(outputs))
    launch(text, [*(np.ascontiguousarray(a) for a in inputs), *results], count)
    return results


def result(instruction: str, *inputs: Array, to: type[np.generic], register: str = "") -> Array:
    """What one instruction leaves in the register that it names first."""
    target = register or instruction.split()[1].rstrip(",")
    return run(instruction, inputs, [(target, to)])[0]
