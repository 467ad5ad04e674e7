"""Runs a kernel: blocks one after another, on the memory of the caller."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from gemmir.backends.ptx.emulator.faults import PtxFault
from gemmir.backends.ptx.emulator.marks import WARP
from gemmir.backends.ptx.emulator.memory import GUARD, Memory
from gemmir.backends.ptx.emulator.parse import PtxKernel, parse
from gemmir.backends.ptx.emulator.program import Program, program_of
from gemmir.backends.ptx.emulator.report import Access, Report
from gemmir.backends.ptx.emulator.schedule import run_block
from gemmir.backends.ptx.emulator.state import Block, Machine
from gemmir.backends.ptx.emulator.values import WIDTHS, Array

Triple: TypeAlias = tuple[int, int, int]

Argument: TypeAlias = "Array | np.generic[Any]"


def emulate(
    text: str,
    arguments: Sequence[Argument],
    *,
    grid: Triple,
    block: Triple,
    kernel: str | None = None,
    shared_bytes: int = 0,
    seed: int | None = None,
    blank: Mapping[int, Array] | None = None,
) -> Report:
    """Run the kernel of `text`, in place.

    `arguments` are 1-D arrays, which stand for buffers, and NumPy scalars. `shared_bytes` is the
    size of `.extern .shared` memory. With a `seed` the warps of a block run in random order.
    `blank` says of some buffers, by their number among the buffers, which bytes hold nothing yet;
    what is written is taken out of it.

    Raises `PtxFault` GEM1001 to GEM1010 for the first thing that is wrong.
    """
    found = parse(text, kernel)
    _require_fit(found, block, len(arguments))
    buffers = [a.view(np.uint8) for a in arguments if isinstance(a, np.ndarray)]
    memory = _global_memory(found, arguments, buffers)
    memory.begin_blank(blank or {})
    parameters = _parameters(found, arguments, memory)
    count = block[0] * block[1] * block[2]
    program = program_of(found, count, parameters, shared_bytes)
    machine = Machine(memory)
    counts = [0] * len(program.steps)
    shuffle = None if seed is None else random.Random(seed)
    try:
        with np.errstate(all="ignore"):
            for z, y, x in itertools.product(*(range(n) for n in reversed(grid))):
                run_block(
                    program,
                    _block(program, machine, (x, y, z), grid, block),
                    (x, y, z),
                    counts,
                    shuffle,
                )
    finally:
        for number, buffer in enumerate(buffers):
            buffer[:] = memory.buffer(number)
        for number, mask in (blank or {}).items():
            mask[:] = memory.blank_of(number)
    return _report(program, machine, counts)


def _require_fit(kernel: PtxKernel, block: Triple, arguments: int) -> None:
    if kernel.threads not in (None, block) or len(kernel.parameters) != arguments:
        raise PtxFault(
            "GEM1007",
            f"{kernel.name} is for blocks of {kernel.threads} threads and "
            f"{len(kernel.parameters)} arguments, and is launched with {block} and {arguments}",
        )
    if math.prod(block) > kernel.most_threads:
        raise PtxFault(
            "GEM1007",
            f"{kernel.name} is launched with {math.prod(block)} threads to a block, and at most "
            f"{kernel.most_threads} are possible",
        )


def _global_memory(
    kernel: PtxKernel, arguments: Sequence[Argument], buffers: list[Array]
) -> Memory:
    """A copy of all buffers; each begins at a multiple of 256."""
    starts: list[int] = []
    start = GUARD
    for buffer in buffers:
        starts.append(start)
        start += -(-buffer.size // 256) * 256 + GUARD
    pairs = zip(kernel.parameters, arguments, strict=True)
    names = [name for (name, _), a in pairs if isinstance(a, np.ndarray)]
    memory = Memory("global", names, starts, [b.size for b in buffers])
    for number, buffer in enumerate(buffers):
        memory.buffer(number)[:] = buffer
    return memory


def _parameters(
    kernel: PtxKernel, arguments: Sequence[Argument], memory: Memory
) -> dict[str, Array]:
    """The bytes of each parameter: an address or a scalar."""
    addresses = iter(memory.starts)
    found: dict[str, Array] = {}
    for (name, kind), argument in zip(kernel.parameters, arguments, strict=True):
        is_buffer = isinstance(argument, np.ndarray)
        value = np.array([next(addresses)], np.uint64) if is_buffer else np.array([argument])
        if value.itemsize != WIDTHS.get(kind):
            raise PtxFault(
                "GEM1007", f"{name} is a .{kind}, and its argument has {value.itemsize} bytes"
            )
        found[name] = value.view(np.uint8)
    return found


def _block(program: Program, machine: Machine, at: Triple, grid: Triple, block: Triple) -> Block:
    thread = np.arange(program.count, dtype=np.uint32)
    own = (thread % block[0], thread // block[0] % block[1], thread // (block[0] * block[1]))
    special = {"%laneid": thread % WARP, "%warpid": thread // WARP}
    for axis, name in enumerate("xyz"):
        special[f"%tid.{name}"] = own[axis]
        special[f"%ntid.{name}"] = np.full(program.count, block[axis], np.uint32)
        special[f"%ctaid.{name}"] = np.full(program.count, at[axis], np.uint32)
        special[f"%nctaid.{name}"] = np.full(program.count, grid[axis], np.uint32)
    names, starts, sizes = zip(*program.shared, strict=True) if program.shared else ((), (), ())
    registers = len(program.kernel.registers)
    return Block(
        machine=machine,
        count=program.count,
        special=special,
        shared=Memory("shared", names, starts, sizes),
        values=[None] * registers,
        complete=[False] * registers,
        written=[None] * registers,
    )


def _report(program: Program, machine: Machine, counts: list[int]) -> Report:
    instructions: Counter[str] = Counter()
    for step, count in zip(program.steps, counts, strict=True):
        if count:
            instructions[step.instruction.name[0]] += count
    found: dict[str, list[Access]] = {"shared": [], "global": []}
    for (space, place), tally in machine.traffic.tallies.items():
        code = program.steps[place].instruction
        found[space].append(
            Access(line=code.line, text=code.text, ratio=tally.ratio, runs=tally.runs)
        )
    return Report(
        instructions=dict(instructions),
        shared=tuple(found["shared"]),
        global_=tuple(found["global"]),
    )
